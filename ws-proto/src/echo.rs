//! Echo: the replies to a whole buffer, written over the requests.

use std::ops::Range;

use crate::{
    CloseCode, Kind, Role, Session, State, Violation,
    close::CODE_BYTES,
    frame::{self, BINARY, CLOSE, FIN, PONG, TEXT},
    intake::{Payload, Step},
    mask::mask_down,
    utf8,
    violation::Rule,
};

/// What one call of [`Session::echo`] did.
#[derive(Debug)]
pub struct Echo {
    /// Where the bytes to send are.
    pub reply: Reply,
    /// Messages echoed.
    pub messages: u64,
    /// Pings answered.
    pub pings: u64,
    /// Pongs taken in.
    pub pongs: u64,
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
    /// The peer's Close arrived (its code, if it gave one) and the closing handshake is done: the
    /// answer is in the reply, or it was the answer to ours.
    PeerClosed(Option<CloseCode>),
    /// The peer broke the protocol; the Close frame with [`Violation::code`] is in the reply.
    Violation(Violation),
}

impl Session {
    /// Takes all of `buf` and replies to it: each message is echoed, each ping answered, a Close
    /// answered. A message that lies whole in `buf` is unmasked, given its new header and moved
    /// behind the previous reply in one pass, without copies or allocation. As soon as one reply
    /// does not fit in place (a message that arrived in pieces, a Close after a violation), all
    /// replies of this call are appended to `spill` instead; otherwise `spill` is not touched.
    ///
    /// A message that arrived in pieces is not copied either, where nothing waits in `spill`: its
    /// own bytes, behind the reply's header, become the spill. Of a long one the rest is best
    /// received straight into it: see [`lend_message`](Self::lend_message).
    ///
    /// After our own Close nothing is echoed any more (and nothing counted), only the peer's Close
    /// is waited for. Meant for [`Role::Server`](crate::Role::Server); for a client every reply is
    /// masked with a fresh key and spilled.
    pub fn echo(&mut self, buf: &mut [u8], spill: &mut Vec<u8>) -> Echo {
        let mut replies = Replies {
            buf,
            run: 0..0,
            spill_start: spill.len(),
            spill,
            spilled: false,
        };
        let mut echo = Echo {
            reply: Reply::None,
            messages: 0,
            pings: 0,
            pongs: 0,
            end: None,
        };
        let mut at = 0;
        let outcome = loop {
            if self.may_echo_plainly()
                && !replies.spilled
                && !self.echo_plain(&mut replies, &mut at, &mut echo)
            {
                self.fail();
                break Err(Violation(Rule::TextNotUtf8));
            }
            if at == replies.buf.len() && !self.has_untouched() {
                break Ok(());
            }
            match self.next_step(replies.buf, &mut at) {
                Ok(Step::Starved) => break Ok(()),
                Ok(step) => self.reply_to(step, &mut replies, &mut echo),
                Err(violation) => break Err(violation),
            }
        };
        if let Err(violation) = outcome {
            self.reply_to_violation(violation, &mut replies);
            echo.end = Some(End::Violation(violation));
        }
        echo.reply = replies.finish();
        echo
    }

    /// Whether nothing is half received and a plain frame may be echoed without a further look at
    /// the state.
    #[inline]
    fn may_echo_plainly(&self) -> bool {
        self.role == Role::Server && self.state == State::Open && self.is_at_frame_start()
    }

    /// Echoes plain frames as long as there are some at the front: the hot path. `false` when a
    /// text is not UTF-8.
    #[inline]
    fn echo_plain(&self, replies: &mut Replies<'_>, at: &mut usize, echo: &mut Echo) -> bool {
        let buf = &mut *replies.buf;
        let Range { mut start, mut end } = replies.run;
        let (mut read, mut messages) = (*at, 0);
        let mut is_utf8 = true;
        while let Some(plain) =
            frame::parse_plain(&buf[read..], true, self.limits.max_message_bytes as usize)
        {
            // The reply's header lacks the key, so there is always room for it before the payload.
            let header_len = plain.header_len - frame::KEY_BYTES;
            if start == end {
                start = read + frame::KEY_BYTES;
                end = start;
            }
            let payload = read + plain.header_len;
            read = payload + plain.payload_len;
            let window = &mut buf[end..read];
            frame::write_header(plain.first, plain.payload_len, None, window);
            let moved = &mut window[header_len..];
            mask_down(moved, payload - end - header_len, plain.key);
            if plain.first == FIN | TEXT && !utf8::is_valid(&moved[..plain.payload_len]) {
                is_utf8 = false;
                break;
            }
            end += header_len + plain.payload_len;
            messages += 1;
        }
        replies.run = start..end;
        *at = read;
        echo.messages += messages;
        is_utf8
    }

    // RFC 6455 section 5.5.1: nothing-after-close
    // RFC 6455 section 5.5.2: ping-is-answered
    // RFC 6455 section 5.5.3: pong-repeats
    // RFC 6455 section 6.1: open-to-send
    fn reply_to(&mut self, step: Step, replies: &mut Replies<'_>, echo: &mut Echo) {
        match step {
            Step::Message { kind, payload } if self.state == State::Open => {
                echo.messages += 1;
                let opcode = if kind == Kind::Text { TEXT } else { BINARY };
                replies.add(FIN | opcode, payload, self.fresh_key());
            }
            Step::Ping(payload) if self.state == State::Open => {
                echo.pings += 1;
                replies.add(FIN | PONG, payload, self.fresh_key());
            }
            Step::Close { code, payload } => {
                if self.state == State::CloseReceived {
                    self.state = State::Closed;
                    replies.add(FIN | CLOSE, payload.shortened(CODE_BYTES), self.fresh_key());
                }
                echo.end = Some(End::PeerClosed(code.map(CloseCode::from)));
            }
            Step::Pong(_) => echo.pongs += 1,
            Step::Message { .. } | Step::Ping(_) | Step::Starved => {}
        }
    }

    // RFC 6455 section 7.1.7: server-fails
    #[cold]
    fn reply_to_violation(&mut self, violation: Violation, replies: &mut Replies<'_>) {
        if self.state == State::Open {
            replies.spill_over();
            self.close(violation.code(), violation.reason(), replies.spill);
        }
    }
}

/// The replies so far: a contiguous run in the buffer, or all of them in the spill.
struct Replies<'b> {
    buf: &'b mut [u8],
    /// Where they are in `buf`; empty before the first.
    run: Range<usize>,
    spill: &'b mut Vec<u8>,
    spill_start: usize,
    spilled: bool,
}

impl Replies<'_> {
    /// Where a reply begins that could begin at `preferred` without moving its payload: there if it
    /// is the first one, else behind the previous.
    #[inline]
    fn start_for(&self, preferred: usize) -> usize {
        if self.run.is_empty() {
            preferred
        } else {
            self.run.end
        }
    }

    /// Where the run begins once a reply at `reply` is part of it.
    #[inline]
    fn start_of(&self, reply: usize) -> usize {
        if self.run.is_empty() {
            reply
        } else {
            self.run.start
        }
    }

    /// Adds a frame: in place if its payload is in the buffer and its header fits before it, else
    /// everything spills.
    fn add(&mut self, first: u8, payload: Payload, key: Option<[u8; frame::KEY_BYTES]>) {
        match payload {
            Payload::Here(range) if !self.spilled && key.is_none() && self.fits(&range) => {
                let header_len = frame::unmasked_header_len(range.len());
                let reply = self.start_for(range.start - header_len);
                frame::write_header(first, range.len(), None, &mut self.buf[reply..]);
                let end = reply + header_len + range.len();
                self.buf.copy_within(range, reply + header_len);
                self.run = self.start_of(reply)..end;
            }
            Payload::Here(range) => {
                self.spill_over();
                frame::append(first, &self.buf[range], key, self.spill);
            }
            Payload::Side { bytes, room } if key.is_none() && self.is_empty() && room > 0 => {
                self.spilled = true;
                *self.spill = frame::write_before(first, bytes, room);
            }
            Payload::Side { bytes, room } => {
                self.spill_over();
                frame::append(first, &bytes[room..], key, self.spill);
            }
        }
    }

    /// Whether nothing is to be sent before what comes next.
    fn is_empty(&self) -> bool {
        self.run.is_empty() && self.spill.is_empty()
    }

    /// Whether there is room for the header between the run and the payload.
    fn fits(&self, payload: &Range<usize>) -> bool {
        self.run.end + frame::unmasked_header_len(payload.len()) <= payload.start
    }

    #[cold]
    fn spill_over(&mut self) {
        if !self.spilled {
            self.spilled = true;
            self.spill.extend_from_slice(&self.buf[self.run.clone()]);
        }
    }

    fn finish(self) -> Reply {
        if self.spill.len() > self.spill_start {
            Reply::Spilled
        } else if self.run.is_empty() {
            Reply::None
        } else {
            Reply::InPlace(self.run)
        }
    }
}

impl Payload {
    /// Its first `len` bytes, or all if it has fewer.
    fn shortened(self, len: usize) -> Self {
        match self {
            Self::Here(range) => Self::Here(range.start..range.end.min(range.start + len)),
            Self::Side { mut bytes, room } => {
                bytes.truncate(room + len);
                Self::Side { bytes, room }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Control, Limits, OpCode, encode_frame, encode_masked_frame};

    const KEY: [u8; 4] = [0xA1, 0xB2, 0xC3, 0xD4];

    fn masked(frames: &[(OpCode, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (opcode, payload) in frames {
            encode_masked_frame(*opcode, payload, KEY, &mut out);
        }
        out
    }

    fn plain(frames: &[(OpCode, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (opcode, payload) in frames {
            encode_frame(*opcode, payload, &mut out);
        }
        out
    }

    fn server() -> Session {
        Session::new(Role::Server, Limits::default())
    }

    fn text() -> OpCode {
        Kind::Text.into()
    }

    fn control(control: Control) -> OpCode {
        OpCode::Control(control)
    }

    #[test]
    fn a_buffer_of_requests_becomes_a_run_of_replies() {
        let long = vec![b'x'; 70_000];
        let requests: [(OpCode, &[u8]); 6] = [
            (text(), b"one"),
            (control(Control::Ping), b"two"),
            (Kind::Binary.into(), &long[..300]),
            (control(Control::Pong), b"dropped"),
            (Kind::Binary.into(), &long),
            (text(), b""),
        ];
        let mut buf = masked(&requests);
        let expected = plain(&[
            requests[0],
            (control(Control::Pong), b"two"),
            requests[2],
            requests[4],
            requests[5],
        ]);
        let mut spill = Vec::new();
        let echo = server().echo(&mut buf, &mut spill);
        let Reply::InPlace(range) = echo.reply else {
            panic!("{:?}", echo.reply)
        };
        assert_eq!(range.start, 4);
        assert!(buf[range] == expected);
        assert_eq!((echo.messages, echo.pings), (4, 1));
        assert!(spill.is_empty() && echo.end.is_none());
    }

    #[test]
    fn a_message_in_pieces_spills_all_replies_in_order() {
        let requests: [(OpCode, &[u8]); 3] =
            [(text(), b"one"), (text(), b"two"), (text(), b"three")];
        let mut bytes = masked(&requests);
        let (head, tail) = bytes.split_at_mut(16);
        let mut session = server();
        let mut spill = b"kept".to_vec();
        let first = session.echo(head, &mut spill);
        assert_eq!((first.reply, first.messages), (Reply::InPlace(4..9), 1));
        assert!(!session.is_idle());
        let rest = session.echo(tail, &mut spill);
        assert_eq!((rest.reply, rest.messages), (Reply::Spilled, 2));
        assert_eq!(spill, [b"kept".to_vec(), plain(&requests[1..])].concat());
        assert!(session.is_idle());
    }

    #[test]
    fn a_close_is_answered_behind_the_echoes() {
        let mut buf = masked(&[
            (text(), b"last"),
            (control(Control::Close), b"\x03\xe8bye"),
            (text(), b"late"),
        ]);
        let mut session = server();
        let echo = session.echo(&mut buf, &mut Vec::new());
        let Reply::InPlace(range) = echo.reply else {
            panic!("{:?}", echo.reply)
        };
        assert_eq!(
            buf[range],
            plain(&[(text(), b"last"), (control(Control::Close), b"\x03\xe8")])
        );
        assert_eq!(echo.end, Some(End::PeerClosed(Some(CloseCode::Normal))));
        assert_eq!((echo.messages, session.state()), (1, State::Closed));
        assert_eq!(
            session
                .echo(&mut masked(&[(text(), b"x")]), &mut Vec::new())
                .reply,
            Reply::None
        );
    }

    #[test]
    fn a_violation_is_told_behind_the_echoes() {
        let mut buf = masked(&[(text(), b"good"), (text(), b"\xff")]);
        let mut spill = Vec::new();
        let mut session = server();
        let echo = session.echo(&mut buf, &mut spill);
        assert_eq!(echo.reply, Reply::Spilled);
        let mut expected = plain(&[(text(), b"good")]);
        Session::new(Role::Server, Limits::default()).close(
            CloseCode::Invalid,
            "text is not valid UTF-8",
            &mut expected,
        );
        assert_eq!(spill, expected);
        assert!(matches!(
            echo.end,
            Some(End::Violation(violation)) if violation.code() == CloseCode::Invalid
        ));
        assert_eq!(session.state(), State::Closed);
    }

    // RFC 6455 section 5.5.1: nothing-after-close
    // RFC 6455 section 6.1: open-to-send
    #[test]
    fn nothing_is_echoed_after_our_close() {
        let mut session = server();
        session.close(CloseCode::Away, "", &mut Vec::new());
        let mut buf = masked(&[
            (text(), b"a"),
            (control(Control::Ping), b"b"),
            (control(Control::Close), b"\x03\xe9"),
        ]);
        let echo = session.echo(&mut buf, &mut Vec::new());
        assert_eq!((echo.reply, echo.messages, echo.pings), (Reply::None, 0, 0));
        assert_eq!(echo.end, Some(End::PeerClosed(Some(CloseCode::Away))));
    }

    #[test]
    fn a_fragmented_message_whole_in_the_buffer_is_echoed_in_place() {
        let mut buf = Vec::new();
        for (first, part) in [(TEXT, "fra\u{e9}"), (frame::CONTINUE, ""), (FIN, "gments")] {
            frame::append(first, part.as_bytes(), Some(KEY), &mut buf);
        }
        buf.extend(masked(&[(text(), b"next")]));
        let echo = server().echo(&mut buf, &mut Vec::new());
        let Reply::InPlace(range) = echo.reply else {
            panic!("{:?}", echo.reply)
        };
        assert_eq!(
            buf[range],
            plain(&[(text(), "fra\u{e9}gments".as_bytes()), (text(), b"next")])
        );
    }

    // RFC 6455 section 5.1: client-masks
    // RFC 6455 section 6.1: data-is-masked
    #[test]
    fn a_client_echoes_masked() {
        let mut buf = plain(&[(text(), b"hello")]);
        let mut spill = Vec::new();
        let echo = Session::new(Role::Client, Limits::default()).echo(&mut buf, &mut spill);
        assert_eq!(echo.reply, Reply::Spilled);
        let again = server().echo(&mut spill, &mut Vec::new());
        assert_eq!(again.reply, Reply::InPlace(4..11));
        assert_eq!(spill[4..11], *b"\x81\x05hello");
    }
}
