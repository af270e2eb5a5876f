//! The ratio of two contestants that alternate: rounds of fresh processes, cycles within a round.
//!
//! A round gives the trimmed mean of its cycles' log ratios, a suite the mean over its rounds. How
//! uncertain that mean is can be read at two levels. The spread between rounds shows all of it,
//! whatever slices do, but five rounds show it badly. The spread of the slices shows it well, and
//! is right only if rounds differ by nothing but their slices: two copies of one program do, unlike
//! programs do not. So the slices count for as much as the rounds agree with them
//! (`docs/method.md`, "Alternating bouts"; what that is worth: `tests/coverage.rs`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, FisherSnedecor, StudentsT};

use super::effect::{ALPHA, errors_to_find};
use super::student::t_quantile;

/// Below this many rounds no claim is made. With three, the interval misses the truth in 7 suites
/// of 100 where unlike programs differ from round to round, in 16 where the machine has two speeds.
pub const ROUNDS_FOR_A_CLAIM: usize = 4;
/// Rounds to run after the interval became as narrow as was asked for. It becomes so too early when
/// the rounds so far agree by luck: stopped at once, unlike programs with a true ratio of 1 are
/// told apart in 7 to 8 suites of 100, two rounds later in 6 to 7.
pub const ROUNDS_AFTER_NARROW: usize = 2;
/// Of so many cycles of a round one is left out at each end, so that a slice that the hypervisor
/// took moves nothing.
const TRIM_ONE_OF: usize = 5;

/// Ratio of two contestants over the cycles in which both had a valid slice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwoLevel {
    /// Number of rounds.
    pub rounds: usize,
    /// Number of cycles, all rounds together.
    pub cycles: usize,
    /// first / second: exp(mean over the rounds of the trimmed mean of the log ratios of a round's
    /// cycles).
    pub ratio: f64,
    /// Lower end of the 95% interval of `ratio`.
    pub ci_low: f64,
    /// Upper end of the 95% interval of `ratio`.
    pub ci_high: f64,
    /// Two-sided, of the hypothesis that the ratio is 1; at most 0.05 just when the interval does
    /// not hold 1.
    pub p_value: f64,
    /// Standard error of ln(`ratio`).
    pub standard_error: f64,
    /// Degrees of freedom of the standard error: from those of the rounds to those of the slices.
    pub degrees_of_freedom: f64,
    /// Standard deviation of one cycle's log ratio within its round, as the trimmed mean feels it;
    /// 0 if no round has two cycles.
    pub sd_slice: f64,
    /// Standard deviation of the log ratio from round to round beyond what slices make of it; 0 if
    /// rounds differ by no more than that.
    pub sd_round: f64,
    /// The smallest ratio above 1 that would have been found in four suites of five.
    pub detectable: f64,
}

impl TwoLevel {
    /// Half the width of the interval, as a share: 0.03 for one from 0.97 to 1.03 times the ratio.
    /// The same for both orders of the sides.
    pub fn half_width(&self) -> f64 {
        (self.ci_high / self.ci_low).sqrt() - 1.0
    }

    /// [`TwoLevel::detectable`] when wrong claims are held to [`ALPHA`] over a family of `family`
    /// metrics.
    ///
    /// Another suite may not be as lucky with its degrees of freedom as this one: the quantiles are
    /// those of the rounds alone. The factor is what a standard error is too small by in half of
    /// all suites (Wilson and Hilferty's median of chi-squared).
    pub fn detectable_among(&self, family: usize) -> f64 {
        let errors = errors_to_find(self.rounds as f64 - 1.0, family);
        let too_small = (1.0 - 2.0 / 9.0 / self.degrees_of_freedom).powf(1.5);
        (errors * self.standard_error / too_small).exp()
    }
}

/// The ratio from the log ratios of the cycles of each round, ln(first / second).
///
/// A round without cycles is left out. `None` with fewer than two rounds, when a log ratio is not
/// finite, or when the interval would not be.
pub fn two_level(rounds: &[Vec<f64>]) -> Option<TwoLevel> {
    let cycles: usize = rounds.iter().map(Vec::len).sum();
    let rounds: Vec<Round> = rounds
        .iter()
        .filter(|cycles| !cycles.is_empty())
        .map(|cycles| Round::of(cycles))
        .collect::<Option<_>>()?;
    if rounds.len() < 2 {
        return None;
    }
    let n = rounds.len() as f64;
    let mean = rounds.iter().map(|round| round.mean).sum::<f64>() / n;
    let of_rounds = Part {
        variance: rounds
            .iter()
            .map(|round| (round.mean - mean).powi(2))
            .sum::<f64>()
            / (n - 1.0)
            / n,
        freedom: n - 1.0,
    };
    let slice_freedom: f64 = rounds.iter().map(Round::freedom).sum();
    let slice_variance = if slice_freedom > 0.0 {
        let weighed = rounds.iter().map(|round| round.freedom() * round.variance);
        weighed.sum::<f64>() / slice_freedom
    } else {
        0.0
    };
    let of_slices = Part {
        variance: slice_variance * rounds.iter().map(|round| 1.0 / round.cycles).sum::<f64>()
            / n.powi(2),
        freedom: slice_freedom,
    };
    let blended = blend(of_rounds, of_slices);
    let standard_error = blended.variance.sqrt();
    let half_width = t_quantile(1.0 - ALPHA / 2.0, blended.freedom) * standard_error;
    let found = TwoLevel {
        rounds: rounds.len(),
        cycles,
        ratio: mean.exp(),
        ci_low: (mean - half_width).exp(),
        ci_high: (mean + half_width).exp(),
        p_value: p_value(mean, blended)?,
        standard_error,
        degrees_of_freedom: blended.freedom,
        sd_slice: slice_variance.sqrt(),
        sd_round: (n * (of_rounds.variance - of_slices.variance))
            .max(0.0)
            .sqrt(),
        detectable: 1.0,
    };
    let detectable = found.detectable_among(1);
    let usable = |value: f64| value.is_finite() && value > 0.0;
    [found.ratio, found.ci_low, found.ci_high, detectable]
        .into_iter()
        .all(usable)
        .then_some(TwoLevel {
            detectable,
            ..found
        })
}

/// Of the log ratios of one round's cycles: what that round says of the ratio.
pub fn trimmed_mean(cycles: &[f64]) -> Option<f64> {
    Round::of(cycles).map(|round| round.mean)
}

/// How many rounds more make an interval of at most `half_width` to each side
/// ([`TwoLevel::half_width`]), if the rounds to come are as those that were; 0 if it is as narrow
/// already, `usize::MAX` if no number of rounds will do.
///
/// The standard error falls with the root of the number of rounds, its degrees of freedom grow with
/// it. What was measured is itself uncertain: with few rounds take this for an order of magnitude.
pub fn rounds_needed(found: &TwoLevel, half_width: f64) -> usize {
    let wanted = half_width.ln_1p();
    if found.half_width() <= half_width {
        return 0;
    }
    let measured = found.rounds as f64;
    let reached = |more: usize| {
        let rounds = measured + more as f64;
        let freedom = found.degrees_of_freedom * (rounds - 1.0) / (measured - 1.0);
        let error = found.standard_error * (measured / rounds).sqrt();
        t_quantile(1.0 - ALPHA / 2.0, freedom) * error <= wanted
    };
    let Some(enough) = (0..40).map(|power| 1_usize << power).find(|n| reached(*n)) else {
        return usize::MAX;
    };
    let (mut too_few, mut enough) = (enough / 2, enough);
    while enough - too_few > 1 {
        let middle = usize::midpoint(too_few, enough);
        if reached(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough
}

/// The cycles of a round in three numbers.
struct Round {
    cycles: f64,
    /// Cycles that are left when both ends are trimmed.
    kept: f64,
    /// Trimmed mean.
    mean: f64,
    /// Variance of one cycle, such that `variance / cycles` is that of the trimmed mean (Tukey and
    /// McLaughlin 1963): from the squares of what is left when the trimmed cycles are pulled in to
    /// the last that is kept. 0 with a single cycle.
    variance: f64,
}

impl Round {
    fn of(cycles: &[f64]) -> Option<Self> {
        let mut sorted = cycles.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = sorted.len();
        let trimmed = n / TRIM_ONE_OF;
        let (lowest, highest) = (*sorted.get(trimmed)?, sorted[n - 1 - trimmed]);
        if !sorted.iter().all(|cycle| cycle.is_finite()) {
            return None;
        }
        let (n, kept) = (n as f64, (n - 2 * trimmed) as f64);
        let mean = sorted[trimmed..sorted.len() - trimmed].iter().sum::<f64>() / kept;
        for cycle in &mut sorted {
            *cycle = cycle.clamp(lowest, highest);
        }
        let centre = sorted.iter().sum::<f64>() / n;
        let squares: f64 = sorted.iter().map(|cycle| (cycle - centre).powi(2)).sum();
        let variance = if kept > 1.0 {
            squares / (kept * (kept - 1.0)) * n
        } else {
            0.0
        };
        Some(Self {
            cycles: n,
            kept,
            mean,
            variance,
        })
    }

    fn freedom(&self) -> f64 {
        self.kept - 1.0
    }
}

/// A variance of the mean over the rounds, and how well it is known.
#[derive(Clone, Copy)]
struct Part {
    variance: f64,
    freedom: f64,
}

/// Both levels in one variance: the slices weigh p^2, the rounds the rest, p being how likely so
/// large a spread between rounds is when slices alone make it (F test).
///
/// p^2 rather than p keeps the interval honest where rounds differ a little, so that five rounds
/// cannot show it. The degrees of freedom are Satterthwaite's.
fn blend(rounds: Part, slices: Part) -> Part {
    let weight = likelihood(rounds, slices).powi(2);
    let (from_slices, from_rounds) = (weight * slices.variance, (1.0 - weight) * rounds.variance);
    let variance = from_slices + from_rounds;
    if weight == 0.0 || variance == 0.0 {
        return rounds;
    }
    let freedom = variance.powi(2)
        / (from_slices.powi(2) / slices.freedom + from_rounds.powi(2) / rounds.freedom);
    Part { variance, freedom }
}

/// Share of suites whose rounds would spread as much as these, or more, if they differed by their
/// slices alone. 0 when slices show no spread.
fn likelihood(rounds: Part, slices: Part) -> f64 {
    if slices.variance == 0.0 {
        return 0.0;
    }
    FisherSnedecor::new(rounds.freedom, slices.freedom)
        .map_or(0.0, |f| f.sf(rounds.variance / slices.variance))
}

fn p_value(mean: f64, of: Part) -> Option<f64> {
    if mean == 0.0 {
        return Some(1.0);
    }
    let t = StudentsT::new(0.0, 1.0, of.freedom).ok()?;
    Some(2.0 * t.sf(mean.abs() / of.variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::SplitMix64;

    fn of(rounds: &[&[f64]]) -> TwoLevel {
        let rounds: Vec<Vec<f64>> = rounds.iter().map(|cycles| cycles.to_vec()).collect();
        two_level(&rounds).unwrap()
    }

    #[track_caller]
    fn assert_close(ours: f64, expected: f64) {
        let tolerance = 1e-9 * expected.abs().max(1e-3);
        assert!((ours - expected).abs() <= tolerance, "{ours}, {expected}");
    }

    /// Rounds that differ as unlike programs do, of slices of which one in twenty is stolen.
    fn drawn(rounds: usize, cycles: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = SplitMix64::new(seed);
        let mut draw = |width: f64| width * ((rng.next_u64() >> 11) as f64 / 2_f64.powi(52) - 1.0);
        (0..rounds)
            .map(|_| {
                let round = draw(0.05);
                let mut cycle = || {
                    let stolen = if draw(1.0) > 0.9 { 0.6 } else { 0.0 };
                    round + draw(0.1) + stolen
                };
                (0..cycles).map(|_| cycle()).collect()
            })
            .collect()
    }

    #[test]
    fn equal_cycles_leave_no_doubt() {
        let same = of(&[&[0.0, 0.0], &[0.0]]);
        assert_eq!((same.ratio, same.ci_low, same.ci_high), (1.0, 1.0, 1.0));
        assert_eq!((same.p_value, same.detectable), (1.0, 1.0));
        let apart = of(&[&[1.25_f64.ln(); 7], &[1.25_f64.ln(); 9]]);
        assert_close(apart.ratio, 1.25);
        assert_close(apart.half_width(), 0.0);
        assert_close(apart.p_value, 0.0);
        assert_eq!((apart.rounds, apart.cycles), (2, 16));
    }

    #[test]
    fn one_cycle_a_round_is_the_t_interval_over_rounds() {
        let found = of(&[&[0.01], &[0.02], &[0.03]]);
        let error = 0.01 / 3_f64.sqrt();
        assert_close(found.standard_error, error);
        assert_eq!(found.degrees_of_freedom, 2.0);
        // t(0.975) = 4.302652729696, t(0.8) = 1.060660171780 with 2 degrees of freedom.
        assert_close(found.ratio, 0.02_f64.exp());
        assert_close(found.ci_low, (0.02 - 4.302_652_729_696 * error).exp());
        assert_close(found.ci_high, (0.02 + 4.302_652_729_696 * error).exp());
        // Half of all chi-squared with 2 are below 2 (1 - 2 / 18)^3.
        let multiplier = (4.302_652_729_696 + 1.060_660_171_780) / (8.0_f64 / 9.0).powf(1.5);
        assert_close(found.detectable, (multiplier * error).exp());
        // P(|t| > x) = 1 - x / sqrt(2 + x^2) with 2 degrees of freedom; x^2 = 12.
        assert_close(found.p_value, 1.0 - (12_f64 / 14.0).sqrt());
        assert_eq!(found.sd_slice, 0.0);
        assert_close(found.sd_round, 0.01);
    }

    #[test]
    fn rounds_that_agree_leave_the_word_to_their_slices() {
        let found = of(&[&[-0.01, 0.03], &[0.0, 0.02]]);
        // Means 0.01 and 0.01, squares 0.0008 and 0.0002, one degree of freedom each.
        assert_close(found.sd_slice, 0.0005_f64.sqrt());
        assert_close(found.standard_error, (0.0005_f64 / 4.0).sqrt());
        assert_close(found.degrees_of_freedom, 2.0);
        assert_eq!(found.sd_round, 0.0);
        assert_close(found.ratio, 0.01_f64.exp());
    }

    #[test]
    fn between_the_two_each_level_weighs_by_the_f_test() {
        let found = of(&[&[0.0, 0.02], &[0.02, 0.04]]);
        // Means 0.01 and 0.03: variance of rounds 0.0001; of slices 0.0002 / 4 = 0.00005. F = 2
        // with 1 and 2 degrees of freedom: p = 1 - sqrt(F / (2 + F)) = 1 - sqrt(1 / 2).
        let weight = (1.0 - 0.5_f64.sqrt()).powi(2);
        let (slices, rounds) = (weight * 0.000_05, (1.0 - weight) * 0.000_1);
        let variance = slices + rounds;
        assert_close(found.standard_error, variance.sqrt());
        let freedom = variance.powi(2) / (slices.powi(2) / 2.0 + rounds.powi(2));
        assert_close(found.degrees_of_freedom, freedom);
        assert_close(found.sd_round, 0.01);
    }

    #[test]
    fn spread_between_rounds_cannot_be_bought_off_with_slices() {
        let rounds: Vec<Vec<f64>> = [-0.04, 0.0, 0.04]
            .iter()
            .map(|round| {
                (0..1000)
                    .map(|i| round + 0.001 * f64::from(i % 7 - 3))
                    .collect()
            })
            .collect();
        let found = two_level(&rounds).unwrap();
        assert!((found.degrees_of_freedom - 2.0).abs() < 1e-6);
        assert!((found.sd_round - 0.04).abs() < 1e-4);
        assert!(found.half_width() > 0.10);
    }

    #[test]
    fn one_stolen_slice_changes_nothing() {
        let quiet: Vec<f64> = (0..10).map(|i| 0.01 * f64::from(i)).collect();
        let mut stolen = quiet.clone();
        stolen[9] = 5.0;
        let shifted: Vec<f64> = quiet.iter().map(|cycle| cycle + 0.01).collect();
        assert_eq!(of(&[&quiet, &shifted]), of(&[&stolen, &shifted]));
    }

    #[test]
    fn swapped_sides_mirror_everything() {
        for seed in 0..50 {
            let rounds = drawn(2 + seed as usize % 9, 1 + seed as usize % 23, seed);
            let swapped: Vec<Vec<f64>> = rounds
                .iter()
                .map(|cycles| cycles.iter().map(|cycle| -cycle).collect())
                .collect();
            let (ab, ba) = (two_level(&rounds).unwrap(), two_level(&swapped).unwrap());
            assert_close(ab.ratio, 1.0 / ba.ratio);
            assert_close(ab.ci_low, 1.0 / ba.ci_high);
            assert_close(ab.ci_high, 1.0 / ba.ci_low);
            assert_close(ab.p_value, ba.p_value);
            assert_close(ab.detectable, ba.detectable);
        }
    }

    #[test]
    fn the_order_of_cycles_and_rounds_does_not_matter() {
        let mut rng = SplitMix64::new(3);
        for seed in 0..50 {
            let mut rounds = drawn(5, 17, seed);
            let before = two_level(&rounds).unwrap();
            rng.shuffle(&mut rounds);
            for cycles in &mut rounds {
                rng.shuffle(cycles);
            }
            let after = two_level(&rounds).unwrap();
            assert_close(after.ratio, before.ratio);
            assert_close(after.ci_low, before.ci_low);
            assert_close(after.p_value, before.p_value);
        }
    }

    #[test]
    fn a_common_factor_moves_the_interval_and_twice_the_noise_doubles_it() {
        for seed in 0..50 {
            let rounds = drawn(4, 12, seed);
            let each = |change: &dyn Fn(f64) -> f64| -> TwoLevel {
                let changed: Vec<Vec<f64>> = rounds
                    .iter()
                    .map(|cycles| cycles.iter().map(|cycle| change(*cycle)).collect())
                    .collect();
                two_level(&changed).unwrap()
            };
            let before = each(&|cycle| cycle);
            let moved = each(&|cycle| cycle + 2_f64.ln());
            assert_close(moved.ratio, 2.0 * before.ratio);
            assert_close(moved.half_width(), before.half_width());
            let doubled = each(&|cycle| 2.0 * cycle);
            assert_close(doubled.standard_error, 2.0 * before.standard_error);
            assert_close(doubled.p_value, before.p_value);
            assert_close(doubled.sd_slice, 2.0 * before.sd_slice);
            assert_close(doubled.sd_round, 2.0 * before.sd_round);
        }
    }

    #[test]
    fn the_interval_and_the_p_value_say_the_same() {
        for seed in 0..300 {
            let found = two_level(&drawn(4, 6, seed)).unwrap();
            let apart = found.ci_low > 1.0 || found.ci_high < 1.0;
            assert_eq!(apart, found.p_value < ALPHA, "{found:?}");
        }
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(two_level(&[]), None);
        assert_eq!(two_level(&[vec![0.1, 0.2]]), None);
        assert_eq!(two_level(&[vec![0.1, 0.2], vec![]]), None);
        assert_eq!(two_level(&[vec![0.1], vec![f64::NAN]]), None);
        assert_eq!(two_level(&[vec![0.1], vec![f64::INFINITY; 9]]), None);
        assert_eq!(two_level(&[vec![-500.0], vec![500.0]]), None);
    }

    #[test]
    fn rounds_still_needed() {
        let found = two_level(&drawn(5, 40, 1)).unwrap();
        assert_eq!(rounds_needed(&found, found.half_width()), 0);
        assert_eq!(rounds_needed(&found, 0.0), usize::MAX);
        let half = rounds_needed(&found, found.half_width() / 2.0);
        assert!((5..=15).contains(&half), "{half}");
        assert!(rounds_needed(&found, found.half_width() / 4.0) > 3 * half);
        // Three rounds of one cycle: t(0.975) = 4.303 at 3 rounds, 3.182 at 4, 2.776 at 5; with
        // the error 0.01 / sqrt(n) the half width is 0.0248, 0.0159, 0.0124.
        let three = of(&[&[0.01], &[0.02], &[0.03]]);
        assert_eq!(rounds_needed(&three, 0.016_1), 1);
        assert_eq!(rounds_needed(&three, 0.015_9), 2);
        assert_eq!(rounds_needed(&of(&[&[0.1], &[0.1]]), 0.01), 0);
    }

    #[test]
    fn more_looks_cost() {
        let found = two_level(&drawn(5, 40, 2)).unwrap();
        assert_eq!(found.detectable, found.detectable_among(1));
        assert!(found.detectable_among(4) > found.detectable && found.detectable > 1.0);
    }
}
