//! Figures against the number of connections and against the rate.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::Scale;
use super::chart::{Chart, Legend, strings};
use super::svg::Svg;
use crate::config::{Load, ScenarioKind};
use crate::judge::metrics::{self, Metric};
use crate::output::table::Table;
use crate::stats::Spread;
use crate::summary::{Bout, Summary};
use crate::units::{self, Unit};

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
            (ScenarioKind::Echo, Some(Load::Window(window))) => {
                format!("echo, {}, window {window}", scenario.message())
            }
            (ScenarioKind::Broadcast, Some(Load::Window(_))) => {
                format!("broadcast, {} B", scenario.size_bytes)
            }
            (ScenarioKind::Idle, _) => "idle".to_owned(),
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
                format!("{} by number of connections: {group}", metric.title),
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
        .filter(|bout| bout.scenario.kind == ScenarioKind::Echo && bout.rate_per_s.is_some())
    {
        let group = format!(
            "{}, {} connections",
            bout.scenario.message(),
            bout.scenario.connections
        );
        groups.entry(group).or_default().push(bout);
    }
    let keys = ["latency_intended_p50_ns", "latency_intended_p99_ns"];
    groups
        .iter()
        .flat_map(|(group, bouts)| keys.map(|key| (group, bouts, key)))
        .filter_map(|(group, bouts, key)| {
            let metric = metrics::find(ScenarioKind::Echo, key)?;
            against(
                format!("{} against the rate: {group}", metric.title),
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
    caption: String,
    x_title: &str,
    bouts: &[&Bout],
    metric: &Metric,
    x_of: impl Fn(&Bout) -> Option<f64>,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let mut lines: BTreeMap<&str, Vec<(f64, Spread)>> = BTreeMap::new();
    for bout in bouts {
        for result in &bout.contestants {
            if let (Some(x), Some(Some(spread))) = (x_of(bout), result.metrics.get(metric.key)) {
                lines
                    .entry(&result.contestant)
                    .or_default()
                    .push((x, *spread));
            }
        }
    }
    let places: BTreeSet<u64> = lines.values().flatten().map(|(x, _)| *x as u64).collect();
    if places.len() < 2 {
        return None;
    }
    let mut svg = Svg::of_curves(200.0);
    let x = Scale::logarithmic(places.iter().map(|x| *x as f64), svg.across());
    let quartiles = lines
        .values()
        .flatten()
        .flat_map(|(_, spread)| [spread.q1, spread.q3]);
    let y = Scale::linear(quartiles, svg.upward());
    let ticks = places.iter().map(|place| {
        (
            x.at(*place as f64),
            units::format(Unit::PerSecond, *place as f64),
        )
    });
    svg.x_axis(ticks, x_title);
    svg.y_axis(y.ticks_in(metric.unit), metric.title);
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
            let median = units::format(metric.unit, spread.median);
            let quartiles = [spread.q1, spread.q3]
                .map(|value| units::format(metric.unit, value))
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
                units::format(Unit::PerSecond, *at),
                median,
                quartiles,
                spread.n.to_string(),
            ]);
        }
    }
    Some(Chart::new(caption, svg, table))
}
