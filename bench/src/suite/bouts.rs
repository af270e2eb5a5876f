//! The bouts: rounds of blocks, each block one run of every contestant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Referee;
use super::live::{Standing, View};
use super::progress::Progress;
use crate::config::{Load, Scenario, ScenarioKind, Timing};
use crate::plan::order;
use crate::record::RunRecord;
use crate::run::Run;
use crate::stats::ROUNDS_AFTER_NARROW;
use crate::summary::{rounds_to_narrow, standing, widest_interval};
use crate::units::minutes;

impl Referee {
    /// Drops the runs of blocks that an interruption cut: the runs of a block belong side by side,
    /// so it is run again as a whole.
    pub(super) fn keep_whole_blocks(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        for scenario in &self.plan.scenarios {
            let contestants = self.admitted(scenario).len();
            let mut of_block: BTreeMap<usize, usize> = BTreeMap::new();
            for run in runs.iter().filter(|run| run.bout == scenario.name) {
                *of_block.entry(run.block).or_default() += 1;
            }
            runs.retain(|run| run.bout != scenario.name || of_block[&run.block] == contestants);
        }
        let names: Vec<&str> = self
            .plan
            .scenarios
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        runs.retain(|run| names.contains(&run.bout.as_str()));
        if !self.environment.resumed.is_empty() {
            eprintln!("resumed: {} runs are there already", runs.len());
        }
        self.runs = runs;
    }

    /// Rounds of blocks: those planned, then those that make up for runs that do not count or
    /// narrow an interval.
    pub(super) fn run_bouts(&mut self) -> Result<()> {
        let scenarios = self.plan.scenarios.clone();
        let mut progress = Progress::new(self.view(&scenarios));
        let mut pace = Pace::default();
        let rounds = self.plan.most_blocks();
        let last = scenarios.iter().map(|one| self.plan.last_block(one)).max();
        for round in 1..=rounds + last.unwrap_or(0) {
            let order = self.order_of_bouts(round);
            for (place, bout) in order.iter().copied().enumerate() {
                let scenario = &scenarios[bout];
                let Some(block) = self.block_in_round(scenario, round) else {
                    continue;
                };
                let following = order[place + 1..].iter().map(|bout| (round, *bout));
                let of_next = self.order_of_bouts(round + 1).into_iter();
                let mut following = following.chain(of_next.map(|bout| (round + 1, bout)));
                let is_run = |(round, bout): &(usize, usize)| {
                    self.block_in_round(&scenarios[*bout], *round).is_some()
                };
                progress.view.next = following.find(is_run).map(|(_, bout)| {
                    let scenario = &scenarios[bout];
                    (
                        scenario.name.clone(),
                        pace.expect(self.estimate_block(scenario)),
                    )
                });
                if !self.bout_block(scenario, (bout, block), &mut pace, &mut progress)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The block of a bout that is to be run in this round.
    fn block_in_round(&self, scenario: &Scenario, round: usize) -> Option<usize> {
        let rounds = self.plan.most_blocks();
        let block = order::block_in_round(round, rounds, self.plan.blocks(scenario))?;
        self.wants(scenario, block).then_some(block)
    }

    fn view(&self, scenarios: &[Scenario]) -> View {
        let reference = self.setting(None).reference().map(str::to_owned);
        let mut view = View {
            bouts: scenarios.iter().map(|one| self.standing(one)).collect(),
            reference: reference.unwrap_or_default(),
            ..View::default()
        };
        view.left = Some(self.time_left(&view, &Pace::default()));
        view
    }

    /// Of the runs so far.
    fn standing(&self, scenario: &Scenario) -> Standing {
        let runs = self.runs.iter().filter(|run| run.bout == scenario.name);
        let done = runs.map(|run| run.block).collect::<BTreeSet<_>>();
        Standing {
            bout: scenario.name.clone(),
            done: done.len(),
            expected: done.len() + self.blocks_left(scenario, done.last().copied()),
            against_first: standing(&self.setting(None), scenario, &self.runs),
        }
    }

    /// How many blocks a bout is still going to have, about.
    fn blocks_left(&self, scenario: &Scenario, last: Option<usize>) -> usize {
        let planned = self.plan.blocks(scenario);
        let missing = (1..=planned)
            .filter(|block| self.wants(scenario, *block))
            .count();
        let next = planned.max(last.unwrap_or(0)) + 1;
        if !self.wants(scenario, next) {
            return missing;
        }
        let more = self.plan.until.and_then(|until| {
            let (setting, runs) = (self.setting(None), &self.runs);
            let narrow = rounds_to_narrow(&setting, scenario, runs, until.half_width)?;
            Some(narrow.saturating_add(ROUNDS_AFTER_NARROW))
        });
        let at_most = self.plan.last_block(scenario) + 1 - next;
        more.map_or(missing, |more| more.min(missing + at_most))
            .max(missing)
            // It is going to have the next one at least.
            .max(1)
    }

    fn time_left(&self, view: &View, pace: &Pace) -> Duration {
        let bouts = self.plan.scenarios.iter().zip(&view.bouts);
        let all = bouts.map(|(scenario, standing)| {
            let blocks = standing.expected - standing.done;
            self.estimate_block(scenario) * blocks as u32
        });
        let left = pace.expect(all.sum());
        let budget = self
            .plan
            .budget
            .map(|all| all.saturating_sub(self.begun.elapsed()));
        budget.map_or(left, |budget| left.min(budget))
    }

    /// Bouts in random order, companions after all closed loops; steps of a scale, which do not
    /// compete for a quiet minute, from the lowest up.
    fn order_of_bouts(&self, round: usize) -> Vec<usize> {
        let scenarios = &self.plan.scenarios;
        let mut order = order::order_of_bouts(self.plan.seed, round, scenarios.len());
        if scenarios.iter().all(|one| one.kind == ScenarioKind::Scale) {
            order.sort_by_key(|bout| scenarios[*bout].connections);
        }
        // The rate of a companion follows from the first round of its closed loop.
        order.sort_by_key(|bout| scenarios[*bout].at_rate_of.is_some());
        order
    }

    /// Whether a bout is to have this block. Beyond the planned ones it is asked how many runs
    /// count and how wide the intervals are, never what the figures say: blocks that are added
    /// until a result looks good make any result look good.
    fn wants(&self, scenario: &Scenario, block: usize) -> bool {
        let is_block = |run: &RunRecord| run.bout == scenario.name && run.block == block;
        if self.runs.iter().any(is_block) || block > self.plan.last_block(scenario) {
            return false;
        }
        let planned = self.plan.blocks(scenario);
        if block <= planned {
            return true;
        }
        let whole = self.whole_blocks(scenario);
        // If none of several blocks is valid, the scenario is broken: a retry would not mend it.
        // With one block this cannot be told, so it is tried again.
        let may_be_luck = whole > 0 || planned == 1;
        let makes_up = may_be_luck && whole < planned;
        match self.plan.until {
            None => makes_up,
            Some(until) => whole > 0 && !self.is_narrow(scenario, block, until.half_width),
        }
    }

    /// Whether the intervals of a bout are narrow enough to end it before this block. Those of
    /// rounds that agree by luck are narrow too early, so that more rounds follow.
    fn is_narrow(&self, scenario: &Scenario, block: usize, half_width: f64) -> bool {
        let more = match self.plan.alternation(scenario) {
            Some(_) => ROUNDS_AFTER_NARROW,
            None => 0,
        };
        let setting = self.setting(None);
        let is_narrow = |last: usize| {
            let width = widest_interval(&setting, scenario, &self.runs, last);
            width.is_some_and(|width| width <= half_width)
        };
        // Once narrow is narrow enough, where more rounds follow.
        let last = block.saturating_sub(1 + more);
        let first = match more {
            0 => last,
            more => self.plan.blocks(scenario).saturating_sub(more),
        };
        (first..=last).any(is_narrow)
    }

    /// One block of a bout, unless the time is up or the suite is interrupted: then false.
    fn bout_block(
        &mut self,
        scenario: &Scenario,
        (bout, block): (usize, usize),
        pace: &mut Pace,
        progress: &mut Progress,
    ) -> Result<bool> {
        let rate_per_s = match self.rate_of(scenario) {
            Ok(rate_per_s) => rate_per_s,
            Err(left_out) => {
                progress.say(&left_out);
                return Ok(true);
            }
        };
        let estimate = self.estimate_block(scenario);
        if let Some(budget) = self.plan.budget
            && self.begun.elapsed() + pace.expect(estimate) > budget
        {
            let cut = format!(
                "the budget of {} min was used up in round {block}",
                minutes(budget)
            );
            progress.say(&cut);
            self.cut.get_or_insert(cut);
            return Ok(false);
        }
        let begun = Instant::now();
        let timing = self.plan.timing(scenario);
        let mut say = |said: Said<'_>| match said {
            Said::Begin(contestant) => progress.begin(bout, contestant),
            Said::End(run) => progress.end(run),
        };
        let runs = self.block(scenario, timing, rate_per_s, block, &mut say)?;
        pace.add(estimate, begun.elapsed());
        self.note_capacity(scenario, &runs)?;
        self.runs.extend(runs);
        progress.view.bouts[bout] = self.standing(scenario);
        progress.view.left = Some(self.time_left(&progress.view, pace));
        progress.block_is_over(bout);
        Ok(!self.testbed.interrupt.is_set())
    }

    /// The rate in force, for an open loop; why there is none, if it is a part of a capacity that
    /// was not measured.
    pub(super) fn rate_of(&self, scenario: &Scenario) -> Result<Option<f64>, String> {
        match (scenario.load, scenario.capacity_key()) {
            (Some(Load::FractionOfCapacity(fraction)), Some(key)) => {
                let capacity = self.capacities.get(&key).ok_or_else(|| {
                    format!(
                        "{}: left out, because no capacity was measured",
                        scenario.name
                    )
                })?;
                Ok(Some((capacity.smallest_per_s * fraction).round()))
            }
            (Some(Load::Rate(rate)), _) => Ok(Some(rate)),
            _ => Ok(None),
        }
    }

    /// One run of every contestant, in random order or, in an alternating bout, all at once. Ends
    /// early when the suite is interrupted.
    pub(super) fn block(
        &self,
        scenario: &Scenario,
        timing: Timing,
        rate_per_s: Option<f64>,
        block: usize,
        say: &mut dyn FnMut(Said<'_>),
    ) -> Result<Vec<RunRecord>> {
        let admitted = self.admitted(scenario);
        let seed = self.plan.seed;
        let order = order::order_in_block(seed, &scenario.name, block, admitted.len());
        let runs = order.iter().enumerate().map(|(place, index)| Run {
            contestant: &admitted[*index].contestant,
            program: &admitted[*index].program,
            scenario,
            timing,
            rate_per_s,
            block,
            position: place + 1,
            number: (block - 1) * admitted.len() + place + 1,
            probe: None,
        });
        if let Some(alternation) = self.plan.alternation(scenario) {
            let runs: Vec<Run<'_>> = runs.collect();
            say(Said::Begin("all in turn"));
            let records = self.testbed.round(&runs, alternation, seed)?;
            records.iter().for_each(|record| say(Said::End(record)));
            return Ok(records);
        }
        let mut records = Vec::new();
        for run in runs {
            if self.testbed.interrupt.is_set() {
                break;
            }
            say(Said::Begin(&run.contestant.name));
            let record = match scenario.kind {
                ScenarioKind::Capacity => self.testbed.search(run, self.known_capacity(run))?,
                _ => self.testbed.run(run)?,
            };
            say(Said::End(&record));
            records.push(record);
        }
        Ok(records)
    }

    /// The throughput of this contestant in a closed loop of this shape, if that was measured:
    /// where a search begins.
    fn known_capacity(&self, run: Run<'_>) -> Option<f64> {
        let capacity = self.capacities.get(&run.scenario.shape_key())?;
        let own = capacity.messages_per_s.get(&run.contestant.name);
        Some(own.copied().unwrap_or(capacity.smallest_per_s))
    }

    /// Blocks of a bout in which every contestant has a valid run.
    fn whole_blocks(&self, bout: &Scenario) -> usize {
        let mut valid: BTreeMap<usize, usize> = BTreeMap::new();
        for run in self
            .runs
            .iter()
            .filter(|run| run.bout == bout.name && run.status.counts())
        {
            *valid.entry(run.block).or_default() += 1;
        }
        let contestants = self.admitted(bout).len();
        valid.values().filter(|runs| **runs == contestants).count()
    }
}

/// The events that a block reports while it runs.
pub(super) enum Said<'a> {
    Begin(&'a str),
    End(&'a RunRecord),
}

/// How the estimates of blocks compare to the facts so far.
#[derive(Debug, Default)]
struct Pace {
    estimated: Duration,
    taken: Duration,
}

impl Pace {
    fn add(&mut self, estimated: Duration, taken: Duration) {
        self.estimated += estimated;
        self.taken += taken;
    }

    /// An estimate, corrected by the runs so far.
    fn expect(&self, estimate: Duration) -> Duration {
        if self.estimated.is_zero() {
            return estimate;
        }
        estimate.mul_f64(self.taken.as_secs_f64() / self.estimated.as_secs_f64())
    }
}
