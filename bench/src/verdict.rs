//! From a ratio with its interval to a sentence.

use serde::{Deserialize, Serialize};

use crate::stats::{PairedRatio, RUNS_FOR_A_CLAIM};

/// Which end of a metric is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Throughput.
    HigherIsBetter,
    /// Latency, CPU time, memory.
    LowerIsBetter,
}

/// What the runs of two contestants allow to say about one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the better contestant; `None` if the interval contains 1.
    pub winner: Option<String>,
    /// How many times better the winner is (or the first contestant, if there is no winner). Above 1 is better, in every
    /// metric: for one where lower is better this is loser / winner.
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
pub fn judge(first: &str, second: &str, direction: Direction, ratio: &PairedRatio) -> Verdict {
    let for_first = match direction {
        Direction::HigherIsBetter => (ratio.ratio, ratio.ci_low, ratio.ci_high),
        Direction::LowerIsBetter => invert((ratio.ratio, ratio.ci_low, ratio.ci_high)),
    };
    let (winner, (advantage, low, high)) = if for_first.1 > 1.0 {
        (Some(first), for_first)
    } else if for_first.2 < 1.0 {
        (Some(second), invert(for_first))
    } else {
        (None, for_first)
    };
    let claim = ratio.pairs >= RUNS_FOR_A_CLAIM;
    let finding = match winner {
        Some(name) => format!("{name} {advantage:.2}x [{low:.2}, {high:.2}]"),
        None => format!("no difference detectable [{low:.2}, {high:.2}]"),
    };
    let words = if claim {
        finding
    } else {
        format!("too few runs for a claim (n={}): {finding}", ratio.pairs)
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

fn invert((ratio, low, high): (f64, f64, f64)) -> (f64, f64, f64) {
    (1.0 / ratio, 1.0 / high, 1.0 / low)
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

    #[test]
    fn words_by_direction_interval_and_number_of_runs() {
        use Direction::{HigherIsBetter, LowerIsBetter};
        let cases = [
            (
                HigherIsBetter,
                ratio(1.12, 1.05, 1.19, 10),
                "uring 1.12x [1.05, 1.19]",
            ),
            (
                HigherIsBetter,
                ratio(0.8, 0.5, 0.9, 10),
                "tokio 1.25x [1.11, 2.00]",
            ),
            (
                LowerIsBetter,
                ratio(0.8, 0.5, 0.9, 10),
                "uring 1.25x [1.11, 2.00]",
            ),
            (
                LowerIsBetter,
                ratio(1.12, 1.05, 1.19, 30),
                "tokio 1.12x [1.05, 1.19]",
            ),
            (
                HigherIsBetter,
                ratio(1.01, 0.97, 1.04, 10),
                "no difference detectable [0.97, 1.04]",
            ),
            (
                HigherIsBetter,
                ratio(1.12, 1.05, 1.19, 9),
                "too few runs for a claim (n=9): uring 1.12x [1.05, 1.19]",
            ),
        ];
        for (direction, ratio, words) in cases {
            let verdict = judge("uring", "tokio", direction, &ratio);
            assert_eq!(verdict.words, words);
            assert_eq!(verdict.claim, ratio.pairs >= 10);
        }
    }

    #[test]
    fn an_interval_that_touches_one_is_no_difference() {
        let verdict = judge(
            "a",
            "b",
            Direction::HigherIsBetter,
            &ratio(1.1, 1.0, 1.2, 20),
        );
        assert_eq!(verdict.winner, None);
        assert_eq!(verdict.words, "no difference detectable [1.00, 1.20]");
    }
}
