//! Deadlines of connections that are being closed, without a timer for each: a clock that runs only
//! while a connection has a deadline.

use std::time::Instant;

use server_core::options::{ACCEPT_PAUSE, LINGER_TIMEOUT};
use uring_net::{Ring, SocketId, Token};

/// Ticks that make [`LINGER_TIMEOUT`]; one may begin just before the deadline is set.
const LINGER_TICKS: u32 = (LINGER_TIMEOUT.as_millis() / ACCEPT_PAUSE.as_millis()) as u32 + 1;

/// When the patience with a peer ends, in ticks of the worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(u32);

/// Counts ticks of [`ACCEPT_PAUSE`].
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now: u32,
    running: bool,
    /// Connections that have a deadline.
    pub(crate) watched: Vec<SocketId>,
}

impl Clock {
    /// [`LINGER_TIMEOUT`] from now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline(self.now.wrapping_add(LINGER_TICKS))
    }

    /// Whether it has passed.
    pub(crate) fn is_over(&self, deadline: Deadline) -> bool {
        self.now.wrapping_sub(deadline.0) < u32::MAX / 2
    }

    /// Has one more tick come, with `token`.
    pub(crate) fn start(&mut self, ring: &mut Ring, token: Token) {
        if !self.running {
            self.running = true;
            ring.timeout(Instant::now() + ACCEPT_PAUSE, token);
        }
    }

    /// The kernel could not start the tick.
    pub(crate) fn restart(&mut self, ring: &mut Ring, token: Token) {
        self.running = false;
        self.start(ring, token);
    }

    /// The tick has come. Goes on only when [`start`](Self::start)ed again.
    pub(crate) fn advance(&mut self) {
        self.running = false;
        self.now = self.now.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_not_over_early_and_ticks_wrap() {
        let mut clock = Clock {
            now: u32::MAX - 3,
            ..Clock::default()
        };
        let deadline = clock.deadline();
        let mut ticks = 0;
        while !clock.is_over(deadline) {
            clock.advance();
            ticks += 1;
        }
        assert!((ticks - 1) * ACCEPT_PAUSE >= LINGER_TIMEOUT);
    }
}
