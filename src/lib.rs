//! sgcache keeps a live, checked, queryable replica of the part of a Shotgun
//! site (ShotGrid, Autodesk Flow Production Tracking) that a studio needs.
//!
//! The modules are listed in the order of their dependencies: a module may use
//! those above it and never those below. `tests/it/layers.rs` checks that;
//! `docs/ARCHITECTURE.md` shows the picture.

pub mod api3;
pub mod budget;
pub mod cli;
pub mod config;
pub mod elastic;
pub mod entity;
pub mod entity_config;
pub mod filter;
pub mod metrics;
pub mod pipeline;
pub mod report;
pub mod retry;
pub mod schema;
pub mod server;
pub mod shotgun;
pub mod sim;
pub mod state;
pub mod store;
pub mod sync;
pub mod validate;
pub mod yaml;
