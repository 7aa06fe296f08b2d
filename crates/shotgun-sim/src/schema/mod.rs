//! The standard schema of the simulated site, and the layout that tables use.
//!
//! The schema itself is `standard.txt`, whose head explains its form. It becomes
//! two things: the public [`Schema`] that `schema_read` shows, and the [`Layout`],
//! which numbers types and fields and knows what the public schema does not tell:
//! which fields are two sides of one link, and which are computed at every read.

mod layout;
mod standard;

pub use layout::{FieldId, FieldInfo, Layout, Role, TypeId};
pub(super) use standard::STATUSES;
pub use standard::StandardError;

use shotgun_model::schema::Schema;

/// The schema of a simulated site.
#[derive(Clone, Debug)]
pub struct SiteSchema {
    /// What the site tells about it.
    pub public: Schema,
    /// What the site knows about it.
    pub layout: Layout,
}

const STANDARD: &str = include_str!("standard.txt");
const HIDDEN: &str = include_str!("internal.txt");
/// The type, which no schema lists, of the fields themselves.
pub const INTERNAL: &str = "DisplayColumn";

impl SiteSchema {
    /// Returns the schema of a stock site.
    pub fn standard() -> Self {
        Self::parse(STANDARD).expect("the embedded schema is checked by a test")
    }

    /// Reads a schema in the form of `standard.txt`.
    ///
    /// # Errors
    ///
    /// [`StandardError`] with the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, StandardError> {
        let mut parsed = standard::parse(text)?;
        parsed.schema.types.extend(standard::parse(HIDDEN)?.schema.types);
        let layout = Layout::new(&parsed.schema, &parsed.pairs)?;
        Ok(Self { public: parsed.schema, layout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shotgun_model::entity::{DataType, EntityType};

    #[test]
    fn the_standard_schema_has_the_types_of_a_stock_site() {
        let schema = SiteSchema::parse(STANDARD).expect("the embedded schema").public;
        for name in ["Project", "Shot", "Task", "PlaylistVersionConnection", "EventLogEntry", "CustomEntity02"] {
            assert!(schema.entity(&EntityType::new(name)).is_some(), "{name}");
        }
        let status = schema.field(&"Shot".into(), "sg_status_list").expect("the status of a Shot");
        assert_eq!(status.data_type, DataType::StatusList);
        assert_eq!(status.valid_values, ["wtg", "rdy", "ip", "fin", "cbb", "omt", "hld"]);
        assert_eq!(status.default, "wtg");
        assert_eq!(status.display_values["ip"], "In Progress");
        let code = schema.field(&"Shot".into(), "code").expect("the code of a Shot");
        assert!(code.mandatory && !code.unique);
        assert_eq!(code.display_name, "Shot Code");
        assert_eq!(schema.field(&"Shot".into(), "sg_sequence").expect("a link").valid_types, ["Sequence"]);
    }

    #[test]
    fn the_standard_schema_has_every_type_and_field_of_a_stock_site() {
        let schema = SiteSchema::parse(STANDARD).expect("the embedded schema").public;
        let listed: Vec<_> = schema.types.iter().filter(|(name, _)| **name != "DisplayColumn").collect();
        let fields: usize = listed.iter().map(|(_, entity)| entity.fields.len()).sum();
        assert_eq!((listed.len(), fields), (105, 1_664));
    }

    #[test]
    fn both_sides_of_a_link_know_each_other() {
        let layout = SiteSchema::standard().layout;
        let shot = layout.type_id("Shot").expect("Shot");
        let asset = layout.type_id("Asset").expect("Asset");
        let assets = layout.field_id(shot, "assets").expect("Shot.assets");
        let shots = layout.field_id(asset, "shots").expect("Asset.shots");
        assert_eq!(layout.field(shot, assets).inverses, [(asset, shots)]);
        assert_eq!(layout.field(asset, shots).role, Role::Back(shot, assets));
        assert!(layout.field(shot, assets).connection.is_some());
        let task = layout.type_id("Task").expect("Task");
        let entity = layout.field_id(task, "entity").expect("Task.entity");
        assert!(layout.field(task, entity).inverses.len() > 5, "every work type has tasks");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = SiteSchema::parse("type Shot\n  code texte\n").expect_err("no such data type");
        assert_eq!(error.to_string(), "line 2: unknown data type `texte`");
        let error = SiteSchema::parse("type Shot\n\nback Shot.tasks <- Task.entity\n").expect_err("no such type");
        assert!(error.to_string().contains("Task.entity"), "{error}");
    }
}
