//! A filter as one query of the server, after the joins it needs.
//!
//! A condition on a linked entity is asked of that entity's index first; the ids
//! that come back stand in the query. The same for a display name, which belongs
//! to the target. More than 65,536 of them and the query is passed on.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

use super::super::{Result, StoreError};
use super::search::{Hit, aggregate, scan, search};
use super::targets::{Entry, Target, name_fields};
use super::{Inner, dsl};
use crate::entity::{EntityRef, EntityType, Shape, fold};
use crate::filter::{FieldPath, Filter, Hop, Leaf, Test, TextMatch};

/// The deepest nesting of groups; servers refuse more than 20 to 30 levels.
const DEEPEST: usize = 8;

/// The most groups and conditions; servers of line 7 refuse more than 1,024 clauses.
const MOST_CONDITIONS: usize = 900;

/// How many texts that are too long for the index are compared one by one.
const MOST_LONG_TEXTS: usize = 10_000;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl Inner {
    /// Returns the query for the rows of a type that pass a filter, in any state.
    pub(super) async fn plan(&self, entity_type: &EntityType, filter: &Filter) -> Result<Value> {
        if filter.leaves().len() > MOST_CONDITIONS || depth(filter) > DEEPEST {
            return Err(StoreError::unsupported("the filter is too large for the server"));
        }
        self.tree(entity_type, filter).await
    }

    fn tree<'a>(&'a self, entity_type: &'a EntityType, filter: &'a Filter) -> Boxed<'a, Value> {
        Box::pin(async move {
            let (conditions, combine): (_, fn(Vec<Value>) -> Value) = match filter {
                Filter::Leaf(leaf) => return self.leaf(entity_type, leaf).await,
                Filter::All(conditions) => (conditions, dsl::all),
                Filter::Any(conditions) => (conditions, dsl::any),
            };
            let mut queries = Vec::with_capacity(conditions.len());
            for condition in conditions {
                queries.push(self.tree(entity_type, condition).await?);
            }
            Ok(combine(queries))
        })
    }

    async fn leaf(&self, entity_type: &EntityType, leaf: &Leaf) -> Result<Value> {
        let holds = self.holds(entity_type, &leaf.path, &leaf.test, leaf.path.is_multi()).await?;
        Ok(if leaf.negated { dsl::not(holds) } else { holds })
    }

    /// Returns the query for rows from which the path leads to a value that passes.
    ///
    /// `multi` tells whether a list of links lies anywhere on the whole path: then
    /// a path that leads nowhere has no value, not even an empty one.
    fn holds<'a>(
        &'a self,
        entity_type: &'a EntityType,
        path: &'a FieldPath,
        test: &'a Test,
        multi: bool,
    ) -> Boxed<'a, Value> {
        Box::pin(async move {
            let Some(hop) = path.hops.first() else {
                return self.own_field(entity_type, path, test).await;
            };
            let rest = path.rest();
            let inner = self.holds(&hop.entity_type, &rest, test, multi).await?;
            if *test == Test::Empty && !multi {
                // No value, unless the link leads to an entity that has one.
                let with_value = self.ids(hop, &dsl::not(inner)).await?;
                return Ok(dsl::not(through(hop, &with_value)));
            }
            Ok(through(hop, &self.ids(hop, &inner).await?))
        })
    }

    /// Returns the ids of the active entities at the end of a hop that the query finds.
    async fn ids(&self, hop: &Hop, query: &Value) -> Result<Vec<i64>> {
        let index = self.names.read(&hop.entity_type);
        let hits = search(&self.client, &index, &dsl::ids_only(query.clone(), dsl::MOST_TERMS + 1)).await?;
        if hits.len() > dsl::MOST_TERMS {
            let reason = format!("more than {} of `{}` pass the condition", dsl::MOST_TERMS, hop.entity_type);
            return Err(StoreError::unsupported(reason));
        }
        hits.iter().map(Hit::entity_id).collect()
    }

    async fn own_field(&self, entity_type: &EntityType, path: &FieldPath, test: &Test) -> Result<Value> {
        match test {
            Test::LinkName(how, needle) => self.link_name(entity_type, &path.field, *how, needle).await,
            _ => self.own_value(entity_type, path, test).await,
        }
    }

    async fn own_value(&self, entity_type: &EntityType, path: &FieldPath, test: &Test) -> Result<Value> {
        let field = path.field.as_str();
        if self.open_type(entity_type)?.own_mapping.contains(field) {
            let reason = format!("`{entity_type}.{field}` has a mapping of the user's own");
            return Err(StoreError::unsupported(reason));
        }
        if field == "id" {
            return dsl::id_query(test).map_err(StoreError::unsupported);
        }
        let query = dsl::field_query(field, path.data_type, test).map_err(StoreError::unsupported)?;
        match test {
            Test::Text(..) | Test::OneOf(_) if matches!(path.data_type.shape(), Shape::Text | Shape::ExactText) => {
                self.with_long_texts(entity_type, path, test, query).await
            }
            _ => Ok(query),
        }
    }

    /// Adds the rows whose text passes but is too long for the index.
    async fn with_long_texts(
        &self,
        entity_type: &EntityType,
        path: &FieldPath,
        test: &Test,
        query: Value,
    ) -> Result<Value> {
        let field = path.field.as_str();
        let long = json!({"term": {"_sg.unindexed": field}});
        let index = self.names.write(entity_type);
        let hits = scan(&self.client, &index, &long, &json!([field]), -1, MOST_LONG_TEXTS + 1).await?;
        if hits.len() > MOST_LONG_TEXTS {
            return Err(StoreError::unsupported(format!("too many texts of `{field}` are too long for the index")));
        }
        let folds = path.data_type.shape() == Shape::Text;
        let passes = |text: &str| {
            let text = if folds { fold(text) } else { text.to_owned() };
            match test {
                Test::Text(how, needle) => how.holds(&text, needle),
                Test::OneOf(wanted) => wanted.iter().any(|value| value.to_json() == text.as_str()),
                _ => false,
            }
        };
        let passing = hits.iter().filter(|hit| hit.source.get(field).and_then(Value::as_str).is_some_and(passes));
        let passing: Vec<i64> = passing.map(Hit::entity_id).collect::<Result<_>>()?;
        Ok(if passing.is_empty() { query } else { dsl::any(vec![query, dsl::ids(&passing)]) })
    }

    /// Returns the query for rows with a link whose target has, now, such a name.
    async fn link_name(&self, owner: &EntityType, field: &str, how: TextMatch, needle: &str) -> Result<Value> {
        let kinds = json!({"size": 0, "aggs": {"kinds": {"terms": {"field": format!("{field}.type"), "size": 1000}}}});
        let mut found = aggregate(&self.client, &self.names.write(owner), &kinds).await?;
        let buckets = found.remove("kinds").unwrap_or_default();
        let kinds = buckets["buckets"].as_array().cloned().unwrap_or_default();
        let mut named = BTreeSet::new();
        for kind in kinds.iter().filter_map(|bucket| bucket["key"].as_str()) {
            let entity_type = EntityType::new(kind);
            named.extend(self.named_rows(&entity_type, how, needle).await?);
            named.extend(self.named_entries(&entity_type, how, needle).await?);
        }
        if named.len() > dsl::MOST_TERMS {
            return Err(StoreError::unsupported(format!("too many entities with such a name in `{field}`")));
        }
        let named: Vec<EntityRef> = named.into_iter().collect();
        Ok(dsl::refs(field, &named))
    }

    /// Returns the entities of a cached type whose own row gives them such a name.
    async fn named_rows(&self, entity_type: &EntityType, how: TextMatch, needle: &str) -> Result<Vec<EntityRef>> {
        let Ok(open) = self.open_type(entity_type) else { return Ok(Vec::new()) };
        let test = Test::Text(how, needle.to_owned());
        let (mut alternatives, mut missing) = (Vec::new(), Vec::new());
        for field in name_fields(entity_type) {
            let Some(data_type) = open.cached.data_type(field) else { continue };
            let path = FieldPath::local(field, data_type);
            let mut conditions = missing.clone();
            conditions.push(self.own_value(entity_type, &path, &test).await?);
            alternatives.push(dsl::all(conditions));
            missing.push(self.own_value(entity_type, &path, &Test::Empty).await?);
        }
        let body = dsl::ids_only(dsl::any(alternatives), dsl::MOST_TERMS + 1);
        let hits = search(&self.client, &self.names.read(entity_type), &body).await?;
        let mut named: BTreeSet<EntityRef> = hits.iter().map(|hit| hit.key(entity_type)).collect::<Result<_>>()?;
        // Names from `relink` are few, and may be newer than the rows.
        for key in self.entries(entity_type, Entry::Relinked, dsl::everything()).await? {
            named.remove(&key);
        }
        Ok(named.into_iter().collect())
    }

    /// Returns the entities to which a link, or `relink`, gives such a name, unless their own row knows better.
    async fn named_entries(&self, entity_type: &EntityType, how: TextMatch, needle: &str) -> Result<Vec<EntityRef>> {
        let query = dsl::text_query("name.ci", how, needle).map_err(StoreError::unsupported)?;
        // A name that is too long for the index is looked at below.
        let query = dsl::any(vec![query, dsl::not(dsl::exists("name"))]);
        let mut shown = self.entries(entity_type, Entry::Shown, query).await?;
        shown.extend(self.shown.named(entity_type, |name| how.holds(&fold(name), needle)));
        let mut keys = self.without_own_row(entity_type, shown).await?;
        keys.extend(self.entries(entity_type, Entry::Relinked, dsl::everything()).await?);
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.targets(&keys).await?;
        let fits = |target: &Target| target.name.as_deref().is_some_and(|name| how.holds(&fold(name), needle));
        Ok(keys.into_iter().filter(|key| known.get(key).is_some_and(fits)).collect())
    }

    /// Leaves out the entities whose own row tells their name, or that they have none.
    async fn without_own_row(
        &self,
        entity_type: &EntityType,
        mut keys: BTreeSet<EntityRef>,
    ) -> Result<BTreeSet<EntityRef>> {
        if keys.is_empty() || !self.is_open(entity_type) {
            return Ok(keys);
        }
        let ids: Vec<i64> = keys.iter().map(|key| key.id).collect();
        let has_document = json!({"terms": {"_sg.state": ["active", "retired"]}});
        let body = dsl::ids_only(dsl::all(vec![dsl::ids(&ids), has_document]), ids.len());
        for hit in search(&self.client, &self.names.write(entity_type), &body).await? {
            keys.remove(&hit.key(entity_type)?);
        }
        Ok(keys)
    }

    async fn entries(&self, entity_type: &EntityType, entry: Entry, query: Value) -> Result<BTreeSet<EntityRef>> {
        let query = dsl::all(vec![
            json!({"term": {"entry": entry.as_str()}}),
            json!({"term": {"type": entity_type.as_str()}}),
            query,
        ]);
        let body = dsl::ids_only(query, dsl::MOST_TERMS + 1);
        let hits = search(&self.client, &self.names.display_names(), &body).await?;
        if hits.len() > dsl::MOST_TERMS {
            return Err(StoreError::unsupported(format!("too many names of `{entity_type}` to compare")));
        }
        hits.iter().map(|hit| hit.key(entity_type)).collect()
    }
}

/// Rows that a hop leads from to one of these.
fn through(hop: &Hop, ids: &[i64]) -> Value {
    dsl::refs_of_type(&hop.field, hop.multi, hop.entity_type.as_str(), ids)
}

fn depth(filter: &Filter) -> usize {
    match filter {
        Filter::Leaf(_) => 0,
        Filter::All(conditions) | Filter::Any(conditions) => 1 + conditions.iter().map(depth).max().unwrap_or(0),
    }
}
