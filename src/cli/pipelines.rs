//! `sgcache pipelines`: runs and inspects what is in `pipelines/`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::context::{Online, SiteAtStart, load_config};
use super::daemon::{Daemon, interrupted};
use super::engine::resolve_context;
use super::output::{self, Output, drawn};
use super::pause::{self, PauseArgs, ResumeArgs};
use super::signals::StopSignals;
use super::validate::{self, ValidateArgs};
use super::{Failure, status};
use crate::config::Config;
use crate::entity_config::EntityConfigFile;
use crate::pipeline::{
    self, EntityCatalog, Loaded, Pause, Pauses, Pipeline, ResolveContext, RunOrder, worst_exit_code,
};
use crate::report::{RunReport, Trigger, history};
use crate::schema::Schema;
use crate::server::Control;
use crate::sim::stock_schema;
use crate::state::State;
use crate::yaml;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow the site and run the pipelines, until told to stop
    Run(RunArgs),
    /// List the pipelines, how they last ended and when they start next
    List(OutputArgs),
    /// Check config.yaml, the entity configs and every pipeline
    Validate(ValidateArgs),
    /// List runs, newest first
    History(HistoryArgs),
    /// Start a pipeline in the running daemon
    Trigger(TriggerArgs),
    /// Keep pipelines from starting by themselves; what is due meanwhile is left out
    Pause(PauseArgs),
    /// End a pause
    Resume(ResumeArgs),
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Only these pipelines
    names: Vec<String>,
    /// Run them now, one after the other, and end with their exit code
    #[arg(long)]
    once: bool,
    /// A parameter of the pipelines that have it
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// The form of the reports of --once
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Only runs of this pipeline or job
    pipeline: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The pipeline
    name: String,
    /// A parameter
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// Return once it runs, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// The form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(command: Command, config: Option<&Path>) -> Result<u8, Failure> {
    match command {
        Command::Run(args) if args.once => once(args, config).await,
        Command::Run(args) => {
            let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
            let daemon = Daemon::start(load_config(config)?, args.names, overrides).await?;
            daemon.run_until(interrupted()).await?;
            Ok(0)
        }
        Command::List(args) => list(&args, config).await,
        Command::Validate(args) => validate::run(&args, config).await,
        Command::History(args) => show_history(&args, config).await,
        Command::Trigger(args) => trigger(args, config).await,
        Command::Pause(args) => pause::pause(&args, config).await,
        Command::Resume(args) => pause::resume(&args, config).await,
    }
}

/// Loads every pipeline beside `config.yaml`.
///
/// # Errors
///
/// All problems of all files, drawn.
pub async fn load(config: &Config) -> Result<Vec<Arc<Pipeline>>, Failure> {
    let Loaded { pipelines, problems } = load_what_fits(config).await;
    if problems.has_errors() {
        return Err(Failure::problems(problems));
    }
    if !problems.is_empty() {
        eprintln!("{}", drawn(&problems));
    }
    Ok(pipelines)
}

/// Loads the pipelines of the files without errors.
pub async fn load_what_fits(config: &Config) -> Loaded {
    let files = EntityConfigFile::read_all(&config.entity_config_dir()).map(|(files, _)| files).unwrap_or_default();
    let entities = catalog(&files, last_schema(config).await, false);
    let context = ResolveContext { entities, ..resolve_context(config) };
    pipeline::load_what_fits(&config.pipelines_dir(), &context)
}

/// Returns the schema that the site last showed, or that of a stock site. A state that
/// cannot be read is an error of the commands that need it.
pub async fn last_schema(config: &Config) -> Schema {
    let Ok(Some(state)) = open_state(config).await else { return stock_schema() };
    let kept = state.kept_schema(&config.shotgun.site).await.ok().flatten();
    kept.unwrap_or_else(stock_schema)
}

/// Returns what pipelines may name: what the entity configs hold, and a schema;
/// `None` while there is no entity config.
pub fn catalog(files: &[EntityConfigFile], schema: Schema, is_of_site: bool) -> Option<Arc<EntityCatalog>> {
    let fields = |file: &EntityConfigFile| file.config.fields.keys().cloned().collect();
    let cached: BTreeMap<_, _> = files.iter().map(|file| (file.entity_type.to_string(), fields(file))).collect();
    (!cached.is_empty()).then(|| Arc::new(EntityCatalog::new(cached, schema, is_of_site)))
}

/// Says on stderr that files have errors, where a command goes on without them.
pub fn warn_about_files(loaded: &Loaded) {
    if loaded.problems.has_errors() {
        eprintln!("{}", drawn(&loaded.problems));
        eprintln!("warning: these files have errors; a running daemon keeps the pipelines it has loaded before");
    }
}

/// Chooses pipelines by name; no name is every enabled one.
///
/// # Errors
///
/// Words about a name that is not there.
pub fn selected(pipelines: Vec<Arc<Pipeline>>, names: &[String]) -> Result<Vec<Arc<Pipeline>>, Failure> {
    if names.is_empty() {
        return Ok(pipelines.into_iter().filter(|pipeline| pipeline.enabled).collect());
    }
    names.iter().map(|name| pipeline::find(&pipelines, name).cloned().map_err(Failure::usage)).collect()
}

/// Chooses the pipelines of a daemon: the named ones, or all. Disabled ones are
/// among them, so that the daemon can say that they are disabled.
///
/// # Errors
///
/// Words about a name that is not there.
pub fn among(pipelines: Vec<Arc<Pipeline>>, names: &[String]) -> Result<Vec<Arc<Pipeline>>, Failure> {
    if names.is_empty() { Ok(pipelines) } else { selected(pipelines, names) }
}

async fn once(args: RunArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = selected(load(&config).await?, &args.names)?;
    let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
    super::daemon::check_overrides(&pipelines, &overrides)?;
    // All of them are checked before the first one runs.
    let mut orders = Vec::new();
    for pipeline in &pipelines {
        let declared = pipeline.params.declared(&overrides);
        orders.push((Arc::new(pipeline.once()), resolve_params(pipeline, &declared)?));
    }
    let engine = super::engine::Engine::new(
        Online::open(config, SiteAtStart::Required).await?,
        crate::sync::Settings::default(),
    )?;
    let signals = StopSignals::listen(engine.shutdown.clone())?;
    let mut reports: Vec<RunReport> = Vec::new();
    for (pipeline, params) in orders {
        let cancel = signals.cancel.clone();
        let report = engine.run(&pipeline, RunOrder { params, cancel, ..RunOrder::new(Trigger::Cli) }).await?;
        if !signals.hung_up() {
            super::job::print(&report, args.output)?;
        }
        reports.push(report);
        if signals.stopped() {
            break;
        }
    }
    engine.finish().await;
    Ok(worst_exit_code(&reports, false))
}

fn resolve_params(
    pipeline: &Pipeline,
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, Failure> {
    pipeline.params.resolve(overrides).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(|error| format!("error: {}: {error}", pipeline.name)).collect();
        Failure::usage(lines.join("\n"))
    })
}

/// One line of the list.
struct Listed {
    name: String,
    starts: String,
    description: String,
    enabled: bool,
    zone: Tz,
    next: Option<DateTime<Utc>>,
    last: Option<RunReport>,
    pause: Option<Pause>,
}

impl Listed {
    /// The word for what the pipeline does now.
    fn state(&self) -> &'static str {
        match &self.last {
            Some(last) if last.is_running() => "running",
            _ if self.pause.is_some() => "paused",
            _ if !self.enabled => "disabled",
            _ => "idle",
        }
    }
}

async fn list(args: &OutputArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let loaded = load_what_fits(&config).await;
    warn_about_files(&loaded);
    let rows = listed(&config, &loaded).await?;
    if args.output != Output::Table {
        let of = |row: &Listed| {
            serde_json::json!({"name": row.name, "enabled": row.enabled, "starts": row.starts, "state": row.state(),
                "timezone": row.zone.name(), "description": row.description, "next_run": row.next,
                "last_run": row.last, "paused": row.pause})
        };
        println!("{}", rows.iter().map(of).collect::<Value>());
        return Ok(0);
    }
    let mut table = output::table(["pipeline", "starts", "state", "last", "next", "what it does"]);
    for row in rows {
        let ended = row.last.as_ref().filter(|last| !last.is_running());
        let last = ended.map_or_else(|| "-".to_owned(), |report| report.status.to_string());
        let state = row.pause.as_ref().map_or_else(|| row.state().to_owned(), Pause::describe);
        let next = in_zone(row.next, row.zone);
        table.add_row([row.name, row.starts, state, last, next, row.description]);
    }
    println!("{table}");
    Ok(0)
}

/// Collects the pipelines of the files, and those of a running daemon whose files
/// have errors now.
async fn listed(config: &Config, loaded: &Loaded) -> Result<Vec<Listed>, Failure> {
    let state = open_state(config).await?;
    let mut pauses = Pauses::default();
    if let Some(state) = &state {
        history::close_abandoned(state).await?;
        pauses = Pauses::load(state).await?;
    }
    let now = Utc::now();
    let mut rows = Vec::new();
    for pipeline in &loaded.pipelines {
        rows.push(Listed {
            name: pipeline.name.clone(),
            starts: pipeline.starts_short(),
            description: pipeline.description.clone(),
            enabled: pipeline.enabled,
            zone: pipeline.schedule().map_or(config.timezone, |schedule| schedule.timezone),
            next: pipeline.next_runs(now, 1).first().copied(),
            last: None,
            pause: None,
        });
    }
    let running = if loaded.problems.has_errors() { status::of_daemon(config).await } else { None };
    for pipeline in running.into_iter().flat_map(|status| status.pipelines) {
        if rows.iter().all(|row| row.name != pipeline.name) {
            rows.push(Listed {
                zone: pipeline.timezone.as_deref().and_then(|zone| zone.parse().ok()).unwrap_or(config.timezone),
                name: pipeline.name,
                starts: pipeline.schedule.unwrap_or_default(),
                description: "its file has errors; the daemon runs it as it was".to_owned(),
                enabled: pipeline.enabled,
                next: pipeline.next_run,
                last: None,
                pause: None,
            });
        }
    }
    for row in &mut rows {
        row.pause = pauses.of(&row.name, now).cloned();
        if let Some(state) = &state {
            row.last = history::runs(state, 1, Some(&row.name)).await?.into_iter().next();
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// Writes an instant in the time of a zone, with the name of the zone.
pub fn in_zone(time: Option<DateTime<Utc>>, zone: Tz) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |at| format!("{} {}", at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S"), zone.name()),
    )
}

async fn open_state(config: &Config) -> Result<Option<State>, Failure> {
    let exists = config.data_dir.join("state.sqlite").exists();
    Ok(if exists { Some(State::open(&config.data_dir).await?) } else { None })
}

async fn show_history(args: &HistoryArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let reports = match open_state(&config).await? {
        Some(state) => {
            history::close_abandoned(&state).await?;
            history::runs(&state, args.limit as usize, args.pipeline.as_deref()).await?
        }
        None => Vec::new(),
    };
    if args.output == Output::Json {
        println!("{}", reports.iter().map(yaml::to_json).collect::<Value>());
        return Ok(0);
    }
    if args.output == Output::Ndjson {
        reports.iter().for_each(|report| println!("{}", yaml::to_json(report)));
        return Ok(0);
    }
    let mut table =
        output::table(["run", "pipeline", "by", "started", "took", "status", "checked", "drift", "repaired"]);
    for report in reports {
        let sum = |of: fn(&crate::report::StepResult) -> u64| {
            output::number(report.steps.iter().map(|step| of(&step.result)).sum())
        };
        let took = report.finished_at.map(|end| format!("{:.1} s", (end - report.started_at).as_seconds_f64()));
        table.add_row([
            report.run_id.clone(),
            report.pipeline.clone(),
            report.trigger.to_string(),
            in_zone(Some(report.started_at), config.timezone),
            took.unwrap_or_else(|| "-".to_owned()),
            if report.is_running() { "running".to_owned() } else { report.status.to_string() },
            sum(|result| result.checked),
            sum(|result| result.drift),
            sum(|result| result.repaired),
        ]);
    }
    println!("{table}");
    Ok(0)
}

async fn trigger(args: TriggerArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
    // The daemon gives them their types: it knows what it runs, the files may say
    // something else by now.
    let changed: serde_json::Map<String, Value> =
        overrides.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    let control = Control::read(&config.data_dir).map_err(|error| {
        let dir = config.data_dir.display();
        let words = if error.is_missing() { format!("no daemon runs on {dir}") } else { error.to_string() };
        Failure::new(
            Failure::UNAVAILABLE,
            format!("{words}; `sgcache pipelines run --once {}` runs it here", args.name),
        )
    })?;
    let run_id = post_trigger(&control, &args.name, &changed).await?;
    if args.detach {
        println!("{run_id}");
        return Ok(0);
    }
    let state = State::open(&config.data_dir).await?;
    loop {
        // Also when the daemon dies, the wait comes to an end.
        history::close_abandoned(&state).await?;
        if let Some(report) = history::run(&state, &run_id).await?.filter(|report| !report.is_running()) {
            super::job::print(&report, args.output)?;
            return Ok(pipeline::exit_code(&report, false));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn post_trigger(
    control: &Control,
    name: &str,
    params: &serde_json::Map<String, Value>,
) -> Result<String, Failure> {
    let url = control.url(&format!("/api/v1/pipelines/{name}/trigger"));
    let away = |error: reqwest::Error| {
        Failure::new(Failure::UNAVAILABLE, format!("the daemon does not answer: {}", error.without_url()))
    };
    let client = super::status::ops_client(control, Duration::from_secs(30)).map_err(away)?;
    let body = serde_json::json!({"params": params});
    let answer = client.post(url).bearer_auth(&control.token).json(&body).send().await.map_err(away)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(away)?;
    if let Some(run_id) = body.get("run_id").and_then(Value::as_str).filter(|_| status.is_success()) {
        return Ok(run_id.to_owned());
    }
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("the daemon refused");
    let code = match status.as_u16() {
        409 => 12,
        401 | 403 => Failure::DENIED,
        500.. => Failure::UNAVAILABLE,
        _ => Failure::USAGE,
    };
    Err(Failure::new(code, message))
}
