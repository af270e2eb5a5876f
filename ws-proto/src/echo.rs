//! Echo: the replies to a whole buffer, written over the requests.

use std::ops::Range;

use crate::{CloseCode, Session, Violation};

/// What one call of [`Session::echo`] did.
#[derive(Debug)]
pub struct Echo {
    /// Where the bytes to send are.
    pub reply: Reply,
    /// Messages echoed.
    pub messages: u64,
    /// Their payload, in bytes.
    pub payload_bytes: u64,
    /// Pings answered.
    pub pings: u64,
    /// Set when the connection ends: send the reply, then close TCP. Further input is ignored.
    pub end: Option<End>,
}

/// Where the replies of one [`Session::echo`] are, all of them, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing to send.
    None,
    /// This range of the input buffer.
    InPlace(Range<usize>),
    /// What the call appended to `spill`.
    Spilled,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer's Close arrived (its code, if it gave one) and the closing handshake is done: the answer is in the reply, or
    /// it was the answer to ours.
    PeerClosed(Option<CloseCode>),
    /// The peer broke the protocol; the Close frame with [`Violation::code`] is in the reply.
    Violation(Violation),
}

impl Session {
    /// Takes all of `buf` and replies to it: each message is echoed, each ping answered, a Close answered. A message that
    /// lies whole in `buf` is unmasked, given its new header and moved behind the previous reply in one pass, without
    /// copies or allocation. As soon as one reply does not fit in place (a message that arrived in pieces, a Close after a
    /// violation), all replies of this call are appended to `spill` instead; otherwise `spill` is not touched.
    ///
    /// After our own Close nothing is echoed any more (and nothing counted), only the peer's Close is waited for.
    /// Meant for [`Role::Server`](crate::Role::Server); for a client every reply is masked with a fresh key and spilled.
    pub fn echo(&mut self, buf: &mut [u8], spill: &mut Vec<u8>) -> Echo {
        todo!()
    }
}
