//! Observes a run: the server before, under and after the load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use loadgen::engine::shared::monotonic_ns;
use loadgen::record::Record;
use rustix::process::Signal;

use super::footprint::{Ascent, memory_now};
use super::generator::{self, Outputs, Phases, Target};
use super::process::{Guarded, POLL, describe};
use super::sampler::Sampler;
use super::server::Server;
use super::{Run, Testbed};
use crate::config::{Scenario, ScenarioKind};
use crate::machine::{CpuSet, proc};
use crate::record::{Footprint, GeneratorSide, Layout, ServerMemory, ServerSide, WindowUse};
use crate::store::{self, Unwritable};

/// Between two samples of the server.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Between two samples of memory, which cost more.
const SAMPLE_MEMORY_EVERY: Duration = Duration::from_millis(200);
/// Between two samples of both where there are dozens of processes, and the window is long.
const SAMPLE_SCALE_EVERY: Duration = Duration::from_millis(500);
/// Connections that come up per second at worst, when there are many: what a run may take follows
/// from it.
const SLOWEST_CONNECTS_PER_S: f64 = 4000.0;
/// A generator that takes this much longer than its plan is stuck.
const GENERATOR_GRACE: Duration = Duration::from_secs(60);

/// A run before it is judged.
#[derive(Debug)]
pub struct Observation {
    /// The server under test.
    pub server: ServerSide,
    /// The generator's side.
    pub generator: GeneratorSide,
    /// Memory of a scale step.
    pub footprint: Option<Footprint>,
    /// The generator's record, if it wrote one.
    pub loadgen: Option<Record>,
    /// Why there was no run, or not a whole one.
    pub failures: Vec<String>,
}

/// The part of an observation during which the generator ran.
struct Load {
    generator: GeneratorSide,
    record: Option<Record>,
    window: Option<WindowUse>,
    ascent: Option<Ascent>,
    drain_ns: Option<u64>,
    failures: Vec<String>,
}

impl Testbed {
    /// Server up, generator through, server down. Errors of the contestants are failures inside;
    /// only those of the result folder come back.
    pub fn observe(&self, run: Run<'_>, layout: Option<Layout>, stem: &str) -> Result<Observation> {
        let memory_before = layout.and_then(|_| proc::read_kernel_memory());
        let command = self.server_command(run, layout);
        let (server_cpus, _) = self.cpus_of(run.scenario);
        let mut server = match self.start(&command, &server_cpus, stem)? {
            Ok(server) => server,
            Err(failure) => return Ok(self.no_server(run, command, vec![failure])),
        };
        let pid = server.pid();
        let failures = server.shirks(run.scenario).into_iter().collect();
        let mut observed = self.no_server(run, command, failures);
        observed.server.before = memory_of(pid);
        let ascent = memory_before
            .map(|memory| Ascent::begin(memory, memory_now(pid, None), run.scenario.connections));

        let load = self.load(run, stem, &mut server, ascent)?;

        let mut footprint = layout
            .zip(load.ascent)
            .map(|(layout, ascent)| ascent.end(layout, load.drain_ns));
        if let Some(footprint) = &mut footprint {
            footprint.wait_until_emptied(pid, &self.interrupt);
        }
        observed.failures.extend(load.failures);
        observed.stop(server);
        if let Some(footprint) = &mut footprint {
            footprint.wait_until_ended(&self.interrupt);
        }
        observed.server.window = load.window;
        observed.generator = load.generator;
        observed.footprint = footprint;
        observed.loadgen = load.record;
        Ok(observed)
    }

    /// Starts a server on `cpus`, or says why it did not become ready. An error means that the
    /// result folder cannot be written.
    pub fn start(
        &self,
        command: &[String],
        cpus: &CpuSet,
        stem: &str,
    ) -> Result<Result<Server, String>> {
        let folder = &self.folder;
        let started = Server::start(&self.launcher, command, cpus, folder, stem, &self.interrupt);
        match started {
            Err(error) if error.is::<Unwritable>() => Err(error),
            started => Ok(started.map_err(|error| format!("{error:#}"))),
        }
    }

    /// The observation of a run before its server is started.
    pub fn no_server(
        &self,
        run: Run<'_>,
        command: Vec<String>,
        failures: Vec<String>,
    ) -> Observation {
        let (server_cpus, generator_cpus) = self.cpus_of(run.scenario);
        Observation {
            server: ServerSide {
                command,
                cpus: server_cpus,
                pid: None,
                ready: None,
                final_line: None,
                exit: None,
                window: None,
                before: ServerMemory::default(),
                after: ServerMemory::default(),
                cpu_ticks: None,
            },
            generator: GeneratorSide {
                command: Vec::new(),
                cpus: generator_cpus,
                rate_per_s: run.rate_per_s,
                exit: None,
            },
            footprint: None,
            loadgen: None,
            failures,
        }
    }

    pub(super) fn server_command(&self, run: Run<'_>, layout: Option<Layout>) -> Vec<String> {
        let (contestant, program) = (run.contestant, run.program);
        let (cpus, _) = self.cpus_of(run.scenario);
        match layout {
            Some(layout) => Server::scale_command(contestant, program, &cpus, layout, run.scenario),
            None => Server::command(contestant, program, &cpus, Some(run.scenario)),
        }
    }

    /// The generator, from its start to its record.
    fn load(
        &self,
        run: Run<'_>,
        stem: &str,
        server: &mut Server,
        mut ascent: Option<Ascent>,
    ) -> Result<Load> {
        let outputs = self.outputs(stem)?;
        let command = self.generator_command(run, Phases::Once(run.timing), server, &outputs);
        let (_, stdout) = self.folder.log(format!("{stem}.loadgen.stdout"))?;
        let (stderr_path, stderr) = self.folder.log(format!("{stem}.loadgen.stderr"))?;
        let (program, args) = command.split_first().context("no generator")?;
        let with_pss = run.scenario.kind == ScenarioKind::Idle;
        let (server_cpus, generator_cpus) = self.cpus_of(run.scenario);
        let mut sampler = Sampler::new(server.pid(), self.watch_of(run.scenario), with_pss);
        // The window may begin as soon as the generator does.
        sampler.sample();
        let process =
            self.launcher
                .start(program.as_ref(), args, &generator_cpus, stdout, stderr)?;

        let limit = run.timing.warmup + run.timing.duration + patience_with(run.scenario);
        let (exit, overtime) = self.watch(process, server, &mut sampler, ascent.as_mut(), limit);
        let ended_ns = monotonic_ns();

        let mut failures: Vec<String> = overtime.into_iter().collect();
        let record = self.take_record(&outputs, exit.as_deref(), &stderr_path, &mut failures);
        store::remove(&self.folder.path().join(format!("{stem}.loadgen.stdout")));
        Ok(Load {
            generator: GeneratorSide {
                command,
                cpus: generator_cpus,
                rate_per_s: run.rate_per_s,
                exit,
            },
            window: record.as_ref().and_then(|record| {
                let (start, end) = (
                    record.window_start_monotonic_ns,
                    record.window_end_monotonic_ns,
                );
                sampler.window(start, end, server_cpus.len())
            }),
            ascent,
            drain_ns: record
                .as_ref()
                .and_then(|record| ended_ns.checked_sub(record.window_end_monotonic_ns)),
            record,
            failures,
        })
    }

    /// Where the generator writes.
    pub(super) fn outputs(&self, stem: &str) -> Result<Outputs> {
        Ok(Outputs {
            json: self.folder.file(format!("{stem}.loadgen.json"))?,
            hgrm: self.folder.file(format!("{stem}.hgrm"))?,
            hlog: self.folder.file(format!("{stem}.hlog"))?,
        })
    }

    pub(super) fn generator_command(
        &self,
        run: Run<'_>,
        phases: Phases,
        server: &Server,
        outputs: &Outputs,
    ) -> Vec<String> {
        let target = Target {
            address: &server.address,
            protocol: run.contestant.protocol,
        };
        let (_, cpus) = self.cpus_of(run.scenario);
        let (program, rate_per_s) = (&self.loadgen, run.rate_per_s);
        generator::command(
            program,
            run.scenario,
            phases,
            target,
            &cpus,
            rate_per_s,
            outputs,
        )
    }

    /// The record of a generator that has ended, or a failure.
    pub(super) fn take_record(
        &self,
        outputs: &Outputs,
        exit: Option<&str>,
        stderr: &Path,
        failures: &mut Vec<String>,
    ) -> Option<Record> {
        let record = generator::read_record(&outputs.json);
        if let Err(error) = &record
            && !self.interrupt.is_set()
        {
            let exit = exit.unwrap_or("did not end");
            failures.push(format!("{error:#}; it {exit}{}", store::said(stderr)));
        }
        // The record is inside ours; a second copy would only double the folder.
        store::remove(&outputs.json);
        store::remove_if_empty(stderr);
        record.ok()
    }

    /// Samples the server until the generator ends. Returns how the generator ended, and a failure
    /// if it was still running after `limit`.
    fn watch(
        &self,
        mut generator: Guarded,
        server: &mut Server,
        sampler: &mut Sampler,
        mut ascent: Option<&mut Ascent>,
        limit: Duration,
    ) -> (Option<String>, Option<String>) {
        let (server_pid, generator_pid) = (server.pid(), generator.pid());
        let (sample_every, sample_memory_every) = match ascent {
            Some(_) => (SAMPLE_SCALE_EVERY, SAMPLE_SCALE_EVERY),
            None => (SAMPLE_EVERY, SAMPLE_MEMORY_EVERY),
        };
        let deadline = Instant::now() + limit;
        let (mut next_sample, mut next_memory) = (Instant::now(), Instant::now());
        loop {
            if let Some(status) = generator.try_wait() {
                sampler.sample();
                return (Some(describe(status)), None);
            }
            let now = Instant::now();
            if now >= next_sample {
                sampler.sample();
                next_sample = now + sample_every;
            }
            if now >= next_memory {
                sampler.sample_memory();
                if let Some(ascent) = &mut ascent {
                    ascent.sample(server_pid, generator_pid);
                }
                next_memory = now + sample_memory_every;
            }
            let out_of_time = now >= deadline;
            // `Server::stop` says how a dead server died.
            if out_of_time || server.ended().is_some() || self.interrupt.is_set() {
                let (status, _) = generator.end(Signal::INT, Duration::from_secs(3));
                let overtime = out_of_time.then(|| {
                    format!("the generator was still running after {limit:?} and was ended")
                });
                return (status.map(describe), overtime);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// How long a generator may take to open its connections, or to close them.
pub(super) fn patience_with(scenario: &Scenario) -> Duration {
    GENERATOR_GRACE + Duration::from_secs_f64(scenario.connections as f64 / SLOWEST_CONNECTS_PER_S)
}

impl Observation {
    /// Ends the server and notes how.
    pub(super) fn stop(&mut self, server: Server) {
        let (side, pid) = (&mut self.server, server.pid());
        side.pid = Some(pid);
        side.ready = Some(server.ready.clone());
        side.after = memory_of(pid);
        side.cpu_ticks = proc::read_cpu_ticks(pid);
        let ended = server.stop();
        side.final_line = ended.final_line;
        side.exit = Some(ended.exit);
        self.failures.extend(ended.failure);
    }
}

pub(super) fn memory_of(pid: u32) -> ServerMemory {
    ServerMemory {
        rss_bytes: proc::sample_tree(pid).map(|sample| sample.rss_bytes),
        pss_bytes: proc::read_pss_bytes(pid),
        kernel: proc::read_kernel_memory(),
    }
}
