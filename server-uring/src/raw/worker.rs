//! Workers: what they share, what each owns, and the thread that runs it.

use std::net::TcpListener;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use std::{io, process};

use anyhow::Context;
use server_core::counters::{LocalCounters, WorkerCounters};
use server_core::ebb::{self, Ebb};
use server_core::options::Settings;
use server_core::sweep::{Activity, Verdict};
use server_core::workers::{self, Drain, Report, Shared};
use uring_net::{Completion, Event, OpKind, Pace, Ring, SocketId, Token};

use crate::raw::bell;
use crate::raw::clock::Clock;
use crate::raw::connections::Connections;
use crate::raw::fanout::{FanOut, Seat};
use crate::raw::link::{Reply, Spares};
use crate::raw::listener::Listener;
use crate::raw::ring::Sizes;

/// Tokens of what is not an operation of a socket; those are called by their socket's place.
const SWEEP: Token = Token(u64::MAX);
const BEAT: Token = Token(u64::MAX - 1);
const BELL: Token = Token(u64::MAX - 2);

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<Seat>,
    drain: Drain,
    /// Of each worker's ring.
    sizes: Sizes,
    /// `--spin-us`.
    spin: Duration,
}

impl Deref for Server {
    type Target = Shared<Seat>;

    fn deref(&self) -> &Shared<Seat> {
        &self.shared
    }
}

impl Server {
    pub(crate) fn new(settings: Settings, sizes: Sizes, spin: Duration) -> Self {
        Self {
            shared: Shared::new(
                settings,
                "raise `ulimit -n` for more; with --direct more --workers do, too",
            ),
            drain: Drain::default(),
            sizes,
            spin,
        }
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self, workers: &[uring_net::Waker]) {
        self.note_drain();
        self.drain.begin();
        workers.iter().for_each(uring_net::Waker::wake);
    }
}

/// One worker, as its connections see it: a thread's ring and counters, and what is to be done at
/// the end of a turn.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) server: Arc<Server>,
    pub(crate) ring: Ring,
    /// What was counted in this turn.
    pub(crate) local: LocalCounters,
    /// Counts turns of the loop: from one wait to the next.
    pub(crate) turn: u32,
    /// Counts ticks of the sweep.
    pub(crate) tick: u32,
    /// When the next is due.
    next_tick: Instant,
    pub(crate) clock: Clock,
    /// To be sent at the end of the turn.
    pub(crate) replies: Vec<Reply>,
    /// Members whose messages wait for a mailbox.
    pub(crate) publishers: Vec<SocketId>,
    pub(crate) spares: Spares,
    pub(crate) draining: bool,
    /// What others than this worker call to wake it.
    pub(crate) bell: Waker,
}

impl Worker {
    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(self.index)
    }

    /// Whether nobody new is to be accepted. This worker may not have heard of it yet.
    pub(crate) fn is_draining(&self) -> bool {
        self.server.drain.has_begun()
    }

    pub(crate) fn hand_over_counters(&mut self) {
        let counters = self.server.counters.worker(self.index);
        self.local.hand_over(counters);
        counters.enters.set(self.ring.stats().enters);
    }

    /// Has the deadline of a connection observed.
    pub(crate) fn watch(&mut self, socket: SocketId) {
        self.clock.watched.push(socket);
        self.beat_later();
    }

    /// Has the next beat of the clock come.
    pub(crate) fn beat_later(&mut self) {
        self.clock.start(&mut self.ring, BEAT);
    }

    fn shrink_to_fit(&mut self) {
        self.ring.shrink_to_fit();
        self.clock.watched.shrink_to_fit();
        self.replies.shrink_to_fit();
        self.publishers.shrink_to_fit();
    }

    /// Has the next tick of the sweep come. Late ones are made up for.
    fn sweep_later(&mut self) {
        self.next_tick += self.server.sweep.interval();
        self.ring.timeout(self.next_tick, SWEEP);
    }

    /// The kernel had no memory for a timeout: nothing would be swept or ended without it.
    fn time_again(&mut self, token: Token) {
        if token == SWEEP {
            self.ring.timeout(self.next_tick, SWEEP);
        } else {
            self.clock.restart(&mut self.ring, BEAT);
        }
    }

    /// Whether a peer was heard of within two rounds of the sweep.
    pub(crate) fn is_busy(&self, activity: &Activity) -> bool {
        self.server.sweep.is_busy(self.tick, activity)
    }
}

/// The loop of a worker and everything in it.
struct Loop {
    worker: Worker,
    connections: Connections,
    listeners: Vec<Listener>,
    fanout: FanOut,
    pace: Pace,
    ebb: Ebb,
    /// Connections met in this round of the sweep.
    open: usize,
    /// Another thread has rung in this turn.
    woken: bool,
    /// Swapped with the worker's, so that neither is allocated anew.
    replies: Vec<Reply>,
}

impl Loop {
    /// Runs until the ring breaks.
    fn run(mut self) -> io::Error {
        self.worker.sweep_later();
        let mut last = 0;
        loop {
            let work_left = self.fanout.is_busy();
            if let Err(error) = self.pace.wait(&mut self.worker.ring, last, work_left) {
                return error;
            }
            last = self.turn();
        }
    }

    /// Takes all completions and does what follows from them. Returns how many they were.
    fn turn(&mut self) -> usize {
        self.worker.turn = self.worker.turn.wrapping_add(1);
        let mut completions = 0;
        let mut sweep_is_due = false;
        while let Some(completion) = self.worker.ring.next_completion() {
            completions += 1;
            // A sweep judges by what has arrived, all of it.
            sweep_is_due |=
                completion.token == SWEEP && matches!(completion.event, Event::TimedOut);
            self.handle(completion);
        }
        if sweep_is_due {
            self.sweep();
        }
        if std::mem::take(&mut self.woken) || bell::is_rung() {
            self.publish();
        }
        self.fanout.run(&mut self.worker, &mut self.connections);
        self.send_replies();
        self.worker.hand_over_counters();
        completions
    }

    #[inline]
    fn handle(&mut self, Completion { token, event }: Completion) {
        let worker = &mut self.worker;
        let place = token.0 as usize;
        let connection = self.connections.at(place);
        match (event, connection) {
            (Event::Received(bytes), Some(connection)) => connection.received(worker, bytes),
            (Event::Sent { buf, bytes }, Some(connection)) => connection.sent(worker, buf, bytes),
            (Event::Eof, Some(connection)) => connection.eof(worker),
            (Event::Closed, _) if listener_at(&mut self.listeners, place).is_none() => {
                self.connections.remove(place);
                for listener in self.listeners.iter_mut().filter(|l| l.is_starving()) {
                    listener.retry(worker);
                }
            }
            (Event::Accepted(socket), _) => {
                if let Some(listener) = listener_at(&mut self.listeners, place) {
                    listener.accepted(worker, &mut self.connections, socket);
                }
            }
            (Event::TimedOut, _) if token == BEAT => self.beat(),
            (
                Event::Failed {
                    op: OpKind::Timeout,
                    ..
                },
                _,
            ) => worker.time_again(token),
            (Event::Woken, _) => self.wake(),
            (
                Event::Cancelled {
                    op: OpKind::Receive,
                    ..
                },
                Some(connection),
            ) => connection.stopped(worker),
            (
                Event::Failed {
                    op: OpKind::Accept,
                    error,
                    ..
                },
                _,
            ) => {
                if let Some(listener) = listener_at(&mut self.listeners, place) {
                    listener.failed(worker, &error);
                }
            }
            (Event::Failed { op, error, .. }, Some(connection)) => {
                connection.failed(worker, op, &error);
            }
            (other, _) => tracing::trace!(?other, "nothing follows from this"),
        }
    }

    /// Lets members try again whose messages wait for a mailbox.
    fn publish(&mut self) {
        if self.worker.publishers.is_empty() {
            return;
        }
        for socket in std::mem::take(&mut self.worker.publishers) {
            if let Some(connection) = self.connections.find(socket) {
                connection.publish(&mut self.worker);
            }
        }
    }

    /// All replies of this turn to a connection leave in one send.
    fn send_replies(&mut self) {
        std::mem::swap(&mut self.replies, &mut self.worker.replies);
        for Reply { socket, first } in self.replies.drain(..) {
            if let Some(connection) = self.connections.find(socket) {
                connection.start(&mut self.worker, first);
            }
        }
    }

    fn sweep(&mut self) {
        let worker = &mut self.worker;
        worker.tick = worker.tick.wrapping_add(1);
        if worker.draining {
            return;
        }
        worker.sweep_later();
        worker.server.shortage.tick();
        let sweep = worker.server.sweep.clone();
        let now = worker.tick;
        let mut tick = sweep.tick(now, self.connections.end());
        for place in sweep.places(now, self.connections.end()) {
            let Some(connection) = self.connections.at(place) else {
                continue;
            };
            self.open += 1;
            connection.spare(worker);
            let verdict = tick.verdict(connection.phase(), connection.activity());
            match verdict {
                Verdict::Keep => {}
                Verdict::Ping => connection.ping(worker),
                Verdict::HandshakeTimeout => connection.time_out_request(worker),
                Verdict::IdleTimeout => connection.time_out(worker),
            }
        }
        if sweep.ends_round(now) {
            let open = std::mem::take(&mut self.open);
            self.give_memory_back(open);
        }
    }

    /// When most connections have left, and there are `open` still, or much traffic has ended.
    fn give_memory_back(&mut self, open: usize) {
        let traffic = self.worker.counters().traffic_bytes();
        match self.ebb.step(open, traffic, Instant::now()) {
            ebb::Step::Keep => return,
            ebb::Step::Shrink => {
                self.connections.shrink_to_fit();
                self.replies = Vec::new();
                self.worker.shrink_to_fit();
            }
            ebb::Step::Collect => {}
        }
        self.worker.spares = Spares::default();
        ebb::collect();
    }

    /// Ends what is over its time, and gives the listeners another try.
    fn beat(&mut self) {
        let worker = &mut self.worker;
        worker.clock.beat();
        let mut watched = std::mem::take(&mut worker.clock.watched);
        watched.retain(|&socket| {
            let Some(connection) = self.connections.find(socket) else {
                return false;
            };
            let over = connection
                .deadline()
                .is_none_or(|deadline| worker.clock.is_over(deadline));
            if over {
                connection.close(worker);
            }
            !over
        });
        worker.clock.watched.append(&mut watched);
        if !worker.clock.watched.is_empty() {
            worker.beat_later();
        }
        for listener in self.listeners.iter_mut().filter(|l| l.is_starving()) {
            listener.retry_for_somebody(worker);
        }
    }

    /// Somebody has rung: there is something in the mailbox or room in another's, or the drain
    /// begins.
    fn wake(&mut self) {
        self.woken = true;
        self.fanout.wake();
        let worker = &mut self.worker;
        if !worker.draining && worker.is_draining() {
            worker.draining = true;
            tracing::debug!(worker = worker.index, stats = ?worker.ring.stats(), "draining");
            for listener in &mut self.listeners {
                listener.close(worker);
            }
            for connection in self.connections.iter_mut() {
                connection.drain(worker);
            }
        }
    }
}

/// The listener whose socket has this place.
fn listener_at(listeners: &mut [Listener], place: usize) -> Option<&mut Listener> {
    listeners.iter_mut().find(|listener| listener.is_at(place))
}

/// Starts one thread for each worker, each with a ring and listeners of its own. Returns when all
/// of them serve, with what wakes them.
///
/// # Errors
/// A thread or a ring could not be made.
pub(crate) fn start(
    server: &Arc<Server>,
    listeners: Vec<Vec<TcpListener>>,
) -> anyhow::Result<Vec<uring_net::Waker>> {
    server
        .drain
        .of(&listeners)
        .context("cannot start the workers")?;
    let run = {
        let server = Arc::clone(server);
        move |index, listeners, report: &_| run(index, &server, listeners, report)
    };
    workers::start(&server.settings, listeners, run)
}

/// Runs a worker on this thread. Returns only why it could not begin.
fn run(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
    report: &Report<uring_net::Waker>,
) -> anyhow::Error {
    let (running, waker) = match begin(index, server, listeners) {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    // Nobody listens any more when another worker has failed; then the process ends anyway.
    let _ = report.send(Ok(waker));
    let error = running.run();
    eprintln!("error: worker {index}: its ring broke: {error}");
    process::exit(1);
}

fn begin(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
) -> anyhow::Result<(Loop, uring_net::Waker)> {
    let mut ring = server
        .sizes
        .build()
        .with_context(|| format!("cannot set up the ring of worker {index}"))?;
    let waker = ring.waker(BELL).context("cannot make an eventfd")?;
    let listeners = listeners
        .into_iter()
        .map(|socket| Listener::start(&mut ring, socket).context("cannot accept"))
        .collect::<Result<_, _>>()?;
    let worker = Worker {
        index,
        server: Arc::clone(server),
        ring,
        local: LocalCounters::default(),
        turn: 0,
        tick: 0,
        next_tick: Instant::now() + server.sweep.phase(index),
        clock: Clock::default(),
        replies: Vec::new(),
        publishers: Vec::new(),
        spares: Spares::default(),
        draining: false,
        bell: bell::of_this_thread(index, waker.clone()),
    };
    let running = Loop {
        worker,
        connections: Connections::default(),
        listeners,
        fanout: FanOut::default(),
        pace: Pace::new(server.spin),
        ebb: Ebb::default(),
        open: 0,
        woken: false,
        replies: Vec::new(),
    };
    Ok((running, waker))
}
