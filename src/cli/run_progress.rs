//! What happens during a run of this process, on its terminal: one line about the step that
//! runs, or with `-o ndjson` every event as a line on stdout.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::output::{Output, number};
use crate::pipeline::{Progress, RunEvent, RunObserver};
use crate::yaml;

/// How often a plain line is written at most where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Returns what shows the events of runs in this form of output; nothing where other bars
/// are drawn already.
pub fn observer(output: Output, has_bars: bool) -> Option<RunObserver> {
    match output {
        Output::Ndjson => Some(Arc::new(|event: &RunEvent<'_>| println!("{}", yaml::to_json(event)))),
        _ if has_bars => None,
        _ => {
            let line = Mutex::new(Line::new());
            Some(Arc::new(move |event: &RunEvent<'_>| line.lock().show(event)))
        }
    }
}

/// The line about the step that runs.
struct Line {
    terminal: bool,
    bar: Option<ProgressBar>,
    began: Instant,
    printed: Instant,
}

impl Line {
    fn new() -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), bar: None, began: now, printed: now }
    }

    fn show(&mut self, event: &RunEvent<'_>) {
        match event {
            RunEvent::StepStarted { step, .. } => {
                self.began = Instant::now();
                self.printed = self.began;
                self.bar = self.terminal.then(|| bar(step));
            }
            RunEvent::Progress(progress) => {
                let words = words(progress, self.began.elapsed());
                match &self.bar {
                    Some(bar) => {
                        bar.set_length(progress.types.max(progress.types_done) as u64);
                        bar.set_position(progress.types_done as u64);
                        bar.set_message(words);
                    }
                    None if !self.terminal && self.printed.elapsed() >= LINE_EVERY => {
                        self.printed = Instant::now();
                        eprintln!("{}: {words}", progress.step);
                    }
                    None => {}
                }
            }
            RunEvent::StepFinished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            RunEvent::RunStarted { .. } | RunEvent::Drift { .. } | RunEvent::RunFinished { .. } => {}
        }
    }
}

fn bar(step: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:16} {bar:20} {elapsed:>4} {msg}");
    let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(step.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// How far a step is: `5 000 compared, 120/s, 7 types left, about 40s`.
fn words(progress: &Progress<'_>, elapsed: Duration) -> String {
    let Progress { job, types_done, types, checked, written, .. } = *progress;
    let compares = matches!(job, "validateCounts" | "validateData" | "scan");
    let (rows, verb) = if compares { (checked, "compared") } else { (written, "written") };
    let per_second = (rows as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let mut words = format!("{} {verb}, {}/s", number(rows), number(per_second));
    let left = types.saturating_sub(types_done);
    if types > 0 && left > 0 {
        let noun = if left == 1 { "type" } else { "types" };
        words.push_str(&format!(", {left} {noun} left"));
        if types_done > 0 {
            // Types differ in size; no more than a guess is promised.
            let rest = elapsed.mul_f64(left as f64 / types_done as f64);
            words.push_str(&format!(", about {}", yaml::format_duration(Duration::from_secs(rest.as_secs().max(1)))));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(job: &'static str, types_done: usize, types: usize, rows: u64) -> Progress<'static> {
        Progress { run_id: "r", step: "s", job, types_done, types, checked: rows, written: rows }
    }

    #[test]
    fn the_line_says_how_fast_it_goes_and_what_is_left() {
        let after = Duration::from_secs(20);
        let of = |job, done, types, rows| words(&progress(job, done, types, rows), after);
        assert_eq!(of("validateData", 10, 30, 5000), "5 000 compared, 250/s, 20 types left, about 40s");
        assert_eq!(of("scan", 0, 3, 0), "0 compared, 0/s, 3 types left");
        assert_eq!(of("export", 1, 2, 1200), "1 200 written, 60/s, 1 type left, about 20s");
        assert_eq!(of("validateCounts", 2, 2, 7), "7 compared, 0/s");
        assert_eq!(words(&progress("purge", 2, 0, 7), Duration::ZERO), "7 written, 7 000/s");
    }
}
