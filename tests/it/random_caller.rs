//! One caller at work in a project of its own: random writes of every kind, and random
//! reads with the answers that they must have.
//!
//! No other caller writes to the project, so what the site has committed of it, read in
//! this process, is the only right answer to a read of this caller, however much others
//! write meanwhile. Order, page and sums are computed here, with nothing of the code
//! under test.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use sgcache::sim::{Site, Trouble};

use crate::proxy_rig::find;
use crate::proxy_writes::to;

const STATUSES: &[&str] = &["wtg", "ip", "fin"];
/// With as many entities of a type no more are created.
const MAX_ENTITIES: usize = 14;

/// A call of the JSON API.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub argument: Value,
}

/// A caller with a project of its own.
pub struct RandomCaller {
    site: Arc<Site>,
    rng: SmallRng,
    project: i64,
    template: i64,
    names: u32,
    /// The ids of a type that were ever active.
    seen: BTreeMap<String, BTreeSet<i64>>,
}

impl RandomCaller {
    /// Fills a project of a site.
    pub fn new(site: &Arc<Site>, seed: u64) -> Self {
        let create = |ty: &str, fields: Value| site.create(ty, fields).expect("an entity");
        let project = create("Project", json!({"name": format!("project {seed}")}));
        let template = create("TaskTemplate", json!({"code": format!("template {seed}")}));
        for content in ["model", "light"] {
            create("Task", json!({"content": content, "task_template": to("TaskTemplate", template)}));
        }
        let mut caller = Self {
            site: Arc::clone(site),
            rng: SmallRng::seed_from_u64(seed),
            project,
            template,
            names: 0,
            seen: BTreeMap::new(),
        };
        for ty in ["Sequence", "Sequence", "Asset", "Asset", "Asset", "Shot", "Shot", "Shot", "Shot", "Task", "Task"]
            .into_iter()
            .chain(["Task", "Version", "Version", "Version", "Note", "Note"])
        {
            let fields = caller.new_fields(ty);
            create(ty, fields);
        }
        caller
    }

    /// Returns one write as programs send it; the site may refuse it.
    pub fn write(&mut self) -> Call {
        loop {
            let call = match self.rng.random_range(0..48) {
                0..14 => self.value(),
                14..21 => self.list(),
                21..28 => self.link(),
                28..32 => self.creation(),
                32 => self.creation_from_template(),
                33..37 => self.retirement(),
                37..42 => self.revival(),
                42..47 => self.batch(),
                _ => self.unknown_method(),
            };
            if let Some(call) = call {
                return call;
            }
        }
    }

    fn value(&mut self) -> Option<Call> {
        let fields = [
            ("Shot", "sg_status_list"),
            ("Shot", "sg_cut_in"),
            ("Shot", "code"),
            ("Sequence", "code"),
            ("Asset", "code"),
            ("Asset", "sg_status_list"),
            ("Task", "content"),
            ("Task", "sg_status_list"),
            ("Task", "start_date"),
            ("Task", "due_date"),
            ("Version", "code"),
            ("Version", "description"),
            ("Note", "subject"),
            ("Note", "sg_status_list"),
            ("Project", "name"),
        ];
        let (ty, field) = *fields.choose(&mut self.rng)?;
        let id = if ty == "Project" { self.project } else { self.any(ty)? };
        let value = match field {
            "sg_status_list" if ty == "Note" => json!(["opn", "clsd"].choose(&mut self.rng)?),
            "sg_status_list" => json!(STATUSES.choose(&mut self.rng)?),
            "sg_cut_in" => self.rng.random_bool(0.9).then(|| self.rng.random_range(0..50)).into(),
            "start_date" | "due_date" => json!(format!("2026-03-{:02}", self.rng.random_range(1..29))),
            _ => json!(self.name()),
        };
        Some(update(ty, id, field, value))
    }

    fn list(&mut self) -> Option<Call> {
        let fields = [
            ("Shot", "assets", "Asset"),
            ("Asset", "shots", "Shot"),
            ("Sequence", "shots", "Shot"),
            ("Sequence", "assets", "Asset"),
            ("Task", "upstream_tasks", "Task"),
            ("Task", "downstream_tasks", "Task"),
            ("Note", "note_links", "Shot"),
            ("Shot", "notes", "Note"),
            ("Shot", "tasks", "Task"),
            ("Shot", "sg_versions", "Version"),
        ];
        let (ty, field, target) = *fields.choose(&mut self.rng)?;
        let id = self.any(ty)?;
        let links: Vec<Value> = (0..self.rng.random_range(0..3)).filter_map(|_| self.any_link(target)).collect();
        let mut call = update(ty, id, field, json!(links));
        if let Some(mode) = [None, Some("add"), Some("remove")].choose(&mut self.rng)? {
            call.argument["fields"][0]["multi_entity_update_mode"] = json!(mode);
        }
        Some(call)
    }

    fn link(&mut self) -> Option<Call> {
        let fields = [
            ("Shot", "sg_sequence", "Sequence"),
            ("Task", "entity", "Shot"),
            ("Task", "entity", "Asset"),
            ("Version", "entity", "Shot"),
            ("Version", "sg_task", "Task"),
        ];
        let (ty, field, target) = *fields.choose(&mut self.rng)?;
        let target = if self.rng.random_bool(0.85) { self.any_link(target)? } else { Value::Null };
        Some(update(ty, self.any(ty)?, field, target))
    }

    fn creation(&mut self) -> Option<Call> {
        let ty = *["Shot", "Asset", "Task", "Version", "Note"].choose(&mut self.rng)?;
        let fields = self.new_fields(ty);
        self.create(ty, fields)
    }

    /// The Tasks that come with it are in no answer.
    fn creation_from_template(&mut self) -> Option<Call> {
        let ty = *["Shot", "Asset"].choose(&mut self.rng)?;
        let mut fields = self.new_fields(ty);
        fields["task_template"] = to("TaskTemplate", self.template);
        self.create(ty, fields)
    }

    fn create(&mut self, ty: &str, fields: Value) -> Option<Call> {
        let fields = fields.as_object()?.iter().map(|(name, value)| json!({"field_name": name, "value": value}));
        let argument = json!({"type": ty, "fields": fields.collect::<Vec<_>>(), "return_fields": ["id"]});
        let has_room = self.ids(ty).len() < MAX_ENTITIES && self.ids("Task").len() < 2 * MAX_ENTITIES;
        has_room.then(|| Call { method: "create".into(), argument })
    }

    fn new_fields(&mut self, ty: &str) -> Value {
        let (name, project) = (self.name(), to("Project", self.project));
        let mut link = |ty: &str| self.any_link(ty);
        match ty {
            "Shot" => {
                let assets: Vec<Value> = link("Asset").into_iter().collect();
                json!({"code": name, "project": project, "sg_sequence": link("Sequence"), "assets": assets})
            }
            "Task" => json!({"content": name, "project": project, "entity": link("Shot")}),
            "Version" => {
                json!({"code": name, "project": project, "entity": link("Shot"), "sg_task": link("Task")})
            }
            "Note" => {
                let links: Vec<Value> = link("Shot").into_iter().collect();
                json!({"subject": name, "project": project, "note_links": links, "sg_status_list": "opn"})
            }
            _ => json!({"code": name, "project": project}),
        }
    }

    fn retirement(&mut self) -> Option<Call> {
        let ty = *["Shot", "Task", "Asset", "Sequence", "Version", "Note"].choose(&mut self.rng)?;
        let is_enough = self.ids(ty).len() > 2;
        let id = self.any(ty).filter(|_| is_enough)?;
        Some(Call { method: "delete".into(), argument: to(ty, id) })
    }

    fn revival(&mut self) -> Option<Call> {
        let ty = *["Shot", "Task", "Asset", "Sequence", "Version", "Note"].choose(&mut self.rng)?;
        let active = self.ids(ty);
        let retired: Vec<i64> = self.seen[ty].iter().copied().filter(|id| !active.contains(id)).collect();
        Some(Call { method: "revive".into(), argument: to(ty, *retired.choose(&mut self.rng)?) })
    }

    fn batch(&mut self) -> Option<Call> {
        let items = [self.value(), self.list(), self.link(), self.creation(), self.retirement()];
        let mut items: Vec<Call> = items.into_iter().flatten().collect();
        while items.len() > 3 {
            items.swap_remove(self.rng.random_range(0..items.len()));
        }
        let item = |Call { method, mut argument }: Call| {
            argument["request_type"] = method.into();
            argument
        };
        let argument = items.into_iter().map(item).collect();
        Some(Call { method: "batch".into(), argument })
    }

    /// A method of which the cache knows nothing; what it changes is committed before its
    /// answer.
    fn unknown_method(&mut self) -> Option<Call> {
        let (shot, task, sequence) = (self.any("Shot")?, self.any("Task")?, self.any_link("Sequence")?);
        let method = format!("recompute_{}", self.project);
        let answer = Trouble::Answer { status: 200, body: r#"{"results":true}"#.into() };
        self.site.troubles.next_of(&method, 1, answer);
        let name = self.name();
        let fields = json!({"content": name, "project": to("Project", self.project), "entity": to("Shot", shot)});
        match self.rng.random_range(0..4) {
            0 => self.site.update("Shot", shot, json!({"code": name, "sg_sequence": sequence})).ok()?,
            1 => self.site.update("Task", task, json!({"sg_status_list": "fin", "entity": to("Shot", shot)})).ok()?,
            2 => drop(self.site.create("Task", fields)),
            _ => drop(self.site.retire("Task", task)),
        }
        Some(Call { method, argument: json!({"project": self.project}) })
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("n{:05}", (self.names * 7_919) % 100_000)
    }

    /// Returns the ids of the active entities of a type.
    fn ids(&mut self, ty: &str) -> Vec<i64> {
        let in_project = json!([["project", "is", to("Project", self.project)]]);
        let rows = self.site.read(ty, &in_project, &[]).expect("ids");
        let ids: Vec<i64> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
        self.seen.entry(ty.to_owned()).or_default().extend(&ids);
        ids
    }

    fn any(&mut self, ty: &str) -> Option<i64> {
        self.ids(ty).choose(&mut self.rng).copied()
    }

    fn any_link(&mut self, ty: &str) -> Option<Value> {
        self.any(ty).map(|id| to(ty, id))
    }

    /// Returns one read as programs send it.
    pub fn read(&mut self) -> Read {
        let status = *STATUSES.choose(&mut self.rng).expect("a status");
        let text = format!("n{}", self.rng.random_range(0..10));
        let project = json!(["project", "is", to("Project", self.project)]);
        let mut link = |ty: &str| self.any_link(ty).unwrap_or(to(ty, 1));
        let (shot, task, asset, sequence) = (link("Shot"), link("Task"), link("Asset"), link("Sequence"));
        let is_id = |key: &Value| json!([["id", "is", key["id"]]]);
        let mut read = match self.rng.random_range(0..17) {
            0 => Read::new("Shot", is_id(&shot), SHOT),
            1 => Read::new("Task", is_id(&task), TASK),
            2 => Read::new("Asset", is_id(&asset), &["code", "shots", "tasks", "sequences", "sg_status_list"]),
            3 => Read::new("Sequence", json!([project]), &["code", "shots", "assets", "project"]),
            4 => Read::new("Shot", json!([project, ["sg_status_list", "is", status]]), &["code", "sg_status_list"]),
            5 => Read::new("Shot", json!([["sg_sequence", "is", sequence]]), &["sg_cut_in", "sg_sequence", "code"]),
            6 => Read::new("Shot", json!([["assets", "is", asset]]), &["assets", "code"]),
            7 => Read::new("Task", json!([["entity", "is", shot]]), TASK_OF_SHOT),
            8 => Read::new("Task", json!([project, ["entity.Shot.sg_status_list", "is", status]]), TASK_OF_SHOT),
            9 => Read::new("Version", json!([project]), &["code", "sg_task.Task.content", "entity", "sg_task"]),
            10 => Read::new("Version", json!([project, ["sg_task.Task.sg_status_list", "is_not", status]]), &["code"]),
            11 => Read::new("Task", json!([project, ["content", "contains", text]]), &["content", "due_date"]),
            12 => Read::new("Note", json!([["note_links", "is", shot]]), &["subject", "note_links", "sg_status_list"]),
            13 => Read::new("Shot", json!([project]), &["code", "open_notes", "notes", "sg_versions"]),
            14 => Read::count("Task", json!([["entity", "is", shot]]), None),
            15 => Read::count("Shot", json!([project, ["sg_status_list", "is", status]]), Some("sg_cut_in")),
            _ => Read::count("Version", json!([["entity.Shot.sg_sequence", "is", sequence]]), None),
        };
        let order = *[None, Some("code"), Some("sg_cut_in"), Some("content")].choose(&mut self.rng).expect("an order");
        read.order = order.filter(|field| read.fields.contains(field));
        read.descending = self.rng.random_bool(0.5);
        (read.size, read.page) = *[(500, 1), (2, 1), (3, 2), (1, 1)].choose(&mut self.rng).expect("a page");
        read
    }
}

const SHOT: &[&str] =
    &["code", "sg_status_list", "sg_sequence", "assets", "tasks", "updated_at", "open_notes", "project"];
const TASK: &[&str] = &[
    "content",
    "entity",
    "sg_status_list",
    "upstream_tasks",
    "downstream_tasks",
    "start_date",
    "due_date",
    "duration",
];
const TASK_OF_SHOT: &[&str] =
    &["content", "sg_status_list", "entity.Shot.code", "entity.Shot.sg_sequence.Sequence.code"];

fn update(ty: &str, id: i64, field: &str, value: Value) -> Call {
    let argument = json!({"type": ty, "id": id, "fields": [{"field_name": field, "value": value}]});
    Call { method: "update".into(), argument }
}

/// A read of rows, or of how many there are.
#[derive(Clone, Debug)]
pub struct Read {
    ty: &'static str,
    filters: Value,
    fields: &'static [&'static str],
    order: Option<&'static str>,
    descending: bool,
    size: usize,
    page: usize,
    /// Only the number of rows, and the sum of a field.
    counts: Option<Option<&'static str>>,
}

impl Read {
    fn new(ty: &'static str, filters: Value, fields: &'static [&'static str]) -> Self {
        Self { ty, filters, fields, order: None, descending: false, size: 500, page: 1, counts: None }
    }

    fn count(ty: &'static str, filters: Value, sum: Option<&'static str>) -> Self {
        Self { counts: Some(sum), ..Self::new(ty, filters, &[]) }
    }

    /// Returns the call that asks for it.
    pub fn call(&self) -> Call {
        let mut argument = find(self.ty, self.filters.clone(), self.fields);
        let Some(sum) = self.counts else {
            argument["paging"] = json!({"entities_per_page": self.size, "current_page": self.page});
            if let Some(field) = self.order {
                let direction = if self.descending { "desc" } else { "asc" };
                let first = json!({"field_name": field, "direction": direction});
                argument["sorts"] = json!([first, {"field_name": "id", "direction": "asc"}]);
            }
            return Call { method: "read".into(), argument };
        };
        let mut summaries = vec![json!({"field": "id", "type": "count"})];
        summaries.extend(sum.map(|field| json!({"field": field, "type": "sum"})));
        let argument = json!({"type": self.ty, "filters": argument["filters"], "summaries": summaries});
        Call { method: "summarize".into(), argument }
    }

    /// Returns what the answer must be, by what the site has committed.
    pub fn expected(&self, site: &Site) -> Value {
        let fields: Vec<&str> = self.fields.iter().copied().chain(self.counts.flatten()).collect();
        let mut rows = site.read(self.ty, &self.filters, &fields).expect("rows");
        if let Some(sum) = self.counts {
            let mut expected = json!({"id": rows.len()});
            if let Some(field) = sum {
                expected[field] = rows.iter().filter_map(|row| row[field].as_i64()).sum::<i64>().into();
            }
            return expected;
        }
        if let Some(field) = self.order {
            rows.sort_by(|a, b| self.compare(field, a, b));
        }
        let first = self.size * (self.page - 1);
        let more = rows.len() > first + self.size;
        let rows: Vec<Map<String, Value>> = rows.into_iter().skip(first).take(self.size).collect();
        json!({"rows": rows, "more": more})
    }

    /// Returns of an answer what must be as expected.
    pub fn shown(&self, answer: &Value) -> Value {
        let results = &answer["results"];
        match self.counts {
            Some(_) => results["summaries"].clone(),
            None => json!({"rows": results["entities"], "more": results["paging_info"]["has_next_page"]}),
        }
    }

    /// Rows without a value come last in either direction; rows are in the order of ids
    /// before.
    fn compare(&self, field: &str, a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
        let turned = |ordering: Ordering| if self.descending { ordering.reverse() } else { ordering };
        match (&a[field], &b[field]) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Greater,
            (_, Value::Null) => Ordering::Less,
            (Value::String(a), Value::String(b)) => turned(a.to_lowercase().cmp(&b.to_lowercase())),
            (a, b) => turned(a.as_i64().cmp(&b.as_i64())),
        }
    }
}
