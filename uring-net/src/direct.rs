//! The ring's own table of files: a socket in it has no descriptor, costs the process none, and is known to this ring only.
//!
//! The kernel chooses the slot of an accepted socket. An accept that finds no slot closes the connection that it has just accepted; so the ring counts
//! the slots and lets no accept run that may not find one.

use crate::op::Shots;

/// Slots that a multishot accept leaves: what it may take before the ring sees the first of it. The queue of a listener is 4,096 long by default
/// (`net.core.somaxconn`).
const RESERVE: u32 = 4096;

/// How many slots there are and how many are taken, as far as the completions taken tell.
#[derive(Debug)]
pub(crate) struct DirectTable {
    slots: u32,
    taken: u32,
}

impl DirectTable {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots, taken: 0 }
    }

    /// Whether accepted sockets go into the table.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.slots > 0
    }

    pub(crate) fn take(&mut self) {
        self.taken += 1;
    }

    pub(crate) fn release(&mut self) {
        self.taken -= 1;
    }

    /// How many connections the next accept may take; `None`: there is no slot left.
    pub(crate) fn shots(&self) -> Option<Shots> {
        if !self.is_used() {
            return Some(Shots::Many);
        }
        match self.slots.saturating_sub(self.taken) {
            0 => None,
            1..=RESERVE => Some(Shots::One),
            _ => Some(Shots::Many),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accept_takes_no_more_than_there_are_slots() {
        assert_eq!(DirectTable::new(0).shots(), Some(Shots::Many));
        let mut table = DirectTable::new(RESERVE + 1);
        assert_eq!(table.shots(), Some(Shots::Many));
        table.take();
        assert_eq!(table.shots(), Some(Shots::One));
        for _ in 0..RESERVE {
            table.take();
        }
        assert_eq!(table.shots(), None);
        table.release();
        assert_eq!(table.shots(), Some(Shots::One));
        for _ in 0..RESERVE {
            table.release();
        }
        assert_eq!(table.shots(), Some(Shots::Many));
    }
}
