//! The integration tests, one binary.

mod elastic_agreement;
mod elastic_cluster;
mod elastic_conformance;
mod elastic_proxy;
mod elastic_secured;
mod elastic_store;
mod elastic_transport;
mod layers;
mod metrics_dashboard;
mod metrics_live;
mod metrics_rules;
mod ops_listener;
mod pipelines_shipped;
mod prometheus;
mod report_elastic;
mod scenarios;
mod servers;
mod sim_http;
mod store_conformance;
mod store_embedded;
mod store_property;
mod store_world;
mod sync_cache;
mod sync_follow;
