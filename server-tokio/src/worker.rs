//! Workers: what they share, what each owns, and the two ways to run them.

use std::cell::Cell;
use std::net::TcpListener;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context;
use server_core::counters::WorkerCounters;
use server_core::ebb::{self, Ebb};
use server_core::options::Settings;
use server_core::sweep::Verdict;
use server_core::workers::Shared;
use slab::Slab;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

use crate::fanout::{self, Seat};
use crate::link::{Link, Order};
use crate::listener;

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<Seat>,
    /// Becomes true once.
    pub(crate) draining: watch::Sender<bool>,
    /// An accept loop is out of descriptors and waits for `freed`.
    pub(crate) starving: AtomicBool,
    pub(crate) freed: Notify,
    /// How often the threads were asked to [`collect`](ebb::collect).
    collections: AtomicUsize,
}

thread_local! {
    /// How often this thread has been asked to collect, and has.
    static COLLECTED: Cell<usize> = const { Cell::new(0) };
}

impl Deref for Server {
    type Target = Shared<Seat>;

    fn deref(&self) -> &Shared<Seat> {
        &self.shared
    }
}

impl Server {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            shared: Shared::new(settings, "raise `ulimit -n` for more"),
            draining: watch::Sender::new(false),
            starving: AtomicBool::new(false),
            freed: Notify::new(),
            collections: AtomicUsize::new(0),
        }
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self) {
        self.note_drain();
        self.draining.send_replace(true);
    }

    /// What each thread of a runtime does before it sleeps: it collects if it was asked to.
    fn collector(self: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let server = Arc::clone(self);
        move || {
            let asked = server.collections.load(Ordering::Relaxed);
            if COLLECTED.replace(asked) != asked {
                ebb::collect();
            }
        }
    }

    /// Completes when the drain begins.
    pub(crate) async fn drain_begins(&self) {
        // An error would mean that the sender, which is a field of ours, is gone.
        let _ = self.draining.subscribe().wait_for(|begun| *begun).await;
    }
}

/// One worker: a share of the connections, with their fan-out, sweep and counters.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) server: Arc<Server>,
    /// Counts ticks of the sweep.
    tick: AtomicU32,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    links: Slab<Arc<Link>>,
    draining: bool,
}

/// Connections looked at while the lock of a worker's list is held.
const SWEEP_STRIDE: usize = 1024;

impl Worker {
    fn new(index: usize, server: &Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            index,
            server: Arc::clone(server),
            tick: AtomicU32::new(0),
            connections: Mutex::default(),
        })
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(self.index)
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Enters a connection into the list that the sweep and the drain go through; returns its
    /// place.
    pub(crate) fn register(&self, link: &Arc<Link>) -> u32 {
        let mut connections = self.lock();
        if connections.draining {
            link.order(Order::DRAIN);
        }
        // Places are indices of open connections: far fewer than 2^32.
        connections.links.insert(Arc::clone(link)) as u32
    }

    pub(crate) fn unregister(&self, place: u32) {
        self.lock().links.remove(place as usize);
        if self.server.starving.load(Ordering::Relaxed) {
            self.server.freed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sweeps until the drain begins, then tells every connection.
    async fn sweep(self: Arc<Self>) {
        let sweep = &self.server.sweep;
        let begin = Instant::now() + sweep.phase(self.index);
        let mut interval = tokio::time::interval_at(begin.into(), sweep.interval());
        let drain_begins = self.server.drain_begins();
        tokio::pin!(drain_begins);
        let mut ebb = Ebb::default();
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    let now = self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                    self.server.shortage.tick();
                    self.sweep_part(now).await;
                    if self.server.sweep.ends_round(now) {
                        self.give_memory_back(&mut ebb);
                    }
                }
                () = &mut drain_begins => break,
            }
        }
        let mut connections = self.lock();
        connections.draining = true;
        for (_, link) in &connections.links {
            link.order(Order::DRAIN);
        }
    }

    /// When most connections have left, or much traffic has ended.
    fn give_memory_back(&self, ebb: &mut Ebb) {
        let traffic = self.counters().traffic_bytes();
        let mut connections = self.lock();
        match ebb.step(connections.links.len(), traffic, Instant::now()) {
            ebb::Step::Keep => return,
            ebb::Step::Shrink => connections.links.shrink_to_fit(),
            ebb::Step::Collect => {}
        }
        self.server.collections.fetch_add(1, Ordering::Relaxed);
        // Wakes threads that sleep: each collects before it sleeps again.
        for _ in 0..self.server.settings.workers {
            tokio::spawn(async {});
        }
    }

    async fn sweep_part(&self, now: u32) {
        let sweep = &self.server.sweep;
        let (end, open) = {
            let connections = self.lock();
            (connections.links.capacity(), connections.links.len())
        };
        let mut places = sweep.places(now, end);
        let mut tick = sweep.tick(now, open);
        loop {
            {
                let connections = self.lock();
                for link in places
                    .by_ref()
                    .take(SWEEP_STRIDE)
                    .filter_map(|at| connections.links.get(at))
                {
                    match tick.verdict(link.phase(), &link.activity) {
                        Verdict::Keep => {}
                        Verdict::Ping => link.order(Order::PING),
                        Verdict::HandshakeTimeout => link.order(Order::REQUEST_TIMEOUT),
                        Verdict::IdleTimeout => link.order(Order::IDLE_TIMEOUT),
                    }
                }
            }
            if places.len() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The threads that run the workers.
pub(crate) enum Running {
    Multi(Runtime),
    PerCore,
}

impl Running {
    /// Lets go of the threads without waiting for what they still do.
    pub(crate) fn stop(self) {
        if let Self::Multi(runtime) = self {
            runtime.shutdown_background();
        }
    }
}

/// One work-stealing runtime. A worker is a share of the connections, not a thread: its tasks run
/// wherever there is time.
pub(crate) fn start_multi(
    server: &Arc<Server>,
    listeners: Vec<Vec<TcpListener>>,
) -> anyhow::Result<Running> {
    let settings = server.settings.clone();
    let started = AtomicUsize::new(0);
    let runtime = Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .thread_name("worker")
        .enable_all()
        .on_thread_start(move || {
            let index = started.fetch_add(1, Ordering::Relaxed);
            settings.pin_worker(index);
        })
        .on_thread_park(server.collector())
        .build()
        .context("cannot start the runtime")?;
    let workers: Arc<[_]> = (0..server.settings.workers)
        .map(|index| Worker::new(index, server))
        .collect();
    let _inside = runtime.enter();
    for worker in workers.iter() {
        runtime.spawn(Arc::clone(worker).sweep());
        runtime.spawn(fanout::run(Arc::clone(worker)));
    }
    for listener in listeners.into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(listener::accept(listener, Arc::clone(&workers)));
    }
    Ok(Running::Multi(runtime))
}

/// One single-threaded runtime per worker, each with listeners of its own.
pub(crate) fn start_per_core(
    server: &Arc<Server>,
    listeners: Vec<Vec<TcpListener>>,
) -> anyhow::Result<Running> {
    for (index, listeners) in listeners.into_iter().enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(server.collector())
            .build()
            .context("cannot start a runtime")?;
        let listeners: Vec<_> = {
            let _inside = runtime.enter();
            let each = listeners.into_iter().map(tokio::net::TcpListener::from_std);
            each.collect::<Result<_, _>>()?
        };
        let worker = Worker::new(index, server);
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                worker.server.settings.pin_worker(index);
                runtime.spawn(Arc::clone(&worker).sweep());
                runtime.spawn(fanout::run(Arc::clone(&worker)));
                let workers: Arc<[_]> = Arc::new([worker]);
                for listener in listeners {
                    runtime.spawn(listener::accept(listener, Arc::clone(&workers)));
                }
                runtime.block_on(std::future::pending::<()>());
            })
            .context("cannot start a worker")?;
    }
    Ok(Running::PerCore)
}
