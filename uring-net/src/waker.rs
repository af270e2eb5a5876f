//! Waking a ring from another thread.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::completion::Token;

#[derive(Debug)]
struct Shared {
    eventfd: OwnedFd,
    /// A wake is on its way that the ring has not looked at.
    pending: AtomicBool,
}

/// Wakes the ring it was made by, from any thread. Cheap to clone.
///
/// Wakes are coalesced: any number of calls before the ring looks give one
/// [`Event::Woken`](crate::Event::Woken), and only the first of them costs a system call. What the
/// waking thread wrote before is visible to the ring's thread at that event.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Makes the ring's [`wait`](crate::Ring::wait) return with an
    /// [`Event::Woken`](crate::Event::Woken). Does nothing when the ring is gone.
    pub fn wake(&self) {
        // AcqRel, with the swap in `Wake::take`: whoever finds `true` here knows that the ring has
        // yet to look, and what was written before this call is visible to it when it does.
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            // Cannot block or overflow: at most one write of 1 per read. Nothing else can fail on
            // an eventfd that we hold.
            let _ = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
        }
    }
}

/// The ring's end of its wakers.
#[derive(Debug)]
pub(crate) struct Wake {
    shared: Arc<Shared>,
    /// Where the kernel puts the eventfd's count. Never read; boxed because the kernel keeps its
    /// address while a read is in flight.
    count: Box<UnsafeCell<u64>>,
    pub(crate) token: Token,
}

impl Wake {
    pub(crate) fn new(token: Token) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                eventfd: eventfd(0, EventfdFlags::CLOEXEC)?,
                pending: AtomicBool::new(false),
            }),
            count: Box::new(UnsafeCell::new(0)),
            token,
        })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }

    /// Eight bytes that stay where they are as long as `self` lives.
    pub(crate) fn count(&self) -> *mut u64 {
        self.count.get()
    }

    /// The ring has seen the wake: the next one counts again.
    pub(crate) fn take(&self) {
        self.shared.pending.swap(false, Ordering::AcqRel);
    }
}
