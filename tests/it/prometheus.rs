//! A real Prometheus that scrapes given addresses, and the queries of a dashboard.
//!
//! The programs come from `tests/setup`, which sets `SGCACHE_TEST_PROMETHEUS`
//! and `SGCACHE_TEST_PROMTOOL`; without them a test says so and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::servers::skipped;
use crate::waiting::Wait;

/// Returns the program that `variable` names, or says what is left out.
pub fn program(variable: &str, suite: &'static str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        skipped(suite, &format!("{variable} is not set (eval \"$(tests/setup)\")"));
    }
    found
}

/// A folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A running Prometheus; ends with the value.
pub struct Prometheus {
    url: String,
    process: Child,
    targets: Vec<String>,
    _data: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; waiting keeps no dead process behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes `targets` (`HOST:PORT`) every second with the shipped rules, each
    /// as an installation of its own. `None` when there is no Prometheus here.
    pub async fn scraping(targets: &[String]) -> Option<Self> {
        let rules = std::fs::read_to_string(repository("metrics/prometheus/sgcache.rules.yml")).expect("the rules");
        Self::with_rules(targets, &rules).await
    }

    /// Does the same with other rules.
    pub async fn with_rules(targets: &[String], rules: &str) -> Option<Self> {
        let program = program("SGCACHE_TEST_PROMETHEUS", "a real Prometheus")?;
        let data = tempfile::tempdir().expect("a temporary folder");
        let address = free_address();
        std::fs::write(data.path().join("rules.yml"), rules).expect("the rules are written");
        std::fs::write(data.path().join("prometheus.yml"), configuration(targets))
            .expect("the configuration is written");
        let log = std::fs::File::create(data.path().join("log")).expect("the log is created");
        let process = Command::new(program)
            .arg(format!("--config.file={}", data.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let started = Self { url: format!("http://{address}"), process, targets: targets.to_vec(), _data: data };
        started.wait_until("it answers", |one| one.get("/-/ready")).await;
        Some(started)
    }

    /// Waits until every target was scraped at least `times` times.
    pub async fn wait_for_scrapes(&self, times: u32) {
        let query = format!("min(count_over_time(up[10m])) >= {times}");
        self.wait_until("it has scraped", |one| {
            let query = query.clone();
            async move {
                let answer = one.query("/api/v1/query", &[("query", &query)]).await?;
                let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
                (!result.is_empty()).then_some(String::new())
            }
        })
        .await;
    }

    /// Asks one query over the last minute, one point per second.
    ///
    /// # Panics
    ///
    /// When Prometheus does not understand the query.
    pub async fn range(&self, expr: &str) -> Vec<Value> {
        let end = chrono::Utc::now().timestamp();
        let (start, end) = ((end - 60).to_string(), end.to_string());
        let asked = [("query", expr), ("start", &start), ("end", &end), ("step", "1")];
        let answer = self.query("/api/v1/query_range", &asked).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {expr}"));
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a query of one series has the value that the other source says at that
    /// moment; `what` names it in the failure.
    pub async fn wait_for_value(&self, what: &str, expr: &str, value: impl Fn() -> f64) {
        let value = &value;
        self.wait_until(&format!("{what}: {expr}"), |one| async move {
            let answer = one.query("/api/v1/query", &[("query", expr)]).await?;
            let found = answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()?;
            (found == value()).then_some(String::new())
        })
        .await;
    }

    /// Returns the names of the alerts that are pending or firing.
    pub async fn alerts(&self) -> Vec<String> {
        let answer = self.query("/api/v1/alerts", &[]).await.expect("alerts are answered");
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
        alerts.iter().filter_map(name).collect()
    }

    /// Returns the names of the alerts that fire for a target.
    pub async fn firing(&self, target: &str) -> BTreeSet<String> {
        self.alerted(&format!("ALERTS{{alertstate=\"firing\",job=\"{}\"}}", self.job(target))).await
    }

    /// Returns the names of the alerts that fired for a target at any time.
    pub async fn ever_fired(&self, target: &str) -> BTreeSet<String> {
        let fired = format!("ALERTS{{alertstate=\"firing\",job=\"{}\"}}", self.job(target));
        self.alerted(&format!("last_over_time({fired}[1h])")).await
    }

    /// Returns the names of the alerts that were pending or firing for a target at any time.
    pub async fn ever_alerted(&self, target: &str) -> BTreeSet<String> {
        self.alerted(&format!("last_over_time(ALERTS{{job=\"{}\"}}[1h])", self.job(target))).await
    }

    /// The job of a target: some alerts are about a whole one and name no instance.
    fn job(&self, target: &str) -> String {
        job(self.targets.iter().position(|known| known == target).expect("a target"))
    }

    async fn alerted(&self, expr: &str) -> BTreeSet<String> {
        let answer = self.query("/api/v1/query", &[("query", expr)]).await.expect("alerts are answered");
        let alerts = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        alerts.iter().filter_map(|alert| alert["metric"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    async fn query(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = reqwest::Client::new();
        let answer = client.get(format!("{}{path}", self.url)).query(query).send().await.ok()?;
        answer.json().await.ok()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// Asks the other process until it answers.
    async fn wait_until<'a, F>(&'a self, what: &str, ask: impl Fn(&'a Self) -> F)
    where
        F: Future<Output = Option<String>>,
    {
        let wait = Wait::begin();
        while ask(self).await.is_none() {
            let log = || std::fs::read_to_string(self._data.path().join("log")).unwrap_or_default();
            wait.again(|| format!("prometheus: {what}: {}", log())).await;
        }
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").to_string()
}

fn job(index: usize) -> String {
    format!("sgcache-{index}")
}

fn configuration(targets: &[String]) -> String {
    let job = |(index, target)| format!("- job_name: {}\n  static_configs: [{{targets: ['{target}']}}]\n", job(index));
    let jobs: String = targets.iter().enumerate().map(job).collect();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['rules.yml']\n\
         scrape_configs:\n{jobs}"
    )
}

/// One query of a dashboard and what it returned.
#[derive(Debug)]
pub struct Answered {
    /// The panel's title.
    pub panel: String,
    /// The query with its variables replaced.
    pub expr: String,
    /// Series with at least one point.
    pub series: usize,
    /// Points that are a number.
    pub numbers: usize,
}

/// Returns every query of a dashboard with the title of its panel, as it is written there.
pub fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap_or_default();
            found.push((title.to_owned(), expr.to_owned()));
        }
    }
    found
}

/// Replaces the variables of Grafana as it would for a range of a minute.
pub fn substituted(expr: &str) -> String {
    let values = [
        ("$__rate_interval", "10s"),
        ("$__interval", "1s"),
        ("$__range", "1m"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$entity_type", ".+"),
    ];
    values.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value))
}

/// Runs every query of `metrics/grafana/{name}.json`.
pub async fn run_dashboard(prometheus: &Prometheus, name: &str) -> Vec<Answered> {
    let mut answers = Vec::new();
    for (panel, expr) in queries(&dashboard(name)) {
        let expr = substituted(&expr);
        let result = prometheus.range(&expr).await;
        let values = || result.iter().flat_map(|series| series["values"].as_array()).flatten();
        let numbers = values().filter(|point| point[1] != "NaN").count();
        answers.push(Answered { panel, expr, series: result.len(), numbers });
    }
    answers
}

/// Reads `metrics/grafana/{name}.json`.
pub fn dashboard(name: &str) -> Value {
    let path = repository("metrics/grafana").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the dashboard is there");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// Demands data from every query, and a number from every query of a panel that is not in
/// `may_be_unknown` (for what did not happen in this run).
#[track_caller]
pub fn assert_all_have_data(answers: &[Answered], may_be_unknown: &[&str]) {
    assert!(!answers.is_empty(), "no query");
    let mut missing = BTreeMap::new();
    for one in answers {
        let unknown = may_be_unknown.contains(&one.panel.as_str());
        if one.series == 0 || (one.numbers == 0 && !unknown) {
            missing.insert(&one.expr, (&one.panel, one.series, one.numbers));
        }
    }
    assert!(missing.is_empty(), "queries without data (panel, series, numbers): {missing:#?}");
}
