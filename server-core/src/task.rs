//! The task of a connection, for runtimes with tasks: what others tell it, and what its turns lead
//! to.

use ws_proto::{CloseCode, Session, State, Unfinished};

use crate::control::{GOING_AWAY, IDLE, PING};
use crate::counters::WorkerCounters;

/// How serving a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The peer is gone: nothing can be sent any more.
    Gone,
    /// Our last bytes are sent or in the outbox; the peer is to get them.
    Linger,
}

/// What one turn of reading led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// The connection goes on.
    GoOn,
    /// The peer ended its stream without a word.
    Eof,
    /// Close frames have been exchanged, or ours tells the peer what it did wrong: send what there
    /// is and [linger](Ending::Linger).
    Over,
}

/// A set of signals to the task of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// The peer has been silent: send a ping.
    pub const PING: Self = Self(1);
    /// The peer has been silent for too long.
    pub const IDLE_TIMEOUT: Self = Self(1 << 1);
    /// The request took too long.
    pub const REQUEST_TIMEOUT: Self = Self(1 << 2);
    /// The server is going away.
    pub const DRAIN: Self = Self(1 << 3);
    /// The outbox overflowed.
    pub const SLOW_CONSUMER: Self = Self(1 << 4);
    /// Something is in the outbox that was empty.
    pub const FLUSH: Self = Self(1 << 5);
    /// The fan-out has removed this member: nothing more will be queued for it.
    pub const LEFT: Self = Self(1 << 6);

    /// The set with these [bits](Self::bits).
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// A number to be kept in a cell or an atomic, where sets are joined by `|`.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether any signal of `other` is among these.
    #[inline]
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where less of a message is missing, a copy costs less than a receive for the rest alone.
const STRAIGHT_BYTES: usize = 16 * 1024;
/// After a message longer than a read buffer, so much of the next is received first: a piece that
/// may have to be copied, and tells where the rest can be received straight into its place.
pub const FIRST_PIECE_BYTES: usize = 4096;

/// A long message of which the rest is awaited, to be received straight into it.
pub fn lend(session: &mut Session) -> Option<Unfinished> {
    if !is_long(session) {
        return None;
    }
    session.lend_message()
}

/// Whether there is such a message.
pub fn is_long(session: &Session) -> bool {
    session.missing() >= STRAIGHT_BYTES
}

/// Does what others tell the task of an echo; appends what is to be sent to `out`.
pub fn handle_signals(
    session: &mut Session,
    signals: Signals,
    counters: &WorkerCounters,
    out: &mut Vec<u8>,
) -> Turn {
    if signals.includes(Signals::PING) && session.state() == State::Open {
        out.extend_from_slice(PING);
        counters.pings_sent.add(1);
    }
    if signals.includes(Signals::DRAIN) {
        session.close(CloseCode::Away, GOING_AWAY, out);
    }
    if signals.includes(Signals::IDLE_TIMEOUT) {
        counters.idle_timeouts.add(1);
        session.close(CloseCode::Away, IDLE, out);
        return Turn::Over;
    }
    Turn::GoOn
}

#[cfg(test)]
mod tests {
    use ws_proto::{Data, Limits, OpCode, Role, encode_masked_frame};

    use super::*;

    const BINARY: OpCode = OpCode::Data(Data::Binary);

    #[test]
    fn a_long_message_is_lent_with_room_for_its_rest() {
        const RECEIVED: usize = 100;
        for (announced, room) in [
            // As much as ws-proto reserves, in which the header has ten bytes.
            (10 << 20, Some((1 << 20) + 4096 - 10 - RECEIVED)),
            (1 << 20, Some((1 << 20) - RECEIVED)),
            (STRAIGHT_BYTES + RECEIVED, Some(STRAIGHT_BYTES)),
            (STRAIGHT_BYTES + RECEIVED - 1, None),
        ] {
            let mut frame = Vec::new();
            encode_masked_frame(BINARY, &vec![0; announced], [0; 4], &mut frame);
            frame.truncate(frame.len() - announced + RECEIVED);
            let mut session = Session::new(Role::Server, Limits::default());
            session.echo(&mut frame, &mut Vec::new());
            let lent = lend(&mut session);
            assert_eq!(lent.as_ref().map(|lent| lent.most), room);
            assert!(lent.is_none_or(|lent| lent.bytes.capacity() - lent.bytes.len() >= lent.most));
        }
    }
}
