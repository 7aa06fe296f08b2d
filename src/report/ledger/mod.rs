//! The ledger: what the read proxy gives, hour by hour, across restarts.
//!
//! - `bucket`: what was counted within one hour or one day; `latency`: its histograms.
//! - `examples`: requests that a change of the configuration could let the cache answer.
//! - `recorder`: counts, and writes the counts to the state.
//! - `summary`: adds up a window of time.
//!
//! The proxy says what it did; how it decides is not known here.

mod bucket;
mod examples;
mod latency;
mod recorder;
mod summary;

pub use bucket::{Answer, Bucket, Cause, Change, MethodCounts, OTHER, Read};
pub use examples::{Example, Examples};
pub use latency::Latencies;
pub use recorder::{FLUSH_INTERVAL, Recorder};
pub use summary::{
    CallerSummary, HourCounts, Ledger, MethodSummary, ReasonSummary, SlowPass, Window, WriteSummary, examples, ledger,
};

#[cfg(test)]
mod tests;
