//! The names of indices and aliases.
//!
//! | name | what it is |
//! |---|---|
//! | `{prefix}-entity-shot-000001` | an index: one generation of one type |
//! | `{prefix}-entity-shot` | alias with a filter: active rows, for every search |
//! | `{prefix}-entity-shot-write` | alias without one: writes, gets by id, tombstones |
//! | `{prefix}-names` | display names of targets whose type is not cached |
//!
//! Index names are lower case; the true name of the type is kept in `_meta`.

use crate::entity::EntityType;

/// Makes the names of one installation.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The alias that holds the active rows of a type.
    pub(super) fn read(&self, entity_type: &EntityType) -> String {
        format!("{}-entity-{}", self.prefix, entity_type.as_str().to_lowercase())
    }

    /// The alias that holds every row of a type, tombstones too.
    pub(super) fn write(&self, entity_type: &EntityType) -> String {
        format!("{}-write", self.read(entity_type))
    }

    /// One generation of a type.
    pub(super) fn generation(&self, entity_type: &EntityType, number: u32) -> String {
        format!("{}-{number:06}", self.read(entity_type))
    }

    /// The number of the generation that `index` is, if it is one of this type.
    pub(super) fn generation_number(&self, entity_type: &EntityType, index: &str) -> Option<u32> {
        let digits = index.strip_prefix(&self.read(entity_type))?.strip_prefix('-')?;
        (digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
    }

    /// Matches the generations of a type (fewer than 100,000 of them), and possibly more.
    pub(super) fn any_generation(&self, entity_type: &EntityType) -> String {
        format!("{}-0*", self.read(entity_type))
    }

    /// Matches the generations of every type, and the aliases named like them.
    pub(super) fn any_entity_index(&self) -> String {
        format!("{}-entity-*", self.prefix)
    }

    /// The index of display names of targets whose type is not cached.
    pub(super) fn display_names(&self) -> String {
        format!("{}-names", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_two_aliases_and_numbered_indices() {
        let names = Names::new("sgcache");
        let shot = EntityType::new("PublishedFile");
        assert_eq!(names.read(&shot), "sgcache-entity-publishedfile");
        assert_eq!(names.write(&shot), "sgcache-entity-publishedfile-write");
        assert_eq!(names.generation(&shot, 12), "sgcache-entity-publishedfile-000012");
        let number = |index| names.generation_number(&shot, index);
        assert_eq!(number("sgcache-entity-publishedfile-000012"), Some(12));
        assert_eq!(number("sgcache-entity-publishedfile-write"), None);
        assert_eq!(number("sgcache-entity-publishedfiletype-000001"), None);
    }
}
