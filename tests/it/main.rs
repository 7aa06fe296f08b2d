//! The integration tests, one binary.

mod elastic_proxy;
mod elastic_transport;
mod layers;
mod ops_listener;
mod servers;
