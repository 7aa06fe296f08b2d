//! What a simulated site has committed, moment by moment, and what its cache holds as fresh
//! meanwhile, compared by code that shares nothing with what it tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sgcache::filter::Query;
use sgcache::sim::Site;
use sgcache::state::TypeReplicationStatus;
use sgcache::store::StoreError;

use crate::sync_cache::{CONFIGS, Cache};

type Row = Map<String, Value>;
type Rows = BTreeMap<i64, Row>;
type Everything = BTreeMap<&'static str, Rows>;
type Key = (String, i64);

/// A cache, and everything that its site ever showed.
pub struct Observed {
    pub cache: Cache,
    history: Vec<Committed>,
    /// Rows that changed without an event: freshness says nothing about them.
    silent: BTreeSet<Key>,
    /// How long the event log is behind the rows.
    event_lag: Duration,
}

/// What the site had committed after an edit.
struct Committed {
    /// The moment from which on the event log shows the edit.
    at: i64,
    /// The number of the last poll that began before it, where that is known.
    poll: Option<i64>,
    rows: Everything,
    /// What is neither retired nor absent, whatever the filters of the entity configs.
    active: BTreeSet<Key>,
}

impl Committed {
    fn of(site: &Site, at: i64, poll: Option<i64>) -> Self {
        let ids = |name: &str| {
            let rows = site.read(name, &json!([]), &[]).expect("rows");
            rows.iter().map(|row| (name.to_owned(), row["id"].as_i64().expect("an id"))).collect::<Vec<_>>()
        };
        let active = CONFIGS.iter().map(|(name, _)| *name).chain(["HumanUser", "ApiUser"]).flat_map(ids).collect();
        Self { at, poll, rows: committed(site), active }
    }
}

impl Observed {
    /// Observes a cache that equals its site.
    pub fn of(cache: Cache) -> Self {
        let history = vec![Committed::of(cache.site(), 0, Some(0))];
        Self { cache, history, silent: BTreeSet::new(), event_lag: Duration::ZERO }
    }

    /// Makes an edit; what the site refuses was none.
    pub async fn edit(&mut self, edit: impl FnOnce(&Arc<Site>)) {
        edit(self.cache.site());
        let lag = i64::try_from(self.event_lag.as_millis()).expect("a short lag");
        let at = self.cache.tick(Duration::ZERO).0 + lag;
        let poll = match self.cache.is_started() && lag == 0 {
            true => Some(self.cache.state().stream().await.expect("a stream").polls_started),
            false => None,
        };
        self.history.push(Committed::of(self.cache.site(), at, poll));
    }

    /// From now on the event log shows edits later than the rows: what counts as fresh holds
    /// those that it shows.
    pub fn delay_events(&mut self, by: Duration) {
        self.event_lag = by;
    }

    /// Makes an edit of which the event log tells nothing. What it changed is compared by
    /// [`Observed::differences`] alone.
    pub async fn edit_silently(&mut self, edit: impl FnOnce(&Arc<Site>)) {
        let before = committed(self.cache.site());
        self.edit(edit).await;
        let after = &self.history.last().expect("the edit").rows;
        for (name, rows) in after {
            let ids = rows.keys().chain(before[name].keys());
            let changed = ids.filter(|id| rows.get(*id) != before[name].get(*id));
            self.silent.extend(changed.map(|id| ((*name).to_owned(), *id)));
        }
    }

    /// Leaves the rows of a project out of what is said about fresh rows.
    pub fn leave_out_project(&mut self, project: i64) {
        for (name, _) in CONFIGS {
            let filters = json!([["project", "is", {"type": "Project", "id": project}]]);
            let rows = if *name == "Project" { None } else { self.cache.site().read(name, &filters, &[]).ok() };
            let ids = rows.iter().flatten().filter_map(|row| row["id"].as_i64());
            self.silent.extend(ids.map(|id| ((*name).to_owned(), id)));
        }
        self.silent.insert(("Project".to_owned(), project));
    }

    /// Compares each row with what the site had since its type counts as fresh; returns what
    /// was at no such moment.
    pub async fn fresh_differences(&self) -> Vec<String> {
        let status = self.cache.state().replication_status().await.expect("a status");
        let mut differences = Vec::new();
        for (name, _) in CONFIGS {
            let name: &'static str = name;
            // A type that is being imported or whose deletions are stopped, and a row in
            // quarantine, are not served.
            let served = |followed: &&TypeReplicationStatus| followed.is_live() && !followed.breaker;
            let followed = status.types.get(name).filter(served);
            let (Some(followed), Some(fresh)) = (followed, status.fresh_as_of(&name.into())) else { continue };
            let through = status.read_through(&name.into());
            let truths = &self.history[self.seen_before(fresh.0, through)..];
            // A damaged row makes reads fail, which pass then, until it was read again.
            let Ok(cached) = self.cached(name, false).await else { continue };
            let ids = truths.iter().flat_map(|edit| edit.rows[name].keys()).chain(cached.keys());
            for id in ids.copied().collect::<BTreeSet<i64>>() {
                if !self.silent.contains(&(name.to_owned(), id))
                    && !followed.quarantined.contains(&id)
                    && let Err(what) = self.check_row(name, id, cached.get(&id), truths)
                {
                    differences.push(what);
                }
            }
        }
        differences
    }

    /// Returns the place in the history of the last edit that was seen, with all before it,
    /// by what counts as fresh.
    fn seen_before(&self, fresh: i64, through: i64) -> usize {
        // An edit at the very moment of a poll was made after it.
        let by_time = self.history.iter().take_while(|edit| edit.at < fresh).count().saturating_sub(1);
        // A write is in the rows once a poll that began after it, and all that followed, is read.
        let known = self.history.iter().take_while(|edit| edit.poll.is_some()).count();
        let polled = |edit: &Committed| edit.poll.is_some_and(|poll| poll < through);
        let by_poll = self.history[..known].iter().rposition(polled).unwrap_or(0);
        by_time.max(by_poll)
    }

    /// Each value of a row, and each element of its lists, was there in one of the rows of
    /// the site. They need not be of the same moment: links to a retired entity are hidden
    /// at once, in rows that are read again later.
    fn check_row(&self, name: &'static str, id: i64, row: Option<&Row>, edits: &[Committed]) -> Result<(), String> {
        let truths: Vec<_> = edits.iter().map(|edit| edit.rows[name].get(&id)).collect();
        if !truths.iter().any(|truth| truth.is_some() == row.is_some()) {
            let cached = if row.is_some() { "in the cache" } else { "not in the cache" };
            return Err(format!("{name} {id} is {cached}, and was so at no moment that counts"));
        }
        let Some(row) = row else { return Ok(()) };
        let say = |field: &str, value: &Value, values: &[&Value]| {
            let list =
                |values: &[&Value]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>().join(" or ");
            Err(format!("{name} {id}: {field} is {value} and was {}", list(values)))
        };
        let silent = |link: &Value| key_of(link).is_some_and(|key| self.silent.contains(&key));
        let hidden = |link: &Value| key_of(link).is_some_and(|key| edits.iter().any(|one| !one.active.contains(&key)));
        let truths: Vec<_> = truths.iter().flatten().map(|truth| links_without_names(truth)).collect();
        for (field, value) in row {
            let values: Vec<&Value> = truths.iter().map(|truth| &truth[field]).collect();
            let Some(items) = value.as_array() else {
                let excused = silent(value) || value.is_null() && values.iter().any(|one| hidden(one) || silent(one));
                if !excused && !values.contains(&value) {
                    return say(field, value, &values);
                }
                continue;
            };
            let lists: Vec<_> = values.iter().map(|truth| truth.as_array().expect("a list")).collect();
            let was = |item: &Value| silent(item) || lists.iter().any(|list| list.contains(item));
            let always = |item: &&Value| lists.iter().all(|list| list.contains(item)) && !hidden(item) && !silent(item);
            if !items.iter().all(was) || !lists[0].iter().filter(always).all(|item| items.contains(item)) {
                return say(field, value, &values);
            }
        }
        Ok(())
    }

    /// Compares everything with what the site has committed now, names too; rows that changed
    /// without an event only `with_silent`.
    pub async fn differences(&self, with_silent: bool) -> Vec<String> {
        let truth = committed(self.cache.site());
        let mut differences = Vec::new();
        for (name, _) in CONFIGS {
            let (cached, shown) = (self.cached(name, true).await.expect("rows"), &truth[name]);
            for id in cached.keys().chain(shown.keys()).copied().collect::<BTreeSet<i64>>() {
                let (row, committed) = (cached.get(&id), shown.get(&id));
                let compared = with_silent || !self.shows_silent(name, id, [row, committed]);
                if compared && row != committed {
                    differences.push(format!("{name} {id}: {}", difference(row, committed)));
                }
            }
        }
        differences
    }

    /// Tells whether a row, or what it links to, changed without an event.
    fn shows_silent(&self, name: &str, id: i64, rows: [Option<&Row>; 2]) -> bool {
        let is_silent = |link: &Value| key_of(link).is_some_and(|key| self.silent.contains(&key));
        let shows = |value: &Value| value.as_array().map_or(is_silent(value), |items| items.iter().any(is_silent));
        self.silent.contains(&(name.to_owned(), id)) || rows.into_iter().flatten().any(|row| row.values().any(shows))
    }

    async fn cached(&self, name: &str, names: bool) -> Result<Rows, StoreError> {
        let layout = self.cache.layout(name);
        let query = Query::all(layout.entity_type.clone()).fields(layout.paths());
        let found = self.cache.store().find(&query).await?;
        let row = |fields: Row| if names { plain(&fields) } else { links_without_names(&plain(&fields)) };
        Ok(found.rows.iter().map(|one| (one.key.id, row(configured(name, &one.fields())))).collect())
    }
}

/// Says in which fields a cached row differs from the committed one.
fn difference(row: Option<&Row>, committed: Option<&Row>) -> String {
    let (Some(row), Some(committed)) = (row, committed) else {
        return if row.is_some() { "in the cache only".to_owned() } else { "on the site only".to_owned() };
    };
    let fields = committed.iter().filter(|(field, value)| row.get(*field) != Some(*value));
    let say = |(field, value): (&String, &Value)| {
        format!("{field} is {:?}, on the site {value}", row.get(field).map(Value::to_string))
    };
    fields.map(say).collect::<Vec<_>>().join(", ")
}

fn key_of(link: &Value) -> Option<Key> {
    Some((link.get("type")?.as_str()?.to_owned(), link.get("id")?.as_i64()?))
}

/// Returns the fields and filters of an entity config of the tests.
fn config(name: &str) -> (Vec<String>, Value) {
    let text = CONFIGS.iter().find(|(known, _)| *known == name).expect("a config").1;
    let config: Value = serde_json::from_str(text).expect("JSON");
    let fields = config["fields"].as_object().expect("fields").keys().cloned().collect();
    (fields, config.get("filters").cloned().unwrap_or(json!([])))
}

fn configured(name: &str, row: &Row) -> Row {
    let fields = config(name).0.into_iter().chain(["updated_at".to_owned()]);
    fields.filter_map(|field| row.get(&field).map(|value| (field, value.clone()))).collect()
}

/// Returns what the site has committed, through the filters of the entity configs.
pub fn committed(site: &Site) -> Everything {
    let rows = |name: &'static str| {
        let (fields, filters) = config(name);
        let fields: Vec<&str> = fields.iter().map(String::as_str).chain(["updated_at"]).collect();
        let rows = site.read(name, &filters, &fields).expect("rows");
        rows.iter().map(|row| (row["id"].as_i64().expect("an id"), plain(&configured(name, row)))).collect()
    };
    CONFIGS.iter().map(|(name, _)| (*name, rows(name))).collect()
}

/// Reduces links to type, id and name, and sorts lists of them.
fn plain(row: &Row) -> Row {
    let link = |link: &Value| match link.get("id") {
        Some(id) => json!({"type": link["type"], "id": id, "name": link["name"]}),
        None => link.clone(),
    };
    let value = |value: &Value| match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(link).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        other => link(other),
    };
    row.iter().map(|(name, one)| (name.clone(), value(one))).collect()
}

fn links_without_names(row: &Row) -> Row {
    let strip = |mut value: Value| {
        match &mut value {
            Value::Array(items) => {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(|link| drop(link.remove("name")));
                items.sort_by_key(Value::to_string);
            }
            Value::Object(link) => drop(link.remove("name")),
            _ => {}
        }
        value
    };
    row.iter().map(|(name, value)| (name.clone(), strip(value.clone()))).collect()
}
