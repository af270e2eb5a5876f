//! What a suite of copies and planted delays says of the referee: how often it finds a difference
//! between copies, where there is none, and how often it finds the delays.

use anyhow::{Result, ensure};

use super::wrapped;
use crate::config::Contestant;
use crate::judge::metrics::{self, Metric};
use crate::output::html::power::{Curve, Observed};
use crate::output::table::Table;
use crate::record::RunRecord;
use crate::stats::rng::derive_seed;
use crate::stats::{ROUNDS_TO_DRAW_FROM, median_of, power_curve};
use crate::store::load::Results;
use crate::summary::{Bout, Comparison, cycles_of_rounds};

/// Effects of a curve, in tenths of a percent.
const EFFECTS: std::ops::RangeInclusive<u32> = 0..=100;
/// Between two effects of a curve.
const STEP: usize = 5;
/// Effects in the table of curves, in percent.
const IN_THE_TABLE: [f64; 6] = [0.0, 1.0, 2.0, 3.0, 5.0, 10.0];

/// A suite whose contestants are copies of one program, and the same with delays.
#[derive(Debug)]
pub(super) struct Tested<'a> {
    results: &'a Results,
    copies: Vec<&'a str>,
    delayed: Vec<&'a str>,
}

/// A bout by one metric.
type Place<'a> = (&'a Bout, &'static Metric);

impl<'a> Tested<'a> {
    /// The copies are those of which there are most; all others are delayed.
    ///
    /// # Errors
    /// When no two contestants are one program, or when no bout compares them by its slices.
    pub(super) fn of(results: &'a Results) -> Result<Self> {
        let all: Vec<&Contestant> = results.environment.contestants.iter().collect();
        let copies_of =
            |one: &&Contestant| all.iter().filter(|other| other.is_copy_of(one)).count();
        let most = all.iter().map(copies_of).max().unwrap_or(0);
        ensure!(
            most > 1,
            "{}: no two contestants are the same program with the same arguments",
            results.root.display()
        );
        let first = all.iter().find(|one| copies_of(one) == most);
        let is_copy = |one: &&Contestant| first.is_some_and(|first| one.is_copy_of(first));
        let (copies, delayed): (Vec<&Contestant>, Vec<&Contestant>) =
            all.iter().copied().partition(is_copy);
        let names = |some: Vec<&'a Contestant>| some.into_iter().map(|one| one.name.as_str());
        let tested = Self {
            results,
            copies: names(copies).collect(),
            delayed: names(delayed).collect(),
        };
        ensure!(
            !tested.places().is_empty(),
            "{}: no bout alternates, so no interval between copies rests on slices",
            results.root.display()
        );
        Ok(tested)
    }

    /// Every bout in which copies are compared by slices, by each figure that a user pays.
    fn places(&self) -> Vec<Place<'a>> {
        let bouts = self.results.summary.bouts.iter();
        let places = bouts.flat_map(|bout| figures_of(bout).map(move |metric| (bout, metric)));
        places
            .filter(|place| !self.equals(*place).is_empty())
            .collect()
    }

    /// Two copies each.
    fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        let later = |(place, first)| {
            let others: &[&str] = &self.copies[place + 1..];
            others.iter().map(move |second| (first, *second))
        };
        self.copies
            .iter()
            .copied()
            .enumerate()
            .flat_map(later)
            .collect()
    }

    /// The comparisons of copies.
    fn equals(&self, (bout, metric): Place<'a>) -> Vec<&'a Comparison> {
        let compared = |(first, second)| bout.comparison(first, second, metric.key);
        let compared = self.pairs().into_iter().filter_map(compared);
        let all = compared.map(|(comparison, _)| comparison);
        all.filter(|one| one.levels.is_some() && one.verdict.claim)
            .collect()
    }

    /// What the referee found between one delayed contestant and the copies.
    fn planted(&self, (bout, metric): Place<'a>, delayed: &str) -> Option<Planted> {
        let found = self.copies.iter().filter_map(|copy| {
            let better = bout.advantage(copy, delayed, metric.key)?;
            better.claim.then_some(better)
        });
        let found: Vec<_> = found.collect();
        let ratios: Vec<f64> = found.iter().map(|one| one.ratio).collect();
        let named = found.iter().filter(|one| one.shown);
        let right = named.clone().filter(|one| one.ratio > 1.0).count();
        Some(Planted {
            ratio: median_of(&ratios)?,
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            most: ratios.iter().copied().fold(0.0, f64::max),
            comparisons: ratios.len(),
            right,
            wrong: named.count() - right,
        })
    }

    /// The tables of this suite.
    pub(super) fn tables(&self) -> String {
        let mut text = "### Copies: nothing to find\n\n".to_owned();
        let words = format!(
            "{} copies of one program make {} pairs. Pairs share copies, so their comparisons are \
             not independent of each other. *half width*: of the 95% interval, median over the \
             pairs.",
            self.copies.len(),
            self.pairs().len()
        );
        text.push_str(&wrapped("", &words));
        text.push_str(&format!("\n{}", self.table_of_equals().render()));
        if !self.delayed.is_empty() {
            text.push_str("\n### Planted delays\n\n");
            text.push_str(&wrapped(
                "",
                "How many times better the copies are than a contestant with a delay on each \
                 message: the median of its ratios to each copy, in brackets the smallest and the \
                 largest; then in how many of these comparisons a copy is named the winner, and, \
                 where there is one, in how many the delayed contestant is.",
            ));
            text.push_str(&format!("\n{}", self.table_of_delays().render()));
        }
        text
    }

    fn table_of_equals(&self) -> Table {
        let headings = [
            "bout",
            "by",
            "comparisons",
            "rounds x cycles",
            "interval holds 1",
            "a winner named",
            "half width",
        ];
        let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![2, 3, 4, 5, 6]);
        let mut sums = Equals::default();
        for place in self.places() {
            let (bout, metric) = place;
            let all = self.equals(place);
            let equals = Equals::of(&all);
            let widths: Vec<f64> = all.iter().map(|one| one.ratio.half_width()).collect();
            let mut row = vec![bout.scenario.name.clone(), metric.title.to_owned()];
            let sizes = all.iter().map(|one| crate::output::words::size(one));
            row.extend(equals.cells(sizes.max().unwrap_or_default()));
            row.push(
                median_of(&widths)
                    .map_or_else(String::new, |width| format!("±{:.1}%", width * 100.0)),
            );
            table.row(row);
            sums = sums.and(equals);
        }
        let mut row = vec!["all".to_owned(), String::new()];
        row.extend(sums.cells(String::new()));
        row.push(String::new());
        table.row(row);
        table
    }

    fn table_of_delays(&self) -> Table {
        let delayed = self.delayed.iter().map(|name| (*name).to_owned());
        let headings = ["bout", "by"].map(str::to_owned).into_iter().chain(delayed);
        let columns = (2..2 + self.delayed.len()).collect();
        let mut table = Table::new(headings.collect(), columns);
        for place in self.places().into_iter().filter(is_of_the_curve) {
            let (bout, metric) = place;
            let cells = self.delayed.iter().map(|delayed| {
                let found = self.planted(place, delayed);
                found.map_or_else(String::new, |found| found.cell())
            });
            let row = [bout.scenario.name.clone(), metric.title.to_owned()].into_iter();
            table.row(row.chain(cells).collect());
        }
        table
    }

    /// The delays as dots beside the curves.
    fn observed(&self) -> Vec<Observed> {
        let mut dots = Vec::new();
        for place in self.places().into_iter().filter(is_of_the_curve) {
            for delayed in &self.delayed {
                if let Some(found) = self.planted(place, delayed) {
                    dots.push(Observed {
                        bout: place.0.scenario.name.clone(),
                        is_throughput: place.1.is_throughput(),
                        contestant: (*delayed).to_owned(),
                        effect: found.ratio - 1.0,
                        share: found.right as f64 / found.comparisons as f64,
                    });
                }
            }
        }
        dots
    }
}

/// A delayed contestant against the copies.
struct Planted {
    ratio: f64,
    least: f64,
    most: f64,
    comparisons: usize,
    right: usize,
    wrong: usize,
}

impl Planted {
    fn cell(&self) -> String {
        let Self {
            ratio,
            least,
            most,
            comparisons,
            right,
            wrong,
        } = self;
        let wrong = match wrong {
            0 => String::new(),
            wrong => format!(", wrong {wrong}"),
        };
        format!("{ratio:.3} [{least:.3}, {most:.3}] {right} of {comparisons}{wrong}")
    }
}

/// What was found between copies.
#[derive(Default, Clone, Copy)]
struct Equals {
    comparisons: usize,
    hold: usize,
    named: usize,
}

impl Equals {
    fn of(comparisons: &[&Comparison]) -> Self {
        let holds = |one: &&&Comparison| one.ratio.ci_low <= 1.0 && one.ratio.ci_high >= 1.0;
        let is_named = |one: &&&Comparison| one.verdict.winner.is_some();
        Self {
            comparisons: comparisons.len(),
            hold: comparisons.iter().filter(holds).count(),
            named: comparisons.iter().filter(is_named).count(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            comparisons: self.comparisons + other.comparisons,
            hold: self.hold + other.hold,
            named: self.named + other.named,
        }
    }

    fn cells(self, size: String) -> [String; 4] {
        let share = |count: usize| {
            let percent = 100.0 * count as f64 / self.comparisons.max(1) as f64;
            format!("{count} ({percent:.1}%)")
        };
        [
            self.comparisons.to_string(),
            size,
            share(self.hold),
            share(self.named),
        ]
    }
}

/// Throughput and CPU time of a closed loop; CPU time and p99 at an equal rate.
fn figures_of(bout: &Bout) -> impl Iterator<Item = &'static Metric> + use<> {
    let kind = bout.scenario.kind;
    let is_at_rate = bout.scenario.at_rate_of.is_some();
    let closed = metrics::find(kind, &bout.headline)
        .into_iter()
        .chain(metrics::server_cpu(&bout.scenario))
        .filter(move |_| !is_at_rate);
    closed.chain(metrics::at_equal_rate(&bout.scenario).filter(move |_| is_at_rate))
}

/// A p99 is known too badly for effects of some percent.
fn is_of_the_curve((_, metric): &Place<'_>) -> bool {
    metrics::family(metric.key).is_none()
}

/// The power curves of these suites, from the rounds of all of them; none of a bout with too few
/// rounds for suites of so many (`rounds`; `rounds_at_rate` for a companion).
///
/// All pairs of copies of a round are drawn from, but they share copies: k copies hold k - 1
/// independent differences, and as many rounds are counted.
pub(super) fn curves(tested: &[Tested<'_>], rounds: usize, rounds_at_rate: usize) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for (bout, metric) in tested
        .iter()
        .flat_map(Tested::places)
        .filter(is_of_the_curve)
    {
        let name = bout.scenario.name.as_str();
        let is_throughput = metric.is_throughput();
        if curves
            .iter()
            .any(|one| one.bout == name && one.is_throughput == is_throughput)
        {
            continue;
        }
        let (mut drawn, mut independent) = (Vec::new(), 0);
        for one in tested {
            let runs: Vec<&RunRecord> = one.results.runs_of(name).collect();
            let of_pairs = one.pairs().into_iter();
            let of_pairs =
                of_pairs.map(|(first, second)| cycles_of_rounds(&runs, first, second, metric));
            let of_pairs: Vec<Vec<Vec<f64>>> = of_pairs.collect();
            let ran = of_pairs.iter().map(Vec::len).min().unwrap_or(0);
            independent += ran * one.copies.len().saturating_sub(1);
            drawn.extend(of_pairs.into_iter().flatten());
        }
        let rounds = match bout.scenario.at_rate_of {
            Some(_) => rounds_at_rate,
            None => rounds,
        };
        if independent < ROUNDS_TO_DRAW_FROM * rounds {
            continue;
        }
        let effects = EFFECTS.step_by(STEP);
        let effects: Vec<f64> = effects
            .map(|tenths| 1.0 + f64::from(tenths) / 1000.0)
            .collect();
        let seed = derive_seed(0, &format!("power/{name}/{}", metric.key));
        let cycles = drawn.iter().map(Vec::len).sum::<usize>() / drawn.len().max(1);
        if let Some(points) = power_curve(&drawn, rounds, &effects, seed) {
            let percent = |(effect, share): (f64, f64)| (effect - 1.0, share);
            curves.push(Curve {
                bout: name.to_owned(),
                is_throughput,
                by: metric.title,
                rounds,
                cycles,
                points: points.into_iter().map(percent).collect(),
            });
        }
    }
    curves
}

/// The delays of all these suites.
pub(super) fn observed(tested: &[Tested<'_>]) -> Vec<Observed> {
    tested.iter().flat_map(Tested::observed).collect()
}

/// The curves in figures.
pub(super) fn table_of(curves: &[Curve]) -> Table {
    let headings = ["bout", "by", "rounds x cycles"]
        .map(str::to_owned)
        .into_iter();
    let headings = headings.chain(IN_THE_TABLE.map(|percent| format!("{percent}%")));
    let mut table = Table::new(headings.collect(), (2..3 + IN_THE_TABLE.len()).collect());
    for curve in curves {
        let cells = IN_THE_TABLE.map(|percent| {
            let near = |point: &&(f64, f64)| (point.0 * 100.0 - percent).abs() < 1e-6;
            let share = curve
                .points
                .iter()
                .find(near)
                .map(|(_, share)| share * 100.0);
            share.map_or_else(String::new, |share| format!("{share:.1}%"))
        });
        let row = [
            curve.bout.clone(),
            curve.by.to_owned(),
            format!("{} x {}", curve.rounds, curve.cycles),
        ];
        table.row(row.into_iter().chain(cells).collect());
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Scenario;
    use crate::stats::rng::SplitMix64;
    use crate::summary::{Setting, summarize};
    use crate::test_data;

    /// What is run: three copies, and one that is 8% slower.
    const PACE: [(&str, f64); 4] = [("a", 1.0), ("b", 1.0), ("c", 1.0), ("late", 1.08)];

    /// A closed loop and its companion, so many rounds of each.
    pub(in crate::output::docs) fn tested(rounds: usize) -> Results {
        let closed = test_data::scenario("echo-64b-w1-c1000");
        let at_rate = closed.at_rate(0.5).unwrap();
        let mut rng = SplitMix64::new(5);
        let mut runs = Vec::new();
        for scenario in [&closed, &at_rate] {
            for round in 1..=rounds {
                for (name, pace) in PACE {
                    let slices: Vec<(u64, u64)> = (0..20)
                        .map(|_| {
                            let noise = 1.0 + rng.below(800) as f64 / 10_000.0;
                            let messages = (10_000.0 / pace * noise) as u64;
                            (messages, 45_000_000)
                        })
                        .collect();
                    runs.push(test_data::round_run(scenario, name, round, slices));
                }
            }
        }
        let mut results = test_data::results("referee", "abc1234", runs);
        let scenarios: Vec<Scenario> = vec![closed, at_rate];
        let mut setting: Setting = test_data::setting();
        let entrant = setting.contestants[0].clone();
        setting.contestants = PACE
            .iter()
            .map(|(name, _)| {
                let mut one = entrant.clone();
                one.name = (*name).to_owned();
                one
            })
            .collect();
        setting.rounds = scenarios
            .iter()
            .map(|scenario| (scenario.name.clone(), rounds))
            .collect();
        results.environment.contestants = PACE
            .iter()
            .map(|(name, pace)| {
                let mut one = test_data::contestant(name);
                one.program = "floor_tcp".into();
                if *pace > 1.0 {
                    one.args = vec!["--burn-ns".to_owned(), "800".to_owned()];
                }
                one
            })
            .collect();
        results.summary = summarize(setting, &scenarios, &results.runs);
        results
    }

    fn row<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        let mut lines = text.lines().map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(str::trim).collect::<Vec<_>>()
        });
        let start: Vec<&str> = start.split('|').collect();
        lines.find(|cells| cells.starts_with(&start)).unwrap()
    }

    #[test]
    fn copies_are_told_by_program_and_arguments_and_the_rest_is_delayed() {
        let results = tested(4);
        let tested = Tested::of(&results).unwrap();
        assert_eq!(tested.copies, ["a", "b", "c"]);
        assert_eq!(tested.delayed, ["late"]);
        assert_eq!(tested.pairs(), [("a", "b"), ("a", "c"), ("b", "c")]);
    }

    #[test]
    fn equals_and_delays_are_counted_by_bout_and_figure() {
        let results = tested(6);
        let tested = Tested::of(&results).unwrap();
        let equals = tested.table_of_equals().render();
        let throughput = row(&equals, "echo-64b-w1-c1000|echoes/s");
        assert_eq!(throughput[2..4], ["3", "6 x 20"], "{equals}");
        assert_eq!(row(&equals, "all")[2], "12", "two figures of two bouts");
        let p99 = row(&equals, "echo-64b-w1-c1000-at-50|p99 intended");
        assert_eq!(
            p99[2..7],
            ["3", "6 x 20", "3 (100.0%)", "0 (0.0%)", "±0.0%"]
        );
        let delays = tested.table_of_delays().render();
        let found = row(&delays, "echo-64b-w1-c1000|server CPU/message");
        assert!(
            found[2].starts_with("1.0") && found[2].ends_with("3 of 3"),
            "{delays}"
        );
        assert!(!delays.contains("p99"), "{delays}");
    }

    #[test]
    fn the_curves_need_rounds_and_three_copies_count_for_two() {
        let results = tested(8);
        let tested = [Tested::of(&results).unwrap()];
        assert!(
            curves(&tested, 5, 5).is_empty(),
            "2 x 8 rounds for suites of 5"
        );
        let curves = curves(&tested, 4, 5);
        let names: Vec<&str> = curves.iter().map(|curve| curve.by).collect();
        assert_eq!(names, ["echoes/s", "server CPU/message"]);
        let (first, last) = (curves[0].points[0], curves[0].points[20]);
        assert!(first.0 == 0.0 && first.1 < 0.12, "{first:?}");
        assert!((last.0 - 0.1).abs() < 1e-9 && last.1 > 0.99, "{last:?}");
        let table = table_of(&curves).render();
        let figures = row(&table, "echo-64b-w1-c1000|echoes/s|4 x 20");
        assert_eq!(figures.last(), Some(&"100.0%"), "{table}");
    }

    #[test]
    fn a_folder_without_copies_or_without_slices_is_refused() {
        let mut results = tested(4);
        for (place, one) in results.environment.contestants.iter_mut().enumerate() {
            one.args = vec![place.to_string()];
        }
        let message = Tested::of(&results).unwrap_err().to_string();
        assert!(
            message.contains("no two contestants are the same program"),
            "{message}"
        );
        let mut results = tested(4);
        for run in &mut results.runs {
            run.alternation = None;
        }
        let scenarios: Vec<Scenario> = results
            .summary
            .bouts
            .iter()
            .map(|one| one.scenario.clone())
            .collect();
        results.summary = summarize(results.summary.setting.clone(), &scenarios, &results.runs);
        let message = Tested::of(&results).unwrap_err().to_string();
        assert!(message.contains("no bout alternates"), "{message}");
    }
}
