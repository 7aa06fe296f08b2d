//! [`PipelineOutlook`]: what the data directory knows about pipelines, and explanations by
//! it, for `sgcache pipelines explain` and the ops listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::Failure;
use super::scheduler::stored_plan;
use crate::pipeline::{Explanation, Facts, Outlook, Pauses, Pipeline, PlanState, Typical};
use crate::report::{RunReport, history};
use crate::state::{RunFilter, State};

/// Rows of the history of one pipeline that an explanation looks at.
const HISTORY: usize = 200;

/// What the data directory knows about pipelines.
pub struct PipelineOutlook {
    pub(super) plan: PlanState,
    pub(super) pauses: Pauses,
    pub(super) histories: BTreeMap<String, Vec<RunReport>>,
    pub(super) durations: BTreeMap<String, TimeDelta>,
    pub(super) running: BTreeMap<String, DateTime<Utc>>,
    pub(super) timezone: Tz,
    pub(super) now: DateTime<Utc>,
}

impl PipelineOutlook {
    /// Returns what is known before the first start: nothing.
    pub fn unknown(timezone: Tz, now: DateTime<Utc>) -> Self {
        Self {
            plan: PlanState::default(),
            pauses: Pauses::default(),
            histories: BTreeMap::new(),
            durations: BTreeMap::new(),
            running: BTreeMap::new(),
            timezone,
            now,
        }
    }

    /// Reads what is known of these pipelines; `timezone` is that of those without a schedule.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn read(
        state: &State,
        timezone: Tz,
        pipelines: &[Arc<Pipeline>],
        now: DateTime<Utc>,
    ) -> Result<Self, Failure> {
        let mut known = Self::unknown(timezone, now);
        history::close_abandoned(state).await?;
        known.plan = stored_plan(state).await?;
        known.pauses = Pauses::load(state).await?;
        for pipeline in pipelines {
            let filter =
                RunFilter { pipeline: Some(pipeline.name.clone()), skipped_occurrences: true, ..RunFilter::default() };
            known.add(&pipeline.name, history::find(state, HISTORY, filter).await?);
        }
        Ok(known)
    }

    pub(super) fn add(&mut self, name: &str, history: Vec<RunReport>) {
        let takes = Typical::of(&history).map(|typical| typical.duration());
        self.durations.extend(takes.map(|takes| (name.to_owned(), takes)));
        if let Some(run) = history.iter().find(|report| report.is_running()) {
            let end = run.started_at + takes.unwrap_or_default();
            self.running.insert(name.to_owned(), end.max(self.now + TimeDelta::seconds(1)));
        }
        self.histories.insert(name.to_owned(), history);
    }

    /// Explains one of the pipelines, with a forecast of its next `starts` starts.
    pub fn explain(&self, pipeline: &Pipeline, pipelines: &[Arc<Pipeline>], starts: usize) -> Explanation {
        let outlook = Outlook {
            pipelines,
            plan: &self.plan,
            pauses: &self.pauses,
            durations: &self.durations,
            running: &self.running,
        };
        let history = self.histories.get(&pipeline.name).map(Vec::as_slice).unwrap_or_default();
        Explanation::of(pipeline, &Facts { outlook, history, timezone: self.timezone, now: self.now, starts })
    }
}
