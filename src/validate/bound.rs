//! What a sample says about the whole: an upper bound on the share of stale rows.
//!
//! Pure arithmetic: the one-sided 95 % Clopper-Pearson bound, the largest share
//! under which a sample with so few stale rows still has a chance of 5 %.

const CHANCE: f64 = 0.05;

/// Returns the bound for `stale` rows among `checked` drawn at random, between 0
/// and 1; `None` when nothing was checked.
pub fn stale_ratio_upper95(stale: u64, checked: u64) -> Option<f64> {
    if checked == 0 {
        return None;
    }
    if stale >= checked {
        return Some(1.0);
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // 60 halvings reach the precision of a double.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if chance_of_at_most(stale, checked, middle) > CHANCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

/// Returns the chance of at most `most` hits in `trials` at this share.
fn chance_of_at_most(most: u64, trials: u64, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    if share >= 1.0 {
        return 0.0;
    }
    let (hit, miss) = (share.ln(), (1.0 - share).ln());
    let mut log_choose = 0.0;
    let mut sum = 0.0;
    for hits in 0..=most {
        if hits > 0 {
            log_choose += ((trials - hits + 1) as f64).ln() - (hits as f64).ln();
        }
        sum += (log_choose + hits as f64 * hit + (trials - hits) as f64 * miss).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stale: u64, checked: u64, percent: f64) {
        let bound = stale_ratio_upper95(stale, checked).expect("something was checked") * 100.0;
        assert!((bound - percent).abs() < 0.006, "{stale} of {checked}: {bound} %");
    }

    /// The values are those of published Clopper-Pearson tables.
    #[test]
    fn bounds_are_those_of_the_tables() {
        check(0, 300, 0.99);
        check(1, 300, 1.57);
        check(2, 1000, 0.63);
        check(0, 10_000, 0.030);
        check(5, 5, 100.0);
        assert_eq!(stale_ratio_upper95(0, 0), None);
    }
}
