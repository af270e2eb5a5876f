//! The threads of one process: started, watched, collected.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::AtomicU64,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use uring_net::{KernelVersion, MAX_DIRECT_SLOTS, Ring};
use ws_proto::MAX_HEADER_BYTES;

use crate::{
    config::Config,
    deal::Deal,
    engine::{
        bounds::Bounds,
        broadcast::{Broadcast, BroadcastPlan},
        delivery_tracker::DeliveryTracker,
        echo::{Echo, EchoPlan},
        fan_out_timing::FinishedPart,
        opening::Opener,
        pause::{FromThread, Pause, waker},
        reconnect_loop::{ReconnectLoop, ReconnectPlan},
        shared::Shared,
        traffic::Traffic,
        usage::{pin, sharpen_timers},
        worker::{ThreadResult, Worker, WorkerPlan},
    },
    pacer::Pacer,
    payload::Payload,
    plan::Plan,
    record::LoadKind,
    target::Target,
};

/// Receive buffers of one thread, in all: fits the cache, together with what is sent ...
const BUFFER_BYTES: usize = 512 << 10;
/// ... and of all threads: a thread of fifty gets its turn on a core too seldom to need so much.
const ALL_BUFFERS_BYTES: usize = 16 << 20;
/// The smallest buffer, the largest that several replies of a window share, and the largest: a
/// message of 128 KiB with its header.
const LEAST_BUFFER: usize = 4 << 10;
const MOST_SHARED_BUFFER: usize = 64 << 10;
const MOST_BUFFER: usize = 130 << 10;
/// Buffers of a thread, at least. Receives that find none wait for the next turn.
const LEAST_BUFFERS: usize = 4;
const CACHE_LINE: usize = 64;
/// Completions of all threads together, and of one at least.
const ALL_COMPLETIONS: usize = 131_072;
const COMPLETIONS: Range<usize> = 2_048..16_384;

/// The threads of one process.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    threads: Vec<Thread>,
    /// What they have found out of broadcast messages.
    pub(crate) parts: Receiver<Vec<FinishedPart>>,
    /// Messages that they have broadcast.
    pub(crate) published: Arc<AtomicU64>,
}

/// What [`WorkerPool::start`] needs to know.
#[derive(Debug)]
pub(crate) struct WorkerPoolPlan<'a> {
    pub(crate) config: &'a Config,
    pub(crate) plan: &'a Plan,
    /// Which of the plan's threads.
    pub(crate) own: Range<usize>,
    pub(crate) targets: Vec<Target>,
    pub(crate) shared: &'a Arc<Shared>,
    /// Marks the messages of a run.
    pub(crate) nonce: u32,
    /// Counts messages broadcast.
    pub(crate) published: Arc<AtomicU64>,
    /// A run in slices: where the threads report.
    pub(crate) reports: Option<Sender<FromThread>>,
}

/// What all threads of a process get.
#[derive(Debug, Clone)]
struct Common {
    config: Arc<Config>,
    plan: Arc<Plan>,
    targets: Arc<Vec<Target>>,
    shared: Arc<Shared>,
    tracker: Option<Arc<DeliveryTracker>>,
    published: Arc<AtomicU64>,
    nonce: u32,
    reports: Option<Sender<FromThread>>,
}

impl WorkerPool {
    /// Starts the threads.
    pub(crate) fn start(start: WorkerPoolPlan<'_>) -> Self {
        let WorkerPoolPlan {
            config,
            plan,
            own,
            targets,
            shared,
            nonce,
            published,
            reports,
        } = start;
        let publishers = config.traffic.publishers.unwrap_or(0) as usize;
        let closed_broadcast = publishers > 0 && config.traffic.rate_per_s.is_none();
        let common = Common {
            config: Arc::new(config.clone()),
            tracker: closed_broadcast.then(|| {
                Arc::new(DeliveryTracker::new(
                    plan.threads,
                    publishers,
                    config.traffic.window,
                ))
            }),
            plan: Arc::new(plan.clone()),
            targets: Arc::new(targets),
            shared: shared.clone(),
            published,
            nonce,
            reports,
        };
        let (sender, parts) = mpsc::channel();
        let threads = own
            .map(|thread| spawn(thread, common.clone(), sender.clone()))
            .collect();
        Self {
            threads,
            parts,
            published: common.published,
        }
    }

    /// All threads have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What the threads measured, when they have ended, and the last parts.
    pub(crate) fn collect(self) -> (Vec<ThreadResult>, Vec<FinishedPart>) {
        let results = self.threads.into_iter().filter_map(collect).collect();
        (results, self.parts.try_iter().flatten().collect())
    }
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
    let mut ring = make_ring(config, plan.threads, plan.count(thread))?;
    if let Some(tracker) = &common.tracker {
        tracker.register(thread, waker(&mut ring)?);
    }
    let pause = match &common.reports {
        Some(reports) => Some(Pause::new(&mut ring, reports.clone())?),
        None => None,
    };
    let start = Start {
        thread,
        cpu,
        ring,
        pause,
        common: &common,
    };
    let rate = config.traffic.rate_per_s;
    match config.kind {
        LoadKind::Connect => start.run(ReconnectLoop::new(ReconnectPlan {
            payload: Payload::new(config.traffic.size as usize, common.nonce, false),
            messages: config.traffic.messages,
            places: plan.count(thread),
            thread,
            threads: plan.threads,
            open_loop: rate.is_some(),
        })),
        LoadKind::Echo | LoadKind::Idle => {
            let active = match config.kind {
                LoadKind::Idle => config.traffic.active_connections.unwrap_or(0) as usize,
                _ => plan.connections,
            };
            let streams = busy(config, plan, thread);
            let hot = hot(config, plan, thread);
            let payload = |size: u64| {
                let mut payload = Payload::new(size as usize, common.nonce, false);
                payload.split(config.traffic.fragments as usize);
                if common.targets.iter().any(Target::is_tcp) {
                    payload.leave_unmasked();
                }
                payload
            };
            let deal = config.traffic.hot.map(|all| {
                Deal::new(
                    all.share_millionths,
                    [all.connections, config.connections - all.connections],
                    [hot, streams - hot],
                )
            });
            let echo = Echo::new(EchoPlan {
                payload: payload(config.traffic.size),
                hot_payload: config.traffic.hot_size().map(payload),
                streams,
                thread,
                threads: plan.threads,
                window: config.traffic.window,
                pacer: rate.and_then(|rate| match &deal {
                    Some(deal) => deal.pacer(rate, thread),
                    None => Pacer::new(rate, streams, active, thread),
                }),
                deal,
            });
            start.run(echo)
        }
        LoadKind::Broadcast => {
            let broadcast = Broadcast::new(BroadcastPlan {
                payload: Payload::new(config.traffic.size as usize, common.nonce, true),
                plan: plan.clone(),
                thread,
                window: config.traffic.window,
                publishers: config.traffic.publishers.unwrap_or(0) as usize,
                rate_per_s: rate,
                tracker: common.tracker.clone(),
                published: common.published.clone(),
                parts,
            });
            start.run(broadcast)
        }
    }
}

/// How many connections of a thread, its first ones, have traffic.
fn busy(config: &Config, plan: &Plan, thread: usize) -> usize {
    match config.kind {
        LoadKind::Idle => {
            let active = config.traffic.active_connections.unwrap_or(0);
            plan.count_of(active as usize, thread)
        }
        LoadKind::Echo | LoadKind::Broadcast | LoadKind::Connect => plan.count(thread),
    }
}

/// Connections begun per second in an open loop.
fn arrivals_per_s(config: &Config) -> Option<f64> {
    let rate = config.traffic.rate_per_s;
    rate.filter(|_| config.kind == LoadKind::Connect)
}

/// How many connections of a thread, its first ones, are hot.
fn hot(config: &Config, plan: &Plan, thread: usize) -> usize {
    let all = config.traffic.hot.map_or(0, |hot| hot.connections);
    plan.count_of(all as usize, thread)
}

fn bounds(config: &Config) -> Bounds {
    let traffic = &config.traffic;
    match traffic.publishers {
        Some(publishers) if traffic.rate_per_s.is_some() => {
            Bounds::scheduled(config.connections, publishers, traffic.size)
        }
        _ => Bounds::new(
            config.connections,
            traffic.window,
            traffic.largest_size(),
            traffic.fragments,
        ),
    }
}

/// A thread that is ready to run.
struct Start<'a> {
    thread: usize,
    cpu: Option<usize>,
    ring: Ring,
    pause: Option<Pause>,
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
            bounds: bounds(config),
            opener: Opener::new(
                targets.clone(),
                plan.clone(),
                self.thread,
                busy(config, plan, self.thread),
                hot(config, plan, self.thread),
                config.connect_rate_per_s,
            )
            .on_schedule(arrivals_per_s(config)),
            traffic,
            size: config.traffic.mean_size() as usize,
            open_loop: config.traffic.rate_per_s.is_some(),
            recycles: config.kind == LoadKind::Connect,
            drain_ns: config.drain_timeout.as_nanos() as u64,
            cpu: self.cpu,
            spin: config.spin,
            pause: self.pause,
        })
        .run()
    }
}

/// The ring of one thread of `threads`, and for its connections. They live in its own table, where
/// a monitor that lists the descriptors of all processes finds none (one took a quarter of two CPUs
/// at a million).
fn make_ring(config: &Config, threads: usize, connections: usize) -> Result<Ring, String> {
    let buffer = buffer_bytes(config.traffic.largest_size(), config.traffic.window);
    // The ring takes the next power of two.
    let count = (BUFFER_BYTES.min(ALL_BUFFERS_BYTES / threads) / buffer).max(LEAST_BUFFERS);
    let completions = (ALL_COMPLETIONS / threads).clamp(COMPLETIONS.start, COMPLETIONS.end);
    Ring::builder()
        .buffers(count as u16, buffer as u32)
        .cq_entries(completions as u32)
        .direct_adopted(slots(connections))
        .build()
        .map_err(|error| error.to_string())
}

/// Bytes of a receive buffer: a reply that is whole in it is compared where it lies, in one piece.
fn buffer_bytes(size: u64, window: u64) -> usize {
    let reply = (size as usize).saturating_add(MAX_HEADER_BYTES);
    let replies = reply.saturating_mul(window as usize);
    let bytes = replies.min(MOST_SHARED_BUFFER).max(reply.min(MOST_BUFFER));
    bytes.max(LEAST_BUFFER).next_multiple_of(CACHE_LINE)
}

/// Where the kernel has no such tables, or none so large, connections have descriptors: the same,
/// seen from the server.
fn slots(connections: usize) -> u32 {
    let can = KernelVersion::running().is_some_and(|version| version >= KernelVersion::DIRECT);
    match u32::try_from(connections) {
        Ok(slots @ ..=MAX_DIRECT_SLOTS) if can => slots,
        _ => 0,
    }
}
