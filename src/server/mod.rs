//! The HTTP listeners of the daemon.
