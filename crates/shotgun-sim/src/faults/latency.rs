//! How long a site takes to answer: always the same, or drawn from a
//! distribution.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Deserializer, de::Error};

use config_file::{duration, parse_duration};

/// A distribution of delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Anything between the two, equally often.
    Uniform(Duration, Duration),
    /// Log-normal, as times over a network are: half of the delays are shorter
    /// than the first, one of a hundred is longer than the second.
    LogNormal(Duration, Duration),
}

/// How many deviations above the median one of a hundred draws lies.
const P99_DEVIATIONS: f64 = 2.326_347_874;

impl Latency {
    /// No delay.
    pub const NONE: Self = Self::Fixed(Duration::ZERO);

    /// Draws one delay. Where in it the site works is drawn as well.
    pub fn delay(self, rng: &mut impl Rng) -> Delay {
        let whole = self.sample(rng);
        let before = whole.mul_f64(rng.random::<f64>());
        Delay { before, after: whole - before }
    }

    /// Draws how long one delay is.
    pub fn sample(self, rng: &mut impl Rng) -> Duration {
        match self {
            Self::Fixed(delay) => delay,
            Self::Uniform(least, most) => least + most.saturating_sub(least).mul_f64(rng.random::<f64>()),
            Self::LogNormal(median, p99) => {
                let deviation = (p99.as_secs_f64() / median.as_secs_f64().max(1e-9)).ln().max(0.0) / P99_DEVIATIONS;
                // One step of Box-Muller; the first number must not be zero.
                let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                Duration::try_from_secs_f64(median.as_secs_f64() * (deviation * normal).exp()).unwrap_or(p99)
            }
        }
    }
}

/// A delay of one request: it reaches the rows, and its answer comes back. What is
/// committed meanwhile is in the answer or not, so an answer may be old when it comes,
/// and a later request may be answered from earlier rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    /// Until the rows are read or written.
    pub before: Duration,
    /// From then on until the answer is sent.
    pub after: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<Duration> for Latency {
    fn from(delay: Duration) -> Self {
        Self::Fixed(delay)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Uniform {
        #[serde(deserialize_with = "duration")]
        from: Duration,
        #[serde(deserialize_with = "duration")]
        to: Duration,
    },
    LogNormal {
        #[serde(deserialize_with = "duration")]
        median: Duration,
        #[serde(deserialize_with = "duration")]
        p99: Duration,
    },
}

/// `330ms`, `{uniform: {from: 80ms, to: 400ms}}` or
/// `{log_normal: {median: 330ms, p99: 2s}}`.
impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if let Some(text) = value.as_str() {
            return parse_duration(text).map(Self::Fixed).map_err(D::Error::custom);
        }
        match serde_json::from_value(value).map_err(D::Error::custom)? {
            Written::Uniform { from, to } if from <= to => Ok(Self::Uniform(from, to)),
            Written::LogNormal { median, p99 } if median <= p99 => Ok(Self::LogNormal(median, p99)),
            Written::Uniform { .. } => Err(D::Error::custom("`from` is longer than `to`")),
            Written::LogNormal { .. } => Err(D::Error::custom("`median` is longer than `p99`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::{Value, json};

    use super::*;

    fn drawn(written: Value) -> Vec<Duration> {
        let latency: Latency = serde_json::from_value(written).expect("a latency");
        let mut rng = StdRng::seed_from_u64(5);
        let mut delays: Vec<_> = (0..2_000).map(|_| latency.sample(&mut rng)).collect();
        delays.sort_unstable();
        delays
    }

    #[test]
    fn the_site_works_anywhere_in_a_delay() {
        let mut rng = StdRng::seed_from_u64(5);
        let whole = Duration::from_millis(100);
        let delays: Vec<_> = (0..1_000).map(|_| Latency::Fixed(whole).delay(&mut rng)).collect();
        assert!(delays.iter().all(|delay| delay.before + delay.after == whole));
        let early = delays.iter().filter(|delay| delay.before < whole / 4).count();
        let late = delays.iter().filter(|delay| delay.after < whole / 4).count();
        assert!((200..300).contains(&early) && (200..300).contains(&late), "{early} {late}");
    }

    #[test]
    fn delays_follow_their_distribution() {
        assert_eq!(drawn(json!("330ms"))[1_000], Duration::from_millis(330));
        let uniform = drawn(json!({"uniform": {"from": "80ms", "to": "400ms"}}));
        assert!(uniform[0] >= Duration::from_millis(80) && uniform[1_999] <= Duration::from_millis(400));
        assert!((220..260).contains(&uniform[1_000].as_millis()), "{:?}", uniform[1_000]);
        let tailed = drawn(json!({"log_normal": {"median": "300ms", "p99": "2s"}}));
        assert!((280..320).contains(&tailed[1_000].as_millis()), "{:?}", tailed[1_000]);
        assert!((1_600..2_600).contains(&tailed[1_980].as_millis()), "{:?}", tailed[1_980]);
    }

    #[test]
    fn a_latency_without_a_unit_is_refused() {
        let error = serde_json::from_value::<Latency>(json!("330")).expect_err("no unit");
        assert!(error.to_string().contains("has no unit"), "{error}");
        let error = serde_json::from_value::<Latency>(json!({"uniform": {"from": "2s", "to": "1s"}}));
        assert_eq!(error.expect_err("an empty range").to_string(), "`from` is longer than `to`");
    }
}
