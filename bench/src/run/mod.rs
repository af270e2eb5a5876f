//! One run: a fresh server, the generator against it, everything that was seen, recorded.

mod footprint;
pub mod generator;
pub mod interrupt;
pub mod process;
pub mod sampler;
mod search;
pub mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::config::{Contestant, Kind, Scenario, Timing};
use crate::judge::metrics;
use crate::judge::ruling::{Evidence, other_load_share, rule, steal_share};
use crate::machine::{CpuSet, Machine, proc};
use crate::plan::layout;
use crate::record::{
    Footprint, GeneratorSide, Layout, MemoryLook, RunRecord, SCHEMA_VERSION, ServerSide,
};
use crate::store::{self, ResultFolder};
use generator::{Outputs, Target};
use interrupt::Interrupt;
use process::{Guarded, Launcher, POLL, describe};
use sampler::Sampler;
use server::Server;

/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks at memory that cost more.
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_millis(200);
/// The same where there are dozens of processes to look at, and the window is long.
const LOOK_AT_SCALE_EVERY: Duration = Duration::from_millis(500);
/// Connections that come up per second at worst, when there are many: what a run may take follows
/// from it.
const SLOWEST_CONNECTS_PER_S: f64 = 4000.0;
/// A generator that takes this much longer than its plan is stuck.
const GENERATOR_GRACE: Duration = Duration::from_secs(60);

/// What all runs of a suite share.
#[derive(Debug)]
pub struct Testbed {
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
    /// What limits a scale step.
    pub machine: Machine,
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

/// What happened, before it is judged.
#[derive(Debug, Default)]
struct Observed {
    failures: Vec<String>,
    loadgen: Option<loadgen::record::Record>,
    generator_exit: Option<String>,
    footprint: Option<Footprint>,
}

impl Testbed {
    /// Carries out a run and records it. An error means that it could not be *recorded*; a run that
    /// fails is a record.
    pub fn run(&self, run: Run<'_>) -> Result<RunRecord> {
        let stem = run.stem();
        let begun = Instant::now();
        let started_unix_ns = proc::unix_ns();
        let steal_before = proc::read_steal_ns();
        let layout = match run.scenario.kind {
            Kind::Scale => layout::plan(
                &self.machine,
                run.scenario,
                run.contestant,
                self.server_cpus.len(),
            )
            .map(Some),
            _ => Ok(None),
        };
        let mut server = ServerSide {
            command: self.server_command(run, layout.as_ref().ok().copied().flatten()),
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
        let refused = layout.as_ref().err().cloned();
        let observed = match layout {
            Ok(layout) => self.observe(run, layout, &stem, &mut server, &mut generator)?,
            Err(_) => Observed::default(),
        };
        generator.exit = observed.generator_exit;
        let machine_steal_ns = proc::read_steal_ns()
            .zip(steal_before)
            .map(|(after, before)| after - before);
        let elapsed_ns = begun.elapsed().as_nanos() as u64;
        let all_cpus = self.server_cpus.len() + self.generator_cpus.len();
        let ruling = rule(&Evidence {
            loadgen: observed.loadgen.as_ref(),
            server: Some(&server),
            footprint: observed.footprint.as_ref(),
            pinged_fraction: run.scenario.pinged_fraction,
            refused,
            foreign: run.contestant.foreign,
            failures: observed.failures,
            interrupted: self.interrupt.is_set(),
            steal_share: steal_share(&server, machine_steal_ns, elapsed_ns, all_cpus),
            other_load_share: observed.loadgen.as_ref().and_then(|record| {
                let apart = self.machine.interrupts_accounted_apart;
                other_load_share(&server, record, apart)
            }),
        });
        let metrics = observed
            .loadgen
            .as_ref()
            .map(|record| {
                metrics::extract(
                    run.scenario.kind,
                    record,
                    &server,
                    observed.footprint.as_ref(),
                    None,
                )
            })
            .unwrap_or_default();
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            bout: run.scenario.name.clone(),
            contestant: run.contestant.name.clone(),
            block: run.block,
            position: run.position,
            status: ruling.status,
            reasons: ruling.reasons,
            checks: ruling.checks,
            warnings: ruling.warnings,
            metrics,
            started_unix_ns,
            elapsed_ns,
            machine_steal_ns,
            scenario: run.scenario.clone(),
            server,
            generator,
            footprint: observed.footprint,
            capacity: None,
            loadgen: observed.loadgen,
        };
        self.folder.write_json(format!("{stem}.json"), &record)?;
        if record.status.counts() {
            // What the servers log about a run that went well is their start and their end.
            store::remove(&self.folder.path().join(format!("{stem}.server.stderr")));
        }
        Ok(record)
    }

    fn server_command(&self, run: Run<'_>, layout: Option<Layout>) -> Vec<String> {
        let Run {
            contestant,
            program,
            scenario,
            ..
        } = run;
        match layout {
            Some(layout) => {
                Server::scale_command(contestant, program, &self.server_cpus, layout, scenario)
            }
            None => Server::command(contestant, program, &self.server_cpus),
        }
    }

    /// Server up, generator through, server down. Errors of the contestants are failures inside;
    /// only those of the result folder come back.
    fn observe(
        &self,
        run: Run<'_>,
        layout: Option<Layout>,
        stem: &str,
        side: &mut ServerSide,
        generator_side: &mut GeneratorSide,
    ) -> Result<Observed> {
        let mut observed = Observed {
            footprint: layout.and_then(|layout| Footprint::begin(layout, run.scenario.connections)),
            ..Observed::default()
        };
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
            Err(error) if error.is::<crate::store::Unwritable>() => return Err(error),
            Err(error) => {
                observed.failures.push(format!("{error:#}"));
                return Ok(observed);
            }
        };
        let pid = server.pid();
        side.pid = Some(pid);
        side.ready = Some(server.ready.clone());
        side.before = look_at_memory(pid);
        if let Some(footprint) = &mut observed.footprint {
            footprint.look_when_ready(pid);
        }

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
        // The window may begin as soon as the generator does.
        let mut sampler = Sampler::new(
            pid,
            self.cpus_apart(&side.cpus),
            run.scenario.kind == Kind::Idle,
        );
        sampler.look();
        let process =
            self.launcher
                .start(program.as_ref(), args, &self.generator_cpus, stdout, stderr)?;

        let opening = run.scenario.connections as f64 / SLOWEST_CONNECTS_PER_S;
        let limit = run.timing.warmup
            + run.timing.duration
            + GENERATOR_GRACE
            + Duration::from_secs_f64(opening);
        observed.generator_exit =
            self.watch(process, &mut server, &mut sampler, limit, &mut observed);
        let generator_ended_unix_ns = proc::unix_ns();

        match generator::read_record(&outputs.json) {
            Ok(record) => {
                side.window = sampler.window(
                    record.window_start_unix_ns,
                    record.window_end_unix_ns,
                    side.cpus.len(),
                );
                if let Some(footprint) = &mut observed.footprint {
                    footprint.drain_ns =
                        generator_ended_unix_ns.checked_sub(record.window_end_unix_ns);
                }
                observed.loadgen = Some(record);
            }
            Err(error) if !self.interrupt.is_set() => {
                let exit = observed.generator_exit.as_deref().unwrap_or("did not end");
                observed.failures.push(format!(
                    "{error:#}; it {exit}: {}",
                    store::tail(&stderr_path)
                ));
            }
            Err(_) => {}
        }
        // The record is inside ours; a second copy would only double the folder.
        store::remove(&outputs.json);
        store::remove(&self.folder.path().join(format!("{stem}.loadgen.stdout")));
        store::remove_if_empty(&stderr_path);

        if let Some(footprint) = &mut observed.footprint {
            footprint.look_when_emptied(pid, &self.interrupt);
        }
        side.after = look_at_memory(pid);
        side.cpu_ticks = proc::read_cpu_ticks(pid);
        let ended = server.stop();
        side.exit = Some(ended.exit);
        side.final_line = ended.final_line;
        observed.failures.extend(ended.failure);
        if let Some(footprint) = &mut observed.footprint {
            footprint.look_when_ended(&self.interrupt);
        }
        Ok(observed)
    }

    /// `cpus` if the server has them to itself.
    fn cpus_apart(&self, cpus: &CpuSet) -> Vec<usize> {
        let generators = self.generator_cpus.cpus();
        let shared = cpus.cpus().iter().any(|cpu| generators.contains(cpu));
        if shared {
            Vec::new()
        } else {
            cpus.cpus().to_vec()
        }
    }

    /// Looks at the server until the generator ends. How that ended.
    fn watch(
        &self,
        mut generator: Guarded,
        server: &mut Server,
        sampler: &mut Sampler,
        limit: Duration,
        observed: &mut Observed,
    ) -> Option<String> {
        let (server_pid, generator_pid) = (server.pid(), generator.pid());
        let (look_every, look_at_memory_every) = match observed.footprint {
            Some(_) => (LOOK_AT_SCALE_EVERY, LOOK_AT_SCALE_EVERY),
            None => (LOOK_EVERY, LOOK_AT_MEMORY_EVERY),
        };
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
                next_look = now + look_every;
            }
            if now >= next_memory {
                sampler.look_at_memory();
                if let Some(footprint) = &mut observed.footprint {
                    footprint.look_again(server_pid, generator_pid);
                }
                next_memory = now + look_at_memory_every;
            }
            let out_of_time = now >= deadline;
            // `Server::stop` says how a dead server died.
            if out_of_time || server.ended().is_some() || self.interrupt.is_set() {
                let (status, _) = generator.end(Signal::INT, Duration::from_secs(3));
                if out_of_time {
                    observed.failures.push(format!(
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
        rss_bytes: proc::sample_tree(pid).map(|sample| sample.rss_bytes),
        pss_bytes: proc::read_pss_bytes(pid),
        kernel: proc::read_kernel_memory(),
    }
}
