//! Who won: each bout by the metric that decides it.

use super::chart::strings;
use crate::judge::metrics::{self, Metric};
use crate::output::table::Table;
use crate::output::text::{cell, missing, spread};
use crate::output::words;
use crate::summary::{Bout, Comparison, Pair, Summary};

/// With up to so many contestants every verdict and everybody's median stand in the row of their
/// bout.
const FEW: usize = 3;

/// With more, that row names so many of the differences found.
const DIFFERENCES_SHOWN: usize = 6;

/// In place of a verdict.
const ONE_RUN: &str = "one run: no interval, no claim about differences";

/// A bout by the metric that decides it.
struct Headline<'a> {
    bout: &'a Bout,
    metric: &'static Metric,
    pairs: Vec<(&'a Pair, Option<&'a Comparison>)>,
}

fn headlines(summary: &Summary) -> impl Iterator<Item = Headline<'_>> {
    summary.bouts.iter().filter_map(|bout| {
        let pairs = bout.pairs.iter().filter(|pair| !pair.duplicate);
        let of_headline = |pair: &&Comparison| pair.metric == bout.headline;
        Some(Headline {
            bout,
            metric: metrics::find(bout.scenario.kind, &bout.headline)?,
            pairs: pairs
                .map(|pair| (pair, pair.comparisons.iter().find(of_headline)))
                .collect(),
        })
    })
}

impl Headline<'_> {
    fn median(&self, name: &str) -> String {
        self.bout.result_of(name).map_or_else(missing, |result| {
            cell(self.metric.unit, spread(result, self.metric.key))
        })
    }

    /// Paired runs of the pair that has fewest.
    fn paired_runs(&self) -> String {
        let fewest = self
            .pairs
            .iter()
            .min_by_key(|(_, found)| found.map_or(0, |found| found.ratio.pairs));
        fewest.map_or_else(missing, |(_, found)| paired_runs(*found))
    }

    /// The verdict on every pair.
    fn every_verdict(&self) -> Vec<String> {
        let verdict = |(pair, found): &(&Pair, Option<&Comparison>)| {
            if self.pairs.len() == 1 {
                words(pair, *found)
            } else {
                format!("{} v {}: {}", pair.first, pair.second, words(pair, *found))
            }
        };
        self.pairs.iter().map(verdict).collect()
    }

    /// The differences found, largest first, and how many pairs are left.
    fn differences(&self) -> Vec<String> {
        let mut found: Vec<(f64, String)> = Vec::new();
        let (mut equal, mut too_few) = (0, 0);
        for (pair, comparison) in &self.pairs {
            let Some(comparison) = comparison else {
                too_few += 1;
                continue;
            };
            let verdict = &comparison.verdict;
            match &verdict.winner {
                Some(winner) => {
                    let loser = if winner == &pair.first {
                        &pair.second
                    } else {
                        &pair.first
                    };
                    let words = words(pair, Some(comparison));
                    found.push((verdict.advantage, format!("{words} over {loser}")));
                }
                None if verdict.claim => equal += 1,
                None => too_few += 1,
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let smaller = found.len().saturating_sub(DIFFERENCES_SHOWN);
        let mut lines: Vec<String> = found
            .into_iter()
            .take(DIFFERENCES_SHOWN)
            .map(|(_, words)| words)
            .collect();
        let rest = [
            ("smaller differences", smaller),
            ("no difference detectable", equal),
            ("too few runs for a claim", too_few),
        ];
        let all = self.pairs.len();
        lines.extend(
            rest.into_iter()
                .filter(|(_, pairs)| *pairs > 0)
                .map(|(what, pairs)| match pairs {
                    _ if pairs == all => format!("{what} in any of {all} pairs"),
                    1 => format!("{what} in 1 of {all} pairs"),
                    _ => format!("{what} in {pairs} of {all} pairs"),
                }),
        );
        lines
    }
}

fn words(pair: &Pair, found: Option<&Comparison>) -> String {
    found.map_or("no pair of valid runs".to_owned(), |found| {
        words::verdict(&pair.first, &pair.second, &found.ratio, &found.verdict)
    })
}

fn paired_runs(found: Option<&Comparison>) -> String {
    found.map_or("0".to_owned(), words::size)
}

/// Those whose names head columns.
fn entrants(summary: &Summary) -> Vec<&str> {
    let entrants = summary.setting.contestants.iter();
    entrants
        .filter(|entrant| entrant.excluded.is_none() && entrant.duplicate.is_none())
        .map(|entrant| entrant.name.as_str())
        .collect()
}

/// One row per bout: the metric that decides it, each contestant's median (if they are few), the
/// verdict.
pub(super) fn verdicts(summary: &Summary) -> Table {
    let entrants = entrants(summary);
    let columns = if entrants.len() > FEW {
        &[]
    } else {
        &entrants[..]
    };
    let mut headings = strings(&["bout", "better, by how much [95% interval]", "n", "by"]);
    headings.extend(strings(columns));
    let right = [2].into_iter().chain(4..4 + columns.len()).collect();
    let mut table = Table::new(headings, right);
    for headline in headlines(summary) {
        let verdict = if summary.setting.blocks(&headline.bout.scenario.name) == 1 {
            vec![ONE_RUN.to_owned()]
        } else if entrants.len() > FEW {
            headline.differences()
        } else {
            headline.every_verdict()
        };
        let mut row = vec![
            headline.bout.scenario.name.clone(),
            verdict.join("\n"),
            headline.paired_runs(),
            headline.metric.title.to_owned(),
        ];
        row.extend(columns.iter().map(|name| headline.median(name)));
        table.row(row);
    }
    table
}
