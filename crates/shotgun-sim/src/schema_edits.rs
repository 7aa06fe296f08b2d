//! What an administrator does to the schema of a site, in the process.

use super::cell::{Cell, Key};
use super::site::Site;
use shotgun_model::entity::{DataType, EntityType};
use shotgun_model::schema::Schema;

impl Site {
    /// Changes the schema that the site reports. A field that is no
    /// longer in it is in no answer; its values stay.
    pub fn edit_schema(&self, edit: impl FnOnce(&mut Schema)) {
        edit(&mut self.rows_mut().schema);
    }

    /// Makes a text field a number; what is none becomes empty.
    pub fn convert_to_number(&self, entity_type: &str, field: &str) {
        let mut world = self.rows_mut();
        let entity = world.schema.types.get_mut(&EntityType::new(entity_type));
        if let Some(found) = entity.and_then(|entity| entity.fields.get_mut(field)) {
            found.data_type = DataType::Number;
        }
        let Some(ty) = world.layout.type_id(entity_type) else { return };
        let Some(field) = world.layout.field_id(ty, field) else { return };
        world.layout.types[usize::from(ty)].fields[usize::from(field)].data_type = DataType::Number;
        let ids: Vec<u32> = world.table(ty).range(0, u32::MAX).map(|(id, _)| id).collect();
        for id in ids {
            let key = Key { ty, id };
            let number = world.cell(key, field).as_text().and_then(|text| text.parse().ok());
            world.set(key, field, number.map_or(Cell::Null, Cell::Int));
        }
    }
}
