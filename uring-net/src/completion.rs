//! What the ring says back: tokens, completions and the buffers that come home with them.

use std::io;
use std::ops::{Deref, Range};

use bytes::Bytes;

use crate::buffers::ReceivedBuf;
use crate::ids::SocketId;

/// The caller's own name for an operation, for example a connection index and a small kind.
///
/// The ring never looks into it: it comes back unchanged in every [`Completion`] of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One thing that happened, with the token of the operation it happened to.
#[derive(Debug)]
pub struct Completion {
    /// The token that was given when the operation was started.
    pub token: Token,
    /// What happened.
    pub event: Event,
}

/// What happened to an operation.
///
/// An operation that is not multishot gives exactly one event. [`Accepted`](Event::Accepted) and
/// [`Received`](Event::Received) may come any number of times; the last event of such an operation
/// is [`Eof`](Event::Eof), [`Cancelled`](Event::Cancelled) or [`Failed`](Event::Failed).
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted. More will come.
    Accepted(SocketId),
    /// The socket is connected.
    Connected,
    /// Bytes arrived, in stream order. More will come. Never empty.
    Received(ReceivedBuf),
    /// Bytes arrived and were appended to the vector that was given to
    /// [`Ring::receive_into`](crate::Ring::receive_into); the receive is over.
    ReceivedInto {
        /// That vector.
        bytes: Vec<u8>,
        /// How many bytes are new. Never 0.
        received: usize,
    },
    /// The peer ended its side of the stream; the receive is over.
    Eof,
    /// The bytes were handed to the kernel; the buffer is the caller's again.
    Sent {
        /// The buffer that was given to [`Ring::send`](crate::Ring::send).
        buf: SendBuf,
        /// How many bytes were sent: all that were asked for, but by
        /// [`Ring::send_now`](crate::Ring::send_now) maybe fewer.
        bytes: usize,
    },
    /// Of a [quiet send](crate::Ring::send_quietly) the socket took only the first `bytes` bytes,
    /// possibly none.
    SentPart {
        /// How many bytes were sent.
        bytes: usize,
    },
    /// The socket was shut down as asked.
    ShutDown,
    /// The socket is gone. Nothing will ever come again for it or for any operation on it.
    Closed,
    /// The deadline of a timeout has passed.
    TimedOut,
    /// A [`Waker`](crate::Waker) of this ring was used, once or several times.
    Woken,
    /// The operation was cancelled, by [`Ring::cancel`](crate::Ring::cancel) or by closing its
    /// socket.
    Cancelled {
        /// What was cancelled.
        op: OpKind,
        /// The buffer of a send. A part of it may have been sent.
        buf: Option<SendBuf>,
    },
    /// The operation failed.
    Failed {
        /// What failed.
        op: OpKind,
        /// Why. [`EBADF`](libc::EBADF): the [`SocketId`] was stale; [`EBUSY`](libc::EBUSY): such an
        /// operation was already in flight on this socket. Otherwise what the kernel says
        /// (`ECONNREFUSED`, `ECONNRESET`, `EPIPE`, `EMFILE`, ...).
        error: io::Error,
        /// The buffer of a send. A part of it may have been sent.
        buf: Option<SendBuf>,
    },
}

/// The kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// [`Ring::accept`](crate::Ring::accept).
    Accept,
    /// [`Ring::connect`](crate::Ring::connect).
    Connect,
    /// [`Ring::receive`](crate::Ring::receive).
    Receive,
    /// [`Ring::send`](crate::Ring::send).
    Send,
    /// [`Ring::shutdown`](crate::Ring::shutdown).
    Shutdown,
    /// [`Ring::close`](crate::Ring::close).
    Close,
    /// [`Ring::timeout`](crate::Ring::timeout).
    Timeout,
}

/// Bytes to send, owned by the ring until the send completes.
#[derive(Debug)]
pub enum SendBuf {
    /// A vector; take it back with [`into_vec`](SendBuf::into_vec) and use its capacity again.
    Owned(Vec<u8>),
    /// A received buffer, answered from in place.
    Received(ReceivedBuf),
    /// A frame shared by many receivers, encoded once.
    Shared(Bytes),
}

impl SendBuf {
    /// The vector, if the bytes were given as one.
    #[must_use]
    pub fn into_vec(self) -> Option<Vec<u8>> {
        match self {
            SendBuf::Owned(vec) => Some(vec),
            SendBuf::Received(_) | SendBuf::Shared(_) => None,
        }
    }
}

impl Deref for SendBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            SendBuf::Owned(vec) => vec,
            SendBuf::Received(buf) => buf,
            SendBuf::Shared(shared) => shared,
        }
    }
}

impl From<Vec<u8>> for SendBuf {
    #[inline]
    fn from(vec: Vec<u8>) -> Self {
        SendBuf::Owned(vec)
    }
}

impl From<ReceivedBuf> for SendBuf {
    #[inline]
    fn from(buf: ReceivedBuf) -> Self {
        SendBuf::Received(buf)
    }
}

impl From<Bytes> for SendBuf {
    #[inline]
    fn from(shared: Bytes) -> Self {
        SendBuf::Shared(shared)
    }
}

/// Cuts `range` to what lies inside `len`, so that no caller's mistake reaches the kernel.
pub(crate) fn clamp(range: Range<usize>, len: usize) -> Range<usize> {
    let end = range.end.min(len);
    range.start.min(end)..end
}

/// The event of a send that ended with `result`; `all` bytes had been sent by then.
#[inline]
pub(crate) fn sent(result: i32, all: bool, buf: SendBuf, bytes: usize) -> Event {
    match result {
        // Of no bytes "all" are sent from the beginning.
        0.. if all => Event::Sent { buf, bytes },
        0 => Event::Failed {
            op: OpKind::Send,
            error: io::Error::from(io::ErrorKind::WriteZero),
            buf: Some(buf),
        },
        // Partly sent, then cancelled.
        1.. => failure(-libc::ECANCELED, OpKind::Send, Some(buf)),
        _ => failure(result, OpKind::Send, Some(buf)),
    }
}

/// The event of a shutdown.
pub(crate) fn shut_down(outcome: io::Result<()>) -> Event {
    match outcome {
        Ok(()) => Event::ShutDown,
        Err(error) => Event::Failed {
            op: OpKind::Shutdown,
            error,
            buf: None,
        },
    }
}

/// The event of an operation that succeeds with any number.
pub(crate) fn outcome(result: i32, op: OpKind, success: Event) -> Event {
    if result < 0 {
        failure(result, op, None)
    } else {
        success
    }
}

/// The event of an operation that ended with an error, or was cancelled.
#[cold]
pub(crate) fn failure(result: i32, op: OpKind, buf: Option<SendBuf>) -> Event {
    if result == -libc::ECANCELED {
        return Event::Cancelled { op, buf };
    }
    let error = io::Error::from_raw_os_error(-result);
    Event::Failed { op, error, buf }
}

/// The last completion of an operation that ended with `errno`, was cancelled (`ECANCELED`), or
/// could not be started.
#[cold]
pub(crate) fn ended(token: Token, errno: i32, op: OpKind, buf: Option<SendBuf>) -> Completion {
    let event = failure(-errno, op, buf);
    Completion { token, event }
}
