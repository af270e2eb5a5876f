//! Workers: what they share, and what each of them is to its connections.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use anyhow::Context;
use server_core::counters::{LocalCounters, WorkerCounters};
use server_core::options::Settings;
use server_core::sweep::Activity;
use server_core::unix::Handover;
use server_core::workers::Shared;
use uring_net::{Ring, SocketId, Token};
use ws_proto::{Echo, End};

use crate::raw::clock::Clock;
use crate::raw::quiet::QuietSends;
use crate::raw::ring::Sizes;
use crate::raw::sender::{BufferPool, Reply};
use crate::raw::waker;

/// Tokens of what is not an operation of a socket; those have their socket's slot for a token.
pub(crate) const SWEEP: Token = Token(u64::MAX);
pub(crate) const CLOCK_TICK: Token = Token(u64::MAX - 1);
const WAKER: Token = Token(u64::MAX - 2);

/// What all workers share.
pub(crate) struct Server {
    shared: Shared<SocketId>,
    /// Of each worker's ring.
    sizes: Sizes,
    /// `--spin-us`.
    pub(crate) spin: Duration,
    /// Connections of Unix sockets.
    pub(crate) handover: Handover,
}

impl Deref for Server {
    type Target = Shared<SocketId>;

    fn deref(&self) -> &Shared<SocketId> {
        &self.shared
    }
}

impl Server {
    /// # Errors
    /// No descriptors for the drain.
    pub(crate) fn new(
        settings: Settings,
        listeners: &[Vec<TcpListener>],
        sizes: Sizes,
        spin: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            handover: Handover::new(&settings),
            shared: Shared::new(
                settings,
                "raise `ulimit -n` for more; with --direct more --workers do, too",
                listeners,
            )?,
            sizes,
            spin,
        })
    }

    /// Tells every worker to stop accepting and to close its connections.
    pub(crate) fn begin_drain(&self, workers: &[uring_net::Waker]) {
        self.shared.begin_drain();
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
    pub(crate) local_counters: LocalCounters,
    /// Counts turns of the loop: from one wait to the next.
    pub(crate) turn: u32,
    /// Counts ticks of the sweep.
    pub(crate) tick: u32,
    /// When the next is due.
    next_tick: Instant,
    pub(crate) clock: Clock,
    /// To be sent at the end of the turn.
    pub(crate) replies: Vec<Reply>,
    pub(crate) quiet_sends: QuietSends,
    /// Members whose messages wait for a mailbox.
    pub(crate) publishers: Vec<SocketId>,
    /// Connections that wait for their turn to receive the rest of a long message.
    pub(crate) long_messages: VecDeque<SocketId>,
    pub(crate) buffer_pool: BufferPool,
    pub(crate) draining: bool,
    /// What others than this worker call to wake it.
    pub(crate) waker: Waker,
}

impl Worker {
    /// Worker `index`, which is to run on this thread, and what wakes it from others.
    ///
    /// # Errors
    /// Its ring could not be made.
    pub(crate) fn new(
        index: usize,
        server: &Arc<Server>,
    ) -> anyhow::Result<(Self, uring_net::Waker)> {
        let mut ring = server
            .sizes
            .build()
            .with_context(|| format!("cannot set up the ring of worker {index}"))?;
        let waker = ring.waker(WAKER).context("cannot make an eventfd")?;
        let worker = Self {
            index,
            server: Arc::clone(server),
            ring,
            local_counters: LocalCounters::default(),
            turn: 0,
            tick: 0,
            next_tick: Instant::now() + server.sweep.phase(index),
            clock: Clock::default(),
            replies: Vec::new(),
            quiet_sends: QuietSends::default(),
            publishers: Vec::new(),
            long_messages: VecDeque::new(),
            buffer_pool: BufferPool::default(),
            draining: false,
            waker: waker::of_this_thread(index, waker.clone()),
        };
        Ok((worker, waker))
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.server.counters.worker(self.index)
    }

    #[inline]
    pub(crate) fn count_echo(&mut self, received: usize, echo: &Echo) {
        self.local_counters.count_echo(received, echo);
        if let Some(End::Violation(violation)) = &echo.end {
            self.counters().count_violation(violation);
        }
    }

    pub(crate) fn hand_over_counters(&mut self) {
        let counters = self.server.counters.worker(self.index);
        self.local_counters.hand_over(counters);
        counters.enters.set(self.ring.stats().enters);
    }

    /// All completions of this turn have been taken.
    pub(crate) fn settle_quiet_sends(&mut self) {
        self.quiet_sends
            .settle(&self.ring, self.turn, &mut self.local_counters);
    }

    /// Has the deadline of a connection observed.
    pub(crate) fn watch(&mut self, socket: SocketId) {
        self.clock.watched.push(socket);
        self.start_clock();
    }

    /// Has the next tick of the clock come.
    pub(crate) fn start_clock(&mut self) {
        self.clock.start(&mut self.ring, CLOCK_TICK);
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.ring.shrink_to_fit();
        self.clock.watched.shrink_to_fit();
        self.replies.shrink_to_fit();
        self.publishers.shrink_to_fit();
        self.long_messages.shrink_to_fit();
    }

    /// Has the next tick of the sweep come. Late ones are made up for.
    pub(crate) fn sweep_later(&mut self) {
        self.next_tick += self.server.sweep.interval();
        self.ring.timeout(self.next_tick, SWEEP);
    }

    /// The kernel had no memory for a timeout: nothing would be swept or ended without it.
    pub(crate) fn time_again(&mut self, token: Token) {
        if token == SWEEP {
            self.ring.timeout(self.next_tick, SWEEP);
        } else {
            self.clock.restart(&mut self.ring, CLOCK_TICK);
        }
    }

    /// Whether a peer was heard of within two rounds of the sweep.
    pub(crate) fn is_busy(&self, activity: &Activity) -> bool {
        self.server.sweep.is_busy(self.tick, activity)
    }
}
