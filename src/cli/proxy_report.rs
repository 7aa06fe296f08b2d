//! `sgcache proxy report`: what the read proxy gave within a window, and what keeps the
//! rest from coming from the cache.
//!
//! Reads the state file alone, so it also works while no daemon runs; a running daemon
//! writes its counts every few seconds.

use std::path::Path;

use chrono::Utc;
use chrono_tz::Tz;

use super::Failure;
use super::context::load_config;
use super::output::{Output, number, short};
use super::since::Since;
use super::status::{COLUMNS, moment, wrapped};
use crate::report::ledger::{self, Ledger, ReasonSummary, Recorder};
use crate::server::Span;
use crate::state::State;

/// Reasons, callers and slow answers that the table lists; `--all` lists every one.
const LISTED: usize = 5;
/// The longest bar.
const BAR: f64 = 9.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The beginning: `today`, or how long ago
    #[arg(long, default_value = "7d", value_parser = Since::parse, value_name = "today|DURATION")]
    since: Since,
    /// List every reason and caller
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &Args, chosen: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(chosen)?;
    let state = State::open(&config.data_dir).await?;
    let window = args.since.window(Utc::now(), config.timezone);
    // What is not in the state yet is in the daemon, not here.
    let ledger = ledger::ledger(&Recorder::default(), &state, window).await?;
    match args.output {
        Output::Table => print!("{}", text(&ledger, config.timezone, &config.listen.api.to_string(), args.all)),
        Output::Json | Output::Ndjson => {
            let text = serde_json::to_string(&ledger).map_err(|error| Failure::internal(error.to_string()))?;
            println!("{text}");
        }
    }
    Ok(0)
}

/// Writes a ledger for people, at most 80 columns wide.
fn text(ledger: &Ledger, zone: Tz, api: &str, all: bool) -> String {
    let mut lines = head(ledger, zone);
    if ledger.reads == 0 {
        lines.extend(wrapped("", &format!("Programs read through the proxy when their site is http://{api}.")));
    } else {
        let most = if all { usize::MAX } else { LISTED };
        lines.extend(methods(ledger));
        lines.extend(reasons(ledger, most));
        lines.extend(callers(ledger, most));
        lines.extend(slowest(ledger, most));
    }
    lines.extend(writes(ledger));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn head(ledger: &Ledger, zone: Tz) -> Vec<String> {
    let length = Span((ledger.until - ledger.since).as_seconds_f64());
    let window = format!("since {} ({length})", moment(ledger.since, zone));
    let Some(ratio) = ledger.hit_ratio else {
        let mut lines = wrapped("", &format!("No read was answered through the proxy {window}."));
        lines.extend(failed(ledger));
        return lines;
    };
    let saved = match ledger.saved_seconds {
        Some(seconds) => format!("{} of waiting saved", Span(seconds.max(0.0))),
        None => "waiting saved not known: the site answered none".to_owned(),
    };
    let mut lines =
        wrapped("", &format!("{} reads answered, {} from the cache, {saved}.", number(ledger.reads), percent(ratio)));
    let before =
        ledger.previous_hit_ratio.map_or_else(String::new, |ratio| format!(", before that {}", percent(ratio)));
    lines.extend(wrapped("", &format!("{window}{before}")));
    lines.extend(failed(ledger));
    lines
}

/// What limits the figures above.
fn failed(ledger: &Ledger) -> Vec<String> {
    let mut lines = Vec::new();
    if ledger.failed > 0 {
        let text = format!("{} reads had no answer: the site was away and the cache had none.", number(ledger.failed));
        lines.extend(wrapped("! ", &text));
    }
    if ledger.stale_hits > 0 {
        let text = format!("{} answers were older than usual, because the site was away.", number(ledger.stale_hits));
        lines.extend(wrapped("", &text));
    }
    if ledger.uncounted > 0 {
        let text = format!("{} calls came too fast to be counted here.", number(ledger.uncounted));
        lines.extend(wrapped("! ", &text));
    }
    lines
}

fn methods(ledger: &Ledger) -> Vec<String> {
    let row = |name: &str, cells: [String; 6]| {
        let [reads, cache, here, here95, site, site95] = cells;
        format!("  {name:<18}{reads:>11}{cache:>8}{here:>11}{here95:>9}{site:>11}{site95:>9}")
    };
    let heads = ["reads", "cache", "here 50 %", "95 %", "site 50 %", "95 %"].map(str::to_owned);
    let mut lines = vec![String::new(), row("method", heads)];
    for one in &ledger.methods {
        let times = [one.cache_p50_ms, one.cache_p95_ms, one.site_p50_ms, one.site_p95_ms];
        let [here, here95, site, site95] = times.map(|ms| ms.map_or_else(|| "-".to_owned(), milliseconds));
        let ratio = one.hit_ratio.map_or_else(|| "-".to_owned(), percent);
        lines.push(row(&short(&one.method, 18), [number(one.calls), ratio, here, here95, site, site95]));
    }
    lines
}

fn reasons(ledger: &Ledger, most: usize) -> Vec<String> {
    let Some(highest) = ledger.reasons.iter().map(|one| one.calls).max() else { return Vec::new() };
    let title = format!("Why {} reads went to the site", number(ledger.passes));
    let mut lines = vec![String::new(), format!("  {title:<58}{:>9}", "reads")];
    for one in ledger.reasons.iter().take(most) {
        let bar = "█".repeat((BAR * one.calls as f64 / highest as f64).round() as usize);
        let mut label = textwrap::wrap(&one.label, 56).into_iter();
        let first = label.next().unwrap_or_default();
        lines.push(format!("  {first:<58}{:>9}  {bar}", number(one.calls)));
        lines.extend(label.map(|line| format!("  {line}")));
        lines.extend(wrapped("      ", &remedy(one)));
    }
    let rest: u64 = ledger.reasons.iter().skip(most).map(|one| one.calls).sum();
    if rest > 0 {
        let label = format!("{} other reasons (--all)", ledger.reasons.len() - most);
        lines.push(format!("  {label:<58}{:>9}", number(rest)));
    }
    lines
}

fn remedy(one: &ReasonSummary) -> String {
    match (&one.remedy, one.reason.as_str()) {
        (Some(remedy), _) => remedy.clone(),
        (None, ledger::OTHER) => String::new(),
        (None, reason) => format!("nothing to change: {reason}"),
    }
}

fn callers(ledger: &Ledger, most: usize) -> Vec<String> {
    let mut lines = vec![String::new(), format!("  {:<40}{:>11}{:>8}{:>12}", "caller", "reads", "cache", "saved")];
    for one in ledger.callers.iter().take(most) {
        let ratio = one.hit_ratio.map_or_else(|| "-".to_owned(), percent);
        let saved = one.saved_seconds.map_or_else(|| "-".to_owned(), |seconds| Span(seconds.max(0.0)).to_string());
        let caller = short(&one.caller, 38);
        lines.push(format!("  {caller:<40}{:>11}{ratio:>8}{saved:>12}", number(one.reads)));
    }
    lines
}

fn slowest(ledger: &Ledger, most: usize) -> Vec<String> {
    if ledger.slowest.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), "  slowest answers of the site".to_owned()];
    for one in ledger.slowest.iter().take(most) {
        let ty = one.entity_type.as_deref().map(|ty| format!(" {ty}")).unwrap_or_default();
        let text = format!("{}{ty}, {} ({})", one.method, one.caller, one.reason);
        lines.push(format!("  {:>9}  {}", milliseconds(one.ms), short(&text, COLUMNS - 13)));
    }
    lines
}

fn writes(ledger: &Ledger) -> Vec<String> {
    let writes = &ledger.writes;
    if writes.count + writes.failed == 0 {
        return Vec::new();
    }
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| milliseconds(value * 1e3));
    let text = format!(
        "{} writes, shown by every read from the cache after {} (median), {} (95 %), {} (longest); {} refused or \
         without an answer.",
        number(writes.count),
        seconds(writes.visible_p50_seconds),
        seconds(writes.visible_p95_seconds),
        seconds(writes.visible_max_seconds),
        number(writes.failed),
    );
    [vec![String::new()], wrapped("", &text)].concat()
}

fn percent(ratio: f64) -> String {
    // Rounded down: 100.0 % means that nothing went to the site.
    format!("{:.1} %", (ratio * 1000.0).floor() / 10.0)
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
#[path = "proxy_report_tests.rs"]
mod tests;
