//! What a kind of load does with its connections; the [worker](super::worker) does everything else.

use ws_proto::Kind;

use crate::engine::{
    arrivals::Begun,
    shared::{Clock, Times},
    sockets::Sockets,
    stats::Stats,
};

/// What a kind of load works with.
#[derive(Debug)]
pub struct Io<'a> {
    /// The sockets.
    pub sockets: &'a mut Sockets,
    /// The counters.
    pub stats: &'a mut Stats,
    /// The phases.
    pub times: Times,
    /// The clock, for long work.
    pub clock: Clock,
    /// Now, as the worker last looked.
    pub now: u64,
}

/// What becomes of a connection whose handshake is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It stays.
    Keep,
    /// It is closed again, and its place connects anew.
    Recycle,
}

/// A kind of load. Connections are named by their number within the thread.
pub trait Traffic {
    /// A handshake is done.
    fn opened(&mut self, _conn: usize, _begun: Begun, _io: &mut Io<'_>) -> Opened {
        Opened::Keep
    }

    /// A load begins. Nothing is in flight: it is the first, or the one before was drained. It may
    /// be over already, when the thread was woken late.
    fn start(&mut self, io: &mut Io<'_>);

    /// Sends what is due.
    fn tick(&mut self, io: &mut Io<'_>);

    /// When [`tick`](Self::tick) has something to do again, if that is known.
    fn next_due(&self, times: &Times) -> Option<u64>;

    /// Takes whole messages from the front of what has come on `conn`, one after the other, for as
    /// long as each is to the byte what has to come next; how many of `bytes`. The way of nearly
    /// all messages; what it leaves goes through [`message`](Self::message).
    fn take_expected(&mut self, _conn: usize, _bytes: &[u8], _io: &mut Io<'_>) -> usize {
        0
    }

    /// A message arrived.
    fn message(&mut self, conn: usize, kind: Kind, payload: &[u8], io: &mut Io<'_>);

    /// Whether messages of `conn` that a receive buffer does not hold whole are taken in parts:
    /// [`begun`](Self::begun), then [`rest`](Self::rest). Else they are put together.
    fn takes_parts(&self, _conn: usize) -> bool {
        false
    }

    /// A binary message of `len` bytes has begun with `first`, and has not ended.
    fn begun(&mut self, _conn: usize, _len: usize, _first: &[u8]) {}

    /// Takes what belongs to the message that has begun on `conn`, if one has; how many of `bytes`.
    fn rest(&mut self, _conn: usize, _bytes: &[u8], _io: &mut Io<'_>) -> usize {
        0
    }

    /// The connection has done its work: it is closed, and its place connects anew.
    fn is_done(&self, _conn: usize) -> bool {
        false
    }

    /// A connection that had done its work got the answer to its Close.
    fn has_left(&mut self, _conn: usize, _io: &mut Io<'_>) {}

    /// The socket is closed. True when the answer to a Close was still to come.
    fn ended(&mut self, _conn: usize) -> bool {
        false
    }

    /// The connection is gone.
    fn lost(&mut self, conn: usize);

    /// The drain is nearly over: what still waits for a place is not sent any more, so that only
    /// what is in flight can be missing.
    fn give_up(&mut self) {}

    /// Replies are outstanding, or messages that could still be sent.
    fn is_busy(&self) -> bool;

    /// The load is over, and no message of it will be sent: counts what the schedule asked for.
    fn finish(&mut self, times: &Times, stats: &mut Stats);
}
