//! Queries of the store, by the classes of the research that chose it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sgcache::entity::{EntityRef, Timestamp};
use sgcache::filter::{Page, Query, RawFilter, parse_order};
use sgcache::sim::{Sim, SimSettings};
use sgcache::state::State;
use sgcache::store::{Fields, Row, Store, StoreErrorKind};

use super::Options;
use super::rig::{self, Parts, Room, Site, quantile};

/// Queries per class, unless they take too long.
const QUERIES: usize = 200;
const LONGEST: Duration = Duration::from_secs(15);
const SOME: &[&str] = &["code", "sg_status_list", "project", "entity", "updated_at"];

/// One question of a class.
enum Question {
    Get(EntityRef),
    Find(Query),
    Count(Query),
}

/// Asks the store and draws the values of the questions from it.
struct Asker {
    parts: Parts,
    store: Arc<dyn Store>,
    rng: StdRng,
    versions: Vec<Row>,
    playlists: Vec<i64>,
    now: Timestamp,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let room = Room::new(options)?;
    if !is_filled(options, &room).await? {
        let site = Site::start(options.rows, Duration::ZERO)?;
        let parts = Parts::of(&site.url).await?;
        let store = rig::store(options, &room.path).await?;
        let replica = parts.replica(&store, &State::open(&room.path).await?);
        sgcache::sync::Follower::start_up(replica.clone(), None).await?;
        rig::import(&replica).await?;
    }
    // For the schema alone.
    let sim = Sim::start(SimSettings::default()).await?;
    let parts = Parts::of(&sim.url()).await?;
    let store = rig::store(options, &room.path).await?;
    for layout in &parts.layouts {
        store.ensure_type(layout).await?;
    }
    let mut asker = Asker::new(parts, store).await?;
    asker.measure_all().await?;
    sim.shutdown().await;
    Ok(())
}

/// Tells whether an earlier section left something to ask.
async fn is_filled(options: &Options, room: &Room) -> anyhow::Result<bool> {
    if options.elasticsearch.is_none() {
        return Ok(room.path.join("state.sqlite").exists());
    }
    let types = rig::store(options, &room.path).await?.types().await?;
    Ok(types.iter().any(|stored| stored.entity_type == "Version"))
}

impl Asker {
    async fn new(parts: Parts, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let now = Timestamp::from(chrono::Utc::now());
        let rng = StdRng::seed_from_u64(5);
        let mut asker = Self { parts, store, rng, versions: Vec::new(), playlists: Vec::new(), now };
        let mut rows = 0;
        for layout in &asker.parts.layouts {
            rows += asker.store.count(&Query::all(layout.entity_type.clone())).await?;
        }
        let versions = asker.store.count(&Query::all("Version")).await?;
        println!("find: {rows} rows, {versions} of them versions");
        let names = ["code", "project", "entity", "sg_status_list", "description"];
        let sample = asker.query("Version", json!([]), &names, "-updated_at", Page::first(2_000))?;
        asker.versions = asker.store.find(&sample).await?.rows;
        let playlists = asker.query("Playlist", json!([]), &[], "", Page::first(500))?;
        asker.playlists = asker.store.find(&playlists).await?.rows.iter().map(|row| row.key.id).collect();
        anyhow::ensure!(!asker.versions.is_empty() && !asker.playlists.is_empty(), "the store is too small");
        Ok(asker)
    }

    fn query(&self, ty: &str, filters: Value, fields: &[&str], order: &str, page: Page) -> anyhow::Result<Query> {
        let schema = &self.parts.schema;
        let entity_type = ty.into();
        let raw = RawFilter::from_lists(&filters, false)?;
        let filter = schema.filter(&entity_type, &raw)?.at(self.now);
        let names: Vec<String> = fields.iter().map(|name| (*name).to_owned()).collect();
        let order = if order.is_empty() { Vec::new() } else { parse_order(order)? };
        let (fields, order) = (schema.fields(&entity_type, &names), schema.order(&entity_type, &order));
        Ok(Query::all(entity_type).filter(filter).fields(fields).order(order).page(page))
    }

    /// Returns a version to ask about.
    fn any(&mut self) -> Row {
        self.versions.choose(&mut self.rng).cloned().expect("there are versions")
    }

    async fn measure_all(&mut self) -> anyhow::Result<()> {
        let few = Page::first(500);
        let wire = |row: &Row, field: &str| link(&row.get(field).unwrap_or_default());
        self.measure("get by id", |asker| Ok(Question::Get(asker.any().key))).await?;
        self.measure("project + status in [a,b], -updated_at, limit 50", |asker| {
            let project = wire(&asker.any(), "project");
            let filters = json!([["project", "is", project], ["sg_status_list", "in", ["rev", "apr"]]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "-updated_at", Page::first(50))?))
        })
        .await?;
        self.measure("entity is", |asker| {
            let filters = json!([["entity", "is", wire(&asker.any(), "entity")]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", few)?))
        })
        .await?;
        self.measure("code contains, rare, in a project", |asker| {
            let row = asker.any();
            let filters = json!([["project", "is", wire(&row, "project")], ["code", "contains", row.get("code")]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", few)?))
        })
        .await?;
        self.measure("code contains, common, limit 500", |asker| {
            let filters = json!([["code", "contains", format!("_v00{}", asker.rng.random_range(1..4))]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", few)?))
        })
        .await?;
        self.measure("playlists is", |asker| {
            let id = *asker.playlists.choose(&mut asker.rng).expect("there are playlists");
            let filters = json!([["playlists", "is", {"type": "Playlist", "id": id}]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", few)?))
        })
        .await?;
        self.measure("project + entity.Shot.sg_sequence.Sequence.code is", |asker| {
            let project = wire(&asker.any(), "project");
            let code = ["010", "020", "030"].choose(&mut asker.rng);
            let filters = json!([["project", "is", project], ["entity.Shot.sg_sequence.Sequence.code", "is", code]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", few)?))
        })
        .await?;
        self.measure("count of a status in a project", |asker| {
            let project = wire(&asker.any(), "project");
            let filters = json!([["project", "is", project], ["sg_status_list", "is", "rev"]]);
            Ok(Question::Count(asker.query("Version", filters, &[], "", few)?))
        })
        .await?;
        self.measure("count of a status in the whole type", |asker| {
            Ok(Question::Count(asker.query("Version", json!([["sg_status_list", "is", "rev"]]), &[], "", few)?))
        })
        .await?;
        self.measure_pages().await
    }

    async fn measure_pages(&mut self) -> anyhow::Result<()> {
        let version = self.parts.layouts.iter().find(|layout| layout.entity_type.as_str() == "Version");
        let names = version.map(sgcache::entity_config::TypeLayout::field_names).unwrap_or_default();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        self.measure("500 full rows of a project, by id", |asker| {
            let project = link(&asker.any().get("project").unwrap_or_default());
            Ok(Question::Find(asker.query(
                "Version",
                json!([["project", "is", project]]),
                &all,
                "id",
                Page::first(500),
            )?))
        })
        .await?;
        let count = self.store.count(&Query::all("Version")).await?;
        let number = u32::try_from(count.saturating_sub(500).min(100_000) / 500)? + 1;
        self.measure(&format!("500 full rows of the type, offset {}", (number - 1) * 500), |asker| {
            Ok(Question::Find(asker.query("Version", json!([]), &all, "id", Page { size: 500, number })?))
        })
        .await?;
        self.measure("two rarely filtered fields, whole type", |asker| {
            let frames = asker.rng.random_range(24..240);
            let filters = json!([["frame_count", "is", frames], ["description", "contains", "a"]]);
            Ok(Question::Find(asker.query("Version", filters, SOME, "", Page::first(500))?))
        })
        .await
    }

    /// Asks the questions of a class and prints their times.
    async fn measure(
        &mut self,
        name: &str,
        mut question: impl FnMut(&mut Self) -> anyhow::Result<Question>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut times, mut rows) = (Vec::new(), 0);
        while times.len() < QUERIES && begun.elapsed() < LONGEST {
            let mut question = question(self)?;
            if let Question::Find(query) = &mut question {
                // The same work, and yet not the question that is remembered.
                query.fields.shuffle(&mut self.rng);
            }
            let asked = Instant::now();
            rows += match question {
                Question::Get(key) => self.store.get(&[key], &Fields::All).await?.len() as u64,
                Question::Find(query) => match self.store.find(&query).await {
                    Ok(found) => found.rows.len() as u64,
                    Err(error) if error.kind() == StoreErrorKind::Unsupported => {
                        println!("find {name:52} is passed on: {error}");
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                },
                Question::Count(query) => self.store.count(&query).await?,
            };
            times.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!(
            "find {name:52} p50 {:8.3} ms  p99 {:8.3} ms  ({} queries, {} rows each)",
            quantile(&times, 0.5),
            quantile(&times, 0.99),
            times.len(),
            rows / times.len() as u64,
        );
        Ok(())
    }
}

/// Returns a link as a filter takes it.
fn link(value: &Value) -> Value {
    json!({"type": value["type"], "id": value["id"]})
}
