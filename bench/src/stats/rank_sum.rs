//! Wilcoxon's rank-sum test (Mann-Whitney U), for runs that are not paired: two result folders.
//!
//! If both folders hold runs of equal servers on an equally noisy machine, every way to deal the
//! runs to the two folders was as likely as the one that happened, and counting those ways is
//! exact. What the test cannot know is whether the machine itself changed between the two;
//! interleaving would show it, a comparison of folders cannot.

use statrs::distribution::{ContinuousCDF, Normal};

use super::doubled_ranks;

/// With more runs than this in one of the samples the normal approximation is as good.
const COUNTED_EXACTLY: usize = 50;

/// Two-sided p-value of the hypothesis that `first` and `second` come from one distribution. Ties
/// get the mean of their ranks and are counted as such; 1 when one of the samples is empty or all
/// values are equal.
///
/// The same as SciPy's `mannwhitneyu`: exact, or with `method="asymptotic", use_continuity=True`
/// above fifty runs.
pub fn rank_sum_p(first: &[f64], second: &[f64]) -> f64 {
    if first.is_empty() || second.is_empty() {
        return 1.0;
    }
    let mut all: Vec<(f64, bool)> = first
        .iter()
        .map(|value| (*value, true))
        .chain(second.iter().map(|value| (*value, false)))
        .collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let ranks = doubled_ranks(&all, |a, b| a.0 == b.0);
    let observed: usize = all
        .iter()
        .zip(&ranks)
        .filter(|((_, is_first), _)| *is_first)
        .map(|(_, rank)| *rank)
        .sum();
    if first.len().max(second.len()) > COUNTED_EXACTLY {
        return approximate(&ranks, first.len(), observed);
    }
    let ways = ways(&ranks, first.len());
    let total: f64 = ways.iter().sum();
    let below: f64 = ways[..=observed].iter().sum();
    let above: f64 = ways[observed..].iter().sum();
    (2.0 * below.min(above) / total).min(1.0)
}

/// In how many ways `chosen` of the ranks have each sum.
fn ways(ranks: &[usize], chosen: usize) -> Vec<f64> {
    let sums = ranks.iter().sum::<usize>() + 1;
    let mut ways = vec![vec![0.0; sums]; chosen + 1];
    ways[0][0] = 1.0;
    for (seen, rank) in ranks.iter().enumerate() {
        for taken in (1..=chosen.min(seen + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(taken);
            for (without, with) in fewer[taken - 1].iter().zip(&mut more[0][*rank..]) {
                *with += without;
            }
        }
    }
    ways.swap_remove(chosen)
}

/// With continuity correction; ties are in the variance.
fn approximate(ranks: &[usize], chosen: usize, observed: usize) -> f64 {
    let n = ranks.len() as f64;
    let (first, second) = (chosen as f64, n - chosen as f64);
    let mean = (n + 1.0) / 2.0;
    // Of single ranks: these are doubled.
    let spread: f64 = ranks
        .iter()
        .map(|rank| (*rank as f64 / 2.0 - mean).powi(2))
        .sum();
    let variance = first * second / (n * (n - 1.0)) * spread;
    if variance == 0.0 {
        return 1.0;
    }
    let distance = ((observed as f64 / 2.0 - first * mean).abs() - 0.5).max(0.0);
    (2.0 * Normal::standard().sf(distance / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_by_hand() {
        // One deal of six as extreme on each side.
        assert_eq!(rank_sum_p(&[1.0, 2.0], &[3.0, 4.0]), 2.0 / 6.0);
        assert_eq!(rank_sum_p(&[1.0, 3.0], &[2.0, 4.0]), 4.0 / 6.0);
        assert_eq!(rank_sum_p(&[1.0], &[2.0]), 1.0);
        // Three of the six deals take 2 x 2 of the tied values.
        assert_eq!(rank_sum_p(&[2.0, 2.0], &[1.0, 2.0]), 1.0);
    }

    #[test]
    fn equal_samples_give_one_and_sides_do_not_matter() {
        assert_eq!(rank_sum_p(&[], &[1.0]), 1.0);
        assert_eq!(rank_sum_p(&[5.0; 12], &[5.0; 60]), 1.0);
        let (a, b) = ([1.0, 4.0, 4.0, 7.5], [2.0, 4.0, 8.0, 9.0, 11.0]);
        assert_eq!(rank_sum_p(&a, &b), rank_sum_p(&b, &a));
    }
}
