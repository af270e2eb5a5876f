//! The part of a connection that others than its task may touch: fan-out, sweep, drain.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BufMut;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use server_core::listen;
use server_core::outbox::Outbox;
use server_core::sweep::{Activity, Phase};
use server_core::task::Signals;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Why a waiting task goes on.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The socket may be ready for what was waited for.
    Ready,
    /// Others have signalled.
    Signalled(Signals),
}

/// A connection as others see it. In this order, so that what an echo touches lies in one cache
/// line: the descriptor, the way to tokio's entry for the socket, activity and signals.
#[repr(C)]
pub(crate) struct ConnectionHandle {
    stream: TcpStream,
    pub(crate) activity: Activity,
    signals: AtomicU8,
    phase: AtomicU8,
    /// Of the connection's task, which is the same at every poll: there is no need to register it
    /// again and again.
    task: Waker,
    outbox: Mutex<Outbox>,
}

impl ConnectionHandle {
    /// Nobody is woken before the [task](Self::set_task) is known.
    pub(crate) fn new(stream: TcpStream, tick: u32) -> Arc<Self> {
        Arc::new(Self {
            stream,
            task: Waker::noop().clone(),
            signals: AtomicU8::new(0),
            phase: AtomicU8::new(Phase::Handshake as u8),
            activity: Activity::at(tick),
            outbox: Mutex::new(Outbox::new()),
        })
    }

    /// `task` is the waker of the connection's own task.
    pub(crate) fn set_task(&mut self, task: Waker) {
        self.task = task;
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            x if x == Phase::Handshake as u8 => Phase::Handshake,
            x if x == Phase::Open as u8 => Phase::Open,
            _ => Phase::Closing,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Tells the connection's task something and wakes it.
    pub(crate) fn signal(&self, signals: Signals) {
        self.signals.fetch_or(signals.bits(), Ordering::Release);
        self.task.wake_by_ref();
    }

    /// Signals come before the socket, so that a busy connection handles them too.
    pub(crate) fn poll_signals(&self) -> Poll<Signals> {
        if self.signals.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Signals::from_bits(self.signals.swap(0, Ordering::Acquire)))
    }

    /// Waits until the socket is readable, or writable, or a signal comes.
    pub(crate) async fn wait(&self, for_writing: bool) -> Wake {
        poll_fn(|cx| self.poll_wake(for_writing, cx)).await
    }

    /// What [`wait`](Self::wait) waits for.
    pub(crate) fn poll_wake(&self, for_writing: bool, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(signals) = self.poll_signals() {
            return Poll::Ready(Wake::Signalled(signals));
        }
        if for_writing {
            ready!(self.poll_writable(cx));
        } else {
            ready!(self.poll_readable(cx));
        }
        Poll::Ready(Wake::Ready)
    }

    /// An error counts as readable: reading will name it.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }

    /// An error counts as writable: writing will name it.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_write_ready(cx).map(drop)
    }

    /// Reads what there is. A short read has emptied the socket, so readiness is taken back at
    /// once: that saves the second read that would only say `WouldBlock` (epoll(7) on
    /// edge-triggered stream sockets).
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut got = None;
        let outcome = self.stream.try_io(Interest::READABLE, || {
            let (n, _) = recv(&self.stream, &mut *buf, RecvFlags::empty())?;
            got = Some(n);
            if n > 0 && n < buf.len() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        got.map_or(outcome, Ok)
    }

    /// As [`try_read`](Self::try_read), appending to `buf`.
    pub(crate) fn try_read_buf(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        let room = buf.remaining_mut();
        let mut got = None;
        let outcome = self.stream.try_io(Interest::READABLE, || {
            let n = self.stream.try_read_buf(buf)?;
            got = Some(n);
            if n > 0 && n < room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        got.map_or(outcome, Ok)
    }

    /// Writes what the socket takes, possibly nothing. A short write has filled the socket, so
    /// readiness is taken back at once, as that for reading is.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        let outcome = self.stream.try_io(Interest::WRITABLE, || {
            sent = send(&self.stream, bytes, SendFlags::NOSIGNAL)?;
            if sent < bytes.len() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(sent)
        });
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(sent),
            outcome => outcome,
        }
    }

    /// Ends our direction: the peer reads the end of the stream after our last bytes.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.deliver_on_close();
        Ok(shutdown(&self.stream, Shutdown::Write)?)
    }

    /// All that was to be sent is sent: however the connection ends now, the peer is to get it.
    pub(crate) fn deliver_on_close(&self) {
        listen::deliver_on_close(&self.stream);
    }

    /// The outbox. Whoever holds it is the writer.
    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes from the outbox until it is empty or the socket is full; returns the messages and
    /// bytes sent.
    pub(crate) fn flush(&self) -> io::Result<(u64, u64)> {
        let mut outbox = self.outbox();
        let (mut messages, mut bytes) = (0, 0);
        while let Some(next) = outbox.next() {
            let sent = self.try_write(next)?;
            if sent == 0 {
                break;
            }
            messages += outbox.advance(sent);
            bytes += sent as u64;
        }
        Ok((messages, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        assert!(
            size_of::<ConnectionHandle>() <= 80,
            "{}",
            size_of::<ConnectionHandle>()
        );
    }
}
