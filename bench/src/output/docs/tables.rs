//! The tables of an ordinary result: a row per bout and contestant.

use crate::judge::metrics::{self, Metric};
use crate::output::table::Table;
use crate::output::text::{cell, missing, spread};
use crate::output::words;
use crate::summary::{Advantage, Bout, ContestantResult, Figure, Summary};

/// Of a bout with a companion at an equal rate.
const PAID: [&str; 3] = ["throughput", "CPU each, equal rate", "p99, equal rate"];

/// What a user pays, side by side: the bouts of which the summary has all three figures.
pub(super) fn paid(summary: &Summary, against: &str) -> Table {
    let factor = format!("x {against}");
    let figures = PAID.iter().flat_map(|head| [*head, factor.as_str()]);
    let headings = ["bout", "contestant", "n"].into_iter().chain(figures);
    let headings: Vec<String> = headings.map(str::to_owned).collect();
    let columns = (2..headings.len()).collect();
    let mut table = Table::new(headings, columns);
    for bout in &summary.bouts {
        let figures = summary.figures(bout);
        if figures.len() != PAID.len() {
            continue;
        }
        for result in others_than_again(bout) {
            let name = &result.contestant;
            let of_companion = figures[1].bout.result_of(name);
            let doubtful = of_companion.map_or(0, |one| one.doubtful_runs) + result.doubtful_runs;
            let mut row = vec![
                bout.scenario.name.clone(),
                name.clone(),
                sizes(&figures, name, against, doubtful),
            ];
            for Figure { bout, metric } in &figures {
                let result = bout.result_of(name);
                row.push(result.map_or_else(missing, |result| median(result, metric)));
                row.push(better(bout, name, against, metric));
            }
            table.row(row);
        }
    }
    table
}

/// The bouts whose figures are not in the table of [`paid`].
pub(super) fn unpaid<'a>(summary: &'a Summary, bouts: &[&'a Bout]) -> Vec<&'a Bout> {
    let is_paid = |bout: &Bout| summary.figures(bout).len() == PAID.len();
    let is_companion_of_paid = |bout: &Bout| {
        let of = bout.scenario.at_rate_of.as_ref();
        let mut all = summary.bouts.iter();
        of.is_some_and(|of| all.any(|one| one.scenario.name == *of && is_paid(one)))
    };
    let bouts = bouts.iter().copied();
    bouts
        .filter(|bout| !is_paid(bout) && !is_companion_of_paid(bout))
        .collect()
}

/// A row per bout and contestant: the headline, the server's CPU time and memory.
pub(super) fn single(bouts: &[&Bout], against: &str) -> Table {
    let factor = format!("x {against}");
    let headings = [
        "bout",
        "contestant",
        "n",
        "by",
        "median",
        &factor,
        "CPU each",
        &factor,
        "memory/connection",
    ];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![2, 4, 5, 6, 7, 8]);
    for bout in bouts {
        let kind = bout.scenario.kind;
        let headline = metrics::find(kind, &bout.headline);
        let cpu = metrics::server_cpu(&bout.scenario);
        let memory = metrics::find(kind, "server_bytes_per_connection");
        for result in others_than_again(bout) {
            let median =
                |metric: Option<&Metric>| metric.map_or_else(missing, |one| median(result, one));
            let better = |metric: Option<&Metric>| {
                metric.map_or_else(String::new, |one| {
                    better(bout, &result.contestant, against, one)
                })
            };
            table.row(vec![
                bout.scenario.name.clone(),
                result.contestant.clone(),
                runs(bout, result, against),
                headline.map_or("", |metric| metric.title).to_owned(),
                median(headline),
                better(headline),
                median(cpu),
                better(cpu),
                median(memory),
            ]);
        }
    }
    table
}

fn others_than_again(bout: &Bout) -> impl Iterator<Item = &ContestantResult> {
    let results = bout.contestants.iter();
    results.filter(|result| !is_again(bout, &result.contestant))
}

/// It is another contestant of this bout under a second name.
fn is_again(bout: &Bout, name: &str) -> bool {
    bout.pairs
        .iter()
        .any(|pair| pair.duplicate && pair.second == name)
}

fn median(result: &ContestantResult, metric: &Metric) -> String {
    cell(metric.unit, spread(result, metric.key))
}

fn better(bout: &Bout, name: &str, against: &str, metric: &Metric) -> String {
    let advantage = bout.advantage(name, against, metric.key);
    advantage.map_or_else(String::new, factor_of)
}

/// Bold where a difference is shown.
pub(super) fn factor_of(advantage: Advantage) -> String {
    let Advantage {
        ratio, low, high, ..
    } = advantage;
    let words = format!("{ratio:.2} [{low:.2}, {high:.2}]");
    if advantage.shown {
        format!("**{words}**")
    } else {
        words
    }
}

/// `10 x 20` where the bout alternated, else the number of runs; behind a `?` those in doubt.
fn runs(bout: &Bout, result: &ContestantResult, against: &str) -> String {
    let size = size_of(bout, &result.contestant, against, &bout.headline);
    let size = size.unwrap_or_else(|| result.valid_runs.to_string());
    in_doubt(size, result.doubtful_runs)
}

/// `10 x 20, 5 x 5`: of each of the figures.
fn sizes(figures: &[Figure<'_>], name: &str, against: &str, doubtful: usize) -> String {
    let mut sizes: Vec<String> = Vec::new();
    for Figure { bout, metric } in figures {
        let of_runs = || Some(bout.result_of(name)?.valid_runs.to_string());
        let size = size_of(bout, name, against, metric.key).or_else(of_runs);
        sizes.extend(size.filter(|size| !sizes.contains(size)));
    }
    in_doubt(sizes.join(", "), doubtful)
}

/// Rounds x cycles that a contestant has in common with the one that it is compared with, and of
/// that one the most that it has with anybody; `None` if the bout did not alternate.
fn size_of(bout: &Bout, name: &str, against: &str, metric: &str) -> Option<String> {
    let others = bout.contestants.iter().map(|one| one.contestant.as_str());
    let others = others.filter(|other| name == against || *other == against);
    let compared = others.filter_map(|other| bout.comparison(name, other, metric));
    let compared = compared.map(|(comparison, _)| comparison);
    let most = compared.max_by_key(|one| one.levels.map_or(0, |levels| levels.cycles))?;
    most.levels.is_some().then(|| words::size(most))
}

fn in_doubt(size: String, doubtful: usize) -> String {
    match doubtful {
        0 => size,
        doubtful => format!("{size} ?{doubtful}"),
    }
}
