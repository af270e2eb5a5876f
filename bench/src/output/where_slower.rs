//! Where each contestant is slower: every claim that another one is better, in any metric. For the
//! page of one result and for the page of all.

use serde::Serialize;

use crate::judge::metrics;
use crate::output::words;
use crate::summary::{Bout, Comparison, Pair, Summary};

/// The bouts in which one contestant is slower; none if it is slower in nothing.
#[derive(Debug, Serialize)]
pub(super) struct WhereSlower {
    pub(super) contestant: String,
    /// Name of the bout; by what, and than which contestant.
    pub(super) bouts: Vec<(String, String)>,
}

pub(super) fn where_slower(summary: &Summary) -> Vec<WhereSlower> {
    let entrants = summary.setting.contestants.iter();
    entrants
        .filter(|entrant| entrant.excluded.is_none() && entrant.duplicate.is_none())
        .map(|entrant| WhereSlower {
            contestant: entrant.name.clone(),
            bouts: summary
                .bouts
                .iter()
                .map(|bout| (bout.scenario.name.clone(), in_bout(bout, &entrant.name)))
                .filter(|(_, words)| !words.is_empty())
                .collect(),
        })
        .collect()
}

/// By each metric the largest defeat, and how many others there are.
fn in_bout(bout: &Bout, name: &str) -> String {
    let by_metric = metrics::of_kind(bout.scenario.kind).filter_map(|metric| {
        let defeats = defeats(bout, name, metric.key);
        let ((pair, largest), others) = defeats.split_first()?;
        let others = match others.len() {
            0 => String::new(),
            1 => " and 1 other".to_owned(),
            more => format!(" and {more} others"),
        };
        let words = words::verdict(&pair.first, &pair.second, &largest.ratio, &largest.verdict);
        Some(format!("{} {words}{others}", metric.title))
    });
    by_metric.collect::<Vec<_>>().join("; ")
}

/// The largest first.
fn defeats<'a>(bout: &'a Bout, name: &str, metric: &str) -> Vec<(&'a Pair, &'a Comparison)> {
    let mut defeats: Vec<(&Pair, &Comparison)> = bout
        .pairs
        .iter()
        .filter(|pair| !pair.duplicate && (pair.first == name || pair.second == name))
        .flat_map(|pair| pair.comparisons.iter().map(move |one| (pair, one)))
        .filter(|(_, one)| one.metric == metric && one.verdict.claim)
        .filter(|(_, one)| {
            one.verdict
                .winner
                .as_ref()
                .is_some_and(|winner| winner != name)
        })
        .collect();
    defeats.sort_by(|(_, a), (_, b)| b.verdict.advantage.total_cmp(&a.verdict.advantage));
    defeats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::{Entrant, summarize};
    use crate::test_data;

    #[test]
    fn a_line_per_bout_names_the_largest_defeat_and_counts_the_others() {
        let speeds = [
            ("slow", 100_000.0),
            ("fair", 110_000.0),
            ("fast", 120_000.0),
        ];
        let mut setting = test_data::setting();
        let entrant = setting.contestants[0].clone();
        setting.contestants = speeds
            .map(|(name, _)| Entrant {
                name: name.into(),
                ..entrant.clone()
            })
            .to_vec();
        let runs: Vec<RunRecord> = (1..=10)
            .flat_map(|block| speeds.map(|(name, per_s)| test_data::echo_run(name, block, per_s)))
            .collect();
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let all = where_slower(&summarize(setting, &scenarios, &runs));
        let [slow, fair, fast] = &all[..] else {
            panic!("three contestants");
        };
        assert_eq!(slow.bouts.len(), 1);
        let (bout, lost) = &slow.bouts[0];
        assert_eq!(bout, "echo-64b-w1-c1000");
        assert!(
            lost.contains("fast 1.200x [1.200, 1.200] and 1 other"),
            "{lost}"
        );
        assert!(!lost.contains("fair"), "{lost}");
        let (_, lost) = &fair.bouts[0];
        assert!(lost.contains("fast 1.09") && !lost.contains("other"));
        assert!(
            !fast.bouts.iter().any(|(_, lost)| lost.contains("fair")),
            "{fast:?}"
        );
    }
}
