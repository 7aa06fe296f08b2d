//! Adds up the buckets of a window of time.
//!
//! The waiting that the cache saved is counted per bucket and method: hits times the
//! median of the site's answers to the same method, less the time that the hits took. The
//! median is that of the bucket itself, else the last one of the window, else that of the
//! newest of the last 14 days: most hours have few answers of the site, because the cache
//! gives them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use super::bucket::SlowPass;
use super::bucket::{Bucket, Change, MAX_SLOWEST, OTHER, PassCounts};
use super::examples::{Example, Examples};
use super::recorder::{EXAMPLES, HOURS, Recorder, day_name, examples_name, hour_name};
use crate::state::{State, StateError};

/// Windows up to this length are added up from hours, longer ones from days.
const LONGEST_BY_HOUR: TimeDelta = TimeDelta::days(14);
/// Reasons that are listed one by one.
const MAX_REASONS: usize = 12;
/// Callers that are listed.
const MAX_CALLERS: usize = 10;
/// Hours that are listed one by one.
const MAX_HOURS: usize = 24;

/// A window of time; its beginning is rounded down to the bucket that it lies in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// From here, inclusive.
    pub since: DateTime<Utc>,
    /// Until here.
    pub until: DateTime<Utc>,
}

impl Window {
    /// Returns the day that `now` is in, until then.
    pub fn today(now: DateTime<Utc>, zone: Tz) -> Self {
        let midnight = now.with_timezone(&zone).date_naive().and_time(NaiveTime::MIN);
        // Where clocks go forward at midnight, the day begins an hour later.
        let local = [midnight, midnight + TimeDelta::hours(1)].into_iter();
        let since = local.filter_map(|at| zone.from_local_datetime(&at).earliest()).next();
        Self { since: since.map_or(now, |since| since.to_utc()), until: now }
    }
}

/// What the read proxy has given within a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The beginning of the window.
    pub since: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
    /// Reads that were answered: hits and passes.
    pub reads: u64,
    /// Those that the cache answered.
    pub hits: u64,
    /// Those that the site answered.
    pub passes: u64,
    /// The share of hits, 0 to 1; `None` without reads.
    pub hit_ratio: Option<f64>,
    /// The same for the window of equal length before.
    pub previous_hit_ratio: Option<f64>,
    /// Hits that were older than usual, because the site was down.
    pub stale_hits: u64,
    /// Reads without an answer: the site was away and the cache had none.
    pub failed: u64,
    /// Calls that came faster than they could be counted.
    pub uncounted: u64,
    /// Seconds that callers did not wait; `None` until the site has answered a read.
    pub saved_seconds: Option<f64>,
    /// The last hours of the window that had reads, at most 24, oldest first.
    pub per_hour: Vec<HourCounts>,
    /// By method, most calls first.
    pub methods: Vec<MethodSummary>,
    /// Why reads went to the site, most frequent first; the last one may be `other`.
    pub reasons: Vec<ReasonSummary>,
    /// The slowest answers of the site, slowest first, at most 10.
    pub slowest: Vec<SlowPass>,
    /// The callers with most reads, at most 10.
    pub callers: Vec<CallerSummary>,
    /// Writes that went through the proxy.
    pub writes: WriteSummary,
}

/// The reads of one hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HourCounts {
    /// The beginning of the hour.
    pub at: DateTime<Utc>,
    /// Answers of the cache.
    pub hits: u64,
    /// Answers of the site.
    pub passes: u64,
}

/// The reads of one method; times are in milliseconds and `None` where there were none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct MethodSummary {
    pub method: String,
    pub calls: u64,
    pub hit_ratio: Option<f64>,
    pub cache_p50_ms: Option<f64>,
    pub cache_p95_ms: Option<f64>,
    pub site_p50_ms: Option<f64>,
    pub site_p95_ms: Option<f64>,
}

/// Reads that the site answered for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonSummary {
    /// As in the header `x-sgcache`, or `other`.
    pub reason: String,
    /// The entity type that was asked for.
    pub entity_type: Option<String>,
    /// The reason in words.
    pub label: String,
    /// What to change; `None` where nothing helps.
    pub remedy: Option<String>,
    /// The same for a program.
    pub change: Option<Change>,
    /// How many.
    pub calls: u64,
    /// How long their callers waited.
    pub waited_seconds: f64,
    /// By how much the hit ratio would rise without them, 0 to 1.
    pub gain: f64,
}

/// What one caller was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallerSummary {
    /// As in the access log; `other` for those beyond the bound.
    pub caller: String,
    /// Reads that were answered.
    pub reads: u64,
    /// The share of the cache, 0 to 1.
    pub hit_ratio: Option<f64>,
    /// Seconds that it did not wait; `None` where that is not known.
    pub saved_seconds: Option<f64>,
}

/// Writes that went through the proxy; times are seconds from the acknowledgement until
/// every read from the cache shows the write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteSummary {
    /// Those that the site has made or may have made.
    pub count: u64,
    /// Calls of the JSON API that the site refused or did not answer.
    pub failed: u64,
    /// Half of them took no longer.
    pub visible_p50_seconds: Option<f64>,
    /// 95 % took no longer.
    pub visible_p95_seconds: Option<f64>,
    /// The longest.
    pub visible_max_seconds: Option<f64>,
}

/// The medians of the site's answers, in milliseconds, by method.
type Medians = BTreeMap<String, f64>;

/// Returns what the proxy has given within a window: what is stored, and what `recorder`
/// has not stored yet.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn ledger(recorder: &Recorder, state: &State, window: Window) -> Result<Ledger, StateError> {
    let Window { since, until } = window;
    let by_hour = until - since <= LONGEST_BY_HOUR;
    let name = if by_hour { hour_name } else { day_name };
    let buckets = recorder.buckets(state, &name(since), &name(until)).await?;
    let earlier = recorder.buckets(state, &name(since - (until - since)), &name(since)).await?;
    let days = recorder.buckets(state, &day_name(since - LONGEST_BY_HOUR), &day_name(until)).await?;
    let mut medians = Medians::new();
    // The newest wins; days of the window itself stand in for what came later.
    days.values().for_each(|day| note_medians(&mut medians, day));

    let mut total = Bucket::default();
    let (mut saved, mut by_caller) = (None, BTreeMap::new());
    for bucket in buckets.values() {
        note_medians(&mut medians, bucket);
        note_saved(&mut saved, &mut by_caller, bucket, &medians);
        total.merge(bucket);
    }
    let mut previous = Bucket::default();
    earlier.iter().filter(|(place, _)| **place != name(since)).for_each(|(_, bucket)| previous.merge(bucket));
    let (hits, passes) = total.reads();
    let per_hour = buckets.iter().filter(|_| by_hour).filter_map(|(name, bucket)| hour(name, bucket));
    let mut per_hour: Vec<HourCounts> = per_hour.collect();
    per_hour.drain(..per_hour.len().saturating_sub(MAX_HOURS));
    Ok(Ledger {
        since: if by_hour { whole_hour(since) } else { since },
        until,
        reads: hits + passes,
        hits,
        passes,
        hit_ratio: ratio(hits, passes),
        previous_hit_ratio: ratio(previous.reads().0, previous.reads().1),
        stale_hits: total.stale_hits,
        failed: total.failed,
        uncounted: total.uncounted,
        saved_seconds: saved,
        per_hour,
        methods: methods(&total),
        reasons: reasons(&total.passes, hits + passes),
        callers: callers(&total, &by_caller),
        writes: writes(&total),
        slowest: total.slowest.into_iter().take(MAX_SLOWEST).collect(),
    })
}

/// Returns the requests of a window that a change of the configuration could let the
/// cache answer, and how many more there were.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn examples(state: &State, window: Window) -> Result<(Vec<(Example, u64)>, u64), StateError> {
    let (from, to) = (examples_name(window.since), examples_name(window.until));
    debug_assert!(from.starts_with(EXAMPLES), "names of one kind");
    let mut total = Examples::default();
    let mut found: BTreeMap<String, (Example, u64)> = BTreeMap::new();
    let days: BTreeMap<String, Examples> = state.kept_between(&from, &to).await?;
    for day in days.values() {
        total.unlisted += day.unlisted;
        for (example, calls) in day.iter() {
            let text = serde_json::to_string(&example).unwrap_or_default();
            found.entry(text).or_insert_with(|| (example, 0)).1 += calls;
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    Ok((found, total.unlisted))
}

fn note_medians(medians: &mut Medians, bucket: &Bucket) {
    for (method, counts) in &bucket.methods {
        if let Some(median) = counts.site.quantile(0.5) {
            medians.insert(method.clone(), median);
        }
    }
}

/// Adds what the cache saved within a bucket, in all and by caller, in seconds.
fn note_saved(saved: &mut Option<f64>, by_caller: &mut BTreeMap<String, f64>, bucket: &Bucket, medians: &Medians) {
    for (method, counts) in &bucket.methods {
        let Some(median) = medians.get(method) else { continue };
        let ms = counts.cache.count() as f64 * median - counts.cache.sum_ms;
        *saved.get_or_insert(0.0) += ms / 1e3;
    }
    for (name, caller) in &bucket.callers {
        let known = caller.hits.iter().filter_map(|(method, hits)| Some((hits, medians.get(method)?)));
        let waits: Vec<f64> = known.map(|(hits, median)| *hits as f64 * median).collect();
        if !waits.is_empty() {
            *by_caller.entry(name.clone()).or_default() += (waits.iter().sum::<f64>() - caller.cache_ms) / 1e3;
        }
    }
}

fn ratio(hits: u64, passes: u64) -> Option<f64> {
    (hits + passes > 0).then(|| hits as f64 / (hits + passes) as f64)
}

fn whole_hour(at: DateTime<Utc>) -> DateTime<Utc> {
    at.with_minute(0).and_then(|at| at.with_second(0)).and_then(|at| at.with_nanosecond(0)).unwrap_or(at)
}

fn hour(name: &str, bucket: &Bucket) -> Option<HourCounts> {
    let at = format!("{}:00:00Z", name.strip_prefix(HOURS)?).parse().ok()?;
    let (hits, passes) = bucket.reads();
    Some(HourCounts { at, hits, passes })
}

fn methods(total: &Bucket) -> Vec<MethodSummary> {
    let summary = |(method, counts): (&String, &super::bucket::MethodCounts)| MethodSummary {
        method: method.clone(),
        calls: counts.cache.count() + counts.site.count(),
        hit_ratio: ratio(counts.cache.count(), counts.site.count()),
        cache_p50_ms: counts.cache.quantile(0.5),
        cache_p95_ms: counts.cache.quantile(0.95),
        site_p50_ms: counts.site.quantile(0.5),
        site_p95_ms: counts.site.quantile(0.95),
    };
    let mut methods: Vec<_> = total.methods.iter().map(summary).collect();
    methods.sort_by_key(|one| std::cmp::Reverse(one.calls));
    methods
}

fn reasons(passes: &[PassCounts], reads: u64) -> Vec<ReasonSummary> {
    let mut passes: Vec<&PassCounts> = passes.iter().collect();
    passes.sort_by_key(|pass| (pass.reason == OTHER, std::cmp::Reverse(pass.calls)));
    let share = |calls: u64| if reads == 0 { 0.0 } else { calls as f64 / reads as f64 };
    let summary = |pass: &&PassCounts| ReasonSummary {
        reason: pass.reason.clone(),
        entity_type: pass.entity_type.clone(),
        label: pass.label.clone(),
        remedy: pass.remedy.clone(),
        change: pass.change.clone(),
        calls: pass.calls,
        waited_seconds: pass.waited_ms / 1e3,
        gain: share(pass.calls),
    };
    let listed = if passes.len() > MAX_REASONS + 1 { MAX_REASONS } else { passes.len() };
    let (listed, rest) = passes.split_at(listed);
    let mut reasons: Vec<_> = listed.iter().map(summary).collect();
    if !rest.is_empty() {
        let calls = rest.iter().map(|pass| pass.calls).sum();
        reasons.push(ReasonSummary {
            reason: OTHER.to_owned(),
            entity_type: None,
            label: format!("{} other reasons", rest.len()),
            remedy: None,
            change: None,
            calls,
            waited_seconds: rest.iter().map(|pass| pass.waited_ms).sum::<f64>() / 1e3,
            gain: share(calls),
        });
    }
    reasons
}

fn callers(total: &Bucket, saved: &BTreeMap<String, f64>) -> Vec<CallerSummary> {
    let summary = |(name, counts): (&String, &super::bucket::CallerCounts)| {
        let hits: u64 = counts.hits.values().sum();
        CallerSummary {
            caller: name.clone(),
            reads: hits + counts.passes,
            hit_ratio: ratio(hits, counts.passes),
            saved_seconds: saved.get(name).copied(),
        }
    };
    let mut callers: Vec<_> = total.callers.iter().map(summary).collect();
    callers.sort_by_key(|caller| std::cmp::Reverse(caller.reads));
    callers.truncate(MAX_CALLERS);
    callers
}

fn writes(total: &Bucket) -> WriteSummary {
    let visible = &total.writes.visible;
    let seconds = |share| visible.quantile(share).map(|ms| ms / 1e3);
    WriteSummary {
        count: total.writes.count,
        failed: total.writes.failed,
        visible_p50_seconds: seconds(0.5),
        visible_p95_seconds: seconds(0.95),
        visible_max_seconds: (visible.count() > 0).then_some(visible.max_ms / 1e3),
    }
}
