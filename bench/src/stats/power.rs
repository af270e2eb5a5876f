//! How often a ratio is called, from rounds of contestants that are equal.
//!
//! Suites that never ran are put together from rounds that did. What that can show is what the
//! slices and the starts of processes do to an interval. What it cannot:
//!
//! - A round is drawn without its time. Rounds of one suite lie minutes apart and share the speed
//!   of the machine; rounds of many suites do not. What lasts longer than a suite is spread over
//!   all of them, and looks like a difference between rounds.
//! - Sides are swapped at random, since neither of two equals is the first. So a bias (the first to
//!   start is faster, say) does not show as false calls; the ratio over all rounds shows it.
//! - An effect is added to equals. Unlike programs differ from round to round besides, and are told
//!   apart less often: planted delays say how much.
//! - There are no more processes than rounds. With few rounds the curve is smooth and wrong: its
//!   error is that of so many rounds, whatever the number of suites.

use super::rng::SplitMix64;
use super::two_level::two_level;

/// Suites that are put together.
const SUITES: usize = 2000;
/// Rounds that must be there for each round of a suite.
pub const ROUNDS_TO_DRAW_FROM: usize = 4;

/// Of suites of `rounds_per_suite` rounds, for each of the `effects` (true ratios of the first side
/// to the second): the effect, and the share of the suites that call it. For an effect of 1 either
/// side's win is a call, for any other the right side's.
///
/// `rounds` are the log ratios of the cycles of equal contestants, all of one bout and metric. Each
/// suite draws rounds with replacement and swaps the sides of each with a chance of one half; the
/// same suites serve all effects. A suite calls a winner by [`two_level`]'s interval. `None`
/// without four rounds for each round of a suite, or where [`two_level`] has nothing to say.
pub fn power_curve(
    rounds: &[Vec<f64>],
    rounds_per_suite: usize,
    effects: &[f64],
    seed: u64,
) -> Option<Vec<(f64, f64)>> {
    if rounds.len() < ROUNDS_TO_DRAW_FROM * rounds_per_suite {
        return None;
    }
    let mut rng = SplitMix64::new(seed);
    let mut draw = |_| {
        let drawn = &rounds[rng.below(rounds.len())];
        let side = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        drawn.iter().map(|cycle| side * cycle).collect()
    };
    // An effect moves ratio and interval alike.
    let intervals: Vec<(f64, f64)> = (0..SUITES)
        .map(|_| {
            let suite: Vec<Vec<f64>> = (0..rounds_per_suite).map(&mut draw).collect();
            two_level(&suite).map(|found| (found.ci_low, found.ci_high))
        })
        .collect::<Option<_>>()?;
    let curve = effects.iter().map(|effect| {
        let calls = intervals.iter().filter(|(low, high)| {
            let (first, second) = (low * effect > 1.0, high * effect < 1.0);
            (first && *effect >= 1.0) || (second && *effect <= 1.0)
        });
        (*effect, calls.count() as f64 / SUITES as f64)
    });
    Some(curve.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of equals: normal slices with a standard deviation of 0.07, sums of twelve draws.
    fn equals(rounds: usize, cycles: usize, bias: f64) -> Vec<Vec<f64>> {
        let mut rng = SplitMix64::new(8);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut cycle = || bias + 0.07 * ((0..12).map(|_| uniform()).sum::<f64>() - 6.0);
        (0..rounds)
            .map(|_| (0..cycles).map(|_| cycle()).collect())
            .collect()
    }

    fn shares(rounds: &[Vec<f64>], effects: &[f64]) -> Vec<f64> {
        let curve = power_curve(rounds, 5, effects, 1).unwrap();
        assert!(curve.iter().map(|(effect, _)| effect).eq(effects));
        curve.into_iter().map(|(_, share)| share).collect()
    }

    #[test]
    fn the_curve_is_that_of_suites_that_ran() {
        // 82% and 98% of simulated suites of 5 x 40 call 2% and 3% (`tests/coverage.rs`).
        let shares = shares(&equals(100, 40, 0.0), &[1.0, 1.02, 1.03, 1.05]);
        assert!(shares[0] <= 0.06, "{shares:?}");
        assert!((0.72..0.92).contains(&shares[1]), "{shares:?}");
        assert!(shares[2] > 0.94 && shares[3] > 0.99, "{shares:?}");
    }

    #[test]
    fn sides_and_their_effects_mirror_each_other() {
        let shares = shares(&equals(40, 20, 0.0), &[1.0 / 1.03, 1.0 / 1.01, 1.01, 1.03]);
        assert!(shares[0] > shares[1] && shares[2] < shares[3]);
        assert!((shares[0] - shares[3]).abs() < 0.05, "{shares:?}");
    }

    #[test]
    fn a_bias_is_not_taken_for_power() {
        let shares = shares(&equals(40, 40, 0.05), &[1.0]);
        assert!(shares[0] < 0.10, "{shares:?}");
    }

    #[test]
    fn the_seed_decides_and_too_few_rounds_say_nothing() {
        let rounds = equals(20, 10, 0.0);
        let curve = power_curve(&rounds, 5, &[1.02], 3);
        assert!(curve.is_some() && curve == power_curve(&rounds, 5, &[1.02], 3));
        assert_ne!(curve, power_curve(&rounds, 5, &[1.02], 4));
        assert_eq!(power_curve(&rounds[1..], 5, &[1.02], 3), None);
        assert_eq!(power_curve(&rounds, 1, &[1.02], 3), None);
        assert_eq!(power_curve(&rounds, 0, &[1.02], 3), None);
    }
}
