//! Which entity types and fields are cached: one JSON file per entity type.
//!
//! An [`EntityConfig`] is what a user wrote; a [`TypeLayout`] is the same thing
//! checked against the schema of the site, and what stores, sync and validation
//! work with. `config.yaml`, stores and where the files are is not known here.

mod fit;
mod generate;
mod layout;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entity::EntityType;

pub use fit::Fitted;
pub use generate::{Exclusions, derived_fields, generate};
pub use layout::{LayoutField, LayoutProblem, TypeLayout};

/// The configuration of one entity type as its file holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityConfig {
    /// The cached fields by name.
    pub fields: BTreeMap<String, FieldConfig>,
    /// Conditions, as `shotgun_api3.find` takes them; only entities that pass are
    /// cached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Value>,
    /// Whether the site may lack the type or some of the fields: what it lacks is then
    /// left out with a warning. Without it a name that the site does not have is an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

impl EntityConfig {
    /// Takes over what a user added to an earlier config of the type: filters, `optional`
    /// and the mappings of its fields.
    pub fn keep_edits(&mut self, earlier: &Self) {
        self.filters.clone_from(&earlier.filters);
        self.optional = earlier.optional;
        for (name, field) in &earlier.fields {
            self.fields.entry(name.clone()).and_modify(|kept| kept.mapping.clone_from(&field.mapping));
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What a user may say about a cached field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// An Elasticsearch mapping to use in place of the one for the data type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Value>,
}

/// A text that is not an entity config, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}:{column}: {message}")]
pub struct MalformedConfig {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// One file of the directory: the type it is named after and its text.
#[derive(Clone, Debug)]
pub struct EntityConfigFile {
    /// The path, for messages.
    pub path: PathBuf,
    /// The entity type, from the name of the file.
    pub entity_type: EntityType,
    /// The configuration in it.
    pub config: EntityConfig,
    /// The text, so that a message can point into it.
    text: String,
}

impl EntityConfigFile {
    /// Reads a config from its text; the file name gives the entity type.
    ///
    /// # Errors
    ///
    /// [`MalformedConfig`] with the place in the text.
    pub fn parse(path: &Path, text: String) -> Result<Self, MalformedConfig> {
        let config = serde_json::from_str(&text).map_err(|error| MalformedConfig {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            message: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
        })?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        Ok(Self { path: path.to_owned(), entity_type: EntityType::new(stem), config, text })
    }

    /// Returns the line, from 1, on which a quoted word stands first; the first
    /// line when it does not occur.
    pub fn line_of(&self, word: &str) -> usize {
        let quoted = format!("\"{word}\"");
        self.text.lines().position(|line| line.contains(&quoted)).map_or(1, |index| index + 1)
    }
}
