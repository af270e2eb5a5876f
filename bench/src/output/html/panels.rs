//! All contestants against one of them, a panel for each bout and metric: the drawing for a README.

use super::axis::Scale;
use super::svg::{Frame, Svg};
use crate::judge::metrics::{self, Metric};
use crate::summary::{Advantage, Bout, Summary};

const WIDTH: f64 = 900.0;
/// Of the names of contestants.
const NAMES: f64 = 178.0;
/// Between panels, and at the right end.
const GAP: f64 = 12.0;
const ROW: f64 = 21.0;
/// Over the panels of a row: the bout's name, the metric.
const HEADS: f64 = 44.0;
/// Under the panels of a row: labels of the axis.
const TICKS: f64 = 26.0;
/// Over and under all panels: what is drawn, and what the colours mean.
const TITLE: f64 = 26.0;
const LEGEND: f64 = 30.0;
/// Panels beside each other.
const COLUMNS: usize = 5;
/// A ratio beyond is cut: one wide interval must not make all others unreadable.
const CUT: (f64, f64) = (0.4, 2.5);

/// One contestant in one panel.
struct Mark<'a> {
    contestant: &'a str,
    advantage: Advantage,
}

struct Panel<'a> {
    bout: &'a Bout,
    metric: &'static Metric,
    marks: Vec<Mark<'a>>,
}

/// How many times better than `reference` the others are, by what decides each bout and by the
/// server's CPU time for each message; `None` where nothing is compared with it.
pub(super) fn against(summary: &Summary, reference: &str) -> Option<String> {
    let entrants = summary.setting.contestants.iter();
    let others: Vec<&str> = entrants
        .filter(|entrant| entrant.excluded.is_none() && entrant.duplicate.is_none())
        .map(|entrant| entrant.name.as_str())
        .filter(|name| *name != reference)
        .collect();
    let rows: Vec<Vec<Option<Panel<'_>>>> = summary
        .bouts
        .chunks(COLUMNS)
        .flat_map(|bouts| {
            [cpu_metric, headline].map(|metric| {
                let panels = bouts.iter();
                panels
                    .map(|bout| panel(bout, metric(bout)?, reference, &others))
                    .collect()
            })
        })
        .filter(|row: &Vec<_>| row.iter().any(Option::is_some))
        .collect();
    let marks = || {
        rows.iter()
            .flatten()
            .flatten()
            .flat_map(|panel| &panel.marks)
    };
    marks().next()?;
    let ends = marks().flat_map(|mark| [mark.advantage.low, mark.advantage.high]);
    let ends: Vec<f64> = ends.map(|end| end.clamp(CUT.0, CUT.1)).collect();

    let inside = others.len() as f64 * ROW;
    let tall = HEADS + inside + TICKS;
    let wide = (WIDTH - NAMES) / COLUMNS as f64;
    let frame = |row: usize, column: usize| {
        let (left, top) = (
            NAMES + column as f64 * wide,
            TITLE + row as f64 * tall + HEADS,
        );
        Frame {
            left,
            right: left + wide - GAP,
            top,
            bottom: top + inside,
        }
    };
    let height = TITLE + rows.len() as f64 * tall + LEGEND;
    let mut svg = Svg::of_frames(WIDTH, height, frame(0, 0));
    let title = format!(
        "How many times better than {reference}, with 95% interval (right of the dashed line is better)"
    );
    svg.text("title", (8.0, 18.0), "start", &title);
    for (number, row) in rows.iter().enumerate() {
        for (place, name) in others.iter().enumerate() {
            let y = frame(number, 0).top + (place as f64 + 0.5) * ROW;
            svg.text("row", (NAMES - 10.0, y + 4.0), "end", name);
        }
        for (column, panel) in row.iter().enumerate() {
            if let Some(panel) = panel {
                draw(&mut svg, frame(number, column), panel, &ends, &others);
            }
        }
    }
    legend(&mut svg, height - LEGEND / 2.0, reference);
    Some(svg.finish(&title))
}

fn headline(bout: &Bout) -> Option<&'static Metric> {
    metrics::find(bout.scenario.kind, &bout.headline)
}

fn cpu_metric(bout: &Bout) -> Option<&'static Metric> {
    metrics::server_cpu(bout.scenario.kind)
}

fn panel<'a>(
    bout: &'a Bout,
    metric: &'static Metric,
    reference: &str,
    others: &[&'a str],
) -> Option<Panel<'a>> {
    let marks: Vec<Mark<'_>> = others
        .iter()
        .filter_map(|name| {
            Some(Mark {
                contestant: name,
                advantage: bout.advantage(name, reference, metric.key)?,
            })
        })
        .collect();
    (!marks.is_empty()).then_some(Panel {
        bout,
        metric,
        marks,
    })
}

fn draw(svg: &mut Svg, frame: Frame, panel: &Panel<'_>, ends: &[f64], others: &[&str]) {
    svg.go_on_in(frame);
    let x = Scale::logarithmic(ends.iter().copied().chain([0.8, 1.25]), svg.across());
    let middle = (frame.left + frame.right) / 2.0;
    svg.text(
        "head",
        (middle, frame.top - 24.0),
        "middle",
        &panel.bout.scenario.name,
    );
    svg.text(
        "label",
        (middle, frame.top - 9.0),
        "middle",
        panel.metric.title,
    );
    svg.x_axis(x.ticks_as(|tick| format!("{tick:.1}x")), "");
    svg.mark_x(x.at(1.0));
    for Mark {
        contestant,
        advantage,
    } in &panel.marks
    {
        let Some(place) = others.iter().position(|name| name == contestant) else {
            continue;
        };
        let y = frame.top + (place as f64 + 0.5) * ROW;
        let class = class(advantage);
        let Advantage {
            ratio, low, high, ..
        } = advantage;
        svg.line(
            &format!("interval {class}"),
            (x.at(*low), y),
            (x.at(*high), y),
        );
        let words = format!("{contestant}: {ratio:.2}x [{low:.2}, {high:.2}]");
        svg.square(&format!("estimate {class}"), (x.at(*ratio), y), 4.5, &words);
    }
}

/// Better, worse, or nothing shown.
fn class(advantage: &Advantage) -> &'static str {
    match (advantage.shown, advantage.ratio > 1.0) {
        (true, true) => "s0",
        (true, false) => "s1",
        (false, _) => "undecided",
    }
}

fn legend(svg: &mut Svg, y: f64, reference: &str) {
    let mut left = NAMES;
    for (class, words) in [
        ("s0", format!("better than {reference}")),
        ("s1", format!("worse than {reference}")),
        ("undecided", "no difference detectable".to_owned()),
    ] {
        svg.line(&format!("interval {class}"), (left, y), (left + 26.0, y));
        svg.square(&format!("estimate {class}"), (left + 13.0, y), 4.5, "");
        svg.text("label", (left + 34.0, y + 4.0), "start", &words);
        left += 58.0 + words.chars().count() as f64 * 7.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn marks_are_coloured_by_what_was_shown_whatever_the_order_of_a_pair() {
        let summary = test_data::tokio_a_quarter_better();
        let drawn = against(&summary, "server-uring").unwrap();
        assert!(
            drawn.contains("server-tokio: 1.25x [1.25, 1.25]"),
            "{drawn}"
        );
        assert!(drawn.contains("estimate s0\" x"));
        let drawn = against(&summary, "server-tokio").unwrap();
        assert!(
            drawn.contains("server-uring: 0.80x [0.80, 0.80]"),
            "{drawn}"
        );
        assert!(drawn.contains("estimate s1\" x"));
        assert!(against(&summary, "nobody").is_none());
    }
}
