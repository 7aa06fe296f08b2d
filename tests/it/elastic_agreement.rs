//! Random rows and random filters: the server answers what local evaluation answers.
//!
//! Rows are written in random order and batches, old reads after new ones, with
//! retirements, revivals and renames of link targets in between. The seed of a
//! failure is in its message.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rand::prelude::*;
use serde_json::{Map, Value, json};
use sgcache::elastic::Settings;
use sgcache::entity::{DataType, EntityRef, FieldValue, Link, Shape, Timestamp, fold};
use sgcache::entity_config::{LayoutField, TypeLayout};
use sgcache::filter::{
    FieldPath, Filter, Hop, Leaf, Only, Page, Query, RawFilter, Rows, Sort, Test, TextMatch, compare, matches,
    resolve_links,
};
use sgcache::store::elasticsearch::ElasticsearchStore;
use sgcache::store::{FetchedRow, PutOutcome, ReadVersion, RowState, Store, StoreErrorKind, display_name};

use crate::servers::{TestIndices, elasticsearch};

const IDS: i64 = 12;

fn fields_of(entity_type: &str) -> Vec<(&'static str, DataType)> {
    use DataType::*;
    match entity_type {
        "Shot" => vec![
            ("code", Text),
            ("description", Text),
            ("sg_status_list", StatusList),
            ("sg_cut_in", Number),
            ("sg_fps", Float),
            ("sg_flag", Checkbox),
            ("sg_due", Date),
            ("updated_at", DateTime),
            ("sg_kind", EntityType),
            ("image", Image),
            ("assets", MultiEntity),
            ("sg_sequence", Entity),
            ("created_by", Entity),
        ],
        "Asset" => {
            vec![("code", Text), ("sg_n", Number), ("parents", MultiEntity), ("shots", MultiEntity), ("image", Image)]
        }
        _ => vec![("code", Text), ("sg_flag", Checkbox), ("sg_lead", Entity), ("shots", MultiEntity)],
    }
}

fn layout(entity_type: &str) -> TypeLayout {
    let field = |(name, data_type): (&str, DataType)| LayoutField {
        name: name.to_owned(),
        data_type,
        valid_types: vec![],
        mapping: None,
    };
    let mut fields: Vec<LayoutField> = fields_of(entity_type).into_iter().map(field).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    TypeLayout {
        entity_type: entity_type.into(),
        fields: fields.into(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: "1".into(),
    }
}

const TYPES: [&str; 3] = ["Shot", "Asset", "Sequence"];

/// Draws values from small pools, so that filters meet them.
struct Dice(StdRng);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn text(&mut self) -> String {
        let long = format!("{}Tail", "x".repeat(9000));
        let texts = [
            "a",
            "A",
            "ab",
            "AB*c",
            "b?d",
            "b\\e",
            "Élan",
            "élan x",
            "İst",
            "ΣΑΣ",
            "ß",
            "10%",
            "a_b",
            "",
            long.as_str(),
        ];
        (*self.pick(&texts)).to_owned()
    }

    fn needle(&mut self) -> String {
        let needles = ["a", "ab", "*", "?", "\\", "é", "Σ", "İ", "b", "tail", "_", "%", "ß", "zz", "X"];
        let needle: &&str = self.pick(&needles);
        fold(needle)
    }

    fn link(&mut self) -> Value {
        let (entity_type, ids) = *self.pick(&[("Shot", IDS), ("Asset", IDS), ("Sequence", IDS), ("HumanUser", 3)]);
        // Some links lead to entities that have no row.
        let id = self.0.random_range(1..=ids + 2);
        json!({"type": entity_type, "id": id, "name": self.text()})
    }

    fn value(&mut self, data_type: DataType) -> Value {
        let is_never_null = matches!(data_type.shape(), Shape::Bool | Shape::Links);
        if !is_never_null && self.chance(0.25) {
            return Value::Null;
        }
        match data_type.shape() {
            Shape::Text if data_type == DataType::StatusList => (*self.pick(&["ip", "IP", "fin"])).into(),
            Shape::Text => self.text().into(),
            Shape::ExactText => (*self.pick(&["Shot", "shot", "Asset"])).into(),
            Shape::Int => self.0.random_range(-2..4).into(),
            Shape::Float => (*self.pick(&[24.0, 23.976, 0.1, -1.5])).into(),
            Shape::Bool => self.chance(0.5).into(),
            Shape::Date => (*self.pick(&["2024-02-29", "2024-03-01", "1969-12-31"])).into(),
            Shape::DateTime => (*self.pick(&["2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"])).into(),
            Shape::Link => self.link(),
            Shape::Links => {
                let count = self.below(4);
                (0..count).map(|_| self.link()).collect()
            }
            _ => "https://site/image.jpg".into(),
        }
    }

    fn row(&mut self, rv: i64) -> FetchedRow {
        let entity_type = *self.pick(&TYPES);
        let key = EntityRef::new(entity_type, self.0.random_range(1..=IDS));
        let states = [(RowState::Active, 80), (RowState::Retired, 8), (RowState::Absent, 6), (RowState::Filtered, 6)];
        let state = states.choose_weighted(&mut self.0, |(_, weight)| *weight).unwrap().0;
        let fields: Map<String, Value> =
            fields_of(entity_type).into_iter().map(|(name, ty)| (name.to_owned(), self.value(ty))).collect();
        FetchedRow::from_site(&layout(entity_type), key, ReadVersion(rv), state, fields, Timestamp(0), None).unwrap()
    }

    fn path(&mut self, entity_type: &str, hops: usize) -> FieldPath {
        let fields = fields_of(entity_type);
        let links: Vec<_> = fields.iter().filter(|(_, ty)| matches!(ty.shape(), Shape::Link | Shape::Links)).collect();
        if hops > 0 && !links.is_empty() {
            let &&(field, data_type) = self.pick(&links);
            let next = *self.pick(&TYPES);
            let mut path = self.path(next, hops - 1);
            let multi = data_type.shape() == Shape::Links;
            path.hops.insert(0, Hop { field: field.into(), multi, entity_type: next.into() });
            return path;
        }
        if self.chance(0.1) {
            return FieldPath::id();
        }
        let &(field, data_type) = self.pick(&fields);
        FieldPath::local(field, data_type)
    }

    /// An operand of a test on this data type.
    fn operand(&mut self, data_type: DataType) -> FieldValue {
        loop {
            let value = FieldValue::from_json(data_type, &self.value(data_type)).unwrap();
            match value {
                FieldValue::Null => {}
                FieldValue::Text(text) if data_type.shape() == Shape::Text => return FieldValue::Text(fold(&text)),
                other => return other,
            }
        }
    }

    fn test(&mut self, data_type: DataType) -> Test {
        let how = *self.pick(&[TextMatch::Is, TextMatch::Contains, TextMatch::StartsWith, TextMatch::EndsWith]);
        let shape = data_type.shape();
        if shape == Shape::Presence || self.chance(0.2) {
            return Test::Empty;
        }
        match shape {
            Shape::Link | Shape::Links => match self.below(4) {
                0 => Test::LinkType((*self.pick(&["Shot", "Asset", "HumanUser"])).into()),
                1 => Test::LinkName(how, self.needle()),
                _ => Test::LinkTo((0..2).map(|_| EntityRef::from_json(&self.link()).unwrap()).collect()),
            },
            Shape::Text if self.chance(0.6) => Test::Text(how, self.needle()),
            Shape::Int | Shape::Float | Shape::Date | Shape::DateTime if self.chance(0.6) => match self.below(3) {
                0 => Test::Less(self.operand(data_type)),
                1 => Test::Greater(self.operand(data_type)),
                _ => Test::Between(self.operand(data_type), self.operand(data_type)),
            },
            _ => Test::OneOf((0..self.below(3)).map(|_| self.operand(data_type)).collect()),
        }
    }

    fn filter(&mut self, entity_type: &str, depth: usize) -> Filter {
        if depth == 0 || self.chance(0.4) {
            let hops = self.below(3);
            let path = self.path(entity_type, hops);
            let test = self.test(path.data_type);
            return Filter::Leaf(Leaf { path, negated: self.chance(0.4), test });
        }
        let conditions = (0..self.below(4)).map(|_| self.filter(entity_type, depth - 1)).collect();
        if self.chance(0.5) { Filter::All(conditions) } else { Filter::any(conditions) }
    }

    fn query(&mut self) -> Query {
        let entity_type = *self.pick(&TYPES);
        let filter = self.filter(entity_type, 2);
        let order = (0..self.below(3))
            .map(|_| {
                let hops = self.below(2);
                Sort { path: self.path(entity_type, hops), descending: self.chance(0.5) }
            })
            .collect();
        let fields = (0..3).map(|hops| self.path(entity_type, hops)).filter(|path| path.field != "id").collect();
        let page = Page { size: self.0.random_range(1..=IDS as u32), number: self.0.random_range(1..=2) };
        let only = if self.chance(0.15) { Only::Retired } else { Only::Active };
        Query { only, ..Query::all(entity_type).filter(filter).order(order).fields(fields).page(page) }
    }
}

/// What a store should hold.
#[derive(Default)]
struct Model {
    rows: BTreeMap<EntityRef, FetchedRow>,
    shown: HashMap<EntityRef, (String, ReadVersion)>,
}

impl Model {
    fn put(&mut self, row: &FetchedRow) -> PutOutcome {
        if self.rows.get(row.key()).is_some_and(|known| known.rv() >= row.rv()) {
            return PutOutcome::Stale;
        }
        for field in layout(row.key().entity_type.as_str()).fields.iter() {
            let Some(Ok(value)) = row.doc().get(&field.name).map(|v| FieldValue::from_json(field.data_type, v)) else {
                continue;
            };
            for link in value.links() {
                let Some(name) = link.name.clone() else { continue };
                let newest = self.shown.entry(link.target.clone()).or_insert_with(|| (name.clone(), row.rv()));
                if newest.1 < row.rv() {
                    *newest = (name, row.rv());
                }
            }
        }
        self.rows.insert(row.key().clone(), row.clone());
        PutOutcome::Written
    }

    fn ids(&self, query: &Query) -> Vec<i64> {
        let wanted = if query.only == Only::Active { RowState::Active } else { RowState::Retired };
        let of_type = self.rows.values().filter(|row| row.key().entity_type == query.entity_type);
        let mut rows: Vec<&FetchedRow> =
            of_type.filter(|row| row.state() == wanted && matches(&query.filter, &self, *row)).collect();
        rows.sort_by(|a, b| compare(&query.order, &self, *a, *b));
        rows.into_iter().map(|row| row.key().id).collect()
    }
}

impl<'a> Rows<'a> for &'a Model {
    type Row = &'a FetchedRow;

    fn row(&self, target: &EntityRef) -> Option<&'a FetchedRow> {
        self.rows.get(target).filter(|row| row.state() == RowState::Active)
    }

    fn key(&self, row: &'a FetchedRow) -> EntityRef {
        row.key().clone()
    }

    fn value(&self, row: &'a FetchedRow, field: &str) -> Cow<'a, FieldValue> {
        if field == "id" {
            return Cow::Owned(FieldValue::Int(row.key().id));
        }
        let layout = layout(row.key().entity_type.as_str());
        let data_type = layout.field(field).unwrap().data_type;
        Cow::Owned(FieldValue::from_json(data_type, &row.doc()[field]).unwrap())
    }

    fn is_retired(&self, target: &EntityRef) -> bool {
        self.rows.get(target).is_some_and(|row| row.state().is_dead())
    }

    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>> {
        if let Some(row) = self.rows.get(&link.target).filter(|row| row.state().has_document()) {
            return display_name(&row.key().entity_type, row.doc()).map(Cow::Borrowed);
        }
        let shown = self.shown.get(&link.target).map(|(name, _)| Cow::Borrowed(name.as_str()));
        shown.or_else(|| link.name.clone().map(Cow::Owned))
    }
}

async fn fill(store: &dyn Store, dice: &mut Dice) -> Model {
    for entity_type in TYPES {
        store.ensure_type(&layout(entity_type)).await.unwrap();
    }
    let mut model = Model::default();
    let mut versions: Vec<i64> = (1..=90).collect();
    versions.shuffle(&mut dice.0);
    while !versions.is_empty() {
        let size = dice.0.random_range(1..=12).min(versions.len());
        let batch: Vec<FetchedRow> = versions.split_off(versions.len() - size).iter().map(|&rv| dice.row(rv)).collect();
        let expected: Vec<PutOutcome> = batch.iter().map(|row| model.put(row)).collect();
        assert_eq!(store.put(&batch).await.unwrap(), expected);
    }
    model
}

/// Returns a value in the one form that all spellings of it share.
fn settled(path: &FieldPath, value: &Value) -> Value {
    if value.is_null() && path.data_type.shape() == Shape::Bool {
        return Value::Null;
    }
    FieldValue::from_json(path.data_type, value).unwrap().to_json()
}

async fn check(store: &dyn Store, model: &Model, query: &Query, context: &str) {
    let context = format!("{context}\n{}: {}\n{query:?}", query.entity_type, query.filter);
    let expected = model.ids(query);
    let found = match store.find(query).await {
        Ok(found) => found,
        Err(error) if error.kind() == StoreErrorKind::Unsupported => panic!("{error}\n{context}"),
        Err(error) => panic!("{error}\n{context}"),
    };
    let offset = query.page.offset() as usize;
    let page: Vec<i64> = expected.iter().copied().skip(offset).take(query.page.size as usize).collect();
    assert_eq!(found.rows.iter().map(|row| row.key.id).collect::<Vec<_>>(), page, "{context}");
    assert_eq!(found.has_next_page, expected.len() > offset + query.page.size as usize, "{context}");
    assert_eq!(store.count(query).await.unwrap(), expected.len() as u64, "{context}");
    for row in &found.rows {
        for path in &query.fields {
            let expected = resolve_links(path, &model, &model.rows[&row.key]).map(|value| value.to_json());
            let value = row.get(&path.to_string());
            let value = value.map(|value| if path.hops.is_empty() { settled(path, &value) } else { value });
            let value = value.map(|value| if value.is_null() { value } else { settled(path, &value) });
            assert_eq!(value, expected, "{path} of {}\n{context}", row.key);
        }
    }
}

#[tokio::test]
async fn the_server_answers_what_local_evaluation_answers() {
    let Some(url) = elasticsearch("elastic_agreement") else { return };
    let first: u64 = std::env::var("SGCACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rounds: u64 = std::env::var("SGCACHE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    for seed in first..first + rounds {
        let indices = TestIndices::new(url);
        let store = ElasticsearchStore::open(&Settings::new([url]), indices.prefix()).await.unwrap();
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        let model = fill(&store, &mut dice).await;
        for number in 0..250 {
            let query = dice.query();
            check(&store, &model, &query, &format!("seed {seed}, query {number}")).await;
        }
    }
}
