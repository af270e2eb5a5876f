//! What one connection still has to send, bounded, with the slow-consumer policy. Decides; does not
//! send.
//!
//! The writer loop is [`Outbox::next`] or [`Outbox::next_bytes`], send, [`Outbox::advance`], until
//! it is empty. One writer at a time: whoever finds the outbox empty may write directly and push
//! only what the socket did not take.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::options::{SendQueue, SlowConsumer};
use crate::rooms::Frames;

/// The outbound queue of one connection. Eight bytes while it is empty: its memory comes and goes
/// with the need.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Messages in `pieces`, the one whose bytes are partly sent included.
    messages: usize,
    /// Bytes of those messages that are still to be sent.
    bytes: usize,
    /// The slow-consumer policy or a Close has ended it: nothing but what is in it will be sent.
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    /// Messages, counted and bounded.
    Messages {
        frames: Frames,
        /// Bytes of the first frame that are still to be sent; all of it when nothing has been
        /// sent.
        first_left: usize,
    },
    /// A response or control frames: neither counted nor dropped.
    Control(Bytes),
}

/// What became of pushed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// All are queued.
    Queued,
    /// This many, the last ones, did not fit and are lost to this receiver (`--slow-consumer
    /// drop`). Count them.
    Dropped(u32),
    /// The receiver is too slow and is to be closed with 1008 (`--slow-consumer close`): the unsent
    /// messages are gone, and pushes have no effect any more. Said once; then [`Pushed::Ended`].
    Overflow,
    /// Refused, for the outbox was [closed](Outbox::close) or [ended](Outbox::end).
    Ended,
}

impl Outbox {
    /// An empty outbox.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.pieces.is_empty())
    }

    /// Messages not yet wholly sent.
    pub fn messages(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.messages)
    }

    /// Whether it takes no more messages.
    pub fn has_ended(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.ended)
    }

    /// Appends messages of which the first `sent` bytes have been sent already, by a direct write
    /// that the empty outbox allowed (0 otherwise).
    pub fn push(&mut self, mut frames: Frames, sent: usize, bound: SendQueue) -> Pushed {
        if self.has_ended() {
            return Pushed::Ended;
        }
        let first_left = skip_sent(&mut frames, sent);
        if frames.messages == 0 {
            return Pushed::Queued;
        }
        let queue = self.0.get_or_insert_default();
        let room = if queue.bytes < bound.max_bytes {
            bound.max_messages.saturating_sub(queue.messages)
        } else {
            0
        };
        if frames.messages as usize <= room {
            queue.append(frames, first_left);
            return Pushed::Queued;
        }
        match bound.slow_consumer {
            SlowConsumer::Drop => {
                // What has begun must be finished, or the stream would be garbage: the bound is at
                // least 1.
                let all = frames.messages;
                let kept = match frames.split_after(room as u32) {
                    Some((head, _)) => {
                        queue.append(head, first_left);
                        room as u32
                    }
                    None => 0,
                };
                Pushed::Dropped(all - kept)
            }
            SlowConsumer::Close => {
                let begun = first_left < frames.first_frame_bytes();
                if begun {
                    let first = frames.split_after(1).map_or(frames, |(first, _)| first);
                    queue.append(first, first_left);
                }
                self.end();
                Pushed::Overflow
            }
        }
    }

    /// Appends a handshake response or control frames, whatever the bound. The caller sees to it
    /// that a peer cannot make it do so without end: it does not read from a connection whose
    /// outbox is not empty.
    pub fn push_control(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            let queue = self.0.get_or_insert_default();
            queue.pieces.push_back(Piece::Control(bytes));
        }
    }

    /// Appends our Close frame behind everything queued; takes no more messages, for nothing may
    /// follow it.
    pub fn close(&mut self, frame: impl Into<Bytes>) {
        self.push_control(frame);
        self.0.get_or_insert_default().ended = true;
    }

    /// Gives up the messages that have not begun to be sent and takes no more. Control frames stay
    /// and may still be pushed, such as the Close that explains it.
    pub fn end(&mut self) {
        let queue = self.0.get_or_insert_default();
        queue.ended = true;
        queue.pieces.retain_mut(Piece::keep_what_has_begun);
        queue.messages = queue.pieces.iter().map(Piece::messages).sum();
        queue.bytes = queue.pieces.iter().map(Piece::message_bytes).sum();
    }

    /// The bytes to send next, possibly of several messages; `None` when there is nothing.
    pub fn next(&self) -> Option<&[u8]> {
        self.0.as_ref()?.pieces.front().map(Piece::unsent)
    }

    /// [`next`](Self::next) as shared memory, for runtimes that own the buffers they send.
    pub fn next_bytes(&self) -> Option<Bytes> {
        let piece = self.0.as_ref()?.pieces.front()?;
        Some(piece.bytes().slice_ref(piece.unsent()))
    }

    /// The first `n` bytes have been sent; returns how many messages became wholly sent.
    ///
    /// # Panics
    /// When that is more than there was.
    pub fn advance(&mut self, mut n: usize) -> u64 {
        let Some(queue) = &mut self.0 else {
            assert_eq!(n, 0, "nothing was queued");
            return 0;
        };
        let mut done = 0;
        while let Some(piece) = queue.pieces.front_mut() {
            let here = n.min(piece.unsent().len());
            let before = piece.message_bytes();
            done += piece.advance(here);
            queue.bytes -= before - piece.message_bytes();
            n -= here;
            if !piece.unsent().is_empty() {
                break;
            }
            queue.pieces.pop_front();
        }
        assert_eq!(n, 0, "more sent than was queued");
        queue.messages -= done as usize;
        if queue.pieces.is_empty() && !queue.ended {
            self.0 = None;
        }
        done
    }
}

/// Takes the messages off the front of `frames` that are within the first `sent` bytes; returns the
/// bytes left of the first remaining one, whose sent bytes stay in front of it.
fn skip_sent(frames: &mut Frames, sent: usize) -> usize {
    let done = frames.messages_within(sent);
    if done == frames.messages {
        frames.messages = 0;
        return 0;
    }
    let before = frames.bytes.len();
    if let Some((_, rest)) = frames.split_after(done) {
        *frames = rest;
    }
    let sent_of_first = sent - (before - frames.bytes.len());
    frames.first_frame_bytes() - sent_of_first
}

impl Queue {
    fn append(&mut self, frames: Frames, first_left: usize) {
        let piece = Piece::Messages { frames, first_left };
        self.messages += piece.messages();
        self.bytes += piece.message_bytes();
        self.pieces.push_back(piece);
    }
}

impl Piece {
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Messages { frames, .. } => &frames.bytes,
            Self::Control(bytes) => bytes,
        }
    }

    fn unsent(&self) -> &[u8] {
        match self {
            Self::Messages { frames, first_left } if frames.messages > 0 => {
                &frames.bytes[frames.first_frame_bytes() - first_left..]
            }
            Self::Messages { .. } => &[],
            Self::Control(bytes) => bytes,
        }
    }

    fn message_bytes(&self) -> usize {
        match self {
            Self::Messages { .. } => self.unsent().len(),
            Self::Control(_) => 0,
        }
    }

    fn messages(&self) -> usize {
        match self {
            Self::Messages { frames, .. } => frames.messages as usize,
            Self::Control(_) => 0,
        }
    }

    /// Returns the messages that became wholly sent.
    fn advance(&mut self, n: usize) -> u64 {
        match self {
            Self::Messages { frames, first_left } => {
                let before = frames.messages;
                let sent_before = frames.first_frame_bytes() - *first_left;
                *first_left = skip_sent(frames, sent_before + n);
                u64::from(before - frames.messages)
            }
            Self::Control(bytes) => {
                bytes.advance(n);
                0
            }
        }
    }

    /// Cuts messages down to the one whose first bytes are sent already; `false` when there is
    /// none.
    fn keep_what_has_begun(&mut self) -> bool {
        match self {
            Self::Messages { frames, first_left } => {
                let begun = *first_left < frames.first_frame_bytes();
                if let (true, Some((first, _))) = (begun, frames.split_after(1)) {
                    *frames = first;
                }
                begun
            }
            Self::Control(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ws_proto::Kind;

    use super::*;
    use crate::rooms::FrameBuilder;

    const CLOSE: &[u8] = b"\x88\x02\x03\xf0";

    fn bound(max_messages: usize, slow_consumer: SlowConsumer) -> SendQueue {
        SendQueue {
            max_messages,
            max_bytes: usize::MAX,
            slow_consumer,
        }
    }

    /// Messages of five bytes on the wire: two of header, three of payload.
    fn frames(numbers: std::ops::Range<u8>) -> Frames {
        let mut builder = FrameBuilder::default();
        for number in numbers {
            builder.push(Kind::Binary, &[number; 3]);
        }
        builder.take().unwrap()
    }

    /// Everything the writer would send.
    fn send_all(outbox: &mut Outbox) -> Vec<u8> {
        let mut sent = vec![];
        while let Some(next) = outbox.next() {
            sent.extend_from_slice(next);
            let n = next.len();
            outbox.advance(n);
        }
        sent
    }

    #[test]
    fn is_eight_bytes_and_holds_nothing_when_empty() {
        assert_eq!(size_of::<Outbox>(), 8);
        let mut outbox = Outbox::new();
        assert_eq!(outbox.next(), None);
        outbox.push(frames(0..2), 0, bound(9, SlowConsumer::Close));
        assert_eq!(outbox.messages(), 2);
        send_all(&mut outbox);
        assert!(outbox.is_empty() && outbox.0.is_none());
    }

    #[test]
    fn a_direct_write_leaves_the_rest() {
        let all = frames(0..3);
        for sent in 0..=15 {
            let mut outbox = Outbox::new();
            let pushed = outbox.push(all.clone(), sent, bound(3, SlowConsumer::Close));
            assert_eq!(pushed, Pushed::Queued);
            assert_eq!(outbox.messages(), 3 - sent / 5, "{sent}");
            assert_eq!(send_all(&mut outbox), all.bytes[sent..]);
        }
    }

    #[test]
    fn advance_counts_messages_when_their_last_byte_is_sent() {
        let mut outbox = Outbox::new();
        outbox.push(frames(0..3), 2, bound(9, SlowConsumer::Close));
        outbox.push_control(CLOSE);
        let counts: Vec<_> = [2, 1, 6, 4, 4].map(|n| outbox.advance(n)).to_vec();
        assert_eq!(counts, [0, 1, 1, 1, 0]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn next_bytes_is_next() {
        let mut outbox = Outbox::new();
        outbox.push(frames(0..2), 1, bound(9, SlowConsumer::Close));
        outbox.advance(3);
        assert_eq!(outbox.next_bytes().as_deref(), outbox.next());
        assert_eq!(outbox.next().unwrap().len(), 6);
    }

    #[test]
    fn drop_keeps_the_first_and_says_how_many_are_lost() {
        let mut outbox = Outbox::new();
        let drop = bound(3, SlowConsumer::Drop);
        assert_eq!(outbox.push(frames(0..2), 0, drop), Pushed::Queued);
        assert_eq!(outbox.push(frames(2..6), 0, drop), Pushed::Dropped(3));
        assert_eq!(outbox.push(frames(6..7), 0, drop), Pushed::Dropped(1));
        assert_eq!(outbox.messages(), 3);
        outbox.advance(5);
        assert_eq!(outbox.push(frames(7..8), 0, drop), Pushed::Queued);
        let rest = [&frames(1..3).bytes[..], &frames(7..8).bytes[..]].concat();
        assert_eq!(send_all(&mut outbox), rest);
    }

    #[test]
    fn a_queue_with_too_many_bytes_is_full_whatever_their_number() {
        let bound = SendQueue {
            max_bytes: 12,
            ..bound(100, SlowConsumer::Drop)
        };
        let mut outbox = Outbox::new();
        outbox.push_control(CLOSE);
        for (frames, pushed) in [
            (frames(0..2), Pushed::Queued),
            (frames(2..4), Pushed::Queued),
            (frames(4..5), Pushed::Dropped(1)),
        ] {
            assert_eq!(outbox.push(frames, 0, bound), pushed);
        }
        outbox.advance(CLOSE.len() + 8);
        assert_eq!(outbox.push(frames(5..6), 0, bound), Pushed::Dropped(1));
        outbox.advance(1);
        assert_eq!(outbox.push(frames(6..7), 0, bound), Pushed::Queued);
        let rest = [&frames(1..4).bytes[4..], &frames(6..7).bytes[..]].concat();
        assert_eq!(send_all(&mut outbox), rest);
        assert!(outbox.0.is_none());
    }

    #[test]
    fn a_message_that_has_begun_is_finished_whatever_the_policy() {
        for (policy, kept) in [(SlowConsumer::Drop, 2), (SlowConsumer::Close, 1)] {
            let mut outbox = Outbox::new();
            let all = frames(0..9);
            outbox.push(all.clone(), 7, bound(2, policy));
            assert_eq!(send_all(&mut outbox), all.bytes[7..5 * (1 + kept)]);
        }
    }

    #[test]
    fn overflow_ends_it_and_only_the_close_follows() {
        let mut outbox = Outbox::new();
        let close = bound(3, SlowConsumer::Close);
        outbox.push(frames(0..3), 0, close);
        outbox.advance(1);
        assert_eq!(outbox.push(frames(3..4), 0, close), Pushed::Overflow);
        assert_eq!(outbox.push(frames(4..5), 0, close), Pushed::Ended);
        outbox.push_control(CLOSE);
        let rest = [&frames(0..1).bytes[1..], CLOSE].concat();
        assert_eq!(send_all(&mut outbox), rest);
        assert_eq!(outbox.push(frames(5..6), 0, close), Pushed::Ended);
        assert!(outbox.has_ended() && outbox.is_empty());
    }

    #[test]
    fn close_waits_for_what_is_queued_and_nothing_follows_it() {
        let mut outbox = Outbox::new();
        let close = bound(3, SlowConsumer::Close);
        outbox.push(frames(0..2), 0, close);
        outbox.close(CLOSE);
        assert_eq!(outbox.push(frames(2..3), 0, close), Pushed::Ended);
        let all = [&frames(0..2).bytes[..], CLOSE].concat();
        assert_eq!(send_all(&mut outbox), all);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Send(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..6u8).prop_map(Step::Push),
            (0..30usize).prop_map(Step::Send),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// The bound holds at every moment, and the receiver sees whole messages in order, only
        /// dropped ones missing.
        #[test]
        fn bounded_ordered_and_whole(steps in steps(), max in 1..8usize) {
            let mut outbox = Outbox::new();
            let (mut sent, mut kept, mut done) = (vec![], 0u64, 0);
            let mut number = 0u8;
            for step in steps {
                match step {
                    Step::Push(n) => {
                        let range = number..number.saturating_add(n);
                        if range.is_empty() { continue; }
                        number = range.end;
                        let count = range.len() as u64;
                        let pushed = outbox.push(frames(range), 0, bound(max, SlowConsumer::Drop));
                        kept += match pushed {
                            Pushed::Queued => count,
                            Pushed::Dropped(lost) => count - u64::from(lost),
                            other => return Err(TestCaseError::fail(format!("{other:?}"))),
                        };
                    }
                    Step::Send(n) => {
                        let next = outbox.next().unwrap_or_default();
                        let n = n.min(next.len());
                        sent.extend_from_slice(&next[..n]);
                        done += outbox.advance(n);
                    }
                }
                prop_assert!(outbox.messages() <= max);
                prop_assert_eq!(outbox.messages() as u64, kept - done);
            }
            sent.extend(send_all(&mut outbox));
            prop_assert_eq!(sent.len() as u64, kept * 5);
            let seen: Vec<_> = sent.chunks(5).map(|frame| {
                assert_eq!(frame, [0x82, 3, frame[2], frame[2], frame[2]]);
                frame[2]
            }).collect();
            prop_assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}
