//! `sgcache pipelines explain`: when pipelines start next and why, and why past
//! occurrences did not run. Reads the files and the data directory; asks the site nothing.

use std::fmt::Write;
use std::path::Path;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::super::context::load_config;
use super::super::output::{self, Output, wrapped};
use super::super::pipeline_files::{load_what_fits, open_state, selected, warn_about_files};
use super::super::pipeline_outlook::PipelineOutlook;
use super::super::{Failure, status};
use crate::pipeline::{Explanation, NextOccurrence, PastOccurrence, Typical};
use crate::server::Span;
use crate::yaml;

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The pipelines [default: all]
    #[arg(add = super::super::completion::pipelines())]
    names: Vec<String>,
    /// How many starts to forecast
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    next: u32,
    /// Explain as of this instant, such as 2026-11-24T08:00:00+01:00 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<DateTime<Utc>>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &ExplainArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let loaded = load_what_fits(&config).await;
    warn_about_files(&loaded);
    let chosen =
        if args.names.is_empty() { loaded.pipelines.clone() } else { selected(loaded.pipelines.clone(), &args.names)? };
    let now = args.at.unwrap_or_else(Utc::now);
    let outlook = match open_state(&config).await? {
        Some(state) => PipelineOutlook::read(&state, config.timezone, &loaded.pipelines, now).await?,
        None => PipelineOutlook::unknown(config.timezone, now),
    };
    let explanations: Vec<Explanation> =
        chosen.iter().map(|pipeline| outlook.explain(pipeline, &loaded.pipelines, args.next as usize)).collect();
    match args.output {
        Output::Table => {
            let texts: Vec<String> = explanations.iter().map(|explanation| text(explanation, now)).collect();
            print!("{}", texts.join("\n"));
        }
        Output::Json => println!("{}", explanations.iter().map(yaml::to_json).collect::<Value>()),
        Output::Ndjson => explanations.iter().for_each(|one| println!("{}", yaml::to_json(one))),
    }
    if args.at.is_none() && status::of_daemon(&config).await.is_none() {
        let dir = config.data_dir.display();
        eprintln!("note: no daemon runs on {dir}: nothing starts by itself until one does");
    }
    Ok(0)
}

/// Writes an explanation for a person, in lines that fit a terminal.
fn text(explanation: &Explanation, now: DateTime<Utc>) -> String {
    let mut lines = wrapped("", &heading(explanation));
    lines.extend(named("starts", &explanation.starts));
    for rule in &explanation.rules {
        lines.extend(named(rule.name, &rule.effect));
    }
    lines.extend(named("state", &explanation.state));
    if let Some(typical) = &explanation.typical {
        lines.extend(named("typical", &typical_words(typical)));
    }
    let zone: Tz = explanation.timezone.parse().unwrap_or(Tz::UTC);
    if !explanation.next.is_empty() {
        lines.extend([String::new(), "next".to_owned()]);
        lines.extend(next_lines(&explanation.next, zone, now));
    }
    if !explanation.past.is_empty() {
        lines.extend([String::new(), "past".to_owned()]);
        lines.extend(explanation.past.iter().flat_map(|past| past_lines(past, zone)));
    }
    lines.iter().fold(String::new(), |mut all, line| {
        // Writing into a String cannot fail.
        let _ = writeln!(all, "{}", line.trim_end());
        all
    })
}

fn heading(explanation: &Explanation) -> String {
    match explanation.description.is_empty() {
        true => explanation.pipeline.clone(),
        false => format!("{}: {}", explanation.pipeline, explanation.description),
    }
}

fn typical_words(typical: &Typical) -> String {
    let (median, longest) = (Span(typical.median_seconds), Span(typical.longest_seconds));
    let requests = output::number(typical.median_requests);
    let runs = if typical.runs == 1 { "1 run".to_owned() } else { format!("{} runs", typical.runs) };
    format!("{median}, at most {longest}, and {requests} requests (median of {runs})")
}

fn next_lines(next: &[NextOccurrence], zone: Tz, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = next;
    while let Some(first) = rest.first() {
        let alike = |other: &&NextOccurrence| other.starts_at.is_none() && other.remarks == first.remarks;
        let same = rest.iter().take_while(alike).count().max(1);
        let away = (first.due - now).as_seconds_f64();
        let distance = if away < 0.0 { format!("{} ago", Span(-away)) } else { format!("in {}", Span(away)) };
        let utc = first.due.format("%H:%M:%S UTC");
        lines.push(format!("  {}  {utc}  {distance}", moment(first.due, zone)));
        lines.extend(first.remarks.iter().flat_map(|remark| wrapped("    ", remark)));
        if let (true, Some(last)) = (same > 1, rest.get(same - 1)) {
            lines.push(format!("    so are the {} after it, until {}", same - 1, moment(last.due, zone)));
        }
        rest = &rest[same..];
    }
    lines
}

fn past_lines(past: &PastOccurrence, zone: Tz) -> Vec<String> {
    let took = past.duration_seconds.map(|seconds| format!("  took {}", Span(seconds)));
    let first = format!("  {}  {:<11}{}", moment(past.due, zone), past.status, took.unwrap_or_default());
    let remarks = past.remarks.iter().flat_map(|remark| wrapped("    ", remark));
    std::iter::once(first).chain(remarks).collect()
}

fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%a %Y-%m-%d %H:%M:%S %:z").to_string()
}

fn named(name: &str, text: &str) -> Vec<String> {
    wrapped(&format!("  {name:<12}"), text)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
