//! The HTTP listeners of the daemon.
//!
//! - `ops`: metrics, health, status, the control API and the status page.
//! - `status`: what the ops listener shows, and when it calls itself ready.
//! - `control`: the token with which a local user may change things.
//! - `listen`: a bound address that serves until it is told to stop.
//!
//! A listener asks for what it shows and hands on what it is asked to do; it
//! starts no job by itself and holds no lock of those who do.

pub mod control;
pub mod listen;
pub mod ops;
pub mod status;

pub use control::Control;
pub use listen::{BindError, Bound};
pub use ops::{Heartbeat, Ops, RunsQuery, TriggerRefused, TriggerRequest};
pub use status::{
    ImportProgress, LagPoint, PipelineStatus, Reason, RunSummary, StatusSnapshot, StoreStatus, SyncStatus, TypeState,
    TypeStatus, readiness,
};
