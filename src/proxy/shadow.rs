//! Shadow mode: the site answers, and a share of its answers is compared with what
//! the cache would have said.
//!
//! An answer of the site is compared once the cache has seen everything that was
//! visible when it came. What was touched meanwhile proves nothing and is skipped,
//! so on a busy site a difference is a difference.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::answer;
use super::decide::Serve;
use super::freshness::FreshnessTracker;
use super::question::Needs;
use super::upstream::BufferedResponse;
use crate::api3;
use crate::entity::signed_url;
use crate::state::{SiteTime, State, StateError};

/// The longest wait for the cache to have seen what the site had.
const PATIENCE: Duration = Duration::from_secs(10);
/// Differences that are kept as examples.
const EXAMPLES: usize = 50;
/// The name of the record in the state.
const KEPT: &str = "proxy/shadow";

/// What shadow mode has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowRecord {
    /// Comparisons by result: `equal`, `different`, `skipped`.
    pub results: BTreeMap<String, u64>,
    /// Differences by class: `rows`, `order`, `values`, `paging`, `summary`, `fault`.
    pub classes: BTreeMap<String, u64>,
    /// The last differences.
    pub examples: Vec<Difference>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// What differs.
    pub class: String,
    /// The method.
    pub method: String,
    /// What was asked; never who asked.
    pub argument: Value,
    /// What the site said, cut short.
    pub site: String,
    /// What the cache would have said, cut short.
    pub cache: String,
}

/// Called with each difference.
pub type OnDifference = Arc<dyn Fn(Difference) -> BoxFuture<'static, ()> + Send + Sync>;

/// Returns what was kept in a data directory.
///
/// # Errors
///
/// When the state cannot be read.
pub async fn kept(state: &State) -> Result<ShadowRecord, StateError> {
    Ok(state.kept(KEPT).await?.unwrap_or_default())
}

/// Compares answers, a few at a time.
pub(super) struct Shadow {
    record: Mutex<ShadowRecord>,
    slots: Arc<Semaphore>,
    on_difference: Option<OnDifference>,
}

/// An answer of the site, and the plan that the cache had for the same request.
pub(super) struct Comparison {
    pub method: String,
    pub argument: Value,
    pub serve: Box<Serve>,
    /// The newest generation of marks when the request came.
    pub generation: i64,
    pub whole: Arc<BufferedResponse>,
    pub answered: SiteTime,
}

impl Shadow {
    /// Goes on with the record in the state; `on_difference` hears of each one.
    ///
    /// # Errors
    ///
    /// When the state cannot be read. A record that makes no sense begins anew, and is
    /// counted: an empty one recommends nothing.
    pub async fn new(state: &State, on_difference: Option<OnDifference>) -> Result<Self, StateError> {
        let record = Mutex::new(state.cursor(KEPT).await?.unwrap_or_default());
        Ok(Self { record, slots: Arc::new(Semaphore::new(4)), on_difference })
    }

    /// Compares in the background, unless too much is compared already.
    pub fn compare(self: &Arc<Self>, freshness: &Arc<FreshnessTracker>, comparison: Comparison) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
        let (shadow, freshness) = (Arc::clone(self), Arc::clone(freshness));
        tokio::spawn(async move {
            let _slot = slot;
            let result = judge(&freshness, &comparison).await;
            shadow.note(&freshness, comparison, result).await;
        });
    }

    async fn note(&self, freshness: &FreshnessTracker, comparison: Comparison, result: Judged) {
        let word = match &result {
            Judged::Equal => "equal",
            Judged::Skipped => "skipped",
            Judged::Different(..) => "different",
        };
        let difference = match result {
            Judged::Different(class, site, cache) => {
                let Comparison { method, argument, .. } = comparison;
                tracing::warn!(method, class, "the cache would have answered otherwise");
                let argument = signed_url::redact_value(argument);
                Some(Difference { class: class.to_owned(), method, argument, site, cache })
            }
            Judged::Equal | Judged::Skipped => None,
        };
        if let (Some(difference), Some(on_difference)) = (&difference, &self.on_difference) {
            on_difference(difference.clone()).await;
        }
        let copy = self.count(word, difference);
        if let Err(error) = freshness.replica().state().keep(KEPT, &copy).await {
            tracing::warn!(%error, "the record of shadow mode could not be kept");
        }
        // Who sees it counted finds it in the record.
        freshness.replica().metrics().proxy.shadow.inc(&[word]);
    }

    /// Takes a comparison into the record and returns it.
    fn count(&self, result: &str, difference: Option<Difference>) -> ShadowRecord {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        *record.results.entry(result.to_owned()).or_default() += 1;
        if let Some(difference) = difference {
            *record.classes.entry(difference.class.clone()).or_default() += 1;
            record.examples.push(difference);
            let surplus = record.examples.len().saturating_sub(EXAMPLES);
            record.examples.drain(..surplus);
        }
        record.clone()
    }
}

enum Judged {
    Equal,
    Skipped,
    Different(&'static str, String, String),
}

async fn judge(freshness: &FreshnessTracker, comparison: &Comparison) -> Judged {
    let needs = match &*comparison.serve {
        Serve::Read(plan) => &plan.question.needs,
        Serve::Summarize(plan) => &plan.question.needs,
        Serve::Info | Serve::Schema => return Judged::Skipped,
    };
    if !caught_up(freshness, needs, comparison.answered).await {
        return Judged::Skipped;
    }
    let store = freshness.replica().store();
    let answered = match &*comparison.serve {
        Serve::Read(plan) => answer::read(store.as_ref(), plan, None).await,
        Serve::Summarize(plan) => answer::summarize(store.as_ref(), plan).await,
        Serve::Info | Serve::Schema => return Judged::Skipped,
    };
    let Ok(answered) = answered else { return Judged::Skipped };
    if touched(freshness, needs, comparison.generation).await {
        return Judged::Skipped;
    }
    let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap_or_default();
    let (site, cache) = (api3::results(parse(&comparison.whole.body)), api3::results(parse(&answered.body)));
    match class(&site, &cache) {
        None => Judged::Equal,
        Some(class) => {
            let shown = |results: &Result<Value, api3::Fault>| match results {
                Ok(value) => signed_url::redact(&value.to_string()).chars().take(2000).collect(),
                Err(fault) => signed_url::redact(&fault.to_string()).into_owned(),
            };
            Judged::Different(class, shown(&site), shown(&cache))
        }
    }
}

/// Waits until everything that was visible when the site answered is in the cache.
async fn caught_up(freshness: &FreshnessTracker, needs: &Needs, answered: SiteTime) -> bool {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut watch = freshness.watch();
    loop {
        let standing = watch.see();
        let mut types = needs.rows.iter().chain(&needs.names);
        if types.all(|ty| standing.read_as_of(ty).is_some_and(|fresh| fresh > answered)) {
            return true;
        }
        if !watch.changed(deadline).await {
            return false;
        }
    }
}

async fn touched(freshness: &FreshnessTracker, needs: &Needs, generation: i64) -> bool {
    let state = freshness.replica().state();
    // What cannot be read is taken for touched: nothing is proven then.
    for ty in needs.rows.iter().chain(&needs.names) {
        if state.touched_since(ty, generation).await.map_or(true, |ids| !ids.is_empty()) {
            return true;
        }
    }
    false
}

/// Returns what differs between two answers, by the coarsest difference.
fn class(site: &Result<Value, api3::Fault>, cache: &Result<Value, api3::Fault>) -> Option<&'static str> {
    let (Ok(site), Ok(cache)) = (site, cache) else { return Some("fault") };
    if site == cache {
        return None;
    }
    let (Some(rows), Some(ours)) = (site["entities"].as_array(), cache["entities"].as_array()) else {
        return Some("summary");
    };
    let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].as_i64()).collect::<Vec<_>>();
    let sorted = |rows: &[Value]| {
        let mut ids = ids(rows);
        ids.sort_unstable();
        ids
    };
    if sorted(rows) != sorted(ours) {
        return Some("rows");
    }
    if ids(rows) != ids(ours) {
        return Some("order");
    }
    if rows != ours {
        return Some("values");
    }
    // A site says something of the paging also when nobody asked.
    if cache.get("paging_info").is_none() || site["paging_info"] == cache["paging_info"] {
        None
    } else {
        Some("paging")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_told_apart() {
        let answer = |rows: Value| Ok(json!({"entities": rows}));
        let one = answer(json!([{"id": 1, "code": "a"}, {"id": 2, "code": "b"}]));
        let cases = [
            (json!([{"id": 1, "code": "a"}, {"id": 2, "code": "b"}]), None),
            (json!([{"id": 1, "code": "a"}]), Some("rows")),
            (json!([{"id": 2, "code": "b"}, {"id": 1, "code": "a"}]), Some("order")),
            (json!([{"id": 1, "code": "a"}, {"id": 2, "code": "x"}]), Some("values")),
        ];
        for (rows, expected) in cases {
            assert_eq!(class(&one, &answer(rows.clone())), expected, "{rows}");
        }
        assert_eq!(class(&Ok(json!({"summaries": {"id": 1}})), &Ok(json!({"summaries": {"id": 2}}))), Some("summary"));
    }
}
