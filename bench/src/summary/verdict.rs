//! From a ratio with its interval to a verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::{ALPHA, Direction, PairedRatio, invert};

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

/// What the runs of two contestants allow to say about one metric. `output::words` makes the
/// sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Name of the better contestant; `null` if there are too few runs for a claim or no difference
    /// is detectable.
    pub winner: Option<String>,
    /// Name of the contestant on whose side the interval is, whatever may be claimed; `null` if it
    /// is on none.
    #[serde(default)]
    pub leader: Option<String>,
    /// How many times better the winner is (or the leader; the first contestant, if there is none).
    /// Above 1 is better, in every metric: for one where lower is better this is loser / winner.
    pub advantage: f64,
    /// Lower end of the advantage's 95% interval.
    pub advantage_low: f64,
    /// Upper end of the advantage's 95% interval.
    pub advantage_high: f64,
    /// Enough pairs for a claim.
    pub claim: bool,
    /// Smallest ratio above 1 that would have been found in four suites of five; `null` with fewer
    /// than two pairs.
    #[serde(default)]
    pub detectable: Option<f64>,
}

/// The verdict on `first` against `second`.
///
/// A winner is named when two keys fit: the interval of the median ratio excludes 1, and the
/// signed-rank test (after Holm's correction) is below [`ALPHA`]. The test holds the error by
/// design of the experiment, which the bootstrap interval alone does not; the interval keeps a
/// claim from contradicting the figure printed beside it. `claim`: there are runs enough to name
/// anybody.
pub fn compare(
    first: &str,
    second: &str,
    direction: Direction,
    ratio: &PairedRatio,
    significance: &Significance,
    claim: bool,
) -> Verdict {
    let for_first = direction.advantage(ratio);
    let (leader, (advantage, low, high)) = if for_first.1 > 1.0 {
        (Some(first), for_first)
    } else if for_first.2 < 1.0 {
        (Some(second), invert(for_first))
    } else {
        (None, for_first)
    };
    let winner = leader.filter(|_| claim && significance.p_adjusted <= ALPHA);
    Verdict {
        winner: winner.map(str::to_owned),
        leader: leader.map(str::to_owned),
        advantage,
        advantage_low: low,
        advantage_high: high,
        claim,
        detectable: significance.minimal_detectable,
    }
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
    fn a_winner_by_direction_interval_certainty_and_number_of_runs() {
        use Direction::{HigherIsBetter, LowerIsBetter};
        let (up, down) = (ratio(1.12, 1.05, 1.19, 10), ratio(0.8, 0.5, 0.9, 10));
        let unsure = ratio(1.01, 0.97, 1.04, 10);
        let few = ratio(1.12, 1.05, 1.19, 9);
        let (uring, tokio) = (Some("uring"), Some("tokio"));
        let cases = [
            (HigherIsBetter, up, 0.01, uring, uring, 1.12),
            (HigherIsBetter, down, 0.05, tokio, tokio, 1.25),
            (LowerIsBetter, down, 0.01, uring, uring, 1.25),
            (LowerIsBetter, up, 0.01, tokio, tokio, 1.12),
            (HigherIsBetter, unsure, 0.01, None, None, 1.01),
            (HigherIsBetter, up, 0.06, None, uring, 1.12),
            (HigherIsBetter, few, 0.01, None, uring, 1.12),
        ];
        for (direction, ratio, p, winner, leader, advantage) in cases {
            let claim = ratio.pairs >= 10;
            let verdict = compare("uring", "tokio", direction, &ratio, &sure(p), claim);
            assert_eq!(verdict.winner.as_deref(), winner);
            assert_eq!(verdict.leader.as_deref(), leader);
            assert!((verdict.advantage - advantage).abs() < 1e-9);
            assert_eq!(verdict.claim, claim);
            assert_eq!(verdict.detectable, Some(1.051));
        }
    }

    #[test]
    fn an_interval_that_touches_one_is_no_difference() {
        let touching = ratio(1.1, 1.0, 1.2, 20);
        let up = Direction::HigherIsBetter;
        let verdict = compare("a", "b", up, &touching, &sure(0.01), true);
        assert_eq!((verdict.winner, verdict.leader), (None, None));
    }
}
