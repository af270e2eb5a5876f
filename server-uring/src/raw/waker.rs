//! Waking a worker: from another thread through its ring, from its own without the kernel.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Wake, Waker};

thread_local! {
    /// The worker of this thread.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
    /// This thread's worker has woken itself.
    static WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// Wakes one worker: something for it is in its mailbox, or there is room in another's again.
struct WorkerWaker {
    worker: usize,
    ring: uring_net::Waker,
}

impl Wake for WorkerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if HERE.get() == Some(self.worker) {
            WOKEN.set(true);
        } else {
            self.ring.wake();
        }
    }
}

/// The waker of the worker on this thread, as rooms want it.
pub(crate) fn of_this_thread(worker: usize, ring: uring_net::Waker) -> Waker {
    HERE.set(Some(worker));
    Waker::from(Arc::new(WorkerWaker { worker, ring }))
}

/// Whether this thread's worker has woken itself since [`take`]: then it must not sleep.
pub(crate) fn is_woken() -> bool {
    WOKEN.get()
}

/// As [`is_woken`], and takes it back.
pub(crate) fn take() -> bool {
    WOKEN.replace(false)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use uring_net::{Event, Ring, Token};

    use super::*;

    #[test]
    fn a_worker_rings_for_itself_without_the_kernel_and_others_through_the_ring() {
        let mut ring = Ring::builder().build().unwrap();
        let waker = of_this_thread(3, ring.waker(Token(0)).unwrap());
        waker.wake_by_ref();
        assert!(is_woken() && take() && !is_woken());
        ring.wait(0, None).unwrap();
        assert!(ring.next_completion().is_none(), "no eventfd was written");
        std::thread::spawn(move || waker.wake()).join().unwrap();
        ring.wait(1, Some(Instant::now() + Duration::from_secs(20)))
            .unwrap();
        let woken = ring.next_completion().map(|completion| completion.event);
        assert!(matches!(woken, Some(Event::Woken)), "{woken:?}");
        assert!(!is_woken());
    }
}
