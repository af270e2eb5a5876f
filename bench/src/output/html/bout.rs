//! One bout: its runs as dots, its fan-out.

use super::axis::Scale;
use super::chart::{Chart, Legend, strings};
use super::svg::{Svg, staggered};
use crate::judge::metrics::Metric;
use crate::output::table::Table;
use crate::record::{RunRecord, Status};
use crate::summary::Bout;
use crate::units::{self, Unit};

/// Every run as a dot, the median of those that count as a line.
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
        .flat_map(|result| values(&result.contestant))
        .map(|(_, value)| value)
        .collect();
    if all.is_empty() {
        return None;
    }
    let mut svg = Svg::of_rows(bout.contestants.len(), 12.0);
    let x = Scale::linear(all, svg.across());
    svg.x_axis(x.ticks_in(metric.unit), metric.title);
    let mut table = Table::new(
        strings(&["contestant", "block", "status", metric.title]),
        vec![1, 3],
    );
    for (place, result) in bout.contestants.iter().enumerate() {
        let style = legend.style(&result.contestant);
        let middle = svg.row(place, &result.contestant);
        for (number, (run, value)) in values(&result.contestant).into_iter().enumerate() {
            let class = match run.status {
                Status::Valid => format!("run {style}"),
                Status::Doubtful => format!("run hollow {style}"),
                _ => "run bad".to_owned(),
            };
            let shown = units::format(metric.unit, value);
            svg.dot(
                &class,
                (x.at(value), staggered(middle, number)),
                3.5,
                &format!("block {}: {shown}, {}", run.block, run.status.name()),
            );
            table.row(vec![
                result.contestant.clone(),
                run.block.to_string(),
                run.status.name().to_owned(),
                shown,
            ]);
        }
        if let Some(Some(spread)) = result.metrics.get(metric.key) {
            let x = x.at(spread.median);
            svg.line(
                &format!("median {style}"),
                (x, middle - 14.0),
                (x, middle + 14.0),
            );
        }
    }
    let caption = format!(
        "{}: every run a dot (hollow: in doubt), the median of those that count a line",
        metric.title
    );
    Some(Chart::new(caption, svg, table))
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
        .filter_map(|result| {
            let median = |key: &&str| Some(result.metrics.get(*key)?.as_ref()?.median);
            Some((
                result.contestant.as_str(),
                keys.iter().map(median).collect::<Option<_>>()?,
            ))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let mut svg = Svg::of_rows(rows.len(), 12.0);
    let all = rows.iter().flat_map(|(_, values)| values.iter().copied());
    let x = Scale::linear(all, svg.across());
    svg.x_axis(
        x.ticks_in(Unit::Nanoseconds),
        "from the send to first, median and last member",
    );
    let mut table = Table::new(
        strings(&["contestant", "first", "median", "last"]),
        vec![1, 2, 3],
    );
    for (place, (contestant, values)) in rows.iter().enumerate() {
        let style = legend.style(contestant);
        let y = svg.row(place, contestant);
        svg.line(
            &format!("interval {style}"),
            (x.at(values[0]), y),
            (x.at(values[2]), y),
        );
        let mut cells = vec![(*contestant).to_owned()];
        for (value, name) in values.iter().zip(["first", "median", "last"]) {
            let shown = units::format(Unit::Nanoseconds, *value);
            svg.dot(
                &format!("run {style}"),
                (x.at(*value), y),
                4.5,
                &format!("{name}: {shown}"),
            );
            cells.push(shown);
        }
        table.row(cells);
    }
    let caption = "Fan-out: when the first, the median and the last member had the message (median of the runs' means)".to_owned();
    Some(Chart::new(caption, svg, table))
}
