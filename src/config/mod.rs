//! `config.yaml` and the environment, read into a [`Config`].
//!
//! What was written (`file`) and what was resolved (`settings`) are two
//! sets of types. Every problem of the file is found in one pass, each with
//! its place. Nothing here behaves: others take the settings they need.
//!
//! Some settings structs belong to modules that take plain arguments instead
//! (`shotgun`, `store::elasticsearch`); they are defined here.

pub mod api;
pub mod file;
mod load;
mod blackouts;
mod notifiers;
mod redaction;
mod secret;
pub mod settings;

pub use crate::elastic::Auth;
pub use load::{FILE_NAME, Readable, locate};
pub use secret::Secret;
pub use settings::{
    Config, ElasticsearchSettings, HistorySettings, ListenSettings, PipelineSettings, ReportSettings, ShotgunSettings,
    StoreSettings,
};

#[cfg(test)]
mod tests;
