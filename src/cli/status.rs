//! `sgcache status`: what the daemon of this data directory is doing.

use std::path::Path;
use std::time::Duration;

use super::Failure;
use super::context::load_config;
use super::output::{self, Output};
use super::pipelines::in_zone;
use crate::config::Config;
use crate::server::{Control, StatusSnapshot};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: Args, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let snapshot = fetch(&config.data_dir).await?;
    match args.output {
        Output::Table => print(&snapshot),
        Output::Json | Output::Ndjson => {
            let text = serde_json::to_string(&snapshot).map_err(|error| Failure::internal(error.to_string()))?;
            println!("{text}");
        }
    }
    Ok(0)
}

/// Returns the status of the daemon of a data directory; `None` when none answers.
pub async fn of_daemon(config: &Config) -> Option<StatusSnapshot> {
    fetch(&config.data_dir).await.ok()
}

async fn fetch(data_dir: &Path) -> Result<StatusSnapshot, Failure> {
    let dir = data_dir.display();
    let control = Control::read(data_dir).map_err(|error| match error.is_missing() {
        true => Failure::new(Failure::UNAVAILABLE, format!("no daemon runs on {dir}: start `sgcache pipelines run`")),
        false => Failure::internal(error.to_string()),
    })?;
    let away = |error: reqwest::Error| {
        let pid = control.pid;
        Failure::new(
            Failure::UNAVAILABLE,
            format!(
                "the daemon of {dir} (process {pid}) does not answer on {}: {}",
                control.address,
                error.without_url()
            ),
        )
    };
    let client = ops_client(&control, Duration::from_secs(10)).map_err(away)?;
    client
        .get(control.url("/api/v1/status"))
        .bearer_auth(&control.token)
        .send()
        .await
        .map_err(away)?
        .json()
        .await
        .map_err(away)
}

/// Returns a client for the ops listener of the daemon that wrote `control`.
///
/// The certificate is not checked: it need not name the address on which this host
/// reaches its own daemon, and the address is from a file that only its user can write.
pub(super) fn ops_client(control: &Control, timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(timeout).no_proxy().danger_accept_invalid_certs(control.tls).build()
}

/// Prints a snapshot for people.
pub fn print(status: &StatusSnapshot) {
    let ready = if status.ready { "ready" } else { "not ready" };
    println!("{ready}: {} follows {}", status.instance, status.site);
    for reason in &status.reasons {
        println!("  {}", reason.message);
    }
    if let Some(problem) = &status.config_problem {
        println!("  the files on disk have errors, the pipelines loaded before stay in use: {problem}");
    }
    let sync = &status.sync;
    let event = sync.event_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    println!(
        "event {event}, lag {:.1} s, {} marks, {} gaps, {} events since the start",
        sync.lag_seconds,
        sync.marks.values().sum::<u64>(),
        sync.gaps_open,
        output::number(sync.events_received),
    );
    let dead: u64 = sync.dead_letters.values().sum();
    if dead > 0 {
        let kinds = sync.dead_letters.iter().filter(|(_, count)| **count > 0).map(|(kind, n)| format!("{n} {kind}"));
        println!("{dead} dead letters are put aside and tried again: {}", kinds.collect::<Vec<_>>().join(", "));
    }
    let store = &status.store;
    let size = store.size_bytes.map_or_else(String::new, |bytes| format!(", {:.1} MB", bytes as f64 / 1e6));
    println!("store {} at {}{size}", store.kind, store.location);
    if store.reports_waiting > 0 {
        println!("{} documents about runs wait to be delivered", output::number(store.reports_waiting));
    }
    let mut types = output::table(["type", "state", "rows", "fresh as of", "lag", "drift"]);
    for ty in &status.types {
        let fresh = ty.fresh_as_of.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
        let drift = ty.drift_ratio.filter(|ratio| !ratio.is_nan());
        let drift = drift.map_or_else(|| "-".to_owned(), |ratio| format!("{:.3} %", ratio * 100.0));
        let lag = format!("{:.1} s", ty.lag_seconds);
        types.add_row([ty.entity_type.clone(), ty.state.as_str().into(), output::number(ty.rows), fresh, lag, drift]);
    }
    println!("{types}");
    let mut pipelines = output::table(["pipeline", "starts", "state", "last", "ended", "next"]);
    for pipeline in &status.pipelines {
        let zone = pipeline.timezone.as_deref().and_then(|zone| zone.parse().ok()).unwrap_or(chrono_tz::UTC);
        let at = |time| in_zone(time, zone);
        let last = pipeline.last_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let schedule = pipeline.schedule.clone().unwrap_or_default();
        pipelines.add_row([
            pipeline.name.clone(),
            schedule,
            pipeline.state().to_owned(),
            last,
            at(pipeline.last_finished_at),
            at(pipeline.next_run),
        ]);
    }
    println!("{pipelines}");
}
