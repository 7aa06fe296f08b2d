//! Run reports and where they go.
//!
//! A [`RunReport`] is the record of one execution of a pipeline or of a single
//! job. Whoever ran it hands the finished report over; nothing here knows how
//! a job works or when it runs.

pub mod prometheus;
pub mod result;
pub mod run;

pub use result::{
    Action, CheckKind, MISMATCH_LIMIT, Mismatch, MismatchClass, MismatchKind, StepResult, TypeResult, Verdict,
};
pub use run::{RunReport, RunStart, Status, StepError, StepReport, Trigger, new_run_id};
