//! The schema as programs read and edit it.
//!
//! A project sees the same fields as the site; only whether it shows them differs.
//! A field that was deleted is gone from every answer and its name stays taken.
//! New link fields have no other side.

use serde_json::{Map, Value, json};

use crate::auxiliary_state::Column;
use crate::cell::{Cell, Key};
use crate::event::{Actor, Change, Entry};
use crate::schema::{INTERNAL, STATUSES, TypeId};
use crate::site::Site;
use crate::world::World;
use crate::write::{Writer, not_simulated, unknown_type};
use shotgun_model::api3::Fault;
use shotgun_model::entity::{DataType, EntityRef, EntityType};
use shotgun_model::schema::FieldSchema;

/// The data types that a program can make a field of.
const CREATABLE: [DataType; 15] = [
    DataType::Checkbox,
    DataType::Color,
    DataType::Currency,
    DataType::Date,
    DataType::DateTime,
    DataType::Duration,
    DataType::Entity,
    DataType::Float,
    DataType::List,
    DataType::MultiEntity,
    DataType::Number,
    DataType::Percent,
    DataType::StatusList,
    DataType::Text,
    DataType::Url,
];

/// Answers `schema_read`.
pub fn read(world: &World, argument: &Value) -> Result<Value, Fault> {
    let project = project(argument);
    let types = world.schema.types.keys().filter(|name| **name != *INTERNAL);
    Ok(types.map(|name| (name.as_str().to_owned(), blocks(world, name, None, project))).collect::<Map<_, _>>().into())
}

/// Answers `schema_entity_read`.
pub fn read_entities(world: &World) -> Result<Value, Fault> {
    let mut types = world.schema.entities_to_wire();
    if let Some(types) = types.as_object_mut() {
        types.remove(INTERNAL);
    }
    Ok(types)
}

/// Answers `schema_field_read`.
pub fn read_fields(world: &World, argument: &Value) -> Result<Value, Fault> {
    let method = "schema_field_read";
    let entity_type = EntityType::new(argument.get("type").and_then(Value::as_str).unwrap_or_default());
    let entity = world.schema.entity(&entity_type).ok_or_else(|| unknown_type(world, method))?;
    let only = argument.get("field_name").and_then(Value::as_str);
    if let Some(field) = only.filter(|field| !entity.fields.contains_key(*field)) {
        return Err(Fault::data(method, format!("{entity_type}.{field} doesn't exist")));
    }
    Ok(blocks(world, &entity_type, only, project(argument)))
}

fn project(argument: &Value) -> Option<i64> {
    argument.get("project").and_then(EntityRef::from_json).map(|project| project.id)
}

fn blocks(world: &World, entity_type: &EntityType, only: Option<&str>, project: Option<i64>) -> Value {
    let Some(entity) = world.schema.entity(entity_type) else { return Value::Null };
    let mut blocks = entity.fields_to_wire(only);
    let columns = world.kept.columns.range((entity_type.clone(), String::new())..);
    for ((_, name), column) in columns.take_while(|((owner, _), _)| owner == entity_type) {
        let Some(block) = blocks.get_mut(name) else { continue };
        let visible = project.and_then(|project| column.visible.get(&project)).copied().unwrap_or(true);
        block["visible"] = json!({"value": visible, "editable": column.custom});
        block["custom_metadata"] = json!({"value": column.custom_metadata, "editable": true});
    }
    blocks
}

/// Answers `schema_field_create`: makes a field and returns its name.
pub fn create(site: &Site, actor: &Actor, argument: &Value) -> Result<Value, Fault> {
    let method = "schema_field_create";
    site.write(actor.clone(), |writer| {
        let (ty, entity_type) = type_of(writer.world, method, argument)?;
        let data_type = argument.get("data_type").and_then(Value::as_str).unwrap_or_default();
        let data_type: DataType = data_type.parse().unwrap_or(DataType::Unknown);
        if !CREATABLE.contains(&data_type) {
            return Err(not_simulated(format!("{method} of data type {}", argument["data_type"])));
        }
        let properties = properties(method, argument)?;
        let Some(Value::String(human)) = properties.get("name") else {
            return Err(Fault::malformed(method, "invalid/missing string property 'name'"));
        };
        let name = free_name(writer.world, method, &entity_type, human)?;
        let mut field = FieldSchema::new(data_type, human.clone());
        let mut column = Column { custom: true, ..Column::default() };
        for (property, value) in &properties {
            set(method, &mut field, &mut column, (property, value), None)?;
        }
        let links = matches!(data_type, DataType::Entity | DataType::MultiEntity);
        if links && field.valid_types.is_empty() {
            return Err(Fault::malformed(method, "invalid/missing array property 'valid_types'"));
        }
        writer.world.add_field(ty, &name, field);
        writer.world.kept.columns.insert((entity_type.clone(), name.clone()), column);
        let row = row_of(writer, &entity_type, &name);
        let entry = Entry::created(writer.world, row);
        writer.log(entry);
        Ok(Value::from(name))
    })
}

/// Answers `schema_field_update`.
pub fn update(site: &Site, actor: &Actor, argument: &Value) -> Result<Value, Fault> {
    let method = "schema_field_update";
    let project = project(argument);
    site.write(actor.clone(), |writer| {
        let (_, entity_type) = type_of(writer.world, method, argument)?;
        let name = field_name(method, argument)?;
        let place = (entity_type.clone(), name.clone());
        let Some(before) = writer.world.schema.field(&entity_type, &name).cloned() else {
            return Err(Fault::data(method, format!("{entity_type}.{name} doesn't exist")));
        };
        let mut field = before.clone();
        let mut column = writer.world.kept.columns.get(&place).cloned().unwrap_or_default();
        let properties = properties(method, argument)?;
        for (property, value) in &properties {
            set(method, &mut field, &mut column, (property, value), project)?;
        }
        let fields = writer.world.schema.types.get_mut(&entity_type).map(|entity| &mut entity.fields);
        fields.and_then(|fields| fields.insert(name.clone(), field));
        writer.world.kept.columns.insert(place, column);
        let row = row_of(writer, &entity_type, &name);
        for (property, value) in properties {
            log_change(writer, row, &before, &property, value);
        }
        Ok(Value::Bool(true))
    })
}

/// Answers `schema_field_delete`; false when the field is gone already.
pub fn delete(site: &Site, actor: &Actor, argument: &Value) -> Result<Value, Fault> {
    let method = "schema_field_delete";
    site.write(actor.clone(), |writer| {
        let (ty, entity_type) = type_of(writer.world, method, argument)?;
        let name = field_name(method, argument)?;
        match writer.world.kept.columns.get_mut(&(entity_type.clone(), name.clone())) {
            Some(column) if column.retired => return Ok(Value::Bool(false)),
            Some(column) if column.custom => column.retired = true,
            _ if writer.world.schema.field(&entity_type, &name).is_some() => {
                return Err(not_simulated(format!("{method} of a stock field")));
            }
            _ => return Err(Fault::data(method, format!("{entity_type}.{name} doesn't exist"))),
        }
        writer.world.remove_field(ty, &name);
        Ok(Value::Bool(true))
    })
}

fn type_of(world: &World, method: &str, argument: &Value) -> Result<(TypeId, EntityType), Fault> {
    let name = argument.get("type").and_then(Value::as_str).unwrap_or_default();
    let ty = world.layout.type_id(name).ok_or_else(|| unknown_type(world, method))?;
    Ok((ty, EntityType::new(name)))
}

fn field_name(method: &str, argument: &Value) -> Result<String, Fault> {
    let name = argument.get("field_name").and_then(Value::as_str).map(str::to_owned);
    name.ok_or_else(|| Fault::malformed(method, "invalid/missing string 'field_name'"))
}

fn properties(method: &str, argument: &Value) -> Result<Map<String, Value>, Fault> {
    let list = argument.get("properties").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let pair = |item: &Value| {
        let name = item.get("property_name").and_then(Value::as_str)?;
        Some((name.to_owned(), item.get("value").cloned().unwrap_or_default()))
    };
    let wrong = |item: &Value| Fault::malformed(method, format!("invalid/missing string 'property_name': {item}"));
    list.iter().map(|item| pair(item).ok_or_else(|| wrong(item))).collect()
}

/// Makes the name of a new field from what people call it. A name in use gets a
/// number; one of a deleted field is refused.
fn free_name(world: &World, method: &str, entity_type: &EntityType, human: &str) -> Result<String, Fault> {
    let plain = |letter: char| if letter.is_alphanumeric() { letter } else { '_' };
    let base: String = human.trim().to_lowercase().chars().map(plain).collect();
    let names = (0..).map(|n| if n == 0 { format!("sg_{base}") } else { format!("sg_{base}_{n}") });
    for name in names {
        if world.kept.columns.get(&(entity_type.clone(), name.clone())).is_some_and(|column| column.retired) {
            let words = format!("{entity_type}.{name} was deleted and not for ever: the name is taken");
            return Err(Fault::data(method, words));
        }
        if world.schema.field(entity_type, &name).is_none() {
            return Ok(name);
        }
    }
    unreachable!("there are more numbers than fields")
}

/// Sets one property of a field.
fn set(
    method: &str,
    field: &mut FieldSchema,
    column: &mut Column,
    (property, value): (&str, &Value),
    project: Option<i64>,
) -> Result<(), Fault> {
    let bad = || Fault::data(method, format!("bad value for property '{property}': {value}"));
    let text = || value.as_str().map(str::to_owned).ok_or_else(bad);
    let list =
        || -> Option<Vec<String>> { value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect() };
    match property {
        "name" => field.display_name = text()?,
        "description" => field.description = text()?,
        "custom_metadata" => column.custom_metadata = text()?,
        "summary_default" => {
            field.properties.insert(property.into(), json!({"value": text()?, "editable": true}));
        }
        "default_value" => field.default = value.clone(),
        "valid_types" => field.valid_types = list().ok_or_else(bad)?.into_iter().map(EntityType::new).collect(),
        "valid_values" => {
            field.valid_values = list().ok_or_else(bad)?;
            if field.data_type == DataType::StatusList {
                field.display_values =
                    field.valid_values.iter().map(|code| (code.clone(), status_name(code).to_owned())).collect();
            }
        }
        "visible" => {
            let visible = value.as_bool().ok_or_else(bad)?;
            let Some(project) = project else {
                return Err(Fault::data(method, "'visible' can only be set for a project"));
            };
            if !column.custom {
                return Err(Fault::data(method, "'visible' of this field is not editable"));
            }
            column.visible.insert(project, visible);
        }
        _ => return Err(not_simulated(format!("{method} of property {property}"))),
    }
    Ok(())
}

fn status_name(code: &str) -> &str {
    STATUSES.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| name)
}

/// Returns the row of a column, which is made when something first happens to it.
fn row_of(writer: &mut Writer<'_>, entity_type: &EntityType, name: &str) -> Key {
    let place = (entity_type.clone(), name.to_owned());
    if let Some(row) = writer.world.kept.columns.get(&place).and_then(|column| column.row) {
        return row;
    }
    let ty = writer.world.layout.type_id(INTERNAL).expect("the site has columns");
    let row = writer.new_row(ty);
    let field = writer.world.schema.field(entity_type, name);
    let (human, data_type) = field.map_or(("", ""), |field| (field.display_name.as_str(), field.data_type.as_str()));
    let cells = [
        ("code", Cell::text(name)),
        ("entity_type", Cell::text(entity_type.as_str())),
        ("human_name", Cell::text(human)),
        ("data_type", Cell::text(data_type)),
    ];
    for (field, cell) in cells {
        if let Some(field) = writer.world.layout.field_id(ty, field) {
            writer.world.set(row, field, cell);
        }
    }
    writer.world.kept.columns.entry(place).or_default().row = Some(row);
    row
}

/// Logs a changed property: the name as `human_name`, anything else under
/// `properties`.
fn log_change(writer: &mut Writer<'_>, row: Key, before: &FieldSchema, property: &str, value: Value) {
    let (attribute, change) = match property {
        "name" => ("human_name", Change::Value(before.display_name.clone().into(), value)),
        _ => ("properties", Change::Value(Value::Null, json!({property: value}))),
    };
    let entry = Entry::changed(writer.world, row, attribute, DataType::Text, &change, false);
    writer.log(entry);
}
