//! Looks for the smallest mixture that still diverges.

use super::divergence;
use super::mixture::Moment;
use super::play::SERVED;

/// How many smaller mixtures are tried to explain a divergence.
const SHRINKING_RUNS: usize = 80;

/// Removes moments, then single happenings, as long as the mixture still diverges.
pub(super) async fn shrink(seed: u64, mut moments: Vec<Moment>, found: &str) -> Vec<Moment> {
    let kind = |what: &str| what.contains(SERVED);
    let diverges = |moments: Vec<Moment>| async move {
        divergence(seed, moments).await.is_some_and(|what| kind(&what) == kind(found))
    };
    let after = found.strip_prefix("after moment ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
    moments.truncate(after.map_or(moments.len(), |last| last + 1));
    let mut runs = 0;
    let mut size = moments.len() / 2;
    while size > 0 && runs < SHRINKING_RUNS {
        let mut from = 0;
        while from < moments.len() && runs < SHRINKING_RUNS {
            let mut fewer = moments.clone();
            fewer.drain(from..(from + size).min(moments.len()));
            runs += 1;
            match diverges(fewer.clone()).await {
                true => moments = fewer,
                false => from += size,
            }
        }
        size /= 2;
    }
    for number in 0..moments.len() {
        let mut from = 0;
        while from < moments[number].happenings.len() && runs < SHRINKING_RUNS {
            let mut fewer = moments.clone();
            fewer[number].happenings.remove(from);
            runs += 1;
            match diverges(fewer.clone()).await {
                true => moments = fewer,
                false => from += 1,
            }
        }
    }
    moments
}
