//! What others keep here: runs, the plan of the scheduler, cursors. Nothing in it
//! means anything to sync.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Result, State, StateError, Unreadable};
use crate::entity::Timestamp;

/// One run in the history.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Its id.
    pub run_id: String,
    /// The pipeline, or the job when it was started alone.
    pub pipeline: String,
    /// How it ended, `running`, or [`SKIPPED_OCCURRENCE`].
    pub status: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The whole report; `null` when it cannot be read.
    pub report: Value,
}

/// The [`RunRow::status`] of an occurrence of a schedule that did not run: it is kept
/// for its reason and is not a run.
pub const SKIPPED_OCCURRENCE: &str = "skipped_occurrence";

/// Which rows of the history are asked for; all parts have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this pipeline or job.
    pub pipeline: Option<String>,
    /// With one of these [`RunRow::status`]; empty is any.
    pub statuses: Vec<String>,
    /// Started at this moment or later.
    pub since: Option<Timestamp>,
    /// With the occurrences that did not run.
    pub skipped_occurrences: bool,
}

impl State {
    /// Adds a run or replaces what is known of it.
    pub async fn insert_run(&self, run: &RunRow) -> Result<()> {
        let run = run.clone();
        self.write(move |transaction| {
            let sql = "INSERT OR REPLACE INTO runs (run_id, pipeline, status, started_at, finished_at, report)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (started_at, finished_at) = (run.started_at.0, run.finished_at.map(|moment| moment.0));
            let report = run.report.to_string();
            transaction.execute(sql, params![run.run_id, run.pipeline, run.status, started_at, finished_at, report])?;
            Ok(())
        })
        .await
    }

    /// Ends a run that has not ended; false when it has, or is not known.
    pub async fn close_run(&self, run: &RunRow) -> Result<bool> {
        let run = run.clone();
        self.write(move |transaction| {
            let sql = "UPDATE runs SET status = ?2, finished_at = ?3, report = ?4
                WHERE run_id = ?1 AND finished_at IS NULL";
            let finished_at = run.finished_at.map(|moment| moment.0);
            let changed =
                transaction.execute(sql, params![run.run_id, run.status, finished_at, run.report.to_string()])?;
            Ok(changed > 0)
        })
        .await
    }

    /// Returns every run that has not ended.
    pub async fn unfinished_runs(&self) -> Result<Vec<RunRow>> {
        self.read(|connection| {
            let sql = "SELECT run_id, pipeline, status, started_at, finished_at, report FROM runs
                WHERE finished_at IS NULL ORDER BY started_at";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], run_from_row)?;
            Ok(rows.map(|row| row.map(parse_run)).collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the newest runs, of one pipeline or of all.
    pub async fn runs(&self, limit: usize, pipeline: Option<&str>) -> Result<Vec<RunRow>> {
        self.find_runs(limit, RunFilter { pipeline: pipeline.map(str::to_owned), ..RunFilter::default() }).await
    }

    /// Returns the newest rows of the history that fit a filter.
    pub async fn find_runs(&self, limit: usize, filter: RunFilter) -> Result<Vec<RunRow>> {
        self.read(move |connection| {
            // Words of a status hold no comma.
            let sql = "SELECT run_id, pipeline, status, started_at, finished_at, report FROM runs
                WHERE (?2 IS NULL OR pipeline = ?2) AND (?3 = ',,' OR instr(?3, ',' || status || ',') > 0)
                AND (?4 IS NULL OR started_at >= ?4) AND (?5 OR status <> ?6)
                ORDER BY started_at DESC, run_id DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let statuses = format!(",{},", filter.statuses.join(","));
            let since = filter.since.map(|moment| moment.0);
            let (limit, skipped) = (limit as i64, filter.skipped_occurrences);
            let values = params![limit, filter.pipeline, statuses, since, skipped, SKIPPED_OCCURRENCE];
            let rows = statement.query_map(values, run_from_row)?;
            Ok(rows.map(|row| row.map(parse_run)).collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the ids of the runs that ended last, newest first.
    pub async fn finished_run_ids(&self, limit: usize) -> Result<Vec<String>> {
        self.read(move |connection| {
            let sql = "SELECT run_id FROM runs WHERE finished_at IS NOT NULL AND status <> ?2
                ORDER BY finished_at DESC, run_id DESC LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![limit as i64, SKIPPED_OCCURRENCE], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the ids of all runs.
    pub async fn run_ids(&self) -> Result<BTreeSet<String>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT run_id FROM runs")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns one run.
    pub async fn run(&self, run_id: &str) -> Result<Option<RunRow>> {
        let run_id = run_id.to_owned();
        self.read(move |connection| {
            let sql = "SELECT run_id, pipeline, status, started_at, finished_at, report FROM runs WHERE run_id = ?1";
            Ok(connection.query_row(sql, [run_id], run_from_row).optional()?.map(parse_run))
        })
        .await
    }

    /// Deletes runs that have ended and started before a moment, except the newest `keep` of each
    /// pipeline, and returns how many. Occurrences that did not run are counted apart, so
    /// that a long pause displaces no run.
    /// Runs that ended badly go only when they started before `failed_before`.
    pub async fn prune_runs(&self, before: Timestamp, failed_before: Timestamp, keep: usize) -> Result<u64> {
        self.write(move |transaction| {
            let sql = "DELETE FROM runs WHERE finished_at IS NOT NULL AND started_at <
                iif(status IN ('drift', 'error', 'timeout', 'interrupted'), ?3, ?1) AND run_id NOT IN (
                SELECT run_id FROM (SELECT run_id, row_number() OVER
                    (PARTITION BY pipeline, status = ?4 ORDER BY started_at DESC, run_id DESC) AS place FROM runs)
                WHERE place <= ?2)";
            let values = params![before.0, keep as i64, failed_before.0, SKIPPED_OCCURRENCE];
            Ok(transaction.execute(sql, values)? as u64)
        })
        .await
    }

    /// Returns a value kept under a name; `None` when there is none.
    pub async fn kept<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let (place, name) = (name, name.to_owned());
        let text: Option<String> = self
            .read(move |connection| {
                let sql = "SELECT value FROM kept WHERE name = ?1";
                Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?)
            })
            .await?;
        let malformed = |error| StateError::malformed("value", format_args!("`{place}`: {error}"));
        text.map(|text| serde_json::from_str(&text).map_err(malformed)).transpose()
    }

    /// Returns where work that goes round stands; `None` before the first time. A place
    /// that cannot be read is counted, and the work begins a new round.
    pub async fn cursor<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.kept(name).await {
            Err(StateError::Malformed { message, .. }) => {
                Unreadable::Cursor.note(name, message);
                Ok(None)
            }
            other => other,
        }
    }

    /// Keeps a value under a name.
    pub async fn keep<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let name = name.to_owned();
        let text = serde_json::to_string(value).map_err(|error| StateError::malformed("value", error))?;
        self.write(move |transaction| {
            transaction.execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?1, ?2)", [&name, &text])?;
            Ok(())
        })
        .await
    }

    /// Returns the values kept under the names from `from` to `to`; one that cannot be read
    /// is counted and left out.
    pub async fn kept_between<T: DeserializeOwned>(&self, from: &str, to: &str) -> Result<BTreeMap<String, T>> {
        let bounds = [from.to_owned(), to.to_owned()];
        let texts: Vec<(String, String)> = self
            .read(move |connection| {
                let sql = "SELECT name, value FROM kept WHERE name BETWEEN ?1 AND ?2";
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map(bounds, |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        let parse = |(name, text): (String, String)| parse_kept(&name, &text).map(|value| (name, value));
        Ok(texts.into_iter().filter_map(parse).collect())
    }

    /// Changes kept values in one transaction.
    pub async fn update_kept(&self, change: impl FnOnce(&KeptValues<'_>) -> Result<()> + Send + 'static) -> Result<()> {
        self.write(move |transaction| change(&KeptValues(transaction))).await
    }

    /// Returns the plan of the scheduler.
    pub async fn plan(&self) -> Result<Option<Value>> {
        self.kept("plan").await
    }

    /// Keeps the plan of the scheduler.
    pub async fn set_plan(&self, plan: &Value) -> Result<()> {
        self.keep("plan", plan).await
    }

    /// Returns where a rotation stands.
    pub async fn rotation(&self, name: &str) -> Result<Option<Value>> {
        self.cursor(&format!("rotation/{name}")).await
    }

    /// Keeps where a rotation stands.
    pub async fn set_rotation(&self, name: &str, cursor: &Value) -> Result<()> {
        self.keep(&format!("rotation/{name}"), cursor).await
    }
}

/// Where values that cannot be read are kept, so that what was written over them is not lost.
const SET_APART: &str = "unreadable/";
/// So many of them at most: the last ones by name.
const MAX_SET_APART: usize = 100;

/// The kept values, within a transaction.
pub struct KeptValues<'t>(&'t Transaction<'t>);

impl KeptValues<'_> {
    /// Changes the value under a name; one that is missing begins with its default. So
    /// does one that cannot be read, which is counted and set apart as it is.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub fn update<T: DeserializeOwned + Serialize + Default>(
        &self,
        name: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<()> {
        let sql = "SELECT value FROM kept WHERE name = ?1";
        let text: Option<String> = self.0.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
        let mut value = match text {
            None => T::default(),
            Some(text) => match parse_kept(name, &text) {
                Some(value) => value,
                None => {
                    self.set(&format!("{SET_APART}{name}"), &text)?;
                    self.keep_newest(SET_APART, MAX_SET_APART)?;
                    T::default()
                }
            },
        };
        change(&mut value);
        let text = serde_json::to_string(&value).map_err(|error| StateError::malformed("value", error))?;
        self.set(name, &text)
    }

    fn set(&self, name: &str, text: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO kept (name, value) VALUES (?1, ?2)";
        self.0.prepare_cached(sql)?.execute([name, text])?;
        Ok(())
    }

    /// Removes all but the last `most` names that begin with `prefix`.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub fn keep_newest(&self, prefix: &str, most: usize) -> Result<()> {
        // No name of ours has a character above ASCII.
        let end = format!("{prefix}\u{7f}");
        let sql = "DELETE FROM kept WHERE name IN (SELECT name FROM kept WHERE name BETWEEN ?1 AND ?2
            ORDER BY name DESC LIMIT -1 OFFSET ?3)";
        self.0.prepare_cached(sql)?.execute(params![prefix, end, most as i64])?;
        Ok(())
    }
}

/// Reads a kept value; one that cannot be read is counted.
fn parse_kept<T: DeserializeOwned>(name: &str, text: &str) -> Option<T> {
    let parsed = serde_json::from_str(text);
    parsed.map_err(|error| Unreadable::Cursor.note(name, error)).ok()
}

fn run_from_row(row: &Row<'_>) -> rusqlite::Result<(RunRow, String)> {
    let run = RunRow {
        run_id: row.get(0)?,
        pipeline: row.get(1)?,
        status: row.get(2)?,
        started_at: Timestamp(row.get(3)?),
        finished_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        report: Value::Null,
    };
    Ok((run, row.get(5)?))
}

/// Adds the report; one that is not JSON is `null`, and holds up no other run.
fn parse_run((mut run, report): (RunRow, String)) -> RunRow {
    run.report = serde_json::from_str(&report).unwrap_or_else(|error| {
        Unreadable::Run.note(format_args!("run {}", run.run_id), error);
        Value::Null
    });
    run
}
