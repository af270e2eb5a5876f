//! Workers: what they share and what each owns.

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use server_core::counters::WorkerCounters;
use server_core::memory_release::{self, IdleShrink};
use server_core::options::Settings;
use server_core::sweep::IdleAction;
use server_core::task::Signals;
use server_core::workers::Shared;
use slab::Slab;
use tokio::sync::{Notify, watch};

use crate::handle::ConnectionHandle;
use crate::scratch::free_scratch;

/// Called once by each thread of a runtime, before it serves: it is the thread `index` of all.
pub(crate) fn enter_thread(index: usize) {
    THREAD.set(index);
}

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<Arc<ConnectionHandle>>,
    /// Becomes true once.
    pub(crate) draining: watch::Sender<bool>,
    /// An accept loop is out of descriptors and waits for `freed`.
    pub(crate) starving: AtomicBool,
    pub(crate) freed: Notify,
    /// How often the threads were asked to [`collect`](memory_release::collect).
    collections: AtomicUsize,
}

thread_local! {
    /// Which of the counters are this thread's: tasks of a work-stealing runtime run on any thread,
    /// whichever worker's connection they serve, and counting costs less where no other thread
    /// counts.
    static THREAD: Cell<usize> = const { Cell::new(0) };
    /// How often this thread has been asked to collect, and has.
    static COLLECTED: Cell<usize> = const { Cell::new(0) };
}

impl Deref for Server {
    type Target = Shared<Arc<ConnectionHandle>>;

    fn deref(&self) -> &Self::Target {
        &self.shared
    }
}

impl Server {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        Ok(Self {
            // Its accept loops end, and their sockets with them.
            shared: Shared::new(settings, "raise `ulimit -n` for more", &[])?,
            draining: watch::Sender::new(false),
            starving: AtomicBool::new(false),
            freed: Notify::new(),
            collections: AtomicUsize::new(0),
        })
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self) {
        self.shared.begin_drain();
        self.draining.send_replace(true);
    }

    /// What each thread of a runtime does before it sleeps: it collects if it was asked to.
    pub(crate) fn collector(self: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let server = Arc::clone(self);
        move || {
            let asked = server.collections.load(Ordering::Relaxed);
            if COLLECTED.replace(asked) != asked {
                free_scratch();
                memory_release::collect();
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
    handles: Slab<Arc<ConnectionHandle>>,
    draining: bool,
}

/// Connections looked at while the lock of a worker's list is held.
const SWEEP_STRIDE: usize = 1024;

impl Worker {
    pub(crate) fn new(index: usize, server: &Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            index,
            server: Arc::clone(server),
            tick: AtomicU32::new(0),
            connections: Mutex::default(),
        })
    }

    /// Those of the thread that calls, of all the threads of a runtime.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(THREAD.get())
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Enters a connection into the list that the sweep and the drain go through; returns its
    /// place.
    pub(crate) fn register(&self, handle: &Arc<ConnectionHandle>) -> u32 {
        let mut connections = self.lock();
        if connections.draining {
            handle.signal(Signals::DRAIN);
        }
        // Places are indices of open connections: far fewer than 2^32.
        connections.handles.insert(Arc::clone(handle)) as u32
    }

    pub(crate) fn unregister(&self, slot: u32) {
        self.lock().handles.remove(slot as usize);
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
    pub(crate) async fn sweep(self: Arc<Self>) {
        let sweep = &self.server.sweep;
        let begin = Instant::now() + sweep.phase(self.index);
        let mut interval = tokio::time::interval_at(begin.into(), sweep.interval());
        let drain_begins = self.server.drain_begins();
        tokio::pin!(drain_begins);
        let mut memory_release = IdleShrink::default();
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    let now = self.tick.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                    self.server.shortage.tick();
                    self.sweep_part(now).await;
                    if self.server.sweep.ends_round(now) {
                        self.give_memory_back(&mut memory_release);
                    }
                }
                () = &mut drain_begins => break,
            }
        }
        let mut connections = self.lock();
        connections.draining = true;
        for (_, handle) in &connections.handles {
            handle.signal(Signals::DRAIN);
        }
    }

    /// When most connections have left, or much traffic has ended.
    fn give_memory_back(&self, memory_release: &mut IdleShrink) {
        let traffic = self.server.counters.worker(self.index).traffic_bytes();
        let mut connections = self.lock();
        match memory_release.step(connections.handles.len(), traffic, Instant::now()) {
            memory_release::Step::Keep => return,
            memory_release::Step::Shrink => connections.handles.shrink_to_fit(),
            memory_release::Step::Collect => {}
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
            (connections.handles.capacity(), connections.handles.len())
        };
        let mut slots = sweep.slots(now, end);
        let mut tick = sweep.tick(now, open);
        loop {
            {
                let connections = self.lock();
                for handle in slots
                    .by_ref()
                    .take(SWEEP_STRIDE)
                    .filter_map(|at| connections.handles.get(at))
                {
                    match tick.action(handle.phase(), &handle.activity) {
                        IdleAction::Keep => {}
                        IdleAction::Ping => handle.signal(Signals::PING),
                        IdleAction::HandshakeTimeout => handle.signal(Signals::REQUEST_TIMEOUT),
                        IdleAction::IdleTimeout => handle.signal(Signals::IDLE_TIMEOUT),
                    }
                }
            }
            if slots.len() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}
