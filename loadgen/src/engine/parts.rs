//! Messages that lie in more than one receive buffer: compared part by part as they arrive, and
//! never put together, so that each byte is read once, while it is in the cache.

use std::collections::HashMap;

use crate::payload::{Corrupted, Label, MOST_LABEL_BYTES, Payload};

/// The messages that are arriving in parts, by connection.
#[derive(Debug, Default)]
pub struct Parts {
    arriving: HashMap<usize, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    /// Bytes of the whole message, and how many have come.
    len: usize,
    at: usize,
    /// The first ones.
    label: [u8; MOST_LABEL_BYTES],
    is_intact: bool,
}

impl Parts {
    /// A message of `len` bytes has begun with `first`.
    pub fn begin(&mut self, conn: usize, len: usize, first: &[u8], payload: &Payload) {
        let mut arriving = Arriving {
            len,
            at: 0,
            label: [0; MOST_LABEL_BYTES],
            is_intact: len == payload.size(),
        };
        arriving.take(first, payload);
        self.arriving.insert(conn, arriving);
    }

    /// Takes what belongs to the message of `conn`; how many of `bytes`, and what the message says
    /// if it is whole now.
    #[inline]
    pub fn take(
        &mut self,
        conn: usize,
        bytes: &[u8],
        payload: &Payload,
    ) -> (usize, Option<Result<Label, Corrupted>>) {
        let Some(arriving) = self.arriving.get_mut(&conn) else {
            return (0, None);
        };
        let taken = bytes.len().min(arriving.len - arriving.at);
        arriving.take(&bytes[..taken], payload);
        if arriving.at < arriving.len {
            return (taken, None);
        }
        let label = arriving.label(payload);
        self.arriving.remove(&conn);
        (taken, Some(label))
    }

    /// The rest will not come.
    pub fn forget(&mut self, conn: usize) {
        self.arriving.remove(&conn);
    }
}

impl Arriving {
    fn take(&mut self, part: &[u8], payload: &Payload) {
        let label = &mut self.label[self.at.min(MOST_LABEL_BYTES)..];
        let (of_label, fill) = part.split_at(part.len().min(label.len()));
        label[..of_label.len()].copy_from_slice(of_label);
        self.is_intact &= payload.is_fill(self.at + of_label.len(), fill);
        self.at += part.len();
    }

    fn label(&self, payload: &Payload) -> Result<Label, Corrupted> {
        match self.is_intact {
            true => payload.check_first(&self.label),
            false => Err(Corrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(payload: &mut Payload) -> Vec<u8> {
        payload.leave_unmasked();
        let mut frame = Vec::new();
        payload.write_frame(4, 9, 0, &mut frame);
        frame.split_off(frame.len() - payload.size())
    }

    /// What a message says that arrives in pieces of these sizes and a last one, with another
    /// message behind it.
    fn arrive(message: &[u8], sizes: &[usize], payload: &Payload) -> Result<Label, Corrupted> {
        let (mut parts, mut rest) = (Parts::default(), message);
        for (number, size) in sizes.iter().enumerate() {
            let (piece, others) = rest.split_at((*size).min(rest.len() - 1));
            rest = others;
            match number {
                0 => parts.begin(3, message.len(), piece, payload),
                _ => assert_eq!(parts.take(3, piece, payload), (piece.len(), None)),
            }
            assert_eq!(
                parts.take(5, piece, payload),
                (0, None),
                "another connection"
            );
        }
        let last = [rest, b"the next message"].concat();
        let (taken, label) = parts.take(3, &last, payload);
        assert_eq!(taken, rest.len());
        assert_eq!(parts.take(3, &last, payload), (0, None));
        label.unwrap()
    }

    proptest! {
        #[test]
        fn parts_say_what_the_whole_says(
            size in 30_usize..3_000,
            sizes in prop::collection::vec(0_usize..600, 1..8),
            at: prop::sample::Index,
            bit in 0_u8..8,
        ) {
            let mut payload = Payload::new(size, 7, false);
            let mut message = message(&mut payload);
            let whole = payload.check(&message).unwrap();
            prop_assert_eq!(arrive(&message, &sizes, &payload), Ok(whole));
            message[at.index(size)] ^= 1 << bit;
            let whole = payload.check(&message);
            prop_assert_eq!(arrive(&message, &sizes, &payload), whole);
        }
    }

    #[test]
    fn a_message_of_another_length_is_wrong_and_taken_all_the_same() {
        let mut payload = Payload::new(2_000, 7, false);
        let message = message(&mut payload);
        for other in [&message[..1_999], &[&message[..], b"x"].concat()] {
            assert_eq!(arrive(other, &[10, 500], &payload), Err(Corrupted));
        }
    }

    #[test]
    fn what_is_forgotten_takes_no_bytes() {
        let payload = Payload::new(2_000, 7, false);
        let mut parts = Parts::default();
        parts.begin(3, 2_000, b"the begin", &payload);
        parts.forget(3);
        assert_eq!(parts.take(3, b"other bytes", &payload), (0, None));
    }
}
