//! One contestant against another from the point of view of the first, whatever the order of the
//! pair.

use super::{Bout, Comparison};
use crate::stats::invert;

/// How many times better one contestant is than another, by one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advantage {
    /// Median of the paired ratios; below 1: worse.
    pub ratio: f64,
    /// Lower end of its 95% interval.
    pub low: f64,
    /// Upper end of its 95% interval.
    pub high: f64,
    /// A winner is named.
    pub shown: bool,
    /// Pairs of runs.
    pub pairs: usize,
}

impl Bout {
    /// `name` against `other` by the metric with this key; `None` where no pair of runs has it.
    pub fn advantage(&self, name: &str, other: &str, metric: &str) -> Option<Advantage> {
        let of = |first: &str, second: &str| -> Option<&Comparison> {
            let mut pairs = self.pairs.iter();
            let pair = pairs.find(|pair| pair.first == first && pair.second == second)?;
            let mut comparisons = pair.comparisons.iter();
            comparisons.find(|comparison| comparison.metric == metric)
        };
        let (comparison, turned) = match of(name, other) {
            Some(comparison) => (comparison, false),
            None => (of(other, name)?, true),
        };
        let of_first = comparison.direction.advantage(&comparison.ratio);
        let (ratio, low, high) = if turned { invert(of_first) } else { of_first };
        Some(Advantage {
            ratio,
            low,
            high,
            shown: comparison.verdict.winner.is_some(),
            pairs: comparison.ratio.pairs,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::test_data;

    #[test]
    fn the_order_of_a_pair_does_not_matter() {
        let summary = test_data::tokio_a_quarter_better();
        let of = |name, other, metric| summary.bouts[0].advantage(name, other, metric);
        let better = of("server-tokio", "server-uring", "messages_per_s").unwrap();
        let worse = of("server-uring", "server-tokio", "messages_per_s").unwrap();
        assert!(
            (better.ratio - 1.25).abs() < 1e-9 && better.shown,
            "{better:?}"
        );
        assert!((worse.ratio - 0.8).abs() < 1e-9 && worse.shown, "{worse:?}");
        assert_eq!((better.pairs, worse.pairs), (10, 10));
        assert!((better.low * worse.high - 1.0).abs() < 1e-9);
        assert_eq!(of("server-tokio", "nobody", "messages_per_s"), None);
        assert_eq!(of("server-tokio", "server-uring", "no_metric"), None);
    }
}
