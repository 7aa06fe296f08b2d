//! What Shotgun data is: names, values, filters, the schema of a site and the wire form.
//!
//! The vocabulary that a client of a site, a cache of it and a simulation of it share. It
//! knows no files, no network, no database and no clock: everything here is a value, or a
//! function from values to values.
//!
//! The modules are listed in the order of their dependencies: a module may use those above
//! it and never those below (`tests/it/layers.rs`).

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod entity;
pub mod filter;
pub mod schema;
pub mod entity_config;
pub mod api3;
