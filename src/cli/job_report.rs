//! The report of a run on a terminal: tables of types and mismatches, then one line about
//! the whole. With another output format it is the report itself.

use super::Failure;
use super::output::{self, Output};
use crate::report::{RunReport, StepReport};

/// Prints the report of a run.
///
/// # Errors
///
/// Never in practice: a report is plain data.
pub fn print(report: &RunReport, form: Output) -> Result<(), Failure> {
    if form != Output::Table {
        let text = serde_json::to_string(report).map_err(|error| Failure::internal(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    for step in &report.steps {
        print_step(step);
    }
    print_end(report);
    Ok(())
}

/// Prints one line about a run to stderr.
pub fn print_end(report: &RunReport) {
    let took = report.finished_at.map_or(0.0, |end| (end - report.started_at).as_seconds_f64());
    eprintln!(
        "{}: {} in {took:.1} s, {} requests (run {})",
        report.pipeline, report.status, report.requests, report.run_id
    );
    if let (true, Some(reason)) = (report.steps.is_empty(), &report.reason) {
        eprintln!("{}: {}: {reason}", report.pipeline, report.status);
    }
}

fn print_step(step: &StepReport) {
    let result = &step.result;
    let is_compared = result.kind.is_some() || result.checked + result.repaired + result.unresolved > 0;
    if is_compared && !result.by_type.is_empty() {
        print_types(step);
    } else if !result.by_type.is_empty() {
        let mut table = output::table(["type", "rows written"]);
        for (name, ty) in &result.by_type {
            table.add_row([name.clone(), output::number(ty.written)]);
        }
        println!("{table}");
    }
    for (name, value) in &result.outputs {
        println!("{name}: {}", output::cell(value));
    }
    if !result.mismatches.is_empty() {
        print_mismatches(step);
    }
    if let Some(bound) = result.stale_ratio_upper95 {
        eprintln!("with 95 % confidence at most {:.3} % of the rows are stale", bound * 100.0);
    }
    match (&step.error, &step.reason) {
        (Some(error), _) => eprintln!("error: {}: {}", step.id, error.message),
        (None, Some(reason)) => eprintln!("{}: {}: {reason}", step.id, step.status),
        (None, None) => {}
    }
}

fn print_types(step: &StepReport) {
    let types = &step.result.by_type;
    let counts = types.values().any(|ty| ty.site_count.is_some());
    let names = types.values().any(|ty| ty.names > 0);
    let numbers = if counts { ["site", "cache"].as_slice() } else { &["checked"] };
    let names_header = if names { ["names"].as_slice() } else { &[] };
    let header =
        [&["type", "verdict"], numbers, &["missing", "extra", "differs"], names_header, &["touched", "repaired"]];
    let mut table = output::table(["type"]);
    table.set_header(header.concat());
    for (name, ty) in types {
        let verdict = serde_json::to_value(ty.verdict).ok().and_then(|v| v.as_str().map(str::to_owned));
        let mut cells = vec![name.clone(), verdict.unwrap_or_default()];
        if counts {
            let shown = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), output::number);
            cells.extend([shown(ty.site_count), shown(ty.cache_count)]);
        } else {
            cells.push(output::number(ty.checked));
        }
        cells.extend([ty.missing, ty.extra, ty.differs].map(output::number));
        cells.extend(names.then(|| output::number(ty.names)));
        cells.extend([ty.touched, ty.repaired].map(output::number));
        table.add_row(cells);
    }
    println!("{table}");
    for (name, problem) in types.iter().filter_map(|(name, ty)| Some((name, ty.problem.as_ref()?))) {
        eprintln!("{name}: {problem}");
    }
}

fn print_mismatches(step: &StepReport) {
    let mut table = output::table(["entity", "field", "cache", "shotgun", "class", "action"]);
    for mismatch in &step.result.mismatches {
        table.add_row([
            format!("{} {}", mismatch.entity_type, mismatch.id),
            mismatch.field.clone().unwrap_or_else(|| mismatch.kind.as_str().to_owned()),
            output::short(&output::cell(&mismatch.cached), 60),
            output::short(&output::cell(&mismatch.shotgun), 60),
            mismatch.class.map_or("-", |class| class.as_str()).to_owned(),
            mismatch.action.as_str().to_owned(),
        ]);
    }
    println!("{table}");
    if step.result.truncated {
        eprintln!("there are more mismatches than these");
    }
}
