//! One run: a fresh server, the generator against it, everything that was seen, recorded.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::config::{Contestant, Scenario, Timing};
use crate::cpus::CpuSet;
use crate::folder::{self, ResultFolder};
use crate::generator::{self, Outputs, Target};
use crate::interrupt::Interrupt;
use crate::metrics;
use crate::proc;
use crate::process::{Guarded, Launcher, POLL, describe};
use crate::record::{GeneratorSide, MemoryLook, RunRecord, SCHEMA_VERSION, ServerSide, Status};
use crate::sampler::Sampler;
use crate::server::Server;
use crate::validity::{Evidence, rule};

/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks at memory that cost more.
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_millis(200);
/// A generator that takes this much longer than its plan is stuck.
const GENERATOR_GRACE: Duration = Duration::from_secs(60);

/// What all runs of a suite share.
#[derive(Debug)]
pub struct Ring {
    /// Starts children.
    pub launcher: Launcher,
    /// Where everything is recorded.
    pub folder: ResultFolder,
    /// The generator's binary.
    pub loadgen: PathBuf,
    /// The servers' CPUs.
    pub server_cpus: CpuSet,
    /// The generator's CPUs.
    pub generator_cpus: CpuSet,
    /// Somebody wants to end the suite.
    pub interrupt: Interrupt,
}

/// Which run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Who.
    pub contestant: &'a Contestant,
    /// The contestant's binary.
    pub program: &'a std::path::Path,
    /// What.
    pub scenario: &'a Scenario,
    /// How long.
    pub timing: Timing,
    /// Rate in force, for open loops.
    pub rate_per_s: Option<f64>,
    /// Block of the bout, from 1.
    pub block: usize,
    /// Place in the block, from 1.
    pub position: usize,
    /// Number of the run in its bout, from 1.
    pub number: usize,
}

/// What happened, before it is judged.
#[derive(Debug, Default)]
struct Observed {
    failures: Vec<String>,
    loadgen: Option<loadgen::record::Record>,
    generator_exit: Option<String>,
}

impl Ring {
    /// Carries out a run and records it. An error means that it could not be *recorded*; a run that fails is a record.
    pub fn run(&self, run: Run<'_>) -> Result<RunRecord> {
        let stem = format!(
            "runs/{}/{:03}-{}",
            run.scenario.name, run.number, run.contestant.name
        );
        let begun = Instant::now();
        let started_unix_ns = proc::unix_ns();
        let steal_before = proc::read_steal_ns();
        let mut server = ServerSide {
            command: Server::command(run.contestant, run.program, &self.server_cpus),
            cpus: self.server_cpus.clone(),
            pid: None,
            ready: None,
            final_line: None,
            exit: None,
            window: None,
            before: MemoryLook::default(),
            after: MemoryLook::default(),
            cpu_ticks: None,
        };
        let mut generator = GeneratorSide {
            command: Vec::new(),
            cpus: self.generator_cpus.clone(),
            rate_per_s: run.rate_per_s,
            exit: None,
        };
        let observed = self.observe(run, &stem, &mut server, &mut generator)?;
        generator.exit = observed.generator_exit;
        let machine_steal_ns = proc::read_steal_ns()
            .zip(steal_before)
            .map(|(after, before)| after - before);
        let elapsed_ns = begun.elapsed().as_nanos() as u64;
        let all_cpus = (self.server_cpus.len() + self.generator_cpus.len()) as f64;
        let ruling = rule(&Evidence {
            loadgen: observed.loadgen.as_ref(),
            server: Some(&server),
            foreign: run.contestant.foreign,
            failures: observed.failures,
            interrupted: self.interrupt.is_set(),
            steal_share: machine_steal_ns.map(|steal| steal as f64 / elapsed_ns as f64 / all_cpus),
        });
        let metrics = observed
            .loadgen
            .as_ref()
            .map(|record| metrics::extract(run.scenario.kind, record, &server))
            .unwrap_or_default();
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            bout: run.scenario.name.clone(),
            contestant: run.contestant.name.clone(),
            block: run.block,
            position: run.position,
            status: ruling.status,
            reasons: ruling.reasons,
            warnings: ruling.warnings,
            metrics,
            started_unix_ns,
            elapsed_ns,
            machine_steal_ns,
            scenario: run.scenario.clone(),
            server,
            generator,
            loadgen: observed.loadgen,
        };
        self.folder.write_json(format!("{stem}.json"), &record)?;
        if record.status == Status::Valid {
            // What the servers log about a run that went well is their start and their end.
            folder::remove(&self.folder.path().join(format!("{stem}.server.stderr")));
        }
        Ok(record)
    }

    /// Server up, generator through, server down. Errors of the contestants are failures inside; only those of the result
    /// folder come back.
    fn observe(
        &self,
        run: Run<'_>,
        stem: &str,
        side: &mut ServerSide,
        generator_side: &mut GeneratorSide,
    ) -> Result<Observed> {
        let mut observed = Observed::default();
        let started = Server::start(
            &self.launcher,
            &side.command,
            &side.cpus,
            &self.folder,
            stem,
            &self.interrupt,
        );
        let mut server = match started {
            Ok(server) => server,
            Err(error) if error.is::<crate::folder::Unwritable>() => return Err(error),
            Err(error) => {
                observed.failures.push(format!("{error:#}"));
                return Ok(observed);
            }
        };
        let pid = server.pid();
        side.pid = Some(pid);
        side.ready = Some(server.ready.clone());
        side.before = look_at_memory(pid);

        let outputs = Outputs {
            json: self.folder.file(format!("{stem}.loadgen.json"))?,
            hgrm: self.folder.file(format!("{stem}.hgrm"))?,
            hlog: self.folder.file(format!("{stem}.hlog"))?,
        };
        generator_side.command = generator::command(
            &self.loadgen,
            run.scenario,
            run.timing,
            Target {
                address: server.address,
                protocol: run.contestant.protocol,
            },
            &self.generator_cpus,
            run.rate_per_s,
            &outputs,
        );
        let (_, stdout) = self.folder.log(format!("{stem}.loadgen.stdout"))?;
        let (stderr_path, stderr) = self.folder.log(format!("{stem}.loadgen.stderr"))?;
        let (program, args) = generator_side
            .command
            .split_first()
            .context("no generator")?;
        let process =
            self.launcher
                .start(program.as_ref(), args, &self.generator_cpus, stdout, stderr)?;

        let mut sampler = Sampler::new(pid, run.scenario.kind == crate::config::Kind::Idle);
        let limit = run.timing.warmup + run.timing.duration + GENERATOR_GRACE;
        observed.generator_exit = self.watch(
            process,
            &mut server,
            &mut sampler,
            limit,
            &mut observed.failures,
        );

        match generator::read_record(&outputs.json) {
            Ok(record) => {
                side.window = sampler.window(
                    record.window_start_unix_ns,
                    record.window_end_unix_ns,
                    side.cpus.len(),
                );
                observed.loadgen = Some(record);
            }
            Err(error) if !self.interrupt.is_set() => {
                let exit = observed.generator_exit.as_deref().unwrap_or("did not end");
                observed.failures.push(format!(
                    "{error:#}; it {exit}: {}",
                    folder::tail(&stderr_path)
                ));
            }
            Err(_) => {}
        }
        // The record is inside ours; a second copy would only double the folder.
        folder::remove(&outputs.json);
        folder::remove(&self.folder.path().join(format!("{stem}.loadgen.stdout")));
        folder::remove_if_empty(&stderr_path);

        side.after = look_at_memory(pid);
        side.cpu_ticks = proc::read_cpu_ticks(pid);
        let ended = server.stop();
        side.exit = Some(ended.exit);
        side.final_line = ended.final_line;
        observed.failures.extend(ended.failure);
        Ok(observed)
    }

    /// Looks at the server until the generator ends. How that ended.
    fn watch(
        &self,
        mut generator: Guarded,
        server: &mut Server,
        sampler: &mut Sampler,
        limit: Duration,
        failures: &mut Vec<String>,
    ) -> Option<String> {
        let deadline = Instant::now() + limit;
        let (mut next_look, mut next_memory) = (Instant::now(), Instant::now());
        loop {
            if let Some(status) = generator.try_wait() {
                sampler.look();
                return Some(describe(status));
            }
            let now = Instant::now();
            if now >= next_look {
                sampler.look();
                next_look = now + LOOK_EVERY;
            }
            if now >= next_memory {
                sampler.look_at_memory();
                next_memory = now + LOOK_AT_MEMORY_EVERY;
            }
            let out_of_time = now >= deadline;
            // `Server::stop` says how a dead server died.
            if out_of_time || server.ended().is_some() || self.interrupt.is_set() {
                let (status, _) = generator.end(Signal::INT, Duration::from_secs(3));
                if out_of_time {
                    failures.push(format!(
                        "the generator was still running after {limit:?} and was ended"
                    ));
                }
                return status.map(describe);
            }
            std::thread::sleep(POLL);
        }
    }
}

fn look_at_memory(pid: u32) -> MemoryLook {
    MemoryLook {
        rss_bytes: proc::sample_process(pid).map(|sample| sample.rss_bytes),
        pss_bytes: proc::read_pss_bytes(pid),
        kernel: proc::read_kernel_memory(),
    }
}
