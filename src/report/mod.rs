//! Run reports and where they go.
//!
//! A [`RunReport`] is the record of one execution of a pipeline or of a single
//! job. The runner hands the finished report to its [`Sink`]s; nothing here
//! knows how a job works or when it runs.
//!
//! Reports reach Elasticsearch through the [`Outbox`], a table of the state
//! file: [`documents()`] makes them, [`Delivery`] sends them whenever the server
//! is there.

mod difference;
pub mod documents;
pub mod elasticsearch;
pub mod history;
pub mod ledger;
mod mail;
mod minute;
pub mod notify;
mod outbox;
pub mod prometheus;
pub mod result;
mod retention;
pub mod run;
pub mod run_log;
mod run_log_writer;
mod sink;
mod templates;

pub use difference::ShadowDifference;
pub use documents::{Document, Stream, Wording, documents, is_index_name};
pub use elasticsearch::{Delivery, DeliveryError, Layout};
pub use mail::Mail;
pub use minute::{
    Heartbeat, ImportReport, LagSummary, SyncMinute, heartbeat_document, import_document, proxy_document, sync_document,
};
pub use notify::{Notification, Notifier, NotifierKind, Notifiers, Webhook};
pub use outbox::{Outbox, OutboxError};
pub use result::{
    Action, CheckKind, MISMATCH_LIMIT, Mismatch, MismatchClass, MismatchKind, StepResult, TypeResult, Verdict,
};
pub use run::{HookReport, RunReport, RunStart, Status, StepError, StepReport, Trigger, new_run_id};
pub use run_log::{LogLine, LogPage};
pub use run_log_writer::{MAX_RUN_LOG_BYTES, RunLogWriter};
pub use sink::Sink;
