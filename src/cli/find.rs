//! `sgcache find`: reads the local store. The site is not asked.

use std::path::Path;

use serde_json::{Map, Value};

use super::Failure;
use super::context::Offline;
use super::output::{self, Output};
use crate::api3::decoded_value;
use crate::entity::EntityType;
use crate::filter::{Only, Page, Query, RawFilter, RawSort, parse_fields, parse_order};
use crate::schema::Schema;

/// What rows are asked for; `find` and `validateData` share it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Conditions as shotgun_api3.find takes them, in JSON or with single quotes
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub filters: Option<String>,
    /// How the conditions are joined
    #[arg(long, value_name = "all|any", value_parser = ["all", "any"], default_value = "all")]
    pub filter_operator: String,
    /// Fields: `a,b` or a list
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<String>,
    /// Order: `-updated_at,id` or a list of field_name and direction
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    pub order: Option<String>,
    /// Maximum number of rows; with --page, rows per page
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: Option<u32>,
    /// Number of the page, from 1
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub page: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The entity type, such as Shot
    #[arg(add = super::completion::entity_types())]
    entity_type: String,
    #[command(flatten)]
    selection: Selection,
    /// Retired entities instead of active ones
    #[arg(long)]
    retired_only: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Selection {
    /// Reads `--filters`.
    ///
    /// # Errors
    ///
    /// A usage failure that points into the text.
    pub fn raw_filter(&self) -> Result<Option<RawFilter>, Failure> {
        let read = |text: &String| RawFilter::parse(text, self.filter_operator == "any");
        self.filters.as_ref().map(read).transpose().map_err(|error| Failure::usage(format!("--filters: {error}")))
    }

    /// Reads `--order`.
    ///
    /// # Errors
    ///
    /// A usage failure that points into the text.
    pub fn raw_order(&self) -> Result<Option<Vec<RawSort>>, Failure> {
        let read = |text: &String| parse_order(text);
        self.order.as_ref().map(read).transpose().map_err(|error| Failure::usage(format!("--order: {error}")))
    }

    /// Reads `--fields`.
    ///
    /// # Errors
    ///
    /// A usage failure that points into the text.
    pub fn field_names(&self) -> Result<Option<Vec<String>>, Failure> {
        let read = |text: &String| parse_fields(text);
        self.fields.as_ref().map(read).transpose().map_err(|error| Failure::usage(format!("--fields: {error}")))
    }

    /// Returns the page to read, of at most `default` rows unless a limit says
    /// otherwise.
    pub fn page(&self, default: u32) -> Page {
        Page { size: self.limit.unwrap_or(default), number: self.page.unwrap_or(1) }
    }
}

pub async fn run(args: Args, config: Option<&Path>) -> Result<u8, Failure> {
    let offline = Offline::open(config).await?;
    let (query, columns) = query(&args, &offline)?;
    let found = offline.store.find(&query).await?;
    let rows = found.rows.iter().map(|row| record(&row.key.entity_type, row.key.id, row.fields(), &columns));
    let rows: Vec<Map<String, Value>> = rows.collect();
    print(&rows, &columns, args.output);
    if found.has_next_page && args.output == Output::Table {
        let next = query.page.number + 1;
        eprintln!("there is more: --page {next} shows the next {}", query.page.size);
    }
    Ok(0)
}

fn query(args: &Args, offline: &Offline) -> Result<(Query, Vec<String>), Failure> {
    let schema = &offline.schema;
    let entity_type = known_type(&args.entity_type, offline)?;
    let raw_filter = args.selection.raw_filter()?.unwrap_or_else(RawFilter::everything);
    let filter = schema
        .filter(&entity_type, &raw_filter)
        .map_err(|fault| Failure::usage(format!("--filters: {}", fault.message)))?;
    let names = args.selection.field_names()?.unwrap_or_else(|| default_columns(schema, &entity_type));
    let order = args.selection.raw_order()?.unwrap_or_default();
    for sort in &order {
        if schema.path(&entity_type, &sort.path).is_none() {
            return Err(unknown_field("--order", &entity_type, &sort.path, schema));
        }
    }
    for name in names.iter().filter(|name| !matches!(name.as_str(), "type" | "id")) {
        if schema.path(&entity_type, name).is_none() {
            return Err(unknown_field("--fields", &entity_type, name, schema));
        }
    }
    let columns: Vec<_> = names.iter().filter(|name| !matches!(name.as_str(), "type" | "id")).cloned().collect();
    let mut query = Query::all(entity_type.clone())
        .filter(filter.at(offline.now))
        .fields(schema.fields(&entity_type, &names))
        .order(schema.order(&entity_type, &order))
        .page(args.selection.page(500));
    if args.retired_only {
        query.only = Only::Retired;
    }
    Ok((query, columns))
}

/// Finds a cached type by name, or says which one was meant.
pub fn known_type(name: &str, offline: &Offline) -> Result<EntityType, Failure> {
    let entity_type = EntityType::new(name);
    if offline.layouts.iter().any(|layout| layout.entity_type == entity_type) {
        return Ok(entity_type);
    }
    let known: Vec<_> = offline.layouts.iter().map(|layout| layout.entity_type.as_str()).collect();
    let hint = crate::yaml::did_you_mean(name, &known).map(|hint| format!("; {hint}")).unwrap_or_default();
    let list = known.join(", ");
    Err(Failure::usage(format!("`{name}` is not a cached entity type{hint}\n  cached are: {list}")))
}

fn unknown_field(option: &str, entity_type: &EntityType, name: &str, schema: &Schema) -> Failure {
    let fields: Vec<&str> =
        schema.entity(entity_type).map(|entity| entity.fields.keys().map(String::as_str).collect()).unwrap_or_default();
    let hint = crate::yaml::did_you_mean(name, &fields).map(|hint| format!("; {hint}")).unwrap_or_default();
    Failure::usage(format!("{option}: {entity_type} has no field `{name}`{hint}"))
}

fn default_columns(schema: &Schema, entity_type: &EntityType) -> Vec<String> {
    let wanted = [crate::schema::display_name_field(entity_type), "sg_status_list", "project", "updated_at"];
    let exists = |name: &&str| schema.field(entity_type, name).is_some();
    wanted.into_iter().filter(exists).map(str::to_owned).collect()
}

/// Puts a row into the form of `shotgun_api3.find`: `type`, `id` and the asked fields.
fn record(entity_type: &EntityType, id: i64, mut fields: Map<String, Value>, columns: &[String]) -> Map<String, Value> {
    let mut record = Map::new();
    for column in columns {
        if let Some(value) = fields.remove(column) {
            record.insert(column.clone(), decoded_value(value));
        }
    }
    record.insert("id".into(), id.into());
    record.insert("type".into(), entity_type.as_str().into());
    record
}

fn print(rows: &[Map<String, Value>], columns: &[String], form: Output) {
    match form {
        Output::Json => println!("{}", Value::from_iter(rows.iter().cloned().map(Value::Object))),
        Output::Ndjson => rows.iter().for_each(|row| println!("{}", Value::Object(row.clone()))),
        Output::Table => {
            let mut table = output::table(["id"]);
            table.set_header(std::iter::once("id").chain(columns.iter().map(String::as_str)));
            for row in rows {
                let cells = std::iter::once("id").chain(columns.iter().map(String::as_str));
                table
                    .add_row(cells.map(|name| output::short(&output::cell(row.get(name).unwrap_or(&Value::Null)), 60)));
            }
            println!("{table}");
            eprintln!("{} rows", rows.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_decoded_as_the_client_decodes_them() {
        let Value::Object(fields) = json!({"code": "a&lt;b&gt;&amp;", "sg_sequence": {"name": "a&lt;b"}}) else {
            panic!("an object")
        };
        let columns = ["code".to_owned(), "sg_sequence".to_owned()];
        let row = Value::Object(record(&EntityType::new("Shot"), 1, fields, &columns));
        let expected = json!({"code": "a<b&gt;&amp;", "sg_sequence": {"name": "a&lt;b"}, "id": 1, "type": "Shot"});
        assert_eq!(row, expected);
    }
}
