//! The thread that owns the connection that writes.
//!
//! Rows that several callers want to put at the same time go into one
//! transaction, each in a savepoint of its own: they share the wait for the disk
//! (4 ms and more) and the pages of indexes that all of them touch. Success is reported
//! only when the transaction is on disk.
//!
//! A panic of a job ends that job. A panic beside a job begins the loop of the thread
//! anew, over the same connection, whose open transaction is rolled back; after
//! [`MAX_PANICS`] of them in a row the thread ends, which the health of the store shows.

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
use crate::supervisor::{meet_on_thread, panic_text};

/// How long nothing may be written before a checkpoint is made.
const IDLE: Duration = Duration::from_millis(300);

/// How long a transaction takes in further jobs.
const GROUP: Duration = Duration::from_millis(100);

/// So many panics without a job done between, and the thread ends.
const MAX_PANICS: u32 = 5;

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
    /// A copy of the error, which the caller receives in any case.
    fn work(&mut self, transaction: &Transaction<'_>, shared: &Shared) -> Result<()>;

    /// Reports to the caller how it ended.
    fn report(self: Box<Self>, committed: Result<()>);
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

    fn report(self: Box<Self>, committed: Result<()>) {
        let answer = match (self.made, committed) {
            (Some(made), committed) => made.and_then(|made| committed.map(|()| made)),
            (None, Err(error)) => Err(error),
            // After a panic the caller sees that the reply is gone.
            (None, Ok(())) => return,
        };
        // The caller stopped waiting when this fails.
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
        let thread = builder.spawn(move || keep_serving(connection, &shared, &inbox)).map_err(|error| {
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
            // The caller stopped waiting when this fails.
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
            // The caller stopped waiting when this fails.
            let _ = reply.send(replaced);
        }));
        self.wait(job, answer).await
    }

    /// Tells whether the thread has ended: nothing can be written any more.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    async fn wait<T>(&self, job: Job, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let closed = || StoreError::new(StoreErrorKind::Unavailable, "the thread that writes the store has ended");
        self.jobs.as_ref().ok_or_else(closed)?.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| StoreError::new(StoreErrorKind::Fault, "a write of the store panicked"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it came, and no caller waits any more.
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
            first.report(Err(wrap("write to")(error)));
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
        part.report(committed.as_ref().copied().map_err(copy));
    }
    left
}

/// Runs a part of a transaction; when it fails, what it wrote is undone.
fn in_savepoint(transaction: &Transaction<'_>, shared: &Shared, part: &mut dyn Part) -> Result<()> {
    transaction.execute_batch("SAVEPOINT part").map_err(wrap("write to"))?;
    let worked = catch_unwind(AssertUnwindSafe(|| part.work(transaction, shared)));
    let outcome = worked.unwrap_or_else(|_| {
        tracing::error!("a write of the store panicked");
        Err(StoreError::new(StoreErrorKind::Fault, "a write of the store panicked"))
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

/// Serves until the handle is dropped; begins anew after a panic.
fn keep_serving(mut connection: Connection, shared: &Shared, inbox: &Receiver<Job>) {
    let mut panics = 0;
    while panics < MAX_PANICS {
        let mut done = 0_u64;
        let served = catch_unwind(AssertUnwindSafe(|| serve(&mut connection, shared, inbox, &mut done)));
        let Err(panic) = served else { return };
        panics = if done > 0 { 1 } else { panics + 1 };
        let reason = panic_text(&*panic);
        tracing::error!(reason, panics, "the thread that writes the store panicked: it begins anew");
        // What was read inside of the transaction that is rolled back may never come to be.
        shared.forget();
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the open transaction cannot be rolled back");
            break;
        }
    }
    tracing::error!("the thread that writes the store has ended");
}

/// Does jobs until the handle is dropped; `done` counts them.
fn serve(connection: &mut Connection, shared: &Shared, inbox: &Receiver<Job>, done: &mut u64) {
    let (mut written, mut left) = (false, None);
    loop {
        meet_on_thread("store_writer");
        // Without anything to tidy up there is no reason to wake.
        let next = match left.take() {
            Some(job) => Ok(job),
            None if written => inbox.recv_timeout(IDLE),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Job::Part(part)) => {
                left = share(connection, shared, part, inbox);
                (written, *done) = (true, *done + 1);
            }
            Ok(Job::Alone(job)) => {
                // The caller gets an error; the transaction of the job is rolled back, so
                // the connection is fit for the next one.
                if catch_unwind(AssertUnwindSafe(|| job(connection, shared))).is_err() {
                    tracing::error!("a write of the store panicked");
                }
                (written, *done) = (true, *done + 1);
            }
            Err(RecvTimeoutError::Timeout) => {
                tidy(connection, "PASSIVE");
                written = false;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    tidy(connection, "TRUNCATE");
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::EmbeddedSettings;
    use super::super::connection::open_writer;
    use super::*;

    /// A job that panics where nothing is expected to: when its caller gets the answer.
    #[derive(Clone, Default)]
    struct Faulty(Arc<AtomicU32>);

    impl Part for Faulty {
        fn work(&mut self, _: &Transaction<'_>, _: &Shared) -> Result<()> {
            Ok(())
        }

        fn report(self: Box<Self>, _: Result<()>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a fault of the thread");
        }
    }

    impl Faulty {
        /// Has the thread panic once; tells whether it still takes jobs.
        fn meet(&self, writer: &Writer) -> bool {
            let before = self.0.load(Ordering::SeqCst);
            let sent = writer.jobs.as_ref().expect("not dropped").send(Job::Part(Box::new(self.clone()))).is_ok();
            while sent && self.0.load(Ordering::SeqCst) == before && !writer.has_ended() {
                std::thread::yield_now();
            }
            sent
        }
    }

    fn writer(directory: &tempfile::TempDir) -> Writer {
        let settings = EmbeddedSettings::new(directory.path().join("store.sqlite"));
        let connection = open_writer(&settings).expect("a file");
        connection.execute_batch("CREATE TABLE done (number INTEGER)").expect("a table");
        Writer::start(connection, Arc::new(Shared::default())).expect("a thread")
    }

    async fn count(writer: &Writer) -> Result<i64> {
        let count = |transaction: &Transaction<'_>, _: &Layouts| {
            transaction.execute_batch("INSERT INTO done VALUES (1)").map_err(wrap("write to"))?;
            transaction.query_row("SELECT count(*) FROM done", [], |row| row.get(0)).map_err(wrap("read"))
        };
        writer.run_grouped(count).await
    }

    #[tokio::test]
    async fn a_panic_beside_a_job_begins_the_thread_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, faulty) = (writer(&directory), Faulty::default());
        for number in 1..=MAX_PANICS + 3 {
            assert!(faulty.meet(&writer), "the thread has ended");
            assert_eq!(count(&writer).await.expect("a write"), i64::from(number));
        }
        assert!(!writer.has_ended());
    }

    #[tokio::test]
    async fn a_thread_that_only_panics_ends_and_writes_are_errors() {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, faulty) = (writer(&directory), Faulty::default());
        while faulty.meet(&writer) {}
        assert_eq!(faulty.0.load(Ordering::SeqCst), MAX_PANICS);
        let error = count(&writer).await.expect_err("no thread");
        assert_eq!((error.kind(), error.to_string().contains("has ended")), (StoreErrorKind::Unavailable, true));
        while !writer.has_ended() {
            std::thread::yield_now();
        }
    }
}
