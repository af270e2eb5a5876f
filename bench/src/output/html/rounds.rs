//! An alternating bout: its rounds as dots.

use super::axis::{Scale, reach};
use super::chart::{Chart, Legend, strings};
use super::forest::times;
use super::svg::{Svg, staggered};
use crate::judge::metrics::Metric;
use crate::output::table::Table;
use crate::record::RunRecord;
use crate::summary::{Advantage, Bout, by_round};

/// Every round as a dot, the interval of all of them as a band.
pub(super) fn rounds(
    bout: &Bout,
    runs: &[&RunRecord],
    metric: &Metric,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let (reference, others) = bout.contestants.split_first()?;
    let reference = &reference.contestant;
    let rows: Vec<_> = others
        .iter()
        .filter_map(|other| {
            let name = other.contestant.as_str();
            let all = bout.advantage(name, reference, metric.key)?;
            let rounds = by_round(runs, name, reference, metric);
            (!rounds.is_empty()).then_some((name, all, rounds))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let ends = rows.iter().flat_map(|(_, all, rounds)| {
        let rounds = rounds.values().copied();
        rounds.chain([all.low, all.high])
    });
    let mut svg = Svg::of_rows(rows.len(), 12.0);
    let x = Scale::about_one(reach(ends, 10.0), svg.across());
    svg.x_axis(x.ticks_about_one(), "← worse · better →");
    svg.mark_x(x.at(1.0));
    let headings = ["contestant", "round", "times better"];
    let mut table = Table::new(strings(&headings), vec![1, 2]);
    for (place, (name, all, rounds)) in rows.into_iter().enumerate() {
        let style = legend.style(name);
        let middle = svg.row(place, name);
        let Advantage {
            ratio, low, high, ..
        } = all;
        let interval = format!("{} [{}, {}]", times(ratio), times(low), times(high));
        let corners = ((x.at(low), middle - 13.0), (x.at(high), middle + 13.0));
        svg.band(&format!("band {style}"), corners, &interval);
        let at = x.at(ratio);
        svg.line(
            &format!("median {style}"),
            (at, middle - 13.0),
            (at, middle + 13.0),
        );
        let mut row = |round: String, value| table.row(vec![name.to_owned(), round, value]);
        for (number, (round, ratio)) in rounds.into_iter().enumerate() {
            let words = format!("round {round}: {}", times(ratio));
            let place = (x.at(ratio), staggered(middle, number));
            svg.dot(&format!("run {style}"), place, 3.5, &words);
            row(round.to_string(), times(ratio));
        }
        row("all".to_owned(), interval);
    }
    let caption = format!(
        "{}: how many times better than {reference}, every round a dot, the 95% interval of all a band",
        metric.title
    );
    Some(Chart::new(caption, svg, table))
}
