//! A connection's socket: one send in flight, what waits behind it, and the brake on receiving.

use std::net::Shutdown;

use bytes::Bytes;
use server_core::outbox::LARGEST_PIECE;
use uring_net::{OperationId, ReceivedBuf, Ring, SendBuf, SocketId, Token};
use ws_proto::{MAX_HEADER_BYTES, Session, Unfinished};

use crate::raw::ring::{BUFFER_BYTES, LARGE_BUFFER_BYTES};
use crate::raw::worker::Worker;

/// Replies that may wait behind a send in flight. Beyond it the connection is not read until they
/// are sent.
pub(crate) const HOLD_BYTES: usize = 64 * 1024;
/// Turns after which a send that has not completed waits for the peer: what the socket takes at
/// once completes in the next.
const TURNS_OF_A_PROMPT_SEND: u32 = 1;

/// So many pieces of short messages in a row say that the long ones are over.
const SHORTER_PIECES: u8 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Nothing is in flight.
    Idle,
    /// As `Idle`, if a quiet send has sent everything.
    Quiet,
    /// To be started at the end of this turn.
    Queued,
    /// The ring has it.
    InFlight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    /// By a poll: the peer is expected to be silent.
    Poll,
    /// By a multishot.
    Multishot,
    /// By a multishot into large buffers.
    Large,
    /// One piece: the begin of a message, or the rest of a long one straight into its place.
    Single,
    /// Its turn to receive the rest of a long message has not come.
    Queued,
    /// Being cancelled; what arrives before that is so is still to be taken.
    Stopping,
    /// Stopped.
    Off,
    /// The stream has ended.
    Ended,
}

/// How long a peer's messages are: what it is received from by when it is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lengths {
    /// They fit into a buffer: a multishot.
    Ordinary,
    /// They fit into a large buffer: a multishot into those.
    Large,
    /// They fit into none: one piece, then the rest straight into the message.
    Long,
}

/// One end of a TCP connection.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) socket: SocketId,
    sending: Sending,
    receiving: Receiving,
    lengths: Lengths,
    /// Shorter pieces in a row after which the lengths are what those are.
    patience: u8,
    /// The turn in which the send in flight was started, or the last quiet one.
    since: u32,
    /// Where in its buffer the send in flight ends; there may be more behind.
    end: usize,
    /// To be sent when what is in flight is sent.
    pub(crate) pending: Vec<u8>,
}

/// A reply that is to be sent at the end of the turn: the bytes of the buffer, then whatever is
/// pending.
pub(crate) struct Reply {
    pub(crate) socket: SocketId,
    pub(crate) first: Option<ReceivedBuf>,
}

impl Sender {
    /// Begins to receive, by a poll.
    pub(crate) fn new(ring: &mut Ring, socket: SocketId) -> Self {
        let sender = Self {
            socket,
            sending: Sending::Idle,
            receiving: Receiving::Poll,
            lengths: Lengths::Ordinary,
            patience: 0,
            since: 0,
            end: 0,
            pending: Vec::new(),
        };
        ring.receive_by_poll(socket, sender.token());
        sender
    }

    /// The token of every operation of a socket: its slot.
    fn token(&self) -> Token {
        Token(self.socket.index() as u64)
    }

    /// Whether nothing is being sent or about to be, as far as is known.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.sending, Sending::Idle | Sending::Quiet)
    }

    /// Whether nothing is being sent or about to be, for certain. Otherwise it will be known after
    /// the [start](Self::start) that a [flush](Self::flush) brings about.
    #[inline]
    pub(crate) fn has_sent_all(&self, worker: &Worker) -> bool {
        match self.sending {
            Sending::Idle => true,
            Sending::Quiet => self.is_settled(worker),
            Sending::Queued | Sending::InFlight => false,
        }
    }

    #[inline]
    fn is_settled(&self, worker: &Worker) -> bool {
        worker.quiet_sends.is_settled(self.since, worker.turn)
    }

    /// Whether the send in flight found the socket full: it waits for the peer.
    pub(crate) fn is_stuck(&self, worker: &Worker) -> bool {
        self.sending == Sending::InFlight
            && worker.turn.wrapping_sub(self.since) > TURNS_OF_A_PROMPT_SEND
    }

    /// Sends `reply` at the end of the turn, from where it is; or copies it behind what is being
    /// sent.
    #[inline]
    pub(crate) fn reply(&mut self, worker: &mut Worker, reply: ReceivedBuf) {
        if self.sending == Sending::Idle && self.pending.is_empty() {
            self.sending = Sending::Queued;
            worker.replies.push(Reply {
                socket: self.socket,
                first: Some(reply),
            });
        } else {
            self.append(worker, &reply);
            self.flush(worker);
        }
    }

    /// Puts bytes behind everything else.
    pub(crate) fn append(&mut self, worker: &mut Worker, bytes: &[u8]) {
        if self.pending.capacity() == 0 {
            self.pending = worker.buffer_pool.take();
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Sees to it that whatever waits is sent at the end of the turn.
    pub(crate) fn flush(&mut self, worker: &mut Worker) {
        if self.is_idle() {
            self.sending = Sending::Queued;
            worker.replies.push(Reply {
                socket: self.socket,
                first: None,
            });
        }
    }

    /// The end of a turn in which something was to be sent: `first`, then whatever waits here, or
    /// what is `next` for this connection. Behind a quiet send of this turn it is the end of the
    /// next one.
    #[inline]
    pub(crate) fn start(
        &mut self,
        worker: &mut Worker,
        first: Option<ReceivedBuf>,
        next: impl FnOnce() -> Option<Bytes>,
    ) {
        if self.sending != Sending::Queued {
            // The rest of a quiet send, then what waits.
            return;
        }
        if first.is_none() && !self.is_settled(worker) {
            let socket = self.socket;
            worker.replies.push(Reply { socket, first });
            return;
        }
        self.sending = Sending::Idle;
        match first {
            Some(reply) if self.pending.is_empty() => {
                self.sending = Sending::InFlight;
                self.since = worker.turn;
                // Never waits: a peer that does not read must not hold a buffer that others want to
                // receive into.
                worker.ring.send_now(self.socket, reply, self.token());
            }
            Some(reply) => {
                self.pending.splice(0..0, reply.iter().copied());
                self.send_pending(worker);
            }
            None => self.send_on(worker, next),
        }
    }

    /// Sends what waits here, or what is `next` for this connection, when nothing is in flight.
    #[inline]
    pub(crate) fn send_on(&mut self, worker: &mut Worker, next: impl FnOnce() -> Option<Bytes>) {
        if !self.pending.is_empty() {
            self.send_pending(worker);
        } else if let Some(bytes) = next() {
            let length = bytes.len();
            self.send(worker, bytes.into(), length);
        }
    }

    fn send_pending(&mut self, worker: &mut Worker) {
        let bytes = std::mem::take(&mut self.pending);
        let length = bytes.len().min(LARGEST_PIECE);
        self.send(worker, bytes.into(), length);
    }

    /// Sends the first `length` bytes of `buf`, when nothing is in flight; what is behind them
    /// follows by itself.
    #[inline]
    pub(crate) fn send(&mut self, worker: &mut Worker, buf: SendBuf, length: usize) {
        debug_assert!(self.sending != Sending::InFlight, "one send in flight");
        self.sending = Sending::InFlight;
        self.since = worker.turn;
        self.end = length;
        worker
            .ring
            .send_range(self.socket, buf, 0..length, self.token());
    }

    /// Sends `bytes` when nothing is in flight, and learns of it only if the socket does not take
    /// everything at once.
    #[inline]
    pub(crate) fn send_quietly(&mut self, worker: &mut Worker, bytes: &Bytes) {
        debug_assert!(self.has_sent_all(worker), "one send in flight");
        self.sending = Sending::Quiet;
        self.since = worker.turn;
        worker.ring.send_quietly(self.socket, bytes);
    }

    /// A send has completed: `sent` bytes of `buf`. Goes on with what is left of it, what waits
    /// here, or what is `next` for this connection.
    #[inline]
    pub(crate) fn sent(
        &mut self,
        worker: &mut Worker,
        buf: SendBuf,
        sent: usize,
        next: impl FnOnce() -> Option<Bytes>,
    ) {
        self.sending = Sending::Idle;
        match buf {
            SendBuf::Received(reply) if sent < reply.len() => {
                self.pending.splice(0..0, reply[sent..].iter().copied());
            }
            SendBuf::Received(_) | SendBuf::Shared(_) => {}
            SendBuf::Owned(bytes) if self.end < bytes.len() => {
                let start = self.end;
                self.sending = Sending::InFlight;
                self.since = worker.turn;
                self.end = bytes.len().min(start + LARGEST_PIECE);
                let token = self.token();
                let ring = &mut worker.ring;
                ring.send_range(self.socket, bytes, start..self.end, token);
                return;
            }
            SendBuf::Owned(bytes) => worker.buffer_pool.put(bytes),
        }
        self.send_on(worker, next);
    }

    /// Restarts receiving, if it was stopped, by a multishot: a peer that had to be paused is
    /// active.
    pub(crate) fn receive(&mut self, ring: &mut Ring) {
        if self.receiving != Receiving::Off {
            return;
        }
        if self.lengths == Lengths::Ordinary {
            self.receiving = Receiving::Multishot;
            ring.receive(self.socket, self.token());
        } else {
            self.receiving = Receiving::Large;
            ring.receive_large(self.socket, self.token());
        }
    }

    /// As [`receive`](Self::receive) for an echo. For what is missing of a long message it queues.
    pub(crate) fn receive_message(&mut self, worker: &mut Worker, session: &Session) {
        if self.receiving != Receiving::Off || self.lengths != Lengths::Long {
            self.receive(&mut worker.ring);
        } else if session.missing() > 0 {
            self.receiving = Receiving::Queued;
            worker.long_messages.push_back(self.socket);
        } else {
            self.receiving = Receiving::Single;
            worker.ring.receive_once(self.socket, self.token());
        }
    }

    /// Receives what is missing of a long message straight into it: its turn has come.
    pub(crate) fn receive_rest(&mut self, ring: &mut Ring, session: &mut Session) {
        if self.receiving != Receiving::Queued {
            return;
        }
        self.receiving = Receiving::Single;
        match session.lend_message() {
            Some(Unfinished { bytes, most }) => {
                ring.receive_into(self.socket, bytes, most, self.token())
            }
            None => ring.receive_once(self.socket, self.token()),
        };
    }

    /// A receive has given a piece.
    #[inline]
    pub(crate) fn received(&mut self) {
        if matches!(self.receiving, Receiving::Single | Receiving::Queued) {
            self.receiving = Receiving::Off;
        }
    }

    /// Whether nothing will be received before it is asked for.
    #[inline]
    pub(crate) fn is_silent(&self) -> bool {
        self.receiving == Receiving::Off
    }

    /// Receives as it fits a peer that has sent a piece of `bytes` bytes in which `frames` frames
    /// ended; the `session` knows what is still to come.
    #[inline]
    pub(crate) fn adapt(&mut self, ring: &mut Ring, bytes: usize, frames: u64, session: &Session) {
        // A large piece of short frames only makes more wait at a time.
        let is_large = bytes as u64 > u64::from(BUFFER_BYTES) * frames.max(1);
        let now = if session.missing() > LARGE_BUFFER_BYTES as usize {
            Lengths::Long
        } else if is_large || session.announced() > BUFFER_BYTES as usize - MAX_HEADER_BYTES {
            Lengths::Large
        } else {
            Lengths::Ordinary
        };
        if now != Lengths::Ordinary || self.lengths != Lengths::Ordinary {
            self.adapt_to(ring, now);
        }
    }

    fn adapt_to(&mut self, ring: &mut Ring, now: Lengths) {
        if now < self.lengths && self.patience > 0 {
            self.patience -= 1;
            return;
        }
        self.lengths = now;
        self.patience = SHORTER_PIECES;
        match (now, self.receiving) {
            (Lengths::Long, Receiving::Poll | Receiving::Multishot | Receiving::Large) => {
                self.stop_receiving(ring);
            }
            (Lengths::Large, Receiving::Poll | Receiving::Multishot) => {
                self.receiving = Receiving::Large;
                ring.receive_large(self.socket, self.token());
            }
            (Lengths::Ordinary, Receiving::Large) => {
                self.receiving = Receiving::Multishot;
                ring.receive_by_multishot(self.socket);
            }
            _ => {}
        }
    }

    /// The peer is busy.
    #[inline]
    pub(crate) fn receive_by_multishot(&mut self, ring: &mut Ring) {
        if self.receiving == Receiving::Poll {
            self.receiving = Receiving::Multishot;
            ring.receive_by_multishot(self.socket);
        }
    }

    /// The peer is silent, with nothing of a message missing.
    pub(crate) fn receive_by_poll(&mut self, ring: &mut Ring) {
        if matches!(
            self.receiving,
            Receiving::Multishot | Receiving::Large | Receiving::Single
        ) {
            self.receiving = Receiving::Poll;
            self.lengths = Lengths::Ordinary;
            ring.receive_by_poll(self.socket, self.token());
        }
    }

    /// Stops receiving. What the kernel has already put into buffers still arrives.
    pub(crate) fn stop_receiving(&mut self, ring: &mut Ring) {
        if matches!(
            self.receiving,
            Receiving::Poll | Receiving::Multishot | Receiving::Large
        ) {
            self.receiving = Receiving::Stopping;
            ring.cancel(OperationId::receive_of(self.socket));
        }
    }

    /// Ends our direction: the peer reads the end of the stream after our last bytes.
    // RFC 6455 section 5.5.1: tcp-is-closed, server-closes-at-once
    // RFC 6455 section 7.1.7: server-fails
    pub(crate) fn shut_down(&self, ring: &mut Ring) {
        ring.deliver_on_close(self.socket);
        ring.shutdown(self.socket, Shutdown::Write, self.token());
    }

    pub(crate) fn stopped(&mut self) {
        self.receiving = Receiving::Off;
    }

    pub(crate) fn ended(&mut self) {
        self.receiving = Receiving::Ended;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.receiving == Receiving::Ended
    }
}

/// Vectors for replies that had to be copied, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(Vec<Vec<u8>>);

impl BufferPool {
    /// How many are kept.
    const KEPT: usize = 64;

    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, mut bytes: Vec<u8>) {
        if self.0.len() < Self::KEPT && bytes.capacity() <= HOLD_BYTES {
            bytes.clear();
            self.0.push(bytes);
        }
    }
}
