//! Bounded retries with backoff, and the pause that a server asks for.
//!
//! Decides whether and when to try again; what is tried is the caller's matter.

use std::time::Duration;

use chrono::DateTime;
use rand::Rng;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest pause of a server that is waited for inside of one request. After a
/// longer one the next attempt at the whole work comes, no earlier than asked.
pub const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Reads `Retry-After`, in seconds or as a date; `None` when there is none that can be
/// understood. A date is compared with the `Date` of the same answer, so no local
/// clock is needed.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(asked).ok()?;
    let now = DateTime::parse_from_rfc2822(text(DATE)?).ok()?;
    // A moment that has passed is no pause.
    Some((at - now).to_std().unwrap_or_default())
}

/// Returns `first`, doubled `times` times, but not more than `longest`.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// The number of attempts and the pauses between them.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// The longest pause before the second attempt; it doubles with each one.
    pub initial: Duration,
    /// The longest pause at all.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 4, initial: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// Tries once.
    pub fn once() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// Returns the pause before the next attempt, or `None` when `attempt` (from
    /// 1) was the last, or the server asked for more than [`LONGEST_ASKED`].
    ///
    /// The pause is drawn evenly from zero up to the bound, so that clients that
    /// failed together do not come back together. What the server asked for
    /// (`Retry-After`) is the least: to come earlier is to be refused again.
    pub fn pause_after(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        let asked = asked.unwrap_or_default();
        if attempt >= self.attempts || asked > LONGEST_ASKED {
            return None;
        }
        let bound = doubled(self.initial, attempt.saturating_sub(1), self.max);
        let drawn = bound.mul_f64(rand::rng().random::<f64>());
        Some(drawn.max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_has_no_pause() {
        let policy = RetryPolicy { attempts: 2, ..RetryPolicy::default() };
        assert!(policy.pause_after(1, None).is_some());
        assert_eq!(policy.pause_after(2, None), None);
    }

    #[test]
    fn pauses_stay_below_the_bound_and_above_what_was_asked() {
        let policy = RetryPolicy { attempts: 99, initial: Duration::from_secs(1), max: Duration::from_secs(8) };
        for attempt in 1..90 {
            let pause = policy.pause_after(attempt, Some(Duration::from_secs(2))).expect("not the last");
            assert!((Duration::from_secs(2)..=Duration::from_secs(8)).contains(&pause), "{attempt}: {pause:?}");
        }
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_never_cut_short() {
        let policy = RetryPolicy::default();
        for seconds in [31, 120, 600] {
            let asked = Duration::from_secs(seconds);
            assert_eq!(policy.pause_after(1, Some(asked)), Some(asked));
        }
        assert_eq!(policy.pause_after(1, Some(Duration::from_secs(601))), None, "rather not at all than too early");
    }

    #[test]
    fn a_pause_is_read_in_seconds_and_as_a_date() {
        let read = |asked: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.parse().expect("a value"));
            date.map(|date| headers.insert(DATE, date.parse().expect("a value")));
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        let now = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(read(" 120 ", None), Some(120));
        assert_eq!(read("Wed, 21 Oct 2015 07:30:30 GMT", now), Some(150));
        assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT", now), Some(0));
        assert_eq!(read("Wed, 21 Oct 2015 07:30:30 GMT", None), None, "no clock but the server's own");
        assert_eq!(read("soon", now), None);
        assert_eq!(read("-1", now), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
