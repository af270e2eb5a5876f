//! One generator thread: opens its connections, runs its traffic, waits for what is outstanding,
//! closes.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uring_net::Token;
use ws_proto::{CloseCode, Session};

use crate::{
    engine::{
        bounds::Bounds,
        opening::Opener,
        pause::{Pause, ThreadSlice},
        shared::Shared,
        sockets::Sockets,
        stats::{Latest, Stats},
        traffic::{Io, Traffic},
        usage::{CpuTime, Spent},
    },
    record::ThreadUsage,
};

/// Longest sleep: how soon a thread sees that the run begins or ends.
const TICK_NS: u64 = 20_000_000;
/// The same at the end of a slice, where a thread waits for the others.
const SLICE_END_TICK_NS: u64 = 500_000;
/// A stall of a smaller share of a slice is not looked at.
const LEAST_STALL_SHARE: u64 = 16;
/// With at most this many sends started, a wait asks for that many completions more, which saves a
/// system call. With more, the call is shared by many messages anyway, and the kernel, which runs
/// its deferred work 20 pieces at a time or as many as are waited for, would only make larger
/// heaps.
const MAX_BATCHED_COMPLETIONS: usize = 16;
/// How long a wait looks past completions of sends. They are there at once, unless a socket is full
/// all of a sudden: the one case in which an arrival is noticed later than it could be, by this
/// much at most.
const SEND_PATIENCE: Duration = Duration::from_micros(100);
/// Most completions taken before the clock is read again, and sends are started.
const COMPLETIONS_PER_READING: usize = 32;
/// How long the closing handshakes at the end may stand still ...
const CLOSING_NS: u64 = 2_000_000_000;
/// ... and how much longer all of them may take per connection of the run, however slowly a server
/// answers.
const CLOSING_EACH_NS: u64 = 200_000;
/// The same in a run that was ended early.
const INTERRUPTED_CLOSING_EACH_NS: u64 = 50_000;
/// How long a recycled connection may take to close.
const RECYCLING_NS: u64 = 1_000_000_000;
/// Longest drain of a run that was ended early.
const INTERRUPTED_DRAIN_NS: u64 = 1_000_000_000;
/// Token of what belongs to no connection.
pub const NO_CONNECTION: Token = Token(u64::MAX);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not begun, or gone.
    Down,
    /// Connecting, or waiting for the answer.
    Opening,
    /// Up.
    Open,
    /// Our Close or our answer to one is on its way; the server is to end the stream.
    Closing,
    /// The socket is being closed.
    Gone,
}

/// One generator thread.
#[derive(Debug)]
pub struct Worker<T> {
    pub(super) shared: Arc<Shared>,
    pub(super) sockets: Sockets,
    pub(super) states: Vec<State>,
    pub(super) sessions: Vec<Session>,
    pub(super) bounds: Bounds,
    pub(super) opener: Opener,
    /// No WebSocket around the messages: see [`target`](crate::target).
    pub(super) is_tcp: bool,
    pub(super) traffic: T,
    pub(super) stats: Stats,
    pub(super) drain_ns: u64,
    pub(super) cpu: Option<usize>,
    /// Places are opened again after they closed.
    pub(super) recycles: bool,
    pub(super) closing_since: Vec<u64>,
    pub(super) now: u64,
    pub(super) outcome: Outcome,
    /// A run in slices.
    pub(super) pause: Option<Pause>,
    /// Longest wait beyond its deadline, as far as it lies inside the window ...
    pub(super) longest_stall: u64,
    /// ... of those longer than this.
    pub(super) least_stall: u64,
    /// A recent moment, and the CPU time up to it.
    pub(super) looked: (u64, CpuTime),
    pub(super) next_publish: u64,
    pub(super) published: (u64, u64),
    /// How long to poll before sleeping.
    pub(super) spin_ns: u64,
    completions_per_reading: usize,
}

/// How the connections of a thread fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Up when the load began.
    pub up: u64,
    /// Lost before the window was over.
    pub closed_early: u64,
    /// Never came up.
    pub failed: u64,
    /// Up at the end.
    pub still_up: u64,
    /// Places that no reply can come from any more.
    #[serde(skip)]
    pub(super) open: u64,
}

impl Outcome {
    /// Of a shard that died: all `up` connections were lost with it.
    pub fn of_the_dead(up: u64) -> Self {
        Self {
            up,
            closed_early: up,
            ..Self::default()
        }
    }
}

/// What a thread measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct ThreadResult {
    /// Counters.
    pub stats: Stats,
    /// Histograms and series.
    pub latest: Latest,
    /// Connections.
    pub outcome: Outcome,
    /// Cost, inside the measured window.
    pub usage: ThreadUsage,
    /// First connect, last handshake.
    pub opening: Option<(u64, u64)>,
}

/// What [`Worker::new`] needs to know.
#[derive(Debug)]
pub struct WorkerPlan<T> {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    /// The ring.
    pub ring: uring_net::Ring,
    /// Connections of this thread.
    pub connections: usize,
    /// What a server may make them hold.
    pub bounds: Bounds,
    /// Opens them.
    pub opener: Opener,
    /// The kind of load.
    pub traffic: T,
    /// Payload bytes of a message, on average.
    pub size: usize,
    /// Latencies from two send times.
    pub open_loop: bool,
    /// Kind `connect`.
    pub recycles: bool,
    /// Longest wait for outstanding replies.
    pub drain_ns: u64,
    /// Where the thread is pinned.
    pub cpu: Option<usize>,
    /// How long to poll before sleeping.
    pub spin: Duration,
    /// A run in slices.
    pub pause: Option<Pause>,
}

impl<T: Traffic> Worker<T> {
    /// Nothing is begun yet.
    pub fn new(plan: WorkerPlan<T>) -> Self {
        let connections = plan.connections;
        let mut sessions = Vec::new();
        sessions.resize_with(connections, || plan.bounds.session());
        Self {
            sockets: Sockets::new(plan.ring, connections, plan.bounds.unsent_bytes),
            states: vec![State::Down; connections],
            sessions,
            bounds: plan.bounds,
            is_tcp: plan.opener.is_tcp(),
            opener: plan.opener,
            traffic: plan.traffic,
            stats: Stats::new(plan.open_loop),
            drain_ns: plan.drain_ns,
            cpu: plan.cpu,
            recycles: plan.recycles,
            closing_since: if plan.recycles {
                vec![0; connections]
            } else {
                Vec::new()
            },
            now: plan.shared.clock.now(),
            outcome: Outcome::default(),
            pause: plan.pause,
            longest_stall: 0,
            least_stall: TICK_NS,
            looked: (plan.shared.clock.now(), CpuTime::of_this_thread()),
            next_publish: 0,
            published: (0, 0),
            spin_ns: plan.spin.as_nanos() as u64,
            completions_per_reading: Sockets::batch(plan.size, COMPLETIONS_PER_READING),
            shared: plan.shared,
        }
    }

    /// The whole life of a thread. Ends early when the run is ended or fails.
    ///
    /// # Errors
    /// When the kernel fails the ring; a sentence.
    pub fn run(mut self) -> Result<ThreadResult, String> {
        self.open_all()?;
        let mut result = match self.pause {
            None => self.measure()?.0.result,
            Some(_) => self.measure_slices()?,
        };
        self.outcome.still_up = self.outcome.open;
        self.close_all()?;
        self.stats.subprotocols = std::mem::take(&mut self.opener.subprotocols);
        result.stats.add_late(self.stats);
        Ok(ThreadResult {
            outcome: self.outcome,
            opening: self
                .opener
                .first_begun
                .map(|first| (first, self.opener.last_done)),
            ..result
        })
    }

    /// One load, what it gave, and what the thread spent on its measured part.
    pub(super) fn measure(&mut self) -> Result<(ThreadSlice, Spent), String> {
        let (spent, drained) = self.load()?;
        let paused_at = self.now;
        let times = self.shared.times();
        self.traffic.finish(&times, &mut self.stats);
        self.opener.finish(&times, &mut self.stats);
        let slice = ThreadSlice {
            result: self.take_result(spent),
            paused_at,
            drained,
        };
        Ok((slice, spent))
    }

    /// What was counted and recorded so far; counting begins anew.
    pub(super) fn take_result(&mut self, spent: Spent) -> ThreadResult {
        let latest = self.stats.finish(&self.shared);
        self.publish();
        self.published = (0, 0);
        let next = Stats::new(latest.actual.is_some());
        ThreadResult {
            stats: std::mem::replace(&mut self.stats, next),
            latest,
            outcome: Outcome::default(),
            usage: spent.usage(self.cpu, self.states.len(), self.longest_stall),
            opening: None,
        }
    }

    /// Opens all connections, then waits for the load to begin; of a run in slices, only the first.
    fn open_all(&mut self) -> Result<(), String> {
        while !self.shared.ended_early() {
            let times = self.shared.times();
            let begins = match self.pause {
                None => self.shared.has_begun() && (self.recycles || self.now >= times.start),
                Some(_) => self.opener.is_done(),
            };
            if begins {
                break;
            }
            self.open_more();
            let deadline = self.tick_end().min(times.start);
            self.turn(
                self.opener
                    .next_due(&times)
                    .map_or(deadline, |due| due.min(deadline)),
            )?;
        }
        self.outcome.up = self.outcome.open;
        Ok(())
    }

    fn tick_end(&self) -> u64 {
        self.now + TICK_NS
    }

    fn open_more(&mut self) {
        let states = &mut self.states;
        let at = (&self.shared.times(), self.now);
        let (sockets, stats) = (&mut self.sockets, &mut self.stats);
        let begun = self.opener.begin(at, sockets, stats, |conn| {
            states[conn] = State::Opening;
        });
        if let Some(cause) = begun.err().or_else(|| self.opener.overdue(self.now)) {
            self.outcome.failed += 1;
            self.shared.fail(cause);
        }
    }

    /// Warm-up, measured window and drain. What was spent in the window, and whether all replies
    /// came.
    fn load(&mut self) -> Result<(Spent, bool), String> {
        let mut before: Option<Spent> = None;
        let mut spent = None;
        let times = self.shared.times();
        if self.pause.is_some() {
            self.longest_stall = 0;
            let window_ns = times.to.saturating_sub(times.from);
            self.least_stall = TICK_NS.min(window_ns / LEAST_STALL_SHARE);
        }
        // A run that ended while it connected has no load.
        if self.shared.has_begun() {
            self.with_traffic(|traffic, io| traffic.start(io));
        }
        loop {
            let times = self.shared.times();
            self.stats.roll(&times, self.now, &self.shared);
            if before.is_none() && self.now >= times.from {
                before = Some(self.spent());
            }
            let over = self.now >= times.to;
            self.with_traffic(|traffic, io| traffic.tick(io));
            // Only now: until then messages of the window may be sent.
            if over && spent.is_none() {
                let after = self.spent();
                spent = Some(after.since(&before.unwrap_or(after)));
                self.shared.thread_stopped();
            }
            // Another thread's last message may still be on its way to connections of this one.
            let all_stopped = self.shared.all_stopped();
            if over && self.now >= times.to.saturating_add(self.patience() / 5 * 4) {
                self.traffic.give_up();
                self.opener.give_up();
            }
            let is_busy = self.traffic.is_busy() || self.opener.is_behind(&times, self.now);
            let drained =
                (all_stopped && !is_busy) || self.now >= times.to.saturating_add(self.patience());
            if let Some(spent) = spent
                && drained
            {
                return Ok((spent, !is_busy));
            }
            if self.recycles && (!over || self.opener.has_schedule()) {
                self.open_more();
                self.sweep_recycled();
            }
            self.publish_sometimes();
            let mut deadline = match over && self.pause.is_some() {
                true => self.now + SLICE_END_TICK_NS,
                false => self.tick_end(),
            };
            let phases = [times.from, times.to];
            let dues = [self.traffic.next_due(&times), self.opener.next_due(&times)];
            for next in phases.into_iter().chain(dues.into_iter().flatten()) {
                if next > self.now {
                    deadline = deadline.min(next);
                } else if Some(next) == dues[0] {
                    deadline = self.now;
                }
            }
            self.turn(deadline)?;
        }
    }

    /// How long outstanding replies are waited for: less after an interrupt.
    fn patience(&self) -> u64 {
        if self.shared.ended_early() {
            self.drain_ns.min(INTERRUPTED_DRAIN_NS)
        } else {
            self.drain_ns
        }
    }

    fn spent(&mut self) -> Spent {
        Spent {
            at: self.now,
            cpu: CpuTime::of_this_thread(),
            enters: self.sockets.ring().stats().enters,
        }
    }

    /// Sends what is to be sent, waits until something happens or `deadline`, and handles it.
    pub(super) fn turn(&mut self, deadline: u64) -> Result<(), String> {
        self.sockets.flush();
        if let Some(conn) = self.sockets.take_overfull() {
            self.end_overfull(Some(conn));
        }
        let clock = self.shared.clock;
        self.wait(deadline)
            .map_err(|error| format!("io_uring failed: {error}"))?;
        let asleep_until = deadline.max(self.now);
        self.now = clock.now();
        self.note_stall(asleep_until);
        let mut taken = 0;
        while let Some(completion) = self.sockets.ring().next_completion() {
            self.handle(completion);
            taken += 1;
            if taken % self.completions_per_reading == 0 {
                self.sockets.flush();
                self.now = clock.now();
            }
        }
        Ok(())
    }

    /// Hands what was started to the kernel and waits for something new until `deadline`, in one
    /// system call.
    ///
    /// Nothing is held back for a batch: what is recorded as a message's arrival is when this
    /// thread could first know of it.
    fn wait(&mut self, deadline: u64) -> io::Result<()> {
        let until = Some(self.shared.clock.instant(deadline));
        let started = self.sockets.begin_wait();
        if deadline <= self.now {
            return self.sockets.ring().wait(0, None);
        }
        if self.spin_ns > 0 && self.poll(deadline)? {
            return Ok(());
        }
        let ring = self.sockets.ring();
        match started {
            Some(started @ 1..=MAX_BATCHED_COMPLETIONS) => {
                ring.wait_batch(started + 1, SEND_PATIENCE, until)
            }
            _ => ring.wait(1, until),
        }
    }

    /// Polls for completions, as long as `--spin-us` says; whether there are some.
    fn poll(&mut self, deadline: u64) -> io::Result<bool> {
        let end = deadline.min(self.now + self.spin_ns);
        let clock = self.shared.clock;
        let ring = self.sockets.ring();
        loop {
            ring.wait(0, None)?;
            if ring.has_completions() {
                return Ok(true);
            }
            if clock.now() >= end {
                return Ok(false);
            }
        }
    }

    /// Woken late. What of that the thread did not spend on a CPU was a stall: a wait that submits
    /// thousands of sends is long, too.
    fn note_stall(&mut self, asleep_until: u64) {
        let late = self.shared.times().overlap(asleep_until, self.now);
        if late > self.longest_stall.max(self.least_stall) {
            let (since, cpu) = self.looked;
            let spent = CpuTime::of_this_thread().since(&cpu);
            let off_cpu = (self.now - since).saturating_sub(spent.total_ns());
            self.longest_stall = self.longest_stall.max(late.min(off_cpu));
        }
    }

    /// A server that does not end the stream after the closing handshake must not keep the place.
    fn sweep_recycled(&mut self) {
        for conn in 0..self.closing_since.len() {
            let since = self.closing_since[conn];
            if self.states[conn] == State::Closing && self.now - since > RECYCLING_NS {
                self.close_socket(conn);
            }
        }
    }

    /// Closes politely for as long as the server keeps up within reason, then without further ado.
    fn close_all(&mut self) -> Result<(), String> {
        self.recycles = false;
        // After an interrupt the end should come soon.
        let each = match self.shared.ended_early() {
            true => INTERRUPTED_CLOSING_EACH_NS,
            false => CLOSING_EACH_NS,
        };
        let most = CLOSING_NS + self.opener.plan().connections as u64 * each;
        self.close_each(most, |worker, conn| match worker.states[conn] {
            State::Open => worker.start_closing(conn, CloseCode::Normal, ""),
            State::Opening => worker.close_socket(conn),
            State::Closing | State::Gone | State::Down => {}
        })?;
        // What is left open here, the kernel would close some time after the end of the process:
        // tens of thousands take it many seconds.
        self.close_each(most, |worker, conn| {
            if worker.states[conn] != State::Gone {
                worker.close_socket(conn);
            }
        })
    }

    /// Gives all connections that are not down to `close`, so many at a time as were opened at a
    /// time. Ends when all are down, when none has gone down for [`CLOSING_NS`], or after
    /// `most_ns`.
    fn close_each(&mut self, most_ns: u64, close: impl Fn(&mut Self, usize)) -> Result<(), String> {
        let most_at_a_time = self.opener.plan().most_in_flight();
        let end = self.now + most_ns;
        let mut deadline = self.now + CLOSING_NS;
        let mut remaining = 0..self.states.len();
        let mut closing = Vec::new();
        loop {
            let before = closing.len();
            closing.retain(|conn| self.states[*conn] != State::Down);
            if closing.len() < before {
                deadline = (self.now + CLOSING_NS).min(end);
            }
            while closing.len() < most_at_a_time
                && let Some(conn) = remaining.next()
            {
                if self.states[conn] != State::Down {
                    close(self, conn);
                    closing.push(conn);
                }
            }
            if closing.is_empty() || self.now >= deadline {
                return Ok(());
            }
            let until = self.tick_end().min(deadline);
            let (begun, spent) = (self.now, CpuTime::of_this_thread());
            self.turn(until)?;
            // Fifty threads on a CPU keep each other from it for seconds: that is not the server
            // standing still. One that floods keeps this thread busy, and is.
            let late = self.now.saturating_sub(until);
            let busy = CpuTime::of_this_thread().since(&spent).total_ns();
            deadline += late.min((self.now - begun).saturating_sub(busy));
        }
    }

    pub(super) fn with_traffic<R>(&mut self, act: impl FnOnce(&mut T, &mut Io<'_>) -> R) -> R {
        let mut io = Io {
            sockets: &mut self.sockets,
            stats: &mut self.stats,
            times: self.shared.times(),
            clock: self.shared.clock,
            now: self.now,
        };
        let result = act(&mut self.traffic, &mut io);
        self.now = io.now;
        result
    }

    fn publish_sometimes(&mut self) {
        if self.now >= self.next_publish {
            self.next_publish = self.now + TICK_NS;
            self.looked = (self.now, CpuTime::of_this_thread());
            self.publish();
        }
    }

    /// Moves the gauges of the progress line.
    fn publish(&mut self) {
        let (sent, received) = (self.stats.totals.sent, self.stats.totals.received);
        self.shared.sent.fetch_add(sent - self.published.0, Relaxed);
        self.shared
            .received
            .fetch_add(received - self.published.1, Relaxed);
        self.published = (sent, received);
    }
}
