//! The loop of a worker: waits for completions, takes them, and does what follows from them.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;
use std::{io, process};

use anyhow::Context;
use server_core::memory_release::{self, IdleShrink};
use server_core::sweep::IdleAction;
use server_core::workers::Report;
use uring_net::{Completion, Event, OpKind, Pace};

use crate::raw::connections::Connections;
use crate::raw::fanout::FanOut;
use crate::raw::listener::{self, Listener};
use crate::raw::sender::{BufferPool, Reply};
use crate::raw::waker;
use crate::raw::worker::{CLOCK_TICK, SWEEP, Server, Worker};

/// Long messages of which more is received in one turn.
const LONG_MESSAGES_PER_TURN: usize = 1;

/// The loop of a worker and everything in it.
struct Loop {
    worker: Worker,
    connections: Connections,
    listeners: Vec<Listener>,
    /// Connections of Unix sockets that wait for a slot of the ring.
    handed_over: VecDeque<UnixStream>,
    fanout: FanOut,
    pace: Pace,
    memory_release: IdleShrink,
    /// Connections met in this round of the sweep.
    open: usize,
    /// Another thread has woken this worker in this turn.
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
            let worker = &self.worker;
            let work_left = self.fanout.is_busy()
                || !worker.long_messages.is_empty()
                || !worker.replies.is_empty()
                || worker.quiet_sends.are_unsettled();
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
        self.worker.settle_quiet_sends();
        if sweep_is_due {
            self.sweep();
        }
        if std::mem::take(&mut self.woken) || waker::is_woken() {
            self.publish();
        }
        self.fanout.run(&mut self.worker, &mut self.connections);
        self.send_replies();
        self.receive_long_messages();
        self.worker.hand_over_counters();
        completions
    }

    #[inline]
    fn handle(&mut self, Completion { token, event }: Completion) {
        let worker = &mut self.worker;
        let slot = token.0 as usize;
        let connection = self.connections.at(slot);
        match (event, connection) {
            (Event::Received(bytes), Some(connection)) => connection.received(worker, bytes),
            (Event::ReceivedInto { bytes, received }, Some(connection)) => {
                connection.received_into(worker, bytes, received);
            }
            (Event::Sent { buf, bytes }, Some(connection)) => connection.sent(worker, buf, bytes),
            (Event::SentPart { bytes }, Some(connection)) => connection.sent_part(worker, bytes),
            (Event::Eof, Some(connection)) => connection.eof(worker),
            (Event::Closed, _) if listener_at(&mut self.listeners, slot).is_none() => {
                self.connections.remove(slot);
                self.listeners.iter_mut().for_each(|l| l.retry(worker));
                if !self.handed_over.is_empty() {
                    listener::take_over(worker, &mut self.connections, &mut self.handed_over);
                }
            }
            (Event::Accepted(socket), _) => {
                if let Some(listener) = listener_at(&mut self.listeners, slot) {
                    listener.accepted(worker, &mut self.connections, socket);
                }
            }
            (Event::TimedOut, _) if token == CLOCK_TICK => self.clock_tick(),
            (Event::Woken, _) => self.wake(),
            (
                Event::Cancelled {
                    op: OpKind::Receive,
                    ..
                },
                Some(connection),
            ) => connection.stopped(worker),
            (Event::Failed { op, error, .. }, connection) => match (op, connection) {
                (OpKind::Timeout, _) => worker.time_again(token),
                (OpKind::Accept, _) => {
                    if let Some(listener) = listener_at(&mut self.listeners, slot) {
                        listener.failed(worker, &error);
                    }
                }
                (_, Some(connection)) => connection.failed(worker, op, &error),
                (_, None) => tracing::trace!(?op, %error, "nothing follows from this"),
            },
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

    /// Has some of the long messages received that wait for it. What is received in one turn is to
    /// be in the cache still when it is unmasked and sent.
    fn receive_long_messages(&mut self) {
        for _ in 0..LONG_MESSAGES_PER_TURN {
            let Some(socket) = self.worker.long_messages.pop_front() else {
                return;
            };
            if let Some(connection) = self.connections.find(socket) {
                connection.receive_rest(&mut self.worker);
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
        for slot in sweep.slots(now, self.connections.end()) {
            let Some(connection) = self.connections.at(slot) else {
                continue;
            };
            self.open += 1;
            connection.downgrade_receive(worker);
            let action = tick.action(connection.phase(), connection.activity());
            match action {
                IdleAction::Keep => {}
                IdleAction::Ping => connection.ping(worker),
                IdleAction::HandshakeTimeout => connection.time_out_request(worker),
                IdleAction::IdleTimeout => connection.time_out(worker),
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
        match self.memory_release.step(open, traffic, Instant::now()) {
            memory_release::Step::Keep => return,
            memory_release::Step::Shrink => {
                self.connections.shrink_to_fit();
                self.replies = Vec::new();
                self.worker.shrink_to_fit();
            }
            memory_release::Step::Collect => {}
        }
        self.worker.buffer_pool = BufferPool::default();
        self.worker.ring.release_buffers();
        memory_release::collect();
    }

    /// Ends what is over its time, and gives the listeners another try.
    fn clock_tick(&mut self) {
        let worker = &mut self.worker;
        worker.clock.advance();
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
            worker.start_clock();
        }
        for listener in &mut self.listeners {
            listener.retry_if_pending(worker);
        }
    }

    /// The worker was woken: there is something in its mailbox or room in another's, a connection
    /// was accepted for it, or the drain begins.
    fn wake(&mut self) {
        self.woken = true;
        self.fanout.wake();
        let worker = &mut self.worker;
        let handed_over = worker.server.handover.take(worker.index);
        if !handed_over.is_empty() {
            self.handed_over.extend(handed_over);
            listener::take_over(worker, &mut self.connections, &mut self.handed_over);
        }
        if !worker.draining && worker.server.is_draining() {
            worker.draining = true;
            tracing::debug!(worker = worker.index, stats = ?worker.ring.stats(), "draining");
            for listener in &mut self.listeners {
                listener.close(worker);
            }
            self.handed_over.clear();
            for connection in self.connections.iter_mut() {
                connection.drain(worker);
            }
        }
    }
}

/// The listener whose socket has this slot.
fn listener_at(listeners: &mut [Listener], slot: usize) -> Option<&mut Listener> {
    listeners.iter_mut().find(|listener| listener.is_at(slot))
}

/// Runs a worker, with a ring and listeners of its own, on this thread. Returns only why it could
/// not begin; reports its index and what wakes it.
pub(crate) fn run(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
    report: &Report<(usize, uring_net::Waker)>,
) -> anyhow::Error {
    let (running, waker) = match begin(index, server, listeners) {
        Ok(begun) => begun,
        Err(error) => return error,
    };
    // Nobody listens any more when another worker has failed; then the process ends anyway.
    let _ = report.send(Ok((index, waker)));
    let error = running.run();
    eprintln!("error: worker {index}: its ring broke: {error}");
    process::exit(1);
}

fn begin(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
) -> anyhow::Result<(Loop, uring_net::Waker)> {
    let (mut worker, waker) = Worker::new(index, server)?;
    let listeners = listeners
        .into_iter()
        .map(|socket| Listener::start(&mut worker.ring, socket).context("cannot accept"))
        .collect::<Result<_, _>>()?;
    let running = Loop {
        worker,
        connections: Connections::default(),
        listeners,
        handed_over: VecDeque::new(),
        fanout: FanOut::default(),
        pace: Pace::new(server.spin),
        memory_release: IdleShrink::default(),
        open: 0,
        woken: false,
        replies: Vec::new(),
    };
    Ok((running, waker))
}
