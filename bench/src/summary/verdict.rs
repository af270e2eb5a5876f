//! From a ratio with its interval to a sentence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::{ALPHA, Direction, PairedRatio, RUNS_FOR_A_CLAIM, invert};

/// How sure a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Significance {
    /// Wilcoxon's signed-rank test over the log-ratios, two-sided.
    pub p_value: f64,
    /// The same after Holm's correction for the other percentiles of this latency; equal to
    /// `p_value` for everything else.
    pub p_adjusted: f64,
    /// Number of metrics that the correction is for.
    pub family: usize,
    /// The smallest ratio above 1 that would have been found in four suites of five; `null` with
    /// fewer than two pairs.
    pub minimal_detectable: Option<f64>,
}

/// What the runs of two contestants allow to say about one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Name of the better contestant; `None` if there are too few runs for a claim or no difference
    /// is detectable.
    pub winner: Option<String>,
    /// How many times better the winner is (or the one whose side the interval is on; the first
    /// contestant, if it is on none). Above 1 is better, in every metric: for one where lower is
    /// better this is loser / winner.
    pub advantage: f64,
    /// Lower end of the advantage's 95% interval.
    pub advantage_low: f64,
    /// Upper end of the advantage's 95% interval.
    pub advantage_high: f64,
    /// Enough pairs for a claim.
    pub claim: bool,
    /// The sentence.
    pub words: String,
}

/// The verdict on `first` against `second`.
///
/// A winner is named when two keys fit: the interval of the median ratio excludes 1, and the
/// signed-rank test (after Holm's correction) is below [`ALPHA`]. The test holds the error by
/// design of the experiment, which the bootstrap interval alone does not; the interval keeps a
/// claim from contradicting the figure printed beside it.
pub fn judge(
    first: &str,
    second: &str,
    direction: Direction,
    ratio: &PairedRatio,
    significance: &Significance,
) -> Verdict {
    let for_first = direction.advantage(ratio);
    let (leader, (advantage, low, high)) = if for_first.1 > 1.0 {
        (Some(first), for_first)
    } else if for_first.2 < 1.0 {
        (Some(second), invert(for_first))
    } else {
        (None, for_first)
    };
    let claim = ratio.pairs >= RUNS_FOR_A_CLAIM;
    let winner = leader.filter(|_| claim && significance.p_adjusted <= ALPHA);
    let words = match (claim, leader, winner) {
        (true, _, Some(name)) => format!("{name} {advantage:.2}x [{low:.2}, {high:.2}]"),
        (true, _, None) => format!(
            "no difference detectable [{low:.2}, {high:.2}]{}",
            detectable(significance)
        ),
        (false, Some(name), _) => format!(
            "too few runs for a claim (n={}): {name} {advantage:.2}x [{low:.2}, {high:.2}]",
            ratio.pairs
        ),
        (false, None, _) => format!(
            "too few runs for a claim (n={}) [{low:.2}, {high:.2}]",
            ratio.pairs
        ),
    };
    Verdict {
        winner: winner.map(str::to_owned),
        advantage,
        advantage_low: low,
        advantage_high: high,
        claim,
        words,
    }
}

/// What would have been seen, so that "no difference" is not read as "equal".
fn detectable(significance: &Significance) -> String {
    significance
        .minimal_detectable
        .map_or(String::new(), |ratio| {
            // Rounded up: a promise.
            format!(
                " (from {:.2}x on it would be)",
                (ratio * 100.0).ceil() / 100.0
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(ratio: f64, ci_low: f64, ci_high: f64, pairs: usize) -> PairedRatio {
        PairedRatio {
            pairs,
            ratio,
            ci_low,
            ci_high,
            seed: 0,
        }
    }

    fn sure(p: f64) -> Significance {
        Significance {
            p_value: p,
            p_adjusted: p,
            family: 1,
            minimal_detectable: Some(1.051),
        }
    }

    #[test]
    fn words_by_direction_interval_certainty_and_number_of_runs() {
        use Direction::{HigherIsBetter, LowerIsBetter};
        let (up, down) = (ratio(1.12, 1.05, 1.19, 10), ratio(0.8, 0.5, 0.9, 10));
        let cases = [
            (HigherIsBetter, up, 0.01, "uring 1.12x [1.05, 1.19]"),
            (HigherIsBetter, down, 0.05, "tokio 1.25x [1.11, 2.00]"),
            (LowerIsBetter, down, 0.01, "uring 1.25x [1.11, 2.00]"),
            (LowerIsBetter, up, 0.01, "tokio 1.12x [1.05, 1.19]"),
            (
                HigherIsBetter,
                ratio(1.01, 0.97, 1.04, 10),
                0.01,
                "no difference detectable [0.97, 1.04] (from 1.06x on it would be)",
            ),
            (
                HigherIsBetter,
                up,
                0.06,
                "no difference detectable [1.05, 1.19] (from 1.06x on it would be)",
            ),
            (
                HigherIsBetter,
                ratio(1.12, 1.05, 1.19, 9),
                0.01,
                "too few runs for a claim (n=9): uring 1.12x [1.05, 1.19]",
            ),
            (
                HigherIsBetter,
                ratio(1.01, 0.97, 1.04, 3),
                0.25,
                "too few runs for a claim (n=3) [0.97, 1.04]",
            ),
        ];
        for (direction, ratio, p, words) in cases {
            let verdict = judge("uring", "tokio", direction, &ratio, &sure(p));
            assert_eq!(verdict.words, words);
            assert_eq!(verdict.claim, ratio.pairs >= 10);
            assert_eq!(
                verdict.winner.is_some(),
                words.starts_with("uring") || words.starts_with("tokio")
            );
        }
    }

    #[test]
    fn an_interval_that_touches_one_is_no_difference() {
        let touching = ratio(1.1, 1.0, 1.2, 20);
        let verdict = judge("a", "b", Direction::HigherIsBetter, &touching, &sure(0.01));
        assert_eq!(verdict.winner, None);
        assert!(
            verdict
                .words
                .starts_with("no difference detectable [1.00, 1.20]")
        );
    }
}
