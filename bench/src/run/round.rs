//! A round of an alternating bout: fresh processes of all contestants live at once, and one at a
//! time is awake.
//!
//! Servers and generators are started in the order of the runs given. Each contestant is warmed up,
//! one after the other. Then come the cycles: each wakes every contestant once, in an order drawn
//! anew, for one slice. The referee reads the server's figures at the edges of a slice by its own
//! clock; the generator says when the slice was. The two differ by the time it takes to wake the
//! other, so the server's figures are scaled by the ratio of the two lengths.

use std::time::{Duration, Instant};

use anyhow::Result;
use loadgen::record::Latency;

use super::generator::{Outputs, Phases};
use super::observe::{Observation, memory_of, patience_with};
use super::sampler::{MachineWatch, share};
use super::server::Server;
use super::sliced::SlicedGenerator;
use super::{Course, Run, Testbed};
use crate::config::Alternation;
use crate::judge::checks::{WARM_WITHIN, apart};
use crate::machine::proc::{self, MachineSample, ProcessSample};
use crate::plan::{estimate, order};
use crate::record::{MachineUse, Percentiles, RunRecord, Slice, SliceUse, Slices, WindowUse};

/// A contestant that is not warm after so many stretches is in doubt.
const MOST_STRETCHES: usize = 24;
/// Messages that each connection must have had before the first cycle.
const MESSAGES_EACH: u64 = 2;
/// Where the referee was later than this part of a slice at its edges, it has not seen what the
/// server used in it.
const LATE_PART: u64 = 4;

/// One contestant of a round.
pub(super) struct Participant<'a> {
    run: Run<'a>,
    begun: Instant,
    started_unix_ns: u64,
    outputs: Outputs,
    server: Option<Server>,
    generator: Option<SlicedGenerator>,
    /// What is watched of the machine meanwhile.
    watch: MachineWatch,
    /// So far.
    observed: Observation,
    /// When it was last seen at work.
    paused: Option<Look>,
    alternation: Slices,
    /// Of each slice that was seen: its length, and what the server used.
    uses: Vec<(u64, WindowUse)>,
}

/// The counters of a server and of the machine at an instant.
#[derive(Debug, Clone, Copy)]
struct Look {
    server: ProcessSample,
    machine: Option<MachineSample>,
}

impl Testbed {
    /// Carries out a round: `runs` in the order of their start, `seed` that of the suite. One
    /// record per run, in their order. An error means that one could not be *recorded*.
    pub fn round(
        &self,
        runs: &[Run<'_>],
        alternation: Alternation,
        seed: u64,
    ) -> Result<Vec<RunRecord>> {
        let mut participants = Vec::new();
        for run in runs {
            participants.push(self.start_server(*run)?);
        }
        for participant in &mut participants {
            self.start_generator(participant)?;
        }
        for participant in &mut participants {
            self.warm_up(participant, alternation);
        }
        for cycle in 1..=alternation.cycles {
            let (bout, round) = (&runs[0].scenario.name, runs[0].block);
            let order = order::order_in_cycle(seed, bout, round, cycle, participants.len());
            for (place, participant) in order.into_iter().enumerate() {
                let participant = &mut participants[participant];
                let Alternation { settle, slice, .. } = alternation;
                self.counted_slice(participant, (settle, slice), (cycle, place + 1));
            }
        }
        participants
            .into_iter()
            .map(|one| self.leave(one))
            .collect()
    }

    pub(super) fn start_server<'a>(&self, run: Run<'a>) -> Result<Participant<'a>> {
        let stem = run.stem();
        let command = self.server_command(run, None);
        let mut participant = Participant {
            run,
            begun: Instant::now(),
            started_unix_ns: proc::unix_ns(),
            outputs: self.outputs(&stem)?,
            server: None,
            generator: None,
            watch: self.watch_of(run.scenario),
            paused: None,
            alternation: Slices::default(),
            uses: Vec::new(),
            observed: self.no_server(run, command, Vec::new()),
        };
        let observed = &mut participant.observed;
        match self.start(&observed.server.command, &observed.server.cpus, &stem)? {
            Ok(server) => {
                observed.server.before = memory_of(server.pid());
                observed.failures.extend(server.shirks(run.scenario));
                participant.server = Some(server);
            }
            Err(failure) => observed.failures.push(failure),
        }
        Ok(participant)
    }

    /// Returns when all connections are up.
    pub(super) fn start_generator(&self, participant: &mut Participant<'_>) -> Result<()> {
        let Some(server) = &participant.server else {
            return Ok(());
        };
        let (run, observed) = (participant.run, &mut participant.observed);
        let command = self.generator_command(run, Phases::Slices, server, &participant.outputs);
        observed.generator.command = command;
        let Some((program, args)) = observed.generator.command.split_first() else {
            return Ok(());
        };
        let (stderr_path, stderr) = self.folder.log(format!("{}.loadgen.stderr", run.stem()))?;
        let cpus = &observed.generator.cpus;
        let started = self
            .launcher
            .start_piped(program.as_ref(), args, cpus, stderr);
        let up = started.and_then(|pipes| {
            let mut generator = SlicedGenerator::new(pipes, stderr_path);
            let up = generator.wait_until_up(patience_with(run.scenario), &self.interrupt);
            participant.generator = Some(generator);
            up
        });
        observed
            .failures
            .extend(up.err().map(|error| format!("{error:#}")));
        Ok(())
    }

    /// Stretches of load until two in a row agree in throughput and in the server's CPU time, and
    /// every connection has had some messages. Each settles first as a slice does: stretches are in
    /// the window that Little's law judges, and while 10,000 connections send their first message
    /// they are not all in flight.
    pub(super) fn warm_up(&self, participant: &mut Participant<'_>, alternation: Alternation) {
        let stretch = estimate::stretch(alternation);
        let mut messages = 0;
        for _ in 0..MOST_STRETCHES {
            if let Some((slice, _)) = self.slice(participant, alternation.settle, stretch) {
                messages += slice.messages;
                participant.alternation.warm_up.push(slice);
            }
            let enough = messages >= MESSAGES_EACH * participant.run.scenario.connections;
            let apart = apart(&participant.alternation.warm_up);
            let is_warm = enough && apart.is_some_and(|apart| apart <= WARM_WITHIN);
            if is_warm || !participant.observed.failures.is_empty() || self.interrupt.is_set() {
                return;
            }
        }
    }

    /// A slice that counts, of this cycle and place in it.
    pub(super) fn counted_slice(
        &self,
        participant: &mut Participant<'_>,
        (settle, length): (Duration, Duration),
        (cycle, position): (usize, usize),
    ) {
        let Some((slice, used)) = self.slice(participant, settle, length) else {
            return;
        };
        let used = used.map(|used| (slice.window_ns, used));
        participant.uses.extend(used);
        participant.alternation.slices.push(Slice {
            cycle,
            position,
            ..slice
        });
    }

    /// One contestant awake: what the generator counted, and what the server used if that was seen;
    /// nothing once one of them has failed.
    fn slice(
        &self,
        participant: &mut Participant<'_>,
        settle: Duration,
        length: Duration,
    ) -> Option<(Slice, Option<WindowUse>)> {
        if !participant.observed.failures.is_empty() || self.interrupt.is_set() {
            return None;
        }
        let outcome = self.slice_of(participant, settle, length);
        outcome.unwrap_or_else(|error| {
            participant.observed.failures.push(format!("{error:#}"));
            None
        })
    }

    fn slice_of(
        &self,
        participant: &mut Participant<'_>,
        settle: Duration,
        length: Duration,
    ) -> Result<Option<(Slice, Option<WindowUse>)>> {
        let both = participant
            .server
            .as_ref()
            .zip(participant.generator.as_mut());
        let Some((server, generator)) = both else {
            return Ok(None);
        };
        let watch = &participant.watch;
        let rested = look(server, watch);
        generator.begin(settle, length)?;
        self.rest(settle);
        let start = look(server, watch);
        self.rest(length);
        let end = look(server, watch);
        let counted = generator.finish(&self.interrupt)?;
        let before = std::mem::replace(&mut participant.paused, look(server, watch));
        let cpus = participant.observed.server.cpus.len();
        let window_ns = counted.to_ns.saturating_sub(counted.from_ns);
        let looks = start.zip(end).filter(|(start, end)| {
            let late_ns =
                start.at_ns().abs_diff(counted.from_ns) + end.at_ns().abs_diff(counted.to_ns);
            window_ns > 0 && late_ns * LATE_PART <= window_ns
        });
        let used = looks.map(|(start, end)| used(&start, &end, window_ns, cpus));
        let away = before.zip(rested);
        let slice = Slice {
            from_ns: counted.from_ns,
            window_ns,
            messages: counted.replies,
            latency_intended: counted.latency_intended.as_ref().map(percentiles),
            latency_actual: counted.latency_actual.as_ref().map(percentiles),
            latency_others: counted.latency_others.as_ref().map(percentiles),
            schedule_lag_p99_ns: counted.schedule_lag.map(|lag| lag.p99_ns),
            generator_cpu_ns: counted.cpu_user_ns + counted.cpu_sys_ns,
            server: used.as_ref().map(slice_use),
            away_ns: away.map_or(0, |(before, rested)| rested.at_ns() - before.at_ns()),
            away_cpu_ns: away.map_or(0, |(before, rested)| {
                rested.server.cpu_ns.saturating_sub(before.server.cpu_ns)
            }),
            ..Slice::default()
        };
        Ok(Some((slice, used)))
    }

    /// Sleeps, unless the suite is interrupted.
    fn rest(&self, length: Duration) {
        let end = Instant::now() + length;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.interrupt.is_set() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Ends a contestant's processes and records its run.
    pub(super) fn leave(&self, participant: Participant<'_>) -> Result<RunRecord> {
        let Participant {
            run,
            mut observed,
            alternation,
            uses,
            ..
        } = participant;
        let patience = match self.interrupt.is_set() {
            true => Duration::from_secs(3),
            false => patience_with(run.scenario),
        };
        if let Some(generator) = participant.generator {
            let stderr = generator.stderr.clone();
            let exit = generator.stop(patience);
            let (outputs, failures) = (&participant.outputs, &mut observed.failures);
            observed.loadgen = self.take_record(outputs, exit.as_deref(), &stderr, failures);
            observed.generator.exit = exit;
        }
        if let Some(server) = participant.server {
            observed.stop(server);
        }
        let window_ns = alternation.slices.iter().map(|slice| slice.window_ns).sum();
        observed.server.window = WindowUse::sum(&uses, window_ns, observed.server.cpus.len());
        let course = Course {
            started_unix_ns: participant.started_unix_ns,
            elapsed_ns: participant.begun.elapsed().as_nanos() as u64,
            machine_steal_ns: None,
            refused: None,
            alternation: Some(alternation),
        };
        self.conclude(run, course, observed)
    }
}

impl Participant<'_> {
    /// Of its server, unless something has failed.
    pub(super) fn ready_pid(&self) -> Option<u32> {
        let server = self.server.as_ref()?;
        self.observed.failures.is_empty().then(|| server.pid())
    }
}

/// `None` once the server has ended.
fn look(server: &Server, watch: &MachineWatch) -> Option<Look> {
    Some(Look {
        server: proc::sample_tree(server.pid())?,
        machine: watch.sample(),
    })
}

impl Look {
    /// By CLOCK_MONOTONIC.
    fn at_ns(&self) -> u64 {
        self.server.at_ns
    }
}

/// What was used between two looks, scaled to a slice of `window_ns`; of the machine, and in clock
/// ticks, as it was seen.
fn used(start: &Look, end: &Look, window_ns: u64, cpus: usize) -> WindowUse {
    let machine = start.machine.zip(end.machine);
    let seen = WindowUse::between(&start.server, &end.server, machine, cpus);
    let looked_ns = end.at_ns().saturating_sub(start.at_ns()).max(1);
    let part = window_ns as f64 / looked_ns as f64;
    let scaled = |amount: u64| (amount as f64 * part) as u64;
    WindowUse {
        cpu_ns: scaled(seen.cpu_ns),
        softirqd_ns: scaled(seen.softirqd_ns),
        voluntary_switches: scaled(seen.voluntary_switches),
        involuntary_switches: scaled(seen.involuntary_switches),
        ..seen
    }
}

impl WindowUse {
    /// All slices of a run, `window_ns` in all, from those that were seen; `None` if none was.
    fn sum(seen: &[(u64, Self)], window_ns: u64, cpus: usize) -> Option<Self> {
        let (_, last) = seen.last()?;
        let seen_ns: u64 = seen.iter().map(|(length_ns, _)| length_ns).sum();
        let part = window_ns as f64 / seen_ns.max(1) as f64;
        let total = |of: fn(&Self) -> u64| {
            let sum: u64 = seen.iter().map(|(_, one)| of(one)).sum();
            (sum as f64 * part) as u64
        };
        let (cpu_ns, softirqd_ns) = (total(|one| one.cpu_ns), total(|one| one.softirqd_ns));
        let machine = seen.iter().map(|(_, one)| one.machine);
        Some(Self {
            cpu_ns,
            softirqd_ns,
            ticks: proc::CpuTicks {
                user: total(|one| one.ticks.user),
                system: total(|one| one.ticks.system),
            },
            cpu_share: share(cpu_ns + softirqd_ns, window_ns, cpus),
            voluntary_switches: total(|one| one.voluntary_switches),
            involuntary_switches: total(|one| one.involuntary_switches),
            samples: seen.len(),
            machine: machine
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().reduce(MachineUse::plus)),
            ..*last
        })
    }
}

fn slice_use(used: &WindowUse) -> SliceUse {
    SliceUse {
        cpu_ns: used.cost_ns(),
        switches: used.voluntary_switches + used.involuntary_switches,
        interrupts_ns: used.machine.map_or(0, |machine| machine.interrupts_ns),
        steal_ns: used.machine.map_or(0, |machine| machine.steal_ns),
    }
}

fn percentiles(latency: &Latency) -> Percentiles {
    Percentiles {
        count: latency.count,
        p50_ns: latency.p50_ns,
        p90_ns: latency.p90_ns,
        p99_ns: latency.p99_ns,
        p99_9_ns: latency.p99_9_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(at_ns: u64, cpu_ns: u64, switches: u64) -> Look {
        let server = ProcessSample {
            at_ns,
            cpu_ns,
            voluntary_switches: switches,
            involuntary_switches: switches / 10,
            rss_bytes: at_ns,
            ..ProcessSample::default()
        };
        let mut machine = MachineSample {
            at_ns,
            ..MachineSample::default()
        };
        machine.all.cpus = 2;
        machine.ksoftirqd.of_cpus_ns = cpu_ns / 10;
        Look {
            server,
            machine: Some(machine),
        }
    }

    #[test]
    fn what_was_used_between_two_looks_is_scaled_to_the_slice() {
        // The referee looked over 1,250 ns at a slice of 1,000 ns.
        let (start, end) = (look_at(1000, 500, 100), look_at(2250, 1500, 200));
        let both = used(&start, &end, 1000, 2);
        assert_eq!((both.cpu_ns, both.softirqd_ns), (800, 80));
        assert_eq!(both.cpu_share, 0.44, "of two CPUs");
        assert_eq!(
            (both.voluntary_switches, both.involuntary_switches),
            (80, 8)
        );
        assert_eq!((both.rss_bytes, both.samples), (2250, 1));
        assert_eq!(both.machine.unwrap().all_ns, 2500, "as it was seen");
        // A process of the tree has ended between the looks, and the looks are of one instant.
        let ended = used(&end, &start, 1000, 1);
        assert_eq!((ended.cpu_ns, ended.voluntary_switches), (0, 0));
    }

    #[test]
    fn slices_that_were_not_seen_are_taken_for_the_mean_of_the_others() {
        assert_eq!(WindowUse::sum(&[], 1000, 1), None);
        let of = |cpu_ns| {
            used(
                &look_at(0, 0, 0),
                &look_at(1000, cpu_ns, cpu_ns / 10),
                1000,
                1,
            )
        };
        let seen = [(1000, of(200)), (1000, of(400))];
        let all = WindowUse::sum(&seen, 2000, 1).unwrap();
        assert_eq!((all.cpu_ns, all.softirqd_ns, all.samples), (600, 60, 2));
        assert!((all.cpu_share - 0.33).abs() < 1e-9, "{all:?}");
        assert_eq!(all.machine.unwrap().all_ns, 4000);
        // A third slice was missed.
        let of_three = WindowUse::sum(&seen, 3000, 1).unwrap();
        assert_eq!((of_three.cpu_ns, of_three.voluntary_switches), (900, 90));
        assert!((of_three.cpu_share - 0.33).abs() < 1e-9, "{of_three:?}");
        // One whose machine was not seen leaves none for the whole.
        let mut blind = of(200);
        blind.machine = None;
        let some = WindowUse::sum(&[seen[0], (1000, blind)], 2000, 1).unwrap();
        assert_eq!((some.cpu_ns, some.machine), (400, None));
    }
}
