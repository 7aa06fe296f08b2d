//! Reads the values that a write brings, as strictly as the site does.

use serde_json::{Value, json};

use super::cell::{Cell, Key};
use super::readings::Reading;
use super::schema::{FieldId, Role, TypeId};
use super::world::World;
use shotgun_model::entity::{DataType, EntityRef, FieldValue, Shape};

/// Why a value was refused, in the words of the site without the method.
pub type Refusal = String;

/// Reads a value for a field that is no link list.
pub fn read(world: &mut World, ty: TypeId, field: FieldId, value: &Value) -> Result<Cell, Refusal> {
    let info = world.layout.field(ty, field);
    let (name, data_type, role) = (info.name.clone(), info.data_type, info.role.clone());
    let owner = world.layout.ty(ty).name.clone();
    let bad = |reason: &str| format!("CRUD ERROR #5: Update failed for [{owner}.{name}]: {reason}");
    match (&role, data_type) {
        (Role::Secret, _) => return Ok(value.as_str().map_or(Cell::Null, Cell::text)),
        (Role::Id | Role::OpenNotes | Role::Unserved, _) => return Err(bad("the field cannot be written")),
        (_, DataType::Summary | DataType::Calculated) => return Err(bad("the field is computed")),
        _ => {}
    }
    if value.is_null() && data_type == DataType::Checkbox && world.readings.second(Reading::NullCheckbox) {
        return Err(bad("expected Boolean, got Null"));
    }
    if value.is_null() {
        return Ok(Cell::Null);
    }
    match data_type {
        DataType::Entity => return one(world, value).map(Cell::Link).map_err(|reason| bad(&reason)),
        DataType::Url => return url(world, value).map_err(|reason| bad(&reason)),
        DataType::Image => {
            return match value.as_i64() {
                Some(attachment) => Ok(Cell::Int(attachment)),
                None => Err(bad("an image is changed by an upload")),
            };
        }
        DataType::TagList | DataType::Serializable => return Ok(Cell::Json(value.to_string().into())),
        _ => {}
    }
    let parsed = match value {
        Value::String(text) => FieldValue::from_json(data_type, &Value::from(text.trim())),
        other => FieldValue::from_json(data_type, other),
    };
    let parsed = parsed.map_err(|error| bad(&error.to_string()))?;
    check(world, ty, &name, data_type, &parsed).map_err(|reason| bad(&reason))?;
    Ok(Cell::from_value(parsed))
}

/// Checks a value against the limits of its field.
fn check(world: &World, ty: TypeId, name: &str, data_type: DataType, value: &FieldValue) -> Result<(), String> {
    match value {
        FieldValue::Text(text) if matches!(data_type, DataType::List | DataType::StatusList) => {
            let field = world.schema.field(&world.layout.ty(ty).name, name);
            let valid = field.map(|field| field.valid_values.as_slice()).unwrap_or_default();
            if !valid.is_empty() && !valid.contains(text) {
                return Err(format!("'{text}' is not one of {valid:?}"));
            }
        }
        FieldValue::Int(number) if data_type.shape() == Shape::Int && i32::try_from(*number).is_err() => {
            return Err(format!("{number} is out of range"));
        }
        _ => {}
    }
    Ok(())
}

/// Reads a list of links; an element twice counts once.
pub fn many(world: &World, ty: TypeId, field: FieldId, value: &Value) -> Result<Vec<Key>, Refusal> {
    let bad = |reason: &str| {
        let (owner, name) = (&world.layout.ty(ty).name, &world.layout.field(ty, field).name);
        format!("CRUD ERROR #5: Update failed for [{owner}.{name}]: {reason}")
    };
    let items = match value {
        Value::Null => &[],
        Value::Array(items) => items.as_slice(),
        other => return Err(bad(&format!("expected an array of entities, found {other}"))),
    };
    let mut keys = Vec::with_capacity(items.len());
    for item in items {
        let key = one(world, item).map_err(|reason| bad(&reason))?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn one(world: &World, value: &Value) -> Result<Key, String> {
    let target = EntityRef::from_json(value).ok_or_else(|| format!("expected an entity, found {value}"))?;
    let key = world.key(&target).filter(|key| world.row(*key).is_some());
    key.ok_or_else(|| format!("Entity of type [{}] with id={} does not exist.", target.entity_type, target.id))
}

/// Reads what is written to a url field: a web link, or a file below the root of
/// a local storage.
fn url(world: &mut World, value: &Value) -> Result<Cell, String> {
    let object = value.as_object().ok_or_else(|| format!("expected an object, found {value}"))?;
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let mut shown = if let Some(path) = text("local_path") {
        local(world, path)?
    } else if let Some(address) = text("url") {
        json!({"url": address, "name": text("name").unwrap_or(address), "content_type": null, "link_type": "web"})
    } else {
        return Err(format!("expected `url` or `local_path`, found {value}"));
    };
    if let Some(name) = text("name") {
        shown["name"] = name.into();
    }
    let attachments = world.layout.type_id("Attachment").ok_or("the site has no attachments")?;
    shown["type"] = "Attachment".into();
    shown["id"] = world.take_id(attachments).into();
    Ok(Cell::Json(shown.to_string().into()))
}

const PLATFORMS: [(&str, &str); 3] =
    [("linux_path", "local_path_linux"), ("mac_path", "local_path_mac"), ("windows_path", "local_path_windows")];

fn local(world: &World, path: &str) -> Result<Value, String> {
    let storages = world.layout.type_id("LocalStorage").ok_or("the site has no storages")?;
    for (id, row) in world.table(storages).range(0, u32::MAX).filter(|(_, row)| !row.retired) {
        let key = Key { ty: storages, id };
        let roots = PLATFORMS.map(|(field, shown)| (world.named(key, field).as_text().unwrap_or_default(), shown));
        let below =
            |root: &str| path.strip_prefix(root).filter(|rest| !root.is_empty() && rest.starts_with(['/', '\\']));
        let Some(rest) = roots.iter().find_map(|(root, _)| below(root.trim_end_matches(['/', '\\']))) else { continue };
        let rest = rest.replace('\\', "/");
        let name = rest.rsplit('/').next().unwrap_or_default();
        let mut shown = json!({
            "content_type": null, "link_type": "local", "name": name, "relative_path": rest.trim_start_matches('/'),
            "local_storage": {"type": "LocalStorage", "id": id, "name": world.display_name(key)},
            "url": format!("file://{path}")});
        for (root, field) in roots.iter().filter(|(root, _)| !root.is_empty()) {
            let full = format!("{}{rest}", root.trim_end_matches(['/', '\\']));
            shown[*field] = if *field == "local_path_windows" { full.replace('/', "\\") } else { full }.into();
        }
        debug_assert!(!row.retired);
        return Ok(shown);
    }
    Err(format!("the path '{path}' lies under no LocalStorage"))
}
