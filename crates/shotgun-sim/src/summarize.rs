//! `summarize`: counts, sums and groups over the rows of a filter.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cell::Key;
use super::encode::Encoder;
use super::read::Scope;
use super::rpc::{refused, type_id};
use super::world::World;
use super::write::not_simulated;
use shotgun_model::api3::{Fault, Grouping, Summarize};
use shotgun_model::entity::{DataType, EntityType, FieldValue, Shape, Timestamp};
use shotgun_model::filter::{FieldPath, Only, resolve_links};

/// Answers `summarize`: the results, as JSON text.
pub fn run(world: &World, argument: &Value, now: Timestamp) -> Result<Vec<u8>, Fault> {
    let request = Summarize::from_wire(argument)?;
    let ty = type_id(world, "summarize", &request.entity_type)?;
    let filter = world.schema.filter(&request.entity_type, &request.filter).map_err(|f| refused("summarize", f))?;
    let filter = world.readings.absolute(&filter, now);
    let columns = columns(world, &request)?;
    let levels = levels(world, &request)?;
    let scope =
        Scope { ty, filter: &filter, only: Only::Active, include_archived_projects: request.include_archived_projects };
    let mut rows = Vec::new();
    scope.walk(world, false, |key| {
        rows.push(key);
        true
    });
    let site = Summary { world, columns };
    let results = json!({"groups": site.groups(&rows, &levels), "summaries": site.values(&rows)});
    Ok(results.to_string().into_bytes())
}

/// One value to compute.
struct Column {
    field: String,
    path: FieldPath,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Records,
    Count,
    Sum,
    Average,
    Minimum,
    Maximum,
    Checked,
    Unchecked,
    Status,
}

/// One level of groups.
struct Level {
    path: FieldPath,
    /// The width of a range of numbers; none for exact values.
    width: Option<i64>,
    descending: bool,
}

fn path(world: &World, entity_type: &EntityType, field: &str) -> Result<FieldPath, Fault> {
    let path = world.schema.path(entity_type, field);
    path.ok_or_else(|| Fault::data("summarize", format!("{entity_type}.{field} doesn't exist")))
}

fn columns(world: &World, request: &Summarize) -> Result<Vec<Column>, Fault> {
    let mut columns = Vec::new();
    for summary in &request.summaries {
        let path = path(world, &request.entity_type, &summary.field)?;
        let shape = path.data_type.shape();
        let (number, moment) =
            (matches!(shape, Shape::Int | Shape::Float), matches!(shape, Shape::Date | Shape::DateTime));
        let kind = match summary.summary.as_str() {
            "record_count" => Kind::Records,
            "count" if shape != Shape::Opaque => Kind::Count,
            "sum" if number => Kind::Sum,
            "average" if number => Kind::Average,
            "minimum" if number => Kind::Minimum,
            "maximum" if number => Kind::Maximum,
            "earliest" if moment => Kind::Minimum,
            "latest" if moment => Kind::Maximum,
            "checked" if shape == Shape::Bool => Kind::Checked,
            "unchecked" if shape == Shape::Bool => Kind::Unchecked,
            "status_list" if path.data_type == DataType::StatusList => Kind::Status,
            "percentage" | "status_percentage" | "status_percentage_as_float" => {
                return Err(not_simulated(format!("summary type '{}'", summary.summary)));
            }
            other => {
                let words = format!("'{other}' is no summary type for {} ('{}')", summary.field, path.data_type);
                return Err(Fault::data("summarize", words));
            }
        };
        columns.push(Column { field: summary.field.clone(), path, kind });
    }
    Ok(columns)
}

fn levels(world: &World, request: &Summarize) -> Result<Vec<Level>, Fault> {
    request.grouping.iter().map(|grouping| level(world, &request.entity_type, grouping)).collect()
}

fn level(world: &World, entity_type: &EntityType, grouping: &Grouping) -> Result<Level, Fault> {
    let path = path(world, entity_type, &grouping.field)?;
    if path.data_type == DataType::Image {
        return Err(Fault::data(
            "summarize",
            format!("Grouping is not allowed for field {entity_type}.{}.", grouping.field),
        ));
    }
    let width = match grouping.grouping.as_str() {
        "exact" => None,
        "tens" => Some(10),
        "hundreds" => Some(100),
        "thousands" => Some(1_000),
        "tensofthousands" => Some(10_000),
        "hundredsofthousands" => Some(100_000),
        "millions" => Some(1_000_000),
        other => return Err(not_simulated(format!("grouping type '{other}'"))),
    };
    if width.is_some() && path.data_type.shape() != Shape::Int {
        let words = format!("'{}' is no grouping type for {}", grouping.grouping, grouping.field);
        return Err(Fault::data("summarize", words));
    }
    Ok(Level { path, width, descending: grouping.descending })
}

struct Summary<'w> {
    world: &'w World,
    columns: Vec<Column>,
}

impl Summary<'_> {
    fn value(&self, key: Key, path: &FieldPath) -> FieldValue {
        if path.is_local() && path.field == "id" {
            return FieldValue::Int(i64::from(key.id));
        }
        resolve_links(path, &self.world, key).unwrap_or_default()
    }

    fn values(&self, rows: &[Key]) -> Value {
        let values = self.columns.iter().map(|column| (column.field.clone(), self.aggregate(rows, column)));
        Value::Object(values.collect::<Map<_, _>>())
    }

    fn aggregate(&self, rows: &[Key], column: &Column) -> Value {
        if column.kind == Kind::Records || (column.kind == Kind::Count && column.path.field == "id") {
            return rows.len().into();
        }
        let values = rows.iter().map(|key| self.value(*key, &column.path)).filter(|value| !value.is_empty());
        match column.kind {
            Kind::Records | Kind::Count => values.count().into(),
            Kind::Checked => values.filter(|value| *value == FieldValue::Bool(true)).count().into(),
            Kind::Unchecked => values.filter(|value| *value == FieldValue::Bool(false)).count().into(),
            Kind::Status => rolled_up(values),
            Kind::Sum => sum(values),
            Kind::Average => average(values),
            Kind::Minimum => extreme(values.reduce(|a, b| if less(&b, &a) { b } else { a }), column),
            Kind::Maximum => extreme(values.reduce(|a, b| if less(&a, &b) { b } else { a }), column),
        }
    }

    fn groups(&self, rows: &[Key], levels: &[Level]) -> Vec<Value> {
        let Some((level, deeper)) = levels.split_first() else {
            return Vec::new();
        };
        let mut groups: BTreeMap<(bool, i64, String), (Value, Vec<Key>)> = BTreeMap::new();
        for key in rows {
            let value = self.value(*key, &level.path);
            let place = self.place(&value, level.width);
            groups.entry(place).or_insert_with(|| (self.shown(&value, level.width), Vec::new())).1.push(*key);
        }
        let rendered = groups.into_values().map(|(mut group, rows)| {
            group["summaries"] = self.values(&rows);
            if !deeper.is_empty() {
                group["groups"] = self.groups(&rows, deeper).into();
            }
            group
        });
        if level.descending { rendered.rev().collect() } else { rendered.collect() }
    }

    /// Returns where the group of a value stands among the others; rows without a
    /// value come first.
    fn place(&self, value: &FieldValue, width: Option<i64>) -> (bool, i64, String) {
        match value {
            FieldValue::Int(number) => (true, width.map_or(*number, |width| first_of(*number, width)), String::new()),
            FieldValue::Bool(set) => (true, i64::from(*set), String::new()),
            FieldValue::Link(link) => {
                (true, 0, format!("{}\u{0}{}", link.name.as_deref().unwrap_or_default(), link.target))
            }
            FieldValue::Links(links) if !links.is_empty() => {
                let mut targets: Vec<_> = links.iter().map(|link| link.target.to_string()).collect();
                targets.sort_unstable();
                (true, 0, targets.join(","))
            }
            value if value.is_empty() => (false, 0, String::new()),
            value => (true, 0, value.to_string()),
        }
    }

    /// Returns the name and the value of the group that a value belongs to.
    fn shown(&self, value: &FieldValue, width: Option<i64>) -> Value {
        let (name, shown) = match (value, width) {
            (FieldValue::Int(number), Some(width)) => {
                let first = first_of(*number, width);
                (format!("{first}-{}", first + width - 1), first.into())
            }
            (FieldValue::Bool(set), _) => (if *set { "[X]" } else { "[ ]" }.to_owned(), value.to_json()),
            (FieldValue::Link(link), _) => (link.name.clone().unwrap_or_default(), self.valid_link(&link.target)),
            (FieldValue::Links(links), _) if !links.is_empty() => {
                let names: Vec<_> = links.iter().map(|link| link.name.as_deref().unwrap_or_default()).collect();
                (names.join(", "), links.iter().map(|link| self.valid_link(&link.target)).collect())
            }
            _ if value.is_empty() => (String::new(), Value::Null),
            _ => (value.to_string(), value.to_json()),
        };
        json!({"group_name": name, "group_value": shown})
    }

    fn valid_link(&self, target: &shotgun_model::entity::EntityRef) -> Value {
        let Some(key) = self.world.key(target) else { return Value::Null };
        let mut out = Vec::new();
        Encoder::with_valid_links(self.world).link(&mut out, key);
        serde_json::from_slice(&out).unwrap_or_default()
    }
}

/// Returns the status that all rows have; different ones make `ip`.
fn rolled_up(mut values: impl Iterator<Item = FieldValue>) -> Value {
    let Some(first) = values.next() else { return Value::Null };
    if values.all(|value| value == first) { first.to_json() } else { "ip".into() }
}

/// Returns the first number of the range that holds `number`.
fn first_of(number: i64, width: i64) -> i64 {
    number.div_euclid(width) * width
}

fn number(value: &FieldValue) -> f64 {
    match value {
        FieldValue::Int(number) => *number as f64,
        FieldValue::Float(number) => *number,
        _ => 0.0,
    }
}

fn sum(values: impl Iterator<Item = FieldValue>) -> Value {
    let (mut whole, mut fraction, mut any_fraction) = (0i64, 0.0, false);
    for value in values {
        match value {
            FieldValue::Int(number) => whole = whole.saturating_add(number),
            other => {
                any_fraction = true;
                fraction += number(&other);
            }
        }
    }
    if any_fraction { json!(fraction + whole as f64) } else { whole.into() }
}

/// The least or greatest value; of no number it is 0, of no moment nothing.
fn extreme(value: Option<FieldValue>, column: &Column) -> Value {
    match (value, column.path.data_type.shape()) {
        (Some(value), _) => value.to_json(),
        (None, Shape::Date | Shape::DateTime) => Value::Null,
        (None, _) => 0.into(),
    }
}

fn average(values: impl Iterator<Item = FieldValue>) -> Value {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + number(&value), count + 1));
    json!(if count == 0 { 0.0 } else { sum / f64::from(count) })
}

fn less(a: &FieldValue, b: &FieldValue) -> bool {
    match (a, b) {
        (FieldValue::Date(a), FieldValue::Date(b)) => a < b,
        (FieldValue::DateTime(a), FieldValue::DateTime(b)) => a < b,
        (FieldValue::Int(a), FieldValue::Int(b)) => a < b,
        _ => number(a) < number(b),
    }
}
