//! What one connection still has to send, bounded, with the slow-consumer policy. Decides; does not
//! send.
//!
//! The writer loop is [`Outbox::next`], send, [`Outbox::advance`], or, for runtimes that own the
//! buffers they send, [`Outbox::take`] and send, until it is empty. One writer at a time: whoever
//! finds the outbox empty may write directly and push only what the socket did not take.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::counters::WorkerCounters;
use crate::options::{SendQueue, SlowConsumer};
use crate::rooms::Frames;

/// The most that is taken out of an outbox at once, so that a slow peer's progress is seen.
pub const LARGEST_PIECE: usize = 256 * 1024;

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
    /// Bytes of everything else that is still to be sent.
    control_bytes: usize,
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
    /// A response or control frames, never dropped.
    Control {
        bytes: Vec<u8>,
        /// How many of them are sent.
        sent: usize,
    },
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

    /// Bytes not yet sent that are not of messages: responses, pongs, pings, a Close.
    pub fn control_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.control_bytes)
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
                        queue.append(head.without_memory_of(&frames), first_left);
                        room as u32
                    }
                    None => 0,
                };
                Pushed::Dropped(all - kept)
            }
            SlowConsumer::Close => {
                let begun = first_left < frames.first_frame_bytes();
                if begun {
                    let first = match frames.split_after(1) {
                        Some((first, _)) => first.without_memory_of(&frames),
                        None => frames,
                    };
                    queue.append(first, first_left);
                }
                self.end();
                Pushed::Overflow
            }
        }
    }

    /// As [`push`](Self::push), and counts what is lost. Whether the receiver is too slow and is to
    /// be closed with [`SLOW_CONSUMER`](crate::control::SLOW_CONSUMER): said once.
    pub fn push_counted(
        &mut self,
        frames: Frames,
        sent: usize,
        bound: SendQueue,
        counters: &WorkerCounters,
    ) -> bool {
        match self.push(frames, sent, bound) {
            Pushed::Queued | Pushed::Ended => false,
            Pushed::Dropped(messages) => {
                counters.dropped.add(messages.into());
                false
            }
            Pushed::Overflow => {
                counters.slow_consumers_closed.add(1);
                true
            }
        }
    }

    /// Appends a handshake response or control frames, whatever the bound. They join the control
    /// frames before them, so that they leave together. A peer that pings and does not read makes
    /// its pongs pile up: the caller does not read from a connection whose
    /// [`control_bytes`](Self::control_bytes) are many.
    pub fn push_control(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        let queue = self.0.get_or_insert_default();
        queue.control_bytes += bytes.len();
        match queue.pieces.back_mut() {
            Some(Piece::Control { bytes: last, .. })
                if last.len() + bytes.len() <= LARGEST_PIECE =>
            {
                last.extend_from_slice(&bytes);
            }
            _ => queue.pieces.push_back(Piece::Control { bytes, sent: 0 }),
        }
    }

    /// Appends our Close frame behind everything queued; takes no more messages, for nothing may
    /// follow it.
    pub fn close(&mut self, frame: impl Into<Vec<u8>>) {
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

    /// Takes out what to send next, for runtimes that own the buffers they send: the bytes,
    /// possibly of several messages, and how many messages end with them. What is given to the
    /// kernel must not be in the outbox any more: there it could be given up.
    pub fn take(&mut self) -> Option<(Bytes, u64)> {
        let queue = self.0.as_mut()?;
        let (bytes, messages) = match queue.pieces.front_mut()? {
            Piece::Control { bytes, sent } => {
                let mut unsent = Bytes::from(std::mem::take(bytes));
                unsent.advance(*sent);
                queue.control_bytes -= unsent.len();
                queue.pieces.pop_front();
                (unsent, 0)
            }
            Piece::Messages { frames, first_left } => {
                let mut unsent = frames
                    .bytes
                    .slice(frames.first_frame_bytes() - *first_left..);
                unsent.truncate(LARGEST_PIECE);
                let messages = queue.advance_front(unsent.len());
                (unsent, messages)
            }
        };
        self.free_if_empty();
        Some((bytes, messages))
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
        while let Some(piece) = queue.pieces.front() {
            let here = n.min(piece.unsent().len());
            done += queue.advance_front(here);
            n -= here;
            if n == 0 {
                break;
            }
        }
        assert_eq!(n, 0, "more sent than was queued");
        self.free_if_empty();
        done
    }

    fn free_if_empty(&mut self) {
        if let Some(queue) = &self.0
            && queue.pieces.is_empty()
            && !queue.ended
        {
            self.0 = None;
        }
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
        self.bytes += piece.unsent().len();
        self.pieces.push_back(piece);
    }

    /// The first `n` bytes of the first piece have been sent; returns how many messages became
    /// wholly sent.
    fn advance_front(&mut self, n: usize) -> u64 {
        let Some(piece) = self.pieces.front_mut() else {
            return 0;
        };
        let done = match piece {
            Piece::Messages { frames, first_left } => {
                let before = frames.messages;
                let sent_before = frames.first_frame_bytes() - *first_left;
                *first_left = skip_sent(frames, sent_before + n);
                self.bytes -= n;
                (before - frames.messages) as usize
            }
            Piece::Control { sent, .. } => {
                *sent += n;
                self.control_bytes -= n;
                0
            }
        };
        self.messages -= done;
        if piece.unsent().is_empty() {
            self.pieces.pop_front();
        }
        done as u64
    }
}

impl Piece {
    fn unsent(&self) -> &[u8] {
        match self {
            Self::Messages { frames, first_left } if frames.messages > 0 => {
                &frames.bytes[frames.first_frame_bytes() - first_left..]
            }
            Self::Messages { .. } => &[],
            Self::Control { bytes, sent } => &bytes[*sent..],
        }
    }

    fn message_bytes(&self) -> usize {
        match self {
            Self::Messages { .. } => self.unsent().len(),
            Self::Control { .. } => 0,
        }
    }

    fn messages(&self) -> usize {
        match self {
            Self::Messages { frames, .. } => frames.messages as usize,
            Self::Control { .. } => 0,
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
            Self::Control { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests;
