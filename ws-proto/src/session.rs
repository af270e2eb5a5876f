//! One open connection: frames to events, assembly of messages, the closing handshake.

use crate::{
    CloseCode, Data, Limits, OpCode, Violation, close,
    frame::{self, BINARY, Expect, FIN, Plain, TEXT},
    intake::{Payload, Step},
    mask::{mask, random_key},
    partial::Partial,
    utf8,
    violation::Rule,
};

/// Which end of the connection this is. A server demands masked frames and sends unmasked ones, a
/// client the reverse (RFC 6455, section 5.1).
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
    /// Our Close is written, the peer's has not arrived. Messages still arrive; nothing more may be
    /// sent.
    CloseSent,
    /// The peer's Close arrived and waits for [`Session::answer_close`] or [`Session::close`].
    /// Input is ignored.
    CloseReceived,
    /// Both Close frames have passed, or the peer broke the protocol and our Close is written.
    /// Input is ignored; close TCP when the output is written.
    // RFC 6455 section 5.5.1: tcp-is-closed
    Closed,
}

/// What the peer sent. Slices borrow from the input, or for what arrived in pieces from the
/// [`Input`]'s own storage.
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
    /// The peer's Close: the last event of a connection. In [`State::CloseReceived`] it must be
    /// answered.
    Close {
        /// `None` for a Close without payload (which the RFC calls 1005).
        code: Option<CloseCode>,
        /// Text for a log, at most 123 bytes.
        reason: &'a str,
    },
}

/// The first part of a message that a buffer does not hold whole: see [`Session::take_begun`].
#[derive(Debug, PartialEq, Eq)]
pub struct Begun<'a> {
    /// Bytes of the whole payload.
    pub payload_len: usize,
    /// The first of them, fewer than that.
    pub first: &'a [u8],
}

/// A receive buffer being taken apart. Lives for one receive: make it, call [`Session::receive`]
/// until `None`, drop it. Dropping it earlier loses the bytes not yet looked at.
#[derive(Debug)]
pub struct Input<'b> {
    buf: &'b mut [u8],
    at: usize,
    /// A payload that was completed from the side buffer, kept here so that the event can borrow
    /// it.
    completed: Vec<u8>,
}

impl<'b> Input<'b> {
    /// All of `buf` is input, in the order received; it will be unmasked in place.
    #[inline]
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self {
            buf,
            at: 0,
            completed: Vec::new(),
        }
    }

    #[inline]
    fn payload(&mut self, payload: Payload) -> &mut [u8] {
        match payload {
            Payload::Here(range) => &mut self.buf[range],
            Payload::Side { bytes, room } => {
                self.completed = bytes;
                &mut self.completed[room..]
            }
        }
    }
}

/// One connection after its opening handshake. At most 64 bytes while nothing is half received;
/// what is half received lives in a side buffer that is freed when it is empty again.
#[derive(Debug)]
pub struct Session {
    pub(crate) limits: Limits,
    pub(crate) role: Role,
    pub(crate) state: State,
    /// The peer broke the protocol and our Close is not written yet.
    failed: bool,
    /// Code of the peer's Close, for the answer.
    pub(crate) peer_code: Option<u16>,
    pub(crate) partial: Option<Box<Partial>>,
}

/// Hundreds of thousands of idle connections are held: each byte here counts.
const _: () = assert!(size_of::<Session>() <= 64);

impl Session {
    /// A session in [`State::Open`].
    #[must_use]
    pub fn new(role: Role, mut limits: Limits) -> Self {
        // A message without a frame does not exist.
        limits.max_fragments = limits.max_fragments.max(1);
        Self {
            limits,
            role,
            state: State::Open,
            failed: false,
            peer_code: None,
            partial: None,
        }
    }

    /// The next event in `input`; `Ok(None)` when the input is used up (a partial frame is kept
    /// inside) or no longer matters (after a Close). Call until `None`.
    ///
    /// Messages and pings still arrive in [`State::CloseSent`]; they must not be answered then.
    ///
    /// # Errors
    /// The peer broke the protocol. The session still has to tell it: call [`close`](Self::close)
    /// with [`Violation::code`], send that, close TCP. Further input is ignored.
    #[inline]
    pub fn receive<'a>(
        &'a mut self,
        input: &'a mut Input<'_>,
    ) -> Result<Option<Event<'a>>, Violation> {
        if self.is_at_frame_start() {
            let max = self.limits.max_message_bytes as usize;
            if let Some(plain) =
                frame::parse_plain(&input.buf[input.at..], self.role == Role::Server, max)
            {
                return self.receive_plain(plain, input).map(Some);
            }
        }
        let step = self.next_step(input.buf, &mut input.at)?;
        Ok(match step {
            Step::Starved => None,
            Step::Message { kind, payload } => Some(Event::Message {
                kind,
                payload: input.payload(payload),
            }),
            Step::Ping(payload) => Some(Event::Ping(input.payload(payload))),
            Step::Pong(payload) => Some(Event::Pong(input.payload(payload))),
            Step::Close { code, payload } => {
                let reason = close::reason(input.payload(payload));
                Some(Event::Close {
                    code: code.map(CloseCode::from),
                    reason,
                })
            }
        })
    }

    /// Of a client: takes an unfragmented binary message that begins in `input` and ends behind it,
    /// so that its receiver can look at it as it arrives and nobody has to put it together. `None`
    /// where `input` goes on with anything else, which is left for [`receive`](Self::receive).
    ///
    /// The next `payload_len - first.len()` bytes from the peer belong to the caller. The session
    /// must see only what comes behind them.
    pub fn take_begun<'a>(&mut self, input: &'a mut Input<'_>) -> Option<Begun<'a>> {
        // A server would have to unmask the rest, too.
        if self.role == Role::Server || !self.is_at_frame_start() {
            return None;
        }
        let expect = Expect {
            masked: false,
            in_message: false,
            fragment_allowed: true,
            room: self.limits.max_message_bytes as usize,
        };
        // A violation is reported by `receive`.
        let header = frame::parse(&input.buf[input.at..], expect).ok()??;
        let start = input.at + header.len;
        let is_begun =
            header.fin && header.opcode == BINARY && header.payload_len > input.buf.len() - start;
        if !is_begun {
            return None;
        }
        input.at = input.buf.len();
        Some(Begun {
            payload_len: header.payload_len,
            first: &input.buf[start..],
        })
    }

    /// The common case, apart so that it stays short.
    #[inline]
    fn receive_plain<'a>(
        &mut self,
        plain: Plain,
        input: &'a mut Input<'_>,
    ) -> Result<Event<'a>, Violation> {
        let start = input.at + plain.header_len;
        input.at = start + plain.payload_len;
        let payload = &mut input.buf[start..input.at];
        if self.role == Role::Server {
            mask(payload, plain.key);
        }
        let kind = if plain.first == FIN | TEXT {
            Kind::Text
        } else {
            Kind::Binary
        };
        // RFC 6455 section 5.6: text-is-utf8
        // RFC 6455 section 8.1: invalid-utf8-fails
        if kind == Kind::Text && !utf8::is_valid(payload) {
            self.fail();
            return Err(Violation(Rule::TextNotUtf8));
        }
        Ok(Event::Message { kind, payload })
    }

    /// Appends our Close frame to `out`: the start of a closing handshake, the answer to the peer's
    /// Close, or the last word after a violation. Does nothing when our Close is already written.
    ///
    /// A code that must not be on the wire (1005, 1006, 1015, unassigned ones; section 7.4) gives a
    /// Close without payload. `reason` is cut to 123 bytes at a character boundary.
    // RFC 6455 section 7.1.2: close-has-code
    pub fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) {
        self.state = match self.state {
            State::CloseReceived => State::Closed,
            State::Open if self.failed => State::Closed,
            State::Open => State::CloseSent,
            State::CloseSent | State::Closed => return,
        };
        close::append(code, reason, self.fresh_key(), out);
    }

    /// Answers the peer's Close with the code it sent (section 5.5.1). Does nothing in any state
    /// but [`State::CloseReceived`].
    // RFC 6455 section 5.5.1: close-is-answered
    pub fn answer_close(&mut self, out: &mut Vec<u8>) {
        if self.state == State::CloseReceived {
            let code = self.peer_code.map_or(CloseCode::Status, CloseCode::from);
            self.close(code, "", out);
        }
    }

    /// How far the closing handshake is. After a violation it stays what it was until
    /// [`close`](Self::close) is called; it is [`State::Closed`] at once if our Close was already
    /// written.
    #[must_use]
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// The role given at the start.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether no partial frame and no partial message is held, thus no memory beyond the session
    /// itself.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether input matters and nothing is half received: the next byte begins a frame and a
    /// message.
    #[must_use]
    #[inline]
    pub fn is_at_frame_start(&self) -> bool {
        self.partial.is_none() && self.is_listening()
    }

    /// Whether input still matters.
    #[inline]
    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.state, State::Open | State::CloseSent) && !self.failed
    }

    /// The peer broke the protocol: nothing it sends matters any more.
    // RFC 6455 section 7.1.7: deaf-after-failure
    #[cold]
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.partial = None;
        if self.state == State::CloseSent {
            self.state = State::Closed;
        }
    }

    /// A masking key, where this role needs one.
    // RFC 6455 section 5.3: fresh-key
    // RFC 6455 section 5.5.1: close-is-masked
    pub(crate) fn fresh_key(&self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(random_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Control, encode_frame, encode_masked_frame};

    const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    fn server() -> Session {
        Session::new(Role::Server, Limits::default())
    }

    fn close_frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_masked_frame(OpCode::Control(Control::Close), payload, KEY, &mut out);
        out
    }

    // RFC 6455 section 6.2: parsed-as-frames, server-unmasks
    #[test]
    fn the_rfc_examples_are_read() {
        // Section 5.7.
        let mut masked_hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mut input = Input::new(&mut masked_hello);
        let mut session = server();
        assert_eq!(
            session.receive(&mut input),
            Ok(Some(Event::Message {
                kind: Kind::Text,
                payload: &mut b"Hello".to_owned()
            }))
        );
        assert_eq!(session.receive(&mut input), Ok(None));

        let mut fragments = [0x01, 0x03, b'H', b'e', b'l', 0x80, 0x02, b'l', b'o'];
        let mut input = Input::new(&mut fragments);
        let mut session = Session::new(Role::Client, Limits::default());
        assert_eq!(
            session.receive(&mut input),
            Ok(Some(Event::Message {
                kind: Kind::Text,
                payload: &mut b"Hello".to_owned()
            }))
        );
        assert!(session.is_idle());
    }

    #[test]
    fn a_message_can_be_taken_while_it_arrives() {
        let mut stream = Vec::new();
        encode_frame(OpCode::Data(Data::Binary), &[7; 300], &mut stream);
        let end = stream.len();
        encode_frame(OpCode::Data(Data::Text), b"next", &mut stream);
        // A header that is not whole yet is not taken: see below.
        for cut in 4..end {
            let mut session = Session::new(Role::Client, Limits::default());
            let mut input = Input::new(&mut stream[..cut]);
            let begun = session.take_begun(&mut input).unwrap();
            assert_eq!(
                (begun.payload_len, begun.first),
                (300, &[7; 300][..cut - 4])
            );
            let rest = end - cut;
            assert_eq!(rest, begun.payload_len - begun.first.len());
            assert_eq!(session.receive(&mut input), Ok(None));
            assert!(session.is_idle());
            let mut input = Input::new(&mut stream[cut + rest..]);
            assert_eq!(session.take_begun(&mut input), None);
            assert_eq!(
                session.receive(&mut input),
                Ok(Some(Event::Message {
                    kind: Kind::Text,
                    payload: &mut b"next".to_owned()
                }))
            );
        }
    }

    #[test]
    fn only_the_begin_of_a_binary_message_is_taken() {
        let limits = Limits {
            max_message_bytes: 1000,
            ..Limits::default()
        };
        // Whole; text; a fragment; a ping; the header not whole; a length beyond the limit.
        for bytes in [
            &[0x82, 1, b'x'][..],
            &[0x81, 5, b'x'],
            &[0x02, 5, b'x'],
            &[0x89, 5, b'x'],
            &[0x82, 126, 1],
            &[0x82, 126, 0xFF, 0xFF, b'x'],
        ] {
            let mut bytes = bytes.to_vec();
            let mut session = Session::new(Role::Client, limits);
            let mut input = Input::new(&mut bytes);
            assert_eq!(session.take_begun(&mut input), None);
            assert_eq!(input.at, 0);
        }
        // Between the fragments of a message; and what a client sends, which is masked.
        let mut session = Session::new(Role::Client, limits);
        let mut fragment = [0x02, 1, b'x'];
        assert_eq!(session.receive(&mut Input::new(&mut fragment)), Ok(None));
        let mut begin = [0x82, 5, b'x'];
        assert_eq!(session.take_begun(&mut Input::new(&mut begin)), None);
        let mut masked = [0x82, 0x85, 1, 2, 3, 4, b'x'];
        assert_eq!(server().take_begun(&mut Input::new(&mut masked)), None);
    }

    #[test]
    fn the_side_buffer_is_freed_when_empty() {
        let mut bytes = [0x82, 0x83, 1, 2, 3, 4, 5, 6, 7];
        let mut session = server();
        let last = bytes.len() - 1;
        for byte in &mut bytes[..last] {
            assert_eq!(
                session.receive(&mut Input::new(std::slice::from_mut(byte))),
                Ok(None)
            );
            assert!(!session.is_idle());
        }
        let mut input = Input::new(&mut bytes[last..]);
        assert_eq!(
            session.receive(&mut input),
            Ok(Some(Event::Message {
                kind: Kind::Binary,
                payload: &mut [5 ^ 1, 6 ^ 2, 7 ^ 3]
            }))
        );
        assert!(session.is_idle());
    }

    // RFC 6455 section 5.5.1: close-is-answered
    #[test]
    fn a_close_is_answered_with_its_code() {
        for (payload, code, answer) in [
            (
                &b"\x0f\xa0bye"[..],
                Some(CloseCode::Library(4000)),
                &[0x88, 2, 0x0f, 0xa0][..],
            ),
            (b"", None, &[0x88, 0]),
        ] {
            let mut bytes = close_frame(payload);
            bytes.extend_from_slice(&[0xFF; 9]); // ignored
            let mut session = server();
            let mut input = Input::new(&mut bytes);
            let reason = if code.is_some() { "bye" } else { "" };
            assert_eq!(
                session.receive(&mut input),
                Ok(Some(Event::Close { code, reason }))
            );
            assert_eq!(session.state(), State::CloseReceived);
            assert_eq!(session.receive(&mut input), Ok(None));
            let mut out = Vec::new();
            session.answer_close(&mut out);
            session.answer_close(&mut out);
            session.close(CloseCode::Away, "", &mut out);
            assert_eq!((session.state(), &out[..]), (State::Closed, answer));
        }
    }

    // RFC 6455 section 7.1.2: close-has-code
    #[test]
    fn our_close_waits_for_the_answer() {
        let mut session = server();
        let mut out = Vec::new();
        session.close(CloseCode::Away, "drain", &mut out);
        session.close(CloseCode::Normal, "", &mut out);
        assert_eq!(out, *b"\x88\x07\x03\xe9drain");
        assert_eq!(session.state(), State::CloseSent);
        let mut bytes = Vec::new();
        encode_masked_frame(OpCode::Control(Control::Ping), b"late", KEY, &mut bytes);
        bytes.extend(close_frame(b"\x03\xe9"));
        let mut input = Input::new(&mut bytes);
        assert_eq!(session.receive(&mut input), Ok(Some(Event::Ping(b"late"))));
        assert_eq!(
            session.receive(&mut input),
            Ok(Some(Event::Close {
                code: Some(CloseCode::Away),
                reason: ""
            }))
        );
        assert_eq!(session.state(), State::Closed);
        session.answer_close(&mut out);
        assert_eq!(out.len(), 9);
    }

    // RFC 6455 section 5.1: client-masks
    // RFC 6455 section 5.5.1: close-is-masked
    #[test]
    fn a_client_masks_its_close() {
        let mut session = Session::new(Role::Client, Limits::default());
        let mut out = Vec::new();
        session.close(CloseCode::Normal, "", &mut out);
        assert_eq!(out[..2], [0x88, 0x82]);
        let mut server = server();
        let mut input = Input::new(&mut out);
        assert_eq!(
            server.receive(&mut input),
            Ok(Some(Event::Close {
                code: Some(CloseCode::Normal),
                reason: ""
            }))
        );
    }

    // RFC 6455 section 7.1.7: deaf-after-failure
    #[test]
    fn a_violation_is_told_once_and_ends_the_session() {
        let mut unmasked = Vec::new();
        encode_frame(Kind::Text.into(), b"hi", &mut unmasked);
        let mut session = server();
        let violation = session.receive(&mut Input::new(&mut unmasked)).unwrap_err();
        assert_eq!(violation.code(), CloseCode::Protocol);
        assert_eq!(
            session.receive(&mut Input::new(&mut close_frame(b""))),
            Ok(None)
        );
        let mut out = Vec::new();
        session.close(violation.code(), "", &mut out);
        session.close(violation.code(), "", &mut out);
        assert_eq!(
            (session.state(), &out[..]),
            (State::Closed, &[0x88, 2, 0x03, 0xea][..])
        );
    }
}
