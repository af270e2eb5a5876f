//! One run: a fresh server is started, observed under load and stopped; the run is judged and
//! stored. In an alternating bout a round is a run of each contestant, all at once.

mod footprint;
pub mod generator;
pub mod interrupt;
mod observe;
pub mod perf;
pub mod process;
pub mod profile;
mod round;
pub mod sampler;
mod search;
pub mod server;
mod sliced;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::config::{Contestant, Scenario, ScenarioKind, Timing};
use crate::judge::ruling::{Surroundings, decide};
use crate::machine::{CpuSet, Machine, proc};
use crate::plan::layout;
use crate::record::{Ending, Layout, RunRecord, SCHEMA_VERSION, Slices, Status, Stopped};
use crate::store::{self, ResultFolder};
use interrupt::Interrupt;
use observe::Observation;
use process::Launcher;
use sampler::MachineWatch;

/// The parts that all runs of a suite share.
#[derive(Debug)]
pub struct Testbed {
    /// Starts children.
    pub launcher: Launcher,
    /// Where everything is recorded.
    pub folder: ResultFolder,
    /// The generator's binary.
    pub loadgen: PathBuf,
    /// The servers' CPUs, unless a scenario makes them share.
    pub server_cpus: CpuSet,
    /// The generator's CPUs, unless it shares them.
    pub generator_cpus: CpuSet,
    /// What is watched of the machine during a run on CPUs that are not shared.
    pub watch: MachineWatch,
    /// The machine, whose limits decide how a scale step is laid out.
    pub machine: Machine,
    /// The suite is to end.
    pub interrupt: Interrupt,
}

/// The course of a run, beside what was observed.
struct Course {
    started_unix_ns: u64,
    elapsed_ns: u64,
    machine_steal_ns: Option<u64>,
    /// Why it was not begun.
    refused: Option<Vec<String>>,
    alternation: Option<Slices>,
}

/// Which run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The contestant.
    pub contestant: &'a Contestant,
    /// The contestant's binary.
    pub program: &'a std::path::Path,
    /// The scenario.
    pub scenario: &'a Scenario,
    /// Warm-up and window.
    pub timing: Timing,
    /// Rate in force, for open loops.
    pub rate_per_s: Option<f64>,
    /// Block of the bout, from 1.
    pub block: usize,
    /// Place in the block, from 1.
    pub position: usize,
    /// Number of the run in its bout, from 1.
    pub number: usize,
    /// Number of the probe, from 1, in a search.
    pub probe: Option<usize>,
}

impl Run<'_> {
    /// Where its files are: a name without its ending.
    pub fn stem(&self) -> String {
        let of_run = format!(
            "runs/{}/{:03}-{}",
            self.scenario.name, self.number, self.contestant.name
        );
        match self.probe {
            Some(probe) => format!("{of_run}.probes/{probe:02}"),
            None => of_run,
        }
    }

    /// Where the files of a search's probes are.
    pub fn probes_folder(&self) -> String {
        format!(
            "{}.probes",
            Run {
                probe: None,
                ..*self
            }
            .stem()
        )
    }
}

impl Testbed {
    /// Carries out a run and records it. An error means that it could not be *recorded*; a run that
    /// fails is a record.
    pub fn run(&self, run: Run<'_>) -> Result<RunRecord> {
        let begun = Instant::now();
        let started_unix_ns = proc::unix_ns();
        let steal_before = proc::read_steal_ns();
        let (observed, refused) = match self.layout(run) {
            Ok(layout) => (self.observe(run, layout, &run.stem())?, None),
            Err(reasons) => {
                let command = self.server_command(run, None);
                (self.no_server(run, command, Vec::new()), Some(reasons))
            }
        };
        let machine_steal_ns = proc::read_steal_ns()
            .zip(steal_before)
            .map(|(after, before)| after - before);
        let elapsed_ns = begun.elapsed().as_nanos() as u64;
        let course = Course {
            started_unix_ns,
            elapsed_ns,
            machine_steal_ns,
            refused,
            alternation: None,
        };
        self.conclude(run, course, observed)
    }

    /// The record of a run, judged and stored.
    fn conclude(&self, run: Run<'_>, course: Course, observed: Observation) -> Result<RunRecord> {
        let stem = run.stem();
        let Observation {
            server,
            generator,
            footprint,
            loadgen,
            failures,
        } = observed;
        let stopped = match course.refused {
            Some(causes) => Some((Ending::Refused, causes)),
            None if self.interrupt.is_set() => Some((Ending::Interrupted, failures)),
            None if failures.is_empty() => None,
            None => Some((Ending::Failed, failures)),
        };
        let mut record = RunRecord {
            schema_version: SCHEMA_VERSION,
            bout: run.scenario.name.clone(),
            contestant: run.contestant.name.clone(),
            block: run.block,
            position: run.position,
            // Judged below.
            status: Status::Failed,
            stopped: stopped.map(|(how, causes)| Stopped { how, causes }),
            checks: Vec::new(),
            reasons: Vec::new(),
            metrics: BTreeMap::new(),
            started_unix_ns: course.started_unix_ns,
            elapsed_ns: course.elapsed_ns,
            machine_steal_ns: course.machine_steal_ns,
            scenario: run.scenario.clone(),
            server,
            generator,
            footprint,
            capacity: None,
            alternation: course.alternation,
            loadgen,
        };
        record.metrics = record.extract_metrics();
        (record.status, record.checks) = decide(&record, self.surroundings(run));
        self.folder.write_json(format!("{stem}.json"), &record)?;
        if record.status.counts() {
            // After a valid run the log of the server holds only its start and its end.
            store::remove(&self.folder.path().join(format!("{stem}.server.stderr")));
        }
        Ok(record)
    }

    /// The CPUs of server and generator in a scenario.
    fn cpus_of(&self, scenario: &Scenario) -> (CpuSet, CpuSet) {
        let (server, generator) = (&self.server_cpus, &self.generator_cpus);
        let shared = scenario.shared_cpus;
        match shared.and_then(|count| server.of_both(generator, count)) {
            Some(both) => (both.clone(), both),
            None => (server.clone(), generator.clone()),
        }
    }

    /// What is watched of the machine in a scenario.
    fn watch_of(&self, scenario: &Scenario) -> MachineWatch {
        match scenario.shared_cpus {
            Some(_) => self.watch.without_sides(),
            None => self.watch.clone(),
        }
    }

    /// What the checks of a run need beside its record.
    fn surroundings(&self, run: Run<'_>) -> Surroundings {
        Surroundings {
            foreign: run.contestant.foreign,
            interrupts_apart: self.machine.interrupts_accounted_apart,
        }
    }

    /// How the server of a scale step is laid out, or why this machine cannot hold the step.
    fn layout(&self, run: Run<'_>) -> Result<Option<Layout>, Vec<String>> {
        if run.scenario.kind != ScenarioKind::Scale {
            return Ok(None);
        }
        let cpus = self.server_cpus.len();
        layout::plan(&self.machine, run.scenario, run.contestant, cpus).map(Some)
    }
}
