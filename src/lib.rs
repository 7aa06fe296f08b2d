//! sgcache keeps a live, checked, queryable replica of the part of a Shotgun
//! site (ShotGrid, Autodesk Flow Production Tracking) that a studio needs.
//!
//! The modules are listed in the order of their dependencies: a module may use
//! those above it and never those below. `tests/it/layers.rs` checks that;
//! `docs/ARCHITECTURE.md` shows the picture.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub use config_file as yaml;
pub use shotgun_model::{api3, entity, entity_config, filter, schema};
pub use shotgun_sim as sim;

pub mod entity_config_files;
pub mod metrics;
pub mod supervisor;
pub mod private_files;
pub mod redaction;
pub mod retry;
pub mod budget;
pub mod elastic;
pub mod shotgun;
pub mod state;
pub mod store;
pub mod sync;
pub mod report;
pub mod validate;
pub mod pipeline;
pub mod server;
pub mod proxy;
pub mod config;
pub mod cli;
