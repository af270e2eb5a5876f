//! From values to places on a drawing, and round values for its axes.

use crate::units::{self, Unit};

/// Maps values to places on the drawing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    logarithmic: bool,
    domain: (f64, f64),
    range: (f64, f64),
}

impl Scale {
    /// From 0 (or below it, where values are) to a little more than the largest value.
    pub(super) fn linear(values: impl IntoIterator<Item = f64>, range: (f64, f64)) -> Self {
        let (low, high) = extent(values).unwrap_or((0.0, 1.0));
        let high = if high > low.min(0.0) {
            high * 1.05
        } else {
            1.0
        };
        Self {
            logarithmic: false,
            domain: (low.min(0.0), high),
            range,
        }
    }

    /// Covers the positive ones of `values`.
    pub(super) fn logarithmic(values: impl IntoIterator<Item = f64>, range: (f64, f64)) -> Self {
        let positive = values.into_iter().filter(|value| *value > 0.0);
        let (low, high) = extent(positive).unwrap_or((1.0, 10.0));
        let domain = if high / low < 1.5 {
            (low / 1.25, high * 1.25)
        } else {
            (low / 1.1, high * 1.1)
        };
        Self {
            logarithmic: true,
            domain,
            range,
        }
    }

    /// Logarithmic, as far to both sides of 1.
    pub(super) fn about_one(reach: f64, range: (f64, f64)) -> Self {
        Self {
            logarithmic: true,
            domain: (1.0 / reach, reach),
            range,
        }
    }

    /// Round ratios on both sides of 1, five of them.
    pub(super) fn ticks_about_one(&self) -> Vec<(f64, String)> {
        let ticks = match self.domain.1 {
            near if near < 1.15 => ["0.9", "0.95", "1", "1.05", "1.1"],
            middle if middle < 1.4 => ["0.8", "0.9", "1", "1.1", "1.25"],
            far if far < 2.1 => ["0.6", "0.8", "1", "1.25", "1.6"],
            farther if farther < 5.0 => ["0.5", "0.7", "1", "1.5", "2"],
            _ => ["0.2", "0.5", "1", "2", "5"],
        };
        let value = |tick: &str| tick.parse().unwrap_or(1.0);
        let (low, high) = self.domain;
        let ticks = ticks.into_iter().map(|tick| (value(tick), tick));
        ticks
            .filter(|(value, _)| (low..=high).contains(value))
            .map(|(value, tick)| (self.at(value), tick.to_owned()))
            .collect()
    }

    /// Where `value` is drawn, cut at the ends of the range.
    pub(super) fn at(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        let share = if self.logarithmic {
            (value.max(low) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        self.range.0 + share.clamp(0.0, 1.0) * (self.range.1 - self.range.0)
    }

    /// Round values for an axis, about five.
    fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.domain;
        if !self.logarithmic {
            return even_ticks(low, high);
        }
        let steps: &[f64] = match (high / low).log10() {
            narrow if narrow < 0.7 => return even_ticks(low, high),
            middle if middle < 3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (low..=high).contains(tick))
            .collect()
    }

    /// The same with their places and labels.
    pub(super) fn ticks_as(&self, label: impl Fn(f64) -> String) -> Vec<(f64, String)> {
        let ticks = self.ticks().into_iter();
        ticks.map(|tick| (self.at(tick), label(tick))).collect()
    }

    /// The same, labelled as figures of this unit.
    pub(super) fn ticks_in(&self, unit: Unit) -> Vec<(f64, String)> {
        self.ticks_as(|tick| units::format(unit, tick))
    }
}

/// How far a scale about 1 goes to each side: a little beyond the farthest of `ends`, and not
/// beyond `farthest`.
pub(super) fn reach(ends: impl Iterator<Item = f64>, farthest: f64) -> f64 {
    let ends = ends.map(|end| end.ln().abs());
    let widest = ends.filter(|end| end.is_finite()).fold(0.0, f64::max);
    (widest.exp() * 1.03).clamp(1.12, farthest)
}

/// In equal steps; also for less than a decade of a logarithmic scale.
fn even_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = round_step((high - low) / 5.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|n| n as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten, about `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|nice| nice * power >= step * 0.8);
    nice.unwrap_or(10.0) * power
}

fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold(None, |extent, value| match extent {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_from_end_to_end() {
        let linear = Scale::linear([3.0, 10.0], (100.0, 0.0));
        assert_eq!(linear.at(0.0), 100.0);
        assert!((linear.at(10.5) - 0.0).abs() < 1e-9);
        let log = Scale::logarithmic([1.0, 100.0], (0.0, 100.0));
        assert!((log.at(10.0) - 50.0).abs() < 1e-9);
        assert_eq!(log.at(0.0), 0.0, "what cannot be shown is cut, not NaN");
    }

    #[test]
    fn ticks_are_round_inside_and_few() {
        for (low, high) in [
            (1.0, 2.0),
            (0.8, 1.3),
            (3.0, 70.0),
            (1e3, 1e9),
            (5.0, 5.0),
            (123.0, 456.0),
        ] {
            for scale in [
                Scale::logarithmic([low, high], (0.0, 1.0)),
                Scale::linear([low, high], (0.0, 1.0)),
            ] {
                let ticks = scale.ticks();
                assert!((2..=12).contains(&ticks.len()), "{low} {high}: {ticks:?}");
                assert!(ticks.is_sorted());
            }
        }
        assert_eq!(
            Scale::linear([0.0, 10.0], (0.0, 1.0)).ticks(),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
    }

    #[test]
    fn no_values_give_an_empty_plot_and_no_panic() {
        assert!(!Scale::linear([], (0.0, 1.0)).ticks().is_empty());
        assert!(
            !Scale::logarithmic([0.0, f64::NAN], (0.0, 1.0))
                .ticks()
                .is_empty()
        );
    }
}
