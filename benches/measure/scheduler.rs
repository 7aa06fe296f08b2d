//! The scheduler with many pipelines: what becomes of 1,000 that are due in the same second,
//! what a tick costs, and how long the check of 1,000 files takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use sgcache::pipeline::{Decision, Defaults, Pipeline, PlanState, Planner, ResolveContext, Site, load_directory};
use sgcache::yaml::Templates;

/// Pipelines, and files.
const PIPELINES: usize = 1000;
/// Ticks of a quiet scheduler.
const TICKS: u32 = 600;

/// Prints what the scheduler does with many pipelines.
pub fn run() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    for number in 0..PIPELINES {
        // A third of each policy; every tenth shares a group.
        let policy = ["skip", "queue", "replace"][number % 3];
        let group = if number.is_multiple_of(10) { ", group: shared" } else { "" };
        let text = format!(
            "name: p{number}\nschedule: {{ cron: '30 2 * * *' }}\nconcurrency: {{ policy: {policy}{group} }}\n\
             steps:\n  - {{ id: counts, job: validateCounts, fail_when: result.missing > 3 }}\n"
        );
        std::fs::write(directory.path().join(format!("p{number:04}.yaml")), text)?;
    }
    let (pipelines, took) = loaded(directory.path())?;
    println!("scheduler: {PIPELINES} files checked in {took:.2?}, {:.3} ms a file", per(took, PIPELINES));
    due_together(&pipelines)
}

fn loaded(directory: &Path) -> anyhow::Result<(Vec<Arc<Pipeline>>, Duration)> {
    let context = ResolveContext {
        timezone: chrono_tz::Europe::Paris,
        defaults: Defaults::default(),
        site: Site::default(),
        blackouts: Default::default(),
        notifiers: Default::default(),
        entities: None,
        templates: Templates::new(&Default::default()),
    };
    let began = Instant::now();
    let (pipelines, _) = load_directory(directory, &context).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok((pipelines, began.elapsed()))
}

fn due_together(pipelines: &[Arc<Pipeline>]) -> anyhow::Result<()> {
    let before: DateTime<Utc> = "2026-01-12T01:29:59Z".parse().context("an instant")?;
    let mut planner = Planner::new(pipelines, &PlanState::default(), before);
    let began = Instant::now();
    for tick in 0..TICKS {
        let decided = planner.tick(before - TimeDelta::seconds(i64::from(TICKS - tick)));
        anyhow::ensure!(decided.is_empty(), "nothing is due yet");
    }
    let quiet = began.elapsed() / TICKS;
    let began = Instant::now();
    let decisions = planner.tick(before + TimeDelta::seconds(1));
    let busy = began.elapsed();
    let count = |wanted: fn(&Decision) -> bool| decisions.iter().filter(|decision| wanted(decision)).count();
    let started = count(|decision| matches!(decision, Decision::Start { .. }));
    let queued = count(|decision| matches!(decision, Decision::Queue { .. }));
    let skipped = count(|decision| matches!(decision, Decision::Skip { .. }));
    println!("scheduler: of {PIPELINES} due in one second {started} start, {queued} wait and {skipped} are left out");
    println!("scheduler: that tick {busy:.2?}, a quiet one {quiet:.2?}");
    anyhow::ensure!(started + queued + skipped == PIPELINES, "{} are lost", PIPELINES - started - queued - skipped);
    Ok(())
}

fn per(whole: Duration, count: usize) -> f64 {
    whole.as_secs_f64() * 1000.0 / count as f64
}
