//! [`RunEvent`]: what happens during a run, for a progress line or
//! `-o ndjson`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::report::{Mismatch, RunReport, StepReport, StepResult, Trigger};

/// One thing that happens during a run. As JSON it has its name under `event`.
#[derive(Debug, Serialize)]
#[serde(tag = "event")]
pub enum RunEvent<'a> {
    /// The run has begun.
    #[serde(rename = "run.started")]
    RunStarted {
        /// Its id.
        run_id: &'a str,
        /// Its pipeline, or the job.
        pipeline: &'a str,
        /// What started it.
        trigger: Trigger,
    },
    /// A step has begun its work.
    #[serde(rename = "step.started")]
    StepStarted {
        /// The run.
        run_id: &'a str,
        /// Its id.
        step: &'a str,
        /// Its job.
        job: &'a str,
        /// Its arguments, rendered; `null` for those of a command line.
        with: &'a Value,
    },
    /// A step has done a part of its work.
    #[serde(rename = "progress")]
    Progress(Progress<'a>),
    /// A step has found a mismatch.
    #[serde(rename = "drift")]
    Drift {
        /// The run.
        run_id: &'a str,
        /// The step.
        step: &'a str,
        /// What differs.
        #[serde(flatten)]
        mismatch: &'a Mismatch,
    },
    /// A step has ended, or was left out. Its mismatches were said before.
    #[serde(rename = "step.finished")]
    StepFinished {
        /// The run.
        run_id: &'a str,
        /// Its report, without mismatches.
        #[serde(flatten)]
        step: &'a StepReport,
    },
    /// The run has ended.
    #[serde(rename = "run.finished")]
    RunFinished {
        /// Its report.
        #[serde(flatten)]
        report: &'a RunReport,
    },
}

/// How far a step is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Progress<'a> {
    /// The run.
    pub run_id: &'a str,
    /// The step.
    pub step: &'a str,
    /// Its job.
    pub job: &'a str,
    /// Entity types that are done.
    pub types_done: usize,
    /// Entity types in all; 0 when it is not known.
    pub types: usize,
    /// Entities compared by now.
    pub checked: u64,
    /// Rows written by now.
    pub written: u64,
}

impl<'a> Progress<'a> {
    /// Returns how far a step is by what it has found.
    pub fn of((run_id, step, job): (&'a str, &'a str, &'a str), so_far: &StepResult, types: usize) -> Progress<'a> {
        let types_done = so_far.by_type.len();
        let written = so_far.by_type.values().map(|ty| ty.written).sum();
        Progress { run_id, step, job, types_done, types, checked: so_far.checked, written }
    }
}

/// Receives the events of runs, on the thread where they happen: it must not wait.
pub type RunObserver = Arc<dyn Fn(&RunEvent<'_>) + Send + Sync>;
