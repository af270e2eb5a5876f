//! Wake-ups from other threads, through the ring: monoio's own are not used (see
//! [`ring`](super::ring)).

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one worker, from any thread. As a [`Waker`] it is what the mailboxes of `server-core`
/// call.
///
/// Called on its own thread it raises that worker's [`Signal`] at once; called from elsewhere it
/// writes to an eventfd, once until the worker has read it.
#[derive(Debug)]
pub(crate) struct WorkerWaker {
    worker: usize,
    woken: AtomicBool,
    eventfd: OwnedFd,
}

thread_local! {
    static HERE: Here = const { Here { worker: Cell::new(None), signal: Signal::new() } };
}

/// What a worker's thread knows of its own waker.
struct Here {
    worker: Cell<Option<usize>>,
    signal: Signal,
}

impl WorkerWaker {
    /// Of worker `worker`, which is to call [`listen`](Self::listen).
    ///
    /// # Errors
    /// No descriptor for the eventfd.
    pub(crate) fn new(worker: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            worker,
            woken: AtomicBool::new(false),
            // Blocking on purpose: io_uring answers EAGAIN instead of waiting for a non-blocking
            // one.
            eventfd: eventfd(0, EventfdFlags::CLOEXEC)?,
        }))
    }

    /// Wakes the worker.
    pub(crate) fn wake_worker(&self) {
        if HERE.with(|here| here.worker.get()) == Some(self.worker) {
            HERE.with(|here| here.signal.raise());
        } else if !self.woken.swap(true, Ordering::AcqRel) {
            // Cannot fail: 8 bytes, and the counter is far from its limit.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Makes the calling thread the worker of this waker and raises its [`Signal`] whenever it was
    /// called. Ends only with an error of the ring.
    ///
    /// # Errors
    /// What reading the eventfd said.
    pub(crate) async fn listen(self: Arc<Self>) -> io::Result<()> {
        HERE.with(|here| here.worker.set(Some(self.worker)));
        let eventfd = ::monoio::fs::File::from_std(File::from(self.eventfd.try_clone()?))?;
        let mut count = vec![0; 8];
        loop {
            let (result, buf) = eventfd.read_at(count, 0).await;
            result?;
            count = buf;
            // Cleared before the signal: what is put into a mailbox from now on wakes anew.
            self.woken.store(false, Ordering::Release);
            HERE.with(|here| here.signal.raise());
        }
    }
}

impl Wake for WorkerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_worker();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_worker();
    }
}

/// Has the current task woken when this thread's waker is called next. Look at what you wait for,
/// then call this.
pub(crate) fn wake_with_worker(cx: &Context<'_>) {
    HERE.with(|here| here.signal.wake_later(cx));
}

/// Tasks of one thread that wait for one event.
#[derive(Debug)]
pub(crate) struct Signal(RefCell<Vec<Waker>>);

impl Signal {
    /// Nobody waits.
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Has the current task woken by the next [`raise`](Self::raise).
    pub(crate) fn wake_later(&self, cx: &Context<'_>) {
        let mut waiting = self.0.borrow_mut();
        if waiting
            .last()
            .is_none_or(|last| !last.will_wake(cx.waker()))
        {
            waiting.push(cx.waker().clone());
        }
    }

    /// Wakes all that wait.
    pub(crate) fn raise(&self) {
        let mut waiting = self.0.take();
        waiting.drain(..).for_each(Waker::wake);
        let mut newcomers = self.0.borrow_mut();
        if newcomers.is_empty() {
            // Keeps the memory.
            *newcomers = waiting;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU64;
    use std::task::Poll;

    use super::*;
    use crate::monoio::ring;

    #[test]
    fn every_ring_from_elsewhere_is_heard_though_many_share_a_write() {
        const RINGS: u64 = 20_000;
        let waker = WorkerWaker::new(0).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let (waker, count) = (Arc::clone(&waker), Arc::clone(&count));
                std::thread::spawn(move || {
                    for _ in 0..RINGS {
                        count.fetch_add(1, Ordering::Release);
                        waker.wake_worker();
                    }
                })
            })
            .collect();
        ring::build().unwrap().block_on(async move {
            ::monoio::spawn(waker.listen());
            poll_fn(|cx| {
                if count.load(Ordering::Acquire) == 2 * RINGS {
                    return Poll::Ready(());
                }
                wake_with_worker(cx);
                Poll::Pending
            })
            .await;
        });
        for ringer in ringers {
            ringer.join().unwrap();
        }
    }

    #[test]
    fn a_worker_rings_for_itself_without_the_kernel() {
        ring::build().unwrap().block_on(async {
            let waker = WorkerWaker::new(3).unwrap();
            ::monoio::spawn(Arc::clone(&waker).listen());
            let heard = ::monoio::spawn(poll_fn({
                let mut waited = false;
                move |cx| {
                    if std::mem::replace(&mut waited, true) {
                        return Poll::Ready(());
                    }
                    wake_with_worker(cx);
                    Poll::Pending
                }
            }));
            ::monoio::spawn({
                let waker = Arc::clone(&waker);
                async move { Waker::from(waker).wake() }
            })
            .await;
            heard.await;
            assert!(
                !waker.woken.load(Ordering::Acquire),
                "no eventfd was written"
            );
        });
    }
}
