//! What one connection still has to send, bounded, with the slow-consumer policy. Decides; does not send.
//!
//! The writer loop is [`Outbox::next`] or [`Outbox::next_bytes`], send, [`Outbox::advance`], until it is empty. One writer
//! at a time: whoever finds the outbox empty may write directly and push only what the socket did not take.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::options::{SendQueue, SlowConsumer};
use crate::rooms::Frames;

/// The outbound queue of one connection. Eight bytes while it is empty: its memory comes and goes with the need.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Messages in `pieces`, the one whose bytes are partly sent included.
    messages: usize,
    /// The slow-consumer policy or a Close has ended it: nothing but what is in it will be sent.
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    /// Messages, counted and bounded.
    Messages {
        frames: Frames,
        /// Bytes of the first frame that are still to be sent; all of it when nothing has been sent.
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
    /// This many, the last ones, did not fit and are lost to this receiver (`--slow-consumer drop`). Count them.
    Dropped(u32),
    /// The receiver is too slow and is to be closed with 1008 (`--slow-consumer close`): the unsent messages are gone, and
    /// pushes have no effect any more. Said once; then [`Pushed::Ended`].
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

    /// Appends messages of which the first `sent` bytes have been sent already, by a direct write that the empty outbox
    /// allowed (0 otherwise).
    pub fn push(&mut self, mut frames: Frames, sent: usize, bound: SendQueue) -> Pushed {
        if self.has_ended() {
            return Pushed::Ended;
        }
        let first_left = skip_sent(&mut frames, sent);
        if frames.messages == 0 {
            return Pushed::Queued;
        }
        let queue = self.0.get_or_insert_default();
        let room = bound.max_messages.saturating_sub(queue.messages);
        if frames.messages as usize <= room {
            queue.append(frames, first_left);
            return Pushed::Queued;
        }
        match bound.slow_consumer {
            SlowConsumer::Drop => {
                // What has begun must be finished, or the stream would be garbage: the bound is at least 1.
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

    /// Appends a handshake response or control frames, whatever the bound. The caller sees to it that a peer cannot make
    /// it do so without end: it does not read from a connection whose outbox is not empty.
    pub fn push_control(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            let queue = self.0.get_or_insert_default();
            queue.pieces.push_back(Piece::Control(bytes));
        }
    }

    /// Appends our Close frame behind everything queued; takes no more messages, for nothing may follow it.
    pub fn close(&mut self, frame: impl Into<Bytes>) {
        self.push_control(frame);
        self.0.get_or_insert_default().ended = true;
    }

    /// Gives up the messages that have not begun to be sent and takes no more. Control frames stay and may still be
    /// pushed, such as the Close that explains it.
    pub fn end(&mut self) {
        let queue = self.0.get_or_insert_default();
        queue.ended = true;
        queue.pieces.retain_mut(Piece::keep_what_has_begun);
        queue.messages = queue.pieces.iter().map(Piece::messages).sum();
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
            done += piece.advance(here);
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

/// Takes the messages off the front of `frames` that are within the first `sent` bytes; returns the bytes left of the
/// first remaining one, whose sent bytes stay in front of it.
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
        self.messages += frames.messages as usize;
        self.pieces
            .push_back(Piece::Messages { frames, first_left });
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

    /// Cuts messages down to the one whose first bytes are sent already; `false` when there is none.
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
