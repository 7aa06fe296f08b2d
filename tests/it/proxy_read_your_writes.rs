//! Several callers at work side by side: no read misses a write that was acknowledged
//! before it began, whatever others write meanwhile.
//!
//! The truth is what the simulator has committed, read in this process (`random_caller`).
//! `SGCACHE_TEST_READS` is the number of reads and makes the runs longer.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::{Value, json};
use sgcache::proxy::{Semantics, Settings};
use sgcache::sim::Site;
use sgcache::sim::faults::Latency;

use crate::proxy_rig::{Rig, said, shipped};
use crate::random_caller::{Call, RandomCaller};
use crate::sync_cache::happen;

const CALLERS: u64 = 6;

/// How reads were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    reads: usize,
    hits: usize,
    pending: usize,
}

fn wanted_reads(usual: usize) -> usize {
    std::env::var("SGCACHE_TEST_READS").ok().and_then(|reads| reads.parse().ok()).unwrap_or(usual)
}

/// A connection of one caller to the proxy.
struct Connection {
    http: Client,
    url: String,
}

impl Connection {
    /// Returns what the proxy says it did, and the answer.
    async fn send(&self, call: &Call) -> (String, Value) {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let body = json!({"method_name": call.method, "params": [auth, call.argument]});
        let sent = self.http.post(format!("{}/api3/json", self.url)).json(&body).send().await.expect("an answer");
        let how = said(sent.headers());
        (how, sent.json().await.expect("JSON"))
    }
}

/// Writes and reads until a number of reads was made. Behind a site whose rows are
/// behind its own event log only the cache can know better than the site.
async fn work(site: Arc<Site>, url: String, mut caller: RandomCaller, seed: u64, reads: usize, lags: bool) -> Tally {
    let (connection, mut rng) = (Connection { http: Client::new(), url }, SmallRng::seed_from_u64(seed));
    let (mut tally, mut history) = (Tally::default(), Vec::new());
    while tally.reads < reads {
        let write = caller.write();
        let (_, answer) = connection.send(&write).await;
        history.push(format!("{} {} -> {answer}", write.method, write.argument));
        // Some reads meet the write while it is pending, others come later.
        for _ in 0..[3, 30][usize::from(rng.random_bool(0.5))] {
            let read = caller.read();
            let (how, answer) = connection.send(&read.call()).await;
            tally.reads += 1;
            tally.hits += usize::from(how == "hit");
            tally.pending += usize::from(how == "pending_write");
            if how == "hit" || !lags {
                let (shown, expected) = (read.shown(&answer), read.expected(&site));
                let before = history[history.len().saturating_sub(6)..].join("\n");
                assert_eq!(
                    shown, expected,
                    "caller {seed}, read {}, {how}: {read:?}: {answer}, after\n{before}",
                    tally.reads
                );
            }
        }
    }
    tally
}

/// Lets the callers work, and returns how their reads were answered.
async fn office(reads: usize, first_seed: u64, lag: Option<Duration>) -> Tally {
    let site = Site::empty();
    site.clock.run(0);
    let seeds = first_seed..first_seed + CALLERS;
    let callers: Vec<_> = seeds.map(|seed| (seed, RandomCaller::new(&site, seed))).collect();
    let semantics = Semantics::EVERY.iter().copied().collect();
    let rig = Rig::start(Arc::clone(&site), shipped(), Settings { semantics, ..Settings::default() }).await;
    site.troubles.delay(Latency::Uniform(Duration::ZERO, Duration::from_millis(12)));
    if let Some(lag) = lag {
        happen(&site, json!({"lag": {"of": "rows", "by": format!("{}ms", lag.as_millis())}}));
    }
    let share = reads.div_ceil(callers.len());
    let work = callers.into_iter().map(|(seed, caller)| {
        tokio::spawn(work(Arc::clone(&site), rig.url.clone(), caller, seed, share, lag.is_some()))
    });
    let mut sum = Tally::default();
    for tally in futures::future::join_all(work).await {
        let tally = tally.expect("no read misses a write");
        sum.reads += tally.reads;
        sum.hits += tally.hits;
        sum.pending += tally.pending;
    }
    println!("{sum:?}");
    site.troubles.delay(Latency::NONE);
    rig.shutdown().await;
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_misses_a_write_whatever_others_write_meanwhile() {
    let tally = office(wanted_reads(600), 100, None).await;
    assert!(tally.hits * 10 > tally.reads, "hardly any read was answered from the cache: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_the_cache_misses_a_write_that_the_site_itself_still_hides() {
    let tally = office(wanted_reads(400), 200, Some(Duration::from_millis(150))).await;
    assert!(tally.hits * 20 > tally.reads, "hardly any read was answered from the cache: {tally:?}");
}
