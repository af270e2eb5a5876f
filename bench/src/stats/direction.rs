//! Which of two is better.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PairedRatio;

/// Which end of a metric is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Throughput.
    HigherIsBetter,
    /// Latency, CPU time, memory.
    LowerIsBetter,
}

impl Direction {
    /// How many times better the first of two is, with both ends of the interval: below 1 when it
    /// is the worse one.
    pub fn advantage(self, ratio: &PairedRatio) -> (f64, f64, f64) {
        let first = (ratio.ratio, ratio.ci_low, ratio.ci_high);
        match self {
            Direction::HigherIsBetter => first,
            Direction::LowerIsBetter => invert(first),
        }
    }
}

pub(crate) fn invert((ratio, low, high): (f64, f64, f64)) -> (f64, f64, f64) {
    (1.0 / ratio, 1.0 / high, 1.0 / low)
}
