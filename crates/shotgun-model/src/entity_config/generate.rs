//! Makes an entity config from the schema of the site.

use serde::{Deserialize, Serialize};

use super::layout::{EVENT_LOG, event_log_problem, nearest};
use super::{EntityConfig, FieldConfig};
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
