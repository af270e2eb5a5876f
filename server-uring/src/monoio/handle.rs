//! The part of a connection that others than its task may touch: fan-out, sweep, drain. All on one
//! thread.

use std::cell::{Cell, RefCell, RefMut};
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use ::monoio::buf::IoBuf;
use ::monoio::io::AsyncWriteRent;
use ::monoio::net::tcp::TcpOwnedWriteHalf;
use bytes::Bytes;
use server_core::counters::{Counters, WorkerCounters};
use server_core::options::LINGER_TIMEOUT;
use server_core::outbox::Outbox;
use server_core::rooms::Frames;
use server_core::sweep::{Activity, Phase};
use server_core::task::Signals;

/// What the handles of a worker have in common.
pub(crate) struct HandleContext {
    counters: Arc<Counters>,
    /// Index of the worker.
    worker: usize,
    /// Counts ticks of the sweep.
    pub(crate) tick: Cell<u32>,
    /// Connections that have a deadline.
    pub(crate) watched: RefCell<Vec<Weak<ConnectionHandle>>>,
}

impl HandleContext {
    pub(crate) fn new(counters: Arc<Counters>, worker: usize) -> Rc<Self> {
        Rc::new(Self {
            counters,
            worker,
            tick: Cell::new(0),
            watched: RefCell::default(),
        })
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.counters.worker(self.worker)
    }
}

/// How the fan-out finds a member among the connections of its worker. The slot may have been
/// given to another by then, hence the serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberKey {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// Why a waiting task goes on.
#[derive(Debug)]
pub(crate) enum Wake<T> {
    /// The operation has completed.
    Ready(T),
    /// Others have signalled.
    Signalled(Signals),
    /// The time to close is over, or the connection broke: let go of everything.
    Expired,
}

/// A connection as others see it.
pub(crate) struct ConnectionHandle {
    context: Rc<HandleContext>,
    /// Of the connection's task, which is the same at every poll: there is no need to register it
    /// again and again.
    task: Waker,
    signals: Cell<u8>,
    phase: Cell<Phase>,
    pub(crate) activity: Activity,
    outbox: RefCell<Outbox>,
    /// Number of the socket's descriptor.
    descriptor: RawFd,
    /// The half of the socket to write to. Whoever takes it is the writer.
    socket: Cell<Option<TcpOwnedWriteHalf>>,
    /// A writer other than the connection's task, to be woken when it is to let go.
    writer: Cell<Option<Waker>>,
    /// The connection's task waits for the writer to finish.
    awaited: Cell<bool>,
    /// When the patience with the peer ends, where there is an end to it.
    deadline: Cell<Option<Instant>>,
    expired: Cell<bool>,
}

impl ConnectionHandle {
    /// Must be called within the connection's own task, whose waker it keeps.
    pub(crate) async fn new(
        descriptor: RawFd,
        socket: TcpOwnedWriteHalf,
        context: &Rc<HandleContext>,
    ) -> Rc<Self> {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        Rc::new(Self {
            context: Rc::clone(context),
            task,
            signals: Cell::new(0),
            phase: Cell::new(Phase::Handshake),
            activity: Activity::at(context.tick.get()),
            outbox: RefCell::new(Outbox::new()),
            descriptor,
            socket: Cell::new(Some(socket)),
            writer: Cell::new(None),
            awaited: Cell::new(false),
            deadline: Cell::new(None),
            expired: Cell::new(false),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Tells the connection's task something and wakes it.
    pub(crate) fn signal(&self, signals: Signals) {
        self.signals.set(self.signals.get() | signals.bits());
        self.task.wake_by_ref();
    }

    /// Whether a signal waits to be handled.
    pub(crate) fn has_signal(&self, signals: Signals) -> bool {
        Signals::from_bits(self.signals.get()).includes(signals)
    }

    /// Expired, or signalled: both come before the socket, so that a busy connection handles them
    /// too.
    pub(crate) fn poll_signals<T>(&self) -> Poll<Wake<T>> {
        if self.expired.get() {
            return Poll::Ready(Wake::Expired);
        }
        match self.signals.replace(0) {
            0 => Poll::Pending,
            signals => Poll::Ready(Wake::Signalled(Signals::from_bits(signals))),
        }
    }

    /// Waits until an operation is complete, or until a signal comes. The operation goes on
    /// meanwhile: wait again for the same one, or its bytes are lost.
    pub(crate) async fn wait<F: Future>(&self, operation: &mut Pin<&mut F>) -> Wake<F::Output> {
        poll_fn(|cx| match self.poll_signals() {
            Poll::Pending => operation.as_mut().poll(cx).map(Wake::Ready),
            wake => wake,
        })
        .await
    }

    /// Gives the peer so much time from now, and from each time that it takes some bytes. Then the
    /// connection expires.
    pub(crate) fn limit(self: &Rc<Self>, patience: Duration) {
        let watched = self.deadline.replace(Some(Instant::now() + patience));
        if watched.is_none() {
            self.context.watched.borrow_mut().push(Rc::downgrade(self));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// Ends whatever is under way on this connection, for good.
    pub(crate) fn expire(&self) {
        self.expired.set(true);
        self.task.wake_by_ref();
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The outbox. Borrowed for a moment, never across an await.
    pub(crate) fn outbox(&self) -> RefMut<'_, Outbox> {
        self.outbox.borrow_mut()
    }

    /// All that was to be sent is sent: however the connection ends now, the peer is to get it.
    /// Whoever calls this has a half of the socket.
    pub(crate) fn deliver_on_close(&self) {
        // An error would mean that it is no socket.
        let _ = uring_net::net::deliver_on_close(self.descriptor);
    }

    /// Becomes the writer, if nobody is.
    pub(crate) fn take_socket(&self) -> Option<TcpOwnedWriteHalf> {
        self.socket.take()
    }

    /// Is the writer no more.
    pub(crate) fn return_socket(&self, socket: TcpOwnedWriteHalf) {
        self.writer.set(None);
        self.socket.set(Some(socket));
        if self.awaited.replace(false) {
            self.task.wake_by_ref();
        }
    }

    /// Whether there is a writer; the connection's task is woken when it has finished.
    pub(crate) fn is_writing(&self) -> bool {
        let socket = self.socket.take();
        let writing = socket.is_none();
        self.socket.set(socket);
        self.awaited.set(writing);
        writing
    }

    /// Waits, in the connection's task, until nobody is writing.
    ///
    /// # Errors
    /// The connection has expired.
    pub(crate) async fn written(&self) -> io::Result<()> {
        poll_fn(|_| {
            if self.expired.get() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if self.is_writing() {
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Receives what is there, as [`uring_net::net::receive_now`].
    pub(crate) fn receive_now(&self, buf: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        uring_net::net::receive_now(self.descriptor, buf, most)
    }

    /// As the writer, sends what the socket takes at once: mostly all of it, and then neither the
    /// ring nor a task has a part in it.
    fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match uring_net::net::send_now(self.descriptor, bytes) {
            Ok(n) => {
                self.context.counters().bytes_sent.add(n as u64);
                if self.deadline.get().is_some() {
                    self.deadline.set(Some(Instant::now() + LINGER_TIMEOUT));
                }
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// As the writer, sends `range` of `buf`. Gives the buffer back, but on expiry: then the kernel
    /// still holds it.
    pub(crate) async fn send<B: IoBuf + AsRef<[u8]>>(
        &self,
        socket: &mut impl AsyncWriteRent,
        mut buf: B,
        range: Range<usize>,
    ) -> (io::Result<()>, Option<B>) {
        let mut at = range.start;
        if !range.is_empty() {
            match self.send_at_once(&buf.as_ref()[range.clone()]) {
                Ok(n) => at += n,
                Err(error) => return (Err(error), Some(buf)),
            }
        }
        while at < range.end {
            let write = pin!(socket.write(buf.slice(at..range.end)));
            let Some((result, slice)) = self.unless_expired(write).await else {
                return (Err(io::ErrorKind::TimedOut.into()), None);
            };
            buf = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), Some(buf)),
                Ok(n) => {
                    if at > range.start {
                        // There was no room for more, now there is: the peer lives.
                        self.activity.touch(self.context.tick.get());
                    }
                    at += n;
                    self.context.counters().bytes_sent.add(n as u64);
                    if self.deadline.get().is_some() {
                        self.deadline.set(Some(Instant::now() + LINGER_TIMEOUT));
                    }
                }
                Err(error) => return (Err(error), Some(buf)),
            }
        }
        (Ok(()), Some(buf))
    }

    /// Waits for an operation that is not to be interrupted by signals.
    pub(crate) async fn unless_expired<F: Future>(
        &self,
        mut operation: Pin<&mut F>,
    ) -> Option<F::Output> {
        poll_fn(|cx| {
            if self.expired.get() {
                return Poll::Ready(None);
            }
            let outcome = operation.as_mut().poll(cx);
            if outcome.is_pending() && !self.task.will_wake(cx.waker()) {
                self.writer.set(Some(cx.waker().clone()));
            }
            outcome.map(Some)
        })
        .await
    }

    /// As the writer, sends what is in the outbox and what comes into it meanwhile.
    pub(crate) async fn send_outbox(&self, socket: &mut TcpOwnedWriteHalf) -> io::Result<()> {
        loop {
            let next = self.outbox().take();
            let Some((bytes, messages)) = next else {
                return Ok(());
            };
            let length = bytes.len();
            self.send(socket, bytes, 0..length).await.0?;
            self.context.counters().messages_sent.add(messages);
        }
    }

    /// Sees to it that what is in the outbox is sent: by the writer at work, or by a new one.
    pub(crate) fn flush(self: &Rc<Self>) {
        if self.outbox().is_empty() {
            return;
        }
        if let Some(socket) = self.take_socket() {
            ::monoio::spawn(write(Rc::clone(self), socket, None));
        }
    }

    /// Sends `frames` past the empty outbox, if nobody is writing. What the socket does not take at
    /// once, or breaks on, is for a writer.
    pub(crate) fn send_now(self: &Rc<Self>, frames: &Frames) -> bool {
        let Some(socket) = self.take_socket() else {
            return false;
        };
        let sent = self.send_at_once(&frames.bytes).unwrap_or(0);
        if sent == frames.bytes.len() {
            self.return_socket(socket);
            let counters = self.context.counters();
            counters.messages_sent.add(frames.messages.into());
        } else {
            let mut rest = frames.clone();
            rest.bytes = Bytes::slice(&frames.bytes, sent..);
            ::monoio::spawn(write(Rc::clone(self), socket, Some(rest)));
        }
        true
    }
}

/// A writer: sends `first`, then the outbox.
async fn write(handle: Rc<ConnectionHandle>, mut socket: TcpOwnedWriteHalf, first: Option<Frames>) {
    let mut result = Ok(());
    if let Some(Frames { bytes, messages }) = first {
        let length = bytes.len();
        result = handle.send(&mut socket, bytes, 0..length).await.0;
        if result.is_ok() {
            handle.context.counters().messages_sent.add(messages.into());
        }
    }
    if result.is_ok() {
        result = handle.send_outbox(&mut socket).await;
    }
    if result.is_ok() && handle.outbox().has_ended() {
        handle.deliver_on_close();
    }
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke while it was written to");
        handle.expire();
    }
    handle.return_socket(socket);
}
