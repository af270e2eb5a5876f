//! Before the bouts: the capacities that rates are fractions of.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::Referee;
use crate::config::{Load, Scenario, ScenarioKind, Timing};
use crate::record::{CheckName, RunRecord, Status};
use crate::stats::median_of;
use crate::summary::MeasuredCapacity;

impl Referee {
    /// Closed loops for every capacity that a rate is a fraction of.
    pub(super) fn calibrate(&mut self) -> Result<()> {
        let calibration = self.plan.suite.calibration;
        let timing = Timing {
            warmup: calibration.warmup,
            duration: calibration.duration,
        };
        for scenario in self
            .plan
            .calibrations()
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
        {
            let Some(key) = scenario.capacity_key() else {
                continue;
            };
            if self.capacities.contains_key(&key) {
                continue;
            }
            let shape = Scenario {
                name: key.clone(),
                load: (scenario.kind != ScenarioKind::Connect).then_some(Load::Window(1)),
                headline: None,
                ..scenario
            };
            let mut runs = Vec::new();
            for block in 1..=calibration.runs {
                runs.extend(self.block(&shape, timing, None, block, &mut |_| {})?);
                if self.testbed.interrupt.is_set() {
                    return Ok(());
                }
            }
            match measured(&runs) {
                Some(capacity) => {
                    eprintln!("{key}: smallest {:.0}/s", capacity.smallest_per_s);
                    self.capacities.insert(key, capacity);
                }
                None => eprintln!("{key}: no capacity could be measured; its bouts are left out"),
            }
        }
        self.write_capacities()
    }

    /// The first round of a closed loop is the calibration of its companion.
    pub(super) fn note_capacity(&mut self, scenario: &Scenario, runs: &[RunRecord]) -> Result<()> {
        let mut all = self.plan.scenarios.iter();
        let has_companion = all.any(|one| one.at_rate_of.as_ref() == Some(&scenario.name));
        if !has_companion || self.capacities.contains_key(&scenario.name) {
            return Ok(());
        }
        let Some(capacity) = measured(runs) else {
            return Ok(());
        };
        self.capacities.insert(scenario.name.clone(), capacity);
        self.write_capacities()
    }

    fn write_capacities(&self) -> Result<()> {
        self.testbed
            .folder
            .write_json("capacities.json", &self.capacities)
    }
}

/// The capacities that these runs show; `None` if they show none.
fn measured(runs: &[RunRecord]) -> Option<MeasuredCapacity> {
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut in_doubt = BTreeSet::new();
    for run in runs {
        if let Some(per_s) = usable_capacity(run) {
            rates.entry(&run.contestant).or_default().push(per_s);
            in_doubt.extend(is_in_doubt(run).then(|| run.contestant.clone()));
        }
    }
    let messages_per_s: BTreeMap<String, f64> = rates
        .into_iter()
        .filter_map(|(name, rates)| Some((name.to_owned(), median_of(&rates)?)))
        .collect();
    Some(MeasuredCapacity {
        smallest_per_s: messages_per_s.values().copied().reduce(f64::min)?,
        messages_per_s,
        in_doubt,
    })
}

/// Throughput of a calibration run that lost nothing. Whether server or generator was the limit
/// does not matter here: the rate is one that both can do.
fn usable_capacity(run: &RunRecord) -> Option<f64> {
    let record = run.loadgen.as_ref()?;
    let connections = &record.connections;
    let all_up = match run.scenario.kind {
        // They come and go.
        ScenarioKind::Connect => connections.failed == 0 && connections.closed_early == 0,
        _ => connections.up == connections.requested,
    };
    let whole = all_up && record.messages.lost == 0;
    let usable = whole && (run.status.counts() || run.status == Status::Invalid);
    let per_s = match run.scenario.kind {
        // Of a broadcast: messages published.
        ScenarioKind::Broadcast => {
            Some(run.metric("deliveries_per_s")? / run.scenario.connections as f64)
        }
        ScenarioKind::Connect => run.metric("handshakes_per_s"),
        _ => run.metric("messages_per_s"),
    };
    per_s.filter(|per_s| usable && *per_s > 0.0)
}

/// Whether something else than the generator's own limit speaks against the throughput.
fn is_in_doubt(run: &RunRecord) -> bool {
    let mut failed = run.failed_checks();
    failed.any(|check| check.name != CheckName::GeneratorLimit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Check, CheckStatus};
    use crate::test_data;

    #[test]
    fn a_capacity_is_in_doubt_by_what_its_runs_are_doubted_for() {
        let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
        assert!(!is_in_doubt(&run));
        let failed = |name| Check::ok(name, 1.0, 0.0).when(true, CheckStatus::Doubtful);
        run.checks = vec![failed(CheckName::GeneratorLimit)];
        assert!(!is_in_doubt(&run), "the rate is one that both can do");
        run.checks.push(failed(CheckName::OtherLoad));
        assert!(is_in_doubt(&run));
    }
}
