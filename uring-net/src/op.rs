//! Operations: what callers hold of them, what the ring keeps of them, and how the kernel's user
//! data names them.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use io_uring::types::Timespec;
use socket2::SockAddr;

use crate::completion::{OpKind, SendBuf, Token};
use crate::slab::{INDEX_BITS, Key};

/// Names a socket that the ring owns. Copyable; goes stale when the socket is closed, and a stale
/// id never reaches the socket that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub(crate) Key);

impl SocketId {
    /// A small number, unique among the open sockets of this ring: good as an index into the
    /// caller's own table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// Names an operation in flight, for [`Ring::cancel`](crate::Ring::cancel). Goes stale at its last
/// completion (a receive's: when its socket is closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(pub(crate) UserData);

impl OperationId {
    /// The id of an operation that failed before it began: stale from the start.
    pub(crate) const STALE: Self = Self(UserData(0));

    /// The receive of `socket`, whichever is in flight: there is no need to keep what
    /// [`Ring::receive`](crate::Ring::receive) returned.
    #[must_use]
    pub fn receive_of(socket: SocketId) -> Self {
        Self(UserData::new(Target::Receive, socket.0))
    }
}

/// What a completion's user data refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Target {
    /// Nothing: the completion of a cancellation.
    Nothing = 0,
    /// The receive of the socket with this key, or the poll before it.
    Receive = 1,
    /// The operation with this key.
    Operation = 2,
    /// The close of the socket with this key.
    Close = 3,
    /// The read behind the wakers.
    Wake = 4,
}

/// 4 bits of target, 28 bits of index, 32 bits of generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UserData(pub(crate) u64);

impl UserData {
    pub(crate) const NOTHING: Self = Self(Target::Nothing as u64);
    pub(crate) const WAKE: Self = Self((Target::Wake as u64) << 60);

    #[inline]
    pub(crate) fn new(target: Target, key: Key) -> Self {
        Self((target as u64) << 60 | u64::from(key.index) << 32 | u64::from(key.generation))
    }

    #[inline]
    pub(crate) fn target(self) -> Target {
        match self.0 >> 60 {
            1 => Target::Receive,
            2 => Target::Operation,
            3 => Target::Close,
            4 => Target::Wake,
            _ => Target::Nothing,
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the fields apart")]
    pub(crate) fn key(self) -> Key {
        Key {
            index: (self.0 >> 32) as u32 & ((1 << INDEX_BITS) - 1),
            generation: self.0 as u32,
        }
    }
}

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
    /// How the receive is to be armed next time: by a poll, or as a multishot.
    pub(crate) sparing: bool,
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
    Taking,
    /// The kernel holds a multishot that the ring has cancelled, to go on otherwise: nobody hears
    /// of it.
    Turning,
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
            sparing: false,
            shutting_down: false,
        }
    }

    /// Whether it has been given to the kernel to close.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.handle, Handle::Gone | Handle::Leaving(_))
    }
}

/// What the ring keeps of an operation that is not a receive or a close.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) token: Token,
    /// Somebody wants it to end: do not start it again.
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
        shots: Shots,
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
pub(crate) enum Shots {
    /// As many as come.
    Many,
    /// As many as come until its cancellation: it goes on as `One`.
    Ending,
    One,
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
    fn user_data_carries_target_and_key() {
        let key = Key {
            index: 0x0dea_dbee,
            generation: 0x89ab_cdef,
        };
        for target in [
            Target::Receive,
            Target::Operation,
            Target::Close,
            Target::Wake,
        ] {
            let data = UserData::new(target, key);
            assert_eq!(data.target(), target);
            assert_eq!(data.key(), key);
        }
        assert_eq!(UserData::NOTHING.target(), Target::Nothing);
        assert_eq!(UserData::WAKE.target(), Target::Wake);
    }

    #[test]
    fn an_idle_socket_is_small() {
        assert!(size_of::<Option<SocketSlot>>() <= 32);
        assert!(size_of::<Op>() <= 88);
    }
}
