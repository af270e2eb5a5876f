//! The ring's own table of files: a socket in it has no descriptor, costs the process none, and is
//! known to this ring only.
//!
//! The kernel chooses the slot of an accepted socket. An accept that finds no slot closes the
//! connection that it has just accepted; so the ring counts the slots and lets no accept run that
//! may not find one. The slot of an adopted socket the ring chooses itself, for which it must know
//! which are free: that is why a table is for the one kind or for the other.

use crate::op::AcceptMode;

/// Slots that a multishot accept leaves: what it may take before the ring sees the first of it. The
/// queue of a listener is 4,096 long by default (`net.core.somaxconn`).
const RESERVE: u32 = 4096;

/// Which sockets a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Holds {
    #[default]
    Accepted,
    Adopted,
}

/// How many slots there are and how many are taken, as far as the completions taken tell.
#[derive(Debug)]
pub(crate) struct DirectTable {
    slots: u32,
    holds: Holds,
    taken: u32,
    /// Adopted sockets: free slots below `untouched`, the first that was never taken.
    free: Vec<u32>,
    untouched: u32,
}

impl DirectTable {
    pub(crate) fn new(slots: u32, holds: Holds) -> Self {
        Self {
            slots,
            holds,
            taken: 0,
            free: Vec::new(),
            untouched: 0,
        }
    }

    /// Whether there is a table.
    pub(crate) fn exists(&self) -> bool {
        self.slots > 0
    }

    /// Whether accepted sockets go into the table.
    #[inline]
    pub(crate) fn takes_accepted(&self) -> bool {
        self.exists() && self.holds == Holds::Accepted
    }

    /// Whether adopted sockets go into the table.
    pub(crate) fn takes_adopted(&self) -> bool {
        self.exists() && self.holds == Holds::Adopted
    }

    /// The kernel has put an accepted socket into a slot.
    pub(crate) fn take(&mut self) {
        self.taken += 1;
    }

    /// Whether [`choose`](Self::choose) would find a slot.
    pub(crate) fn has_room(&self) -> bool {
        self.taken < self.slots
    }

    /// A slot for a socket to be adopted; `None`: there is none left.
    pub(crate) fn choose(&mut self) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.untouched < self.slots => {
                self.untouched += 1;
                self.untouched - 1
            }
            None => return None,
        };
        self.taken += 1;
        Some(slot)
    }

    /// What was in `slot` is closed, or never got there.
    pub(crate) fn release(&mut self, slot: u32) {
        self.taken -= 1;
        if self.holds == Holds::Adopted {
            self.free.push(slot);
        }
    }

    /// How many connections the next accept may take; `None`: there is no slot left.
    pub(crate) fn accept_mode(&self) -> Option<AcceptMode> {
        if !self.takes_accepted() {
            return Some(AcceptMode::Multishot);
        }
        match self.slots.saturating_sub(self.taken) {
            0 => None,
            1..=RESERVE => Some(AcceptMode::Single),
            _ => Some(AcceptMode::Multishot),
        }
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.free.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accept_takes_no_more_than_there_are_slots() {
        let none = DirectTable::new(0, Holds::Accepted);
        assert_eq!(none.accept_mode(), Some(AcceptMode::Multishot));
        let mut table = DirectTable::new(RESERVE + 1, Holds::Accepted);
        assert_eq!(table.accept_mode(), Some(AcceptMode::Multishot));
        table.take();
        assert_eq!(table.accept_mode(), Some(AcceptMode::Single));
        for _ in 0..RESERVE {
            table.take();
        }
        assert_eq!(table.accept_mode(), None);
        table.release(0);
        assert_eq!(table.accept_mode(), Some(AcceptMode::Single));
        for slot in 1..=RESERVE {
            table.release(slot);
        }
        assert_eq!(table.accept_mode(), Some(AcceptMode::Multishot));
    }

    #[test]
    fn adopted_sockets_get_each_slot_once() {
        let mut table = DirectTable::new(3, Holds::Adopted);
        // Not the kernel's business.
        assert_eq!(table.accept_mode(), Some(AcceptMode::Multishot));
        assert_eq!(table.choose(), Some(0));
        assert_eq!(table.choose(), Some(1));
        table.release(0);
        assert_eq!(table.choose(), Some(0));
        assert!(table.has_room());
        assert_eq!(table.choose(), Some(2));
        assert!(!table.has_room());
        assert_eq!(table.choose(), None);
        table.release(1);
        assert!(table.has_room());
        assert_eq!(table.choose(), Some(1));
    }
}
