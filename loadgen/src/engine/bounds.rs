//! What a server may make this process hold for one connection. The connection ends where it
//! wants more.

use ws_proto::{Limits, MAX_HEADER_BYTES, Role, Session};

use crate::engine::pongs::MOST_WAITING_BYTES;

/// Bytes of half-received messages, all connections together, as far as that leaves each ...
const ALL_MESSAGES_BYTES: u64 = 256 << 20;
/// ... so many: a server may greet with more than the load's own messages have.
const LEAST_MESSAGE_BYTES: u64 = 4 << 10;
const MOST_MESSAGE_BYTES: u64 = 1 << 20;
/// Bytes that wait for the publishers of an open-loop broadcast, all together: the schedule goes on
/// while the server does not read.
const ALL_SCHEDULED_BYTES: u64 = 256 << 20;
/// Bytes that wait beside messages: the pongs, the opening handshake or the Close.
const OTHER_BYTES: u64 = MOST_WAITING_BYTES as u64 + (32 << 10);

/// Bounds on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Payload of one message, all its fragments together.
    pub message_bytes: u32,
    /// Bytes that may wait behind a send in flight. Messages that wait there were not sent, so they
    /// are unanswered and in the window: a server that has them exceeded answers what it was not
    /// sent, or does not follow an open-loop broadcast.
    pub unsent_bytes: usize,
}

impl Bounds {
    /// For `connections`, of which each may have `window` messages in flight, of `size` bytes in
    /// `fragments` frames.
    pub fn new(connections: u64, window: u64, size: u64, fragments: u64) -> Self {
        let share = (ALL_MESSAGES_BYTES / connections.max(1))
            .clamp(LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES);
        Self {
            message_bytes: u32::try_from(share.max(size)).unwrap_or(u32::MAX),
            unsent_bytes: usize::try_from(window.saturating_mul(framed(size, fragments)))
                .unwrap_or(usize::MAX)
                .saturating_add(OTHER_BYTES as usize),
        }
    }

    /// As [`new`](Self::new) for an open-loop broadcast by `publishers`, which has no window.
    pub fn scheduled(connections: u64, publishers: u64, size: u64) -> Self {
        let share = ALL_SCHEDULED_BYTES / publishers.max(1);
        Self::new(connections, (share / framed(size, 1)).max(16), size, 1)
    }

    /// A session of a connection.
    pub fn session(&self) -> Session {
        let limits = Limits {
            max_message_bytes: self.message_bytes,
            ..Limits::default()
        };
        Session::new(Role::Client, limits)
    }
}

fn framed(size: u64, fragments: u64) -> u64 {
    size + fragments * MAX_HEADER_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_load_itself_may_hold_has_room() {
        for (connections, window, size, fragments) in [
            (1, 1, 0, 1),
            (10, 16, 64, 1),
            (1_000_000, 1, 16 << 20, 1),
            (10, 1, 1 << 20, 1 << 20),
        ] {
            let bounds = Bounds::new(connections, window, size, fragments);
            assert!(u64::from(bounds.message_bytes) >= size);
            assert!(bounds.unsent_bytes as u64 >= window * (size + 14 * fragments) + 16_384);
        }
        assert_eq!(Bounds::new(10, 1, 64, 1).message_bytes, 1 << 20);
        assert_eq!(Bounds::new(1_000_000, 1, 64, 1).message_bytes, 4 << 10);
        let room = Bounds::scheduled(1_000, 2, 64).unsent_bytes;
        assert!((100 << 20..=129 << 20).contains(&room), "{room}");
    }
}
