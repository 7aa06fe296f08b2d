//! What signals do to a command that runs jobs: the first one ends them in order,
//! with what they have found so far, the second one ends the process at once.
//!
//! SIGINT is the person at the keyboard, who cancels. SIGTERM and SIGHUP come from
//! the system, which is shutting down or has closed the terminal: the work is
//! interrupted and will go on another time. After SIGHUP nothing can be printed any
//! more. Where SIGHUP was ignored when the process started (`nohup`), it stays ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;

/// Ends jobs on signals for as long as the process lives.
#[derive(Clone)]
pub struct StopSignals {
    /// Cancelled by SIGINT.
    pub cancel: CancellationToken,
    /// Cancelled by SIGTERM and SIGHUP.
    shutdown: CancellationToken,
    hung_up: Arc<AtomicBool>,
}

impl StopSignals {
    /// Takes over SIGINT, SIGTERM and SIGHUP; the last two cancel `shutdown`.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn listen(shutdown: CancellationToken) -> Result<StopSignals, Failure> {
        let hangup = if is_ignored(SignalKind::hangup()) { None } else { Some(take(SignalKind::hangup())?) };
        let handlers = (take(SignalKind::interrupt())?, take(SignalKind::terminate())?, hangup);
        let signals = StopSignals { cancel: CancellationToken::new(), shutdown, hung_up: Arc::default() };
        tokio::spawn(signals.clone().watch(handlers));
        Ok(signals)
    }

    /// Tells whether the run is to end.
    pub fn stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.shutdown.is_cancelled()
    }

    /// Tells whether the terminal is gone.
    pub fn hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Acquire)
    }

    async fn watch(self, (mut interrupt, mut terminate, mut hangup): (Signal, Signal, Option<Signal>)) {
        let mut stopping = false;
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
                () = next(&mut hangup) => {
                    self.hung_up.store(true, Ordering::Release);
                    143
                }
            };
            if stopping {
                // Nothing is lost: the next process finds the run without an owner.
                std::process::exit(code);
            }
            stopping = true;
            if !self.hung_up() {
                eprintln!("stopping; the same again ends it at once");
            }
            // One of the two: which it was decides how the run ends.
            if code == 130 { self.cancel.cancel() } else { self.shutdown.cancel() }
        }
    }
}

fn take(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot take over signals: {error}")))
}

/// Linux shows the ignored signals of a process as bits, the lowest for signal 1;
/// elsewhere none counts as ignored.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(kind.as_raw_value() - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or_default() & 1 == 1)
}

/// Waits for a signal, for ever when it is ignored.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
