//! Random mixtures of all faults with edits of every kind, by seed: an hour of a site in
//! stepped time, the follower killed and started again in it.
//!
//! After every step, each row that counts as fresh is looked up in the history of the site;
//! a minute after the last fault everything must be right but changes without events, and
//! those after the light scan.
//!
//! ```text
//! SGCACHE_TEST_NEMESIS_SEEDS=1000 cargo test --release --test it nemesis -- --ignored --nocapture
//! SGCACHE_TEST_NEMESIS_SEED=7 cargo test --release --test it nemesis -- --ignored --nocapture
//! ```
//!
//! The usual run plays twenty mixtures of twenty minutes; `SGCACHE_TEST_NEMESIS_FIRST` is the
//! first seed of the long one.
//!
//! A divergence is printed in a line with its seed. The second form looks for the smallest
//! mixture that still shows it. With `SGCACHE_TEST_NEMESIS_LOG=sgcache=debug,it=trace` the
//! log of the follower is printed too, and what stays dirty after each step.

mod mixture;
mod once_diverged;
mod play;
mod shrink;

use std::time::Duration;

use futures::stream::{self, StreamExt};

use self::mixture::{Moment, mixture};
use self::play::Play;
use self::shrink::shrink;

/// Mixtures of the usual run, and how long they last in the time of the site: what two cores
/// play in less than a minute in a debug build.
const USUAL_SEEDS: u64 = 20;
const USUAL_LENGTH: Duration = Duration::from_secs(20 * 60);
/// The same of the long run, if nothing else is asked for.
const LONG_SEEDS: u64 = 200;
const LONG_LENGTH: Duration = Duration::from_secs(3600);
/// How many mixtures are played side by side.
const SIDE_BY_SIDE: usize = 4;

/// Returns the number in an environment variable.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Plays a mixture on a site of its own; a panic is a divergence, too.
async fn divergence(seed: u64, moments: Vec<Moment>) -> Option<String> {
    let played = tokio::spawn(async move { Play::begin(seed).await.play(&moments).await }).await;
    match played {
        Ok(result) => result.err(),
        Err(panic) => Some(format!("{panic}")),
    }
}

/// Plays mixtures of this length and prints those that diverge; returns their seeds.
async fn play(seeds: impl IntoIterator<Item = u64>, length: Duration) -> Vec<(u64, String)> {
    if let Ok(filter) = std::env::var("SGCACHE_TEST_NEMESIS_LOG") {
        drop(tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).try_init());
    }
    let run = |seed| async move { (seed, divergence(seed, mixture(seed, length)).await) };
    let mut played = stream::iter(seeds).map(run).buffer_unordered(SIDE_BY_SIDE);
    let (mut failed, mut right) = (Vec::new(), 0);
    while let Some((seed, found)) = played.next().await {
        right += usize::from(found.is_none());
        if let Some(what) = found {
            println!("seed {seed}: {}", what.chars().take(2_000).collect::<String>());
            failed.push((seed, what));
        }
    }
    println!("{right} mixtures without a difference, {} with one", failed.len());
    failed
}

/// Prints the smallest mixture of a seed that still diverges.
async fn explain(seed: u64, length: Duration, what: &str) {
    let smallest = shrink(seed, mixture(seed, length), what).await;
    println!("the smallest mixture of seed {seed}:");
    smallest.iter().for_each(|moment| println!("  {moment:?}"));
    println!("{}", divergence(seed, smallest).await.unwrap_or_default());
}

fn assert_none(failed: &[(u64, String)]) {
    let failed: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "replay with SGCACHE_TEST_NEMESIS_SEED: {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_short_mixtures_of_faults_leave_no_wrong_row_and_serve_none_as_fresh() {
    let failed = play(0..USUAL_SEEDS, USUAL_LENGTH).await;
    if let Some((seed, what)) = failed.first() {
        explain(*seed, USUAL_LENGTH, what).await;
    }
    assert_none(&failed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: docs/RELIABILITY.md"]
async fn no_mixture_of_faults_leaves_a_wrong_row_or_serves_one_as_fresh() {
    let only = asked("SGCACHE_TEST_NEMESIS_SEED");
    let first = asked("SGCACHE_TEST_NEMESIS_FIRST").unwrap_or(0);
    let count = asked("SGCACHE_TEST_NEMESIS_SEEDS").unwrap_or(LONG_SEEDS);
    let seeds = only.map_or(first..first + count, |seed| seed..seed + 1);
    let failed = play(seeds, LONG_LENGTH).await;
    if let ([(seed, what)], Some(_)) = (&failed[..], only) {
        explain(*seed, LONG_LENGTH, what).await;
    }
    assert_none(&failed);
}
