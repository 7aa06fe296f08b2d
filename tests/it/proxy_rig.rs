//! A simulated site, a cache that follows it on the real clock, and the read proxy
//! before it, in one process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sgcache::api3::Auth;
use sgcache::entity_config::{EntityConfigFile, TypeLayout};
use sgcache::entity_config_files;
use sgcache::metrics::{Labels, Metrics};
use sgcache::proxy::shadow::Difference;
use sgcache::proxy::{ApiListener, Leader, Parts, Proxy, Settings};
use sgcache::shotgun::{self, Client};
use sgcache::sim::{Sim, SimHandle, SimSettings, Site};
use sgcache::state::{State, TypeState};
use sgcache::store::Store;
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::supervisor::Supervisor;
use sgcache::sync::{self, Follower, Replica};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::waiting::until;

/// Everything at once; it ends with the test.
pub struct Rig {
    sim: Option<SimHandle>,
    site: Arc<Site>,
    pub url: String,
    pub site_url: String,
    pub metrics: Metrics,
    pub replica: Replica,
    pub directory: tempfile::TempDir,
    /// What shadow mode has told of.
    pub differences: Arc<Mutex<Vec<Difference>>>,
    stop: CancellationToken,
    stop_following: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One for all: each takes the roots of trust of the system apart, and none keeps a
/// connection, which ends with the runtime of the test.
pub static HTTP: LazyLock<reqwest::Client> =
    LazyLock::new(|| reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client"));

/// The shipped entity configs.
pub fn shipped() -> Vec<EntityConfigFile> {
    let (files, problems) = entity_config_files::read_all(Path::new("entityConfig")).expect("entity configs");
    assert!(problems.is_empty());
    files
}

/// Entity configs by name and text.
pub fn written(configs: &[(&str, &str)]) -> Vec<EntityConfigFile> {
    let parse = |(name, text): &(&str, &str)| {
        EntityConfigFile::parse(&PathBuf::from(format!("{name}.json")), (*text).to_owned()).expect("a config")
    };
    configs.iter().map(parse).collect()
}

impl Rig {
    /// Starts everything and waits until every type follows the site.
    pub async fn start(site: Arc<Site>, configs: Vec<EntityConfigFile>, settings: Settings) -> Self {
        let rig = Self::begin(site, configs, settings).await;
        rig.live().await;
        rig
    }

    /// Starts everything, for a proxy that never answers from the cache.
    pub async fn begin(site: Arc<Site>, configs: Vec<EntityConfigFile>, settings: Settings) -> Self {
        let sim = Sim::serve(site, &SimSettings::default()).await.expect("a site");
        let address = sim.url();
        Self::begin_before(sim, address, configs, settings).await
    }

    /// Does the same before a site that is reached through another address.
    pub async fn begin_before(
        sim: SimHandle,
        address: String,
        configs: Vec<EntityConfigFile>,
        settings: Settings,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(EmbeddedSettings::new(directory.path().join("store.sqlite"))).expect("a store");
        Self::begin_over(sim, address, configs, settings, (directory, Arc::new(store))).await
    }

    /// Does the same over a store that is there already, with a data directory.
    pub async fn begin_over(
        sim: SimHandle,
        address: String,
        configs: Vec<EntityConfigFile>,
        settings: Settings,
        (directory, store): (tempfile::TempDir, Arc<dyn Store>),
    ) -> Self {
        let metrics = Metrics::new(&Labels::new(configs.iter().map(|file| &file.entity_type)));
        let auth = Auth::script("sgcache", "sgcache-sim");
        let upstream = shotgun::Settings::new(address, auth);
        let client = Client::new(upstream.clone(), metrics.clone()).expect("a client");
        let schema = client.schema().await.expect("a schema");
        let check = |file| TypeLayout::check(file, &schema).expect("a config that fits the site");
        let layouts: Vec<_> = configs.iter().map(check).collect();
        let state = State::open(directory.path()).await.expect("a state");
        let (poll_min, poll_max) = (Duration::from_millis(20), Duration::from_millis(40));
        let following = sync::Settings { poll_min, poll_max, ..sync::Settings::default() };
        let replica = Replica::new(client, store, state, layouts, metrics.clone(), following);
        let follower = Arc::new(Follower::start_up(replica.clone(), None).await.expect("a start"));
        let woken = Arc::clone(&follower);
        let differences = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&differences);
        let parts = Parts {
            replica: replica.clone(),
            schema,
            site: &upstream,
            settings: settings.clone(),
            leader: Leader::Here(Arc::new(move || woken.wake())),
            access_log: Some(directory.path()),
            ledger: Arc::default(),
            differences: Some(Arc::new(move |one: Difference| {
                told.lock().expect("a list").push(one);
                Box::pin(std::future::ready(()))
            })),
        };
        let proxy = Proxy::new(parts).await.expect("a proxy");
        let listener = ApiListener::bind(([127, 0, 0, 1], 0).into(), &settings).await.expect("a free port");
        let url = format!("{}://{}", if listener.is_tls() { "https" } else { "http" }, listener.address());
        let stop = CancellationToken::new();
        let stop_following = stop.child_token();
        let (router, ends) = (proxy.router(), [stop.clone(), stop.clone(), stop_following.clone()]);
        let [served, kept, followed] = ends;
        let following = Arc::clone(&follower);
        let supervisor = Supervisor::new(metrics.clone(), stop.clone());
        let counted = metrics.clone();
        let tasks = vec![
            tokio::spawn(async move { listener.serve(router, &counted, served).await }),
            tokio::spawn(async move { proxy.run(kept).await }),
            tokio::spawn(async move { following.run(&supervisor, followed).await.expect("no loop fails") }),
        ];
        let site_url = sim.url();
        let site = Arc::clone(sim.site());
        Self {
            sim: Some(sim),
            site,
            url,
            site_url,
            metrics,
            replica,
            directory,
            differences,
            stop,
            stop_following,
            tasks,
        }
    }

    /// Closes the site: whoever connects is refused.
    pub async fn take_site_away(&mut self) {
        self.sim.take().expect("a site").shutdown().await;
    }

    /// Ends the loop that follows the site; the proxy goes on.
    pub async fn stop_following(&mut self) {
        self.stop_following.cancel();
        self.tasks.pop().expect("the loop that follows").await.expect("an end");
    }

    /// Waits until every type is live.
    pub async fn followed(&self) {
        until(async || {
            let types = self.replica.state().types().await.expect("types");
            !types.is_empty() && types.iter().all(|record| record.state == TypeState::Live)
        })
        .await;
    }

    /// Waits until every type is live and the proxy has seen it.
    pub async fn live(&self) {
        self.followed().await;
        // The proxy may have seen some of them live before the others.
        for layout in self.replica.tracked().layouts() {
            let entity_type = layout.entity_type.as_str();
            // Where no age at all is allowed, a cache that is ready says so.
            until(async || matches!(self.find(entity_type, json!([]), &["id"]).await.0.as_str(), "hit" | "stale"))
                .await;
        }
    }

    /// Stops everything, in order.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.expect("an end");
        }
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Calls the proxy with the own credentials.
    pub async fn call(&self, method: &str, argument: Value) -> (HeaderMap, Value) {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        call(&self.url, auth, method, argument).await
    }

    /// Calls the site itself.
    pub async fn direct(&self, method: &str, argument: Value) -> Value {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        call(&self.site_url, auth, method, argument).await.1
    }

    /// Reads through the proxy; returns what was done and the entities.
    pub async fn find(&self, ty: &str, filters: Value, fields: &[&str]) -> (String, Vec<Value>) {
        let (headers, answer) = self.call("read", find(ty, filters, fields)).await;
        (said(&headers), entities(&answer))
    }

    /// Returns a series of the metrics.
    pub fn counted(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics.value(name, labels).unwrap_or_default()
    }
}

/// What the client sends for `find`.
pub fn find(ty: &str, filters: Value, fields: &[&str]) -> Value {
    let raw = sgcache::filter::RawFilter::from_lists(&filters, false).expect("a filter");
    json!({"type": ty, "return_fields": fields, "filters": raw.to_wire(), "return_only": "active",
        "paging": {"entities_per_page": 500, "current_page": 1}, "api_return_image_urls": true,
        "return_paging_info_without_counts": true})
}

/// Calls a site or a proxy.
pub async fn call(url: &str, auth: Value, method: &str, argument: Value) -> (HeaderMap, Value) {
    let (status, headers, answer) = call_with_status(url, auth, method, argument).await;
    assert_eq!(status, 200, "{answer}");
    (headers, answer)
}

/// As [`call`], whatever the status is.
pub async fn call_with_status(url: &str, auth: Value, method: &str, argument: Value) -> (u16, HeaderMap, Value) {
    let params = if argument.is_null() { json!([auth]) } else { json!([auth, argument]) };
    let body = json!({"method_name": method, "params": params});
    let sent = HTTP.post(format!("{url}/api3/json")).json(&body).send().await.expect("an answer");
    let (status, headers) = (sent.status().as_u16(), sent.headers().clone());
    let text = sent.text().await.expect("a body");
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Returns what the proxy says it did: `hit`, `stale`, or the reason of a pass.
pub fn said(headers: &HeaderMap) -> String {
    let said = headers.get("x-sgcache").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match said.split_once("; ") {
        Some((_, reason)) if reason.starts_with("reason=") => reason["reason=".len()..].to_owned(),
        Some((word, _)) => word.to_owned(),
        None => said.to_owned(),
    }
}

fn entities(answer: &Value) -> Vec<Value> {
    answer["results"]["entities"].as_array().cloned().unwrap_or_default()
}
