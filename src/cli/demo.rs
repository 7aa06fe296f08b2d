//! `sgcache demo`: a simulated site with live edits, the cache that follows it,
//! and its pipelines, all in one process and one directory.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use include_dir::{Dir, include_dir};

use super::Failure;
use super::context::load_config;
use super::daemon::Daemon;
use super::demo_outage::Outage;
use super::demo_readers::DemoReaders;
use super::output;
use super::progress::ProgressBars;
use crate::server::{StatusSnapshot, TypeState};
use crate::sim::command::interrupted;
use crate::sim::{Sim, SimHandle, SimSettings};

/// The files that a demo starts from, as they are shipped.
const CONFIG: &str = include_str!("../../config.yaml");
static PIPELINES: Dir = include_dir!("$CARGO_MANIFEST_DIR/pipelines");
static ENTITY_CONFIGS: Dir = include_dir!("$CARGO_MANIFEST_DIR/entityConfig");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the simulated site listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8190")]
    listen: SocketAddr,
    /// Where metrics and status are shown
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9187")]
    ops: SocketAddr,
    /// Where programs read from the cache as if it were the site
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8010")]
    api: SocketAddr,
    /// How many entities the site has
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    entities: usize,
    /// Edits per second by simulated artists
    #[arg(long, value_name = "RATE_PER_S", default_value_t = 3.0)]
    edits: f64,
    /// How long the site takes to answer, such as 330ms
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = crate::yaml::parse_duration)]
    latency: Duration,
    /// The same seed gives the same site
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End by itself after this time, with a summary
    #[arg(long = "for", value_name = "DURATION", value_parser = crate::yaml::parse_duration)]
    duration: Option<Duration>,
    /// Play an outage of the site for this time, with a failed write and a restart, then end
    #[arg(long, value_name = "DURATION", value_parser = crate::yaml::parse_duration)]
    outage: Option<Duration>,
    /// Directory for all files
    #[arg(long, value_name = "DIR", default_value = "sgcache-demo")]
    data_dir: PathBuf,
    /// Where rows are kept
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    store: StoreKind,
    /// The server of `--store elasticsearch`
    #[arg(long, value_name = "URL", required_if_eq("store", "elasticsearch"))]
    elasticsearch_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StoreKind {
    Embedded,
    Elasticsearch,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let started = std::time::Instant::now();
    prepare(&args).await?;
    let sim = start_site(&args).await?;
    eprintln!(
        "site      http://{} ({} entities, {} edits/s)",
        sim.addr(),
        output::number(args.entities as u64),
        args.edits
    );
    let config = load_config(Some(&args.data_dir))?;
    let daemon = Daemon::start(config, Vec::new(), Default::default()).await?;
    eprintln!("api       http://{} (a site for every program; script sgcache, key sgcache-sim)", daemon.api);
    eprintln!("data      {} (nothing is written elsewhere)", args.data_dir.display());
    eprintln!("metrics   http://{}/metrics", daemon.ops);
    eprintln!("status    http://{}/ (or: sgcache -c {} status)", daemon.ops, args.data_dir.display());
    let (daemon, is_played) = match args.outage {
        Some(duration) => (play(&args, duration, &sim, daemon).await?, true),
        None => (daemon, false),
    };
    let readers = DemoReaders::start(sim.addr(), daemon.api)?;
    let watch = tokio::spawn(watch(Arc::clone(&daemon.snapshots)));
    let ended = async {
        match args.duration {
            Some(duration) => {
                tokio::select! {
                    () = tokio::time::sleep(duration.saturating_sub(started.elapsed())) => {}
                    () = interrupted() => {}
                }
            }
            None if is_played => {}
            None => interrupted().await,
        }
    };
    let failed = tokio::select! {
        () = ended => None,
        failed = daemon.engine.supervisor.failed() => Some(failed),
    };
    watch.abort();
    let asked = readers.table();
    drop(readers);
    let last = daemon.snapshots.take().await;
    let stopped = daemon.stop().await;
    sim.shutdown().await;
    eprintln!();
    eprint!("{asked}");
    super::status::print(&last);
    failed.map_or(stopped.map(|()| 0), |failed| Err(Failure::internal(failed.to_string())))
}

/// Plays an outage; returns the daemon that runs after it.
async fn play(args: &Args, duration: Duration, sim: &SimHandle, daemon: Daemon) -> Result<Daemon, Failure> {
    let outage = Outage { site: sim.site(), site_address: sim.addr(), data_dir: &args.data_dir, duration };
    tokio::select! {
        played = outage.play(daemon) => played,
        () = interrupted() => Err(Failure::new(143, "stopped before the outage was over")),
    }
}

async fn start_site(args: &Args) -> Result<SimHandle, Failure> {
    let settings = SimSettings {
        listen: args.listen,
        entities: args.entities,
        seed: args.seed,
        edits_per_second: args.edits,
        latency: args.latency,
        ..SimSettings::default()
    };
    Sim::start(settings).await.map_err(|error| {
        Failure::new(
            Failure::LOCKED,
            format!("the simulated site on {}: {error}; choose another with --listen", args.listen),
        )
    })
}

/// Writes the shipped files into the directory, changed where a demo differs. A
/// site that is generated anew has another history, so the cache begins anew.
async fn prepare(args: &Args) -> Result<(), Failure> {
    let dir = &args.data_dir;
    let failed =
        |path: &Path, error: std::io::Error| Failure::internal(format!("cannot write {}: {error}", path.display()));
    let marker = dir.join(".sgcache-demo");
    if dir.exists() && !marker.exists() && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let path = dir.display();
        return Err(Failure::usage(format!("{path} is not empty and not from a demo: choose another with --data-dir")));
    }
    if dir.exists() {
        // A daemon that still runs there keeps its files.
        let state = crate::state::State::open(&dir.join("data")).await?;
        drop(state.lead().await?);
        drop(state);
        fs::remove_dir_all(dir).map_err(|error| failed(dir, error))?;
    }
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    fs::write(&marker, "").map_err(|error| failed(&marker, error))?;
    let write = |name: String, text: &str| {
        let path = dir.join(&name);
        fs::write(&path, adapted(&name, text, args)).map_err(|error| failed(&path, error))
    };
    for (sub, shipped) in [("pipelines", &PIPELINES), ("entityConfig", &ENTITY_CONFIGS)] {
        let path = dir.join(sub);
        fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        for file in shipped.files() {
            let text = file.contents_utf8().expect("shipped files are text");
            write(format!("{sub}/{}", file.path().display()), text)?;
        }
    }
    write("config.yaml".into(), CONFIG)
}

/// Changes what a demo does differently: addresses, the store, and schedules of
/// once a minute in place of nightly ones.
fn adapted(name: &str, text: &str, args: &Args) -> String {
    match name {
        "config.yaml" => adapted_config(text, args),
        "pipelines/nightly-counts.yaml" => every_minute(text, 20),
        "pipelines/sampled-data.yaml" => every_minute(text, 40),
        _ => text.to_owned(),
    }
}

fn adapted_config(text: &str, args: &Args) -> String {
    let mut lines = Vec::new();
    let mut in_store = false;
    for line in text.lines() {
        let top = !line.starts_with([' ', '#']) && !line.is_empty();
        if top {
            in_store = line.starts_with("store:") && args.store == StoreKind::Elasticsearch;
            if in_store {
                let url = args.elasticsearch_url.as_deref().unwrap_or_default();
                lines.push(format!("store: {{ kind: elasticsearch, url: \"{url}\", prefix: sgcache-demo }}"));
            }
        }
        if in_store && (top || line.starts_with(' ')) {
            continue;
        }
        lines.push(
            line.replace("http://127.0.0.1:8190", &format!("http://{}", args.listen))
                .replace("127.0.0.1:9187", &args.ops.to_string())
                .replace("127.0.0.1:8010", &args.api.to_string()),
        );
    }
    lines.join("\n") + "\n"
}

fn every_minute(text: &str, second: u32) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("cron:") {
            lines.push(format!("  cron: \"{second} * * * * *\""));
            lines.push("  seconds: true".to_owned());
        } else if !trimmed.starts_with("jitter:") {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// Draws a bar per type while it is imported, then one live line.
async fn watch(snapshots: Arc<super::status_report::StatusReporter>) {
    let mut bars = ProgressBars::new(true);
    let mut every = tokio::time::interval(Duration::from_millis(if bars.on_terminal() { 250 } else { 10_000 }));
    loop {
        every.tick().await;
        let status = snapshots.take().await;
        let importing = status.types.iter().filter_map(|ty| {
            let import = ty.import?;
            Some((ty.entity_type.clone(), import.done, import.total))
        });
        bars.show_all(&importing.collect::<Vec<_>>());
        bars.println(line(&status));
    }
}

fn line(status: &StatusSnapshot) -> String {
    let live = status.types.iter().filter(|ty| ty.state == TypeState::Live).count();
    let rows: u64 = status.types.iter().map(|ty| ty.rows).sum();
    let checked = status.runs.iter().find(|run| run.checked > 0 && run.finished_at.is_some());
    let validation = checked.map_or_else(
        || "none yet".to_owned(),
        |run| format!("{} {} ({} checked, {} drift)", run.pipeline, run.status, output::number(run.checked), run.drift),
    );
    let lag = status.sync.lag_seconds.map_or_else(|| "not known".to_owned(), |lag| format!("{lag:.1} s"));
    format!(
        "{live}/{} types live, {} rows, lag {lag}, {} events, last validation: {validation}",
        status.types.len(),
        output::number(rows),
        output::number(status.sync.events_received),
    )
}
