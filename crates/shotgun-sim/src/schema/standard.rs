//! Reads `standard.txt`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use shotgun_model::entity::{DataType, EntityType, Shape};
use shotgun_model::schema::{EntitySchema, FieldSchema, Schema};

/// Why a text is no schema of the site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct StandardError {
    /// The number of the line, from 1; 0 for the pairs as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Two sides of one link, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The stored side.
    pub stored: (String, String),
    /// The derived side; the type may be `*`, `None` when there is no field.
    pub derived: Option<(String, String)>,
    /// The connection type with its two link fields, near side first.
    pub connection: Option<(String, String, String)>,
}

pub(super) struct Parsed {
    pub schema: Schema,
    pub pairs: Vec<Pair>,
}

type Fields = Vec<(String, FieldSchema)>;

#[derive(Default)]
struct Reader {
    groups: BTreeMap<String, Fields>,
    schema: Schema,
    pairs: Vec<Pair>,
    /// The type or group that indented lines belong to.
    group: Option<String>,
    entity_type: Option<EntityType>,
}

pub(super) fn parse(text: &str) -> Result<Parsed, StandardError> {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        reader.line(line).map_err(|message| StandardError { line: index + 1, message })?;
    }
    reader.fill_stars();
    Ok(Parsed { schema: reader.schema, pairs: reader.pairs })
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') {
            return Ok(());
        }
        if line.starts_with(' ') {
            return self.indented(bare);
        }
        let (word, rest) = bare.split_once(' ').ok_or("expected a name")?;
        match word {
            "group" => {
                self.group = Some(rest.to_owned());
                self.groups.insert(rest.to_owned(), Vec::new());
            }
            "type" => self.start_type(rest),
            "back" | "both" => self.pairs.push(pair(word, rest)?),
            other => return Err(format!("unknown word `{other}`")),
        }
        Ok(())
    }

    fn start_type(&mut self, rest: &str) {
        let (name, display) = match rest.split_once(" \"") {
            Some((name, display)) => (name, display.trim_end_matches('"').to_owned()),
            None => (rest, words_of_type(rest)),
        };
        let entity_type = EntityType::new(name);
        let mut id = FieldSchema::new(DataType::Number, "Id");
        id.editable = false;
        let name_field = FieldSchema::new(DataType::Text, "Cached Display Name");
        let fields = [("id".to_owned(), id), ("cached_display_name".to_owned(), name_field)].into();
        let entity = EntitySchema { entity_type: entity_type.clone(), display_name: display, visible: true, fields };
        self.schema.types.insert(entity_type.clone(), entity);
        self.group = None;
        self.entity_type = Some(entity_type);
    }

    fn indented(&mut self, line: &str) -> Result<(), String> {
        if let Some(names) = line.strip_prefix("with ") {
            for name in names.split(' ') {
                let fields = self.groups.get(name).ok_or_else(|| format!("unknown group `{name}`"))?.clone();
                for (name, field) in fields {
                    self.add(name, field)?;
                }
            }
            return Ok(());
        }
        let (name, field) = field(line)?;
        match &self.group {
            Some(group) => {
                self.groups.entry(group.clone()).or_default().push((name, field));
                Ok(())
            }
            None => self.add(name, field),
        }
    }

    fn add(&mut self, name: String, field: FieldSchema) -> Result<(), String> {
        let entity = self.entity_type.as_ref().and_then(|ty| self.schema.types.get_mut(ty));
        entity.ok_or("a field outside of a type")?.fields.insert(name, field);
        Ok(())
    }

    /// Gives links to every type the list of all types.
    fn fill_stars(&mut self) {
        let all: Vec<_> = self.schema.types.keys().filter(|ty| !ty.is_connection()).cloned().collect();
        for entity in self.schema.types.values_mut() {
            for field in entity.fields.values_mut() {
                if field.valid_types.first().is_some_and(|ty| *ty == "*") {
                    field.valid_types = all.clone();
                }
            }
        }
    }
}

/// Reads one field line.
fn field(line: &str) -> Result<(String, FieldSchema), String> {
    let (head, display) = match line.split_once(" \"") {
        Some((head, display)) => (head, Some(display.trim_end_matches('"'))),
        None => (line, None),
    };
    let (name, rest) = head.split_once(' ').ok_or("expected a data type")?;
    let (kind, flags) = split_kind(rest);
    let mut field = kind_of(kind)?;
    field.display_name = display.map_or_else(|| words_of_field(name), str::to_owned);
    for flag in flags.split_whitespace() {
        match flag {
            "ro" => field.editable = false,
            "must" => field.mandatory = true,
            "unique" => field.unique = true,
            _ => match flag.strip_prefix("sum:") {
                Some(summary) => {
                    field.properties.insert("summary_default".into(), json!({"value": summary, "editable": true}));
                }
                None => return Err(format!("unknown flag `{flag}`")),
            },
        }
    }
    Ok((name.to_owned(), field))
}

/// Splits off the kind; values in braces may hold blanks.
fn split_kind(rest: &str) -> (&str, &str) {
    let end = match rest.find('{') {
        Some(_) => rest.find('}').map(|at| at + 1),
        None => rest.find(' '),
    };
    rest.split_at(end.unwrap_or(rest.len()))
}

fn kind_of(kind: &str) -> Result<FieldSchema, String> {
    let end = kind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(kind.len());
    let (name, extra) = kind.split_at(end);
    let data_type: DataType = match name {
        "multi" => DataType::MultiEntity,
        "status" => DataType::StatusList,
        other => other.parse().unwrap_or(DataType::Unknown),
    };
    if data_type == DataType::Unknown {
        return Err(format!("unknown data type `{name}`"));
    }
    let mut field = FieldSchema::new(data_type, "");
    if let Some(types) = extra.strip_prefix("->") {
        field.valid_types = types.split(',').map(EntityType::new).collect();
    } else if let Some(values) = extra.strip_prefix('{') {
        for value in values.trim_end_matches('}').split('|') {
            let plain = value.strip_prefix('=').unwrap_or(value);
            if plain != value {
                field.default = plain.into();
            }
            field.valid_values.push(plain.to_owned());
            if data_type == DataType::StatusList {
                field.display_values.insert(plain.to_owned(), status_name(plain).to_owned());
            }
        }
    } else if let Some(default) = extra.strip_prefix('=') {
        let number = data_type.shape() == Shape::Int;
        field.default = if number { json!(default.parse::<i64>().unwrap_or_default()) } else { Value::from(default) };
    }
    Ok(field)
}

fn pair(word: &str, rest: &str) -> Result<Pair, String> {
    let (sides, via) = match rest.split_once(" via ") {
        Some((sides, via)) => (sides, Some(via)),
        None => (rest, None),
    };
    let arrow = if word == "back" { " <- " } else { " <-> " };
    let (left, right) = sides.split_once(arrow).ok_or_else(|| format!("expected `{}`", arrow.trim()))?;
    let (stored, derived) = if word == "back" { (right, left) } else { (left, right) };
    let connection = match via.map(|via| via.split(' ').collect::<Vec<_>>()).as_deref() {
        None => None,
        Some([ty, near, far]) => Some(((*ty).to_owned(), (*near).to_owned(), (*far).to_owned())),
        Some(_) => return Err("expected a connection type and its two fields".into()),
    };
    let side = |side: &str| {
        let (ty, field) = side.split_once('.').ok_or_else(|| format!("expected TYPE.FIELD, found `{side}`"))?;
        Ok::<_, String>((ty.to_owned(), field.to_owned()))
    };
    let derived = if derived == "-" { None } else { Some(side(derived)?) };
    Ok(Pair { stored: side(stored)?, derived, connection })
}

/// `sg_cut_in` is shown as `Cut In`.
fn words_of_field(name: &str) -> String {
    let words = name.strip_prefix("sg_").unwrap_or(name).split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `PublishedFile` is shown as `Published File`.
fn words_of_type(name: &str) -> String {
    let mut words = String::new();
    for (index, letter) in name.chars().enumerate() {
        if index > 0 && letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(letter);
    }
    words
}

/// The stock statuses: code and name.
pub(crate) const STATUSES: [(&str, &str); 28] = [
    ("wtg", "Waiting to Start"),
    ("rdy", "Ready to Start"),
    ("ip", "In Progress"),
    ("fin", "Final"),
    ("cbb", "CBB"),
    ("omt", "Omit"),
    ("hld", "On Hold"),
    ("na", "N/A"),
    ("rev", "Pending Review"),
    ("vwd", "Viewed"),
    ("apr", "Approved"),
    ("opn", "Open"),
    ("clsd", "Closed"),
    ("cmpt", "Complete"),
    ("act", "Active"),
    ("dis", "Disabled"),
    ("res", "Resolved"),
    ("dlvr", "Delivered"),
    ("recd", "Received"),
    ("cfrm", "Confirmed"),
    ("pndng", "Pending"),
    ("blk", "Blocked"),
    ("plsh", "Polish"),
    ("tkt", "Ticket"),
    ("rsk", "At Risk"),
    ("late", "Late"),
    ("rrq", "Revision Requested"),
    ("out", "Outsourced"),
];

fn status_name(code: &str) -> &str {
    STATUSES.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| name)
}
