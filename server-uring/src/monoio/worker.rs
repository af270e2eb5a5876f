//! Workers: what they share and what each owns.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use server_core::counters::WorkerCounters;
use server_core::memory_release::{self, IdleShrink};
use server_core::options::{ACCEPT_PAUSE, LINGER_TIMEOUT, Settings};
use server_core::sweep::IdleAction;
use server_core::task::Signals;
use server_core::unix::Handover;
use server_core::workers::Shared;
use slab::Slab;

use crate::monoio::buffers::BufferPool;
use crate::monoio::handle::{ConnectionHandle, HandleContext, MemberKey};
use crate::monoio::timer::Ticker;
use crate::monoio::wake::{Signal, WorkerWaker, wake_with_worker};

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<MemberKey>,
    /// One for each worker.
    wakers: Vec<Arc<WorkerWaker>>,
    /// Connections of Unix sockets.
    pub(crate) handover: Handover,
}

impl Deref for Server {
    type Target = Shared<MemberKey>;

    fn deref(&self) -> &Shared<MemberKey> {
        &self.shared
    }
}

impl Server {
    /// # Errors
    /// No descriptors for the drain or the workers' wakers.
    pub(crate) fn new(settings: Settings, listeners: &[Vec<TcpListener>]) -> io::Result<Self> {
        Ok(Self {
            wakers: (0..settings.workers)
                .map(WorkerWaker::new)
                .collect::<io::Result<_>>()?,
            handover: Handover::new(&settings),
            shared: Shared::new(settings, "raise `ulimit -n` for more", listeners)?,
        })
    }

    /// Gives a worker a connection that another thread has accepted.
    pub(crate) fn hand_over(&self, worker: usize, stream: UnixStream) {
        self.handover.put(worker, stream);
        self.wakers[worker].wake_worker();
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self) {
        self.shared.begin_drain();
        self.wakers.iter().for_each(|waker| waker.wake_worker());
    }
}

/// One worker: a thread with a ring and a share of the connections, with their fan-out, sweep and
/// counters.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) server: Arc<Server>,
    /// Large receive buffers.
    pub(crate) buffer_pool: BufferPool,
    pub(crate) handles: Rc<HandleContext>,
    serials: Cell<u32>,
    connections: RefCell<Slab<(u32, Rc<ConnectionHandle>)>>,
    draining: Cell<bool>,
    /// Listeners whose accept loops are out of descriptors and wait for `freed`.
    pub(crate) starving: Cell<usize>,
    pub(crate) freed: Signal,
    /// Reads as empty, at once.
    null: ::monoio::fs::File,
}

impl Worker {
    pub(crate) fn new(index: usize, server: &Arc<Server>) -> io::Result<Rc<Self>> {
        let null = std::fs::File::open("/dev/null")?;
        Ok(Rc::new(Self {
            index,
            server: Arc::clone(server),
            buffer_pool: BufferPool::default(),
            handles: HandleContext::new(Arc::clone(&server.counters), index),
            serials: Cell::new(0),
            connections: RefCell::default(),
            draining: Cell::new(false),
            starving: Cell::new(0),
            freed: Signal::new(),
            null: ::monoio::fs::File::from_std(null)?,
        }))
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(self.index)
    }

    pub(crate) fn tick(&self) -> u32 {
        self.handles.tick.get()
    }

    /// What others than this worker call to wake it.
    pub(crate) fn waker(&self) -> &Arc<WorkerWaker> {
        &self.server.wakers[self.index]
    }

    /// Enters a connection into the list that the sweep and the drain go through.
    pub(crate) fn register(&self, handle: &Rc<ConnectionHandle>) -> MemberKey {
        if self.draining.get() {
            handle.signal(Signals::DRAIN);
        }
        let serial = self.serials.get();
        self.serials.set(serial.wrapping_add(1));
        let slot = self
            .connections
            .borrow_mut()
            .insert((serial, Rc::clone(handle)));
        MemberKey {
            // Places are indices of open connections: far fewer than 2^32.
            slot: slot as u32,
            serial,
        }
    }

    pub(crate) fn unregister(&self, key: MemberKey) {
        self.connections.borrow_mut().remove(key.slot as usize);
        if self.starving.get() > 0 {
            self.freed.raise();
        }
    }

    /// The connection that got this key, unless it is gone.
    pub(crate) fn handle(&self, key: MemberKey) -> Option<Rc<ConnectionHandle>> {
        let connections = self.connections.borrow();
        let (serial, handle) = connections.get(key.slot as usize)?;
        (*serial == key.serial).then(|| Rc::clone(handle))
    }

    /// Lets all tasks that are runnable run, and then the ring: every operation that need not wait
    /// for a peer is complete afterwards. In place of a yield, which monoio would answer by running
    /// this task again and nothing else.
    pub(crate) async fn turn(&self) {
        // Queued behind the others, so that what they start is in the ring before the read below.
        ::monoio::spawn(async {}).await;
        let (_, _) = self.null.read_at(vec![0; 1], 0).await;
    }

    /// Waits for the drain, then tells every connection.
    pub(crate) async fn wait_for_drain(self: Rc<Self>) {
        poll_fn(|cx| {
            if self.server.is_draining() {
                return Poll::Ready(());
            }
            wake_with_worker(cx);
            Poll::Pending
        })
        .await;
        self.draining.set(true);
        for (_, (_, handle)) in self.connections.borrow().iter() {
            handle.signal(Signals::DRAIN);
        }
    }

    /// Sweeps until the worker ends.
    pub(crate) async fn sweep(self: Rc<Self>) -> io::Result<()> {
        let sweep = &self.server.sweep;
        let mut ticker = Ticker::every(sweep.interval(), sweep.phase(self.index))?;
        let mut memory_release = IdleShrink::default();
        loop {
            for _ in 0..ticker.tick().await? {
                let now = self.handles.tick.get().wrapping_add(1);
                self.handles.tick.set(now);
                if self.draining.get() {
                    continue;
                }
                self.server.shortage.tick();
                self.sweep_part(now);
                if self.server.sweep.ends_round(now) {
                    self.give_memory_back(&mut memory_release);
                }
            }
        }
    }

    /// When most connections have left, or much traffic has ended.
    fn give_memory_back(&self, memory_release: &mut IdleShrink) {
        let traffic = self.counters().traffic_bytes();
        let mut connections = self.connections.borrow_mut();
        match memory_release.step(connections.len(), traffic, Instant::now()) {
            memory_release::Step::Keep => return,
            memory_release::Step::Shrink => {
                connections.shrink_to_fit();
                self.handles.watched.borrow_mut().shrink_to_fit();
            }
            memory_release::Step::Collect => {}
        }
        self.buffer_pool.clear();
        memory_release::collect();
    }

    fn sweep_part(&self, now: u32) {
        let sweep = &self.server.sweep;
        let connections = self.connections.borrow();
        let slots = sweep.slots(now, connections.capacity());
        let mut tick = sweep.tick(now, connections.len());
        for (_, handle) in slots.filter_map(|slot| connections.get(slot)) {
            match tick.action(handle.phase(), &handle.activity) {
                IdleAction::Keep => {}
                IdleAction::Ping => handle.signal(Signals::PING),
                IdleAction::HandshakeTimeout => handle.signal(Signals::REQUEST_TIMEOUT),
                IdleAction::IdleTimeout => {
                    handle.signal(Signals::IDLE_TIMEOUT);
                    if handle.deadline().is_none() {
                        // The task sees no signal while it writes to a peer that does not read.
                        handle.limit(LINGER_TIMEOUT);
                    }
                }
            }
        }
    }

    /// Ends what is over its time, and gives the accept loops another try, every [`ACCEPT_PAUSE`].
    pub(crate) async fn watch_time(self: Rc<Self>) -> io::Result<()> {
        let mut ticker = Ticker::every(ACCEPT_PAUSE, Duration::ZERO)?;
        loop {
            ticker.tick().await?;
            self.freed.raise();
            if self.handles.watched.borrow().is_empty() {
                continue;
            }
            let now = Instant::now();
            self.handles.watched.borrow_mut().retain(|handle| {
                let Some(handle) = handle.upgrade() else {
                    return false;
                };
                let over = handle.deadline().is_some_and(|deadline| deadline <= now);
                if over {
                    handle.expire();
                }
                !over
            });
        }
    }
}
