//! One open connection: frames to events, assembly of messages, the closing handshake.

use crate::{CloseCode, Control, Data, Limits, OpCode, Violation};

/// Which end of the connection this is. A server demands masked frames and sends unmasked ones, a client the reverse
/// (RFC 6455, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This end accepted the connection.
    Server,
    /// This end opened the connection.
    Client,
}

/// Type of a data message (section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opcode 1; the payload has been checked to be UTF-8.
    Text,
    /// Opcode 2.
    Binary,
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Data(Data::Text),
            Kind::Binary => Self::Data(Data::Binary),
        }
    }
}

/// How far the closing handshake is (section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages flow both ways.
    Open,
    /// Our Close is written, the peer's has not arrived. Messages still arrive; nothing more may be sent.
    CloseSent,
    /// The peer's Close arrived and waits for [`Session::answer_close`] or [`Session::close`]. Input is ignored.
    CloseReceived,
    /// Both Close frames have passed, or the peer broke the protocol and our Close is written. Input is ignored; close TCP
    /// when the output is written.
    Closed,
}

/// What the peer sent. Slices borrow from the input, or for what arrived in pieces from the [`Input`]'s own storage.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, unmasked.
    Message {
        /// Text or binary.
        kind: Kind,
        /// All its bytes. Valid UTF-8 for [`Kind::Text`].
        payload: &'a mut [u8],
    },
    /// A ping: answer with a pong of the same payload, unless closing (section 5.5.2).
    Ping(&'a [u8]),
    /// A pong, asked for or not (section 5.5.3).
    Pong(&'a [u8]),
    /// The peer's Close: the last event of a connection. In [`State::CloseReceived`] it must be answered.
    Close {
        /// `None` for a Close without payload (which the RFC calls 1005).
        code: Option<CloseCode>,
        /// Text for a log, at most 123 bytes.
        reason: &'a str,
    },
}

/// A receive buffer being taken apart. Lives for one receive: make it, call [`Session::receive`] until `None`, drop it.
/// Dropping it earlier loses the bytes not yet looked at.
#[derive(Debug)]
pub struct Input<'b> {
    buf: &'b mut [u8],
    at: usize,
    /// A payload that was completed from the side buffer, kept here so that the event can borrow it.
    completed: Vec<u8>,
}

impl<'b> Input<'b> {
    /// All of `buf` is input, in the order received; it will be unmasked in place.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self {
            buf,
            at: 0,
            completed: Vec::new(),
        }
    }
}

/// One connection after its opening handshake. At most 64 bytes while nothing is half received; what is half received
/// lives in a side buffer that is freed when it is empty again.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    role: Role,
    state: State,
}

impl Session {
    /// A session in [`State::Open`].
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            limits,
            role,
            state: State::Open,
        }
    }

    /// The next event in `input`; `Ok(None)` when the input is used up (a partial frame is kept inside) or no longer
    /// matters (after a Close). Call until `None`.
    ///
    /// # Errors
    /// The peer broke the protocol. The session still has to tell it: call [`close`](Self::close) with
    /// [`Violation::code`], send that, close TCP. Further input is ignored.
    pub fn receive<'a>(
        &'a mut self,
        input: &'a mut Input<'_>,
    ) -> Result<Option<Event<'a>>, Violation> {
        todo!()
    }

    /// Appends our Close frame to `out`: the start of a closing handshake, the answer to the peer's Close, or the last
    /// word after a violation. Does nothing when our Close is already written.
    ///
    /// A code that must not be on the wire (1005, 1006, 1015, unassigned ones; section 7.4) gives a Close without payload.
    /// `reason` is cut to 123 bytes at a character boundary.
    pub fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) {
        todo!()
    }

    /// Answers the peer's Close with the code it sent (section 5.5.1). Does nothing in any state but
    /// [`State::CloseReceived`].
    pub fn answer_close(&mut self, out: &mut Vec<u8>) {
        todo!()
    }

    /// How far the closing handshake is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The role given at the start.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether no partial frame and no partial message is held, thus no memory beyond the session itself.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}
