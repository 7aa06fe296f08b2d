//! What `sgcache pipelines validate` finds suspicious: files that load and run, and that
//! hardly do what their author meant. Every lint is a warning with a code of its own.
//!
//! The daemon does not say them: what a person decided to keep is no news at each reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::cron::transitions;
use super::{CatchUp, ClockChange, HookTarget, Pipeline, Schedule};
use crate::yaml::{Diagnostic, Document, Problems, Templates, format_duration, join};

/// How far ahead schedules are looked at for changes of clocks.
const YEAR: TimeDelta = TimeDelta::days(366);
/// How far ahead, and for how many starts, they are looked at for the same minute.
const WEEK: TimeDelta = TimeDelta::days(7);
const STARTS: usize = 64;
/// So many pipelines that start in one minute are a crowd.
const CROWD: usize = 3;
/// Names that one message lists.
const NAMED: usize = 3;

/// What lints go by, besides the files.
#[derive(Debug)]
pub struct LintFacts<'a> {
    /// The present.
    pub now: DateTime<Utc>,
    /// How long runs of a pipeline usually take, by its name, from the history.
    pub durations: &'a BTreeMap<String, TimeDelta>,
    /// Reads expressions.
    pub templates: &'a Templates,
}

/// Reports what is suspicious in files without errors: `pipelines` are those that
/// `documents` were resolved to.
pub fn lint(documents: &[Document], pipelines: &[Arc<Pipeline>], facts: &LintFacts<'_>, problems: &mut Problems) {
    let by_file: HashMap<&str, &Document> = documents.iter().map(|document| (document.name(), document)).collect();
    let mut clocks = Clocks { from: facts.now, by_zone: HashMap::new() };
    let mut scheduled = Vec::new();
    for pipeline in pipelines {
        let Some(document) = by_file.get(pipeline.file.as_str()).copied() else { continue };
        constant_conditions(document, pipeline, facts.templates, problems);
        let Some(schedule) = pipeline.schedule() else { continue };
        every_minute(document, schedule, problems);
        moved_by_clocks(document, schedule, &mut clocks, problems);
        periods(document, pipeline, schedule, facts, problems);
        if pipeline.enabled {
            scheduled.push((document, pipeline.as_ref(), schedule));
        }
    }
    crowds(&scheduled, facts.now, problems);
}

/// Reports notifiers of `config.yaml` that no hook of any pipeline names.
pub fn unused_notifiers(config: &Document, pipelines: &[Arc<Pipeline>], problems: &mut Problems) {
    let used = |name: &str| {
        let of_runs = pipelines.iter().flat_map(|pipeline| pipeline.hooks.all().map(|(_, hook)| hook));
        let of_alarms = pipelines.iter().flat_map(|one| one.hooks.on_stalled.iter().chain(&one.hooks.on_recovered));
        of_runs.chain(of_alarms).any(|hook| matches!(&hook.target, HookTarget::Notify(notifier) if notifier == name))
    };
    let declared = config.value().get("notifiers").and_then(serde_json::Value::as_object);
    for name in declared.into_iter().flat_map(serde_json::Map::keys).filter(|name| !used(name)) {
        let message = format!("no pipeline uses the notifier `{name}`");
        let diagnostic = config.at_key(&join("/notifiers", name), "SG0614", message).label("unused");
        let help = format!("name it in a hook of a pipeline, such as `on_error: [{{ notify: {name} }}]`");
        config.report(problems, diagnostic.help(help).warning());
    }
}

/// The changes of clocks of the next year, looked up once for each zone.
struct Clocks {
    from: DateTime<Utc>,
    by_zone: HashMap<Tz, Vec<DateTime<Utc>>>,
}

impl Clocks {
    fn of(&mut self, zone: Tz) -> &[DateTime<Utc>] {
        let from = self.from;
        self.by_zone.entry(zone).or_insert_with(|| transitions(zone, from, from + YEAR))
    }
}

/// Returns a diagnostic about a cron line.
fn at_line(document: &Document, line: usize, code: &'static str, message: String) -> Diagnostic {
    let is_list = document.value().pointer("/schedule/cron").is_some_and(serde_json::Value::is_array);
    let pointer = if is_list { format!("/schedule/cron/{line}") } else { "/schedule/cron".to_owned() };
    document.at(&pointer, code, message).warning()
}

/// `* 3 * * *`: sixty starts where one was meant.
fn every_minute(document: &Document, schedule: &Schedule, problems: &mut Problems) {
    for (at, line) in schedule.written.iter().enumerate() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (minute, hour) = match fields.as_slice() {
            [minute, hour, _, _, _] => (*minute, *hour),
            [_, minute, hour, _, _, _] => (*minute, *hour),
            _ => continue,
        };
        if minute != "*" || hour == "*" {
            continue;
        }
        let message = "this is due in every minute of the chosen hours".to_owned();
        let diagnostic = at_line(document, at, "SG0403", message).label("`*` in the field of minutes");
        let once = line.replacen('*', "0", 1);
        let once = if fields.len() == 5 { once } else { format!("0 {}", once.split_once(' ').map_or("", |two| two.1)) };
        document.report(problems, diagnostic.help(format!("for once in each of them write `{once}`")));
    }
}

/// A line that is due once on a day, at a time that a change of clocks skips or repeats.
/// A line that is due more often has other starts on that day.
fn moved_by_clocks(document: &Document, schedule: &Schedule, clocks: &mut Clocks, problems: &mut Problems) {
    let zone = schedule.timezone;
    for line in 0..schedule.written.len() {
        let found = clocks.of(zone).iter().find_map(|change| schedule.moved_by(line, *change));
        let Some((due, change)) = found else { continue };
        let local = due.with_timezone(&zone);
        let (day, starts) = (local.format("%Y-%m-%d"), local.format("%H:%M"));
        let (message, help) = match change {
            ClockChange::Gap(named) => (
                format!("{} does not exist in {zone}: the clocks go forward", named.format("%Y-%m-%d %H:%M")),
                format!("it starts at {starts} on that day; a time after that is the same every day"),
            ),
            ClockChange::First | ClockChange::Both => (
                format!("{starts} comes twice on {day} in {zone}: the clocks go back"),
                "it starts at the first of the two; a later time is the same every day".to_owned(),
            ),
        };
        document.report(problems, at_line(document, line, "SG0404", message).label("moved").help(help));
    }
}

/// Times that contradict how often the pipeline is due.
fn periods(
    document: &Document,
    pipeline: &Pipeline,
    schedule: &Schedule,
    facts: &LintFacts<'_>,
    problems: &mut Problems,
) {
    let starts = schedule.next_runs(facts.now, STARTS);
    let gaps = || starts.windows(2).map(|two| two[1] - two[0]);
    let (Some(shortest), Some(longest)) = (gaps().min(), gaps().max()) else { return };
    let in_words = |delta: TimeDelta| format_duration(delta.to_std().unwrap_or_default());
    if let Some(takes) = facts.durations.get(&pipeline.name).filter(|takes| **takes > shortest) {
        let message =
            format!("it is due again after {}, and a run usually takes {}", in_words(shortest), in_words(*takes));
        let policy = pipeline.policy.as_str();
        let help = format!("with `concurrency.policy: {policy}` not every start becomes a run; start it less often");
        document.report(problems, at_line(document, 0, "SG0405", message).label("too often").help(help));
    }
    // The default is for all pipelines, so only what this file says is meant for it.
    let written = document.value().pointer("/schedule/catch_up_window").is_some();
    let window = TimeDelta::from_std(schedule.catch_up_window).unwrap_or(TimeDelta::MAX);
    if written && schedule.catch_up == CatchUp::Once && window > longest {
        let message = format!("a missed start is never older than {}: then the next one is due", in_words(longest));
        let diagnostic = document.at("/schedule/catch_up_window", "SG0406", message).label("no effect beyond that");
        let help = format!("write at most `{}`", in_words(longest));
        document.report(problems, diagnostic.help(help).warning());
    }
}

/// Pipelines without jitter that start in the same minute.
fn crowds(scheduled: &[(&Document, &Pipeline, &Schedule)], now: DateTime<Utc>, problems: &mut Problems) {
    let mut by_minute: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (at, (_, _, schedule)) in scheduled.iter().enumerate().filter(|(_, (_, _, one))| one.jitter.is_zero()) {
        for start in schedule.next_runs(now, STARTS).into_iter().take_while(|start| *start < now + WEEK) {
            let minute = by_minute.entry(start.timestamp().div_euclid(60)).or_default();
            if minute.last() != Some(&at) {
                minute.push(at);
            }
        }
    }
    let mut reported = vec![false; scheduled.len()];
    for (minute, crowd) in by_minute.into_iter().filter(|(_, crowd)| crowd.len() >= CROWD) {
        // One warning for a crowd, not one for each of its meetings.
        if crowd.iter().all(|at| reported[*at]) {
            continue;
        }
        crowd.iter().for_each(|at| reported[*at] = true);
        let (document, last, schedule) = scheduled[crowd[crowd.len() - 1]];
        let others: Vec<String> = crowd
            .iter()
            .map(|at| &scheduled[*at].1.name)
            .filter(|name| **name != last.name)
            .map(|name| format!("`{name}`"))
            .collect();
        let named = others[..others.len().min(NAMED)].join(", ");
        let more = others.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let time = DateTime::from_timestamp(minute * 60, 0).unwrap_or(now).with_timezone(&schedule.timezone);
        let message = format!("it starts in the same minute as {named}{more}: {}", time.format("%Y-%m-%d %H:%M %Z"));
        let help = "`jitter: 10m` gives each of them a part of it that stays the same".to_owned();
        let diagnostic = document.at_key("/schedule", "SG0407", message).help(help);
        document.report(problems, diagnostic.warning());
    }
}

/// Conditions that look at nothing, so that they give the same whatever is found.
fn constant_conditions(document: &Document, pipeline: &Pipeline, templates: &Templates, problems: &mut Problems) {
    let written = document.value().get("steps").and_then(serde_json::Value::as_array);
    for (at, step) in written.into_iter().flatten().enumerate() {
        for key in ["when", "warn_when", "fail_when"] {
            let Some(expression) = step.get(key).and_then(serde_json::Value::as_str) else { continue };
            // `fail_when: "false"` is how the default of a job is switched off.
            let is_off = key == "fail_when" && expression.trim() == "false";
            if is_off || !templates.names_of(expression).is_empty() {
                continue;
            }
            let message = format!("`{key}` looks at nothing, so it is always the same");
            let pointer = join(&format!("/steps/{at}"), key);
            let names = if key == "when" { "`params`, `run` or `steps`" } else { "`result`" };
            let help = format!("name a part of {names}; to switch `{}` off set `enabled: false`", pipeline.name);
            document.report(problems, document.at(&pointer, "SG0307", message).label("constant").help(help).warning());
        }
    }
}
