//! Names of operations: what callers hold, and how the kernel's 64-bit user data carries it.

use crate::slab::Key;

/// Names a socket that the ring owns. Copyable; goes stale when the socket is closed, and a stale id never
/// reaches the socket that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub(crate) Key);

impl SocketId {
    /// A small number, unique among the open sockets of this ring: good as an index into the caller's own table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// Names an operation in flight, for [`Ring::cancel`](crate::Ring::cancel). Goes stale at its last completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(pub(crate) u64);
