//! [`Heartbeat`]: an instant per second, from tokio-cron-scheduler.
//!
//! The crate is used for nothing else. By itself it overlaps runs, keeps the
//! UTC offset of the day on which a job was made, and loses repeated jobs after
//! a stall; a plain cron job of every second has none of these problems. When
//! no receiver takes a beat the next ones are dropped, so a stall is one late beat.

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A running source of instants.
pub struct Heartbeat {
    scheduler: JobScheduler,
    beats: mpsc::Receiver<DateTime<Utc>>,
}

impl Heartbeat {
    /// Starts it on the current runtime.
    ///
    /// # Errors
    ///
    /// When the scheduler does not start.
    pub async fn start() -> Result<Heartbeat, JobSchedulerError> {
        let (sender, beats) = mpsc::channel(1);
        let scheduler = JobScheduler::new().await?;
        let job = Job::new_async("* * * * * *", move |_, _| {
            // A full channel means that the last beat was not taken yet.
            let _ = sender.try_send(Utc::now());
            Box::pin(std::future::ready(()))
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Heartbeat { scheduler, beats })
    }

    /// Waits for the next instant; `None` when the scheduler is gone.
    pub async fn next(&mut self) -> Option<DateTime<Utc>> {
        self.beats.recv().await
    }

    /// Stops it.
    pub async fn stop(mut self) {
        self.beats.close();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "heartbeat did not stop");
        }
    }
}
