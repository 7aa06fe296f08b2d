//! The Elasticsearch transport.
