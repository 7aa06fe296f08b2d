//! The history of runs in the state: what was kept, and what became of runs whose
//! process died.
//!
//! A run is `running` as long as the process that runs it holds the lock of the
//! run ([`State::own_run`]). The next reader of the history closes the runs that no
//! process owns any more: they are `interrupted`.

use chrono::Utc;

use super::{RunReport, Status};
use crate::state::{RunFilter, RunRow, SKIPPED_OCCURRENCE, State, StateError, Unreadable};
use crate::yaml::to_json;

/// How far back the last finished run of a pipeline is looked for.
const RECENT: usize = 50;

/// Writes a report into the history, in place of an older one of the same run.
///
/// # Errors
///
/// When the state cannot be written.
pub async fn remember(state: &State, report: &RunReport) -> Result<(), StateError> {
    state.insert_run(&row_of(report)).await
}

/// Ends the runs whose process has died, as interrupted, and returns their number.
///
/// # Errors
///
/// When the state cannot be read or written.
pub async fn close_abandoned(state: &State) -> Result<usize, StateError> {
    let mut closed = 0;
    for row in state.unfinished_runs().await? {
        if state.is_run_owned(&row.run_id).await? {
            continue;
        }
        // Its owner may have finished it since it was read here: then that counts.
        closed += usize::from(state.close_run(&interrupted(row)).await?);
    }
    Ok(closed)
}

/// Returns the newest runs, those of one pipeline or all, newest first.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn runs(state: &State, limit: usize, pipeline: Option<&str>) -> Result<Vec<RunReport>, StateError> {
    Ok(state.runs(limit, pipeline).await?.into_iter().filter_map(report_of).collect())
}

/// Returns the newest rows that fit a filter, newest first.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn find(state: &State, limit: usize, filter: RunFilter) -> Result<Vec<RunReport>, StateError> {
    Ok(state.find_runs(limit, filter).await?.into_iter().filter_map(report_of).collect())
}

/// Returns the last run of a pipeline that has ended.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn last_finished(state: &State, pipeline: &str) -> Result<Option<RunReport>, StateError> {
    Ok(runs(state, RECENT, Some(pipeline)).await?.into_iter().find(|report| !report.is_running()))
}

/// Returns one run.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn run(state: &State, run_id: &str) -> Result<Option<RunReport>, StateError> {
    Ok(state.run(run_id).await?.and_then(report_of))
}

/// Ends a run whose process has died. One whose report cannot be read ends, too: it
/// would look like a run that goes on.
fn interrupted(row: RunRow) -> RunRow {
    let now = Utc::now();
    let Some(mut report) = report_of(row.clone()) else {
        return RunRow { status: Status::Interrupted.to_string(), finished_at: Some(now.into()), ..row };
    };
    report.finished_at = Some(now);
    report.reason = Some(format!("its process ended before the run did ({})", report.instance));
    row_of(&report)
}

/// Returns the report of a run. One that cannot be read, perhaps of another version of
/// this program, is left out, and counted.
fn report_of(row: RunRow) -> Option<RunReport> {
    let report = serde_json::from_value(row.report);
    report.inspect_err(|error| Unreadable::Run.note(format_args!("run {}", row.run_id), error)).ok()
}

fn row_of(report: &RunReport) -> RunRow {
    RunRow {
        run_id: report.run_id.clone(),
        pipeline: report.pipeline.clone(),
        status: match report.finished_at {
            None => "running".to_owned(),
            Some(_) if report.is_skipped_occurrence() => SKIPPED_OCCURRENCE.to_owned(),
            Some(_) => report.status.to_string(),
        },
        started_at: report.started_at.into(),
        finished_at: report.finished_at.map(Into::into),
        report: to_json(report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Timestamp;

    #[tokio::test]
    async fn a_run_that_is_unreadable_ends_and_holds_up_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        for (run_id, report) in [("a", "{"), ("b", "[]")] {
            let (pipeline, status, started_at) = ("p".to_owned(), "running".to_owned(), Timestamp(5));
            let report_value = serde_json::Value::Null;
            let row =
                RunRow { run_id: run_id.into(), pipeline, status, started_at, finished_at: None, report: report_value };
            state.insert_run(&row).await.expect("a run");
            let file = rusqlite::Connection::open(directory.path().join("state.sqlite")).expect("the file");
            file.execute("UPDATE runs SET report = ?2 WHERE run_id = ?1", [run_id, report]).expect("the damage");
        }
        let before = Unreadable::Run.count();
        assert_eq!(close_abandoned(&state).await.expect("no error"), 2);
        assert!(state.unfinished_runs().await.expect("no error").is_empty());
        assert!(runs(&state, 10, None).await.expect("no error").is_empty());
        assert!(Unreadable::Run.count() >= before + 4);
        let ended = state.run("b").await.expect("no error").expect("a run");
        assert_eq!((ended.status.as_str(), ended.finished_at.is_some()), ("interrupted", true));
    }
}
