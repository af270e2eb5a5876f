//! What others tell the task of a connection, for runtimes with tasks.

/// A set of signals to the task of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// The peer has been silent: send a ping.
    pub const PING: Self = Self(1);
    /// The peer has been silent for too long.
    pub const IDLE_TIMEOUT: Self = Self(1 << 1);
    /// The request took too long.
    pub const REQUEST_TIMEOUT: Self = Self(1 << 2);
    /// The server is going away.
    pub const DRAIN: Self = Self(1 << 3);
    /// The outbox overflowed.
    pub const SLOW_CONSUMER: Self = Self(1 << 4);
    /// Something is in the outbox that was empty.
    pub const FLUSH: Self = Self(1 << 5);
    /// The fan-out has removed this member: nothing more will be queued for it.
    pub const LEFT: Self = Self(1 << 6);

    /// The set with these [bits](Self::bits).
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// A number to be kept in a cell or an atomic, where sets are joined by `|`.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether any signal of `other` is among these.
    #[inline]
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
