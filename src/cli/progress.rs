//! Progress of imports on a terminal: a bar per type and one live line below. Where
//! stderr is no terminal there are plain lines instead, and few of them.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::output::number;
use crate::state::State;
use crate::sync::Progress;

/// How often a plain line about a type is written at most.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the state is asked how far imports are.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The bars of one command.
pub struct ProgressBars {
    terminal: bool,
    multi: MultiProgress,
    live: Option<ProgressBar>,
    shown: BTreeMap<String, Bar>,
}

struct Bar {
    bar: ProgressBar,
    printed_at: Instant,
}

impl ProgressBars {
    /// Makes room for bars. With `live` there is a line below them.
    pub fn new(live: bool) -> Self {
        let multi = MultiProgress::new();
        let live = live.then(|| multi.add(ProgressBar::new_spinner()));
        Self { terminal: std::io::stderr().is_terminal(), multi, live, shown: BTreeMap::new() }
    }

    /// Returns whether the bars are visible.
    pub fn on_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows how far a type is.
    pub fn show(&mut self, name: &str, done: u64, total: u64) {
        let total = total.max(done);
        if !self.shown.contains_key(name) {
            let bar = if self.terminal { self.add(name, total) } else { ProgressBar::hidden() };
            self.shown.insert(name.to_owned(), Bar { bar, printed_at: Instant::now() });
        }
        let Some(shown) = self.shown.get_mut(name) else { return };
        shown.bar.set_length(total);
        shown.bar.set_position(done);
        if !self.terminal && shown.printed_at.elapsed() >= LINE_EVERY {
            shown.printed_at = Instant::now();
            eprintln!("{name}: {} of {} rows", number(done), number(total));
        }
    }

    /// Shows that a type is complete; `rows` when it is known.
    pub fn finish(&mut self, name: &str, rows: Option<u64>) {
        let Some(shown) = self.shown.remove(name) else { return };
        let rows = rows.unwrap_or_else(|| shown.bar.length().unwrap_or_default());
        shown.bar.set_length(rows);
        shown.bar.set_position(rows);
        shown.bar.finish_with_message("imported");
        if !self.terminal {
            eprintln!("{name}: imported, {} rows", number(rows));
        }
    }

    /// Shows the types that are being imported and finishes those that are no longer.
    pub fn show_all(&mut self, importing: &[(String, u64, u64)]) {
        let gone: Vec<String> =
            self.shown.keys().filter(|name| !importing.iter().any(|(other, ..)| other == *name)).cloned().collect();
        for name in gone {
            self.finish(&name, None);
        }
        for (name, done, total) in importing {
            self.show(name, *done, *total);
        }
    }

    /// Writes the live line.
    pub fn println(&self, line: String) {
        match &self.live {
            Some(live) if self.terminal => {
                live.set_message(line);
                live.tick();
            }
            _ => eprintln!("{line}"),
        }
    }

    fn add(&self, name: &str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:16} {bar:40} {pos:>8}/{len:8} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_prefix(name.to_owned());
        match &self.live {
            Some(live) => self.multi.insert_before(live, bar),
            None => self.multi.add(bar),
        }
    }
}

/// Shows the imports that the state knows of, until it is cancelled.
pub async fn watch_imports(state: State, stop: CancellationToken) {
    let mut bars = ProgressBars::new(false);
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return bars.show_all(&[]),
        }
        // What cannot be read now is drawn with the next look.
        let Ok(records) = state.types().await else { continue };
        let importing = records.iter().filter_map(|record| {
            let import = record.import.as_ref()?;
            Some((record.entity_type.to_string(), import.rows, import.expected.unwrap_or(import.rows)))
        });
        bars.show_all(&importing.collect::<Vec<_>>());
    }
}

/// Returns what a rebuild is given to draw its bars.
pub fn progress() -> Progress {
    let bars = Mutex::new(ProgressBars::new(false));
    Arc::new(move |import| {
        let mut bars = bars.lock();
        let name = import.entity_type.to_string();
        bars.show(&name, import.rows, import.expected.unwrap_or(import.rows));
        if import.done {
            bars.finish(&name, Some(import.rows));
        }
    })
}
