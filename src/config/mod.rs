//! config.yaml and the environment.
