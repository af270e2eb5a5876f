//! A bout through the time of its suite: slices of rounds, or seconds of runs.

use std::collections::BTreeMap;

use loadgen::record::{Record, Second};

use super::axis::Scale;
use super::chart::{Chart, Legend, strings};
use super::svg::{FIGURES, Frame, Svg, WIDTH};
use crate::judge::metrics::{self, Metric};
use crate::output::table::Table;
use crate::output::text::missing;
use crate::record::{RunRecord, Slice};
use crate::stats::median_of;
use crate::summary::Bout;
use crate::units::{self, Unit};

const GAP: f64 = 8.0;
const HEIGHT: f64 = 110.0;
/// Over and under a row of panels.
const ABOVE: f64 = 28.0;
const BELOW: f64 = 24.0;
/// Panels beside each other.
const COLUMNS: usize = 5;

/// What one contestant did in one round: places in time with their values.
struct Stretch<'a> {
    run: &'a RunRecord,
    warm_up: Vec<(u64, f64)>,
    counted: Vec<(u64, f64)>,
}

impl Stretch<'_> {
    fn points(&self) -> impl Iterator<Item = &(u64, f64)> {
        self.warm_up.iter().chain(&self.counted)
    }
}

/// A panel per round, so that the machine's fast and slow states are seen in all contestants at
/// once; `suite` are the runs of all bouts.
pub(super) fn strip(
    bout: &Bout,
    suite: &[RunRecord],
    runs: &[&RunRecord],
    legend: &Legend<'_>,
) -> Option<Chart> {
    let alternates = runs.iter().any(|run| run.alternation.is_some());
    let (metric, title) = shown(bout, alternates)?;
    let mut rounds: BTreeMap<usize, Vec<Stretch<'_>>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.status.counts()) {
        let stretch = stretch(run, metric, alternates);
        if let Some(stretch) = stretch.filter(|stretch| stretch.counted.len() > 1) {
            rounds.entry(run.block).or_default().push(stretch);
        }
    }
    let begun = |stretches: &[Stretch<'_>]| {
        stretches
            .iter()
            .flat_map(Stretch::points)
            .map(|(ns, _)| *ns)
            .min()
    };
    let longest = rounds.values().filter_map(|round| {
        let last = round
            .iter()
            .flat_map(Stretch::points)
            .map(|(ns, _)| *ns)
            .max()?;
        Some(last.saturating_sub(begun(round)?))
    });
    let longest = longest.max()?.max(1) as f64;
    let zero = if alternates {
        let slices = suite.iter().filter_map(|run| run.alternation.as_ref());
        let slices = slices.flat_map(|one| one.warm_up.iter().chain(&one.slices));
        slices.map(|slice| slice.from_ns).min()
    } else {
        suite.iter().map(|run| run.started_unix_ns).min()
    };

    let columns = COLUMNS.min(rounds.len());
    let wide = (WIDTH - FIGURES - GAP) / columns as f64;
    let tall = ABOVE + HEIGHT + BELOW;
    let frame = |number: usize| {
        let left = FIGURES + (number % columns) as f64 * wide;
        let top = (number / columns) as f64 * tall + ABOVE;
        Frame {
            left,
            right: left + wide - GAP,
            top,
            bottom: top + HEIGHT,
        }
    };
    let height = rounds.len().div_ceil(columns) as f64 * tall;
    let mut svg = Svg::of_frames(WIDTH, height, frame(0));
    let headings = [
        "round",
        "begun",
        "contestant",
        "n",
        "lowest",
        "median",
        "highest",
    ];
    let mut table = Table::new(strings(&headings), vec![0, 1, 3, 4, 5, 6]);
    let values: Vec<f64> = rounds
        .values()
        .flatten()
        .flat_map(Stretch::points)
        .map(|(_, value)| *value)
        .collect();
    for (number, (round, stretches)) in rounds.iter().enumerate() {
        svg.go_on_in(frame(number));
        let from = begun(stretches)?;
        let at = units::minutes(std::time::Duration::from_nanos(from - zero?.min(from)));
        let y = Scale::linear(values.iter().copied(), svg.upward());
        let (left, right) = svg.across();
        let place = |(ns, value): &(u64, f64)| {
            let share = (ns - from) as f64 / longest;
            (left + 3.0 + share * (right - left - 6.0), y.at(*value))
        };
        if number % columns == 0 {
            svg.y_axis(
                y.ticks_in(metric.unit),
                if number == 0 { title } else { "" },
            );
        } else {
            svg.y_axis(y.ticks_as(|_| String::new()), "");
        }
        svg.x_axis([], "");
        let below = (f64::midpoint(left, right), svg.upward().0 + 16.0);
        svg.text("tick", below, "middle", &at);
        for stretch in stretches {
            let style = legend.style(&stretch.run.contestant);
            let drawn = |points: &[(u64, f64)]| points.iter().map(place).collect::<Vec<_>>();
            svg.dots(
                &format!("slices faded {style}"),
                &drawn(&stretch.warm_up),
                "warm-up",
            );
            let counted = drawn(&stretch.counted);
            svg.path(&format!("thin {style}"), &counted, "");
            svg.dots(
                &format!("slices {style}"),
                &counted,
                &stretch.run.contestant,
            );
            let mut sorted: Vec<f64> = stretch.counted.iter().map(|(_, value)| *value).collect();
            sorted.sort_by(f64::total_cmp);
            let ends = [
                sorted.first().copied(),
                median_of(&sorted),
                sorted.last().copied(),
            ];
            let ends = ends
                .map(|value| value.map_or_else(missing, |value| units::format(metric.unit, value)));
            let head = [
                round.to_string(),
                at.clone(),
                stretch.run.contestant.clone(),
                sorted.len().to_string(),
            ];
            table.row(head.into_iter().chain(ends).collect());
        }
    }
    let (what, panel) = if alternates {
        ("slice by slice, the warm-up pale", "round")
    } else {
        ("second by second", "block")
    };
    let caption = format!(
        "{title} {what}: a panel of {:.1} s per {panel}, under it when it began (minutes into the suite)",
        longest / 1e9
    );
    Some(Chart::new(caption, svg, table))
}

/// What a panel shows, and its title: throughput, or CPU time where the rate is fixed.
fn shown(bout: &Bout, alternates: bool) -> Option<(&'static Metric, &'static str)> {
    let kind = bout.scenario.kind;
    if !alternates {
        let replies = metrics::of_kind(kind).find(|metric| metric.unit == Unit::PerSecond)?;
        return Some((replies, "replies"));
    }
    let headline = metrics::find(kind, &bout.headline)?;
    let metric = if headline.key.ends_with("_per_s") {
        headline
    } else {
        metrics::server_cpu(&bout.scenario)?
    };
    Some((metric, metric.title))
}

fn stretch<'a>(run: &'a RunRecord, metric: &Metric, alternates: bool) -> Option<Stretch<'a>> {
    let of = |slices: &[Slice]| -> Vec<(u64, f64)> {
        let slices = slices.iter();
        slices
            .filter_map(|slice| Some((slice.from_ns, slice.metric(metric.key)?)))
            .collect()
    };
    if alternates {
        let slices = run.alternation.as_ref()?;
        return Some(Stretch {
            run,
            warm_up: of(&slices.warm_up),
            counted: of(&slices.slices),
        });
    }
    let seconds = whole_seconds(run.loadgen.as_ref()?).iter();
    let place = |second: &Second| {
        let from_ns = run.started_unix_ns + second.second * 1_000_000_000;
        (from_ns, second.received as f64)
    };
    Some(Stretch {
        run,
        warm_up: vec![],
        counted: seconds.map(place).collect(),
    })
}

/// The seconds that lie whole inside the window: the rest of a second and the drain would look like
/// stalls.
fn whole_seconds(record: &Record) -> &[Second] {
    let whole = usize::try_from(record.window_ns / 1_000_000_000).unwrap_or(usize::MAX);
    &record.series[..record.series.len().min(whole)]
}
