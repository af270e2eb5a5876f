//! The bounded queue in front of one worker's rooms.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::rooms::{Frames, MemberId, Room};

/// What arrives in a mailbox, in the order in which it happened.
#[derive(Debug)]
pub enum Entry<M> {
    /// A connection of this worker has joined a room.
    Join {
        /// The room.
        room: Arc<Room>,
        /// The member's identity on this worker.
        id: MemberId,
        /// What the fan-out needs to reach it.
        member: M,
    },
    /// A connection of this worker has left a room.
    Leave {
        /// The room.
        room: Arc<Room>,
        /// The identity given when joining.
        id: MemberId,
    },
    /// Messages to all members of a room on this worker.
    Publish {
        /// The room.
        room: Arc<Room>,
        /// The messages.
        frames: Frames,
    },
}

/// Entries taken out of a mailbox at once. Keep it from drain to drain: its memory is swapped, not
/// allocated anew.
pub type Batch<M> = std::collections::VecDeque<Entry<M>>;

/// Entries for which an empty batch keeps memory.
const KEPT_ENTRIES: usize = 1024;

/// Publications that a mailbox holds, however short they are: each takes about a hundred bytes
/// beside its frames.
const MOST_PUBLICATIONS: usize = 4096;

/// The bounded queue in front of one worker's rooms. Any thread appends, the worker drains.
#[derive(Debug)]
pub struct Mailbox<M> {
    max_bytes: usize,
    inner: Mutex<Inner<M>>,
}

#[derive(Debug)]
struct Inner<M> {
    entries: Batch<M>,
    /// Publications among the entries, and the bytes of their frames.
    publications: usize,
    bytes: usize,
    /// The worker's fan-out, when it sleeps.
    drainer: Option<Waker>,
    /// Publishers that found the mailbox full.
    publishers: Vec<Waker>,
}

impl<M> Mailbox<M> {
    /// An empty mailbox for frames of `max_bytes` in all.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            inner: Mutex::new(Inner {
                entries: Batch::new(),
                publications: 0,
                bytes: 0,
                drainer: None,
                publishers: Vec::new(),
            }),
        }
    }

    /// Publications that are in it.
    pub fn publications(&self) -> usize {
        self.lock().publications
    }

    /// Takes everything out, in order, into the empty `batch`; wakes the publishers that waited.
    /// Pending while there is nothing, and then wakes `cx` when something arrives. One task at a
    /// time may drain.
    pub fn poll_drain(&self, cx: &mut Context<'_>, batch: &mut Batch<M>) -> Poll<()> {
        debug_assert!(batch.is_empty(), "a batch is finished before the next");
        let mut inner = self.lock();
        if inner.entries.is_empty() {
            // All members of a large room may have left at once.
            inner.entries.shrink_to(KEPT_ENTRIES);
            batch.shrink_to(KEPT_ENTRIES);
            inner.drainer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut inner.entries, batch);
        inner.publications = 0;
        inner.bytes = 0;
        let publishers = std::mem::take(&mut inner.publishers);
        drop(inner);
        publishers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    /// Appends messages; `false` when the mailbox is full, and then wakes `cx` when it has been
    /// drained. A single piece larger than the bound passes once the mailbox is empty.
    pub(super) fn try_publish(
        &self,
        cx: &mut Context<'_>,
        room: &Arc<Room>,
        frames: &Frames,
    ) -> bool {
        let mut inner = self.lock();
        let bytes = inner.bytes + frames.bytes.len();
        if inner.publications == MOST_PUBLICATIONS || inner.bytes > 0 && bytes > self.max_bytes {
            // A task that asks again, as one does that also waits for something else, is woken
            // once.
            if !inner.publishers.iter().any(|w| w.will_wake(cx.waker())) {
                inner.publishers.push(cx.waker().clone());
            }
            return false;
        }
        inner.publications += 1;
        inner.bytes = bytes;
        let entry = Entry::Publish {
            room: Arc::clone(room),
            frames: frames.clone(),
        };
        push(inner, entry);
        true
    }

    /// Appends a change of membership, which needs no room: there are no more of them than
    /// connections.
    pub(super) fn push(&self, entry: Entry<M>) {
        push(self.lock(), entry);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        // Every update below is complete before anything that could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<M>(mut inner: MutexGuard<'_, Inner<M>>, entry: Entry<M>) {
    inner.entries.push_back(entry);
    let drainer = inner.drainer.take();
    drop(inner);
    if let Some(waker) = drainer {
        waker.wake();
    }
}
