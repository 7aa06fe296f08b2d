//! Pipelines: files, plans, runs.
