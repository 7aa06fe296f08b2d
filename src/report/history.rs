//! The history of runs in the state: what was kept, and what became of runs whose
//! process died.
//!
//! A run is `running` as long as the process that runs it holds the lock of the
//! run ([`State::own_run`]). The next reader of the history closes the runs that no
//! process owns any more: they are `interrupted`.

use chrono::Utc;

use super::RunReport;
use crate::state::{RunRow, State, StateError};
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
        let Some(mut report) = report_of(row) else { continue };
        report.finished_at = Some(Utc::now());
        report.reason = Some(format!("its process ended before the run did ({})", report.instance));
        // Its owner may have finished it since it was read here: then that counts.
        closed += usize::from(state.close_run(&row_of(&report)).await?);
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

/// A report of another version of this program may not be readable: it is left out.
fn report_of(row: RunRow) -> Option<RunReport> {
    serde_json::from_value(row.report).ok()
}

fn row_of(report: &RunReport) -> RunRow {
    RunRow {
        run_id: report.run_id.clone(),
        pipeline: report.pipeline.clone(),
        status: report.finished_at.map_or_else(|| "running".to_owned(), |_| report.status.to_string()),
        started_at: report.started_at.into(),
        finished_at: report.finished_at.map(Into::into),
        report: to_json(report),
    }
}
