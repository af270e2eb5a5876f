//! The forest plot: how many times better one contestant is than another in each bout, with
//! intervals.

use super::axis::Scale;
use super::chart::{Chart, Legend, metric_title, strings};
use super::svg::Svg;
use crate::output::table::Table;
use crate::output::words;
use crate::summary::{Bout, Comparison, Summary};

/// Ratios of the headline metrics of all bouts.
pub(super) fn forest(
    summary: &Summary,
    first: &str,
    second: &str,
    legend: &Legend<'_>,
) -> Option<Chart> {
    let rows: Vec<(&Bout, &Comparison)> = summary
        .bouts
        .iter()
        .filter_map(|bout| Some((bout, headline(bout, first, second)?)))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let ends = rows.iter().flat_map(|(_, comparison)| {
        let (_, low, high) = comparison.direction.advantage(&comparison.ratio);
        [low, high]
    });
    let mut svg = Svg::of_rows(rows.len(), 34.0);
    let x = Scale::logarithmic(ends.chain([0.8, 1.25]), svg.across());
    svg.x_axis(
        x.ticks_as(times),
        "times better (logarithmic), with 95% interval",
    );
    svg.mark_x(x.at(1.0));
    svg.heads(&format!("← {second} better"), &format!("{first} better →"));
    let mut table = Table::new(
        strings(&["bout", "by", "advantage", "low", "high", "n", "verdict"]),
        vec![2, 3, 4, 5],
    );
    for (place, (bout, comparison)) in rows.into_iter().enumerate() {
        let verdict = &comparison.verdict;
        let words = words::verdict(first, second, &comparison.ratio, verdict);
        let (advantage, low, high) = comparison.direction.advantage(&comparison.ratio);
        let class = match &verdict.winner {
            Some(winner) if verdict.claim => legend.style(winner),
            _ => "undecided".to_owned(),
        };
        let y = svg.row(place, &bout.scenario.name);
        svg.line(
            &format!("interval {class}"),
            (x.at(low), y),
            (x.at(high), y),
        );
        svg.square(
            &format!("estimate {class}"),
            (x.at(advantage), y),
            5.0,
            &format!("{}: {words}", bout.scenario.name),
        );
        table.row(vec![
            bout.scenario.name.clone(),
            metric_title(bout.scenario.kind, &bout.headline),
            times(advantage),
            times(low),
            times(high),
            words::size(comparison),
            words,
        ]);
    }
    let caption = format!(
        "{first} against {second}: how many times better, by the headline metric of each bout"
    );
    Some(Chart::new(caption, svg, table))
}

fn headline<'a>(bout: &'a Bout, first: &str, second: &str) -> Option<&'a Comparison> {
    let mut pairs = bout.pairs.iter();
    let pair = pairs.find(|pair| pair.first == first && pair.second == second)?;
    let mut comparisons = pair.comparisons.iter();
    comparisons.find(|comparison| comparison.metric == bout.headline)
}

fn times(value: f64) -> String {
    if value >= 10.0 {
        format!("{value:.0}x")
    } else {
        format!("{value:.2}x")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::summarize;
    use crate::test_data;

    #[test]
    fn the_mark_is_on_the_side_of_the_better_one_also_where_nothing_is_claimed() {
        let runs: Vec<RunRecord> = (1..=3)
            .flat_map(|block| {
                [
                    test_data::echo_run("server-uring", block, 100_000.0),
                    test_data::echo_run("server-tokio", block, 120_000.0),
                ]
            })
            .collect();
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let summary = summarize(test_data::setting(), &scenarios, &runs);
        let names = ["server-uring", "server-tokio"].map(str::to_owned);
        let chart = forest(&summary, &names[0], &names[1], &Legend(&names)).unwrap();
        assert!(chart.svg.contains("estimate undecided"));
        let table = chart.table.render();
        assert!(table.contains(" 0.83x "), "{table}");
    }
}
