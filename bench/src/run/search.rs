//! A run of kind `capacity`: a search, each probe a run of its own.

use std::fs;

use anyhow::{Context, Result};

use super::{Run, Testbed};
use crate::config::{Load, Scenario, ScenarioKind};
use crate::judge::bisection::Step;
use crate::judge::search::conclude;
use crate::machine::proc;
use crate::record::{Outcome, Probe, Role, RunRecord, Search, Status};

impl Testbed {
    /// Carries out a search and records it as one run. An error means that it could not be
    /// *recorded*.
    pub fn search(&self, run: Run<'_>, known_per_s: Option<f64>) -> Result<RunRecord> {
        let started_unix_ns = proc::unix_ns();
        let steal_before = proc::read_steal_ns();
        let mut search = Search::new(run.scenario, known_per_s);
        let scenario = probe_scenario(run.scenario);
        let pressure = self.machine.memory_pressure_bytes();
        // The run that shows the rate found: the last that met the target while it was confirmed;
        // before there is one, the last of all.
        let mut shown: Option<RunRecord> = None;
        while let Step::Probe { rate_per_s, role } = search.next() {
            let probe = self.run(Run {
                scenario: &scenario,
                rate_per_s: Some(rate_per_s),
                probe: Some(search.probes.len() + 1),
                ..run
            })?;
            let ended = probe.status == Status::Interrupted;
            let row = Probe::of(&probe, &search.goal, rate_per_s, role);
            let met = role == Role::Confirm && row.outcome == Outcome::Met;
            if met || ended || search.found_nothing_yet() {
                shown = Some(probe);
            }
            search.probes.push(row);
            if ended {
                break;
            }
        }
        if let Step::Done(found) = search.next() {
            search.end(found, pressure);
        }
        let mut record = shown.context("a search made no probe")?;
        record.scenario = run.scenario.clone();
        record.started_unix_ns = started_unix_ns;
        record.elapsed_ns = proc::unix_ns().saturating_sub(started_unix_ns);
        record.machine_steal_ns = proc::read_steal_ns()
            .zip(steal_before)
            .map(|(after, before)| after.saturating_sub(before));
        conclude(&mut record, search, self.surroundings(run));
        let stem = run.stem();
        self.folder.write_json(format!("{stem}.json"), &record)?;
        let mut probes = record.capacity.iter().flat_map(|search| &search.probes);
        if probes.all(|probe| probe.outcome != Outcome::Inconclusive) {
            // The rows say it all; of the run that shows the rate the whole record is inside.
            let _ = fs::remove_dir_all(self.folder.path().join(run.probes_folder()));
        }
        Ok(record)
    }
}

/// The scenario of the probes: echoes at a fixed rate.
fn probe_scenario(scenario: &Scenario) -> Scenario {
    Scenario {
        kind: ScenarioKind::Echo,
        load: Some(Load::Rate(1.0)),
        headline: None,
        ..scenario.clone()
    }
}
