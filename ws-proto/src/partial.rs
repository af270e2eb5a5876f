//! What of a frame or message has arrived and waits for the rest.

use crate::{
    Kind,
    frame::{Header, KEY_BYTES, MAX_HEADER_BYTES},
    mask::{mask, rotate},
    utf8,
    violation::Rule,
};

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
}

impl Partial {
    pub(crate) fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Takes as much of `input` as belongs to the open frame, unmasks and keeps it; how much that
    /// was.
    pub(crate) fn take_payload(
        &mut self,
        input: &mut [u8],
        max_message_bytes: usize,
    ) -> Result<usize, Rule> {
        let Some(frame) = &mut self.frame else {
            return Ok(0);
        };
        let taken = frame.missing.min(input.len());
        let bytes = &mut input[..taken];
        mask(bytes, frame.key);
        frame.key = rotate(frame.key, taken);
        match &mut self.message {
            Some(message) if !frame.is_control => {
                message.append(bytes, frame, max_message_bytes)?
            }
            _ => self.control.extend_from_slice(bytes),
        }
        frame.missing -= taken;
        Ok(taken)
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
            missing: header.payload_len,
            key: header.key,
        }
    }
}

/// A message that is being put together.
#[derive(Debug)]
pub(crate) struct OpenMessage {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
    pub(crate) fragments: u32,
    /// How much of the payload is known to be UTF-8, for text.
    utf8_checked: usize,
}

impl OpenMessage {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            payload: Vec::new(),
            fragments: 0,
            utf8_checked: 0,
        }
    }

    fn append(
        &mut self,
        bytes: &[u8],
        frame: &OpenFrame,
        max_message_bytes: usize,
    ) -> Result<(), Rule> {
        self.make_room(bytes.len(), frame, max_message_bytes);
        self.payload.extend_from_slice(bytes);
        if self.kind == Kind::Text && !utf8::advance(&self.payload, &mut self.utf8_checked) {
            return Err(Rule::TextNotUtf8);
        }
        Ok(())
    }

    /// Grows with what has arrived, by doubling, never by what a header announces alone: a peer
    /// pays for memory with bytes. The announced end of the last frame only bounds it from above,
    /// so that the final size is exact.
    fn make_room(&mut self, arriving: usize, frame: &OpenFrame, max_message_bytes: usize) {
        let len = self.payload.len();
        if self.payload.capacity() - len >= arriving {
            return;
        }
        let end = if frame.fin {
            len + frame.missing
        } else {
            max_message_bytes
        };
        let target = (2 * self.payload.capacity()).min(end).max(len + arriving);
        self.payload.reserve_exact(target - len);
    }

    /// Whether it may end here: text must not end inside a character.
    pub(crate) fn is_whole(&self) -> bool {
        self.kind == Kind::Binary || self.utf8_checked == self.payload.len()
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
            message: Some(OpenMessage::new(Kind::Binary)),
            ..Partial::default()
        };
        let mut received = 0;
        while received < ANNOUNCED {
            received += partial.take_payload(&mut [0; 1000], ANNOUNCED).unwrap();
            let capacity = partial.message.as_ref().unwrap().payload.capacity();
            assert!(
                capacity <= (2 * received).min(ANNOUNCED),
                "{capacity} for {received}"
            );
        }
        assert_eq!(partial.message.unwrap().payload.capacity(), ANNOUNCED);
    }

    #[test]
    fn many_fragments_grow_by_doubling() {
        let mut partial = Partial {
            message: Some(OpenMessage::new(Kind::Binary)),
            ..Partial::default()
        };
        let mut growths = 0;
        let mut capacity = 0;
        for _ in 0..10_000 {
            partial.frame = open(false, CONTINUE, 10);
            partial.take_payload(&mut [0; 10], 1 << 20).unwrap();
            let now = partial.message.as_ref().unwrap().payload.capacity();
            growths += usize::from(now != capacity);
            capacity = now;
        }
        assert!(growths < 20, "{growths}");
    }
}
