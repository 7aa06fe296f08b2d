//! What goes wrong with requests on demand.
//!
//! One mechanism for tests in the process, for `sgcache sim --faults FILE` and for
//! the admin endpoint: rules that say which requests meet which trouble, the
//! delay of every answer, and a limit on the rate of requests. Everything that is
//! left to chance is drawn from a seed in the order of the requests, and times are
//! those of the site's clock, so the same requests meet the same troubles.
//!
//! What goes wrong with the data of the site (transactions, lag, rights, backups)
//! is no trouble of a request; it is in `scenario`.

mod latency;
mod trouble;

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;

pub(super) use latency::Delay;
pub use latency::Latency;
pub(super) use trouble::Asked;
use trouble::Planned;
pub use trouble::{Rule, Trouble};

use config_file::duration;
use shotgun_model::entity::Timestamp;

/// So many requests in a second of the site's clock are answered.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// The requests that are answered in one second.
    pub per_second: u64,
    /// The HTTP status of all others.
    #[serde(default = "too_many_requests")]
    pub status: u16,
    /// The pause of `retry-after` for their clients.
    #[serde(default = "one_second", deserialize_with = "duration")]
    pub retry_after: Duration,
}

fn too_many_requests() -> u16 {
    429
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

/// What chance is drawn from when nothing else is said.
pub(super) const DEFAULT_SEED: u64 = 1;

/// The trouble that the next requests meet.
#[derive(Debug)]
pub struct Troubles(Mutex<State>);

#[derive(Debug)]
struct State {
    seed: u64,
    /// The number of rules that were ever ordered: each has draws of its own.
    ordered: u64,
    rules: Vec<Planned>,
    limit: Option<RateLimit>,
    /// The requests of the current second of the site.
    second: (Timestamp, u64),
    latency: Latency,
    delays: StdRng,
}

impl Default for Troubles {
    fn default() -> Self {
        Self(Mutex::new(State {
            seed: DEFAULT_SEED,
            ordered: 0,
            rules: Vec::new(),
            limit: None,
            second: (Timestamp(0), 0),
            latency: Latency::NONE,
            delays: StdRng::seed_from_u64(DEFAULT_SEED),
        }))
    }
}

impl State {
    fn over_limit(&mut self, now: Timestamp) -> Option<Trouble> {
        let limit = self.limit.as_ref()?;
        if self.second.0 != now {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        let (status, retry_after) = (limit.status, limit.retry_after);
        (self.second.1 > limit.per_second).then_some(Trouble::Busy { status, retry_after })
    }
}

impl Troubles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Troubles the next so many requests, whatever they ask.
    pub fn next(&self, requests: u32, trouble: Trouble) {
        self.order(Rule { times: Some(requests.into()), ..Rule::always(trouble) }, Timestamp(0));
    }

    /// Troubles the next so many requests of a method: `read`, or
    /// `read EventLogEntry` for those of one type.
    pub fn next_of(&self, method: &str, requests: u32, trouble: Trouble) {
        let times = Some(requests.into());
        self.order(Rule { method: Some(method.to_owned()), times, ..Rule::always(trouble) }, Timestamp(0));
    }

    /// Lets a rule work from `now`, the time of the site.
    pub fn order(&self, rule: Rule, now: Timestamp) {
        let mut state = self.state();
        state.ordered += 1;
        let seed = state.seed.wrapping_add(state.ordered.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        state.rules.push(Planned::new(rule, seed, now));
    }

    /// Begins the draws anew: those of the delays, and of rules ordered later.
    pub fn reseed(&self, seed: u64) {
        let mut state = self.state();
        (state.seed, state.ordered) = (seed, 0);
        state.delays = StdRng::seed_from_u64(seed);
    }

    /// Limits the rate of requests, or ends the limit.
    pub fn limit(&self, limit: Option<RateLimit>) {
        self.state().limit = limit;
    }

    /// Delays every answer from now on.
    pub fn delay(&self, latency: Latency) {
        self.state().latency = latency;
    }

    /// Ends all rules and the limit; the delay of every answer stays.
    pub fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.limit = None;
    }

    /// Returns the number of rules that can still be met.
    pub fn waiting(&self) -> usize {
        self.state().rules.len()
    }

    /// Draws the delay of an answer.
    pub(super) fn latency(&self) -> Delay {
        let state = &mut *self.state();
        state.latency.delay(&mut state.delays)
    }

    /// Draws a delay from another distribution.
    pub(super) fn draw(&self, latency: Latency) -> Delay {
        latency.delay(&mut self.state().delays)
    }

    /// Takes the trouble that this request meets.
    pub(super) fn take(&self, asked: &Asked<'_>) -> Option<Trouble> {
        let mut state = self.state();
        let busy = if asked.answer.is_none() { state.over_limit(asked.now) } else { None };
        if busy.is_some() {
            return busy;
        }
        let met = state.rules.iter_mut().position(|planned| planned.meets(asked));
        let met = met.map(|at| state.rules[at].rule.trouble.clone());
        state.rules.retain(|planned| !planned.is_over(asked.now));
        met
    }

    /// Tells whether a rule waits for an answer with a certain entity in it.
    pub(super) fn look_at_answers(&self) -> bool {
        self.state().rules.iter().any(|planned| planned.rule.answers.is_some())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ordered(rules: Value) -> Troubles {
        let troubles = Troubles::default();
        let rules: Vec<Rule> = serde_json::from_value(rules).expect("rules");
        rules.into_iter().for_each(|rule| troubles.order(rule, Timestamp(100)));
        troubles
    }

    fn asked(method: &'static str, now: i64) -> Asked<'static> {
        Asked { method, entity_type: Some("Shot"), page: Some(500), now: Timestamp(now), auth: None, answer: None }
    }

    /// Asks so many times and shows who met trouble.
    fn met(troubles: &Troubles, asked: &Asked<'_>, requests: usize) -> String {
        (0..requests).map(|_| if troubles.take(asked).is_some() { 'x' } else { '.' }).collect()
    }

    #[test]
    fn a_rule_lets_some_pass_and_ends() {
        let troubles = ordered(json!([{"trouble": "html", "method": "read", "skip": 2, "times": 3}]));
        assert_eq!(met(&troubles, &asked("summarize", 100), 2), "..");
        assert_eq!(met(&troubles, &asked("read", 100), 7), "..xxx..");
        assert_eq!(troubles.waiting(), 0);
    }

    #[test]
    fn a_rule_begins_and_ends_by_the_clock_of_the_site() {
        let troubles = ordered(json!([{"trouble": {"status": 503}, "from": "10s", "until": "30m"}]));
        let at = |now| met(&troubles, &asked("read", now), 1);
        assert_eq!([at(100), at(109), at(110), at(100 + 1_799), at(100 + 1_800)], [".", ".", "x", "x", "."]);
    }

    #[test]
    fn chance_follows_the_seed() {
        let rules = json!([{"trouble": "truncated", "chance": 0.3}]);
        let (a, b, other) = (ordered(rules.clone()), ordered(rules.clone()), Troubles::default());
        other.reseed(2);
        other.order(Rule { chance: 0.3, ..Rule::always(Trouble::Truncated) }, Timestamp(100));
        let shown = |troubles: &Troubles| met(troubles, &asked("read", 100), 200);
        let first = shown(&a);
        assert_eq!(first, shown(&b));
        assert_ne!(first, shown(&other));
        let hits = first.matches('x').count();
        assert!((40..80).contains(&hits), "{hits} of 200");
    }

    #[test]
    fn large_pages_and_certain_entities_can_be_singled_out() {
        let troubles = ordered(json!([{"trouble": {"slow": "70s"}, "page_above": 100}]));
        assert_eq!(met(&troubles, &Asked { page: Some(100), ..asked("read", 100) }, 1), ".");
        assert_eq!(met(&troubles, &asked("read", 100), 1), "x");
        let troubles = ordered(json!([{"trouble": {"fault": [104, "bad row"]}, "answers": {"type": "Shot", "id": 7}}]));
        let with = |id: i64| json!({"results": {"entities": [{"type": "Shot", "id": id}]}});
        assert!(troubles.look_at_answers());
        assert_eq!(met(&troubles, &asked("read", 100), 1), ".");
        assert_eq!(met(&troubles, &Asked { answer: Some(&with(8)), ..asked("read", 100) }, 1), ".");
        assert_eq!(met(&troubles, &Asked { answer: Some(&with(7)), ..asked("read", 100) }, 1), "x");
    }

    #[test]
    fn a_limit_counts_each_second_of_the_site() {
        let troubles = Troubles::default();
        let limit = serde_json::from_value(json!({"per_second": 2, "retry_after": "3s"})).expect("a limit");
        troubles.limit(Some(limit));
        assert_eq!(met(&troubles, &asked("read", 5), 4), "..xx");
        assert_eq!(met(&troubles, &asked("read", 6), 3), "..x");
        let busy = Trouble::Busy { status: 429, retry_after: Duration::from_secs(3) };
        assert_eq!(troubles.take(&asked("read", 6)), Some(busy));
    }

    #[test]
    fn an_unknown_condition_is_refused() {
        let error = serde_json::from_value::<Rule>(json!({"trouble": "html", "tiems": 3})).expect_err("a typo");
        assert!(error.to_string().contains("unknown field `tiems`"), "{error}");
    }
}
