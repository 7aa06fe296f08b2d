//! Fields whose value the site derives from something else.
//!
//! A change of what they are derived from writes no event about the row and leaves its
//! `updated_at`, so a cached value goes stale without a sign. Which they are is partly
//! in the schema (a field that cannot be edited and is no stamp of the site, a query, an
//! image that is the one of the newest linked Version or Note),
//! partly known from the vendor's documentation; both are here. A derived field is
//! followed by a declared dependency, or it is never cached.

use serde_json::Value;

use super::{EntitySchema, FieldSchema};

/// What a derived field follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// Fields of the same row: what changes them is an event about the row.
    OwnRow,
    /// Fields of linked entities, which say which rows they belong to.
    Linked(&'static Dependency),
    /// Something that no event leads to the row from.
    Unannounced,
}

/// A derived field that can be followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The derived field, on every type that has it.
    pub field: &'static str,
    /// The type of the entities that it is derived from.
    pub source: &'static str,
    /// The fields of these whose change changes it.
    pub source_fields: &'static [&'static str],
    /// Which of them holds the links to the rows.
    pub link: &'static str,
}

/// Every dependency that is followed. The vendor's page on notes: a note is open while
/// its status is `opn`, `ip` or `rdy`; the schema marks the field as a query.
pub const DEPENDENCIES: &[Dependency] = &[Dependency {
    field: "open_notes",
    source: "Note",
    source_fields: &["sg_status_list", "note_links"],
    link: "note_links",
}];

/// Derived from fields of the row itself: the name of an entity, and the cut fields of
/// Shot and Element, which take the first of several own fields that has a value.
const OWN_ROW: &[(&str, &str)] = &[("*", "cached_display_name"), ("Shot", "smart_*"), ("Element", "smart_*")];

/// Derived from other entities, although some schemas show them as ordinary fields:
/// tasks of the same entity, time logs, the dates of upstream tasks and of all tasks of
/// a project, the entities that carry a tag, tasks of a template, shares of a playlist.
const UNANNOUNCED: &[(&str, &str)] = &[
    ("Task", "sibling_tasks"),
    ("Task", "dependency_violation"),
    ("*", "time_logs_sum"),
    ("Task", "time_vs_est"),
    ("Task", "time_percent_of_est"),
    ("Project", "start_date"),
    ("Project", "end_date"),
    ("Project", "duration"),
    ("Tag", "usage"),
    ("TaskTemplate", "task_count"),
    ("Playlist", "external_share_count"),
    ("Page", "hits_last_month"),
];

/// Fields that cannot be edited and are stored all the same: stamps, and what the site
/// writes once, or together with an event.
const STORED: &[&str] = &[
    "id",
    "type",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "image",
    "filmstrip_image",
    "image_source_entity",
    "image_blur_hash",
    "project",
    "permission_rule_set",
    "file_extension",
    "file_size",
    "filename",
    "local_storage",
    "this_file",
    "processing_status",
    "delivery_number",
    "client_note",
    "suppress_email_notif",
    "is_demo",
    "is_template",
    "is_template_project",
    "landing_page_url",
    "layout_project",
    "locked_at",
    "locked_by",
    "merge_in_progress",
    "oxygen_user_id",
    "uuid",
    "content",
    "entity_type",
];

/// The same, of one type: a status has its short code from its creation on.
const STORED_OF: &[(&str, &str)] = &[("Status", "code"), ("Status", "system")];

/// Types that the site writes by itself, whole.
const WRITTEN_BY_THE_SITE: &[&str] = &["EventLogEntry", "PermissionRuleSet", "Icon", "TaskDependency", "PlaylistShare"];

impl EntitySchema {
    /// Returns what a field is derived from; `None` for a stored one, or one that the
    /// type does not have.
    pub fn derivation(&self, name: &str) -> Option<Derivation> {
        let field = self.fields.get(name)?;
        let entity_type = self.entity_type.as_str();
        if let Some(dependency) = dependency(name).filter(|one| field.valid_types.iter().any(|ty| *ty == *one.source)) {
            return Some(Derivation::Linked(dependency));
        }
        if listed(OWN_ROW, entity_type, name) {
            return Some(Derivation::OwnRow);
        }
        let computed = listed(UNANNOUNCED, entity_type, name)
            || is_query(field)
            || is_image_of_another(field)
            || self.is_only_shown(name, field);
        computed.then_some(Derivation::Unannounced)
    }

    /// Tells whether a field can only be read, although the type has others that can
    /// be edited: to a script that may edit nothing every field looks like that.
    fn is_only_shown(&self, name: &str, field: &FieldSchema) -> bool {
        let written_by_site =
            self.entity_type.is_connection() || WRITTEN_BY_THE_SITE.contains(&self.entity_type.as_str());
        !field.editable
            && !STORED.contains(&name)
            && !listed(STORED_OF, self.entity_type.as_str(), name)
            && !written_by_site
            && self.fields.values().any(|field| field.editable)
    }
}

/// Returns the dependency that a field of this name is followed by.
pub fn dependency(field: &str) -> Option<&'static Dependency> {
    DEPENDENCIES.iter().find(|dependency| dependency.field == field)
}

fn is_query(field: &FieldSchema) -> bool {
    field.properties.get("query").is_some_and(|query| !query.is_null() && query.get("value") != Some(&Value::Null))
}

/// Tells whether an image is not the uploaded one, but that of the newest entity that a
/// query finds ("Thumbnail based on query").
fn is_image_of_another(field: &FieldSchema) -> bool {
    let text = |name: &str| field.properties.get(name).and_then(|property| property["value"].as_str());
    let flag = |name: &str| field.properties.get(name).and_then(|property| property["value"].as_bool());
    text("render_method") == Some("use_image_query") || flag("image_use_query") == Some(true)
}

fn listed(table: &[(&str, &str)], entity_type: &str, name: &str) -> bool {
    table.iter().any(|(ty, field)| {
        let named = field.strip_suffix('*').map_or(name == *field, |start| name.starts_with(start));
        named && (*ty == "*" || *ty == entity_type)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entity::{DataType, EntityType};

    fn check(entity_type: &str, name: &str, change: impl FnOnce(&mut FieldSchema)) -> Option<Derivation> {
        let mut field = FieldSchema::new(DataType::MultiEntity, name);
        field.valid_types = vec![EntityType::new("Note"), EntityType::new("Task")];
        change(&mut field);
        let code = FieldSchema::new(DataType::Text, "code");
        let fields = [("code".to_owned(), code), (name.to_owned(), field)].into();
        let entity_type = EntityType::new(entity_type);
        EntitySchema { entity_type, display_name: String::new(), visible: true, fields }.derivation(name)
    }

    #[test]
    fn what_a_field_is_derived_from_is_known_by_schema_and_table() {
        let read_only = |field: &mut FieldSchema| field.editable = false;
        assert_eq!(check("Shot", "open_notes", read_only), Some(Derivation::Linked(&DEPENDENCIES[0])));
        assert_eq!(check("Task", "sibling_tasks", |_| ()), Some(Derivation::Unannounced));
        assert_eq!(check("Shot", "smart_cut_in", |_| ()), Some(Derivation::OwnRow));
        assert_eq!(check("Shot", "sg_sum", read_only), Some(Derivation::Unannounced));
        assert_eq!(check("Shot", "sg_sum", |_| ()), None);
        assert_eq!(check("Shot", "created_by", read_only), None);
        assert_eq!(check("AssetShotConnection", "asset", read_only), None);
        let query = |field: &mut FieldSchema| {
            field.properties.insert("query".into(), json!({"value": {"filters": []}, "editable": true}));
        };
        assert_eq!(check("Shot", "sg_query", query), Some(Derivation::Unannounced));
        let rendered = |method: &'static str| {
            move |field: &mut FieldSchema| {
                field.data_type = DataType::Image;
                field.properties.insert("render_method".into(), json!({"value": method, "editable": false}));
            }
        };
        assert_eq!(check("Shot", "image", rendered("use_image_query")), Some(Derivation::Unannounced));
        assert_eq!(check("Shot", "image", rendered("use_uploaded_image")), None);
    }

    #[test]
    fn to_a_script_that_may_edit_nothing_no_field_looks_derived() {
        let mut field = FieldSchema::new(DataType::Text, "code");
        field.editable = false;
        let fields = [("code".to_owned(), field)].into();
        let shot =
            EntitySchema { entity_type: EntityType::new("Shot"), display_name: String::new(), visible: true, fields };
        assert_eq!(shot.derivation("code"), None);
    }
}
