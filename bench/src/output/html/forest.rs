//! The forest plot: how many times better than one contestant the others are, a row for each bout
//! and contestant, a panel for each of three figures.

use super::axis::{Scale, reach};
use super::chart::{Chart, Legend, strings};
use super::svg::{Frame, Svg};
use crate::config::{Load, ScenarioKind};
use crate::judge::metrics::{self, Metric};
use crate::output::table::Table;
use crate::summary::{Advantage, Bout, Summary};

const PANELS: [&str; 3] = ["throughput", "server CPU per message", "p99 latency"];
/// What the third panel shows where a bout has it, unless another p99 decides the bout.
const P99: [&str; 3] = [
    "latency_intended_p99_ns",
    "latency_last_receiver_p99_ns",
    "latency_handshake_p99_ns",
];
/// Of the names of bouts and contestants.
const NAMES: f64 = 172.0;
const PANEL: f64 = 232.0;
/// Between panels, and at the right end.
const GAP: f64 = 16.0;
const ROW: f64 = 17.0;
/// Over the panels: their names.
const HEAD: f64 = 24.0;
/// Under them: the axis.
const AXIS: f64 = 46.0;
/// Over all of a drawing that stands alone.
const TITLE: f64 = 46.0;
/// A ratio beyond is cut: one wide interval must not make all others unreadable.
const FARTHEST: f64 = 2.5;

/// All that is compared with one contestant.
#[derive(Debug)]
pub(super) struct Forest<'a> {
    reference: &'a str,
    others: Vec<&'a str>,
    groups: Vec<Group<'a>>,
}

/// A bout, with its companion at a common rate if it has one.
#[derive(Debug)]
struct Group<'a> {
    name: &'a str,
    /// What the first panel shows of it, if not throughput.
    by: Option<&'static str>,
    rows: Vec<Row<'a>>,
}

#[derive(Debug)]
struct Row<'a> {
    contestant: &'a str,
    marks: [Option<Mark<'a>>; 3],
}

#[derive(Debug)]
struct Mark<'a> {
    bout: &'a str,
    metric: &'static Metric,
    advantage: Advantage,
}

impl<'a> Forest<'a> {
    /// `None` where nothing is compared with `reference`.
    pub(super) fn of(summary: &'a Summary, reference: &'a str) -> Option<Self> {
        let entrants = summary.setting.contestants.iter();
        let others: Vec<&str> = entrants
            .filter(|entrant| entrant.excluded.is_none() && entrant.name != reference)
            .filter(|entrant| {
                let again = entrant.duplicate.as_ref();
                again.is_none_or(|again| again.of == reference)
            })
            .map(|entrant| entrant.name.as_str())
            .collect();
        let groups = summary.bouts.iter();
        let groups: Vec<Group<'_>> = groups
            .filter_map(|bout| group(&summary.bouts, bout, reference, &others))
            .collect();
        (!groups.is_empty()).then_some(Self {
            reference,
            others,
            groups,
        })
    }

    /// Beside each other on a screen, under each other on a phone.
    pub(super) fn chart(&self, legend: &Legend<'_>) -> Chart {
        let (caption, reading) = (self.title(), self.reading());
        let drawn = |columns| self.draw(columns, 0.0, legend).finish(&caption, &reading);
        Chart {
            svg: drawn(PANELS.len()),
            narrow: Some(drawn(1)),
            table: self.table(),
            caption,
        }
    }

    /// With its title and how to read it.
    pub(super) fn alone(&self, legend: &Legend<'_>) -> String {
        let mut svg = self.draw(PANELS.len(), TITLE, legend);
        svg.text("title", (8.0, 18.0), "start", &self.title());
        let reading =
            "● a winner is named · ○ no difference is shown · right of the dashed line: better";
        svg.text("label", (8.0, 37.0), "start", reading);
        svg.finish(&self.title(), &self.reading())
    }

    fn title(&self) -> String {
        let reference = self.reference;
        match self.others[..] {
            [other] => format!("{other}: how many times better than {reference}"),
            _ => format!("How many times better than {reference}, with 95% interval"),
        }
    }

    /// How the drawing is read.
    pub(super) fn reading(&self) -> String {
        format!(
            "A dot says how many times better a contestant is than {}: right of the dashed line it is \
             better, left of it worse. The line is the 95% interval. The dot is filled where a winner \
             is named, hollow where no difference is shown. CPU time and p99 are those at a common \
             rate, where a bout has one.",
            self.reference
        )
    }

    /// Style, name and sums of each of the others.
    pub(super) fn sums(&self, legend: &Legend<'_>) -> Vec<(String, String)> {
        let sum = |name: &&str| {
            let mut counts = [0; 3];
            let rows = self.groups.iter().flat_map(|group| &group.rows);
            for mark in rows
                .filter(|row| row.contestant == *name)
                .flat_map(Row::marks)
            {
                let place = match (mark.advantage.shown, mark.advantage.ratio > 1.0) {
                    (true, true) => 0,
                    (true, false) => 1,
                    (false, _) => 2,
                };
                counts[place] += 1;
            }
            let [better, worse, open] = counts;
            let words = format!(
                "{name}: better in {better}, worse in {worse}, no difference shown in {open} of {} figures",
                better + worse + open
            );
            (legend.style(name), words)
        };
        self.others.iter().map(sum).collect()
    }

    fn marks(&self) -> impl Iterator<Item = (usize, &Mark<'a>)> {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        rows.flat_map(|row| row.marks.iter().enumerate())
            .filter_map(|(panel, mark)| Some((panel, mark.as_ref()?)))
    }

    /// One bout, one row: its name stands in it, and not over its rows.
    fn is_single(&self) -> bool {
        self.others.len() == 1
    }

    fn height_of(&self, group: &Group<'_>) -> f64 {
        let heads = if self.is_single() { 0.5 } else { 1.5 };
        (group.rows.len() as f64 + heads) * ROW
    }

    /// So many panels beside each other.
    fn draw(&self, columns: usize, above: f64, legend: &Legend<'_>) -> Svg {
        let panels: Vec<usize> = (0..PANELS.len())
            .filter(|panel| self.marks().any(|(place, _)| place == *panel))
            .collect();
        let columns = columns.min(panels.len());
        let inside: f64 = self.groups.iter().map(|group| self.height_of(group)).sum();
        let tall = HEAD + inside + AXIS;
        let frame = |number: usize| {
            let left = NAMES + (number % columns) as f64 * (PANEL + GAP);
            let top = above + (number / columns) as f64 * tall + HEAD;
            Frame {
                left,
                right: left + PANEL,
                top,
                bottom: top + inside,
            }
        };
        let width = NAMES + columns as f64 * (PANEL + GAP);
        let height = above + panels.len().div_ceil(columns) as f64 * tall;
        let mut svg = Svg::of_frames(width, height, frame(0));
        // The panels have one axis.
        let intervals = self.marks().map(|(_, mark)| mark.advantage);
        let reach = reach(intervals.flat_map(|one| [one.low, one.high]), FARTHEST);
        for (number, panel) in panels.into_iter().enumerate() {
            let here = frame(number);
            svg.go_on_in(here);
            let middle = (here.left + here.right) / 2.0;
            svg.text("head", (middle, here.top - 9.0), "middle", PANELS[panel]);
            let x = Scale::about_one(reach, svg.across());
            svg.x_axis(x.ticks_about_one(), "← worse · better →");
            svg.mark_x(x.at(1.0));
            let mut top = here.top;
            for group in &self.groups {
                if number % columns == 0 {
                    self.names(&mut svg, group, top);
                    svg.line("grid", (0.0, top), (width - GAP, top));
                }
                for (place, row) in group.rows.iter().enumerate() {
                    if let Some(mark) = &row.marks[panel] {
                        let y = self.y_of(group, top, place);
                        draw_mark(&mut svg, x, y, mark, row.contestant, legend);
                    }
                }
                top += self.height_of(group);
            }
        }
        svg
    }

    fn y_of(&self, group: &Group<'_>, top: f64, row: usize) -> f64 {
        let bottom = top + self.height_of(group);
        bottom - ((group.rows.len() - 1 - row) as f64 + 0.75) * ROW
    }

    fn names(&self, svg: &mut Svg, group: &Group<'_>, top: f64) {
        let by = group.by.map_or(String::new(), |by| format!("by {by}"));
        if self.is_single() {
            let y = self.y_of(group, top, 0) + if group.by.is_some() { -1.0 } else { 4.0 };
            svg.text("row", (2.0, y), "start", group.name);
            svg.text("small", (2.0, y + 12.0), "start", &by);
            return;
        }
        svg.text(
            "head",
            (2.0, top + 15.0),
            "start",
            &format!("{} {by}", group.name),
        );
        for (place, row) in group.rows.iter().enumerate() {
            let y = self.y_of(group, top, place) + 4.0;
            svg.text("row", (NAMES - 10.0, y), "end", row.contestant);
        }
    }

    fn table(&self) -> Table {
        let headings = [
            "bout",
            "contestant",
            "by",
            "times better",
            "from",
            "to",
            "n",
            "winner named",
        ];
        let mut table = Table::new(strings(&headings), vec![3, 4, 5, 6]);
        for row in self.groups.iter().flat_map(|group| &group.rows) {
            for mark in row.marks() {
                let Advantage {
                    ratio,
                    low,
                    high,
                    shown,
                    pairs,
                    ..
                } = mark.advantage;
                let [ratio, low, high] = [ratio, low, high].map(times);
                table.row(vec![
                    mark.bout.to_owned(),
                    row.contestant.to_owned(),
                    mark.metric.title.to_owned(),
                    ratio,
                    low,
                    high,
                    pairs.to_string(),
                    if shown { "yes" } else { "no" }.to_owned(),
                ]);
            }
        }
        table
    }
}

impl<'a> Row<'a> {
    fn marks(&self) -> impl Iterator<Item = &Mark<'a>> {
        self.marks.iter().flatten()
    }
}

fn group<'a>(
    bouts: &'a [Bout],
    bout: &'a Bout,
    reference: &str,
    others: &[&'a str],
) -> Option<Group<'a>> {
    let is_companion_of =
        |one: &Bout, other: &Bout| one.scenario.at_rate_of.as_ref() == Some(&other.scenario.name);
    if bouts.iter().any(|other| is_companion_of(bout, other)) {
        return None;
    }
    let companion = bouts.iter().find(|one| is_companion_of(one, bout));
    let figures = figures(bout, companion.unwrap_or(bout));
    let rows = others.iter().map(|contestant| Row {
        contestant,
        marks: figures.map(|figure| {
            let (bout, metric) = figure?;
            Some(Mark {
                bout: &bout.scenario.name,
                metric,
                advantage: bout.advantage(contestant, reference, metric.key)?,
            })
        }),
    });
    let rows: Vec<Row<'_>> = rows.filter(|row| row.marks().next().is_some()).collect();
    let (_, first) = figures[0].unzip();
    let by = first.filter(|metric| !metric.key.ends_with("_per_s"));
    (!rows.is_empty()).then_some(Group {
        name: &bout.scenario.name,
        by: by.map(|metric| metric.title),
        rows,
    })
}

/// What each panel shows of a bout: throughput (or whatever decides it and is neither CPU time nor
/// latency), and the other two at a common rate. A closed loop's latency is its throughput.
fn figures<'a>(bout: &'a Bout, at_rate: &'a Bout) -> [Option<(&'a Bout, &'static Metric)>; 3] {
    let headline = metrics::find(bout.scenario.kind, &bout.headline);
    let headline = headline.filter(|metric| {
        !["latency_", "server_cpu_"]
            .iter()
            .any(|prefix| metric.key.starts_with(prefix))
    });
    let kind = at_rate.scenario.kind;
    let is_at_rate = matches!(
        at_rate.scenario.load,
        Some(Load::Rate(_) | Load::FractionOfCapacity(_))
    );
    let p99 = (is_at_rate || kind == ScenarioKind::Connect)
        .then(|| {
            let decides = [at_rate.headline.as_str()]
                .into_iter()
                .filter(|key| key.ends_with("_p99_ns"));
            let mut own = decides
                .chain(P99)
                .filter(|key| is_at_rate || !key.starts_with("latency_intended"));
            own.find_map(|key| metrics::find(kind, key))
        })
        .flatten();
    [
        headline.map(|metric| (bout, metric)),
        metrics::server_cpu(&at_rate.scenario).map(|metric| (at_rate, metric)),
        p99.map(|metric| (at_rate, metric)),
    ]
}

fn draw_mark(
    svg: &mut Svg,
    x: Scale,
    y: f64,
    mark: &Mark<'_>,
    contestant: &str,
    legend: &Legend<'_>,
) {
    let style = legend.style(contestant);
    let Advantage {
        ratio,
        low,
        high,
        shown,
        ..
    } = mark.advantage;
    let (left, right) = svg.across();
    svg.line(
        &format!("interval {style}"),
        (x.at(low), y),
        (x.at(high), y),
    );
    let words = format!(
        "{}, {contestant}, {}: {} [{}, {}]",
        mark.bout,
        mark.metric.title,
        times(ratio),
        times(low),
        times(high)
    );
    let hollow = if shown { "" } else { "hollow " };
    svg.dot(
        &format!("estimate {hollow}{style}"),
        (x.at(ratio), y),
        4.5,
        &words,
    );
    // The mark itself lies beyond the axis: its figure stands at the end.
    if x.at(ratio) >= right {
        svg.text(
            "beyond",
            (right - 8.0, y - 3.0),
            "end",
            &format!("{} →", times(ratio)),
        );
    } else if x.at(ratio) <= left {
        svg.text(
            "beyond",
            (left + 8.0, y - 3.0),
            "start",
            &format!("← {}", times(ratio)),
        );
    }
}

/// So many digits that a narrow interval has two ends.
pub(super) fn times(value: f64) -> String {
    match value {
        large if large >= 10.0 => format!("{large:.0}x"),
        close if (close - 1.0).abs() < 0.1 => format!("{close:.3}x"),
        value => format!("{value:.2}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn a_dot_is_filled_where_a_winner_is_named_whatever_the_order_of_a_pair() {
        let summary = test_data::tokio_a_quarter_better();
        let names = ["server-uring", "server-tokio"].map(str::to_owned);
        let drawn = |reference| {
            let chart = Forest::of(&summary, reference)?.chart(&Legend(&names));
            Some(chart.svg + &chart.table.render())
        };
        let up = drawn("server-uring").unwrap();
        assert!(
            up.contains("server-tokio, echoes/s: 1.25x [1.25x, 1.25x]"),
            "{up}"
        );
        assert!(up.contains("class=\"estimate s1\""), "{up}");
        let down = drawn("server-tokio").unwrap();
        assert!(
            down.contains("server-uring, echoes/s: 0.80x [0.80x, 0.80x]"),
            "{down}"
        );
        assert!(down.contains("class=\"estimate s0\""), "{down}");
        assert!(drawn("nobody").is_none());
    }

    #[test]
    fn the_companion_of_a_bout_gives_its_row_cpu_time_and_latency() {
        let mut runs = Vec::new();
        for block in 1..=3 {
            for (name, per_s) in [("server-uring", 100_000.0), ("server-tokio", 120_000.0)] {
                runs.push(test_data::echo_run(name, block, per_s));
                let mut companion = test_data::open_run(name, block, 50_000.0, 900_000);
                companion.scenario.at_rate_of = Some(runs[0].bout.clone());
                runs.push(companion);
            }
        }
        let scenarios = [runs[0].scenario.clone(), runs[1].scenario.clone()];
        let summary = crate::summary::summarize(test_data::setting(), &scenarios, &runs);
        let forest = Forest::of(&summary, "server-uring").unwrap();
        assert_eq!(forest.groups.len(), 1);
        let marks: Vec<(&str, &str)> = forest
            .marks()
            .map(|(_, mark)| (mark.bout, mark.metric.key))
            .collect();
        let (closed, open) = (scenarios[0].name.as_str(), scenarios[1].name.as_str());
        let expected = [
            (closed, "messages_per_s"),
            (open, "server_cpu_ns_per_message"),
            (open, "latency_intended_p99_ns"),
        ];
        assert_eq!(marks, expected);
        let names = ["server-uring", "server-tokio"].map(str::to_owned);
        let chart = forest.chart(&Legend(&names));
        assert!(
            chart.svg.contains("estimate hollow s1"),
            "three runs are too few for a claim"
        );
        assert_eq!(chart.narrow.unwrap().matches("← worse").count(), 3);
    }

    #[test]
    fn the_p99_that_decides_a_bout_is_the_one_shown() {
        let runs: Vec<_> = ["server-uring", "server-tokio"]
            .map(|name| {
                let mut run = test_data::open_run(name, 1, 50_000.0, 900_000);
                run.scenario.headline = Some("latency_actual_p99_ns".to_owned());
                run
            })
            .into();
        let scenarios = [runs[0].scenario.clone()];
        let summary = crate::summary::summarize(test_data::setting(), &scenarios, &runs);
        let [_, _, p99] = figures(&summary.bouts[0], &summary.bouts[0]);
        assert_eq!(p99.unwrap().1.key, "latency_actual_p99_ns");
    }
}
