//! Statistics over runs, and over rounds and slices. Pure functions; the message is never the
//! unit.
//!
//! Every formula here is written out in `docs/method.md`; change both or neither.

mod direction;
mod effect;
mod power;
mod rank_sum;
pub mod rng;
mod signed_rank;
mod student;
mod two_level;

pub use direction::Direction;
pub(crate) use direction::invert;
pub use effect::{
    ALPHA, POWER, cliffs_delta, holm, minimal_detectable, minimal_detectable_unpaired,
};
pub use power::{ROUNDS_TO_DRAW_FROM, power_curve};
pub use rank_sum::rank_sum_p;
pub use signed_rank::signed_rank_p;
pub use student::t_quantile;
pub use two_level::{
    ROUNDS_AFTER_NARROW, ROUNDS_FOR_A_CLAIM, TwoLevel, rounds_needed, trimmed_mean, two_level,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use rng::SplitMix64;

/// Below this many paired runs no claim is made, whatever the interval says.
pub const RUNS_FOR_A_CLAIM: usize = 10;
/// Resamples of the bootstrap.
pub const RESAMPLES: usize = 10_000;

/// Several runs in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// Number of runs.
    pub n: usize,
    /// Median of the runs.
    pub median: f64,
    /// Median absolute deviation from the median, in the unit of the value, not scaled.
    pub mad: f64,
    /// First quartile.
    pub q1: f64,
    /// Third quartile.
    pub q3: f64,
    /// Smallest run.
    pub min: f64,
    /// Largest run.
    pub max: f64,
}

impl Spread {
    /// Of `values`; `None` if there are none or one of them is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values)?;
        let median = quantile(&sorted, 0.5);
        let deviations: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
        Some(Self {
            n: sorted.len(),
            median,
            mad: median_of(&deviations)?,
            q1: quantile(&sorted, 0.25),
            q3: quantile(&sorted, 0.75),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        })
    }
}

/// Ratio of two contestants over the blocks in which both have a valid run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairedRatio {
    /// Number of pairs.
    pub pairs: usize,
    /// exp(median of ln(first / second)).
    pub ratio: f64,
    /// Lower end of the bootstrap 95% interval of `ratio`.
    pub ci_low: f64,
    /// Upper end of the bootstrap 95% interval of `ratio`.
    pub ci_high: f64,
    /// Seed of the resampling.
    pub seed: u64,
}

impl PairedRatio {
    /// Half the width of the interval, as a share: 0.03 for one from 0.97 to 1.03 times the ratio.
    /// The same for both orders of the sides.
    pub fn half_width(&self) -> f64 {
        (self.ci_high / self.ci_low).sqrt() - 1.0
    }
}

/// ln(first / second) of every pair; `None` without pairs or when a value is not positive and
/// finite.
pub fn log_ratios(pairs: &[(f64, f64)]) -> Option<Vec<f64>> {
    let usable = |value: f64| value.is_finite() && value > 0.0;
    let all_usable = pairs.iter().all(|(a, b)| usable(*a) && usable(*b));
    (all_usable && !pairs.is_empty()).then(|| pairs.iter().map(|(a, b)| (a / b).ln()).collect())
}

/// Ratio first / second from the [`log_ratios`] of the pairs.
///
/// The estimate is exp(median of the log-ratios). The interval is the percentile bootstrap:
/// `resamples` times ([`RESAMPLES`] in results) draw as many pairs as there are, with replacement,
/// and take the median of their log-ratios; the 2.5% and 97.5% quantiles of those medians (linear
/// interpolation) are its ends. `None` without log-ratios or when one is not finite.
pub fn paired_ratio(log_ratios: &[f64], seed: u64, resamples: usize) -> Option<PairedRatio> {
    let sorted = sorted(log_ratios)?;
    let mut rng = SplitMix64::new(seed);
    let mut medians = bootstrap_medians(log_ratios, &sorted, &mut rng, resamples.max(1));
    medians.sort_unstable_by(f64::total_cmp);
    Some(PairedRatio {
        pairs: log_ratios.len(),
        ratio: quantile(&sorted, 0.5).exp(),
        ci_low: quantile(&medians, 0.025).exp(),
        ci_high: quantile(&medians, 0.975).exp(),
        seed,
    })
}

/// Ratio of the medians of two samples that are not paired, such as the runs of two result folders;
/// [`PairedRatio::pairs`] is the size of the smaller one.
///
/// The interval is the percentile bootstrap as in [`paired_ratio`], each sample being resampled on
/// its own: all resamples of the first are drawn before those of the second. `None` when a sample
/// is empty or a value is not positive and finite.
pub fn unpaired_ratio(
    first: &[f64],
    second: &[f64],
    seed: u64,
    resamples: usize,
) -> Option<PairedRatio> {
    let positive = |values: &[f64]| values.iter().all(|value| *value > 0.0);
    if !positive(first) || !positive(second) {
        return None;
    }
    let (sorted_first, sorted_second) = (sorted(first)?, sorted(second)?);
    let mut rng = SplitMix64::new(seed);
    let firsts = bootstrap_medians(first, &sorted_first, &mut rng, resamples.max(1));
    let seconds = bootstrap_medians(second, &sorted_second, &mut rng, resamples.max(1));
    let mut ratios: Vec<f64> = firsts.iter().zip(&seconds).map(|(a, b)| a / b).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    Some(PairedRatio {
        pairs: first.len().min(second.len()),
        ratio: quantile(&sorted_first, 0.5) / quantile(&sorted_second, 0.5),
        ci_low: quantile(&ratios, 0.025),
        ci_high: quantile(&ratios, 0.975),
        seed,
    })
}

/// Medians of resamples of `values`, which are drawn in their own order and counted in `sorted`
/// order: a median is found by walking the counts, which is several times faster than sorting every
/// resample.
fn bootstrap_medians(
    values: &[f64],
    sorted: &[f64],
    rng: &mut SplitMix64,
    resamples: usize,
) -> Vec<f64> {
    let n = values.len();
    let place_of: Vec<usize> = values
        .iter()
        .map(|value| sorted.partition_point(|other| other < value))
        .collect();
    let mut drawn = vec![0_usize; n];
    (0..resamples)
        .map(|_| {
            drawn.fill(0);
            for _ in 0..n {
                drawn[place_of[rng.below(n)]] += 1;
            }
            let (low, high) = middle(&drawn);
            // The arithmetic of `quantile`, to the last digit.
            sorted[low] + (((n - 1) % 2) as f64 / 2.0) * (sorted[high] - sorted[low])
        })
        .collect()
}

/// Places of the two middle elements of a resample (one and the same if their number is odd), from
/// how often each was drawn.
fn middle(drawn: &[usize]) -> (usize, usize) {
    let n: usize = drawn.iter().sum();
    let place_of = |rank: usize| {
        let mut seen = 0;
        drawn.iter().position(|count| {
            seen += count;
            seen > rank
        })
    };
    let low = place_of((n - 1) / 2).unwrap_or(0);
    (low, place_of(n / 2).unwrap_or(low))
}

/// Mean and standard deviation (n - 1); `None` with fewer than two values or when one is not
/// finite.
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / (n - 1.0)).sqrt()))
}

/// Median of unsorted values; `None` if there are none or one is not finite.
pub fn median_of(values: &[f64]) -> Option<f64> {
    sorted(values).map(|sorted| quantile(&sorted, 0.5))
}

/// Quantile of sorted, non-empty values by linear interpolation (type 7: NumPy's and R's default).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(sorted)
}

/// Twice the rank of each of the sorted values, so that the mean rank of a tie is a whole number.
fn doubled_ranks<T>(sorted: &[T], tied: impl FnMut(&T, &T) -> bool) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for tied in sorted.chunk_by(tied) {
        let first = ranks.len() + 1;
        let last = ranks.len() + tied.len();
        ranks.extend(std::iter::repeat_n(first + last, tied.len()));
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio_of(pairs: &[(f64, f64)], seed: u64) -> PairedRatio {
        paired_ratio(&log_ratios(pairs).unwrap(), seed, 1000).unwrap()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn quantiles_match_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0, .25, .5, .75, 1]) = [1, 1.75, 3, 5, 8]
        let values = [1.0, 2.0, 4.0, 8.0];
        let quantiles: Vec<f64> = [0.0, 0.25, 0.5, 0.75, 1.0]
            .iter()
            .map(|q| quantile(&values, *q))
            .collect();
        assert_eq!(quantiles, [1.0, 1.75, 3.0, 5.0, 8.0]);
        assert_eq!(quantile(&[5.0], 0.975), 5.0);
    }

    #[test]
    fn spread_of_a_known_sample() {
        let spread = Spread::of(&[8.0, 1.0, 4.0, 2.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                n: 4,
                median: 3.0,
                mad: 1.5,
                q1: 1.75,
                q3: 5.0,
                min: 1.0,
                max: 8.0
            }
        );
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_constant_factor_is_found_exactly_whatever_the_drift() {
        let pairs: Vec<(f64, f64)> = (1..=12)
            .map(|i| (1.25 * f64::from(i), f64::from(i)))
            .collect();
        let ratio = ratio_of(&pairs, 1);
        assert!(
            close(ratio.ratio, 1.25) && close(ratio.ci_low, 1.25) && close(ratio.ci_high, 1.25)
        );
        assert_eq!(ratio.pairs, 12);
    }

    #[test]
    fn swapping_the_sides_inverts_ratio_and_interval() {
        let pairs = [(1.0, 1.1), (1.3, 1.0), (0.9, 1.0), (1.2, 1.1), (1.05, 1.0)];
        let swapped: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        let (ab, ba) = (ratio_of(&pairs, 9), ratio_of(&swapped, 9));
        assert!(close(ab.half_width(), ba.half_width()));
        assert!(close(ab.ratio, 1.0 / ba.ratio));
        assert!(close(ab.ci_low, 1.0 / ba.ci_high) && close(ab.ci_high, 1.0 / ba.ci_low));
    }

    #[test]
    fn values_that_have_no_logarithm_give_no_ratio() {
        assert_eq!(log_ratios(&[]), None);
        assert_eq!(log_ratios(&[(0.0, 1.0)]), None);
        assert_eq!(log_ratios(&[(1.0, f64::INFINITY)]), None);
        assert_eq!(paired_ratio(&[], 1, 1000), None);
        assert_eq!(paired_ratio(&[f64::NAN], 1, 1000), None);
        assert_eq!(unpaired_ratio(&[1.0], &[0.0], 1, 1000), None);
        assert_eq!(unpaired_ratio(&[1.0], &[], 1, 1000), None);
        assert_eq!(unpaired_ratio(&[f64::NAN], &[1.0], 1, 1000), None);
    }
}
