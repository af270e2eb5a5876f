//! The first process of a run of several: starts the shards, gives the phases, shows the progress,
//! merges.

use std::{
    io::{self, BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{self, Child, ChildStdin, ChildStdout, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;

use crate::{
    assemble::{PartialResults, RunOutput, Window, assemble},
    config::Config,
    engine::{
        fan_out_timing::FanOutTiming,
        shared::{Clock, Shared, monotonic_ns},
        worker::ThreadResult,
    },
    plan::Plan,
    progress::Progress,
    record::{self, LoadKind},
    run::SETTLE_NS,
    shard::{
        merge::PartialResult,
        protocol::{Command, Done, Gauges, Job, Report, tell},
    },
    target::Target,
};

/// How often the run is looked after when no shard has anything to say.
const LOOK: Duration = Duration::from_millis(20);
/// Further settling time per shard: each has to get to know of the begin.
const SETTLE_EACH_NS: u64 = 10_000_000;
/// A shard that says nothing for this long hangs; it has something to say several times per second.
const SILENCE: Duration = Duration::from_secs(30);
/// This program, also when its file has been replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Runs the load in the processes of `plan`. `interrupted` ends it early; `progress` is shown while
/// it lasts.
///
/// A run that fails, or loses a shard, still gives what it recorded: the verdict tells. The kernel
/// ends the shards when the calling thread ends, so it should be the main one.
pub fn run(
    config: &Config,
    targets: &[Target],
    plan: &Plan,
    interrupted: &AtomicBool,
    mut progress: Progress,
) -> RunOutput {
    let epoch = SystemTime::now();
    let epoch_ns = monotonic_ns();
    let mut shared = Shared::new(
        plan.threads,
        config.warmup,
        config.duration,
        progress.is_shown(),
    );
    shared.clock = Clock::since(epoch_ns);
    let (sender, reports) = mpsc::channel();
    let mut shards = Shards {
        config,
        plan,
        shared: &shared,
        shards: Vec::new(),
        timing: FanOutTiming::new(plan.threads),
        ended: false,
        all_stopped: false,
        signalled: None,
    };
    let job = Job {
        shard: 0,
        parent_pid: std::process::id(),
        config: config.clone(),
        plan: plan.clone(),
        addresses: targets
            .iter()
            .map(|target| target.address.clone())
            .collect(),
        epoch_ns,
        nonce: rand::random(),
    };
    shards.start(job, sender);
    let was_interrupted = shards.watch(&reports, interrupted, &mut progress);
    progress.clear();
    shards.into_finished(epoch, was_interrupted)
}

/// What comes from a shard's reader.
enum News {
    Report(Report),
    /// Its output is at its end; why, if there is more to say.
    Gone(Option<String>),
}

/// One shard, as the first process sees it.
struct Shard {
    process: Child,
    /// Until it is gone.
    commands: Option<ChildStdin>,
    connections: u64,
    threads: u64,
    heard: Instant,
    gauges: Gauges,
    partial: PartialResult,
    published: Option<u64>,
    done: Option<Done>,
}

impl Shard {
    fn command(&mut self, command: Command) {
        if let Some(commands) = &mut self.commands {
            // A shard that is gone says so by the end of its output.
            let _ = tell(commands, &command);
        }
    }

    fn is_gone(&self) -> bool {
        self.commands.is_none()
    }
}

/// All shards of a run.
struct Shards<'a> {
    config: &'a Config,
    plan: &'a Plan,
    shared: &'a Shared,
    shards: Vec<Shard>,
    timing: FanOutTiming,
    /// They know that the load ends early.
    ended: bool,
    /// They know that all have stopped sending.
    all_stopped: bool,
    /// The one that a signal told to end.
    signalled: Option<String>,
}

impl Shards<'_> {
    fn start(&mut self, mut job: Job, news: Sender<(usize, News)>) {
        for number in 0..self.plan.shards {
            job.shard = number;
            match self.start_one(&job, &news) {
                Ok(shard) => self.shards.push(shard),
                Err(error) => {
                    let cause = format!(
                        "cannot start shard {} of {}: {error} (RLIMIT_NPROC, memory?)",
                        number + 1,
                        self.plan.shards
                    );
                    return self.shared.fail(cause);
                }
            }
        }
        if self.config.kind == LoadKind::Connect {
            self.begin();
        }
    }

    fn start_one(&self, job: &Job, news: &Sender<(usize, News)>) -> io::Result<Shard> {
        let mut process = process::Command::new(THIS_PROGRAM)
            .arg0("loadgen")
            .arg("shard")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("it has no pipes");
        let mut commands = process.stdin.take().ok_or_else(missing)?;
        let output = process.stdout.take().ok_or_else(missing)?;
        let (number, news) = (job.shard, news.clone());
        thread::Builder::new().spawn(move || read(number, output, &news))?;
        // Should it be dead already, the reader says so.
        let _ = tell(&mut commands, job);
        Ok(Shard {
            process,
            commands: Some(commands),
            connections: self.plan.count_of_shard(number) as u64,
            threads: self.plan.threads_of(number).len() as u64,
            heard: Instant::now(),
            gauges: Gauges::default(),
            partial: PartialResult::default(),
            published: None,
            done: None,
        })
    }

    fn command_all(&mut self, command: Command) {
        self.shards
            .iter_mut()
            .for_each(|shard| shard.command(command));
    }

    fn begin(&mut self) {
        let at_ns = self.shared.clock.now() + SETTLE_NS + SETTLE_EACH_NS * self.plan.shards as u64;
        self.shared.begin_at(at_ns);
        self.command_all(Command::Begin { at_ns });
    }

    /// Until all shards are gone. True when the run was interrupted.
    fn watch(
        &mut self,
        news: &Receiver<(usize, News)>,
        interrupted: &AtomicBool,
        progress: &mut Progress,
    ) -> bool {
        let mut was_interrupted = false;
        while !self.shards.iter().all(Shard::is_gone) {
            match news.recv_timeout(LOOK) {
                Ok((number, news)) => self.take(number, news),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.end_the_silent();
                }
            }
            let (by_us, by_shard) = (interrupted.load(Relaxed), self.signalled.is_some());
            if by_us && !was_interrupted {
                // Too late to interrupt what is over; but a terminal tells all of us, in any order.
                was_interrupted = by_shard || self.shared.clock.now() < self.shared.times().to;
            }
            if by_us || by_shard {
                self.shared.end_now();
            }
            self.conduct();
            progress.show(self.shared, self.config.connections);
        }
        was_interrupted
    }

    /// Gives the phases.
    fn conduct(&mut self) {
        let sum =
            |gauge: fn(&Gauges) -> u64| self.shards.iter().map(|shard| gauge(&shard.gauges)).sum();
        let shared = self.shared;
        shared.up.store(sum(|gauges| gauges.up), Relaxed);
        shared.opened.store(sum(|gauges| gauges.opened), Relaxed);
        shared.sent.store(sum(|gauges| gauges.sent), Relaxed);
        shared
            .received
            .store(sum(|gauges| gauges.received), Relaxed);
        if !shared.has_begun() && shared.opened.load(Relaxed) == self.config.connections {
            self.begin();
        }
        let all_lost = shared.has_begun() && shared.up.load(Relaxed) == 0;
        if all_lost && self.config.kind != LoadKind::Connect {
            shared.end_now();
        }
        if shared.ended_early() && !self.ended {
            self.ended = true;
            let at_ns = shared.times().to.min(shared.clock.now());
            self.command_all(Command::End { at_ns });
        }
        let has_stopped = |shard: &Shard| shard.published.is_some() || shard.is_gone();
        if !self.all_stopped && self.shards.iter().all(has_stopped) {
            self.all_stopped = true;
            let published = self.shards.iter().filter_map(|shard| shard.published).sum();
            self.command_all(Command::AllStopped { published });
        }
    }

    fn take(&mut self, number: usize, news: News) {
        let shard = &mut self.shards[number];
        shard.heard = Instant::now();
        match news {
            News::Report(Report::Gauges(gauges)) => shard.gauges = gauges,
            News::Report(Report::Failed(cause)) => self.shared.fail(cause),
            News::Report(Report::Signalled) => {
                self.signalled = Some(self.say(number, "was told to end (SIGINT or SIGTERM)"));
            }
            News::Report(Report::Seconds(seconds)) => {
                for second in seconds {
                    self.shared.show(&shard.partial.add(second));
                }
            }
            News::Report(Report::Parts(parts)) => {
                parts.into_iter().for_each(|part| self.timing.add(part));
            }
            News::Report(Report::Stopped { published }) => shard.published = Some(published),
            News::Report(Report::Done(done)) => {
                if let Some(cause) = done.first_loss.clone() {
                    self.shared.lost(cause);
                }
                shard.done = Some(*done);
            }
            News::Gone(cause) => self.gone(number, cause),
        }
    }

    fn gone(&mut self, number: usize, cause: Option<String>) {
        let shard = &mut self.shards[number];
        shard.commands = None;
        if cause.is_some() {
            // It may not know itself.
            let _ = shard.process.kill();
        }
        let status = shard.process.wait();
        if shard.done.is_some() {
            return;
        }
        shard.gauges.up = 0;
        let how = match (cause, status) {
            (Some(cause), _) => cause,
            (None, Ok(status)) => ending(status),
            (None, Err(error)) => format!("is gone ({error})"),
        };
        let cause = self.say(number, &how);
        self.shared.lost("their shard died".into());
        self.shared.fail(cause);
    }

    fn end_the_silent(&mut self) {
        for shard in &mut self.shards {
            if !shard.is_gone() && shard.heard.elapsed() > SILENCE {
                // Its reader sees the end.
                let _ = shard.process.kill();
            }
        }
    }

    fn say(&self, number: usize, how: &str) -> String {
        let shard = &self.shards[number];
        format!(
            "shard {} of {} (pid {}, {} connections) {how}",
            number + 1,
            self.plan.shards,
            shard.process.id(),
            shard.connections
        )
    }

    fn into_finished(self, epoch: SystemTime, interrupted: bool) -> RunOutput {
        if let Some(cause) = self.signalled
            && !interrupted
        {
            self.shared.fail(cause);
        }
        let times = self.shared.times();
        let open_loop = self.config.traffic.rate_per_s.is_some();
        let mut results = Vec::new();
        let mut shards = Vec::new();
        let mut incomplete = false;
        for shard in self.shards {
            let (own, peak_rss_bytes) = match shard.done {
                Some(done) => (done.results, done.peak_rss_bytes),
                None => {
                    incomplete = true;
                    let result = shard.partial.into_result(
                        shard.connections,
                        shard.gauges,
                        &times,
                        open_loop,
                    );
                    (vec![result], 0)
                }
            };
            let sum = |count: fn(&ThreadResult) -> u64| own.iter().map(count).sum();
            shards.push(record::Shard {
                pid: shard.process.id(),
                connections: shard.connections,
                up: sum(|result| result.outcome.up),
                threads: shard.threads,
                cpu_user_ns: sum(|result| result.usage.cpu_user_ns),
                cpu_sys_ns: sum(|result| result.usage.cpu_sys_ns),
                peak_rss_bytes,
            });
            results.extend(own);
        }
        assemble(PartialResults {
            config: self.config,
            plan: self.plan,
            shared: self.shared,
            epoch,
            interrupted,
            results,
            timing: &self.timing,
            shards,
            incomplete,
            window: Window::of(&times),
            slices: None,
        })
    }
}

fn read(number: usize, output: ChildStdout, news: &Sender<(usize, News)>) {
    let mut cause = None;
    for line in BufReader::new(output).lines() {
        let report = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()));
        match report {
            Ok(report) => {
                let _ = news.send((number, News::Report(report)));
            }
            Err(error) => {
                cause = Some(format!("said what cannot be understood: {error}"));
                break;
            }
        }
    }
    let _ = news.send((number, News::Gone(cause)));
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            let hint = if signal == Signal::SIGKILL as i32 {
                " (for want of memory? the kernel's log says so)"
            } else {
                ""
            };
            format!("was killed by {name}{hint}")
        }
        (None, Some(code)) => format!("ended with exit code {code} before its work was done"),
        (None, None) => format!("ended: {status}"),
    }
}
