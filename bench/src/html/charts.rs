//! The charts of the report: each from runs or summaries to a drawing and the table of the same figures.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use loadgen::record::Latency;
use serde::Serialize;

use super::svg::{Plot, Scale, Svg, style};
use crate::config::{Kind, Load};
use crate::metrics::{self, Metric, Unit};
use crate::record::{RunRecord, Status};
use crate::summary::{Bout, Pair, Summary};
use crate::table::Table;
use crate::verdict::Verdict;

pub(super) const WIDTH: f64 = 720.0;

/// A drawing with the figures it is made of.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    pub(super) caption: String,
    pub(super) svg: String,
    pub(super) table: Table,
}

/// Who is drawn how: the place of each contestant in the suite.
#[derive(Debug)]
pub(super) struct Legend<'a>(pub(super) &'a [String]);

impl Legend<'_> {
    pub(super) fn style(&self, contestant: &str) -> String {
        style(
            self.0
                .iter()
                .position(|name| name == contestant)
                .unwrap_or(0),
        )
    }
}

/// Ratios of the headline metrics of all bouts, with intervals.
pub(super) fn forest(summary: &Summary, first: &str, second: &str) -> Option<Chart> {
    let rows: Vec<(&Bout, &Verdict, usize)> = summary
        .bouts
        .iter()
        .filter_map(|bout| {
            let pair = find_pair(bout, first, second)?;
            let comparison = pair
                .comparisons
                .iter()
                .find(|comparison| comparison.metric == bout.headline)?;
            Some((bout, &comparison.verdict, comparison.ratio.pairs))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let advantages: Vec<(f64, f64, f64)> = rows
        .iter()
        .map(|(_, verdict, _)| for_first(verdict, first))
        .collect();
    let ends = advantages
        .iter()
        .flat_map(|(_, low, high)| [*low, *high])
        .chain([0.8, 1.25]);
    let plot = Plot {
        left: 190.0,
        right: WIDTH - 16.0,
        top: 34.0,
        bottom: 34.0 + rows.len() as f64 * 26.0,
    };
    let x = Scale::logarithmic(ends, (plot.left, plot.right));
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    let ticks = x.ticks().into_iter().map(|tick| (x.at(tick), times(tick)));
    svg.x_axis(
        &plot,
        ticks,
        "times better, logarithmic; the line is the 95% interval",
    );
    svg.line("one", (x.at(1.0), plot.top - 6.0), (x.at(1.0), plot.bottom));
    svg.text(
        "label",
        (x.at(1.0) - 8.0, plot.top - 12.0),
        "end",
        &format!("← {second} better"),
    );
    svg.text(
        "label",
        (x.at(1.0) + 8.0, plot.top - 12.0),
        "start",
        &format!("{first} better →"),
    );
    let mut table = Table::new(
        strings(&["bout", "by", "advantage", "low", "high", "n", "verdict"]),
        vec![2, 3, 4, 5],
    );
    for (place, ((bout, verdict, pairs), (advantage, low, high))) in
        rows.iter().zip(&advantages).enumerate()
    {
        let y = plot.top + (place as f64 + 0.5) * 26.0;
        let class = match &verdict.winner {
            Some(winner) if verdict.claim => {
                let index = summary
                    .setting
                    .contestants
                    .iter()
                    .position(|entrant| &entrant.name == winner);
                style(index.unwrap_or(0))
            }
            _ => "undecided".to_owned(),
        };
        let title = format!("{}: {}", bout.scenario.name, verdict.words);
        svg.text(
            "row",
            (plot.left - 8.0, y + 4.0),
            "end",
            &bout.scenario.name,
        );
        svg.line(
            &format!("interval {class}"),
            (x.at(*low), y),
            (x.at(*high), y),
        );
        svg.square(
            &format!("estimate {class}"),
            (x.at(*advantage), y),
            5.0,
            &title,
        );
        table.row(vec![
            bout.scenario.name.clone(),
            metric_title(bout.scenario.kind, &bout.headline),
            times(*advantage),
            times(*low),
            times(*high),
            pairs.to_string(),
            verdict.words.clone(),
        ]);
    }
    let caption = format!(
        "{first} against {second}: how many times better, by the headline metric of each bout"
    );
    Some(Chart {
        svg: svg.finish(&caption),
        caption,
        table,
    })
}

fn find_pair<'a>(bout: &'a Bout, first: &str, second: &str) -> Option<&'a Pair> {
    bout.pairs
        .iter()
        .find(|pair| pair.first == first && pair.second == second)
}

/// The advantage as seen from `first`: below 1 when it is the worse one.
fn for_first(verdict: &Verdict, first: &str) -> (f64, f64, f64) {
    match &verdict.winner {
        Some(winner) if winner != first => (
            1.0 / verdict.advantage,
            1.0 / verdict.advantage_high,
            1.0 / verdict.advantage_low,
        ),
        _ => (
            verdict.advantage,
            verdict.advantage_low,
            verdict.advantage_high,
        ),
    }
}

/// Every run of a bout as a dot, the median of the valid ones as a line.
pub(super) fn dots(
    bout: &Bout,
    runs: &[&RunRecord],
    metric: &Metric,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let values = |contestant: &str| -> Vec<(&RunRecord, f64)> {
        let own = runs.iter().filter(|run| run.contestant == contestant);
        own.filter_map(|run| Some((*run, run.metric(metric.key)?)))
            .collect()
    };
    let all: Vec<f64> = bout
        .contestants
        .iter()
        .flat_map(|showing| values(&showing.contestant))
        .map(|(_, value)| value)
        .collect();
    if all.is_empty() {
        return None;
    }
    let rows = bout.contestants.len() as f64;
    let plot = Plot {
        left: 150.0,
        right: WIDTH - 16.0,
        top: 12.0,
        bottom: 12.0 + rows * 40.0,
    };
    let x = Scale::linear(all, (plot.left, plot.right));
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    svg.x_axis(
        &plot,
        x.ticks()
            .into_iter()
            .map(|tick| (x.at(tick), metrics::format(metric.unit, tick))),
        metric.title,
    );
    let mut table = Table::new(
        strings(&["contestant", "block", "status", metric.title]),
        vec![1, 3],
    );
    for (place, showing) in bout.contestants.iter().enumerate() {
        let style = legend.style(&showing.contestant);
        let middle = plot.top + (place as f64 + 0.5) * 40.0;
        svg.text(
            "row",
            (plot.left - 8.0, middle + 4.0),
            "end",
            &showing.contestant,
        );
        for (number, (run, value)) in values(&showing.contestant).into_iter().enumerate() {
            // In turn above and below, so that equal values do not hide each other.
            let y = middle + f64::from(number as u32 % 5) * 5.0 - 10.0;
            let class = match run.status {
                Status::Valid => format!("run {style}"),
                Status::Doubtful => format!("run hollow {style}"),
                _ => "run bad".to_owned(),
            };
            let shown = metrics::format(metric.unit, value);
            svg.dot(
                &class,
                (x.at(value), y),
                3.5,
                &format!("block {}: {shown}, {}", run.block, run.status.name()),
            );
            table.row(vec![
                showing.contestant.clone(),
                run.block.to_string(),
                run.status.name().to_owned(),
                shown,
            ]);
        }
        if let Some(Some(spread)) = showing.metrics.get(metric.key) {
            svg.line(
                &format!("median {style}"),
                (x.at(spread.median), middle - 15.0),
                (x.at(spread.median), middle + 15.0),
            );
        }
    }
    let caption = format!(
        "{}: every run a dot (hollow: in doubt), the median of those that count a line",
        metric.title
    );
    Some(Chart {
        svg: svg.finish(&caption),
        caption,
        table,
    })
}

/// Quantiles of the percentile axis: dense where curves bend.
const QUANTILES: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995,
    0.998, 0.999, 0.9995, 0.9999, 0.99999,
];

/// Latency by percentile, as HdrHistogram's plotter draws it: one line per valid run, and per contestant the median of its runs.
pub(super) fn percentiles(
    bout: &Bout,
    runs: &[&RunRecord],
    which: &str,
    pick: fn(&loadgen::record::Record) -> Option<&Latency>,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let mut curves: BTreeMap<usize, Vec<Vec<(f64, f64)>>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.status.counts()) {
        let Some(curve) = run.loadgen.as_ref().and_then(pick).and_then(curve) else {
            continue;
        };
        if let Some(place) = bout
            .contestants
            .iter()
            .position(|showing| showing.contestant == run.contestant)
        {
            curves.entry(place).or_default().push(curve);
        }
    }
    if curves.is_empty() {
        return None;
    }
    let plot = Plot {
        left: 64.0,
        right: WIDTH - 16.0,
        top: 28.0,
        bottom: 288.0,
    };
    let x = Scale::logarithmic(reach(&curves), (plot.left, plot.right));
    let y = Scale::logarithmic(
        curves.values().flatten().flatten().map(|(_, ns)| *ns),
        (plot.bottom, plot.top),
    );
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    let most = reach(&curves).into_iter().fold(1.0, f64::max);
    let ticks = [
        (0.0, "0%"),
        (0.5, "50%"),
        (0.9, "90%"),
        (0.99, "99%"),
        (0.999, "99.9%"),
        (0.9999, "99.99%"),
        (0.99999, "99.999%"),
    ];
    let ticks = ticks
        .into_iter()
        .filter(|(quantile, _)| beyond(*quantile) <= most * 1.01);
    svg.x_axis(
        &plot,
        ticks.map(|(quantile, label)| (x.at(beyond(quantile)), label.to_owned())),
        "percentile",
    );
    svg.y_axis(
        &plot,
        y.ticks()
            .into_iter()
            .map(|tick| (y.at(tick), metrics::format(Unit::Nanoseconds, tick))),
        "latency",
    );
    let mut table = Table::new(
        ["percentile".to_owned()]
            .into_iter()
            .chain(
                curves
                    .keys()
                    .map(|place| bout.contestants[*place].contestant.clone()),
            )
            .collect(),
        (0..=curves.len()).collect(),
    );
    let mut medians: Vec<Vec<(f64, f64)>> = Vec::new();
    for (place, runs) in &curves {
        let contestant = &bout.contestants[*place].contestant;
        let style = legend.style(contestant);
        let drawn = |curve: &[(f64, f64)]| -> Vec<(f64, f64)> {
            curve
                .iter()
                .map(|(q, ns)| (x.at(beyond(*q)), y.at(*ns)))
                .collect()
        };
        for run in runs {
            svg.path(&format!("thin {style}"), &drawn(run), "");
        }
        let median = median_curve(runs);
        svg.path(&format!("curve {style}"), &drawn(&median), contestant);
        medians.push(median);
    }
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        let cells = medians.iter().map(|curve| {
            let at = curve.iter().find(|(q, _)| *q == quantile);
            at.map_or("–".to_owned(), |(_, ns)| {
                metrics::format(Unit::Nanoseconds, *ns)
            })
        });
        table.row(
            [format!("{}%", quantile * 100.0)]
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    let caption = format!(
        "Latency by percentile, from the {which} send: thin lines are runs, thick ones the median of the runs"
    );
    Some(Chart {
        svg: svg.finish(&caption),
        caption,
        table,
    })
}

/// 1 / (1 - quantile): HdrHistogram's percentile axis is logarithmic in it.
fn beyond(quantile: f64) -> f64 {
    1.0 / (1.0 - quantile)
}

fn reach(curves: &BTreeMap<usize, Vec<Vec<(f64, f64)>>>) -> Vec<f64> {
    curves
        .values()
        .flatten()
        .flatten()
        .map(|(quantile, _)| beyond(*quantile))
        .collect()
}

/// (quantile, ns) as far as 100 samples lie beyond.
fn curve(latency: &Latency) -> Option<Vec<(f64, f64)>> {
    let histogram: Histogram<u64> =
        loadgen::histogram::unpack(&latency.histogram_v2_deflate_base64)?;
    let supported = QUANTILES
        .iter()
        .filter(|quantile| **quantile == 0.0 || latency.supports(**quantile));
    Some(
        supported
            .map(|quantile| (*quantile, histogram.value_at_quantile(*quantile) as f64))
            .collect(),
    )
}

/// Per quantile the median over the runs that reach it, where at least half of them do.
fn median_curve(runs: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    QUANTILES
        .iter()
        .filter_map(|quantile| {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|run| Some(run.iter().find(|(q, _)| q == quantile)?.1))
                .collect();
            (values.len() * 2 >= runs.len())
                .then_some((*quantile, crate::stats::median_of(&values)?))
        })
        .collect()
}

/// Messages per second through the seconds of every valid run, so that a stall is seen.
pub(super) fn series(bout: &Bout, runs: &[&RunRecord], legend: &Legend<'_>) -> Option<Chart> {
    let valid: Vec<(&RunRecord, &[loadgen::record::Second])> = runs
        .iter()
        .filter(|run| run.status.counts())
        .filter_map(|run| Some((*run, whole_seconds(run.loadgen.as_ref()?))))
        .filter(|(_, seconds)| seconds.len() > 1)
        .collect();
    if valid.is_empty() {
        return None;
    }
    let plot = Plot {
        left: 64.0,
        right: WIDTH - 16.0,
        top: 28.0,
        bottom: 188.0,
    };
    let seconds = valid.iter().flat_map(|(_, seconds)| seconds.iter());
    let x = Scale::linear(
        seconds.clone().map(|second| second.second as f64),
        (plot.left, plot.right),
    );
    let y = Scale::linear(
        seconds.map(|second| second.received as f64),
        (plot.bottom, plot.top),
    );
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    svg.x_axis(
        &plot,
        x.ticks()
            .into_iter()
            .map(|tick| (x.at(tick), format!("{tick}"))),
        "seconds into the run",
    );
    svg.y_axis(
        &plot,
        y.ticks()
            .into_iter()
            .map(|tick| (y.at(tick), metrics::format(Unit::PerSecond, tick))),
        "replies in that second",
    );
    let mut table = Table::new(
        strings(&["contestant", "block", "second", "sent", "received", "p99"]),
        vec![1, 2, 3, 4, 5],
    );
    for (run, seconds) in valid {
        let points: Vec<(f64, f64)> = seconds
            .iter()
            .map(|second| (x.at(second.second as f64), y.at(second.received as f64)))
            .collect();
        let title = format!("{}, block {}", run.contestant, run.block);
        svg.path(
            &format!("thin {}", legend.style(&run.contestant)),
            &points,
            &title,
        );
        for second in seconds {
            let p99 = second.latency_p99_ns.map_or("–".to_owned(), |ns| {
                metrics::format(Unit::Nanoseconds, ns as f64)
            });
            table.row(vec![
                run.contestant.clone(),
                run.block.to_string(),
                second.second.to_string(),
                second.sent.to_string(),
                second.received.to_string(),
                p99,
            ]);
        }
    }
    let caption = format!(
        "{}: replies second by second in every valid run",
        bout.scenario.name
    );
    Some(Chart {
        svg: svg.finish(&caption),
        caption,
        table,
    })
}

/// The seconds that lie whole inside the window: the rest of a second and the drain would look like stalls.
fn whole_seconds(record: &loadgen::record::Record) -> &[loadgen::record::Second] {
    let whole = usize::try_from(record.window_ns / 1_000_000_000).unwrap_or(usize::MAX);
    &record.series[..record.series.len().min(whole)]
}

/// First, median and last receiver of a broadcast.
pub(super) fn fan_out(bout: &Bout, legend: &Legend<'_>) -> Option<Chart> {
    let keys = [
        "latency_first_receiver_mean_ns",
        "latency_median_receiver_mean_ns",
        "latency_last_receiver_mean_ns",
    ];
    let rows: Vec<(&str, Vec<f64>)> = bout
        .contestants
        .iter()
        .filter_map(|showing| {
            let median = |key: &&str| Some(showing.metrics.get(*key)?.as_ref()?.median);
            Some((
                showing.contestant.as_str(),
                keys.iter().map(median).collect::<Option<_>>()?,
            ))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let plot = Plot {
        left: 150.0,
        right: WIDTH - 16.0,
        top: 12.0,
        bottom: 12.0 + rows.len() as f64 * 32.0,
    };
    let x = Scale::linear(
        rows.iter().flat_map(|(_, values)| values.iter().copied()),
        (plot.left, plot.right),
    );
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    let ticks = x
        .ticks()
        .into_iter()
        .map(|tick| (x.at(tick), metrics::format(Unit::Nanoseconds, tick)));
    svg.x_axis(
        &plot,
        ticks,
        "from the send to the first, the median and the last member",
    );
    let mut table = Table::new(
        strings(&["contestant", "first", "median", "last"]),
        vec![1, 2, 3],
    );
    for (place, (contestant, values)) in rows.iter().enumerate() {
        let style = legend.style(contestant);
        let y = plot.top + (place as f64 + 0.5) * 32.0;
        svg.text("row", (plot.left - 8.0, y + 4.0), "end", contestant);
        svg.line(
            &format!("interval {style}"),
            (x.at(values[0]), y),
            (x.at(values[2]), y),
        );
        for (value, name) in values.iter().zip(["first", "median", "last"]) {
            svg.dot(
                &format!("run {style}"),
                (x.at(*value), y),
                4.5,
                &format!("{name}: {}", metrics::format(Unit::Nanoseconds, *value)),
            );
        }
        let cells = values
            .iter()
            .map(|value| metrics::format(Unit::Nanoseconds, *value));
        table.row(
            [(*contestant).to_owned()]
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    let caption = "Fan-out: when the first, the median and the last member had the message (median of the runs' means)".to_owned();
    Some(Chart {
        svg: svg.finish(&caption),
        caption,
        table,
    })
}

/// One metric against the number of connections, over bouts that differ in nothing else.
pub(super) fn by_connections(
    summary: &Summary,
    metric_key: &str,
    legend: &Legend<'_>,
) -> Vec<Chart> {
    let mut groups: BTreeMap<String, Vec<&Bout>> = BTreeMap::new();
    for bout in &summary.bouts {
        let scenario = &bout.scenario;
        let group = match (scenario.kind, scenario.load) {
            (Kind::Echo, Some(Load::Window(window))) => {
                format!("echo, {} B, window {window}", scenario.size_bytes)
            }
            (Kind::Broadcast, Some(Load::Window(_))) => {
                format!("broadcast, {} B", scenario.size_bytes)
            }
            (Kind::Idle, _) => "idle".to_owned(),
            _ => continue,
        };
        if metrics::find(scenario.kind, metric_key).is_some() {
            groups.entry(group).or_default().push(bout);
        }
    }
    groups
        .into_iter()
        .filter_map(|(group, bouts)| {
            let metric = metrics::find(bouts.first()?.scenario.kind, metric_key)?;
            let x_of = |bout: &Bout| Some(bout.scenario.connections as f64);
            against(
                &format!("{} by number of connections: {group}", metric.title),
                "connections",
                &bouts,
                metric,
                x_of,
                legend,
            )
        })
        .collect()
}

/// Latency against the rate, over open-loop bouts that differ in nothing else.
pub(super) fn by_rate(summary: &Summary, legend: &Legend<'_>) -> Vec<Chart> {
    let mut groups: BTreeMap<String, Vec<&Bout>> = BTreeMap::new();
    for bout in summary
        .bouts
        .iter()
        .filter(|bout| bout.scenario.kind == Kind::Echo && bout.rate_per_s.is_some())
    {
        let group = format!(
            "{} B, {} connections",
            bout.scenario.size_bytes, bout.scenario.connections
        );
        groups.entry(group).or_default().push(bout);
    }
    let keys = ["latency_intended_p50_ns", "latency_intended_p99_ns"];
    groups
        .iter()
        .flat_map(|(group, bouts)| keys.map(|key| (group, bouts, key)))
        .filter_map(|(group, bouts, key)| {
            let metric = metrics::find(Kind::Echo, key)?;
            against(
                &format!("{} against the rate: {group}", metric.title),
                "messages per second",
                bouts,
                metric,
                |bout| bout.rate_per_s,
                legend,
            )
        })
        .collect()
}

/// A line per contestant through its medians; the bars reach from quartile to quartile.
fn against(
    caption: &str,
    x_title: &str,
    bouts: &[&Bout],
    metric: &Metric,
    x_of: impl Fn(&Bout) -> Option<f64>,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let mut lines: BTreeMap<&str, Vec<(f64, crate::stats::Spread)>> = BTreeMap::new();
    for bout in bouts {
        for showing in &bout.contestants {
            if let (Some(x), Some(Some(spread))) = (x_of(bout), showing.metrics.get(metric.key)) {
                lines
                    .entry(&showing.contestant)
                    .or_default()
                    .push((x, *spread));
            }
        }
    }
    let places: std::collections::BTreeSet<u64> =
        lines.values().flatten().map(|(x, _)| *x as u64).collect();
    if places.len() < 2 {
        return None;
    }
    let plot = Plot {
        left: 64.0,
        right: WIDTH - 16.0,
        top: 28.0,
        bottom: 228.0,
    };
    let x = Scale::logarithmic(places.iter().map(|x| *x as f64), (plot.left, plot.right));
    let y = Scale::linear(
        lines
            .values()
            .flatten()
            .flat_map(|(_, spread)| [spread.q1, spread.q3]),
        (plot.bottom, plot.top),
    );
    let mut svg = Svg::new(WIDTH, plot.bottom + 44.0);
    let ticks = places.iter().map(|place| {
        (
            x.at(*place as f64),
            metrics::format(Unit::PerSecond, *place as f64),
        )
    });
    svg.x_axis(&plot, ticks, x_title);
    svg.y_axis(
        &plot,
        y.ticks()
            .into_iter()
            .map(|tick| (y.at(tick), metrics::format(metric.unit, tick))),
        metric.title,
    );
    let mut table = Table::new(
        strings(&["contestant", x_title, "median", "quartiles", "n"]),
        vec![1, 2, 3, 4],
    );
    for (contestant, points) in &mut lines {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let style = legend.style(contestant);
        let drawn: Vec<(f64, f64)> = points
            .iter()
            .map(|(at, spread)| (x.at(*at), y.at(spread.median)))
            .collect();
        svg.path(&format!("curve {style}"), &drawn, contestant);
        for ((at, spread), place) in points.iter().zip(&drawn) {
            let median = metrics::format(metric.unit, spread.median);
            let quartiles = [spread.q1, spread.q3]
                .map(|value| metrics::format(metric.unit, value))
                .join(" to ");
            svg.line(
                &format!("interval {style}"),
                (place.0, y.at(spread.q1)),
                (place.0, y.at(spread.q3)),
            );
            svg.dot(
                &format!("run {style}"),
                *place,
                4.0,
                &format!("{contestant}: {median} ({quartiles}), n = {}", spread.n),
            );
            table.row(vec![
                (*contestant).to_owned(),
                metrics::format(Unit::PerSecond, *at),
                median,
                quartiles,
                spread.n.to_string(),
            ]);
        }
    }
    Some(Chart {
        svg: svg.finish(caption),
        caption: caption.to_owned(),
        table,
    })
}

pub(super) fn metric_title(kind: Kind, key: &str) -> String {
    metrics::find(kind, key)
        .map_or(key, |metric| metric.title)
        .to_owned()
}

fn times(value: f64) -> String {
    if value >= 10.0 {
        format!("{value:.0}x")
    } else {
        format!("{value:.2}x")
    }
}

pub(super) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
