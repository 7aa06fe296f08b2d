//! Tests of pipelines, one file per concern.

mod loading;
