//! What the ring keeps of sockets and operations.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use io_uring::types::Timespec;
use socket2::SockAddr;

use crate::completion::{OpKind, SendBuf, Token};
use crate::slab::Key;

/// What the ring keeps of a socket. An idle connection costs this much and its slab entry's
/// generation.
#[derive(Debug)]
pub(crate) struct SocketSlot {
    pub(crate) handle: Handle,
    /// The receive's token; once the socket is closing, the close's (the receive is silent then).
    pub(crate) token: Token,
    /// The accept, connect or send in flight: at most one of them at a time.
    pub(crate) exclusive: Option<Key>,
    /// Operations of this socket that the kernel holds: at most a receive, an exclusive one, a
    /// shutdown and the close.
    pub(crate) in_flight: u8,
    pub(crate) receive: ReceiveState,
    /// How the receive is to be armed next time.
    pub(crate) mode: ReceiveMode,
    /// A shutdown is in flight.
    pub(crate) shutting_down: bool,
}

/// Where a socket lives.
#[derive(Debug)]
pub(crate) enum Handle {
    /// In the process's table of descriptors.
    Plain(OwnedFd),
    /// In this slot of the ring's own table.
    Direct(u32),
    /// With the kernel, which closes it: the socket is closing.
    Gone,
    /// As `Gone`; the slot is free when the close has completed.
    Leaving(u32),
}

/// How a socket is received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveMode {
    /// A poll waits, and what is there is received when it fires: 256 bytes of the kernel's.
    Poll,
    /// A receive waits: 864 bytes.
    Multishot,
    /// The same, into large buffers.
    Large,
    /// One receive, which waits, into one buffer.
    Once,
    /// One receive, which waits, into the caller's memory.
    Into,
}

/// Where a socket's receive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveState {
    /// Not asked for, or over.
    Off,
    /// The kernel holds a multishot.
    Armed,
    /// The kernel holds a poll, which says when there is something to receive.
    Watching,
    /// The kernel holds a receive of what is there now.
    Reading,
    /// The kernel holds one receive, after which the receive is over: into a buffer of the ring or
    /// of the caller.
    Single,
    /// The kernel holds a multishot that the ring has cancelled, to go on by polls: no event says
    /// so.
    Switching,
    /// The kernel holds one of these and was asked to cancel it for good.
    Cancelling,
    /// The kernel gave it back for want of a buffer; it waits in the ring's queue.
    Starved,
}

impl ReceiveState {
    pub(crate) fn in_kernel(self) -> bool {
        !matches!(self, Self::Off | Self::Starved)
    }
}

impl SocketSlot {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            token: Token(0),
            exclusive: None,
            in_flight: 0,
            receive: ReceiveState::Off,
            mode: ReceiveMode::Multishot,
            shutting_down: false,
        }
    }

    /// Whether no receive of it is in flight or waits for a buffer.
    pub(crate) fn is_silent(&self) -> bool {
        self.receive == ReceiveState::Off
    }

    /// Whether it has been given to the kernel to close.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.handle, Handle::Gone | Handle::Leaving(_))
    }
}

/// The caller's memory that a receive fills.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) bytes: Vec<u8>,
    /// How many bytes may be appended.
    pub(crate) most: usize,
}

/// What the ring keeps of an operation that is not a receive or a close.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) token: Token,
    /// It was cancelled: it is not started again.
    pub(crate) cancelled: bool,
    pub(crate) body: Body,
}

impl Op {
    #[inline]
    pub(crate) fn new(token: Token, body: Body) -> Self {
        Self {
            token,
            cancelled: false,
            body,
        }
    }
}

/// The parts that differ. Everything the kernel may still read lives here, on the heap, until the
/// last completion.
#[derive(Debug)]
pub(crate) enum Body {
    Accept {
        socket: Key,
        mode: AcceptMode,
    },
    Connect {
        socket: Key,
        address: Box<SockAddr>,
    },
    Send {
        socket: Key,
        buf: SendBuf,
        /// The next byte to send, the end, and how many were asked for.
        at: usize,
        end: usize,
        bytes: usize,
    },
    SendNow {
        socket: Key,
        buf: SendBuf,
    },
    /// Of a direct socket: its descriptor is asked for, then shut down.
    Shutdown {
        socket: Key,
        how: Shutdown,
    },
    Timeout {
        deadline: Box<Timespec>,
    },
}

/// How many connections an accept takes before it is armed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptMode {
    /// As many as come.
    Multishot,
    /// As many as come until its cancellation: it goes on as `Single`.
    Ending,
    /// One.
    Single,
}

impl Body {
    pub(crate) fn kind(&self) -> OpKind {
        match self {
            Body::Accept { .. } => OpKind::Accept,
            Body::Connect { .. } => OpKind::Connect,
            Body::Send { .. } | Body::SendNow { .. } => OpKind::Send,
            Body::Shutdown { .. } => OpKind::Shutdown,
            Body::Timeout { .. } => OpKind::Timeout,
        }
    }

    pub(crate) fn socket(&self) -> Option<Key> {
        match *self {
            Body::Accept { socket, .. }
            | Body::Connect { socket, .. }
            | Body::Send { socket, .. }
            | Body::SendNow { socket, .. }
            | Body::Shutdown { socket, .. } => Some(socket),
            Body::Timeout { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_is_small() {
        assert!(size_of::<Option<SocketSlot>>() <= 32);
        assert!(size_of::<Op>() <= 88);
    }
}
