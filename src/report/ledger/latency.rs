//! A histogram of durations that can be stored, added up and asked for quantiles.
//!
//! The bounds are fixed (eight per doubling, from 0.05 ms), so that buckets of different
//! hours add up; a quantile is therefore exact to about 5 %. Sum and maximum are exact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The upper bound of the first bin, in milliseconds.
const FIRST_BOUND: f64 = 0.05;
/// Bins per doubling.
const BINS_PER_OCTAVE: f64 = 8.0;
/// The last bin holds everything above about 100 s.
const LAST_BIN: u8 = 168;

/// Durations in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// All of them added up, in milliseconds.
    pub sum_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// How many fell into each bin; empty bins are left out.
    pub bins: BTreeMap<u8, u64>,
}

impl Latencies {
    /// Adds one duration, in milliseconds.
    pub fn add(&mut self, ms: f64) {
        self.sum_ms += ms;
        self.max_ms = self.max_ms.max(ms);
        *self.bins.entry(bin(ms)).or_default() += 1;
    }

    /// Adds those of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.sum_ms += other.sum_ms;
        self.max_ms = self.max_ms.max(other.max_ms);
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.bins.values().sum()
    }

    /// Returns the duration, in milliseconds, that a share of 0 to 1 does not exceed;
    /// `None` when there is none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let found = self.bins.iter().find(|(_, in_bin)| {
            seen += **in_bin;
            seen >= rank
        });
        // The middle of the bin, on the scale on which bins are equally wide.
        let middle = |bin: u8| FIRST_BOUND * ((f64::from(bin) - 0.5) / BINS_PER_OCTAVE).exp2();
        found.map(|(bin, _)| middle(*bin).min(self.max_ms))
    }
}

fn bin(ms: f64) -> u8 {
    let place = (ms.max(FIRST_BOUND) / FIRST_BOUND).log2() * BINS_PER_OCTAVE;
    // Between 0 and the last bin, so nothing is cut off.
    place.ceil().min(f64::from(LAST_BIN)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_exact_ones_and_sums_are_exact() {
        let (mut early, mut late, mut all) = (Latencies::default(), Latencies::default(), Vec::new());
        for step in 0..2000_u32 {
            let ms = 0.2 + f64::from(step * step % 997);
            if step % 2 == 0 {
                early.add(ms)
            } else {
                late.add(ms)
            }
            all.push(ms);
        }
        early.merge(&late);
        all.sort_by(f64::total_cmp);
        assert_eq!(early.count(), 2000);
        assert!((early.sum_ms - all.iter().sum::<f64>()).abs() < 1e-6);
        assert_eq!(early.quantile(1.0), Some(early.max_ms).filter(|max| *max <= all[1999]));
        for (share, index) in [(0.5, 999), (0.95, 1899)] {
            let found = early.quantile(share).expect("a quantile");
            assert!((found / all[index] - 1.0).abs() < 0.06, "{share}: {found} is not {}", all[index]);
        }
        assert_eq!(Latencies::default().quantile(0.5), None);
    }
}
