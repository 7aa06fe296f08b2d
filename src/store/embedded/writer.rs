//! The thread that owns the connection that writes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::super::{Result, StoreError, StoreErrorKind};
use super::error::wrap;
use super::layouts::{Layouts, Shared};

/// How long nothing may be written before a checkpoint is made.
const IDLE: Duration = Duration::from_millis(300);

type Job = Box<dyn FnOnce(&mut Connection, &Shared) + Send>;

/// A handle on the thread; dropping it ends the thread after its last job.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, shared: Arc<Shared>) -> Result<Self> {
        let (jobs, inbox) = channel();
        let builder = std::thread::Builder::new().name("store-writer".into());
        let thread = builder.spawn(move || serve(connection, &shared, &inbox)).map_err(|error| {
            StoreError::new(StoreErrorKind::Fault, "cannot start the thread that writes the store").because(error)
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs a closure inside of one transaction, which is committed when the
    /// closure returns `Ok`.
    ///
    /// The work is done even when the caller stops waiting. Callers wait for
    /// their own jobs, so there are never more jobs than callers.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &Layouts) -> Result<T> + Send + 'static,
    {
        let closed = || StoreError::new(StoreErrorKind::Unavailable, "the thread that writes the store has ended");
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection, shared| {
            // Nobody waits any more when this fails.
            let _ = reply.send(transact(connection, shared, work));
        });
        self.jobs.as_ref().ok_or_else(closed)?.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| StoreError::new(StoreErrorKind::Fault, "a write of the store broke off"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Panics of jobs end in the loop, and nobody waits any more.
            let _ = thread.join();
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    shared: &Shared,
    work: impl FnOnce(&Transaction<'_>, &Layouts) -> Result<T>,
) -> Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap("write to"))?;
    let layouts = shared.current(&transaction).map_err(wrap("write to"))?;
    let answer = work(&transaction, &layouts)?;
    transaction.commit().map_err(wrap("write to"))?;
    Ok(answer)
}

fn serve(mut connection: Connection, shared: &Shared, inbox: &Receiver<Job>) {
    let mut written = false;
    loop {
        // Without anything to tidy up there is no reason to wake.
        let next =
            if written { inbox.recv_timeout(IDLE) } else { inbox.recv().map_err(|_| RecvTimeoutError::Disconnected) };
        match next {
            Ok(job) => {
                // Whoever waits for the job is told; its transaction is rolled back,
                // so the connection is fit for the next one.
                if catch_unwind(AssertUnwindSafe(|| job(&mut connection, shared))).is_err() {
                    tracing::error!("a write of the store broke off");
                }
                written = true;
            }
            Err(RecvTimeoutError::Timeout) => {
                tidy(&connection, "PASSIVE");
                written = false;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    tidy(&connection, "TRUNCATE");
}

/// Moves the log into the file and renews the statistics of the query planner.
fn tidy(connection: &Connection, mode: &str) {
    let outcome = connection
        .execute_batch("PRAGMA optimize")
        .and_then(|()| connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())));
    if let Err(error) = outcome {
        // The log stays as it is and the next checkpoint gets it; a disk that is
        // full or broken fails the next write as well, and that has a caller.
        tracing::warn!(%error, "could not tidy up the store");
    }
}
