//! One contestant against another from the point of view of the first, whatever the order of the
//! pair.

use super::{Bout, Comparison, Summary};
use crate::judge::metrics::{self, Metric};
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
    /// Enough of them for a claim.
    pub claim: bool,
    /// The smallest ratio above 1 that would have been found in four suites of five.
    pub detectable: Option<f64>,
}

/// One of the figures that a scenario is summed up in.
#[derive(Debug, Clone, Copy)]
pub struct Figure<'a> {
    /// Where it was measured.
    pub bout: &'a Bout,
    /// What.
    pub metric: &'static Metric,
}

impl Summary {
    /// The contestant that the others are compared with: the first that took part.
    pub fn reference(&self) -> Option<&str> {
        self.setting.reference()
    }

    /// What a user pays in the scenario of this bout: throughput at saturation; of its companion,
    /// where it has one, the server's CPU and the p99 at an equal rate. A companion has none of its
    /// own, unless its closed loop was not run.
    pub fn figures<'a>(&'a self, bout: &'a Bout) -> Vec<Figure<'a>> {
        let is_there = |name: &String| self.bouts.iter().any(|one| one.scenario.name == *name);
        if bout.scenario.at_rate_of.as_ref().is_some_and(is_there) {
            return Vec::new();
        }
        let of_companion =
            |one: &&Bout| one.scenario.at_rate_of.as_ref() == Some(&bout.scenario.name);
        let companion = self.bouts.iter().find(of_companion);
        let own = metrics::find(bout.scenario.kind, &bout.headline);
        let mut figures = Vec::from_iter(own.map(|metric| Figure { bout, metric }));
        if let Some(bout) = companion {
            let both = metrics::at_equal_rate(&bout.scenario);
            figures.extend(both.map(|metric| Figure { bout, metric }));
        }
        figures
    }
}

impl Bout {
    /// What compares the two by this metric, and whether `name` is the second in it.
    pub fn comparison(&self, name: &str, other: &str, metric: &str) -> Option<(&Comparison, bool)> {
        let of = |first: &str, second: &str| -> Option<&Comparison> {
            let mut pairs = self.pairs.iter();
            let pair = pairs.find(|pair| pair.first == first && pair.second == second)?;
            let mut comparisons = pair.comparisons.iter();
            comparisons.find(|comparison| comparison.metric == metric)
        };
        match of(name, other) {
            Some(comparison) => Some((comparison, false)),
            None => Some((of(other, name)?, true)),
        }
    }

    /// `name` against `other` by the metric with this key; `None` where no pair of runs has it.
    pub fn advantage(&self, name: &str, other: &str, metric: &str) -> Option<Advantage> {
        let (comparison, turned) = self.comparison(name, other, metric)?;
        Some(Advantage::of(comparison, turned))
    }
}

impl Advantage {
    /// Of the first contestant of a comparison, or of the second.
    pub(super) fn of(comparison: &Comparison, of_second: bool) -> Self {
        let of_first = comparison.direction.advantage(&comparison.ratio);
        let (ratio, low, high) = if of_second {
            invert(of_first)
        } else {
            of_first
        };
        Self {
            ratio,
            low,
            high,
            shown: comparison.verdict.winner.is_some(),
            pairs: comparison.ratio.pairs,
            claim: comparison.verdict.claim,
            detectable: comparison.verdict.detectable,
        }
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
