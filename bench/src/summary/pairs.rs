//! Two contestants against each other: block by block, or slice by slice in an alternating bout.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::{Significance, compare};
use super::{Advantage, Comparison, Entrant, Pair, Setting};
use crate::config::Scenario;
use crate::judge::metrics::{self, Metric};
use crate::record::{RunRecord, Slices};
use crate::stats::rng::derive_seed;
use crate::stats::{
    Direction, PairedRatio, RESAMPLES, ROUNDS_FOR_A_CLAIM, RUNS_FOR_A_CLAIM, TwoLevel,
    cliffs_delta, holm, log_ratios, minimal_detectable, paired_ratio, rounds_needed, signed_rank_p,
    trimmed_mean, two_level,
};

/// Who is compared in a bout: everybody with everybody, and the contestant that runs twice with
/// itself.
pub(super) fn pairs_of<'a>(
    setting: &'a Setting,
    scenario: &Scenario,
) -> Vec<(&'a Entrant, &'a Entrant)> {
    if setting.blocks(&scenario.name) == 1 {
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

/// Every pair by the figure that decides when a bout is over: its headline or, at an equal rate,
/// the server's CPU (a p99 would need hours). `None` if a pair has none. From the blocks up to
/// `last`.
fn deciding(
    setting: &Setting,
    scenario: &Scenario,
    runs: &[RunRecord],
    last: usize,
) -> Option<Vec<Matched>> {
    let runs = runs
        .iter()
        .filter(|run| run.bout == scenario.name && run.block <= last);
    let runs: Vec<&RunRecord> = runs.collect();
    let pairs = pairs_of(setting, scenario);
    let metric = match scenario.at_rate_of {
        Some(_) => metrics::server_cpu(scenario),
        None => metrics::find(scenario.kind, metrics::headline(scenario)),
    }?;
    let matched = pairs.iter().map(|(first, second)| {
        let (first, second) = (&first.name, &second.name);
        Matched::new(setting.seed, scenario, metric, first, second, &runs)
    });
    let all = matched.collect::<Option<Vec<Matched>>>();
    all.filter(|all| !all.is_empty())
}

/// The widest interval of the figure that decides when a bout is over, over all pairs, as half a
/// width ([`PairedRatio::half_width`]), from the blocks up to `last`; `None` while a pair has too
/// few runs for a claim or no ratio at all.
pub fn widest_interval(
    setting: &Setting,
    scenario: &Scenario,
    runs: &[RunRecord],
    last: usize,
) -> Option<f64> {
    let all = deciding(setting, scenario, runs, last)?;
    let widths = all
        .iter()
        .map(|one| one.is_enough().then(|| one.ratio.half_width()));
    let widths = widths.collect::<Option<Vec<f64>>>()?;
    widths.into_iter().reduce(f64::max)
}

/// How many rounds more make all these intervals at most this wide to each side; `None` where
/// nothing tells.
pub fn rounds_to_narrow(
    setting: &Setting,
    scenario: &Scenario,
    runs: &[RunRecord],
    half_width: f64,
) -> Option<usize> {
    let all = deciding(setting, scenario, runs, usize::MAX)?;
    let needed = all
        .iter()
        .map(|one| Some(rounds_needed(one.levels.as_ref()?, half_width)));
    needed.collect::<Option<Vec<usize>>>()?.into_iter().max()
}

/// How a bout stands: everybody against the first contestant by the headline alone, from the runs
/// so far.
pub fn standing(
    setting: &Setting,
    scenario: &Scenario,
    runs: &[RunRecord],
) -> Vec<(String, Advantage)> {
    let runs: Vec<&RunRecord> = runs
        .iter()
        .filter(|run| run.bout == scenario.name)
        .collect();
    let pairs = pairs_of(setting, scenario);
    let reference = pairs.first().map(|(first, _)| first.name.as_str());
    let headline = metrics::find(scenario.kind, metrics::headline(scenario));
    let against = pairs
        .iter()
        .filter(|(first, _)| Some(first.name.as_str()) == reference);
    let stands = against.filter_map(|(first, second)| {
        let (first, second) = (&first.name, &second.name);
        let matched = Matched::new(setting.seed, scenario, headline?, first, second, &runs)?;
        let p_value = matched.p_value;
        let comparison = matched.compare(first, second, p_value, 1);
        Some((second.clone(), Advantage::of(&comparison, true)))
    });
    stands.collect()
}

/// How many times better `name` was than `other` in each round of an alternating bout, by one
/// metric: what the interval of the bout rests on.
pub fn by_round(
    runs: &[&RunRecord],
    name: &str,
    other: &str,
    metric: &Metric,
) -> BTreeMap<usize, f64> {
    let sign = match metric.direction {
        Some(Direction::LowerIsBetter) => -1.0,
        _ => 1.0,
    };
    round_logs(&paired(runs, name, other, metric), metric)
        .into_iter()
        .filter_map(|(round, logs)| Some((round, (sign * trimmed_mean(&logs)?).exp())))
        .collect()
}

/// ln(first / second) of the cycles of each round of an alternating bout: what its interval is made
/// of.
pub fn cycles_of_rounds(
    runs: &[&RunRecord],
    first: &str,
    second: &str,
    metric: &Metric,
) -> Vec<Vec<f64>> {
    let rounds = round_logs(&paired(runs, first, second, metric), metric);
    rounds.into_iter().map(|(_, logs)| logs).collect()
}

/// By round: ln(first / second) of its cycles. A round without any is left out.
fn round_logs(both: &[(usize, &RunRecord, &RunRecord)], metric: &Metric) -> Vec<(usize, Vec<f64>)> {
    let of_round = |(round, one, other): &(usize, &RunRecord, &RunRecord)| {
        let logs = cycle_ratios(
            one.alternation.as_ref()?,
            other.alternation.as_ref()?,
            metric,
        );
        (!logs.is_empty()).then_some((*round, logs))
    };
    both.iter().filter_map(of_round).collect()
}

/// By block or round: the runs of both that count by this metric, where both have one.
fn paired<'a>(
    runs: &[&'a RunRecord],
    first: &str,
    second: &str,
    metric: &Metric,
) -> Vec<(usize, &'a RunRecord, &'a RunRecord)> {
    let by_block = |name: &str| -> BTreeMap<usize, &'a RunRecord> {
        runs.iter()
            .filter(|run| run.contestant == name && run.status.counts())
            .filter(|run| !(metric.is_throughput() && run.is_generator_limited()))
            .map(|run| (run.block, *run))
            .collect()
    };
    let of_second = by_block(second);
    by_block(first)
        .into_iter()
        .filter_map(|(block, one)| Some((block, one, *of_second.get(&block)?)))
        .collect()
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
    ratio: PairedRatio,
    p_value: f64,
    cliffs_delta: Option<f64>,
    levels: Option<TwoLevel>,
    /// Of a bout in sequence: what its test rests on.
    logs: Vec<f64>,
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
        let direction = metric.direction?;
        let both = paired(runs, first, second, metric);
        if let Some(matched) = Self::by_slices(metric, direction, &both) {
            return Some(matched);
        }
        let (blocks, pairs): (Vec<usize>, Vec<(f64, f64)>) = both
            .into_iter()
            .filter_map(|(block, one, other)| {
                Some((block, (one.metric(metric.key)?, other.metric(metric.key)?)))
            })
            .unzip();
        let seed = derive_seed(
            suite_seed,
            &format!("{}/{}/{first}/{second}", scenario.name, metric.key),
        );
        let logs = log_ratios(&pairs)?;
        let (firsts, seconds): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        Some(Self {
            metric,
            direction,
            blocks,
            ratio: paired_ratio(&logs, seed, RESAMPLES)?,
            p_value: signed_rank_p(&logs),
            cliffs_delta: cliffs_delta(&firsts, &seconds),
            levels: None,
            logs,
        })
    }

    /// In an alternating bout: slice against slice of the same cycle, for figures that slices have.
    fn by_slices(
        metric: &'static Metric,
        direction: Direction,
        both: &[(usize, &RunRecord, &RunRecord)],
    ) -> Option<Self> {
        let (blocks, rounds): (Vec<usize>, Vec<Vec<f64>>) =
            round_logs(both, metric).into_iter().unzip();
        let levels = two_level(&rounds)?;
        Some(Self {
            metric,
            direction,
            blocks,
            ratio: PairedRatio {
                pairs: levels.cycles,
                ratio: levels.ratio,
                ci_low: levels.ci_low,
                ci_high: levels.ci_high,
                seed: 0,
            },
            p_value: levels.p_value,
            cliffs_delta: None,
            levels: Some(levels),
            logs: Vec::new(),
        })
    }

    fn family(&self) -> Option<&'static str> {
        metrics::family(self.metric.key)
    }

    /// Enough for a claim.
    fn is_enough(&self) -> bool {
        match &self.levels {
            Some(levels) => levels.rounds >= ROUNDS_FOR_A_CLAIM,
            None => self.ratio.pairs >= RUNS_FOR_A_CLAIM,
        }
    }

    fn compare(self, first: &str, second: &str, p_adjusted: f64, family: usize) -> Comparison {
        let claim = self.is_enough();
        let significance = Significance {
            p_value: self.p_value,
            p_adjusted,
            family,
            minimal_detectable: match &self.levels {
                Some(levels) => Some(levels.detectable_among(family)),
                None => minimal_detectable(&self.logs, family),
            },
        };
        let (direction, ratio) = (self.direction, &self.ratio);
        Comparison {
            metric: self.metric.key.to_owned(),
            direction,
            blocks: self.blocks,
            verdict: compare(first, second, direction, ratio, &significance, claim),
            ratio: self.ratio,
            significance: Some(significance),
            cliffs_delta: self.cliffs_delta,
            levels: self.levels,
        }
    }
}

/// ln(first / second) of every cycle in which both have a slice with this figure.
fn cycle_ratios(first: &Slices, second: &Slices, metric: &Metric) -> Vec<f64> {
    let by_cycle = |slices: &Slices| -> BTreeMap<usize, f64> {
        let slices = slices.slices.iter();
        slices
            .filter_map(|slice| Some((slice.cycle, slice.metric(metric.key)?)))
            .collect()
    };
    let of_second = by_cycle(second);
    let pairs: Vec<(f64, f64)> = by_cycle(first)
        .into_iter()
        .filter_map(|(cycle, value)| Some((value, *of_second.get(&cycle)?)))
        .collect();
    log_ratios(&pairs).unwrap_or_default()
}
