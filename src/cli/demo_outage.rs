//! `sgcache demo --outage 60s`: cuts the way to the simulated site for a while, with a failed
//! write and a restart of the daemon in it, and says what programs see meanwhile.
//!
//! The site itself goes on, edits included, as for a studio whose line is cut: what was
//! missed must be in the cache when the line is back, and the counts must match.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::Failure;
use super::context::load_config;
use super::daemon::Daemon;
use super::demo_caller::{Caller, Seen};
use super::output::number;
use crate::server::{StatusSnapshot, TypeState};
use crate::sim::faults::Rule;
use crate::sim::{Site, Trouble};

/// How often a program reads while the outage is played.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// How often the state of the daemon is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long the cache may take to be complete, before the outage and after it.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(300);

/// What the reads of one phase saw.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    hits: u64,
    stale: u64,
    by_site: u64,
    failed: u64,
    slowest: Duration,
}

impl Reads {
    fn all(&self) -> u64 {
        self.hits + self.stale + self.by_site + self.failed
    }

    fn note(&mut self, seen: &Seen) {
        *match seen.how.as_str() {
            "hit" => &mut self.hits,
            "stale" => &mut self.stale,
            "pass" => &mut self.by_site,
            _ => &mut self.failed,
        } += 1;
        self.slowest = self.slowest.max(seen.took);
    }
}

impl Display for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hits, stale, by_site, failed, slowest } = self;
        write!(
            f,
            "{} reads: {} fresh and {} stale from the cache, {} by the site, {} failed; slowest {}",
            number(self.all()),
            number(*hits),
            number(*stale),
            number(*by_site),
            number(*failed),
            milliseconds(*slowest)
        )
    }
}

/// A program that reads all the time.
struct Reader {
    reads: Arc<Mutex<Reads>>,
    _task: AbortOnDropHandle<()>,
}

impl Reader {
    fn start(caller: Caller) -> Self {
        let reads = Arc::new(Mutex::new(Reads::default()));
        let noted = Arc::clone(&reads);
        let task = tokio::spawn(async move {
            loop {
                let seen = caller.read(json!([])).await;
                noted.lock().note(&seen);
                tokio::time::sleep(READ_PAUSE).await;
            }
        });
        Self { reads, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns what was seen since the last call.
    fn take(&self) -> Reads {
        std::mem::take(&mut self.reads.lock())
    }
}

/// An outage that is played.
pub(super) struct Outage<'a> {
    pub site: &'a Arc<Site>,
    pub site_address: SocketAddr,
    pub data_dir: &'a Path,
    pub duration: Duration,
}

impl Outage<'_> {
    /// Plays it and returns the daemon that runs then.
    ///
    /// # Errors
    ///
    /// When a daemon does not start, reads fail that should not, or the cache is not
    /// complete again in time.
    pub async fn play(&self, daemon: Daemon) -> Result<Daemon, Failure> {
        let caller = Caller::new(daemon.api)?;
        let before = self.until_complete(&daemon, &caller).await?;
        self.say_times(&caller, &before).await?;
        let reader = Reader::start(caller.clone());

        let begun = Instant::now();
        let say = |words: String| eprintln!("{:>5.1} s   {words}", begun.elapsed().as_secs_f64());
        self.site.troubles.order(Rule::always(Trouble::DroppedBefore), self.site.clock.now());
        say("the site stops answering".to_owned());
        until(&daemon, self.duration, "no poll failed", |status| status.sync.poll_failures > 0).await?;
        say("amber: a poll failed".to_owned());

        sleep_until(begun, self.duration / 4).await;
        let mut reads = reader.take();
        say(format!("{reads}"));
        self.fail_a_write(&caller, &say).await?;

        sleep_until(begun, self.duration / 2).await;
        let whole = reader.take();
        reads = sum(reads, whole);
        let daemon = self.restart(daemon, &caller, &say).await?;
        let meanwhile = reader.take();

        sleep_until(begun, self.duration).await;
        reads = sum(reads, reader.take());
        self.site.troubles.clear();
        let (back, last_event) = (Instant::now(), self.site.last_event_id());
        say("the site answers again".to_owned());
        self.until_complete(&daemon, &caller).await?;
        let missed = last_event.0 - before.sync.event_id.unwrap_or_default();
        say(format!(
            "green after {:.1} s: {} events were missed, {} of {} counts match the site",
            back.elapsed().as_secs_f64(),
            number(u64::try_from(missed).unwrap_or_default()),
            before.types.len(),
            before.types.len()
        ));
        eprintln!("outage    {reads}");
        eprintln!("          {} more while the daemon restarted, {} of them failed", meanwhile.all(), meanwhile.failed);
        if reads.failed > 0 {
            return Err(Failure::internal(format!("{} reads failed during the outage", reads.failed)));
        }
        Ok(daemon)
    }

    /// Waits until the cache has everything that the site has.
    async fn until_complete(&self, daemon: &Daemon, caller: &Caller) -> Result<StatusSnapshot, Failure> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            // Edits go on, so the counts are compared until they are those of one moment.
            let status = daemon.snapshots.take().await;
            let is_live = status.types.iter().all(|ty| ty.state == TypeState::Live);
            let is_same = status.types.iter().all(|ty| ty.rows == self.site.count(&ty.entity_type) as u64);
            if is_live && is_same && status.sync.poll_failures == 0 && caller.read(json!([])).await.how == "hit" {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let lacking = status.types.iter().filter(|ty| ty.rows != self.site.count(&ty.entity_type) as u64);
                let lacking: Vec<_> = lacking.map(|ty| ty.entity_type.as_str()).collect();
                let words = format!("the cache is not complete after {} s: {lacking:?}", CATCH_UP_TIMEOUT.as_secs());
                return Err(Failure::internal(words));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Says how long one read takes from the cache and at the site.
    async fn say_times(&self, caller: &Caller, status: &StatusSnapshot) -> Result<(), Failure> {
        let (cached, direct) = (caller.read(json!([])).await, Caller::new(self.site_address)?.read(json!([])).await);
        eprintln!(
            "outage    of {:.0} s, with {} of {} types live; a read takes {} from the cache and {} from the site",
            self.duration.as_secs_f64(),
            status.types.len(),
            status.types.len(),
            milliseconds(cached.took),
            milliseconds(direct.took)
        );
        Ok(())
    }

    /// Writes to a Shot in vain, and reads it.
    async fn fail_a_write(&self, caller: &Caller, say: &impl Fn(String)) -> Result<(), Failure> {
        let shots = self.site.read("Shot", &json!([]), &["id"]);
        let shots = shots.map_err(|fault| Failure::internal(fault.message))?;
        let Some(id) = shots.first().and_then(|shot| shot["id"].as_i64()) else {
            return Err(Failure::internal("the demo site has no Shot"));
        };
        let fields = json!([{"field_name": "sg_status_list", "value": "hld"}]);
        let write = caller.call("update", &json!({"type": "Shot", "id": id, "fields": fields})).await;
        let filters = json!([{"path": "id", "relation": "is", "values": [id]}]);
        let read = caller.read(filters).await;
        say(format!("a write of Shot {id} {}; a read of it says `{}`", outcome(&write), read.header));
        Ok(())
    }

    /// Restarts the daemon while the site is away.
    async fn restart(&self, daemon: Daemon, caller: &Caller, say: &impl Fn(String)) -> Result<Daemon, Failure> {
        let begun = Instant::now();
        daemon.stop().await?;
        let daemon = Daemon::start(load_config(Some(self.data_dir))?, Vec::new(), Default::default()).await?;
        while !matches!(caller.read(json!([])).await.how.as_str(), "hit" | "stale") {
            if begun.elapsed() > CATCH_UP_TIMEOUT {
                return Err(Failure::internal("the daemon answers nothing after its restart"));
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        let took = begun.elapsed().as_secs_f64();
        say(format!("the daemon was restarted and answers again after {took:.1} s, without the site"));
        Ok(daemon)
    }
}

fn outcome(write: &Seen) -> &'static str {
    if write.how == "failed" { "fails" } else { "succeeds" }
}

fn sum(one: Reads, other: Reads) -> Reads {
    Reads {
        hits: one.hits + other.hits,
        stale: one.stale + other.stale,
        by_site: one.by_site + other.by_site,
        failed: one.failed + other.failed,
        slowest: one.slowest.max(other.slowest),
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

async fn sleep_until(begun: Instant, elapsed: Duration) {
    tokio::time::sleep(elapsed.saturating_sub(begun.elapsed())).await;
}

/// Waits until the status of the daemon is as wanted.
async fn until(
    daemon: &Daemon,
    timeout: Duration,
    otherwise: &str,
    wanted: impl Fn(&StatusSnapshot) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    while !wanted(&daemon.snapshots.take().await) {
        if Instant::now() > deadline {
            return Err(Failure::internal(format!("{otherwise} within {} s", timeout.as_secs())));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(())
}
