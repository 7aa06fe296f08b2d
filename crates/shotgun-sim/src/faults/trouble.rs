//! What can go wrong with one request, and which requests it happens to.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::Value;

use super::Latency;
use config_file::{duration, optional_duration};
use shotgun_model::api3::Auth;
use shotgun_model::entity::{EntityRef, Timestamp};

/// One way in which a site fails to answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// An HTTP status with a page of HTML, as 502, 503 or 429.
    Status(u16),
    /// The same with `Retry-After`.
    Busy {
        /// The HTTP status: 429 or 503.
        status: u16,
        /// The pause of `retry-after` for the client.
        #[serde(deserialize_with = "duration")]
        retry_after: Duration,
    },
    /// HTTP 200 with a page of HTML.
    Html,
    /// The JSON of the answer, cut in half.
    Truncated,
    /// The request is carried out, a write is committed, and the connection is
    /// closed in the middle of the answer.
    #[serde(rename = "dropped_after_commit")]
    Dropped,
    /// The connection is closed and nothing was carried out.
    DroppedBefore,
    /// The request is carried out, and half of the answer is sent; the rest never comes.
    Stalled,
    /// The right answer, late.
    Slow(Latency),
    /// A fault of this code with these words.
    Fault(i64, String),
    /// A `read` that answers no rows, although there are some.
    NoRows,
    /// Any status with any body, of the content type that answers have. Nothing was
    /// carried out.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// The right answer, with every occurrence of a text replaced by bytes, which need
    /// not be JSON or UTF-8.
    Replaced {
        /// The text.
        from: String,
        /// The bytes in its place.
        to: Vec<u8>,
    },
}

/// Which requests meet a trouble. Without any condition: all of them, for ever.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub trouble: Trouble,
    /// Only requests of a method: `read`, or `read Shot` for those of one type.
    #[serde(default)]
    pub method: Option<String>,
    /// Only reads of pages with more rows than this.
    #[serde(default)]
    pub page_above: Option<u64>,
    /// Only requests whose answer holds this entity.
    #[serde(default)]
    pub answers: Option<EntityRef>,
    /// Only requests whose credentials hold this text: a script, a login, a key.
    #[serde(default)]
    pub credential: Option<String>,
    /// So many of the requests that fit are let through first.
    #[serde(default)]
    pub skip: u64,
    /// So many requests meet it; all when it is not said.
    #[serde(default)]
    pub times: Option<u64>,
    /// How many of the requests that fit meet it, from 0 to 1.
    #[serde(default = "certain")]
    pub chance: f64,
    /// It begins so long, by the clock of the site, after it was ordered.
    #[serde(default, deserialize_with = "optional_duration")]
    pub from: Option<Duration>,
    /// And ends so long after it was ordered.
    #[serde(default, deserialize_with = "optional_duration")]
    pub until: Option<Duration>,
}

fn certain() -> f64 {
    1.0
}

impl Rule {
    /// Makes the rule that every request meets the trouble, for ever.
    pub fn always(trouble: Trouble) -> Self {
        Self {
            trouble,
            method: None,
            page_above: None,
            answers: None,
            credential: None,
            skip: 0,
            times: None,
            chance: 1.0,
            from: None,
            until: None,
        }
    }
}

/// What is known of a request when it is decided whether it meets trouble.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'r> {
    /// Its method.
    pub method: &'r str,
    /// The type that it is about.
    pub entity_type: Option<&'r str>,
    /// The rows of a page that it asks for.
    pub page: Option<u64>,
    /// The time of the site.
    pub now: Timestamp,
    /// The credentials that it came with.
    pub auth: Option<&'r Auth>,
    /// The answer, when it is known already.
    pub answer: Option<&'r Value>,
}

/// A rule at work.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub rule: Rule,
    rng: StdRng,
    ordered: Timestamp,
    seen: u64,
    met: u64,
}

impl Planned {
    /// Makes a rule work from now on.
    pub fn new(rule: Rule, seed: u64, ordered: Timestamp) -> Self {
        Self { rule, rng: StdRng::seed_from_u64(seed), ordered, seen: 0, met: 0 }
    }

    /// Tells whether this request meets the trouble, and counts it.
    pub fn meets(&mut self, asked: &Asked<'_>) -> bool {
        if self.is_over(asked.now) || !self.fits(asked) {
            return false;
        }
        self.seen += 1;
        // Drawn for each request that fits, so that `skip` does not shift the draws.
        let hit = self.rule.chance >= 1.0 || self.rng.random::<f64>() < self.rule.chance;
        let meets = hit && self.seen > self.rule.skip;
        self.met += u64::from(meets);
        meets
    }

    /// Tells whether no further request can meet it.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let late = self.rule.until.is_some_and(|until| self.age(now) >= until);
        late || self.rule.times.is_some_and(|times| self.met >= times)
    }

    fn age(&self, now: Timestamp) -> Duration {
        Duration::from_secs(u64::try_from(now.0 - self.ordered.0).unwrap_or(0))
    }

    fn fits(&self, asked: &Asked<'_>) -> bool {
        let Rule { method, page_above, answers, credential, from, .. } = &self.rule;
        let named = match method {
            None => true,
            Some(wanted) => match wanted.split_once(' ') {
                None => wanted == asked.method,
                Some((method, ty)) => method == asked.method && Some(ty) == asked.entity_type,
            },
        };
        let large = page_above.is_none_or(|least| asked.page.is_some_and(|page| page > least));
        let begun = from.is_none_or(|from| self.age(asked.now) >= from);
        let answered = match (answers, asked.answer) {
            (None, None) => true,
            (Some(wanted), Some(answer)) => holds(answer, wanted),
            _ => false,
        };
        let credited = credential.as_ref().is_none_or(|text| asked.auth.is_some_and(|auth| auth.holds(text)));
        named && large && begun && answered && credited
    }
}

/// Tells whether an answer has a row of its own for an entity; links do not count.
fn holds(answer: &Value, wanted: &EntityRef) -> bool {
    let results = &answer["results"];
    let rows = results["entities"].as_array().or(results.as_array());
    let is = |row: &Value| EntityRef::from_json(row).as_ref() == Some(wanted);
    rows.map_or_else(|| is(results), |rows| rows.iter().any(is))
}
