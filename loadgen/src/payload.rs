//! What a message says, so that its reply can be verified.
//!
//! ```text
//! byte 0        8         12      16           24
//!      sequence  stream    run     sent (ns)    fill ...
//! ```
//!
//! Little-endian. `stream` is the connection (echo) or the publisher (broadcast), `sent` is written
//! in broadcast only; what does not fit is left out, and the fill takes its place: 8 to 15 bytes
//! carry the sequence number and fill, 1 to 7 bytes its low bytes. The fill is pseudo-random,
//! different for each run, and compared byte for byte.
//!
//! Every frame to a WebSocket server is masked with a fresh key, so that no server can profit from
//! a constant one. The keys come from a fast generator seeded by the system per thread: section
//! 10.3 of RFC 6455 asks for unpredictable keys to protect intermediaries from scripts that do not
//! control the mask, which a load generator's own payload does not need.

use std::ops::Range;

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use ws_proto::{Data, MAX_HEADER_BYTES, OpCode, append_masked, write_frame_header};

/// The bit of a header's first byte that ends a message (RFC 6455 section 5.2).
const FIN: u8 = 0x80;
/// The longest label: sequence number, stream, run and send time.
pub const MOST_LABEL_BYTES: usize = 24;

/// Builds and checks the messages of one thread.
#[derive(Debug)]
pub struct Payload {
    /// The whole payload, sequence and stream left zero.
    template: Vec<u8>,
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    /// What a server writes before a payload that it sends back in one frame.
    reply_header: [u8; MAX_HEADER_BYTES],
    reply_header_len: usize,
    stamped: bool,
    masked: bool,
    /// Frames of each message.
    fragments: usize,
    keys: SmallRng,
}

/// What a verified message says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The low [`bits`](Payload::sequence_bits) bits of its sequence number.
    pub seq: u64,
    /// Connection or publisher; `None` when there was no room for it.
    pub stream: Option<u32>,
    /// Send time; 0 when not stamped.
    pub sent_ns: u64,
}

/// The content is not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupted;

impl Payload {
    /// Messages of `size` bytes for the run `nonce`. `stamped` ones carry their send time and need
    /// 24 bytes.
    pub fn new(size: usize, nonce: u32, stamped: bool) -> Self {
        let mut template = vec![0; size];
        SmallRng::seed_from_u64(u64::from(nonce)).fill_bytes(&mut template);
        let labelled = size.min(if stamped { 24 } else { 16 });
        template[..labelled].fill(0);
        if size >= 16 {
            template[12..16].copy_from_slice(&nonce.to_le_bytes());
        } else if size > 8 {
            SmallRng::seed_from_u64(u64::from(nonce)).fill_bytes(&mut template[8..]);
        }
        let mut header = [0; MAX_HEADER_BYTES];
        let header_len =
            write_frame_header(OpCode::Data(Data::Binary), size, Some([0; 4]), &mut header);
        let mut reply_header = [0; MAX_HEADER_BYTES];
        let reply_header_len =
            write_frame_header(OpCode::Data(Data::Binary), size, None, &mut reply_header);
        Self {
            template,
            header,
            header_len,
            reply_header,
            reply_header_len,
            stamped,
            masked: true,
            fragments: 1,
            keys: rand::make_rng(),
        }
    }

    /// Frames as a server sends them, for peers that send back what they get.
    pub fn leave_unmasked(&mut self) {
        (self.header, self.header_len) = (self.reply_header, self.reply_header_len);
        self.masked = false;
    }

    /// Sends each message in so many frames, at most one for each byte.
    pub fn split(&mut self, fragments: usize) {
        self.fragments = fragments;
    }

    /// Payload bytes.
    pub fn size(&self) -> usize {
        self.template.len()
    }

    /// How many bits of the sequence number a message carries.
    pub fn sequence_bits(&self) -> u32 {
        (self.template.len().min(8) * 8) as u32
    }

    /// Appends messages that are not stamped, each in one frame or as it is [split](Self::split).
    pub fn write_messages(&mut self, stream: u32, numbers: Range<u64>, out: &mut Vec<u8>) {
        let frames = (numbers.end - numbers.start) as usize;
        out.reserve(frames * (self.header.len() + self.template.len()));
        for seq in numbers {
            match self.fragments {
                1 => self.write_frame(stream, seq, 0, out),
                _ => self.write_fragments(stream, seq, out),
            }
        }
    }

    /// Frames of payloads as equal as can be; any of them may hold a part of the label.
    // RFC 6455 section 5.1: client-masks
    // RFC 6455 section 5.3: fresh-key
    // RFC 6455 section 6.1: opcode-is-set, last-has-fin
    fn write_fragments(&mut self, stream: u32, seq: u64, out: &mut Vec<u8>) {
        let size = self.template.len();
        let mut label = [0; 12];
        label[..8].copy_from_slice(&seq.to_le_bytes());
        label[8..].copy_from_slice(&stream.to_le_bytes());
        let labelled = if size < 16 { size.min(8) } else { label.len() };
        for index in 0..self.fragments {
            let [from, to] = [index, index + 1].map(|index| size * index / self.fragments);
            let data = if index == 0 {
                Data::Binary
            } else {
                Data::Continue
            };
            let key = self.keys.random::<[u8; 4]>();
            let mut header = [0; MAX_HEADER_BYTES];
            let header_len =
                write_frame_header(OpCode::Data(data), to - from, Some(key), &mut header);
            if to < size {
                header[0] &= !FIN;
            }
            out.extend_from_slice(&header[..header_len]);
            let start = out.len();
            append_masked(&self.template[from..to], key, out);
            let part = label[from.min(labelled)..to.min(labelled)].iter();
            let keyed = part.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
            for (place, byte) in out[start..].iter_mut().zip(keyed) {
                *place = byte;
            }
        }
    }

    /// Appends a frame.
    // RFC 6455 section 5.1: client-masks
    // RFC 6455 section 5.3: mask-bit, fresh-key
    // RFC 6455 section 6.1: data-is-masked
    // RFC 6455 section 10.3: new-key-for-each-frame
    pub fn write_frame(&mut self, stream: u32, seq: u64, sent_ns: u64, out: &mut Vec<u8>) {
        let key = match self.masked {
            true => self.keys.random::<u32>().to_ne_bytes(),
            false => [0; 4],
        };
        let mut header = self.header;
        if self.masked {
            header[self.header_len - 4..self.header_len].copy_from_slice(&key);
        }
        let start = out.len() + self.header_len;
        out.reserve(header.len() + self.template.len());
        // All of it and then less: a copy of constant length is no call.
        out.extend_from_slice(&header);
        out.truncate(start);
        append_masked(&self.template, key, out);
        // Each part of the label begins at a multiple of the key's length.
        let stream_key = u32::from_le_bytes(key);
        let label_key = u64::from(stream_key) << 32 | u64::from(stream_key);
        let payload = &mut out[start..];
        let seq = (seq ^ label_key).to_le_bytes();
        match payload.first_chunk_mut() {
            Some(place) => *place = seq,
            None => payload.copy_from_slice(&seq[..payload.len()]),
        }
        if payload.len() >= 16 {
            payload[8..12].copy_from_slice(&(stream ^ stream_key).to_le_bytes());
        }
        if self.stamped {
            payload[16..24].copy_from_slice(&(sent_ns ^ label_key).to_le_bytes());
        }
    }

    /// How many whole frames at the front of `bytes` are the replies to messages `numbers` of
    /// `stream`, in order and to the byte, and how many bytes these frames are.
    #[inline]
    pub fn count_replies(&self, stream: u32, numbers: Range<u64>, bytes: &[u8]) -> (u64, usize) {
        let frame_len = self.reply_header_len + self.template.len();
        let kept = u64::MAX.checked_shr(64 - self.sequence_bits()).unwrap_or(0);
        let header = &self.reply_header[..self.reply_header_len];
        let mut count = 0;
        for (seq, frame) in numbers.zip(bytes.chunks_exact(frame_len)) {
            let (start, payload) = frame.split_at(header.len());
            // Two to ten bytes: shorter than a call.
            if !start.iter().eq(header) {
                break;
            }
            let is_it = |label: Label| {
                label.seq == seq & kept && label.stream.is_none_or(|other| other == stream)
            };
            if !self.check(payload).is_ok_and(is_it) {
                break;
            }
            count += 1;
        }
        (count, count as usize * frame_len)
    }

    /// Reads the label of a received message and compares the rest.
    ///
    /// # Errors
    /// When any byte outside the label differs.
    pub fn check(&self, payload: &[u8]) -> Result<Label, Corrupted> {
        if payload.len() != self.template.len() {
            return Err(Corrupted);
        }
        self.check_first(payload)
    }

    /// As [`check`](Self::check), of the first bytes of a message: all of them, or at least
    /// [`MOST_LABEL_BYTES`].
    ///
    /// # Errors
    /// When any byte outside the label differs.
    pub fn check_first(&self, payload: &[u8]) -> Result<Label, Corrupted> {
        let template = self.template.get(..payload.len()).ok_or(Corrupted)?;
        let (label, fill) = match payload.first_chunk::<16>() {
            Some(first) => {
                if first[12..] != template[12..16] {
                    return Err(Corrupted);
                }
                let first = u128::from_le_bytes(*first);
                let stamp = payload.get(16..24).filter(|_| self.stamped);
                let label = Label {
                    seq: first as u64,
                    stream: Some((first >> 64) as u32),
                    sent_ns: stamp.map_or(0, read),
                };
                (label, if self.stamped { 24 } else { 16 })
            }
            None => {
                let seq_len = payload.len().min(8);
                let label = Label {
                    seq: read(&payload[..seq_len]),
                    stream: None,
                    sent_ns: 0,
                };
                (label, seq_len)
            }
        };
        if payload[fill..] != template[fill..] {
            return Err(Corrupted);
        }
        Ok(label)
    }

    /// Whether `part` is what a message has behind its label from byte `at` on.
    pub fn is_fill(&self, at: usize, part: &[u8]) -> bool {
        self.template.get(at..at + part.len()) == Some(part)
    }
}

/// The number of up to 8 bytes.
fn read(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ws_proto::{Event, Input, Limits, Role, Session};

    /// What a server would see.
    fn unmasked(mut frame: Vec<u8>) -> Vec<u8> {
        let mut session = Session::new(Role::Server, Limits::default());
        let mut input = Input::new(&mut frame);
        match session.receive(&mut input).unwrap().unwrap() {
            Event::Message { payload, .. } => payload.to_vec(),
            event => panic!("{event:?}"),
        }
    }

    /// How many masked frames there are; their lengths differ by 1 at most.
    fn frames(mut bytes: &[u8]) -> usize {
        let mut lengths = Vec::new();
        while let [_, length, rest @ ..] = bytes {
            let (length, rest) = match length & 0x7f {
                126 => (
                    usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                    &rest[2..],
                ),
                short => (usize::from(short), rest),
            };
            lengths.push(length);
            bytes = &rest[4 + length..];
        }
        let [least, most] = [lengths.iter().min(), lengths.iter().max()];
        assert!(most.unwrap() - least.unwrap() <= 1, "{lengths:?}");
        lengths.len()
    }

    proptest! {
        #[test]
        fn a_label_survives_the_trip(size in 0_usize..300, stream: u32, seq: u64, nonce: u32) {
            let mut payload = Payload::new(size, nonce, false);
            let mut frame = Vec::new();
            payload.write_frame(stream, seq, 0, &mut frame);
            let label = payload.check(&unmasked(frame)).unwrap();
            let bits = payload.sequence_bits();
            let kept = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            prop_assert_eq!(label.seq, seq & kept);
            prop_assert_eq!(label.stream, (size >= 16).then_some(stream));
        }

        #[test]
        fn a_message_in_many_frames_is_the_same_message(
            size in 1_usize..5_000,
            fragments in 1_usize..40,
            stream: u32,
            seq: u64,
        ) {
            let fragments = fragments.min(size);
            let mut payload = Payload::new(size, 7, false);
            let (mut whole, mut split) = (Vec::new(), Vec::new());
            payload.write_messages(stream, seq..seq + 1, &mut whole);
            payload.split(fragments);
            payload.write_messages(stream, seq..seq + 1, &mut split);
            prop_assert_eq!(frames(&split), fragments);
            prop_assert_eq!(unmasked(split), unmasked(whole));
        }

        #[test]
        fn replies_are_counted_up_to_the_first_that_is_another(
            size in 0_usize..100,
            first in 0_u64..1_000,
            replies in 1_u64..20,
            at: prop::sample::Index,
            bit in 0_u8..8,
        ) {
            let mut payload = Payload::new(size, 7, false);
            payload.leave_unmasked();
            let numbers = first..first + replies;
            let mut bytes = Vec::new();
            payload.write_messages(3, numbers.clone(), &mut bytes);
            let frame_len = bytes.len() / replies as usize;
            let count = |numbers, bytes: &[u8]| {
                let (count, taken) = payload.count_replies(3, numbers, bytes);
                assert_eq!(taken, count as usize * frame_len);
                count
            };
            prop_assert_eq!(count(numbers.clone(), &bytes), replies);
            prop_assert_eq!(count(first..first + 1, &bytes), 1, "no more was sent");
            let at = at.index(bytes.len());
            let whole = (at / frame_len) as u64;
            prop_assert_eq!(count(numbers.clone(), &bytes[..at]), whole);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(count(numbers, &bytes), whole);
        }

        #[test]
        fn any_flipped_byte_shows(size in 16_usize..200, at: prop::sample::Index, bit in 0_u8..8) {
            let mut payload = Payload::new(size, 7, false);
            let mut frame = Vec::new();
            payload.write_frame(3, 5, 0, &mut frame);
            let mut bytes = unmasked(frame);
            bytes[at.index(size)] ^= 1 << bit;
            let same = Label { seq: 5, stream: Some(3), sent_ns: 0 };
            prop_assert_ne!(payload.check(&bytes), Ok(same));
        }
    }

    #[test]
    fn a_stamp_survives_and_lengths_are_checked() {
        let mut payload = Payload::new(24, 1, true);
        let mut frame = Vec::new();
        payload.write_frame(9, 2, 0x1234_5678_9abc, &mut frame);
        let bytes = unmasked(frame);
        assert_eq!(payload.check(&bytes).unwrap().sent_ns, 0x1234_5678_9abc);
        assert_eq!(payload.check(&bytes[..23]), Err(Corrupted));
    }

    #[test]
    fn an_unmasked_frame_is_what_a_server_would_send() {
        let mut payload = Payload::new(300, 1, false);
        payload.leave_unmasked();
        let mut frame = Vec::new();
        payload.write_frame(4, 2, 0, &mut frame);
        let mut session = Session::new(Role::Client, Limits::default());
        let mut input = Input::new(&mut frame);
        let event = session.receive(&mut input).unwrap();
        let Some(Event::Message { payload: bytes, .. }) = event else {
            panic!("{event:?}");
        };
        let label = payload.check(bytes).unwrap();
        assert_eq!((label.seq, label.stream), (2, Some(4)));
    }

    // RFC 6455 section 5.1: client-masks
    // RFC 6455 section 5.3: mask-bit, fresh-key
    // RFC 6455 section 6.1: data-is-masked
    // RFC 6455 section 10.3: new-key-for-each-frame
    #[test]
    fn two_frames_have_two_keys() {
        let mut payload = Payload::new(64, 1, false);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        payload.write_frame(0, 0, 0, &mut one);
        payload.write_frame(0, 0, 0, &mut two);
        assert_ne!(one, two);
        assert_eq!(unmasked(one), unmasked(two));
    }
}
