//! `sgcache serve`: the read proxy alone, on a host beside the one that follows the
//! site, over the same Elasticsearch.
//!
//! It has a data directory of its own and writes no row. What it knows of freshness
//! the leader published in the cluster; keys that a write through here touched are
//! forwarded to it there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::{Online, SiteAtStart, load_config};
use super::daemon::{closed, sharing};
use super::instance::instance;
use super::leadership::channel;
use crate::config::StoreSettings;
use crate::metrics::Metrics;
use crate::proxy::{ApiListener, Leader, Mode, Parts, Proxy};
use crate::report::ledger::{self, Recorder, Window};
use crate::server::{Bound, Control, Ops, StatusSnapshot, StoreStatus, TypeState, TypeStatus};
use crate::sim::command::interrupted;
use crate::state;
use crate::supervisor::{Loop, Supervisor};
use crate::sync::{self, Replica};

/// A leader status older than this makes this process unready.
const STALL_AFTER: Duration = Duration::from_secs(60);

pub async fn run(config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let StoreSettings::Elasticsearch(settings) = &config.store else {
        return Err(Failure::config(
            "`sgcache serve` reads rows that another host keeps in Elasticsearch: set `store.kind: elasticsearch`, \
             or run `sgcache pipelines run`, which serves from an embedded store",
        ));
    };
    if config.api.mode == Mode::Shadow {
        return Err(Failure::config(
            "`api.mode: shadow` compares at the daemon that follows the site: set `serve` or `pass` here",
        ));
    }
    let channel = Arc::new(channel(settings)?);
    let bound = Bound::open("listen.ops", &config.listen.ops.to_string())
        .await
        .map_err(|error| Failure::new(Failure::LOCKED, error.to_string()))?
        .with_tls(config.listen.ops_access.tls.as_ref())
        .map_err(|error| Failure::config(format!("`listen.ops_tls`: {error}")))?;
    let listener = ApiListener::bind(config.listen.api, &config.api).await.map_err(closed)?;
    let online = Online::open(config, SiteAtStart::Optional).await?;
    let (client, store, state) = (online.client.clone(), Arc::clone(&online.store), online.state.clone());
    let (layouts, metrics) = (online.layouts.clone(), online.metrics.clone());
    let replica = Replica::new(client, store, state, layouts, metrics, sync::Settings::default());
    let ledger = Arc::new(Recorder::default());
    let parts = Parts {
        replica: replica.clone(),
        schema: online.schema.clone(),
        site: &online.config.shotgun.client(),
        settings: online.config.api.clone(),
        leader: Leader::Elsewhere(channel),
        access_log: Some(&online.config.data_dir),
        ledger: Arc::clone(&ledger),
        differences: None,
    };
    let proxy = Proxy::new(parts).await.map_err(|error| Failure::internal(error.to_string()))?;
    tracing::info!(site = online.client.site(), ops = %bound.address(), api = %listener.address(), "serving");
    let stop = CancellationToken::new();
    let supervisor = Supervisor::new(online.metrics.clone(), stop.clone());
    supervisor.guard_process().map_err(|error| Failure::internal(format!("no watchdog: {error}")))?;
    let observer = Observer { online, replica, proxy: proxy.clone(), supervisor: supervisor.clone(), ledger };
    let observer = Arc::new(observer);
    let control = Control::new(bound.address());
    let access = observer.online.config.listen.ops_access.clone();
    let metrics = observer.online.metrics.clone();
    let ops = Ops::new(metrics.clone(), control, move || sharing(&observer, |it| async move { it.snapshot().await }))
        .with_access(access)
        .with_supervisor(supervisor.clone());
    let tasks = start(&supervisor, &stop, (proxy, listener), (bound, ops), &metrics);
    let failed = tokio::select! {
        () = interrupted() => None,
        failed = supervisor.failed() => Some(failed),
    };
    tracing::info!("stopping");
    stop.cancel();
    for task in tasks {
        // What hangs now ends with the process.
        let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
    }
    failed.map_or(Ok(0), |failed| Err(Failure::internal(failed.to_string())))
}

/// Starts the loops of this process.
fn start(
    supervisor: &Supervisor,
    stop: &CancellationToken,
    (proxy, listener): (Proxy, ApiListener),
    (bound, ops): (Bound, Ops),
    metrics: &Metrics,
) -> [JoinHandle<()>; 3] {
    let [kept, served, shown] = [stop.clone(), stop.clone(), stop.clone()];
    let (api, router) = (proxy.router(), ops.router());
    let (counted, metrics) = (metrics.clone(), metrics.clone());
    let (proxy, listener, bound) = (Arc::new(proxy), Arc::new(listener), Arc::new(bound));
    let freshness = move || {
        let stop = kept.clone();
        sharing(&proxy, |it| async move { it.run(stop).await })
    };
    let api_listener = move || {
        let (router, metrics, stop) = (api.clone(), counted.clone(), served.clone());
        sharing(&listener, |it| async move { it.serve(router, &metrics, stop).await })
    };
    let ops_listener = move || {
        let (router, metrics, stop) = (router.clone(), metrics.clone(), shown.clone());
        sharing(&bound, |it| async move { it.serve(router, &metrics, stop).await })
    };
    [
        supervisor.spawn(Loop::Freshness, freshness),
        supervisor.spawn(Loop::ApiListener, api_listener),
        supervisor.spawn(Loop::OpsListener, ops_listener),
    ]
}

/// Says how this process is.
struct Observer {
    online: Online,
    replica: Replica,
    proxy: Proxy,
    supervisor: Supervisor,
    ledger: Arc<Recorder>,
}

impl Observer {
    async fn snapshot(&self) -> StatusSnapshot {
        let now = Utc::now();
        let standing = self.proxy.replication_status();
        let mut snapshot = StatusSnapshot::empty(now);
        snapshot.instance = instance();
        snapshot.loops = self.supervisor.status();
        self.online.client.site().clone_into(&mut snapshot.site);
        let age = |at: state::SiteTime| TimeDelta::from_std(self.replica.now().since(at)).unwrap_or_default();
        snapshot.sync.last_poll_at = standing.complete_as_of.map(|at| now - age(at));
        snapshot.sync.stall_after_seconds = STALL_AFTER.as_secs();
        if standing.complete_as_of.is_none() {
            snapshot.sync.last_error = Some("the leader has not said how fresh the rows are".into());
        }
        for layout in &self.online.layouts {
            let known = standing.types.get(&layout.entity_type);
            let fresh = standing.fresh_as_of(&layout.entity_type).filter(|_| known.is_some());
            let other = known.is_some_and(|known| known.layout_hash != layout.hash);
            let problem =
                other.then(|| "the leader caches it with another entity config: use the same files".to_owned());
            snapshot.types.push(TypeStatus {
                entity_type: layout.entity_type.to_string(),
                state: known.filter(|_| !other).map_or(TypeState::New, |known| shown(known.state)),
                fresh_as_of: fresh.map(|fresh| fresh.timestamp().to_chrono()),
                lag_seconds: fresh.map(|fresh| age(fresh).as_seconds_f64()),
                problem,
                ..TypeStatus::default()
            });
        }
        let zone = self.online.config.timezone;
        snapshot.timezone = Some(zone.name().to_owned());
        let today = Window::today(now, zone);
        match ledger::ledger(&self.ledger, &self.online.state, today).await {
            Ok(ledger) => snapshot.ledger = Some(ledger),
            Err(error) => tracing::warn!(%error, "the ledger cannot be read"),
        }
        let health = self.online.store.health().await;
        self.online.metrics.store.up.set(if health.ok { 1.0 } else { 0.0 });
        snapshot.store = StoreStatus {
            kind: "elasticsearch".into(),
            up: health.ok,
            problem: (!health.ok).then_some(health.message),
            size_bytes: health.bytes,
            ..StoreStatus::default()
        };
        snapshot
    }
}

fn shown(known: state::TypeState) -> TypeState {
    match known {
        state::TypeState::Absent => TypeState::New,
        state::TypeState::Importing => TypeState::Importing,
        state::TypeState::Live => TypeState::Live,
        state::TypeState::Degraded => TypeState::Unhealthy,
        state::TypeState::Untracked => TypeState::Untracked,
    }
}
