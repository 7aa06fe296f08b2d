//! Reads the YAML (and JSON) files that people edit, and says exactly where
//! they are wrong.
//!
//! Owns the way from bytes to a typed value: [`Document`] parses,
//! [`Shape`] compares with what is expected, [`Templates`] renders
//! `${{ }}` in values, [`Document::decode`] gives the typed value, and every
//! problem on the way is a [`Diagnostic`] with file, line and column in
//! [`Problems`]. It does not know what a file is for.
//!
//! YAML is parsed first and templates are rendered second, value by value: a
//! template over the text of a file could change its structure, and no place
//! could be named in an error.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod diagnostic;
mod document;
mod duration;
mod json_schema;
mod moment;
mod shape;
mod spans;
mod suggest;
mod template;

pub use diagnostic::{Diagnostic, Problems, Severity};
pub use document::{Document, Place};
pub use duration::{MAX_DURATION, duration, format_duration, optional_duration, parse_duration};
pub use json_schema::SchemaOptions;
pub use moment::Moment;
pub use shape::{Key, Shape, optional, renamed, required};
pub use spans::join;
pub use suggest::{did_you_mean, nearest};
pub use template::{TemplateError, Templates, has_template, to_json};

/// Files above this size are refused: nothing that a person writes is larger.
pub const MAX_BYTES: usize = 256 * 1024;
/// Values nested deeper than this are refused.
pub const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests;
