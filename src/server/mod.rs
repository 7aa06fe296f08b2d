//! The HTTP listeners of the daemon.
//!
//! - `ops`: what the ops listener shows and hands on; `routes`: metrics, health, status, the
//!   control API and the status page.
//! - `status`: what the ops listener shows, and when it calls itself ready; `health`:
//!   how it is, in words.
//! - `details`: what the page shows when one looks closer; `page`: its files.
//! - `control`: the token with which a local user may change things; `control_api`: the
//!   requests that need it; `operation`: what they ask for; `events`: the live stream, `run_events`
//!   what feeds it.
//! - `listen`: the bound ops listener; `access`: whom it answers.
//! - `http_server`: serves a router within bounds; the api listener uses it as well.
//!   `connections` says which connection yields, `stream` reports what moves on each,
//!   `tls` encrypts.
//!
//! A listener asks for what it shows and hands on what it is asked to do; it
//! starts no job by itself and holds no lock of those who do.

mod access;
pub mod connections;
pub mod control;
mod control_api;
pub mod details;
mod events;
pub mod health;
mod http_server;
pub mod listen;
pub mod operation;
pub mod ops;
mod page;
mod routes;
mod run_events;
mod refusal;
pub mod status;
mod stream;
mod tls;

pub use access::{OpsAccess, OpsToken};
pub use connections::{CloseReason, Connection, ConnectionBounds, Peer};
pub use control::Control;
pub use health::{Answer, Health, Level, Span};
pub use http_server::{HttpServer, Refusals};
pub use listen::{BindError, Bound};
pub use operation::{DeadLetterSelection, Operation, Refusal, RefusalKind, Resumed, TriggerRequest};
pub use ops::{Ops, RunsQuery};
pub use run_events::RunEvents;
pub use status::{
    ImportProgress, LagPoint, PipelineStatus, Reason, RunSummary, Serving, StatusSnapshot, StoreStatus, SyncStatus,
    TypeState, TypeStatus, WaitingStatus, readiness,
};
pub use stream::BodyCut;
pub use tls::Tls;
