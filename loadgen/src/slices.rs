//! A run in slices: the connections stay up, and load runs when a command asks for it.
//!
//! The commands come one a line; a slice is done before the next line is looked at. Between slices
//! nothing is in flight and the threads sleep ([`pause`](crate::engine::pause)).

use std::{
    io::{BufRead, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime},
};

use units::parse_duration;

use crate::{
    assemble::{Interval, PartialResults, RunOutput, Window, assemble},
    config::Config,
    engine::{
        fan_out_timing::FanOutTiming,
        pause::{FromThread, Starter, ThreadSlice},
        shared::Shared,
    },
    histogram,
    plan::Plan,
    record::slice::{Line, Slice, Up},
    run::SETTLE_NS,
    target::Target,
    worker_pool::{WorkerPool, WorkerPoolPlan},
};

/// How often a slice is looked after ...
const LOOK: Duration = Duration::from_millis(20);
/// ... and a pause.
const PAUSED_LOOK: Duration = Duration::from_millis(100);
/// From a command to the begin of its slice: time for all threads to wake.
const WAKE_NS: u64 = 200_000;

/// A line of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Slice { settle: Duration, measure: Duration },
    Stop,
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["stop"] => Some(Self::Stop),
            ["slice", settle, measure] => {
                let measure = parse_duration(measure).ok()?;
                (!measure.is_zero()).then_some(Self::Slice {
                    settle: parse_duration(settle).ok()?,
                    measure,
                })
            }
            _ => None,
        }
    }
}

/// Runs the load as `commands` ask for it and writes a line per slice to `lines`. The run, and the
/// command that could not be understood, if that ended it: a sentence.
pub fn run(
    config: &Config,
    targets: Vec<Target>,
    plan: &Plan,
    interrupted: &AtomicBool,
    commands: impl BufRead + Send + 'static,
    lines: impl Write,
) -> (RunOutput, Option<String>) {
    let epoch = SystemTime::now();
    let shared = Shared::new(plan.threads, Duration::ZERO, Duration::ZERO, false);
    let shared = Arc::new(shared);
    let (sender, reports) = mpsc::channel();
    let pool = WorkerPool::start(WorkerPoolPlan {
        config,
        plan,
        own: 0..plan.threads,
        targets,
        shared: &shared,
        nonce: rand::random(),
        published: Arc::default(),
        reports: Some(sender),
    });
    let mut run = Run {
        plan,
        shared: &shared,
        epoch,
        interrupted,
        reports,
        pool: &pool,
        lines,
        config: Config {
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            ..config.clone()
        },
        timing: FanOutTiming::new(plan.threads),
        starters: Vec::new(),
        was_interrupted: false,
        window: Window::default(),
        intervals: Vec::new(),
    };
    let refused = run.conduct(&read(commands));
    let Run {
        config,
        mut timing,
        was_interrupted,
        window,
        intervals,
        ..
    } = run;
    let (results, parts) = pool.collect();
    parts.into_iter().for_each(|part| timing.add(part));
    let output = assemble(PartialResults {
        config: &config,
        plan,
        shared: &shared,
        epoch,
        interrupted: was_interrupted,
        results,
        timing: &timing,
        shards: Vec::new(),
        incomplete: false,
        window,
        slices: Some(intervals),
    });
    (output, refused)
}

/// The lines of the input, as they come. What cannot be read is no command.
fn read(commands: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in commands.lines() {
            let line = line.unwrap_or_else(|error| error.to_string());
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Run<'a, W> {
    plan: &'a Plan,
    shared: &'a Shared,
    epoch: SystemTime,
    interrupted: &'a AtomicBool,
    reports: Receiver<FromThread>,
    pool: &'a WorkerPool,
    lines: W,
    /// With the times of all slices as they were asked for, summed up.
    config: Config,
    timing: FanOutTiming,
    starters: Vec<Starter>,
    was_interrupted: bool,
    /// All slices so far.
    window: Window,
    intervals: Vec<Interval>,
}

impl<W: Write> Run<'_, W> {
    /// Until there is nothing more to do. The command that could not be understood, if there was
    /// one.
    fn conduct(&mut self, commands: &Receiver<String>) -> Option<String> {
        let refused = self.obey(commands);
        for starter in self.starters.drain(..) {
            starter.end();
        }
        refused
    }

    fn obey(&mut self, commands: &Receiver<String>) -> Option<String> {
        while self.starters.len() < self.plan.threads {
            if let Some(FromThread::Up(starter)) = self.report() {
                self.starters.push(starter);
            }
            if self.is_over() {
                return None;
            }
        }
        // Every room gets to know of its members.
        let not_before = self.shared.clock.now() + SETTLE_NS;
        let up = Line::Up(Up {
            connections: self.config.connections,
            threads: self.plan.threads as u64,
            pid: std::process::id(),
        });
        let mut is_heard = self.tell(&up);
        let mut number = 0;
        while is_heard && !self.is_over() {
            let line = match commands.recv_timeout(PAUSED_LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            number += 1;
            match Command::parse(&line) {
                Some(Command::Slice { settle, measure }) => {
                    is_heard = self.slice(not_before, settle, measure);
                }
                Some(Command::Stop) => return None,
                None => {
                    return Some(format!(
                        "line {number} of the input is no command: {line:?}; known are `slice SETTLE \
                         MEASURE` (`slice 20ms 50ms`) and `stop`"
                    ));
                }
            }
        }
        None
    }

    /// One slice. Whether there may be another one.
    fn slice(&mut self, not_before: u64, settle: Duration, measure: Duration) -> bool {
        self.config.warmup = self.config.warmup.saturating_add(settle);
        self.config.duration = self.config.duration.saturating_add(measure);
        let start = (self.shared.clock.now() + WAKE_NS).max(not_before);
        self.shared.begin_slice(start, settle, measure);
        self.starters.iter().for_each(Starter::start);
        let mut slices = Vec::new();
        while slices.len() < self.plan.threads {
            let is_finished = self.pool.is_finished();
            match self.report() {
                Some(FromThread::Paused(slice)) => slices.push(*slice),
                None if is_finished => break,
                Some(FromThread::Up(_)) | None => {}
            }
            for part in self.pool.parts.try_iter().flatten() {
                self.timing.add(part);
            }
            self.is_over();
        }
        let window = Window::of(&self.shared.times());
        if window.ns == 0 {
            return false;
        }
        self.window.add(&window);
        if slices.len() < self.plan.threads {
            return false;
        }
        let is_drained = slices.iter().all(|slice| slice.drained);
        let line = self.line(slices, measure, window);
        self.tell(&Line::Slice(Box::new(line))) && is_drained
    }

    fn line(&mut self, slices: Vec<ThreadSlice>, measure: Duration, window: Window) -> Slice {
        let paused = slices.iter().map(|slice| slice.paused_at).max();
        let output = assemble(PartialResults {
            config: &Config {
                duration: measure,
                ..self.config.clone()
            },
            plan: self.plan,
            shared: self.shared,
            epoch: self.epoch,
            interrupted: false,
            results: slices.into_iter().map(|slice| slice.result).collect(),
            timing: &FanOutTiming::new(self.plan.threads),
            shards: Vec::new(),
            incomplete: false,
            window,
            slices: None,
        });
        self.intervals.push(Interval {
            start_ns: window.from - self.window.from,
            length_ns: window.ns,
            latencies: histogram::pack(&output.main),
        });
        let (clock, record) = (self.shared.clock, output.record);
        Slice {
            number: self.intervals.len() as u64,
            from_ns: clock.monotonic(window.from),
            to_ns: clock.monotonic(window.to),
            paused_ns: clock.monotonic(paused.unwrap_or(window.to)),
            connections_up: self.shared.up.load(Relaxed),
            messages: record.messages,
            replies: output.replies,
            latency_intended: record.latency_intended,
            latency_actual: record.latency_actual,
            latency_others: record.latency_others,
            schedule_lag: record.generator.schedule_lag,
            cpu_user_ns: record.generator.cpu_user_ns,
            cpu_sys_ns: record.generator.cpu_sys_ns,
            busiest_share: record.generator.busiest_share(),
            longest_stall_ns: record.generator.longest_stall_ns(),
            in_flight: record.littles_law,
        }
    }

    /// What a thread has to say within [`LOOK`].
    fn report(&self) -> Option<FromThread> {
        match self.reports.recv_timeout(LOOK) {
            Ok(report) => Some(report),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // They are finishing.
                thread::sleep(Duration::from_millis(1));
                None
            }
        }
    }

    /// Whether the run was interrupted, failed or lost its connections: then no load goes on.
    fn is_over(&mut self) -> bool {
        if self.interrupted.load(Relaxed) {
            self.was_interrupted = true;
        }
        let all_lost =
            self.starters.len() == self.plan.threads && self.shared.up.load(Relaxed) == 0;
        if self.was_interrupted || all_lost {
            self.shared.end_now();
        }
        self.shared.ended_early()
    }

    /// Writes a line; whether anybody reads.
    fn tell(&mut self, line: &Line) -> bool {
        let Ok(mut text) = serde_json::to_vec(line) else {
            return false;
        };
        text.push(b'\n');
        self.lines
            .write_all(&text)
            .and_then(|()| self.lines.flush())
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let ms = Duration::from_millis;
        let slice = |settle, measure| {
            Some(Command::Slice {
                settle: ms(settle),
                measure: ms(measure),
            })
        };
        for (line, expected) in [
            ("slice 20ms 50ms", slice(20, 50)),
            (" slice  0 1s\r", slice(0, 1_000)),
            ("stop", Some(Command::Stop)),
            ("slice 20ms", None),
            ("slice 20ms 0", None),
            ("slice 20 50x", None),
            ("stop now", None),
            ("", None),
        ] {
            assert_eq!(Command::parse(line), expected, "{line:?}");
        }
    }
}
