//! The thread that owns the connection that writes.
//!
//! Rows that several callers want to put at the same time go into one
//! transaction, each in a savepoint of its own: they share the wait for the disk
//! (4 ms and more) and the pages of indexes that all of them touch. Nobody is
//! told of success before the transaction is on disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::super::{Result, StoreError, StoreErrorKind};
use super::error::wrap;
use super::layouts::{Layouts, Shared};

/// How long nothing may be written before a checkpoint is made.
const IDLE: Duration = Duration::from_millis(300);

/// How long a transaction takes in further jobs.
const GROUP: Duration = Duration::from_millis(100);

type Alone = Box<dyn FnOnce(&mut Connection, &Shared) + Send>;

enum Job {
    /// Makes a transaction of its own.
    Alone(Alone),
    /// May share one.
    Part(Box<dyn Part>),
}

/// A job that may share a transaction with others.
trait Part: Send {
    /// Does the work inside of the transaction.
    ///
    /// # Errors
    ///
    /// A copy of the error, which the caller is told in any case.
    fn work(&mut self, transaction: &Transaction<'_>, shared: &Shared) -> Result<()>;

    /// Tells the caller how it ended.
    fn tell(self: Box<Self>, committed: Result<()>);
}

struct PartOf<T, F> {
    work: Option<F>,
    made: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Part for PartOf<T, F>
where
    T: Send,
    F: FnOnce(&Transaction<'_>, &Layouts) -> Result<T> + Send,
{
    fn work(&mut self, transaction: &Transaction<'_>, shared: &Shared) -> Result<()> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let made =
            shared.current(transaction).map_err(wrap("write to")).and_then(|layouts| work(transaction, &layouts));
        let outcome = made.as_ref().map(|_| ()).map_err(copy);
        self.made = Some(made);
        outcome
    }

    fn tell(self: Box<Self>, committed: Result<()>) {
        let answer = match (self.made, committed) {
            (Some(made), committed) => made.and_then(|made| committed.map(|()| made)),
            (None, Err(error)) => Err(error),
            // After a panic the caller sees that the reply is gone.
            (None, Ok(())) => return,
        };
        // Nobody waits any more when this fails.
        let _ = self.reply.send(answer);
    }
}

fn copy(error: &StoreError) -> StoreError {
    StoreError::new(error.kind(), error.to_string())
}

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
        let (reply, answer) = oneshot::channel();
        let job = Job::Alone(Box::new(move |connection, shared| {
            // Nobody waits any more when this fails.
            let _ = reply.send(transact(connection, shared, work));
        }));
        self.wait(job, answer).await
    }

    /// Runs a closure inside of a transaction that it may share with others; what
    /// it wrote is undone when it returns an error, and only that.
    pub(super) async fn run_grouped<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &Layouts) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.wait(Job::Part(Box::new(PartOf { work: Some(work), made: None, reply })), answer).await
    }

    /// Closes the connection and goes on with the one that `open` makes; returns what
    /// `open` adds to it.
    pub(super) async fn replace<T, F>(&self, open: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<(Connection, T)> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job::Alone(Box::new(move |connection, shared| {
            let replaced = Connection::open_in_memory().map_err(wrap("open")).and_then(|empty| {
                drop(std::mem::replace(connection, empty));
                let (opened, made) = open()?;
                *connection = opened;
                Ok(made)
            });
            shared.forget();
            // Nobody waits any more when this fails.
            let _ = reply.send(replaced);
        }));
        self.wait(job, answer).await
    }

    async fn wait<T>(&self, job: Job, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let closed = || StoreError::new(StoreErrorKind::Unavailable, "the thread that writes the store has ended");
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

/// Runs a job, and those that may share its transaction; returns a job that was
/// met and may not.
fn share(connection: &mut Connection, shared: &Shared, first: Box<dyn Part>, inbox: &Receiver<Job>) -> Option<Job> {
    let begun = Instant::now();
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            first.tell(Err(wrap("write to")(error)));
            return None;
        }
    };
    let (mut parts, mut next, mut left) = (Vec::new(), Some(first), None);
    let mut lost = None;
    while let Some(mut part) = next.take() {
        let outcome = in_savepoint(&transaction, shared, &mut *part);
        parts.push(part);
        // A full disk makes SQLite give up everything since the beginning.
        if transaction.is_autocommit() {
            lost = outcome.err();
            break;
        }
        if begun.elapsed() < GROUP {
            match inbox.try_recv() {
                Ok(Job::Part(part)) => next = Some(part),
                Ok(alone) => left = Some(alone),
                Err(_) => {}
            }
        }
    }
    let committed = match lost {
        Some(error) => Err(error),
        None => transaction.commit().map_err(wrap("write to")),
    };
    if committed.is_err() {
        shared.forget();
    }
    for part in parts {
        part.tell(committed.as_ref().copied().map_err(copy));
    }
    left
}

/// Runs a part of a transaction; when it fails, what it wrote is undone.
fn in_savepoint(transaction: &Transaction<'_>, shared: &Shared, part: &mut dyn Part) -> Result<()> {
    transaction.execute_batch("SAVEPOINT part").map_err(wrap("write to"))?;
    let worked = catch_unwind(AssertUnwindSafe(|| part.work(transaction, shared)));
    let outcome = worked.unwrap_or_else(|_| {
        tracing::error!("a write of the store broke off");
        Err(StoreError::new(StoreErrorKind::Fault, "a write of the store broke off"))
    });
    if outcome.is_ok() {
        return transaction.execute_batch("RELEASE part").map_err(wrap("write to"));
    }
    // Layouts that were read inside of it may never come to be.
    shared.forget();
    if !transaction.is_autocommit() {
        transaction.execute_batch("ROLLBACK TO part; RELEASE part").map_err(wrap("write to"))?;
    }
    outcome
}

fn serve(mut connection: Connection, shared: &Shared, inbox: &Receiver<Job>) {
    let (mut written, mut left) = (false, None);
    loop {
        // Without anything to tidy up there is no reason to wake.
        let next = match left.take() {
            Some(job) => Ok(job),
            None if written => inbox.recv_timeout(IDLE),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Job::Part(part)) => {
                left = share(&mut connection, shared, part, inbox);
                written = true;
            }
            Ok(Job::Alone(job)) => {
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
