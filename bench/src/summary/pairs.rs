//! Two contestants against each other, block by block.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::{Significance, compare};
use super::{Comparison, Entrant, Pair, Setting};
use crate::config::Scenario;
use crate::judge::metrics::{self, Metric};
use crate::record::RunRecord;
use crate::stats::rng::derive_seed;
use crate::stats::{
    Direction, PairedRatio, RESAMPLES, RUNS_FOR_A_CLAIM, cliffs_delta, holm, log_ratios,
    minimal_detectable, paired_ratio, signed_rank_p,
};

/// Who is compared in a bout: everybody with everybody, and the contestant that runs twice with
/// itself.
pub(super) fn pairs_of<'a>(
    setting: &'a Setting,
    scenario: &Scenario,
) -> Vec<(&'a Entrant, &'a Entrant)> {
    if setting.repeats == 1 {
        // Two single runs differ for whatever reason; nothing is to be read into it.
        return Vec::new();
    }
    let entrants: Vec<&Entrant> = setting
        .contestants
        .iter()
        .filter(|entrant| entrant.takes_part_in(scenario))
        .collect();
    let mut pairs = Vec::new();
    for (place, first) in entrants.iter().enumerate() {
        for second in &entrants[place + 1..] {
            if second
                .duplicate
                .as_ref()
                .is_none_or(|duplicate| duplicate.of == first.name)
            {
                pairs.push((*first, *second));
            }
        }
    }
    pairs
}

/// The widest interval of a bout's headline, over all pairs, as half a width
/// ([`PairedRatio::half_width`]); `None` while a pair has too few runs for a claim or no ratio at
/// all.
pub fn widest_interval(setting: &Setting, scenario: &Scenario, runs: &[RunRecord]) -> Option<f64> {
    let runs: Vec<&RunRecord> = runs
        .iter()
        .filter(|run| run.bout == scenario.name)
        .collect();
    let headline = metrics::find(scenario.kind, metrics::headline(scenario))?;
    let widths = pairs_of(setting, scenario)
        .into_iter()
        .map(|(first, second)| {
            let (first, second) = (&first.name, &second.name);
            let matched = Matched::new(setting.seed, scenario, headline, first, second, &runs)?;
            (matched.ratio.pairs >= RUNS_FOR_A_CLAIM).then(|| matched.ratio.half_width())
        });
    widths
        .collect::<Option<Vec<f64>>>()?
        .into_iter()
        .reduce(f64::max)
}

/// How a bout stands: its first pair by the headline alone, from the runs so far.
pub fn standing(setting: &Setting, scenario: &Scenario, runs: &[RunRecord]) -> Option<Pair> {
    let runs: Vec<&RunRecord> = runs
        .iter()
        .filter(|run| run.bout == scenario.name)
        .collect();
    let (first, second) = pairs_of(setting, scenario).into_iter().next()?;
    let headline = metrics::find(scenario.kind, metrics::headline(scenario))?;
    let (one, other) = (&first.name, &second.name);
    let matched = Matched::new(setting.seed, scenario, headline, one, other, &runs)?;
    let p_value = matched.p_value;
    Some(Pair {
        first: one.clone(),
        second: other.clone(),
        duplicate: second.duplicate.is_some(),
        comparisons: vec![matched.compare(one, other, p_value, 1)],
    })
}

pub(super) fn pair(
    suite_seed: u64,
    scenario: &Scenario,
    first: &Entrant,
    second: &Entrant,
    runs: &[&RunRecord],
) -> Pair {
    let duplicate = second.duplicate.is_some();
    let (first, second) = (&first.name, &second.name);
    let matched: Vec<Matched> = metrics::compared(scenario)
        .into_iter()
        .filter_map(|metric| Matched::new(suite_seed, scenario, metric, first, second, runs))
        .collect();
    let mut adjusted: Vec<(f64, usize)> = matched.iter().map(|one| (one.p_value, 1)).collect();
    let families: BTreeSet<&str> = matched.iter().filter_map(Matched::family).collect();
    for family in families {
        let places: Vec<usize> = (0..matched.len())
            .filter(|place| matched[*place].family() == Some(family))
            .collect();
        let p_values: Vec<f64> = places.iter().map(|place| matched[*place].p_value).collect();
        for (place, p_adjusted) in places.iter().zip(holm(&p_values)) {
            adjusted[*place] = (p_adjusted, places.len());
        }
    }
    let comparisons = matched
        .into_iter()
        .zip(adjusted)
        .map(|(one, (p_adjusted, family))| one.compare(first, second, p_adjusted, family))
        .collect();
    Pair {
        first: first.to_owned(),
        second: second.to_owned(),
        duplicate,
        comparisons,
    }
}

/// Two contestants by one metric, before the correction for its family.
struct Matched {
    metric: &'static Metric,
    direction: Direction,
    blocks: Vec<usize>,
    logs: Vec<f64>,
    ratio: PairedRatio,
    p_value: f64,
    cliffs_delta: Option<f64>,
}

impl Matched {
    /// `None` without a pair of valid runs that have the figure.
    fn new(
        suite_seed: u64,
        scenario: &Scenario,
        metric: &'static Metric,
        first: &str,
        second: &str,
        runs: &[&RunRecord],
    ) -> Option<Self> {
        let by_block = |name: &str| -> BTreeMap<usize, f64> {
            runs.iter()
                .filter(|run| run.contestant == name && run.status.counts())
                .filter_map(|run| Some((run.block, run.metric(metric.key)?)))
                .collect()
        };
        let (of_first, of_second) = (by_block(first), by_block(second));
        let (blocks, pairs): (Vec<usize>, Vec<(f64, f64)>) = of_first
            .iter()
            .filter_map(|(block, value)| Some((*block, (*value, *of_second.get(block)?))))
            .unzip();
        let seed = derive_seed(
            suite_seed,
            &format!("{}/{}/{first}/{second}", scenario.name, metric.key),
        );
        let logs = log_ratios(&pairs)?;
        let (firsts, seconds): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        Some(Self {
            metric,
            direction: metric.direction?,
            blocks,
            ratio: paired_ratio(&logs, seed, RESAMPLES)?,
            p_value: signed_rank_p(&logs),
            cliffs_delta: cliffs_delta(&firsts, &seconds),
            logs,
        })
    }

    fn family(&self) -> Option<&'static str> {
        metrics::family(self.metric.key)
    }

    fn compare(self, first: &str, second: &str, p_adjusted: f64, family: usize) -> Comparison {
        let significance = Significance {
            p_value: self.p_value,
            p_adjusted,
            family,
            minimal_detectable: minimal_detectable(&self.logs, family),
        };
        Comparison {
            metric: self.metric.key.to_owned(),
            direction: self.direction,
            blocks: self.blocks,
            verdict: compare(first, second, self.direction, &self.ratio, &significance),
            ratio: self.ratio,
            significance: Some(significance),
            cliffs_delta: self.cliffs_delta,
        }
    }
}
