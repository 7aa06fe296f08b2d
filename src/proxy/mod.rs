//! The read proxy: a site as far as any program can tell, answered from the
//! cache where that is provably what the site would say.
//!
//! - `decide`: one pure function, request and catalogue in, serve or pass out;
//!   `question` reads the request strictly, `proven` and `settings` say which
//!   conditions may be answered, `reason` why not, `explain` says it in words.
//! - `catalogue`: what decisions depend on besides the request.
//!
//! The proxy never writes to the store. Pipelines and schedules are not known
//! here.

pub mod catalogue;
pub mod decide;
pub mod explain;
pub mod proven;
mod question;
pub mod reason;
pub mod settings;
pub mod summary;

pub use catalogue::{Catalogue, Held};
pub use decide::{Asked, Decision, ReadPlan, Scope, Serve, SummaryPlan, decide};
pub use question::Needs;
pub use reason::{Advice, Pass, Reason};
pub use settings::{CallerName, CallerRule, Limits, Mode, OnMarked, Reading, Settings, Tls};

#[cfg(test)]
mod tests;
