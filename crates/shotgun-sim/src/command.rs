//! The command that runs a simulated site: its options and what it prints. Both programs
//! that have it, `shotgun-sim` and `sgcache sim`, only give it a name and an end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config_file::Document;
use shotgun_model::entity::Timestamp;

use crate::{Plan, Preset, Sim, SimHandle, SimSettings};

/// Waits for Ctrl-C or SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without a handler for the one signal, the other has to do.
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The options of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8190")]
    listen: SocketAddr,
    /// Listen on this port of 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    port: Option<u16>,
    /// Write the addresses to this file, as JSON, when the site is ready
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Serve the admin API for tests here (faults, time, reset); loopback only
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Faults to inject, and when: a YAML file, described in docs/SIM.md
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// How the site behaves where sources disagree, as null_checkbox=refuse; see docs/SIM.md
    #[arg(long = "reading", value_name = "NAME=VALUE", value_parser = reading)]
    readings: Vec<(String, String)>,
    /// Stop the clock of the site at this moment, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    clock: Option<Timestamp>,
    /// How many entities to generate [default: 50000, none with --load or --snapshot]
    #[arg(long, value_name = "N")]
    entities: Option<usize>,
    /// Begin with the rows of this file or folder: JSON, YAML or CSV; may be given several times
    #[arg(long, value_name = "PATH")]
    load: Vec<PathBuf>,
    /// Begin with the site that was saved to this file
    #[arg(long, value_name = "FILE", conflicts_with = "entities")]
    snapshot: Option<PathBuf>,
    /// The same seed gives the same site
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Edits per second by simulated artists
    #[arg(long, value_name = "RATE_PER_S", default_value_t = 2.0)]
    edits: f64,
    /// How long the site takes to answer, such as 330ms
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = config_file::parse_duration)]
    latency: Duration,
    /// The name of the script that may log in
    #[arg(long, default_value = "sgcache")]
    script: String,
    /// Its key
    #[arg(long, default_value = "sgcache-sim")]
    key: String,
    /// Rows that a known program expects on a site
    #[arg(long, value_name = "NAME")]
    preset: Option<PresetName>,
    /// How long a thumbnail is a placeholder after its upload
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = config_file::parse_duration)]
    thumbnail_delay: Duration,
    /// Make clients upload files directly to the storage
    #[arg(long)]
    direct_uploads: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PresetName {
    /// What the vendor's live tests of shotgun_api3 expect
    ClientTests,
}

/// Why the command ended: a message for a person, by what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A file that an option names cannot be written.
    #[error("{0}")]
    Usage(String),
    /// The data or a file of faults cannot be used.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("{0}")]
    Unavailable(String),
}

impl CommandError {
    /// Returns the exit code, from `sysexits.h`: 2, 78 or 69.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
            Self::Unavailable(_) => 69,
        }
    }
}

/// Runs a site until `stop` is ready, and says on stdout where it listens.
///
/// # Errors
///
/// [`CommandError`], before the site is ready.
pub async fn run(args: Args, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
    let settings = SimSettings {
        listen: args.port.map_or(args.listen, |port| SocketAddr::from(([127, 0, 0, 1], port))),
        entities: args.entities.unwrap_or(if args.load.is_empty() { 50_000 } else { 0 }),
        readings: args.readings.clone(),
        load: args.load.clone(),
        snapshot: args.snapshot.clone(),
        seed: args.seed,
        edits_per_second: args.edits,
        latency: args.latency,
        script: args.script.clone(),
        key: args.key.clone(),
        admin: args.admin,
        clock: args.clock,
        plan: args.faults.as_deref().map(plan).transpose()?.unwrap_or_default(),
        preset: args.preset.map(|PresetName::ClientTests| Preset::ClientTests),
        thumbnail_delay: args.thumbnail_delay,
        direct_uploads: args.direct_uploads,
        ..SimSettings::default()
    };
    let sim = Sim::start(settings).await.map_err(refused)?;
    println!(
        "simulated site ready on http://{} ({} entities, script `{}`)",
        sim.addr(),
        sim.site().entities(),
        args.script
    );
    if let Some(admin) = sim.admin_url() {
        println!("admin endpoint on {admin}");
    }
    if let Some(path) = &args.ready_file {
        tell_ready(path, &sim, &args)?;
    }
    stop.await;
    sim.shutdown().await;
    Ok(())
}

/// Data that cannot be loaded is wrong configuration; an address that cannot be
/// listened on is not.
fn refused(error: std::io::Error) -> CommandError {
    let is_data = error.kind() == std::io::ErrorKind::Other;
    if is_data { CommandError::Config(error.to_string()) } else { CommandError::Unavailable(error.to_string()) }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("`{text}` is not a moment such as 2026-01-01T00:00:00Z"))
}

fn reading(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn plan(path: &Path) -> Result<Plan, CommandError> {
    let read = Document::read(path, &path.display().to_string()).and_then(|document| Plan::of(&document));
    read.map_err(|problems| CommandError::Config(problems.render(false)))
}

/// Writes the addresses of the site: a reader never finds half of the file.
fn tell_ready(path: &Path, sim: &SimHandle, args: &Args) -> Result<(), CommandError> {
    let ready = serde_json::json!({
        "url": sim.url(), "admin": sim.admin_url(), "script": args.script, "key": args.key,
        "pid": std::process::id(), "entities": sim.site().entities()});
    let partial = path.with_extension("partial");
    let written = std::fs::write(&partial, format!("{ready}\n")).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| CommandError::Usage(format!("cannot write {}: {error}", path.display())))
}
