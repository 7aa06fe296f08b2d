//! Which entity types and fields are cached: one JSON file per entity type.
//!
//! An [`EntityConfig`] is what a user wrote; a [`TypeLayout`] is the same thing
//! checked against the schema of the site, and what stores, sync and validation
//! work with. `config.yaml` and stores are not known here.

mod fit;
mod generate;
mod layout;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entity::EntityType;

pub use fit::Fitted;
pub use generate::{Change, Exclusions, GenerateError, derived_fields, generate, refresh};
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

/// Why a directory of entity configs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntityConfigError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the system.
        #[source]
        source: std::io::Error,
    },
    /// A file is no entity config.
    #[error("{path}:{line}:{column}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
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
    /// Reads `<dir>/*.json`, sorted by name.
    ///
    /// Every file is read: the second element lists all problems at once.
    ///
    /// # Errors
    ///
    /// [`EntityConfigError::Unreadable`] for the directory itself.
    pub fn read_all(dir: &Path) -> Result<(Vec<Self>, Vec<EntityConfigError>), EntityConfigError> {
        let unreadable = |source| EntityConfigError::Unreadable { path: dir.to_owned(), source };
        let entries = std::fs::read_dir(dir).map_err(unreadable)?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            match Self::read(&path) {
                Ok(file) => files.push(file),
                Err(problem) => problems.push(problem),
            }
        }
        Ok((files, problems))
    }

    fn read(path: &Path) -> Result<Self, EntityConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EntityConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// Reads a config from its text; the file name gives the entity type.
    ///
    /// # Errors
    ///
    /// [`EntityConfigError::Malformed`] with the place in the text.
    pub fn parse(path: &Path, text: String) -> Result<Self, EntityConfigError> {
        let config = serde_json::from_str(&text).map_err(|error| EntityConfigError::Malformed {
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
