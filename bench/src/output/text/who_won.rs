//! Who won: what a user pays in each scenario, every contestant against the first.

use super::{cell, is_refused, missing, spread};
use crate::output::bar::Scale;
use crate::output::table::Table;
use crate::output::words;
use crate::stats::{ROUNDS_FOR_A_CLAIM, RUNS_FOR_A_CLAIM};
use crate::summary::{Advantage, Bout, Figure, Summary};
use crate::units::Unit;

/// Characters of a bar.
const BAR: usize = 21;
/// Columns of a scenario that has a bout at an equal rate.
const AT_SATURATION_AND_RATE: [&str; 3] = ["throughput", "CPU/msg, equal rate", "p99, equal rate"];

/// A contestant in a bout, by each of the bout's figures.
struct Row<'a> {
    bout: &'a Bout,
    contestant: &'a str,
    figures: Vec<Figure<'a>>,
}

/// The tables with their pictures, and how to read them.
pub(super) fn who_won(summary: &Summary) -> String {
    let Some(reference) = summary.reference() else {
        return "Nobody: no contestant took part.\n".to_owned();
    };
    let rows: Vec<Row<'_>> = summary
        .bouts
        .iter()
        .flat_map(|bout| rows(summary, bout))
        .collect();
    let (paid, single): (Vec<Row<'_>>, Vec<Row<'_>>) =
        rows.into_iter().partition(|row| row.figures.len() > 1);
    let mut text = format!(
        "Every factor is a contestant against **{reference}**, whose own figures are in the first row of a scenario.\n\
         In every column: above 1 the contestant is better, below 1 it is worse.\n"
    );
    for (rows, is_paid) in [(paid, true), (single, false)] {
        if !rows.is_empty() {
            let heads = if is_paid {
                &AT_SATURATION_AND_RATE[..]
            } else {
                &["factor"]
            };
            text.push_str(&format!("\n{}", table(summary, reference, &rows, heads)));
            text.push_str(&picture(reference, &rows, heads));
        }
    }
    text + &legend(summary)
}

/// The reference first, then those compared with it.
fn rows<'a>(summary: &'a Summary, bout: &'a Bout) -> Vec<Row<'a>> {
    let figures = summary.figures(bout);
    if figures.is_empty() {
        return Vec::new();
    }
    let reference = summary.reference();
    let is_again = |name: &str| {
        let mut entrants = summary.setting.contestants.iter();
        entrants.any(|one| one.name == name && one.duplicate.is_some())
    };
    let names = bout
        .contestants
        .iter()
        .map(|result| result.contestant.as_str());
    let mut names: Vec<&str> = names.filter(|name| !is_again(name)).collect();
    names.sort_by_key(|name| Some(*name) != reference);
    names
        .into_iter()
        .map(|contestant| Row {
            bout,
            contestant,
            figures: figures.clone(),
        })
        .collect()
}

fn table(summary: &Summary, reference: &str, rows: &[Row<'_>], heads: &[&str]) -> String {
    let by = (heads.len() == 1).then_some("by");
    let headings = ["scenario", "contestant"].into_iter().chain(by);
    let headings = headings.chain(heads.iter().copied()).map(str::to_owned);
    let mut table = Table::new(headings.collect(), vec![]);
    let mut last = "";
    let mut place = 0;
    for row in rows {
        let name = row.bout.scenario.name.as_str();
        place = if name == last { place + 1 } else { 0 };
        last = name;
        // Under the name: how much there is to go by.
        let first = match place {
            0 => name.to_owned(),
            1 => sizes(row, reference),
            _ => String::new(),
        };
        let by = by.map(|_| match place {
            0 => row.figures[0].metric.title.to_owned(),
            _ => String::new(),
        });
        let cells = row.figures.iter().map(|figure| {
            if row.contestant == reference {
                median(figure, reference)
            } else {
                factor(summary, figure, row.contestant, reference)
            }
        });
        let start = [first, row.contestant.to_owned()].into_iter().chain(by);
        table.row(start.chain(cells).collect());
    }
    table.render()
}

/// `n = 5 x 40, 5 x 12`.
fn sizes(row: &Row<'_>, reference: &str) -> String {
    let mut sizes: Vec<String> = Vec::new();
    for figure in &row.figures {
        let found = figure
            .bout
            .comparison(row.contestant, reference, figure.metric.key);
        let size = found.map(|(comparison, _)| words::size(comparison));
        sizes.extend(size.filter(|size| !sizes.contains(size)));
    }
    match sizes.as_slice() {
        [] => String::new(),
        sizes => format!("n = {}", sizes.join(", ")),
    }
}

fn median(figure: &Figure<'_>, name: &str) -> String {
    let unit = figure.metric.unit;
    let per_s = if unit == Unit::PerSecond { "/s" } else { "" };
    let found = figure.bout.result_of(name);
    match found.and_then(|result| spread(result, figure.metric.key)) {
        None if found.is_some_and(is_refused) => "refused".to_owned(),
        None => missing(),
        Some(found) => match cell(unit, Some(found)).split_once(' ') {
            Some((value, deviation)) => format!("{value}{per_s} {deviation}"),
            None => cell(unit, Some(found)) + per_s,
        },
    }
}

/// A contestant against the reference; where there is nothing to be said, why.
fn factor(summary: &Summary, figure: &Figure<'_>, name: &str, reference: &str) -> String {
    let bout = figure.bout;
    let Some(found) = bout.advantage(name, reference, figure.metric.key) else {
        let runs = [name, reference].map(|one| bout.result_of(one));
        let has_none = |one: &str| {
            let result = bout.result_of(one);
            result.is_none_or(|result| result.valid_runs == 0)
        };
        return if runs.into_iter().flatten().any(is_refused) {
            "refused".to_owned()
        } else if runs[1].is_none() {
            format!("{reference} takes no part")
        } else if let Some(one) = [name, reference].into_iter().find(|one| has_none(one)) {
            format!("{one}: no valid run")
        } else if summary.setting.blocks(&bout.scenario.name) == 1 {
            format!("{} (one run)", median(figure, name))
        } else {
            missing()
        };
    };
    let Advantage {
        ratio, low, high, ..
    } = found;
    let digits = if (high / low).sqrt() < 1.01 { 3 } else { 2 };
    let interval = format!("[{low:.digits$}, {high:.digits$}]");
    match (found.shown, found.claim, found.detectable) {
        (true, ..) => format!("{ratio:.digits$}x {interval} *"),
        (false, true, None) => format!("~ {interval}"),
        (false, true, Some(least)) => format!("~ {interval} ({})", words::at_least(least)),
        // The interval would be read as a claim.
        (false, false, _) => "too few runs".to_owned(),
    }
}

/// The intervals of the table as bars, on one scale for each column.
fn picture(reference: &str, rows: &[Row<'_>], heads: &[&str]) -> String {
    let found = |row: &Row<'_>, column: usize| {
        let figure = row.figures[column];
        let found = figure
            .bout
            .advantage(row.contestant, reference, figure.metric.key);
        found.filter(|found| found.claim)
    };
    let rows: Vec<&Row<'_>> = rows
        .iter()
        .filter(|row| row.contestant != reference)
        .collect();
    let columns = 0..heads.len();
    let scales: Vec<Scale> = columns
        .clone()
        .map(|column| {
            let found = rows.iter().filter_map(|row| found(row, column));
            Scale::over(found.flat_map(|one| [one.low, one.high]), BAR)
        })
        .collect();
    let mut lines: Vec<[String; 2]> = Vec::new();
    let mut cells: Vec<Vec<String>> = Vec::new();
    let mut last = "";
    for row in rows {
        let bars = columns.clone().map(|column| {
            found(row, column).map(|one| scales[column].bar(one.ratio, one.low, one.high))
        });
        let bars: Vec<Option<String>> = bars.collect();
        if bars.iter().all(Option::is_none) {
            continue;
        }
        let name = row.bout.scenario.name.as_str();
        let shown = if name == last { "" } else { name };
        last = name;
        lines.push([shown.to_owned(), row.contestant.to_owned()]);
        cells.push(bars.into_iter().map(Option::unwrap_or_default).collect());
    }
    if lines.is_empty() {
        return String::new();
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths = [0, 1].map(|column| width(column).unwrap_or(0));
    let mut text = "\n```text\n".to_owned();
    let mut line = |start: [&str; 2], cells: &[String]| {
        let [one, other] = start;
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:BAR$}")).collect();
        let line = format!(
            "{one:0$}  {other:1$}  {2}",
            widths[0],
            widths[1],
            cells.join("   ")
        );
        text.push_str(&format!("{}\n", line.trim_end()));
    };
    if heads.len() > 1 {
        line(
            ["", ""],
            &heads
                .iter()
                .map(|head| format!("{head:^BAR$}"))
                .collect::<Vec<_>>(),
        );
    }
    line(
        ["", ""],
        &scales.iter().map(|scale| scale.head()).collect::<Vec<_>>(),
    );
    for ([name, contestant], cells) in lines.iter().zip(&cells) {
        line([name, contestant], cells);
    }
    text + "```\n"
}

fn legend(summary: &Summary) -> String {
    let has_companion = summary
        .bouts
        .iter()
        .any(|bout| summary.figures(bout).len() > 1);
    let at_rate = if has_companion {
        "\n- throughput: at saturation. CPU/msg and p99, equal rate: the server's CPU time for each message (broadcast: delivery) and\n  the 99th percentile of the latency when all contestants get the same messages per second (bouts `...-at-50`)."
    } else {
        ""
    };
    format!(
        "\n- `1.21x [1.20, 1.23] *`: a difference is shown; in brackets the 95% interval of the factor.\n\
         - `~ [0.98, 1.01] (1.03x)`: no difference is detectable; one of 1.03x would have been found in four suites of five.{at_rate}\n\
         - The first row of a scenario: median of the runs ± their median absolute deviation, in percent.\n\
         - Bars: o is the factor, --- its interval, | is 1; < and > where it goes on beyond the scale.\n\
         - n = a x b, rounds x cycles: all contestants lived at once and took turns. The factor is of slices of one cycle; a\n  \
           difference is shown when its interval, over rounds and slices, excludes 1, from {ROUNDS_FOR_A_CLAIM} rounds on. n = a, pairs of runs:\n  \
           the factor is the median of their ratios with a bootstrap interval, and a signed-rank test must agree (p <= 0.05), from\n  \
           n = {RUNS_FOR_A_CLAIM} on. Percentiles of one latency are corrected for their number.\n\
         - Other pairs, other metrics: `summary.md` and `report.html` in the result folder.\n"
    )
}
