//! The read proxy: a site as far as any program can tell, answered from the
//! cache where that is provably what the site would say.
//!
//! - `envelope`: a body into a request, at a bounded cost.
//! - `decide`: one pure function, request and catalogue in, serve or pass out;
//!   `question` reads the request strictly, `supported_filters` and `settings` say which
//!   conditions may be answered, `reason` why not, `explain` says it in words;
//!   `advice` finds what to change.
//! - `catalogue`: what decisions depend on besides the request; `freshness` keeps it up
//!   to date.
//! - `callers`: who asks; `credential` and `credential_key` make the digest of a credential,
//!   `credential_proof` reads what an answer proves about it, `credential_cache` keeps that;
//!   `session_owner` asks whose a session token is, `session_bindings` keeps that;
//!   `visibility` says what the scope of a caller hides.
//! - `write_effects`, `rest_effects`, `effect_lookup`: what a write may have changed;
//!   `pending_writes` which answers depend on it, `write_confirmation` when no more,
//!   and `site_lag` whether the site itself still hides it (`answered_values`).
//! - `tls_listener`, `listener`: requests come in, `memory` bounds what they take; `call` answers one of the JSON API,
//!   `answer` from the store (in `costly` in turns), `upstream` from the site; `passthrough` streams all the rest;
//!   `shadow` compares the two; `schema_cache` keeps `info` and schemas; `access_log` writes one line per call,
//!   and `ledger_feed` counts it.
//!
//! The proxy never writes to the store. Pipelines and schedules are not known
//! here.

mod address_cache;
mod answer;
pub mod answered_values;
mod access_log;
pub mod advice;
mod call;
mod callers;
pub mod catalogue;
mod costly;
mod credential;
mod credential_cache;
mod credential_key;
mod credential_proof;
pub mod decide;
mod effect_lookup;
mod freshness;
mod ledger_feed;
pub mod tls_listener;
mod rest_effects;
mod write_call;
mod write_confirmation;
pub mod write_effects;
pub mod written_values;
mod envelope;
mod in_flight;
pub mod explain;
pub mod listener;
mod memory;
mod outcome;
mod pending_writes;
mod plan_cache;
mod progress;
pub mod supported_filters;
mod question;
mod passthrough;
pub mod reason;
mod revival;
mod schema_cache;
mod session_bindings;
mod session_owner;
mod site_lag;
mod slots;
pub mod settings;
pub mod shadow;
pub mod summary;
mod unnoted_write;
mod upstream;
mod verification;
mod visibility;

pub use crate::server::{ConnectionBounds, Tls};
pub use catalogue::Catalogue;
pub use decide::{Asked, Decision, ReadPlan, Scope, Serve, SummaryPlan, decide};
pub use freshness::{Leader, Wake};
pub use listener::{Parts, Proxy, ProxyError};
pub use pending_writes::{PendingWrite, PendingWrites};
pub use question::{Needs, Question};
pub use reason::{Advice, Pass, Reason};
pub use schema_cache::max_page;
pub use settings::{CallerName, CallerRule, Limits, Mode, OnDirty, Semantics, Settings};
pub use tls_listener::{ApiListener, ApiListenerError};

#[cfg(test)]
mod decoder_tests;
#[cfg(test)]
mod pending_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod visibility_tests;
