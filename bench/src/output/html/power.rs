//! How often a difference is called, against its size.

use super::axis::Scale;
use super::chart::STYLES;
use super::panels::Panels;

/// Shares of suites that call an effect, in one bout by one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Name of the bout.
    pub(crate) bout: String,
    /// It is of throughput; else of the server's CPU time.
    pub(crate) is_throughput: bool,
    /// Title of the metric.
    pub(crate) by: &'static str,
    /// Rounds of such a suite.
    pub(crate) rounds: usize,
    /// Cycles of a round.
    pub(crate) cycles: usize,
    /// Effect (0.03 is 3%) and share.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A delay that was planted in a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// Name of the bout.
    pub(crate) bout: String,
    /// It is of throughput; else of the server's CPU time.
    pub(crate) is_throughput: bool,
    /// Who has the delay.
    pub(crate) contestant: String,
    /// How much worse it is than one without (0.03 is 3%).
    pub(crate) effect: f64,
    /// Share of the comparisons that named the right winner.
    pub(crate) share: f64,
}

const PANELS: [(&str, bool); 2] = [("throughput", true), ("server CPU per message", false)];
const TITLE: &str = "How often the referee calls a difference of this size";
const READING: &str = "Lines: suites put together from rounds of equal copies, with the effect \
                       planted in the numbers. Dots: delays planted in programs.";
/// An effect beyond is not drawn, in percent.
const FARTHEST: f64 = 10.0;

/// A panel for each of two metrics, a line for each bout.
pub(super) fn draw(curves: &[Curve], dots: &[Observed]) -> String {
    let mut bouts: Vec<&str> = Vec::new();
    for curve in curves {
        if !bouts.contains(&curve.bout.as_str()) {
            bouts.push(&curve.bout);
        }
    }
    let style = |bout: &str| {
        let place = bouts.iter().position(|name| *name == bout);
        place.map(|place| format!("s{}", place % STYLES))
    };
    let legend: Vec<(String, &str)> = bouts
        .iter()
        .map(|bout| (style(bout).unwrap_or_default(), *bout))
        .collect();
    let reading =
        "line: rounds of equal copies with the effect added · dot: a delay planted in a program";
    let (panels, mut svg) = Panels::under(TITLE, reading, &legend);
    for (place, (name, is_throughput)) in PANELS.into_iter().enumerate() {
        panels.go_on_in(&mut svg, place, name);
        let x = Scale::linear([0.0, FARTHEST], svg.across());
        let y = Scale::linear([0.0, 100.0], svg.upward());
        svg.x_axis(x.ticks_as(|percent| format!("{percent:.0}%")), "effect");
        // Over both panels.
        let called = if place == 0 { "called" } else { "" };
        svg.y_axis(y.ticks_as(|percent| format!("{percent:.0}%")), called);
        for curve in curves
            .iter()
            .filter(|one| one.is_throughput == is_throughput)
        {
            let points = curve.points.iter();
            let points = points.map(|(effect, share)| (x.at(effect * 100.0), y.at(share * 100.0)));
            let points: Vec<(f64, f64)> = points.collect();
            let words = format!(
                "{}, suites of {} x {}",
                curve.bout, curve.rounds, curve.cycles
            );
            let class = style(&curve.bout).unwrap_or_default();
            svg.path(&format!("curve {class}"), &points, &words);
        }
        let within = |one: &&Observed| (0.0..=FARTHEST / 100.0).contains(&one.effect);
        let dots = dots.iter().filter(|one| one.is_throughput == is_throughput);
        for dot in dots.filter(within) {
            // Without a curve it has no colour.
            let Some(class) = style(&dot.bout) else {
                continue;
            };
            let at = (x.at(dot.effect * 100.0), y.at(dot.share * 100.0));
            let words = format!(
                "{}, {}: {:.1}%, called in {:.0}%",
                dot.bout,
                dot.contestant,
                dot.effect * 100.0,
                dot.share * 100.0
            );
            svg.dot(&format!("estimate {class}"), at, 4.5, &words);
        }
    }
    svg.finish(TITLE, READING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(bout: &str, is_throughput: bool) -> Curve {
        Curve {
            bout: bout.to_owned(),
            is_throughput,
            by: "echoes/s",
            rounds: 5,
            cycles: 20,
            points: vec![(0.0, 0.04), (0.02, 0.8), (0.1, 1.0)],
        }
    }

    #[test]
    fn a_line_for_each_bout_and_a_dot_for_each_delay_within_the_axis() {
        let dot = |effect| Observed {
            bout: "b".to_owned(),
            is_throughput: false,
            contestant: "late".to_owned(),
            effect,
            share: 0.5,
        };
        let curves = [curve("a", true), curve("a", false), curve("b", false)];
        let svg = draw(&curves, &[dot(0.03), dot(0.2), dot(-0.01)]);
        assert_eq!(svg.matches("class=\"curve s0\"").count(), 2);
        assert_eq!(svg.matches("class=\"curve s1\"").count(), 1);
        assert_eq!(svg.matches("class=\"estimate s1\"").count(), 1, "{svg}");
        assert!(svg.contains("b, late: 3.0%, called in 50%"));
    }
}
