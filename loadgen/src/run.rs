//! A run from the first connect to the record: threads are started, watched and merged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use uring_net::Ring;

use crate::{
    assemble::{Finished, Remains, assemble},
    config::Config,
    engine::{
        board::Board,
        broadcast::{Broadcast, BroadcastPlan},
        churn::Churn,
        echo::{Echo, EchoPlan},
        opening::Opener,
        shared::Shared,
        spread::{FinishedPart, Spreads},
        traffic::Traffic,
        usage::{pin, sharpen_timers},
        worker::{NO_CONNECTION, ThreadResult, Worker, WorkerPlan},
    },
    pacer::Pacer,
    payload::Payload,
    plan::Plan,
    progress::Progress,
    record::Kind,
    target::Target,
};

/// How often the run is looked after.
const LOOK: Duration = Duration::from_millis(20);
/// Between the last handshake and the load: every thread gets to know of it, and every room of its members.
const SETTLE_NS: u64 = 100_000_000;
/// Receive buffers of one thread, in all: fits the cache.
const BUFFER_BYTES: usize = 1 << 20;

/// What all threads of a run get.
#[derive(Debug, Clone)]
struct Common {
    config: Arc<Config>,
    plan: Arc<Plan>,
    targets: Arc<Vec<Target>>,
    shared: Arc<Shared>,
    board: Option<Arc<Board>>,
    published: Arc<AtomicU64>,
    nonce: u32,
}

/// Runs the load. `interrupted` ends it early; `progress` is shown while it lasts.
///
/// A run that fails still gives what it recorded: the verdict tells.
pub fn run(
    config: &Config,
    targets: Vec<Target>,
    plan: Plan,
    interrupted: &AtomicBool,
    mut progress: Progress,
) -> Finished {
    let epoch = SystemTime::now();
    let shared = Arc::new(Shared::new(
        plan.threads,
        config.warmup,
        config.duration,
        progress.is_shown(),
    ));
    if config.kind == Kind::Connect {
        shared.begin_at(shared.clock.now());
    }
    let publishers = config.traffic.publishers.unwrap_or(0) as usize;
    let closed_broadcast = publishers > 0 && config.traffic.rate_per_s.is_none();
    let common = Common {
        config: Arc::new(config.clone()),
        board: closed_broadcast
            .then(|| Arc::new(Board::new(plan.threads, publishers, config.traffic.window))),
        plan: Arc::new(plan),
        targets: Arc::new(targets),
        shared: shared.clone(),
        published: Arc::default(),
        nonce: rand::random(),
    };
    let (parts, finished_parts) = mpsc::channel();
    let threads: Vec<_> = (0..common.plan.threads)
        .map(|thread| spawn(thread, common.clone(), parts.clone()))
        .collect();
    drop(parts);
    let mut spreads = Spreads::new(common.plan.threads);
    let interrupted = watch(
        &common,
        &threads,
        &finished_parts,
        &mut spreads,
        interrupted,
        &mut progress,
    );
    let results = threads.into_iter().filter_map(collect).collect();
    finished_parts
        .try_iter()
        .flatten()
        .for_each(|part| spreads.add(part));
    progress.clear();
    assemble(Remains {
        config,
        plan: &common.plan,
        shared: &shared,
        epoch,
        interrupted,
        results,
        spreads: &spreads,
    })
}

type Thread = JoinHandle<Result<ThreadResult, String>>;

fn spawn(thread: usize, common: Common, parts: Sender<Vec<FinishedPart>>) -> Thread {
    thread::spawn(move || {
        let shared = common.shared.clone();
        let _guard = FailOnPanic(shared.clone());
        let result = thread_main(thread, common, parts);
        if let Err(cause) = &result {
            shared.fail(cause.clone());
        }
        result
    })
}

/// Without it the other threads would wait for the connections of one that has panicked.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .fail("a generator thread panicked: this is a bug of loadgen".into());
        }
    }
}

fn collect(thread: Thread) -> Option<ThreadResult> {
    // What went wrong is in `Shared` by now.
    thread.join().ok()?.ok()
}

/// Begins the load when all connections are up, ends it when there is no reason to go on. True when it was interrupted.
fn watch(
    common: &Common,
    threads: &[Thread],
    parts: &Receiver<Vec<FinishedPart>>,
    spreads: &mut Spreads,
    interrupted: &AtomicBool,
    progress: &mut Progress,
) -> bool {
    let shared = &common.shared;
    let connections = common.plan.connections as u64;
    let mut was_interrupted = false;
    while !threads.iter().all(JoinHandle::is_finished) {
        match parts.recv_timeout(LOOK) {
            Ok(finished) => finished.into_iter().for_each(|part| spreads.add(part)),
            Err(RecvTimeoutError::Timeout) => {}
            // All threads have dropped their ends: they are finishing.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
        }
        if !shared.has_begun() && shared.opened.load(Relaxed) == connections {
            shared.begin_at(shared.clock.now() + SETTLE_NS);
        }
        if interrupted.load(Relaxed) && !was_interrupted {
            // Too late to interrupt what is over.
            was_interrupted = shared.clock.now() < shared.times().to;
            shared.end_now();
        }
        let all_lost = shared.has_begun() && shared.up.load(Relaxed) == 0;
        if all_lost && common.config.kind != Kind::Connect && !shared.ended_early() {
            shared.end_now();
        }
        progress.show(shared, connections);
    }
    was_interrupted
}

fn thread_main(
    thread: usize,
    common: Common,
    parts: Sender<Vec<FinishedPart>>,
) -> Result<ThreadResult, String> {
    let Common { config, plan, .. } = &common;
    let cpu = (!config.cpus.is_empty()).then(|| config.cpus[thread % config.cpus.len()]);
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    sharpen_timers();
    let mut ring = make_ring(config.traffic.size as usize)?;
    if let Some(board) = &common.board {
        let waker = ring
            .waker(NO_CONNECTION)
            .map_err(|error| format!("cannot make an eventfd: {error}"))?;
        board.register(thread, waker);
    }
    let start = Start {
        thread,
        cpu,
        ring,
        common: &common,
    };
    let rate = config.traffic.rate_per_s;
    match config.kind {
        Kind::Connect => start.run(Churn),
        Kind::Echo | Kind::Idle => {
            let active = match config.kind {
                Kind::Idle => config.traffic.active_connections.unwrap_or(0) as usize,
                _ => plan.connections,
            };
            let streams = plan.count_of(active, thread);
            let mut payload = Payload::new(config.traffic.size as usize, common.nonce, false);
            if common.targets.iter().any(Target::is_tcp) {
                payload.leave_unmasked();
            }
            let echo = Echo::new(EchoPlan {
                payload,
                streams,
                thread,
                threads: plan.threads,
                window: config.traffic.window,
                pacer: rate.and_then(|rate| Pacer::new(rate, streams, active, thread)),
            });
            start.run(echo)
        }
        Kind::Broadcast => {
            let broadcast = Broadcast::new(BroadcastPlan {
                payload: Payload::new(config.traffic.size as usize, common.nonce, true),
                plan: plan.clone(),
                thread,
                window: config.traffic.window,
                publishers: config.traffic.publishers.unwrap_or(0) as usize,
                rate_per_s: rate,
                board: common.board.clone(),
                published: common.published.clone(),
                parts,
            });
            start.run(broadcast)
        }
    }
}

/// A thread that is ready to run.
struct Start<'a> {
    thread: usize,
    cpu: Option<usize>,
    ring: Ring,
    common: &'a Common,
}

impl Start<'_> {
    fn run<T: Traffic>(self, traffic: T) -> Result<ThreadResult, String> {
        let Common {
            config,
            plan,
            targets,
            shared,
            ..
        } = self.common;
        Worker::new(WorkerPlan {
            shared: shared.clone(),
            ring: self.ring,
            connections: plan.count(self.thread),
            opener: Opener::new(
                targets.clone(),
                plan.clone(),
                self.thread,
                config.connect_rate_per_s,
            ),
            traffic,
            open_loop: config.traffic.rate_per_s.is_some(),
            recycles: config.kind == Kind::Connect,
            drain_ns: config.drain_timeout.as_nanos() as u64,
            cpu: self.cpu,
            spin: config.spin,
        })
        .run()
    }
}

fn make_ring(size: usize) -> Result<Ring, String> {
    // A buffer that holds a whole message spares a copy; many small ones share a buffer anyway.
    let buffer = (size + 16).next_power_of_two().clamp(4 << 10, 64 << 10);
    let count = (BUFFER_BYTES / buffer).max(32);
    Ring::builder()
        .buffers(count as u16, buffer as u32)
        .build()
        .map_err(|error| error.to_string())
}
