//! `sgcache status`: what the daemon of this data directory is doing.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use comfy_table::{CellAlignment, Table};

use super::Failure;
use super::context::load_config;
use super::output::{self, Output};
use crate::config::Config;
use crate::report::ledger::{Ledger, ReasonSummary};
use crate::server::{Control, Level, Span, StatusSnapshot};

/// The usual width of a terminal.
pub(super) const COLUMNS: usize = 80;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
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
    print!("{}", text(status));
}

/// Writes a snapshot for people, 80 columns wide: what it is like, what it gives, then
/// every type and pipeline. All times are in the zone of `config.yaml`.
fn text(status: &StatusSnapshot) -> String {
    let zone = status.timezone.as_deref().and_then(|zone| zone.parse().ok()).unwrap_or(chrono_tz::UTC);
    let mut lines = head(status, zone);
    lines.extend(status.ledger.as_ref().map(|ledger| given(ledger, zone)).unwrap_or_default());
    lines.push(types(status).to_string());
    lines.push(String::new());
    if !status.pipelines.is_empty() {
        lines.push(pipelines(status, zone).to_string());
        lines.push(String::new());
    }
    let store = &status.store;
    let size = store.size_bytes.map_or_else(String::new, |bytes| format!(" {:.1} MB", bytes as f64 / 1e6));
    lines.push(format!("sgcache {} on {}, store {}{size}", status.version, status.instance, store.kind));
    if store.reports_waiting > 0 {
        lines.push(format!("{} documents about runs wait to be delivered", output::number(store.reports_waiting)));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The sentence, the answers, and what else needs a person.
fn head(status: &StatusSnapshot, zone: Tz) -> Vec<String> {
    let health = &status.health;
    let mut lines = wrapped(sign(health.level), &health.title);
    let since = health.since.unwrap_or(status.started_at);
    let age = (status.now - since).as_seconds_f64();
    lines.extend(wrapped("", &format!("since {} ({}), following {}", moment(since, zone), Span(age), status.site)));
    lines.push(String::new());
    for (name, answer) in [("Reads", &health.reads), ("Site", &health.site), ("Drift", &health.drift)] {
        lines.extend(wrapped(&format!("{:2}{name:<7}", sign(answer.level).trim_end()), &answer.text));
    }
    lines.push(String::new());
    for need in &health.needs {
        lines.extend(wrapped(sign(need.level), &need.text));
    }
    if !health.needs.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// A text behind its lead, in lines that fit a terminal of [`COLUMNS`].
pub(super) fn wrapped(lead: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(lead.chars().count());
    let options = textwrap::Options::new(COLUMNS).initial_indent(lead).subsequent_indent(&indent);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

fn sign(level: Level) -> &'static str {
    match level {
        Level::Ok => "",
        Level::Busy => "~ ",
        Level::Warn => "! ",
        Level::Bad => "x ",
    }
}

/// Returns the calls of each reason, whatever their types, the most frequent one first.
fn by_reason(reasons: &[ReasonSummary]) -> Vec<(&str, u64)> {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for one in reasons {
        match sums.iter_mut().find(|(reason, _)| *reason == one.reason) {
            Some((_, calls)) => *calls += one.calls,
            None => sums.push((&one.reason, one.calls)),
        }
    }
    sums.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    sums
}

/// What the read proxy has given today.
fn given(ledger: &Ledger, zone: Tz) -> Vec<String> {
    let mut lines = vec![format!("Today since {}", moment(ledger.since, zone))];
    let before = ledger.previous_hit_ratio.map(|ratio| format!(" (before {:.1} %)", ratio * 100.0));
    let ratio = ledger.hit_ratio.map(|ratio| format!("{:.1} % from the cache", ratio * 100.0));
    let ratio = ratio.map(|ratio| ratio + &before.unwrap_or_default()).unwrap_or_default();
    lines.push(format!("  reads answered {:>10}   {ratio}", output::number(ledger.reads)));
    let saved = ledger.saved_seconds.map_or_else(|| "-".to_owned(), |seconds| Span(seconds.max(0.0)).to_string());
    lines.push(format!("  waiting saved  {saved:>10}"));
    let reasons = by_reason(&ledger.reasons);
    let share =
        |(reason, calls): &(&str, u64)| format!("{:.0} % {reason}", 100.0 * *calls as f64 / ledger.passes as f64);
    let more = if reasons.len() > 2 { ", other" } else { "" };
    let reasons: Vec<String> = reasons.iter().take(2).map(share).collect();
    lines.push(format!("  to the site    {:>10}   {}{more}", output::number(ledger.passes), reasons.join(", ")));
    if ledger.passes > 0 {
        lines.push("  Why, and what to change: sgcache proxy report".to_owned());
    }
    lines.push(String::new());
    lines
}

fn types(status: &StatusSnapshot) -> Table {
    let mut types = output::table(["type", "state", "rows", "age", "lag", "drift", "compared"]);
    let ago = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "-".to_owned(), |at| Span((status.now - at).as_seconds_f64().max(0.0)).to_string())
    };
    for ty in &status.types {
        let state = match ty.import {
            Some(import) if import.total > 0 => format!("{} {} %", ty.state.as_str(), 100 * import.done / import.total),
            _ => ty.state.as_str().to_owned(),
        };
        let drift = ty.drift_ratio.filter(|ratio| !ratio.is_nan());
        let drift = drift.map_or_else(|| "-".to_owned(), |ratio| format!("{:.3} %", ratio * 100.0));
        let lag = ty.lag_seconds.map_or_else(|| "-".to_owned(), |lag| Span(lag).to_string());
        let compared = ago(ty.validated_at);
        types.add_row([
            ty.entity_type.clone(),
            state,
            output::number(ty.rows),
            ago(ty.fresh_as_of),
            lag,
            drift,
            compared,
        ]);
    }
    types.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    types
}

fn pipelines(status: &StatusSnapshot, zone: Tz) -> Table {
    let mut pipelines = output::table(["pipeline", "state", "last", "ended", "next"]);
    for pipeline in &status.pipelines {
        let at = |time: Option<DateTime<Utc>>| time.map_or_else(|| "-".to_owned(), |time| moment(time, zone));
        let last = pipeline.last_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let next = match (pipeline.next_run, pipeline.schedule.as_deref()) {
            (Some(next), _) => at(Some(next)),
            (None, Some(words)) => words.to_owned(),
            (None, None) => "-".to_owned(),
        };
        let (name, state) = (pipeline.name.clone(), pipeline.state().to_owned());
        pipelines.add_row([name, state, last, at(pipeline.last_finished_at), next]);
    }
    pipelines
}

/// A moment as people read it: `Mon 23 Nov 10:00 CET`.
pub(super) fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%a %d %b %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_named_once_whatever_the_types() {
        let reason = |reason: &str, ty: &str, calls| ReasonSummary {
            reason: reason.to_owned(),
            entity_type: Some(ty.to_owned()),
            label: String::new(),
            remedy: None,
            change: None,
            calls,
            waited_seconds: 0.0,
            gain: 0.0,
        };
        let reasons = [reason("write", "Shot", 5), reason("not_live", "Task", 4), reason("not_live", "Shot", 3)];
        assert_eq!(by_reason(&reasons), [("not_live", 7), ("write", 5)]);
    }
}
