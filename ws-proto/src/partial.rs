//! What of a frame or message has arrived and waits for the rest.

use crate::{
    Kind, Session,
    frame::{Header, KEY_BYTES, MAX_HEADER_BYTES},
    mask::{mask, rotate},
    utf8,
    violation::Rule,
};

/// Room that a lent message has for what is announced but has not arrived. It is address space and
/// becomes memory when it is written to. A message of a MiB is not moved.
const RESERVED_BYTES: usize = (1 << 20) + (4 << 10);
/// How often as much room as before a message gets that is lent again.
const LENT_GROWTH: usize = 4;

/// The side buffer of a session. Exists only while something is half received.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// The first bytes of a header that is not whole yet.
    pub(crate) head: HeadBytes,
    /// The frame whose payload is arriving.
    pub(crate) frame: Option<OpenFrame>,
    /// Payload so far, if that frame is a control frame.
    pub(crate) control: Vec<u8>,
    /// The data message so far; it may wait for further frames while no frame is open.
    pub(crate) message: Option<OpenMessage>,
    /// Length of the message's bytes when they were lent.
    lent: usize,
    /// How many bytes at their end are as they were received: masked, and not checked.
    untouched: usize,
}

/// A message whose rest the caller receives straight into its place: see
/// [`Session::lend_message`](crate::Session::lend_message).
#[derive(Debug)]
pub struct Unfinished {
    /// What has arrived. Append what arrives next, without a change.
    pub bytes: Vec<u8>,
    /// How many bytes may be appended at most: they belong to the message, and there is room for
    /// them.
    pub most: usize,
}

/// Receiving straight into a message.
impl Session {
    /// Payload bytes of the data frame at hand that have not arrived; 0 between frames.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.missing())
    }

    /// Payload bytes of that frame in all, as its header says; 0 between frames.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| partial.announced())
    }

    /// The message of which a data frame is half received, to receive more of it straight into its
    /// place. Give it back with [`take_back`](Self::take_back), before any further input. `None`
    /// where nothing is [`missing`](Self::missing).
    pub fn lend_message(&mut self) -> Option<Unfinished> {
        let max = self.limits.max_message_bytes as usize;
        self.partial.as_mut()?.lend(max)
    }

    /// Takes the bytes of an [`Unfinished`] back with what was appended to them. They are unmasked
    /// and checked by the next call of [`receive`](Self::receive) or [`echo`](Self::echo), whose
    /// own input may be empty.
    pub fn take_back(&mut self, bytes: Vec<u8>) {
        if let Some(partial) = &mut self.partial {
            partial.take_back(bytes);
        }
    }

    #[inline]
    pub(crate) fn has_untouched(&self) -> bool {
        self.partial
            .as_ref()
            .is_some_and(|partial| partial.has_untouched())
    }
}

impl Partial {
    pub(crate) fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Whether bytes were received straight into the message and not looked at.
    #[inline]
    pub(crate) fn has_untouched(&self) -> bool {
        self.untouched > 0
    }

    /// Payload bytes of the open frame that have not arrived, if it is a data frame.
    pub(crate) fn missing(&self) -> usize {
        match &self.frame {
            Some(frame) if !frame.is_control => frame.missing - self.untouched,
            _ => 0,
        }
    }

    /// Payload bytes of the open frame, if it is a data frame.
    pub(crate) fn announced(&self) -> usize {
        match &self.frame {
            Some(frame) if !frame.is_control => frame.len,
            _ => 0,
        }
    }

    /// Takes what was received straight into the message, then as much of `input` as belongs to the
    /// open frame, unmasks and keeps it; how much of `input` that was.
    pub(crate) fn take_payload(
        &mut self,
        input: &[u8],
        max_message_bytes: usize,
    ) -> Result<usize, Rule> {
        let Some(frame) = &mut self.frame else {
            return Ok(0);
        };
        let untouched = std::mem::take(&mut self.untouched);
        let taken = (frame.missing - untouched).min(input.len());
        let bytes = &input[..taken];
        match &mut self.message {
            Some(message) if !frame.is_control => {
                message.make_room(taken, frame, max_message_bytes);
                let start = message.bytes.len() - untouched;
                message.bytes.extend_from_slice(bytes);
                mask(&mut message.bytes[start..], frame.key);
                message.check()?;
            }
            _ => {
                let start = self.control.len();
                self.control.extend_from_slice(bytes);
                mask(&mut self.control[start..], frame.key);
            }
        }
        frame.key = rotate(frame.key, untouched + taken);
        frame.missing -= untouched + taken;
        Ok(taken)
    }

    /// The message, for more of the open data frame to be appended to it.
    pub(crate) fn lend(&mut self, max_message_bytes: usize) -> Option<Unfinished> {
        let missing = self.missing();
        if missing == 0 || self.has_untouched() {
            return None;
        }
        let (frame, message) = (self.frame.as_ref()?, self.message.as_mut()?);
        message.reserve(frame, max_message_bytes);
        let bytes = std::mem::take(&mut message.bytes);
        self.lent = bytes.len();
        let most = missing.min(bytes.capacity() - bytes.len());
        Some(Unfinished { bytes, most })
    }

    /// Takes back what was lent. More than belongs to the frame is cut off.
    pub(crate) fn take_back(&mut self, mut bytes: Vec<u8>) {
        let most = self.lent + self.missing();
        debug_assert!((self.lent..=most).contains(&bytes.len()));
        if let Some(message) = &mut self.message {
            bytes.truncate(most);
            self.untouched = bytes.len().saturating_sub(self.lent);
            message.bytes = bytes;
        }
    }
}

/// Header bytes from earlier buffers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadBytes {
    bytes: [u8; MAX_HEADER_BYTES],
    pub(crate) len: usize,
}

impl HeadBytes {
    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A frame whose header is known and whose payload is not whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFrame {
    pub(crate) fin: bool,
    pub(crate) is_control: bool,
    pub(crate) opcode: u8,
    /// Payload bytes in all.
    len: usize,
    /// Payload bytes to come.
    pub(crate) missing: usize,
    /// The key for the next of them.
    key: [u8; KEY_BYTES],
}

impl OpenFrame {
    pub(crate) fn new(header: &Header) -> Self {
        Self {
            fin: header.fin,
            is_control: header.is_control(),
            opcode: header.opcode,
            len: header.payload_len,
            missing: header.payload_len,
            key: header.key,
        }
    }
}

/// A message that is being put together.
#[derive(Debug)]
pub(crate) struct OpenMessage {
    pub(crate) kind: Kind,
    /// Room for a header, then the payload so far.
    pub(crate) bytes: Vec<u8>,
    /// How many bytes of room.
    pub(crate) room: usize,
    pub(crate) fragments: u32,
    /// Where what is known to be UTF-8 ends, for text.
    utf8_checked: usize,
}

impl OpenMessage {
    /// With `room` for a header in front.
    pub(crate) fn new(kind: Kind, room: usize) -> Self {
        Self {
            kind,
            bytes: Vec::new(),
            room,
            fragments: 0,
            utf8_checked: room,
        }
    }

    /// Payload bytes so far.
    pub(crate) fn payload_len(&self) -> usize {
        self.bytes.len().saturating_sub(self.room)
    }

    fn check(&mut self) -> Result<(), Rule> {
        if self.kind == Kind::Text && !utf8::advance(&self.bytes, &mut self.utf8_checked) {
            return Err(Rule::TextNotUtf8);
        }
        Ok(())
    }

    /// Grows with what has arrived, by doubling, never by what a header announces alone: a peer
    /// pays for memory with bytes.
    fn make_room(&mut self, arriving: usize, frame: &OpenFrame, max_message_bytes: usize) {
        let len = self.bytes.len().max(self.room);
        let capacity = self.bytes.capacity();
        if capacity < len + arriving {
            let end = self.end(frame, max_message_bytes);
            self.grow_to((2 * capacity).min(end).max(len + arriving));
        }
        self.bytes.resize(len, 0);
    }

    /// Makes room for bytes of the frame that are received straight into the message, if there is
    /// none.
    fn reserve(&mut self, frame: &OpenFrame, max_message_bytes: usize) {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        if capacity == len {
            let announced = (len + frame.missing).min(RESERVED_BYTES);
            let end = self.end(frame, max_message_bytes);
            self.grow_to(announced.max(capacity.saturating_mul(LENT_GROWTH)).min(end));
        }
    }

    /// The most that the bytes can become: where this is the last frame its end is announced, so
    /// that the final size is exact.
    fn end(&self, frame: &OpenFrame, max_message_bytes: usize) -> usize {
        if frame.fin {
            self.bytes.len().max(self.room) + frame.missing
        } else {
            self.room + max_message_bytes
        }
    }

    fn grow_to(&mut self, capacity: usize) {
        self.bytes.reserve_exact(capacity - self.bytes.len());
    }

    /// Whether it may end here: text must not end inside a character.
    pub(crate) fn is_whole(&self) -> bool {
        self.kind == Kind::Binary || self.utf8_checked == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{BINARY, CONTINUE};

    fn open(fin: bool, opcode: u8, payload_len: usize) -> Option<OpenFrame> {
        Some(OpenFrame::new(&Header {
            fin,
            opcode,
            key: [0; 4],
            payload_len,
            len: 0,
        }))
    }

    #[test]
    fn memory_follows_the_bytes_received_and_not_the_announcement() {
        const ANNOUNCED: usize = 1 << 20;
        let mut partial = Partial {
            frame: open(true, BINARY, ANNOUNCED),
            message: Some(OpenMessage::new(Kind::Binary, 10)),
            ..Partial::default()
        };
        let mut received = 0;
        while received < ANNOUNCED {
            received += partial.take_payload(&[0; 1000], ANNOUNCED).unwrap();
            let capacity = partial.message.as_ref().unwrap().bytes.capacity();
            assert!(
                capacity <= 10 + (2 * received).min(ANNOUNCED),
                "{capacity} for {received}"
            );
        }
        assert_eq!(partial.message.unwrap().bytes.capacity(), ANNOUNCED + 10);
    }

    #[test]
    fn many_fragments_grow_by_doubling() {
        let mut partial = Partial {
            message: Some(OpenMessage::new(Kind::Binary, 10)),
            ..Partial::default()
        };
        let mut growths = 0;
        let mut capacity = 0;
        for _ in 0..10_000 {
            partial.frame = open(false, CONTINUE, 10);
            partial.take_payload(&[0; 10], 1 << 20).unwrap();
            let now = partial.message.as_ref().unwrap().bytes.capacity();
            growths += usize::from(now != capacity);
            capacity = now;
        }
        assert!(growths < 20, "{growths}");
    }

    #[test]
    fn a_lent_message_has_room_for_little_more_than_was_received() {
        const ANNOUNCED: usize = 10 << 20;
        let mut partial = Partial {
            frame: open(true, BINARY, ANNOUNCED),
            message: Some(OpenMessage::new(Kind::Binary, 10)),
            ..Partial::default()
        };
        let mut received = partial.take_payload(&[0; 4000], ANNOUNCED).unwrap();
        let mut lent = 0;
        while let Some(Unfinished { mut bytes, most }) = partial.lend(ANNOUNCED) {
            let bound = (LENT_GROWTH * received).max(RESERVED_BYTES) + 40;
            assert!(bytes.capacity() <= bound, "{most} for {received}");
            bytes.extend(std::iter::repeat_n(0, most));
            received += most;
            lent += 1;
            partial.take_back(bytes);
            assert_eq!(partial.take_payload(&[], ANNOUNCED), Ok(0));
        }
        assert_eq!((received, partial.missing()), (ANNOUNCED, 0));
        assert_eq!(
            partial.message.unwrap().bytes.capacity(),
            ANNOUNCED + 10,
            "the announced end"
        );
        assert!(lent < 6, "{lent}");
    }

    #[test]
    fn what_is_lent_and_filled_is_taken_as_if_it_had_been_input() {
        let mut partial = Partial {
            frame: open(true, BINARY, 1000),
            message: Some(OpenMessage::new(Kind::Binary, 4)),
            ..Partial::default()
        };
        partial.frame.as_mut().unwrap().key = [1, 2, 3, 4];
        partial.take_payload(&[0; 101], 1000).unwrap();
        let Unfinished { mut bytes, most } = partial.lend(1000).unwrap();
        assert_eq!((bytes.len(), most, partial.missing()), (105, 899, 899));
        bytes.extend([0; 50]);
        partial.take_back(bytes);
        assert!(partial.has_untouched() && partial.lend(1000).is_none());
        assert_eq!(partial.missing(), 849);
        assert_eq!(partial.take_payload(&[0; 2000], 1000), Ok(849));
        let message = partial.message.unwrap();
        let expected: Vec<u8> = [1, 2, 3, 4].into_iter().cycle().take(1000).collect();
        assert_eq!(message.bytes[message.room..], expected);
        assert_eq!(partial.frame.unwrap().missing, 0);
    }
}
