//! Encoded messages, ready to be sent to any number of receivers.

use bytes::{Bytes, BytesMut};
use ws_proto::{Kind, encode_frame};

/// Frames that wait for a slow receiver hold at most this many times the memory that they fill, for
/// its queue is bounded in the bytes that they fill.
const WASTE: usize = 4;
/// Below this many bytes memory is not worth being given back.
const WORTH_SHRINKING: usize = 512;

/// One or more whole server-to-client frames, one message each, in one shared piece of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// The frames, back to back. Cloning shares them.
    pub bytes: Bytes,
    /// How many messages they are, at least 1.
    pub messages: u32,
}

impl Frames {
    /// Splits after the first `messages` messages. `None` when one side would be empty.
    pub fn split_after(&self, messages: u32) -> Option<(Frames, Frames)> {
        if messages == 0 || messages >= self.messages {
            return None;
        }
        let mut at = 0;
        for _ in 0..messages {
            at += frame_bytes(&self.bytes[at..]);
        }
        let head = Frames {
            bytes: self.bytes.slice(..at),
            messages,
        };
        let tail = Frames {
            bytes: self.bytes.slice(at..),
            messages: self.messages - messages,
        };
        Some((head, tail))
    }

    /// How many messages end within the first `bytes` bytes.
    pub fn messages_within(&self, bytes: usize) -> u32 {
        if bytes >= self.bytes.len() {
            return self.messages;
        }
        let (mut at, mut messages) = (0, 0);
        loop {
            at += frame_bytes(&self.bytes[at..]);
            if at > bytes {
                return messages;
            }
            messages += 1;
        }
    }

    /// These frames, split off `whole`. A small part is copied: it would keep all of the memory.
    pub(crate) fn without_memory_of(self, whole: &Frames) -> Frames {
        if self.bytes.len() >= whole.bytes.len() / WASTE {
            return self;
        }
        Frames {
            bytes: Bytes::copy_from_slice(&self.bytes),
            ..self
        }
    }

    /// Length of the first frame in bytes.
    pub(crate) fn first_frame_bytes(&self) -> usize {
        frame_bytes(&self.bytes)
    }

    /// Joins pieces in order: the piece itself when there is but one, otherwise one new piece.
    pub(crate) fn concat(mut pieces: Vec<Frames>) -> Option<Frames> {
        if pieces.len() < 2 {
            return pieces.pop();
        }
        let mut bytes = BytesMut::with_capacity(pieces.iter().map(|p| p.bytes.len()).sum());
        let mut messages = 0;
        for piece in &pieces {
            bytes.extend_from_slice(&piece.bytes);
            messages += piece.messages;
        }
        Some(Frames {
            bytes: bytes.freeze(),
            messages,
        })
    }
}

/// Length of the unmasked frame at the start of `bytes`, which we encoded ourselves (RFC 6455,
/// section 5.2).
fn frame_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [_, 126, a, b, ..] => 4 + usize::from(u16::from_be_bytes([*a, *b])),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            10 + u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize
        }
        [_, length, ..] => 2 + usize::from(*length),
        _ => bytes.len(),
    }
}

/// Collects the messages of one receive to be published together.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    messages: u32,
}

impl FrameBuilder {
    /// With room for `bytes` bytes of frames: a receive of that size fits, for our headers are
    /// shorter than a client's.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            messages: 0,
        }
    }

    /// Encodes one more message.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) {
        encode_frame(kind.into(), payload, &mut self.bytes);
        self.messages += 1;
    }

    /// The messages pushed since the last call, or `None` without any.
    pub fn take(&mut self) -> Option<Frames> {
        if self.messages == 0 {
            return None;
        }
        let mut built = std::mem::take(self);
        // A receive may have been a short message among many pings.
        if built.bytes.capacity() > WORTH_SHRINKING.max(WASTE * built.bytes.len()) {
            built.bytes.shrink_to_fit();
        }
        Some(Frames {
            bytes: built.bytes.into(),
            messages: built.messages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payloads: &[&[u8]]) -> Frames {
        let mut builder = FrameBuilder::default();
        for payload in payloads {
            builder.push(Kind::Binary, payload);
        }
        builder.take().unwrap()
    }

    #[test]
    fn splits_at_message_boundaries_of_every_length_form() {
        let (medium, large) = (vec![1; 200], vec![2; 70_000]);
        let all = frames(&[b"a", &medium, &large, b""]);
        assert_eq!(all.messages, 4);
        for cut in 1..4 {
            let (head, tail) = all.split_after(cut).unwrap();
            assert_eq!((head.messages, tail.messages), (cut, 4 - cut));
            assert_eq!([&head.bytes[..], &tail.bytes[..]].concat(), all.bytes);
            assert_eq!(Frames::concat(vec![head, tail]).unwrap(), all);
        }
        assert_eq!(all.split_after(0), None);
        assert_eq!(all.split_after(4), None);
    }

    #[test]
    fn counts_messages_within_a_length() {
        let all = frames(&[b"a", b"bc", b""]);
        let counts: Vec<_> = (0..=9).map(|n| all.messages_within(n)).collect();
        assert_eq!(counts, [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_builder_starts_anew_after_take() {
        let mut builder = FrameBuilder::default();
        assert_eq!(builder.take(), None);
        builder.push(Kind::Text, b"hi");
        assert_eq!(&builder.take().unwrap().bytes[..], b"\x81\x02hi");
        assert_eq!(builder.take(), None);
    }

    #[test]
    fn a_short_message_does_not_keep_the_memory_of_a_long_receive() {
        let mut builder = FrameBuilder::with_capacity(64 * 1024);
        builder.push(Kind::Text, b"hi");
        let memory = BytesMut::from(builder.take().unwrap().bytes);
        assert!(memory.capacity() <= WORTH_SHRINKING, "{memory:?}");

        let whole = frames(&[b"a", &[1; 100], b"b"]);
        let (head, tail) = whole.split_after(1).unwrap();
        let memory = (head.bytes.as_ptr(), tail.bytes.as_ptr());
        let head_copied = head.clone().without_memory_of(&whole);
        assert_eq!(head_copied, head);
        assert_ne!(head_copied.bytes.as_ptr(), memory.0);
        assert_eq!(tail.without_memory_of(&whole).bytes.as_ptr(), memory.1);
    }

    #[test]
    fn one_piece_is_not_copied() {
        let one = frames(&[b"abc"]);
        let joined = Frames::concat(vec![one.clone()]).unwrap();
        assert_eq!(joined.bytes.as_ptr(), one.bytes.as_ptr());
        assert_eq!(Frames::concat(vec![]), None);
    }
}
