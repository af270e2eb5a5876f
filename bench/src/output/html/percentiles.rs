//! Latency by percentile.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use loadgen::record::{Latency, Record};

use super::axis::Scale;
use super::chart::{Chart, Legend};
use super::svg::Svg;
use crate::output::table::Table;
use crate::output::text::missing;
use crate::record::RunRecord;
use crate::stats::median_of;
use crate::summary::Bout;
use crate::units::{self, Unit};

/// Quantiles of the percentile axis: dense where curves bend.
const QUANTILES: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995,
    0.998, 0.999, 0.9995, 0.9999, 0.99999,
];

/// Latency by percentile, as HdrHistogram's plotter draws it: one line per valid run, and per
/// contestant the median of its runs.
pub(super) fn percentiles(
    bout: &Bout,
    runs: &[&RunRecord],
    which: &str,
    pick: fn(&Record) -> Option<&Latency>,
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
            .position(|result| result.contestant == run.contestant)
        {
            curves.entry(place).or_default().push(curve);
        }
    }
    if curves.is_empty() {
        return None;
    }
    let mut svg = Svg::of_curves(260.0);
    let points = || curves.values().flatten().flatten();
    let reach = points().map(|(quantile, _)| beyond(*quantile));
    let most = reach.clone().fold(1.0, f64::max);
    let x = Scale::logarithmic(reach, svg.across());
    let y = Scale::logarithmic(points().map(|(_, ns)| *ns), svg.upward());
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
        ticks.map(|(quantile, label)| (x.at(beyond(quantile)), label.to_owned())),
        "percentile",
    );
    svg.y_axis(y.ticks_in(Unit::Nanoseconds), "latency");
    let mut headings = vec!["percentile".to_owned()];
    let mut medians: Vec<Vec<(f64, f64)>> = Vec::new();
    for (place, runs) in &curves {
        let contestant = &bout.contestants[*place].contestant;
        headings.push(contestant.clone());
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
    let mut table = Table::new(headings, (0..=curves.len()).collect());
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        let cells = medians.iter().map(|curve| {
            let at = curve.iter().find(|(q, _)| *q == quantile);
            at.map_or_else(missing, |(_, ns)| units::format(Unit::Nanoseconds, *ns))
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
    Some(Chart::new(caption, svg, table))
}

/// 1 / (1 - quantile): HdrHistogram's percentile axis is logarithmic in it.
fn beyond(quantile: f64) -> f64 {
    1.0 / (1.0 - quantile)
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
            (values.len() * 2 >= runs.len()).then_some((*quantile, median_of(&values)?))
        })
        .collect()
}
