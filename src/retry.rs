//! Bounded retries with backoff.
//!
//! Decides whether and when to try again; what is tried is the caller's matter.

use std::time::Duration;

use rand::Rng;

/// How often and how patiently something is tried.
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
    /// 1) was the last.
    ///
    /// The pause is drawn evenly from zero up to the bound, so that clients that
    /// failed together do not come back together. What the server asked for
    /// (`Retry-After`) is the least, up to [`RetryPolicy::max`].
    pub fn pause_after(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.initial.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let bound = doubled.min(self.max);
        let drawn = bound.mul_f64(rand::rng().random::<f64>());
        Some(drawn.max(asked.unwrap_or_default().min(self.max)))
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
}
