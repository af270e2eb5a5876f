//! From bytes to whole messages and control frames: the receiving half of a session.

use std::ops::Range;

use crate::{
    Kind, Role, Session, State, Violation, close,
    frame::{self, BINARY, CLOSE, Expect, Header, PING, TEXT},
    mask::{mask, mask_down},
    partial::{OpenFrame, OpenMessage},
    utf8,
    violation::Rule,
};

/// The next thing that is whole.
#[derive(Debug)]
pub(crate) enum Step {
    /// The buffer is used up, or no longer matters.
    Starved,
    Message {
        kind: Kind,
        payload: Payload,
    },
    Ping(Payload),
    Pong(Payload),
    /// Checked; the state has moved on.
    Close {
        code: Option<u16>,
        payload: Payload,
    },
}

/// Where an unmasked payload is.
#[derive(Debug)]
pub(crate) enum Payload {
    /// In the buffer.
    Here(Range<usize>),
    /// It had arrived in pieces: these bytes, behind `room` of them.
    Side { bytes: Vec<u8>, room: usize },
}

impl Session {
    /// Takes the next whole thing from `buf`, starting at `at`, which moves behind it.
    // RFC 6455 section 7.1.7: deaf-after-failure
    #[inline]
    pub(crate) fn next_step(&mut self, buf: &mut [u8], at: &mut usize) -> Result<Step, Violation> {
        if !self.is_listening() {
            *at = buf.len();
            return Ok(Step::Starved);
        }
        self.take_step(buf, at).map_err(|rule| {
            self.fail();
            Violation(rule)
        })
    }

    // RFC 6455 section 5.4: both-forms, control-between-fragments, frame-boundaries
    // RFC 6455 section 6.2: next-message
    #[inline]
    fn take_step(&mut self, buf: &mut [u8], at: &mut usize) -> Result<Step, Rule> {
        loop {
            if self.partial.is_some()
                && let Some(step) = self.continue_frame(buf, at)?
            {
                return Ok(step);
            }
            let Some(header) = self.take_header(buf, at)? else {
                return Ok(Step::Starved);
            };
            if let Some(step) = self.take_whole_frame(&header, buf, at)? {
                return Ok(step);
            }
        }
    }

    /// Goes on with a frame whose payload did not arrive whole; `None` when no frame is open any
    /// more.
    fn continue_frame(&mut self, buf: &mut [u8], at: &mut usize) -> Result<Option<Step>, Rule> {
        let max = self.limits.max_message_bytes as usize;
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        *at += partial.take_payload(&buf[*at..], max)?;
        let Some(frame) = partial.frame else {
            return Ok(None);
        };
        if frame.missing > 0 {
            return Ok(Some(Step::Starved));
        }
        partial.frame = None;
        let step = if frame.is_control {
            let payload = std::mem::take(&mut partial.control);
            let code = check_control(frame.opcode, &payload)?;
            let payload = Payload::Side {
                bytes: payload,
                room: 0,
            };
            Some(self.control(frame.opcode, code, payload))
        } else if frame.fin {
            partial.message.take().map(finish).transpose()?
        } else {
            None
        };
        self.free_partial();
        Ok(step)
    }

    /// Takes a whole header, or keeps what there is of it.
    #[inline]
    fn take_header(&mut self, buf: &[u8], at: &mut usize) -> Result<Option<Header>, Rule> {
        let expect = self.expect();
        if let Some(partial) = &mut self.partial
            && partial.head.len > 0
        {
            while let Some(&byte) = buf.get(*at) {
                partial.head.push(byte);
                *at += 1;
                if let Some(header) = frame::parse(partial.head.as_slice(), expect)? {
                    partial.head.len = 0;
                    self.free_partial();
                    return Ok(Some(header));
                }
            }
            return Ok(None);
        }
        let rest = &buf[*at..];
        if let Some(header) = frame::parse(rest, expect)? {
            *at += header.len;
            return Ok(Some(header));
        }
        *at = buf.len();
        if !rest.is_empty() {
            let partial = self.partial.get_or_insert_default();
            rest.iter().for_each(|&byte| partial.head.push(byte));
        }
        Ok(None)
    }

    /// The frame behind `header`, or a message that begins with it, if it is whole in `buf`;
    /// otherwise opens it.
    #[inline]
    fn take_whole_frame(
        &mut self,
        header: &Header,
        buf: &mut [u8],
        at: &mut usize,
    ) -> Result<Option<Step>, Rule> {
        let start = *at;
        let is_whole = header.payload_len <= buf.len() - start;
        if is_whole && header.is_control() {
            let end = start + header.payload_len;
            *at = end;
            let payload = &mut buf[start..end];
            mask(payload, header.key);
            let code = check_control(header.opcode, payload)?;
            return Ok(Some(self.control(
                header.opcode,
                code,
                Payload::Here(start..end),
            )));
        }
        if is_whole && !self.in_message() {
            let end = if header.fin {
                Some(self.take_frame(header, buf, at))
            } else {
                self.take_fragments(header, buf, at)
            };
            if let Some(end) = end {
                let kind = kind_of(header.opcode);
                if kind == Kind::Text && !utf8::is_valid(&buf[start..end]) {
                    return Err(Rule::TextNotUtf8);
                }
                return Ok(Some(Step::Message {
                    kind,
                    payload: Payload::Here(start..end),
                }));
            }
        }
        self.open_frame(header);
        Ok(None)
    }

    /// Unmasks one whole data frame; the end of its payload.
    // RFC 6455 section 6.2: server-unmasks
    #[inline]
    fn take_frame(&self, header: &Header, buf: &mut [u8], at: &mut usize) -> usize {
        let end = *at + header.payload_len;
        if self.role == Role::Server {
            mask(&mut buf[*at..end], header.key);
        }
        *at = end;
        end
    }

    /// If all frames of a fragmented message are in `buf`, one behind the other, puts it together
    /// in place; the end of its payload. A message with anything else between its frames goes
    /// through the side buffer.
    // RFC 6455 section 5.4: fragments-in-order
    #[cold]
    fn take_fragments(&self, first: &Header, buf: &mut [u8], at: &mut usize) -> Option<usize> {
        let frames = self.scan_fragments(first, &buf[*at..])?;
        let mut end = *at + first.payload_len;
        mask(&mut buf[*at..end], first.key);
        let mut read = end;
        for _ in 1..frames {
            let header = frame::parse(&buf[read..], self.expect_fragment(0, 0))
                .ok()
                .flatten()?;
            read += header.len + header.payload_len;
            mask_down(
                &mut buf[end..read],
                read - end - header.payload_len,
                header.key,
            );
            end += header.payload_len;
        }
        *at = read;
        Some(end)
    }

    /// Looks ahead over the frames of a message; their number, if all of them are in `bytes` and
    /// nothing is wrong with them.
    fn scan_fragments(&self, first: &Header, bytes: &[u8]) -> Option<u32> {
        let mut total = first.payload_len;
        let mut read = first.payload_len;
        let mut frames = 1;
        loop {
            let header = frame::parse(bytes.get(read..)?, self.expect_fragment(frames, total))
                .ok()
                .flatten()?;
            // A usize of 32 bits may end before the largest message does.
            read = read
                .checked_add(header.len)?
                .checked_add(header.payload_len)?;
            if header.is_control() || read > bytes.len() {
                return None;
            }
            total += header.payload_len;
            frames += 1;
            if header.fin {
                return Some(frames);
            }
        }
    }

    /// From here on the payload is collected in the side buffer.
    #[cold]
    fn open_frame(&mut self, header: &Header) {
        let room = self.header_room(header);
        let partial = self.partial.get_or_insert_default();
        if !header.is_control() {
            let message = partial
                .message
                .get_or_insert_with(|| OpenMessage::new(kind_of(header.opcode), room));
            message.fragments += 1;
        }
        partial.frame = Some(OpenFrame::new(header));
    }

    /// How much is kept free in front of a message that begins with this frame: the header of a
    /// reply with the same payload, which has the longest form where more frames may follow. None
    /// for a client, whose replies are masked anew.
    fn header_room(&self, header: &Header) -> usize {
        match (self.role, header.fin) {
            (Role::Client, _) => 0,
            (Role::Server, true) => frame::unmasked_header_len(header.payload_len),
            (Role::Server, false) => frame::unmasked_header_len(usize::MAX),
        }
    }

    /// A whole control frame that has been checked.
    // RFC 6455 section 6.2: control-is-handled
    fn control(&mut self, opcode: u8, code: Option<u16>, payload: Payload) -> Step {
        match opcode {
            PING => Step::Ping(payload),
            CLOSE => {
                self.peer_closed(code);
                Step::Close { code, payload }
            }
            _ => Step::Pong(payload),
        }
    }

    fn peer_closed(&mut self, code: Option<u16>) {
        self.peer_code = code;
        self.partial = None;
        self.state = match self.state {
            State::CloseSent => State::Closed,
            _ => State::CloseReceived,
        };
    }

    #[inline]
    fn in_message(&self) -> bool {
        self.partial
            .as_ref()
            .is_some_and(|partial| partial.message.is_some())
    }

    #[inline]
    fn expect(&self) -> Expect {
        match self
            .partial
            .as_ref()
            .and_then(|partial| partial.message.as_ref())
        {
            Some(message) => self.expect_fragment(message.fragments, message.payload_len()),
            None => Expect {
                in_message: false,
                ..self.expect_fragment(0, 0)
            },
        }
    }

    /// What may follow when a message has so many frames and bytes.
    #[inline]
    fn expect_fragment(&self, fragments: u32, bytes: usize) -> Expect {
        Expect {
            masked: self.role == Role::Server,
            in_message: true,
            fragment_allowed: fragments < self.limits.max_fragments,
            room: (self.limits.max_message_bytes as usize).saturating_sub(bytes),
        }
    }

    fn free_partial(&mut self) {
        self.partial.take_if(|partial| partial.is_empty());
    }
}

/// What the payload of a control frame must be; the code of a Close.
// RFC 6455 section 10.7: data-is-validated
fn check_control(opcode: u8, payload: &[u8]) -> Result<Option<u16>, Rule> {
    if opcode == CLOSE {
        close::check(payload)
    } else {
        Ok(None)
    }
}

fn finish(message: OpenMessage) -> Result<Step, Rule> {
    if !message.is_whole() {
        return Err(Rule::TextNotUtf8);
    }
    Ok(Step::Message {
        kind: message.kind,
        payload: Payload::Side {
            bytes: message.bytes,
            room: message.room,
        },
    })
}

/// Kind of a message by the opcode of its first frame.
// RFC 6455 section 6.2: type-is-noted
#[inline]
fn kind_of(opcode: u8) -> Kind {
    debug_assert!(matches!(opcode, TEXT | BINARY));
    if opcode == TEXT {
        Kind::Text
    } else {
        Kind::Binary
    }
}
