//! Sizes of effects: how large one is, how large one must be to be found, and what many looks cost.

use super::mean_and_deviation;
use super::student::t_quantile;

/// A claim is wrong at most this often.
pub const ALPHA: f64 = 0.05;
/// The minimal detectable effect is found this often.
pub const POWER: f64 = 0.8;

/// Cliff's delta: how much more often a run of `first` is above one of `second` than below it, over
/// all pairs of runs. From -1 (all below) over 0 to 1 (all above); `None` if there is no pair.
pub fn cliffs_delta(first: &[f64], second: &[f64]) -> Option<f64> {
    let pairs = first.len() * second.len();
    let dominance: i64 = first
        .iter()
        .flat_map(|a| {
            second
                .iter()
                .map(move |b| i64::from(a > b) - i64::from(a < b))
        })
        .sum();
    (pairs > 0).then(|| dominance as f64 / pairs as f64)
}

/// The smallest ratio above 1 that as many pairs as these, spread as these, would show with
/// [`POWER`] when wrong claims are held to [`ALPHA`] over a family of `family` metrics. `None` with
/// fewer than two pairs.
///
/// `exp((t(1 - alpha / 2 / family) + t(power)) * sqrt(pi / 2) * s / sqrt(n))`, `s` being the
/// standard deviation of the n log-ratios, `t` the quantiles of Student's t with n - 1 degrees of
/// freedom (Bloom 1995), and `sqrt(pi / 2)` the price of a median instead of a mean.
/// `tests/simulation.rs` checks that such an effect is indeed found that often.
pub fn minimal_detectable(log_ratios: &[f64], family: usize) -> Option<f64> {
    let (_, deviation) = mean_and_deviation(log_ratios)?;
    let n = log_ratios.len() as f64;
    detectable(deviation / n.sqrt(), n - 1.0, family)
}

/// The same for the medians of two samples that are not paired: `s / sqrt(n)` is then the root of
/// the sum of both squares, over the logarithms of the values, and the degrees of freedom are
/// Welch's. `None` when a sample has fewer than two values.
pub fn minimal_detectable_unpaired(first: &[f64], second: &[f64], family: usize) -> Option<f64> {
    let variance_of_mean = |values: &[f64]| -> Option<(f64, f64)> {
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        let (_, deviation) = mean_and_deviation(&logs)?;
        let n = logs.len() as f64;
        Some((deviation.powi(2) / n, n - 1.0))
    };
    let ((first, first_freedom), (second, second_freedom)) =
        (variance_of_mean(first)?, variance_of_mean(second)?);
    let variance = first + second;
    if variance == 0.0 {
        return Some(1.0);
    }
    let welch =
        variance.powi(2) / (first.powi(2) / first_freedom + second.powi(2) / second_freedom);
    detectable(variance.sqrt(), welch, family)
}

/// From the standard error of a mean of logarithms to a ratio.
fn detectable(standard_error: f64, degrees_of_freedom: f64, family: usize) -> Option<f64> {
    let median_costs = std::f64::consts::FRAC_PI_2.sqrt();
    let found = (errors_to_find(degrees_of_freedom, family) * median_costs * standard_error).exp();
    found.is_finite().then_some(found)
}

/// So many standard errors away from nothing is what [`POWER`] of the suites find.
pub(super) fn errors_to_find(degrees_of_freedom: f64, family: usize) -> f64 {
    let claimed = 1.0 - ALPHA / 2.0 / family.max(1) as f64;
    t_quantile(claimed, degrees_of_freedom) + t_quantile(POWER, degrees_of_freedom)
}

/// Holm's step-down: p-values that may each be held against alpha although there are several. In
/// the order given.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut worst = 0.0_f64;
    for (rank, place) in order.into_iter().enumerate() {
        let left = (p_values.len() - rank) as f64;
        worst = worst.max((left * p_values[place]).min(1.0));
        adjusted[place] = worst;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cliffs_delta_at_its_ends_and_between() {
        assert_eq!(cliffs_delta(&[3.0, 4.0], &[1.0, 2.0]), Some(1.0));
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[3.0, 4.0]), Some(-1.0));
        assert_eq!(cliffs_delta(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!(cliffs_delta(&[], &[1.0]), None);
    }

    #[test]
    fn more_pairs_detect_less_and_more_looks_cost() {
        let logs = |n: usize| -> Vec<f64> { (0..n).map(|i| 0.1 * (i % 3) as f64).collect() };
        let of = |n: usize, family: usize| minimal_detectable(&logs(n), family).unwrap();
        assert!(of(10, 1) > of(20, 1) && of(20, 1) > of(80, 1) && of(80, 1) > 1.0);
        assert!(of(10, 4) > of(10, 1));
        assert_eq!(minimal_detectable(&[0.1], 1), None);
        assert_eq!(minimal_detectable(&[0.1, 0.1], 1), Some(1.0));
        assert_eq!(minimal_detectable_unpaired(&[1.0], &[1.0, 2.0], 1), None);
        assert_eq!(
            minimal_detectable_unpaired(&[3.0, 3.0], &[3.0, 3.0], 1),
            Some(1.0)
        );
    }
}
