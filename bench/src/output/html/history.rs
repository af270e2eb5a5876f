//! Headlines over time, from a history file.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::Scale;
use super::chart::{Chart, Legend, metric_title, strings};
use super::svg::Svg;
use crate::judge::metrics;
use crate::output::history::Entry;
use crate::output::table::Table;
use crate::units;

/// At most this many dates under a chart.
const DATES: usize = 6;

/// A chart per bout and machine: figures of different machines are not on one line.
pub(super) fn charts(history: &[Entry], legend: &Legend<'_>) -> Vec<Chart> {
    let mut groups: BTreeMap<(&str, &str, &str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in history {
        let key = (
            entry.machine.as_str(),
            entry.suite.as_str(),
            entry.bout.as_str(),
            entry.metric.as_str(),
        );
        groups.entry(key).or_default().push(entry);
    }
    groups
        .into_values()
        .filter_map(|mut entries| {
            // The format of the times sorts as the times do.
            entries.sort_by(|a, b| a.started_utc.cmp(&b.started_utc));
            chart(&entries, legend)
        })
        .collect()
}

/// The contestants of a history, in the order of their first appearance.
pub(super) fn names(history: &[Entry]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in history {
        if !names.contains(&entry.contestant) {
            names.push(entry.contestant.clone());
        }
    }
    names
}

/// Of entries with one machine, suite, bout and metric, in the order of time.
fn chart(entries: &[&Entry], legend: &Legend<'_>) -> Option<Chart> {
    let first = entries.first()?;
    let unit = metrics::find(first.kind, &first.metric)?.unit;
    let title = metric_title(first.kind, &first.metric);
    let dates: Vec<&str> = entries
        .iter()
        .map(|entry| entry.started_utc.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut svg = Svg::of_curves(200.0);
    let y = Scale::linear(entries.iter().map(|entry| entry.q3), svg.upward());
    let (left, right) = svg.across();
    let step = (right - left) / dates.len() as f64;
    let at = |started: &str| {
        let place = dates.partition_point(|date| *date < started);
        left + (place as f64 + 0.5) * step
    };
    svg.y_axis(y.ticks_in(unit), &title);
    let every = dates.len().div_ceil(DATES);
    let labels = dates
        .iter()
        .step_by(every)
        .map(|date| (at(date), day(date).to_owned()));
    svg.x_axis(
        labels,
        "suites in the order of time; lines at the dots: quartiles",
    );
    let mut table = Table::new(
        strings(&[
            "begun",
            "revision",
            "contestant",
            "median",
            "first quartile",
            "third quartile",
            "n",
            "noisy",
        ]),
        vec![3, 4, 5, 6],
    );
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for entry in entries {
        let style = legend.style(&entry.contestant);
        let (x, show) = (at(&entry.started_utc), |value| units::format(unit, value));
        svg.line(
            &format!("thin {style}"),
            (x, y.at(entry.q1)),
            (x, y.at(entry.q3)),
        );
        let what = format!(
            "{} at {}: {}",
            entry.contestant,
            entry.revision,
            show(entry.median)
        );
        svg.dot(&format!("run {style}"), (x, y.at(entry.median)), 4.0, &what);
        lines
            .entry(&entry.contestant)
            .or_default()
            .push((x, y.at(entry.median)));
        table.row(vec![
            entry.started_utc.clone(),
            entry.revision.clone(),
            entry.contestant.clone(),
            show(entry.median),
            show(entry.q1),
            show(entry.q3),
            entry.n.to_string(),
            if entry.noisy { "yes" } else { "" }.to_owned(),
        ]);
    }
    for (contestant, points) in &lines {
        svg.path(
            &format!("curve {}", legend.style(contestant)),
            points,
            contestant,
        );
    }
    let caption = format!(
        "{}, {title}: suite {} on {}",
        first.bout, first.suite, first.machine
    );
    Some(Chart::new(caption, svg, table))
}

fn day(utc: &str) -> &str {
    utc.split_once('T').map_or(utc, |(day, _)| day)
}
