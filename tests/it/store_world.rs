//! A small site in memory: types, rows and names that tests put into a store and
//! evaluate locally.
//!
//! The local evaluation is the one of `filter`, over these rows; what a store
//! answers is compared with it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sgcache::entity::{DataType, EntityRef, EntityType, FieldValue, Link, Timestamp};
use sgcache::entity_config::{LayoutField, TypeLayout};
use sgcache::filter::{self, FieldPath, Filter, Only, Query, RawFilter, Rows};
use sgcache::schema::{EntitySchema, FieldSchema, Schema};
use sgcache::store::{FetchedRow, Found, ReadVersion, RowState, Store, StoreErrorKind, display_name};

/// The rows of a site.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub schema: Schema,
    pub rows: BTreeMap<EntityRef, WorldRow>,
    /// The types that stores are given; the others exist on the site only.
    pub cached: Vec<EntityType>,
    pub now: Option<Timestamp>,
}

/// One row; links in it carry names.
#[derive(Clone, Debug)]
pub struct WorldRow {
    pub key: EntityRef,
    pub state: RowState,
    pub fields: Map<String, Value>,
}

impl World {
    /// Adds a type whose fields are given by the names of their data types.
    pub fn add_type(&mut self, name: &str, fields: impl IntoIterator<Item = (String, String)>) {
        let field = |(name, data_type): (String, String)| {
            let parsed = data_type.parse().expect("the names of data types never fail");
            let schema = FieldSchema::new(parsed, &name);
            (name, schema)
        };
        let id = ("id".to_owned(), "number".to_owned());
        let fields = fields.into_iter().chain([id]).map(field).collect();
        let (entity_type, display_name) = (EntityType::new(name), name.to_owned());
        let schema = EntitySchema { entity_type: entity_type.clone(), display_name, visible: true, fields };
        self.schema.types.insert(entity_type.clone(), schema);
        self.cached.push(entity_type);
    }

    /// Returns the layout of a cached type: every field of its schema.
    pub fn layout(&self, entity_type: &EntityType) -> TypeLayout {
        let fields = &self.schema.entity(entity_type).expect("a type of the world").fields;
        let fields = fields.iter().filter(|(name, _)| name.as_str() != "id");
        let field = |(name, field): (&String, &FieldSchema)| LayoutField {
            name: name.clone(),
            data_type: field.data_type,
            valid_types: Vec::new(),
            mapping: None,
        };
        TypeLayout {
            entity_type: entity_type.clone(),
            fields: fields.map(field).collect(),
            filter: Filter::everything(),
            raw_filter: RawFilter::everything(),
            hash: "world".into(),
        }
    }

    /// Gives every link in the rows the name of its target.
    pub fn name_links(&mut self, names: &BTreeMap<EntityRef, String>) {
        let own = |row: &WorldRow| display_name(&row.key.entity_type, &row.fields).map(str::to_owned);
        let mut all: BTreeMap<_, _> = names.clone();
        all.extend(self.rows.values().filter_map(|row| Some((row.key.clone(), own(row)?))));
        for row in self.rows.values_mut() {
            for value in row.fields.values_mut() {
                name_link(value, &all);
            }
        }
    }

    /// Makes room in a store for the cached types.
    pub async fn ensure_types(&self, store: &dyn Store) {
        for entity_type in &self.cached {
            store.ensure_type(&self.layout(entity_type)).await.expect("a type of the world");
        }
    }

    /// Puts the rows of the cached types into a store.
    pub async fn put_rows(&self, store: &dyn Store, epoch: i64) {
        let mut fetched = Vec::new();
        for (index, row) in self.rows.values().filter(|row| self.cached.contains(&row.key.entity_type)).enumerate() {
            let rv = ReadVersion::new(epoch, index as i64 + 1);
            let (layout, doc) = (self.layout(&row.key.entity_type), row.fields.clone());
            let row = FetchedRow::from_site(&layout, row.key.clone(), rv, row.state, doc, Timestamp(0), None);
            fetched.push(row.expect("rows of the world are whole"));
        }
        let outcomes = store.put(&fetched).await.expect("the rows of the world");
        for (row, outcome) in fetched.iter().zip(outcomes) {
            assert_eq!(outcome, sgcache::store::PutOutcome::Written, "{}", row.key());
        }
    }

    /// Reads a filter in list syntax for rows of a type.
    pub fn filter(&self, entity_type: &str, lists: &Value) -> Filter {
        let raw = RawFilter::from_lists(lists, false).unwrap_or_else(|error| panic!("{lists}: {error}"));
        let filter = self.schema.filter(&entity_type.into(), &raw).unwrap_or_else(|error| panic!("{lists}: {error}"));
        self.now.map_or_else(|| filter.clone(), |now| filter.at(now))
    }

    /// Answers a query from memory: every matching id in order, no paging.
    pub fn all_ids(&self, query: &Query) -> Vec<i64> {
        let state = if query.only == Only::Retired { RowState::Retired } else { RowState::Active };
        let mut filter = query.filter.clone();
        if !query.include_archived_projects && query.entity_type != "Project" {
            let archived = serde_json::json!([["project.Project.archived", "is_not", true]]);
            filter = filter.and(self.filter(query.entity_type.as_str(), &archived));
        }
        let of_type = self.rows.values().filter(|row| row.key.entity_type == query.entity_type && row.state == state);
        let mut rows: Vec<_> = of_type.filter(|row| filter::matches(&filter, &View(self), *row)).collect();
        rows.sort_by(|a, b| filter::compare(&query.order, &View(self), *a, *b));
        rows.into_iter().map(|row| row.key.id).collect()
    }

    /// Returns the fields of a row as a store gives them: as `read` answers, without signatures.
    pub fn fields(&self, key: &EntityRef, paths: &[FieldPath]) -> Map<String, Value> {
        let row = &self.rows[key];
        let value =
            |path: &FieldPath| Some((path.to_string(), filter::resolve_links(path, &View(self), row)?.to_json()));
        let mut fields: Map<String, Value> = paths.iter().filter_map(value).collect();
        // Addresses of pictures are stored without the query that signs them.
        for path in paths.iter().filter(|path| path.data_type == DataType::Image) {
            if let Some(Value::String(url)) = fields.get_mut(&path.to_string())
                && url.contains("X-Amz-Signature")
            {
                url.truncate(url.find('?').unwrap_or(url.len()));
            }
        }
        fields
    }

    /// Asserts that a store answers a query as local evaluation does.
    pub async fn check(&self, store: &dyn Store, query: &Query) {
        let all = self.all_ids(query);
        let (size, offset) = (query.page.size as usize, query.page.offset() as usize);
        let page: Vec<_> = all.iter().copied().skip(offset).take(size).collect();
        let found = match store.find(query).await {
            Ok(found) => found,
            Err(error) if error.kind() == StoreErrorKind::Unsupported => panic!("{query:?} is not answered: {error}"),
            Err(error) => panic!("{query:?} failed: {error}"),
        };
        assert_eq!(ids(&found), page, "{} over\n{self:#?}", query.filter);
        assert_eq!(found.has_next_page, all.len() > offset + size, "has_next_page of {query:?}");
        assert_eq!(store.count(query).await.expect("the count"), all.len() as u64, "count of {}", query.filter);
        for row in &found.rows {
            let expected = self.fields(&row.key, &query.fields);
            assert_eq!(Value::Object(row.fields()), Value::Object(expected), "{} over\n{self:#?}", row.key);
        }
    }
}

/// Returns the ids of a page.
pub fn ids(found: &Found) -> Vec<i64> {
    found.rows.iter().map(|row| row.key.id).collect()
}

fn name_link(value: &mut Value, names: &BTreeMap<EntityRef, String>) {
    if let Value::Array(links) = value {
        for link in links {
            name_link(link, names);
        }
        return;
    }
    if let Some(target) = EntityRef::from_json(value) {
        value["name"] = names.get(&target).map_or(Value::Null, |name| name.as_str().into());
    }
}

/// The rows as local evaluation wants them.
struct View<'a>(&'a World);

impl<'a> Rows<'a> for View<'a> {
    type Row = &'a WorldRow;

    fn row(&self, target: &EntityRef) -> Option<Self::Row> {
        self.0.rows.get(target).filter(|row| row.state == RowState::Active)
    }

    fn key(&self, row: Self::Row) -> EntityRef {
        row.key.clone()
    }

    fn value(&self, row: Self::Row, field: &str) -> Cow<'a, FieldValue> {
        if field == "id" {
            return Cow::Owned(FieldValue::Int(row.key.id));
        }
        let data_type = self.0.schema.field(&row.key.entity_type, field).expect("a field of the world").data_type;
        let value = row.fields.get(field).unwrap_or(&Value::Null);
        Cow::Owned(FieldValue::from_json(data_type, value).expect("a value of the data type"))
    }

    fn is_retired(&self, target: &EntityRef) -> bool {
        self.0.rows.get(target).is_some_and(|row| row.state.is_dead())
    }

    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>> {
        match self.0.rows.get(&link.target) {
            Some(row) if self.0.cached.contains(&row.key.entity_type) => {
                display_name(&row.key.entity_type, &row.fields).map(Cow::Borrowed)
            }
            _ => link.name.clone().map(Cow::Owned),
        }
    }
}
