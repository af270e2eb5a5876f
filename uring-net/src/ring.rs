//! The ring: operations in, completions out.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::builder::{RingBuilder, Setup};
use crate::completion::{Completion, SendBuf, Token};
use crate::op::{OperationId, SocketId};
use crate::waker::Waker;

/// One thread's io_uring, the sockets it owns and its receive buffers.
///
/// Start operations, [`wait`](Ring::wait), then take completions until there is none; operations may be started while
/// completions are being taken. Nothing reaches the kernel before [`submit`](Ring::submit) or [`wait`](Ring::wait), except when the
/// submission queue is full: then the ring submits by itself.
///
/// Starting an operation never fails. What is wrong with it (a stale [`SocketId`], a second send in flight on one socket) comes back
/// as an [`Event::Failed`](crate::Event::Failed) with the buffer, like any other failure.
#[derive(Debug)]
pub struct Ring {
    setup: Setup,
    not_send: std::marker::PhantomData<*const ()>,
}

impl Ring {
    /// Sizes and options.
    #[must_use]
    pub fn builder() -> RingBuilder {
        RingBuilder::new()
    }

    /// What the kernel granted.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Takes ownership of a socket (made and configured with `socket2`, `std` or `rustix`) and puts it into blocking mode, without which
    /// io_uring would answer `EAGAIN` instead of waiting. The ring closes it at [`close`](Ring::close) or when the ring is dropped.
    ///
    /// # Errors
    /// When the mode cannot be set.
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) -> io::Result<SocketId> {
        let _ = socket.into();
        todo!()
    }

    /// The socket's descriptor, for options and addresses; `None` when the id is stale or the socket is being closed.
    #[must_use]
    pub fn fd(&self, socket: SocketId) -> Option<BorrowedFd<'_>> {
        let _ = socket;
        todo!()
    }

    /// Accepts connections on a listening socket until cancelled, closed or failed: [`Accepted`](crate::Event::Accepted) for each.
    ///
    /// Accepted sockets are owned by the ring. After a [`Failed`](crate::Event::Failed) (`EMFILE`, ...) the accept is over; call again to go on.
    pub fn accept(&mut self, listener: SocketId, token: Token) -> OperationId {
        let _ = (listener, token);
        todo!()
    }

    /// Connects: [`Connected`](crate::Event::Connected), or [`Failed`](crate::Event::Failed).
    pub fn connect(&mut self, socket: SocketId, address: SocketAddr, token: Token) -> OperationId {
        let _ = (socket, address, token);
        todo!()
    }

    /// Receives until the end of the stream, cancelled, closed or failed: [`Received`](crate::Event::Received) for each piece, in order.
    ///
    /// When the kernel runs out of buffers the receive pauses and goes on by itself as soon as leases come back; nothing is lost.
    pub fn receive(&mut self, socket: SocketId, token: Token) -> OperationId {
        let _ = (socket, token);
        todo!()
    }

    /// Sends all of `buf`: one [`Sent`](crate::Event::Sent) when the kernel has taken the last byte.
    ///
    /// One send may be in flight per socket; another one fails with `EBUSY` (two could interleave when one is short).
    pub fn send(&mut self, socket: SocketId, buf: impl Into<SendBuf>, token: Token) -> OperationId {
        let _ = (socket, buf.into(), token);
        todo!()
    }

    /// As [`send`](Ring::send), but only the bytes in `range` (cut to what is there).
    pub fn send_range(
        &mut self,
        socket: SocketId,
        buf: impl Into<SendBuf>,
        range: Range<usize>,
        token: Token,
    ) -> OperationId {
        let _ = (socket, buf.into(), token, range);
        todo!()
    }

    /// Shuts one or both directions down: [`ShutDown`](crate::Event::ShutDown). Wait for the last [`Sent`](crate::Event::Sent) first.
    pub fn shutdown(&mut self, socket: SocketId, how: Shutdown, token: Token) -> OperationId {
        let _ = (socket, how, token);
        todo!()
    }

    /// Closes the socket and cancels what is in flight on it. The id is stale from now on.
    ///
    /// A receive ends silently and what it had still to say is dropped; every other operation in flight gives its one completion
    /// (a send returns its buffer); then comes [`Closed`](crate::Event::Closed), the last completion for this socket.
    pub fn close(&mut self, socket: SocketId, token: Token) {
        let _ = (socket, token);
        todo!()
    }

    /// Gives one [`TimedOut`](crate::Event::TimedOut) at `deadline` or soon after it, never before it.
    pub fn timeout(&mut self, deadline: Instant, token: Token) -> OperationId {
        let _ = (deadline, token);
        todo!()
    }

    /// Cancels an operation. It still gives exactly one last completion: [`Cancelled`](crate::Event::Cancelled), or its
    /// ordinary one if that came first. Events of a receive that arrived before are still delivered. A stale id is ignored.
    pub fn cancel(&mut self, operation: OperationId) {
        let _ = operation;
        todo!()
    }

    /// A handle with which other threads wake this ring; each wake gives [`Woken`](crate::Event::Woken) with `token`. All wakers of a ring
    /// are one: a second call changes the token.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn waker(&mut self, token: Token) -> io::Result<Waker> {
        let _ = token;
        todo!()
    }

    /// Hands everything that was started to the kernel, without waiting and without reaping.
    ///
    /// # Errors
    /// What `io_uring_enter` says, apart from what the ring can ride out by itself.
    pub fn submit(&mut self) -> io::Result<()> {
        todo!()
    }

    /// Hands everything that was started to the kernel and waits until `min` completions are there, `deadline` passes
    /// or a signal arrives. `min` 0 polls: it lets finished work complete and returns at once.
    ///
    /// May return early, and with fewer completions to take than `min`: always take them until there is none, and look at the clock.
    ///
    /// # Errors
    /// What `io_uring_enter` says, apart from a passed deadline, a signal and what the ring can ride out by itself.
    pub fn wait(&mut self, min: usize, deadline: Option<Instant>) -> io::Result<()> {
        let _ = (min, deadline);
        todo!()
    }

    /// As [`wait`](Ring::wait), but after `patience` one completion is enough: batches under load, answers when idle. Before 6.12 it waits for one.
    ///
    /// # Errors
    /// As [`wait`](Ring::wait).
    pub fn wait_batch(
        &mut self,
        min: usize,
        patience: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let _ = (min, patience, deadline);
        todo!()
    }

    /// Takes one completion, if there is one; never enters the kernel unless completions overflowed.
    pub fn next_completion(&mut self) -> Option<Completion> {
        todo!()
    }

    /// How often the ring had to help itself.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }
}

/// How often the ring had to help itself; all harmless, all a hint that a size is too small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Receives that found no free buffer (`ENOBUFS`) and were paused.
    pub receives_starved: u64,
    /// Multishot operations that the kernel ended and the ring started again.
    pub rearmed: u64,
    /// Sends that the kernel took only partly and the ring continued.
    pub sends_continued: u64,
    /// Submissions forced by a full submission queue.
    pub sq_full: u64,
    /// Times the completion queue was found overflown and was flushed.
    pub cq_overflows: u64,
}
