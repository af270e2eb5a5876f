//! A shard: does its part of a run, reports to the process that started it, and ends with it.

use std::{
    io::{self, BufRead, StdinLock},
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
        signal::Signal,
    },
    unistd::getppid,
};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    engine::{
        shared::{Clock, ClosedSecond, Shared},
        usage::pin,
    },
    record::LoadKind,
    shard::protocol::{Command, Done, Gauges, Job, Report, tell},
    target,
    worker_pool::{WorkerPool, WorkerPoolPlan},
};

/// How often the threads are looked after, at least, and the parent hears how things stand. Fifty
/// shards take turns with what they look after.
const LOOK: Duration = Duration::from_millis(200);

/// The life of a shard.
pub fn main() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // The parent sees the end, and reads the cause where everybody does.
            eprintln!("error: shard: {cause}");
            ExitCode::from(2)
        }
    }
}

fn live() -> Result<(), String> {
    // When the parent is killed, its shards must not stay behind. Where the kernel cannot do
    // that, the end of the input does.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(c"loadgen-shard");
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, signalled.clone())
            .map_err(|error| format!("cannot catch signals: {error}"))?;
    }
    let job = read_job(&mut io::stdin().lock())?;
    if getppid().as_raw() as u32 != job.parent_pid {
        return Err("the process that started it is gone".into());
    }
    Shard::start(job, signalled)?.watch()
}

fn read_job(input: &mut StdinLock<'_>) -> Result<Job, String> {
    let mut line = String::new();
    let bytes = input
        .read_line(&mut line)
        .map_err(|error| format!("cannot read what to do: {error}"))?;
    if bytes == 0 {
        return Err("nobody said what to do: a shard is started by another loadgen".into());
    }
    serde_json::from_str(&line).map_err(|error| format!("cannot understand what to do: {error}"))
}

/// A shard at work.
struct Shard {
    shared: Arc<Shared>,
    pool: WorkerPool,
    connections: u64,
    seconds: Receiver<ClosedSecond>,
    signalled: Arc<AtomicBool>,
    reported: Reported,
}

/// What the parent knows already.
#[derive(Default)]
struct Reported {
    gauges: Option<Instant>,
    all_open: bool,
    failure: bool,
    signal: bool,
    stopped: bool,
}

impl Shard {
    fn start(job: Job, signalled: Arc<AtomicBool>) -> Result<Self, String> {
        let (config, plan) = (&job.config, &job.plan);
        let own = plan.threads_of(job.shard);
        if !config.cpus.is_empty() {
            // What looks after the threads stays off the server's CPUs too.
            pin(config.cpus[own.start % config.cpus.len()])?;
        }
        let targets = target::at(config, &job.addresses)?;
        let (feed, seconds) = mpsc::channel();
        let shared = Shared::new(own.len(), config.warmup, config.duration, false)
            .in_shard(Clock::since(job.epoch_ns), feed);
        let shared = Arc::new(shared);
        let published = Arc::new(AtomicU64::new(0));
        let (began, begun) = mpsc::channel();
        let commands = CommandReader {
            shared: shared.clone(),
            published: published.clone(),
            began,
        };
        thread::spawn(move || commands.run());
        if config.kind == LoadKind::Connect {
            // Such a run does nothing else but what it measures.
            let _ = begun.recv();
        }
        let pool = WorkerPool::start(WorkerPoolPlan {
            config,
            plan,
            own,
            targets,
            shared: &shared,
            nonce: job.nonce,
            published,
            reports: None,
        });
        Ok(Self {
            connections: plan.count_of_shard(job.shard) as u64,
            shared,
            pool,
            seconds,
            signalled,
            reported: Reported::default(),
        })
    }

    fn watch(mut self) -> Result<(), String> {
        let mut output = io::stdout().lock();
        let mut report = |what: Report| {
            tell(&mut output, &what).map_err(|error| format!("nobody listens: {error}"))
        };
        while !self.pool.is_finished() {
            match self.pool.parts.recv_timeout(LOOK) {
                Ok(parts) => report(Report::Parts(parts))?,
                Err(RecvTimeoutError::Timeout) => {}
                // All threads have dropped their ends: they are finishing.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
            }
            for news in self.news() {
                report(news)?;
            }
        }
        let last = self.news();
        let (results, parts) = self.pool.collect();
        for news in last.into_iter().chain([Report::Parts(parts)]) {
            report(news)?;
        }
        report(Report::Done(Box::new(Done {
            results,
            first_loss: self.shared.first_loss(),
            peak_rss_bytes: peak_rss_bytes(),
        })))
    }

    fn news(&mut self) -> Vec<Report> {
        let mut news = Vec::new();
        let (shared, reported) = (&self.shared, &mut self.reported);
        let all_open = shared.opened.load(Relaxed) == self.connections;
        let is_due = reported.gauges.is_none_or(|at| at.elapsed() >= LOOK);
        if is_due || (all_open && !reported.all_open) {
            reported.gauges = Some(Instant::now());
            reported.all_open = all_open;
            news.push(Report::Gauges(Gauges {
                up: shared.up.load(Relaxed),
                opened: shared.opened.load(Relaxed),
                sent: shared.sent.load(Relaxed),
                received: shared.received.load(Relaxed),
            }));
        }
        if !reported.failure
            && let Some(cause) = shared.failure()
        {
            reported.failure = true;
            news.push(Report::Failed(cause));
        }
        if self.signalled.load(Relaxed) && !reported.signal {
            reported.signal = true;
            news.push(Report::Signalled);
        }
        let seconds: Vec<ClosedSecond> = self.seconds.try_iter().collect();
        if !seconds.is_empty() {
            news.push(Report::Seconds(seconds));
        }
        if shared.own_threads_stopped() && !reported.stopped {
            reported.stopped = true;
            let published = self.pool.published.load(Relaxed);
            news.push(Report::Stopped { published });
        }
        news
    }
}

/// Reads what the parent asks for, and does it at once.
struct CommandReader {
    shared: Arc<Shared>,
    published: Arc<AtomicU64>,
    began: Sender<()>,
}

impl CommandReader {
    fn run(self) {
        for line in io::stdin().lock().lines() {
            let Ok(Ok(command)) = line.map(|line| serde_json::from_str(&line)) else {
                break;
            };
            match command {
                Command::Begin { at_ns } => self.shared.begin_at(at_ns),
                // What was sent before this was heard of belongs to the window.
                Command::End { at_ns } => self.shared.end_at(at_ns.max(self.shared.clock.now())),
                Command::AllStopped { published } => {
                    self.published.store(published, Relaxed);
                    self.shared.others_stopped();
                }
            }
            // Only the first is waited for.
            let _ = self.began.send(());
        }
        // The parent has exited or sent an invalid command.
        process::exit(1);
    }
}

fn peak_rss_bytes() -> u64 {
    // In kibibytes on Linux.
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss() as u64 * 1024)
}
