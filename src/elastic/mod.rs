//! The Elasticsearch transport: endpoints, dead nodes, retries, bulk items,
//! error bodies, which server is at the other end.
//!
//! No other module calls the `elasticsearch` crate. It has no retries, no dead-node
//! marking and no connect timeout, and used the obvious way it throws the body
//! of an error away, so only its lowest call is used here and the rest is ours.
//! This module does not know what is indexed: paths, bodies and document ids
//! come from the callers.
//!
//! - [`Client::send`] makes one [`Call`] and gives an [`Answer`] or an [`Error`]
//!   that names URL, call, status and the server's own reason.
//! - [`Client::bulk`] sends [`BulkOp`]s in chunks and says for each what became of it.
//! - [`Client::server`] finds out flavour and version.

mod answer;
mod bulk;
mod call;
mod client;
mod endpoints;
mod error;
mod item;
mod limits;
mod server;
mod settings;

pub use answer::Answer;
pub use bulk::{BulkOp, VersionType};
pub use call::Call;
pub use client::{Client, WriteGuard};
pub use error::{Error, ErrorKind, Result};
pub use item::ItemOutcome;
pub use server::{Flavour, Server};
pub use settings::{Auth, RetryLimits, Secret, Settings, Timeouts};
