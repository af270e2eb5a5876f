//! Workers: what they share, what each owns, and the thread that runs it.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::net::TcpListener;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{io, process};

use anyhow::Context;
use server_core::counters::WorkerCounters;
use server_core::ebb::{self, Ebb};
use server_core::options::{ACCEPT_PAUSE, LINGER_TIMEOUT, Settings};
use server_core::sweep::Verdict;
use server_core::workers::{self, Drain, Report, Shared};
use slab::Slab;

use crate::monoio::buffers::Spares;
use crate::monoio::fanout::{self, Seat};
use crate::monoio::link::{Link, Order};
use crate::monoio::listener::Listener;
use crate::monoio::ring::SQ_ENTRIES;
use crate::monoio::timer::Ticker;
use crate::monoio::wake::{Bell, Signal, wake_on_bell};
use crate::monoio::{listener, ring};

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<Seat>,
    drain: Drain,
    /// One for each worker.
    bells: Vec<Arc<Bell>>,
}

impl Deref for Server {
    type Target = Shared<Seat>;

    fn deref(&self) -> &Shared<Seat> {
        &self.shared
    }
}

impl Server {
    /// # Errors
    /// No descriptors for the workers' bells.
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        Ok(Self {
            drain: Drain::default(),
            bells: (0..settings.workers)
                .map(Bell::new)
                .collect::<io::Result<_>>()?,
            shared: Shared::new(settings, "raise `ulimit -n` for more"),
        })
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self) {
        self.note_drain();
        self.drain.begin();
        self.bells.iter().for_each(|bell| bell.ring());
    }
}

/// How the fan-out finds a member among the connections of its worker. The place may have a new
/// tenant by then, hence the serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberKey {
    pub(crate) place: u32,
    serial: u32,
}

/// One worker: a thread with a ring and a share of the connections, with their fan-out, sweep and
/// counters.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) server: Arc<Server>,
    /// Large receive buffers.
    pub(crate) spares: Spares,
    /// Counts ticks of the sweep.
    tick: Cell<u32>,
    serials: Cell<u32>,
    connections: RefCell<Slab<(u32, Rc<Link>)>>,
    /// Connections that have a deadline.
    watched: RefCell<Vec<Weak<Link>>>,
    draining: Cell<bool>,
    /// Listeners whose accept loops are out of descriptors and wait for `freed`.
    pub(crate) starving: Cell<usize>,
    pub(crate) freed: Signal,
    /// The fan-out has forgotten somebody.
    pub(crate) left: Signal,
    /// Reads as empty, at once.
    null: ::monoio::fs::File,
}

impl Worker {
    fn new(index: usize, server: &Arc<Server>) -> io::Result<Rc<Self>> {
        let null = std::fs::File::open("/dev/null")?;
        Ok(Rc::new(Self {
            index,
            server: Arc::clone(server),
            spares: Spares::default(),
            tick: Cell::new(0),
            serials: Cell::new(0),
            connections: RefCell::default(),
            watched: RefCell::default(),
            draining: Cell::new(false),
            starving: Cell::new(0),
            freed: Signal::new(),
            left: Signal::new(),
            null: ::monoio::fs::File::from_std(null)?,
        }))
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(self.index)
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.get()
    }

    /// What others than this worker call to wake it.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.server.bells[self.index]
    }

    /// Enters a connection into the list that the sweep and the drain go through.
    pub(crate) fn register(&self, link: &Rc<Link>) -> MemberKey {
        if self.draining.get() {
            link.order(Order::DRAIN);
        }
        let serial = self.serials.get();
        self.serials.set(serial.wrapping_add(1));
        let place = self
            .connections
            .borrow_mut()
            .insert((serial, Rc::clone(link)));
        MemberKey {
            // Places are indices of open connections: far fewer than 2^32.
            place: place as u32,
            serial,
        }
    }

    pub(crate) fn unregister(&self, key: MemberKey) {
        self.connections.borrow_mut().remove(key.place as usize);
        if self.starving.get() > 0 {
            self.freed.raise();
        }
    }

    /// The connection that got this key, unless it is gone.
    pub(crate) fn link(&self, key: MemberKey) -> Option<Rc<Link>> {
        let connections = self.connections.borrow();
        let (serial, link) = connections.get(key.place as usize)?;
        (*serial == key.serial).then(|| Rc::clone(link))
    }

    /// Has the deadline of a connection observed.
    pub(crate) fn watch(&self, link: &Rc<Link>) {
        self.watched.borrow_mut().push(Rc::downgrade(link));
    }

    /// Whether nobody new is to be accepted. This worker may not have heard of it yet.
    pub(crate) fn is_draining(&self) -> bool {
        self.server.drain.has_begun()
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
    async fn wait_for_drain(self: Rc<Self>) {
        poll_fn(|cx| {
            if self.server.drain.has_begun() {
                return Poll::Ready(());
            }
            wake_on_bell(cx);
            Poll::Pending
        })
        .await;
        self.draining.set(true);
        for (_, (_, link)) in self.connections.borrow().iter() {
            link.order(Order::DRAIN);
        }
    }

    /// Sweeps until the worker ends.
    async fn sweep(self: Rc<Self>) -> io::Result<()> {
        let sweep = &self.server.sweep;
        let mut ticker = Ticker::every(sweep.interval(), sweep.phase(self.index))?;
        let mut ebb = Ebb::default();
        loop {
            for _ in 0..ticker.tick().await? {
                let now = self.tick.get().wrapping_add(1);
                self.tick.set(now);
                if self.draining.get() {
                    continue;
                }
                self.server.shortage.tick();
                self.sweep_part(now);
                if self.server.sweep.ends_round(now) {
                    self.give_memory_back(&mut ebb);
                }
            }
        }
    }

    /// When most connections have left, or much traffic has ended.
    fn give_memory_back(&self, ebb: &mut Ebb) {
        let traffic = self.counters().traffic_bytes();
        let mut connections = self.connections.borrow_mut();
        match ebb.step(connections.len(), traffic, Instant::now()) {
            ebb::Step::Keep => return,
            ebb::Step::Shrink => {
                connections.shrink_to_fit();
                self.watched.borrow_mut().shrink_to_fit();
            }
            ebb::Step::Collect => {}
        }
        self.spares.clear();
        ebb::collect();
    }

    fn sweep_part(&self, now: u32) {
        let sweep = &self.server.sweep;
        let connections = self.connections.borrow();
        let places = sweep.places(now, connections.capacity());
        let mut tick = sweep.tick(now, connections.len());
        for (_, link) in places.filter_map(|place| connections.get(place)) {
            match tick.verdict(link.phase(), &link.activity) {
                Verdict::Keep => {}
                Verdict::Ping => link.order(Order::PING),
                Verdict::HandshakeTimeout => link.order(Order::REQUEST_TIMEOUT),
                Verdict::IdleTimeout => {
                    link.order(Order::IDLE_TIMEOUT);
                    if link.deadline().is_none() {
                        // It hears no order while it writes to a peer that does not read.
                        link.limit(LINGER_TIMEOUT);
                    }
                }
            }
        }
    }

    /// Ends what is over its time, and gives the accept loops another try, every [`ACCEPT_PAUSE`].
    async fn watch_time(self: Rc<Self>) -> io::Result<()> {
        let mut ticker = Ticker::every(ACCEPT_PAUSE, Duration::ZERO)?;
        loop {
            ticker.tick().await?;
            self.freed.raise();
            if self.watched.borrow().is_empty() {
                continue;
            }
            let now = Instant::now();
            self.watched.borrow_mut().retain(|link| {
                let Some(link) = link.upgrade() else {
                    return false;
                };
                let over = link.deadline().is_some_and(|deadline| deadline <= now);
                if over {
                    link.expire();
                }
                !over
            });
        }
    }
}

/// Starts one thread for each worker, each with a ring and listeners of its own. Returns when all
/// of them serve.
///
/// # Errors
/// A thread or a ring could not be made.
pub(crate) fn start(server: &Arc<Server>, listeners: Vec<Vec<TcpListener>>) -> anyhow::Result<()> {
    server
        .drain
        .of(&listeners)
        .context("cannot start the workers")?;
    let run = {
        let server = Arc::clone(server);
        move |index, listeners, report: &_| run(index, &server, listeners, report)
    };
    workers::start(&server.settings, listeners, run)?;
    Ok(())
}

/// Runs a worker on this thread. Returns only why it could not begin.
fn run(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
    report: &Report<()>,
) -> anyhow::Error {
    let mut runtime = match ring::build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return anyhow::Error::new(error).context(format!(
                "cannot set up the ring of worker {index} ({SQ_ENTRIES} entries; too little memory, or `ulimit -n` too low?)"
            ));
        }
    };
    runtime.block_on(async {
        let started = begin(index, server, listeners).await;
        match started {
            Ok(()) => {
                // Nobody listens any more when another worker has failed; then the process ends
                // anyway.
                let _ = report.send(Ok(()));
                pending().await
            }
            Err(error) => error,
        }
    })
}

/// Starts the tasks of a worker.
async fn begin(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
) -> anyhow::Result<()> {
    let worker = Worker::new(index, server).context("cannot start a worker")?;
    essential(index, "wake-ups", Arc::clone(worker.bell()).listen());
    essential(index, "sweep", Rc::clone(&worker).sweep());
    essential(index, "clock", Rc::clone(&worker).watch_time());
    ::monoio::spawn(Rc::clone(&worker).wait_for_drain());
    ::monoio::spawn(fanout::run(Rc::clone(&worker)));
    for listener in listeners {
        let listener = Rc::new(Listener::new(listener)?);
        for _ in 0..listener::ACCEPTS {
            ::monoio::spawn(listener::accept(Rc::clone(&listener), Rc::clone(&worker)));
        }
    }
    Ok(())
}

/// Runs a task without which the worker is of no use.
fn essential(
    index: usize,
    what: &'static str,
    task: impl Future<Output = io::Result<()>> + 'static,
) {
    ::monoio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("error: worker {index}: {what} failed: {error}");
            process::exit(1);
        }
    });
}
