//! Names of sockets and operations, for callers and for the kernel's user data.

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
    /// A quiet send on the socket with this key.
    QuietSend = 5,
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
            5 => Target::QuietSend,
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
            Target::QuietSend,
        ] {
            let data = UserData::new(target, key);
            assert_eq!(data.target(), target);
            assert_eq!(data.key(), key);
        }
        assert_eq!(UserData::NOTHING.target(), Target::Nothing);
        assert_eq!(UserData::WAKE.target(), Target::Wake);
    }
}
