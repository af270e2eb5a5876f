//! Closed-loop broadcast over several threads: which of them have members that wait for a message,
//! and which one to wake.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, Ordering::AcqRel},
};

use uring_net::Waker;

/// Shared by the threads of a closed-loop broadcast.
#[derive(Debug)]
pub struct DeliveryTracker {
    threads: usize,
    window: u64,
    /// Per publisher and place in its window: threads whose members have not all received the
    /// message.
    places: Vec<AtomicU32>,
    mailboxes: Vec<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// Publishers (numbers within the thread) with a place free again.
    freed: Mutex<Vec<u32>>,
    waker: OnceLock<Waker>,
}

impl DeliveryTracker {
    /// For `publishers` with `window` places each.
    pub fn new(threads: usize, publishers: usize, window: u64) -> Self {
        let mut places = Vec::new();
        places.resize_with(publishers * window as usize, AtomicU32::default);
        let mut mailboxes = Vec::new();
        mailboxes.resize_with(threads, Mailbox::default);
        Self {
            threads,
            window,
            places,
            mailboxes,
        }
    }

    /// How `thread` is woken.
    pub fn register(&self, thread: usize, waker: Waker) {
        // A second waker of the same ring would be the same.
        let _ = self.mailboxes[thread].waker.set(waker);
    }

    fn place(&self, publisher: u32, seq: u64) -> &AtomicU32 {
        &self.places[publisher as usize * self.window as usize + (seq % self.window) as usize]
    }

    /// A message is about to be published.
    pub fn published(&self, publisher: u32, seq: u64) {
        self.place(publisher, seq)
            .store(self.threads as u32, std::sync::atomic::Ordering::Release);
    }

    /// All members of `thread` have the message. True when they were the last; a publisher of
    /// another thread is told.
    pub fn received(&self, publisher: u32, seq: u64, thread: usize) -> bool {
        if self.place(publisher, seq).fetch_sub(1, AcqRel) != 1 {
            return false;
        }
        let owner = publisher as usize % self.threads;
        if owner != thread {
            let mailbox = &self.mailboxes[owner];
            let mut freed = mailbox.freed.lock().unwrap_or_else(PoisonError::into_inner);
            freed.push(publisher / self.threads as u32);
            drop(freed);
            if let Some(waker) = mailbox.waker.get() {
                waker.wake();
            }
        }
        true
    }

    /// Publishers of `thread` that other threads found to have a place free again.
    pub fn take_freed(&self, thread: usize) -> Vec<u32> {
        let mut freed = self.mailboxes[thread]
            .freed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thread_tells_the_owner() {
        let tracker = DeliveryTracker::new(2, 3, 1);
        tracker.published(1, 0);
        assert!(!tracker.received(1, 0, 1));
        assert!(tracker.take_freed(1).is_empty());
        assert!(tracker.received(1, 0, 0));
        assert_eq!(tracker.take_freed(1), [0]);
        tracker.published(2, 0);
        assert!(!tracker.received(2, 0, 1));
        assert!(
            tracker.received(2, 0, 0),
            "the owner itself needs no letter"
        );
        assert!(tracker.take_freed(0).is_empty());
    }
}
