//! A studio at work: reads through the proxy while Tasks are written through it, at rates
//! of none to twenty a second, over a site that takes 0.33 s for every request.
//!
//! Every write is read back as soon as it is acknowledged. Beside them, in all rounds but
//! the first, come ten REST searches and a login a second. The same reads go to the site
//! itself, once a second, for the ratio.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Options;
use super::rig::{Site, quantile};
use super::served::Served;

const LATENCY: Duration = Duration::from_millis(330);
/// Writes a second, and whether there is other traffic; the first is the quiet cache.
const ROUNDS: [(u32, bool); 5] = [(0, false), (0, true), (1, true), (5, true), (20, true)];
const REST_INTERVAL: Duration = Duration::from_millis(100);
/// REST searches between two logins.
const SEARCHES: u32 = 10;
const READERS: usize = 8;
/// A reader pauses this long after each read.
const PAUSE: Duration = Duration::from_millis(100);

/// What is read, in turn.
const KINDS: [Kind; 4] = [Kind::OneTask, Kind::TasksOfShot, Kind::VersionsOfShot, Kind::OneShot];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OneTask,
    TasksOfShot,
    VersionsOfShot,
    OneShot,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::OneTask => "one Task by id",
            Self::TasksOfShot => "Tasks of a Shot",
            Self::VersionsOfShot => "Versions of a Shot",
            Self::OneShot => "one Shot by id",
        }
    }
}

#[derive(Default)]
struct Seen {
    hits: BTreeMap<Kind, u64>,
    /// Milliseconds of each read.
    through: BTreeMap<Kind, Vec<f64>>,
    direct: BTreeMap<Kind, Vec<f64>>,
    reasons: BTreeMap<String, u64>,
    writes: u64,
    read_back: u64,
    violations: u64,
}

struct Studio {
    http: reqwest::Client,
    proxy: String,
    site: String,
    tasks: Vec<i64>,
    shots: Vec<i64>,
    template: Option<i64>,
    seen: Mutex<Seen>,
}

fn link(ty: &str, id: i64) -> Value {
    json!({"type": ty, "id": id})
}

fn read(ty: &str, path: &str, value: Value, fields: &[&str]) -> Value {
    json!({"type": ty, "return_fields": fields, "return_only": "active",
        "filters": {"logical_operator": "and", "conditions": [{"path": path, "relation": "is", "values": [value]}]},
        "paging": {"entities_per_page": 500, "current_page": 1}, "api_return_image_urls": true,
        "return_paging_info_without_counts": true})
}

impl Studio {
    async fn call(&self, url: &str, method: &str, argument: Value) -> anyhow::Result<(String, Value)> {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let body = json!({"method_name": method, "params": [auth, argument]});
        let answer = self.http.post(format!("{url}/api3/json")).json(&body).send().await?;
        let said = answer.headers().get("x-sgcache").and_then(|said| said.to_str().ok()).unwrap_or_default().to_owned();
        let answer: Value = answer.json().await?;
        ensure!(answer.get("exception").is_none(), "{method}: {answer}");
        Ok((said, answer["results"].clone()))
    }

    /// Returns all ids of a type.
    async fn ids(&self, ty: &str) -> anyhow::Result<Vec<i64>> {
        let mut ids = Vec::new();
        loop {
            let last = ids.last().copied().unwrap_or(0);
            let above = json!({"path": "id", "relation": "greater_than", "values": [last]});
            let page = json!({"type": ty, "return_fields": ["id"], "return_only": "active",
                "filters": {"logical_operator": "and", "conditions": [above]},
                "sorts": [{"field_name": "id", "direction": "asc"}],
                "paging": {"entities_per_page": 500, "current_page": 1}});
            let (_, found) = self.call(&self.site, "read", page).await?;
            let before = ids.len();
            ids.extend(found["entities"].as_array().into_iter().flatten().filter_map(|row| row["id"].as_i64()));
            if ids.len() == before {
                return Ok(ids);
            }
        }
    }

    fn question(&self, kind: Kind, number: usize) -> Value {
        let (task, shot) = (self.tasks[number * 7 % self.tasks.len()], self.shots[number * 3 % self.shots.len()]);
        match kind {
            Kind::OneTask => {
                read("Task", "id", task.into(), &["content", "sg_status_list", "task_assignees", "due_date"])
            }
            Kind::TasksOfShot => read("Task", "entity", link("Shot", shot), &["content", "sg_status_list", "step"]),
            Kind::VersionsOfShot => {
                read("Version", "entity", link("Shot", shot), &["code", "sg_task", "sg_status_list"])
            }
            Kind::OneShot => read("Shot", "id", shot.into(), &["code", "sg_status_list", "sg_sequence"]),
        }
    }

    async fn read_on(&self, first: usize, until: Instant) -> anyhow::Result<()> {
        let mut number = first;
        while Instant::now() < until {
            number += READERS;
            let kind = KINDS[number / READERS % KINDS.len()];
            let begun = Instant::now();
            let (said, _) = self.call(&self.proxy, "read", self.question(kind, number)).await?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            self.note(kind, took, &said);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn note(&self, kind: Kind, took: f64, said: &str) {
        let mut seen = self.seen.lock();
        let is_hit = said.starts_with("hit");
        *seen.hits.entry(kind).or_default() += u64::from(is_hit);
        seen.through.entry(kind).or_default().push(took);
        if !is_hit {
            *seen.reasons.entry(said.to_owned()).or_default() += 1;
        }
    }

    async fn read_directly(&self, until: Instant) -> anyhow::Result<()> {
        let mut number = 0;
        while Instant::now() < until {
            number += 1;
            let kind = KINDS[number % KINDS.len()];
            let begun = Instant::now();
            self.call(&self.site, "read", self.question(kind, number)).await?;
            self.seen.lock().direct.entry(kind).or_default().push(begun.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    /// Sends REST searches and logins through the proxy. Whatever the site answers, they
    /// change nothing.
    async fn rest_on(&self, is_on: bool, until: Instant) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(REST_INTERVAL);
        let mut number = 0;
        while is_on && Instant::now() < until {
            ticks.tick().await;
            let (path, form) = match number % SEARCHES {
                0 => ("auth/access_token", "grant_type=client_credentials&client_id=sgcache&client_secret=sgcache-sim"),
                _ => ("entity/tasks/_search", ""),
            };
            let request = self.http.post(format!("{}/api/v1/{path}", self.proxy)).body(form);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            tokio::spawn(request.send());
            number += 1;
        }
        Ok(())
    }

    /// Makes one write through the proxy and reads it back.
    async fn write(&self, number: usize) -> anyhow::Result<()> {
        // No other write goes to this one before it was read back.
        let task = self.tasks[number % self.tasks.len()];
        let is = |field: &str, value: Value| json!([{"field_name": field, "value": value}]);
        let (field, value) = match number % 4 {
            0 => ("sg_status_list", json!(["wtg", "ip", "fin"][number / 4 % 3])),
            1 => ("due_date", json!(format!("2027-01-{:02}", 1 + number / 4 % 28))),
            2 => ("content", json!(format!("work {number}"))),
            _ => ("entity", link("Shot", self.shots[number % self.shots.len()])),
        };
        match number % 100 {
            40 => {
                self.call(&self.proxy, "delete", link("Task", task)).await?;
                self.call(&self.proxy, "revive", link("Task", task)).await?;
            }
            60 => {
                let fields = [("code", json!(format!("bench {number}"))), ("project", link("Project", 1))];
                let template = self.template.map(|id| ("task_template", link("TaskTemplate", id)));
                let fields = fields.into_iter().chain(template);
                let fields: Vec<_> = fields.map(|(name, value)| json!({"field_name": name, "value": value})).collect();
                self.call(&self.proxy, "create", json!({"type": "Shot", "fields": fields, "return_fields": ["id"]}))
                    .await?;
            }
            _ => {
                let update = json!({"type": "Task", "id": task, "fields": is(field, value.clone())});
                self.call(&self.proxy, "update", update).await?;
                let back = read("Task", "id", task.into(), &[field]);
                let (_, found) = self.call(&self.proxy, "read", back).await?;
                let shown = &found["entities"][0][field];
                let same = if field == "entity" { shown["id"] == value["id"] } else { *shown == value };
                let mut seen = self.seen.lock();
                seen.read_back += 1;
                seen.violations += u64::from(!same);
            }
        }
        self.seen.lock().writes += 1;
        Ok(())
    }

    async fn write_on(self: Arc<Self>, rate: u32, until: Instant) -> anyhow::Result<()> {
        if rate == 0 {
            return Ok(());
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        let (mut writes, mut number) = (tokio::task::JoinSet::new(), 0);
        while Instant::now() < until {
            ticks.tick().await;
            let studio = Arc::clone(&self);
            writes.spawn(async move { studio.write(number).await });
            number += 1;
        }
        while let Some(written) = writes.join_next().await {
            written??;
        }
        Ok(())
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let site = Site::start(options.at_most(20_000), LATENCY)?;
    let served = Served::start(options, &site).await?;
    let mut studio = Studio {
        http: reqwest::Client::new(),
        proxy: served.url.clone(),
        site: site.url.clone(),
        tasks: Vec::new(),
        shots: Vec::new(),
        template: None,
        seen: Mutex::default(),
    };
    studio.tasks = studio.ids("Task").await?;
    studio.shots = studio.ids("Shot").await?;
    studio.template = studio.ids("TaskTemplate").await?.first().copied();
    // Proves the credential.
    studio.call(&studio.proxy, "read", studio.question(Kind::OneShot, 0)).await?;
    println!("{} Tasks, {} Shots", studio.tasks.len(), studio.shots.len());
    let studio = Arc::new(studio);
    let mut quiet = BTreeMap::new();
    for (rate, has_rest) in ROUNDS {
        let until = Instant::now() + Duration::from_secs(options.seconds);
        let readers = (0..READERS).map(|first| studio.read_on(first, until));
        let reads = futures::future::try_join_all(readers);
        let (direct, rest) = (studio.read_directly(until), studio.rest_on(has_rest, until));
        tokio::try_join!(reads, direct, rest, Arc::clone(&studio).write_on(rate, until))?;
        let seen = std::mem::take(&mut *studio.seen.lock());
        show(rate, has_rest, seen, &mut quiet);
    }
    Ok(())
}

fn show(rate: u32, has_rest: bool, seen: Seen, quiet: &mut BTreeMap<Kind, f64>) {
    let Seen { hits, through, direct, reasons, writes, read_back, violations } = seen;
    let beside = if has_rest { ", REST and logins beside" } else { "" };
    println!("{rate} writes/s{beside}: {writes} writes, {read_back} read back at once, {violations} of them not there");
    for (kind, mut took) in through {
        took.sort_by(f64::total_cmp);
        let mut site = direct.get(&kind).cloned().unwrap_or_default();
        site.sort_by(f64::total_cmp);
        let median = quantile(&took, 0.5);
        let at_rest = *quiet.entry(kind).or_insert(median);
        let share = 100.0 * hits.get(&kind).copied().unwrap_or_default() as f64 / took.len() as f64;
        println!(
            "  {:18} {} reads, {share:.1} % hits; p50 {median:.2} ms ({:.2} times quiet), p99 {:.1}, max {:.0} ms \
             ({:.2} times the site's median {:.0})",
            kind.name(),
            took.len(),
            median / at_rest,
            quantile(&took, 0.99),
            quantile(&took, 1.0),
            quantile(&took, 1.0) / quantile(&site, 0.5),
            quantile(&site, 0.5),
        );
    }
    for (reason, count) in reasons {
        println!("  {count} times {reason}");
    }
}
