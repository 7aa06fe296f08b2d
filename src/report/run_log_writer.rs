//! Writes the log of a run, within its bounds.
//!
//! Lines are written at once and without a queue: after a crash everything up to it is
//! there. A run logs a few lines per second at most.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::run_log::{LogLine, LogPaths};
use crate::private_files;

/// The size of the log of a run in bytes: its newest lines up to this are kept.
pub const MAX_RUN_LOG_BYTES: u64 = 1 << 20;
/// One of the two files of a log.
const MAX_FILE_BYTES: u64 = MAX_RUN_LOG_BYTES / 2;
/// The length of a message or a value in bytes; the rest is cut off.
const MAX_TEXT_BYTES: usize = 4096;

/// Writes the log of one run. Only the process that runs it has one.
#[derive(Debug)]
pub struct RunLogWriter {
    paths: LogPaths,
    file: Option<File>,
    /// The bytes in `file`.
    written: u64,
    /// The number of the next line.
    next: u64,
}

impl RunLogWriter {
    /// Returns a writer; nothing is written yet. `None` for what is not the id of a run.
    pub fn new(data_dir: &Path, run_id: &str) -> Option<RunLogWriter> {
        Some(RunLogWriter { paths: LogPaths::of(data_dir, run_id)?, file: None, written: 0, next: 0 })
    }

    /// Writes a line, with the next number.
    pub fn write(&mut self, mut line: LogLine) {
        line.number = self.next;
        self.next += 1;
        shorten(&mut line);
        let Ok(mut text) = serde_json::to_vec(&line) else { return };
        text.push(b'\n');
        // A full disk does not end a run, and cannot be logged from here, where log lines
        // come from. The number that is missing shows it.
        let _ = self.append(&text);
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let size = text.len() as u64;
        if self.written > 0 && self.written + size > MAX_FILE_BYTES {
            self.file = None;
            fs::rename(&self.paths.newer, &self.paths.older)?;
            self.written = 0;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        file.write_all(text)?;
        self.written += size;
        self.file = Some(file);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        if let Some(directory) = self.paths.newer.parent() {
            private_files::create_directory(directory)?;
        }
        private_files::open(&self.paths.newer, File::options().append(true))
    }
}

fn shorten(line: &mut LogLine) {
    cut(&mut line.message);
    for value in line.fields.values_mut() {
        if let Value::String(text) = value {
            cut(text);
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::Map;

    use super::super::new_run_id;
    use super::super::run_log::{LogPage, RUN_LOG_DIRECTORY, prune, read};
    use super::*;
    use crate::entity::Timestamp;
    use crate::state::{RunRow, State};

    fn line(message: impl Into<String>) -> LogLine {
        LogLine {
            number: 0,
            at: DateTime::UNIX_EPOCH,
            level: "info".to_owned(),
            step: None,
            message: message.into(),
            fields: Map::new(),
        }
    }

    fn numbers(page: &LogPage) -> Vec<u64> {
        page.lines.iter().map(|line| line.number).collect()
    }

    fn size(data_dir: &Path) -> u64 {
        let files = fs::read_dir(data_dir.join(RUN_LOG_DIRECTORY)).expect("a directory");
        files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum()
    }

    #[tokio::test]
    async fn a_log_keeps_its_newest_lines_within_its_bound_and_is_read_on_from_a_number() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let run_id = new_run_id();
        let mut writer = RunLogWriter::new(data_dir.path(), &run_id).expect("the id of a run");
        let read = async |from, limit| read(data_dir.path(), &run_id, from, limit).await.expect("a log");
        assert_eq!(read(0, 10).await, LogPage { lines: Vec::new(), next: 0 });
        (0..5).for_each(|at| writer.write(line(format!("line {at}"))));
        assert_eq!(numbers(&read(0, 3).await), [0, 1, 2]);
        let rest = read(3, 10).await;
        assert_eq!((numbers(&rest), rest.next), (vec![3, 4], 5));
        // Three times as much as is kept.
        let lines = 3 * MAX_RUN_LOG_BYTES / 1000;
        (5..lines).for_each(|at| writer.write(line(format!("{at} {}", "x".repeat(1000)))));
        assert!(size(data_dir.path()) <= MAX_RUN_LOG_BYTES, "{}", size(data_dir.path()));
        let kept = numbers(&read(0, usize::MAX).await);
        let first = kept[0];
        assert_eq!(kept, (first..lines).collect::<Vec<_>>());
        assert!(first > 5 && lines - first > MAX_FILE_BYTES / 1100, "{first} of {lines}");
    }

    #[tokio::test]
    async fn a_long_value_is_cut_and_a_line_that_is_half_written_is_none() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let run_id = new_run_id();
        let mut writer = RunLogWriter::new(data_dir.path(), &run_id).expect("the id of a run");
        writer.write(line("é".repeat(MAX_TEXT_BYTES)));
        let path = data_dir.path().join(RUN_LOG_DIRECTORY).join(format!("{run_id}.ndjson"));
        File::options().append(true).open(path).expect("the log").write_all(b"{\"number\":1,").expect("half a line");
        let page = read(data_dir.path(), &run_id, 0, 10).await.expect("a log");
        assert_eq!(numbers(&page), [0]);
        assert_eq!(page.lines[0].message.chars().count(), MAX_TEXT_BYTES / 2 + 1);
    }

    #[tokio::test]
    async fn what_is_not_the_id_of_a_run_names_no_file() {
        let data_dir = tempfile::tempdir().expect("a directory");
        assert!(RunLogWriter::new(data_dir.path(), "../state").is_none());
        fs::write(data_dir.path().join("x.ndjson"), "{}\n").expect("a file");
        assert_eq!(read(data_dir.path(), "../x", 0, 10).await.expect("nothing").lines, []);
    }

    #[tokio::test]
    async fn a_log_goes_with_its_run_and_not_while_that_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        let [known, owned, gone] = [new_run_id(), new_run_id(), new_run_id()];
        for run_id in [&known, &owned, &gone] {
            RunLogWriter::new(directory.path(), run_id).expect("the id of a run").write(line("begun"));
        }
        let status = "ok".to_owned();
        let row = RunRow {
            run_id: known.clone(),
            pipeline: "p".to_owned(),
            status,
            started_at: Timestamp(0),
            finished_at: Some(Timestamp(0)),
            report: Value::Null,
        };
        state.insert_run(&row).await.expect("a run");
        let _owner = state.own_run(&owned).await.expect("a lock");
        assert_eq!(prune(&state, Timestamp(0)).await.expect("no error"), 0);
        assert_eq!(prune(&state, Timestamp(i64::MAX)).await.expect("no error"), 1);
        let has_log =
            async |run_id: &str| !read(directory.path(), run_id, 0, 1).await.expect("an answer").lines.is_empty();
        assert_eq!((has_log(&known).await, has_log(&owned).await, has_log(&gone).await), (true, true, false));
    }
}
