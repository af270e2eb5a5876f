//! What a suite shows while it runs, as lines of text. Pure.

use std::time::Duration;

use crate::output::bar::Scale;
use crate::summary::Advantage;
use crate::units::minutes;

/// Characters of a bar, where the line has room for it.
const BARS: [usize; 2] = [21, 11];

/// A bout under way.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its name.
    pub bout: String,
    /// Rounds or blocks that were run.
    pub done: usize,
    /// Those that are expected in all.
    pub expected: usize,
    /// Each contestant against the first, by the bout's headline.
    pub against_first: Vec<(String, Advantage)>,
}

/// A suite under way.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// In the suite's order.
    pub bouts: Vec<Standing>,
    /// The contestant that the others are compared with.
    pub reference: String,
    /// What runs now: place of the bout, who.
    pub now: Option<(usize, String)>,
    /// What is next, and how long it will take.
    pub next: Option<(String, Duration)>,
    /// Time left in all; `None` before anything is known.
    pub left: Option<Duration>,
}

impl View {
    /// For a terminal of this size: a line about the suite, and one for each bout. Where there are
    /// more bouts than lines, those around the one that runs.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let rows = height.saturating_sub(2).max(1);
        let now = self.now.as_ref().map_or(0, |(place, _)| *place);
        let last = self.bouts.len().saturating_sub(rows);
        let from = now.saturating_sub(rows / 2).min(last);
        let shown = self.bouts.iter().enumerate().skip(from).take(rows);
        let name_width = self.bouts.iter().map(|one| one.bout.len()).max();
        let name_width = name_width.unwrap_or(0);
        let bar = self.bar(width, name_width);
        let line = |(place, standing): (usize, &Standing)| {
            let runs = self.now.as_ref().is_some_and(|(now, _)| *now == place);
            let mark = if runs { ">" } else { " " };
            let counts = format!("{}/{}", standing.done, standing.expected);
            let factors = standing.against_first.iter().map(|(contestant, found)| {
                let bar = bar.map_or(String::new(), |scale| {
                    format!(" [{}]", scale.bar(found.ratio, found.low, found.high))
                });
                format!("  {contestant} {}{bar}", short(found))
            });
            let factors: String = factors.collect();
            format!("{mark} {:name_width$} {counts:>5}{factors}", standing.bout)
        };
        [self.about()].into_iter().chain(shown.map(line)).collect()
    }

    fn about(&self) -> String {
        let of = |what: &str| format!(" · {what}");
        let left = self.left.map_or_else(|| "?".to_owned(), minutes);
        let now = self.now.as_ref().map(|(_, who)| of(&format!("now: {who}")));
        let next = self
            .next
            .as_ref()
            .map(|(bout, takes)| of(&format!("next: {bout}, {}", minutes(*takes))));
        let against = match self.reference.as_str() {
            "" => String::new(),
            name => of(&format!("against {name}, above 1 is better")),
        };
        let parts = [now, next].into_iter().flatten();
        format!("{left} left{}{against}", parts.collect::<String>())
    }

    /// The widest bar with which the fullest line fits, on one scale for all.
    fn bar(&self, width: usize, name_width: usize) -> Option<Scale> {
        let all = || self.bouts.iter().flat_map(|one| &one.against_first);
        let text = |standing: &Standing| -> usize {
            let factors = standing.against_first.iter();
            factors
                .map(|(name, found)| name.len() + 3 + short(found).chars().count())
                .sum()
        };
        let bar = BARS.into_iter().find(|bar| {
            let fits = |one: &Standing| {
                name_width + 8 + text(one) + one.against_first.len() * (bar + 3) <= width
            };
            self.bouts.iter().all(fits)
        });
        bar.map(|bar| Scale::over(all().flat_map(|(_, found)| [found.low, found.high]), bar))
    }
}

/// The line of a log after a round.
pub fn after_round(standing: &Standing, left: Option<Duration>) -> String {
    let factors: Vec<String> = standing
        .against_first
        .iter()
        .map(|(name, found)| {
            format!(
                "{name} {:.2}x [{:.2}, {:.2}]",
                found.ratio, found.low, found.high
            )
        })
        .collect();
    let factors = match factors.as_slice() {
        [] => String::new(),
        some => format!(": {}", some.join(", ")),
    };
    format!(
        "{} round {} of {}{factors}; {} left",
        standing.bout,
        standing.done,
        standing.expected,
        left.map_or_else(|| "?".to_owned(), minutes)
    )
}

/// `0.92 ±1.3%`.
fn short(found: &Advantage) -> String {
    let half_width = (found.high / found.low).sqrt() - 1.0;
    format!("{:.2} ±{:.1}%", found.ratio, half_width * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(name: &str, ratio: f64, half_width: f64) -> (String, Advantage) {
        let found = Advantage {
            ratio,
            low: ratio / (1.0 + half_width),
            high: ratio * (1.0 + half_width),
            shown: true,
            pairs: 5,
            claim: true,
            detectable: None,
        };
        (name.to_owned(), found)
    }

    fn view() -> View {
        let bout = |bout: &str, done, against_first| Standing {
            bout: bout.to_owned(),
            done,
            expected: 5,
            against_first,
        };
        View {
            bouts: vec![
                bout(
                    "echo-64b-w1-c200",
                    2,
                    vec![against("tokio", 0.92, 0.03), against("raw", 1.04, 0.05)],
                ),
                bout(
                    "echo-16k-w1-c500",
                    3,
                    vec![against("tokio", 0.73, 0.02), against("raw", 1.21, 0.02)],
                ),
                bout("broadcast-64b", 0, vec![]),
            ],
            reference: "monoio".to_owned(),
            now: Some((1, "all in turn".to_owned())),
            next: Some(("broadcast-64b".to_owned(), Duration::from_secs(25))),
            left: Some(Duration::from_secs(250)),
        }
    }

    #[test]
    fn a_line_for_each_bout_with_bars_that_fit() {
        insta::assert_snapshot!(view().lines(120, 24).join("\n"));
    }

    #[test]
    fn a_narrow_terminal_has_no_bars() {
        insta::assert_snapshot!(view().lines(70, 24).join("\n"));
    }

    #[test]
    fn a_low_terminal_keeps_the_bout_that_runs() {
        let mut view = view();
        view.now = Some((2, "raw".to_owned()));
        let lines = view.lines(100, 3);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[1].starts_with("> broadcast-64b      0/5"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_log_has_a_line_for_each_round() {
        let view = view();
        assert_eq!(
            after_round(&view.bouts[0], view.left),
            "echo-64b-w1-c200 round 2 of 5: tokio 0.92x [0.89, 0.95], raw 1.04x [0.99, 1.09]; 4:10 left"
        );
        assert_eq!(
            after_round(&view.bouts[2], None),
            "broadcast-64b round 0 of 5; ? left"
        );
    }
}
