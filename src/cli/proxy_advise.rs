//! `sgcache proxy advise`: which changes of `entityConfig/` and `config.yaml` would let the
//! cache answer reads that went to the site, as a diff, and what they would be worth.
//!
//! Nothing is changed. The diff alone goes to stdout, so that `patch -p1` can read it.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;

use super::Failure;
use super::config_edit;
use super::context::{Offline, entity_config_files, environment, load_config};
use super::output::{Output, number};
use super::since::Since;
use super::status::wrapped;
use crate::config::Config;
use crate::proxy::advice::{Basis, ChangedPart, Proposal, propose};
use crate::proxy::{self, CallerName};
use crate::report::ledger::{self, Recorder};
use crate::state::State;
use crate::yaml::Document;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The beginning of the window: `today`, or how long ago, at most 14 days
    #[arg(long, default_value = "7d", value_parser = Since::parse, value_name = "today|DURATION")]
    since: Since,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What to change, and what that is worth.
#[derive(Debug, Serialize)]
struct Advice {
    /// Reads that were answered within the window.
    reads: u64,
    /// The share of the cache, 0 to 1; `None` without reads.
    hit_ratio: Option<f64>,
    /// The same with every change.
    hit_ratio_after: Option<f64>,
    /// Reads whose requests were too many or too long to be kept, so that nothing is known
    /// of them.
    unlisted: u64,
    changes: Vec<Change>,
}

/// One file to change.
#[derive(Debug, Serialize)]
struct Change {
    /// Beside `config.yaml`.
    file: String,
    /// Reads that the cache would answer with all changes, and not without this one.
    calls: u64,
    /// Why a person has to decide; `None` where nothing but memory is at stake.
    note: Option<String>,
    /// A unified diff, for `patch -p1`.
    diff: String,
}

pub async fn run(args: &Args, chosen: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(chosen)?;
    let state = State::open(&config.data_dir).await?;
    let window = args.since.window(Utc::now(), config.timezone);
    let ledger = ledger::ledger(&Recorder::default(), &state, window).await?;
    let (examples, unlisted) = ledger::examples(&state, window).await?;
    let offline = Offline::open(chosen).await?;
    let files = entity_config_files(&config)?;
    let basis = Basis {
        configs: files.iter().map(|file| (file.entity_type.clone(), file.config.clone())).collect(),
        layouts: offline.layouts,
        schema: Arc::new(offline.schema),
        settings: config.api.clone(),
        own_script: Some(config.shotgun.script.clone()),
        max_page: proxy::max_page(&state).await,
    };
    let proposal = propose(&basis, &examples);
    let ratio_after = |hits: u64| (ledger.reads > 0).then(|| (hits as f64 / ledger.reads as f64).min(1.0));
    let advice = Advice {
        reads: ledger.reads,
        hit_ratio: ledger.hit_ratio,
        hit_ratio_after: ratio_after(ledger.hits + proposal.calls),
        unlisted,
        changes: changes(&config, &basis, &proposal)?,
    };
    match args.output {
        Output::Table => print(&advice),
        Output::Json | Output::Ndjson => {
            let text = serde_json::to_string(&advice).map_err(|error| Failure::internal(error.to_string()))?;
            println!("{text}");
        }
    }
    Ok(0)
}

fn print(advice: &Advice) {
    let mut lines = Vec::new();
    match (advice.hit_ratio, advice.hit_ratio_after) {
        (Some(now), Some(after)) if !advice.changes.is_empty() => {
            let text = format!(
                "{} reads, {} answered from the cache; {} with the {} changes below.",
                number(advice.reads),
                percent(now),
                percent(after),
                advice.changes.len()
            );
            lines.extend(wrapped("", &text));
        }
        (Some(now), _) => {
            let text = format!("No change of the configuration would raise the {} of the cache.", percent(now));
            lines.extend(wrapped("", &text));
        }
        (None, _) => {
            lines.extend(wrapped("", "No read was answered through the proxy yet, so nothing can be advised."))
        }
    }
    if advice.unlisted > 0 {
        let text = format!("{} more reads were too many to be kept and are not judged.", number(advice.unlisted));
        lines.extend(wrapped("", &text));
    }
    for change in &advice.changes {
        let gain = change.calls as f64 / advice.reads as f64;
        lines.extend(wrapped("  ", &format!("{}: + {} ({} reads)", change.file, percent(gain), number(change.calls))));
        lines.extend(change.note.iter().flat_map(|note| wrapped("      ", note)));
    }
    lines.iter().for_each(|line| eprintln!("{}", line.trim_end()));
    advice.changes.iter().for_each(|change| print!("{}", change.diff));
    if !advice.changes.is_empty() {
        eprintln!("Nothing was changed. To apply it, beside config.yaml: sgcache proxy advise | patch -p1");
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

fn changes(config: &Config, basis: &Basis, proposal: &Proposal) -> Result<Vec<Change>, Failure> {
    let unreadable = |path: &Path, error: &std::io::Error| Failure::config(format!("{}: {error}", path.display()));
    let mut changes = Vec::new();
    for (ty, changed) in &proposal.configs {
        let file = format!("entityConfig/{ty}.json");
        let path = config.entity_config_dir().join(format!("{ty}.json"));
        let old = match basis.configs.contains_key(ty) {
            true => Some(std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?),
            false => None,
        };
        let text = serde_json::to_string_pretty(changed).map_err(|error| Failure::internal(error.to_string()))?;
        let calls = proposal.calls_by_part.get(&ChangedPart::EntityConfig(ty.clone())).copied().unwrap_or_default();
        let diff = unified(&file, old.as_deref(), &format!("{text}\n"));
        changes.push(Change { file, calls, note: None, diff });
    }
    if !proposal.semantics.is_empty() || !proposal.callers.is_empty() {
        changes.push(config_change(config, basis, proposal)?);
    }
    changes.sort_by_key(|change| std::cmp::Reverse(change.calls));
    Ok(changes)
}

fn config_change(config: &Config, basis: &Basis, proposal: &Proposal) -> Result<Change, Failure> {
    let old = std::fs::read_to_string(&config.path)
        .map_err(|error| Failure::config(format!("{}: {error}", config.path.display())))?;
    let mut text = old.clone();
    let mut notes = Vec::new();
    if !proposal.semantics.is_empty() {
        let all: Vec<&str> = basis.settings.semantics.union(&proposal.semantics).map(|one| one.as_str()).collect();
        text = config_edit::set_api_list(&text, "semantics", &all);
        let words: Vec<&str> = proposal.semantics.iter().map(|one| one.words()).collect();
        notes.push(format!("Check that your site reads it so: {}.", words.join("; ")));
    }
    for (caller, types) in &proposal.callers {
        let types: Vec<&str> = types.iter().map(|ty| ty.as_str()).collect();
        text = config_edit::add_api_item(&text, "callers", &caller_rule(caller, &types));
    }
    if !proposal.callers.is_empty() {
        notes.push("What a caller may see here must be what its role on the site lets it see: your choice.".to_owned());
    }
    let parts = proposal.calls_by_part.iter();
    let here = parts.filter(|(part, _)| !matches!(part, ChangedPart::EntityConfig(_)));
    let calls = here.map(|(_, calls)| calls).sum();
    let file = config.path.file_name().map_or_else(|| "config.yaml".into(), |name| name.to_string_lossy());
    let diff = unified(&file, Some(&old), &text);
    check(config, &text)?;
    Ok(Change { diff, calls, note: Some(notes.join(" ")), file: file.into_owned() })
}

/// The edited file must be one that the program loads.
fn check(config: &Config, text: &str) -> Result<(), Failure> {
    let document = Document::yaml(&config.path.display().to_string(), text.as_bytes()).map_err(Failure::problems)?;
    Config::resolve(&document, &config.path, &environment()).map(|_| ()).map_err(Failure::problems)
}

fn caller_rule(caller: &CallerName, types: &[&str]) -> String {
    let (kind, name) = match caller {
        CallerName::Script(name) => ("script", name),
        CallerName::Login(name) => ("login", name),
    };
    // JSON text is YAML text, whatever the name is.
    let name = serde_json::Value::from(name.as_str());
    format!("{{ {kind}: {name}, types: [{}] }}", types.join(", "))
}

fn unified(file: &str, old: Option<&str>, new: &str) -> String {
    let from = old.map_or_else(|| "/dev/null".to_owned(), |_| format!("a/{file}"));
    let diff = similar::TextDiff::from_lines(old.unwrap_or_default(), new);
    diff.unified_diff().context_radius(3).header(&from, &format!("b/{file}")).to_string()
}
