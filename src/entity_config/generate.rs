//! Makes an entity config from the schema of the site.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

use super::layout::{EVENT_LOG, event_log_problem, nearest};
use super::{EntityConfig, EntityConfigError, EntityConfigFile, FieldConfig};
use crate::entity::{DataType, EntityType};
use crate::schema::{Derivation, Schema};

/// What `generateEntityConfigs` leaves out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclusions {
    /// Entity types that are not generated unless they are named on the command
    /// line. A `*` at either end stands for anything.
    pub exclude_types: Vec<String>,
    /// Fields that are left out, as `field` or `Type.field`; `*` as above.
    pub exclude_fields: Vec<String>,
    /// Data types whose fields are left out. The volatile ones (summary,
    /// calculated, pivot_column, password) never get in.
    pub exclude_data_types: Vec<DataType>,
}

impl Default for Exclusions {
    fn default() -> Self {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            exclude_types: strings(&[
                "EventLogEntry",
                "PageHit",
                "PageSetting",
                "Page",
                "Banner*",
                "AppWelcome*",
                "*Connection",
                "RvLicense",
            ]),
            exclude_fields: strings(&["*current_user*", "*password*", "image_source_entity", "image_blur_hash"]),
            exclude_data_types: vec![DataType::Serializable, DataType::Jsonb, DataType::UrlTemplate],
        }
    }
}

impl Exclusions {
    /// Tells whether a type is generated when no type is named.
    pub fn takes_type(&self, entity_type: &EntityType) -> bool {
        !self.exclude_types.iter().any(|pattern| fits(pattern, entity_type.as_str()))
    }

    fn takes_field(&self, entity_type: &EntityType, name: &str, data_type: DataType) -> bool {
        let full = format!("{entity_type}.{name}");
        let named = self.exclude_fields.iter().any(|pattern| fits(pattern, name) || fits(pattern, &full));
        !named && !data_type.is_volatile() && !self.exclude_data_types.contains(&data_type)
    }
}

/// Makes the config of an entity type: every field that is not excluded and that the
/// site does not derive from other entities, no filter.
///
/// # Errors
///
/// A message with the nearest name when the site does not have the type.
pub fn generate(schema: &Schema, entity_type: &EntityType, exclusions: &Exclusions) -> Result<EntityConfig, String> {
    if *entity_type == *EVENT_LOG {
        return Err(event_log_problem());
    }
    let Some(entity) = schema.entity(entity_type) else {
        return Err(format!(
            "the site has no entity type `{entity_type}`{}",
            nearest(entity_type.as_str(), schema.type_names())
        ));
    };
    let fields = entity.fields.iter().filter(|(name, _)| name.as_str() != "id");
    let fields = fields
        .filter(|(name, field)| exclusions.takes_field(entity_type, name, field.data_type))
        .filter(|(name, _)| entity.derivation(name) != Some(Derivation::Unannounced))
        .map(|(name, _)| (name.clone(), FieldConfig::default()))
        .collect();
    Ok(EntityConfig { fields, ..EntityConfig::default() })
}

/// Returns the fields of a type that are never generated, because the site derives
/// them from other entities without an event.
pub fn derived_fields(schema: &Schema, entity_type: &EntityType) -> Vec<String> {
    let Some(entity) = schema.entity(entity_type) else { return Vec::new() };
    let shown = entity.fields.iter().filter(|(_, field)| !field.data_type.is_volatile());
    let derived = shown.filter(|(name, _)| entity.derivation(name) == Some(Derivation::Unannounced));
    derived.map(|(name, _)| format!("{entity_type}.{name}")).collect()
}

/// What happened to the file of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file says what would be generated.
    Unchanged,
    /// There was no file; `true` when it was written.
    New(bool),
    /// The file said something else; `true` when it was replaced, and the old one
    /// kept beside it with a `~` behind its name.
    Differs(bool),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::New(true) => "written",
            Self::New(false) => "would be written",
            Self::Differs(true) => "replaced, the old file is kept with `~` behind its name",
            Self::Differs(false) => "differs from the schema of the site",
        })
    }
}

/// Why an entity config could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The site does not have the type.
    #[error("{0}")]
    UnknownType(String),
    /// The file that is there is malformed; it is left as it is.
    #[error(transparent)]
    Existing(#[from] EntityConfigError),
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The reason of the system.
        source: io::Error,
    },
}

/// Generates the config of a type, keeping filters, mappings and `optional` of a file
/// that is there, and writes it when that is wanted.
///
/// # Errors
///
/// [`GenerateError`]; nothing was changed then.
pub fn refresh(
    dir: &Path,
    schema: &Schema,
    entity_type: &EntityType,
    exclusions: &Exclusions,
    write: bool,
) -> Result<Change, GenerateError> {
    let mut config = generate(schema, entity_type, exclusions).map_err(GenerateError::UnknownType)?;
    let path = dir.join(format!("{entity_type}.json"));
    let unwritable = |source| GenerateError::Unwritable { path: path.clone(), source };
    let existing = if path.exists() { Some(EntityConfigFile::read(&path)?.config) } else { None };
    if let Some(existing) = &existing {
        config.filters.clone_from(&existing.filters);
        config.optional = existing.optional;
        for (name, field) in &existing.fields {
            config.fields.entry(name.clone()).and_modify(|kept| kept.mapping.clone_from(&field.mapping));
        }
        if *existing == config {
            return Ok(Change::Unchanged);
        }
    }
    if write {
        fs::create_dir_all(dir).map_err(unwritable)?;
        if existing.is_some() {
            fs::rename(&path, dir.join(format!("{entity_type}.json~"))).map_err(unwritable)?;
        }
        let text = serde_json::to_string_pretty(&config).map_err(|error| unwritable(error.into()))?;
        fs::write(&path, text + "\n").map_err(unwritable)?;
    }
    Ok(if existing.is_some() { Change::Differs(write) } else { Change::New(write) })
}

fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
