//! Waking a worker: from another thread through its ring, from its own without the kernel.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Wake, Waker};

thread_local! {
    /// The worker of this thread.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
    /// This thread's worker has rung for itself.
    static RUNG: Cell<bool> = const { Cell::new(false) };
}

/// Rings for one worker: something for it is in its mailbox, or there is room in another's again.
struct Bell {
    worker: usize,
    ring: uring_net::Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if HERE.get() == Some(self.worker) {
            RUNG.set(true);
        } else {
            self.ring.wake();
        }
    }
}

/// The bell of the worker on this thread, as rooms want it.
pub(crate) fn of_this_thread(worker: usize, ring: uring_net::Waker) -> Waker {
    HERE.set(Some(worker));
    Waker::from(Arc::new(Bell { worker, ring }))
}

/// Whether this thread's worker has rung for itself since [`take`]: then it must not sleep.
pub(crate) fn is_rung() -> bool {
    RUNG.get()
}

/// As [`is_rung`], and takes it back.
pub(crate) fn take() -> bool {
    RUNG.replace(false)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use uring_net::{Event, Ring, Token};

    use super::*;

    #[test]
    fn a_worker_rings_for_itself_without_the_kernel_and_others_through_the_ring() {
        let mut ring = Ring::builder().build().unwrap();
        let bell = of_this_thread(3, ring.waker(Token(0)).unwrap());
        bell.wake_by_ref();
        assert!(is_rung() && take() && !is_rung());
        ring.wait(0, None).unwrap();
        assert!(ring.next_completion().is_none(), "no eventfd was written");
        std::thread::spawn(move || bell.wake()).join().unwrap();
        ring.wait(1, Some(Instant::now() + Duration::from_secs(20)))
            .unwrap();
        let woken = ring.next_completion().map(|completion| completion.event);
        assert!(matches!(woken, Some(Event::Woken)), "{woken:?}");
        assert!(!is_rung());
    }
}
