//! Which replies of one stream have come: in order, late, twice, never asked for.

use std::collections::HashMap;

/// Sequence numbers of one stream of messages: sent `0..sent`, of which everything below `expected`
/// has come or is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Messages sent: the next sequence number.
    pub sent: u64,
    /// One more than the highest sequence number that has come.
    pub expected: u64,
    /// Sequence numbers below `expected` that have not come.
    pub missing: u32,
}

/// Messages that a later one overtook, by stream and sequence number, with what the owner wants to
/// remember. Empty with a server in order.
pub type Overtaken<T> = HashMap<(u64, u64), T>;

/// What an arriving sequence number means (the terms of RFC 4737: reordered is what comes below the
/// next expected).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or one beyond it: `skipped` numbers before it are missing so far.
    Ahead {
        /// How many were overtaken: `seq - skipped .. seq`.
        skipped: u64,
    },
    /// Below the next expected: overtaken earlier, or a duplicate; the owner's [`Overtaken`] tells
    /// which.
    Behind,
    /// It was never sent.
    Unknown,
}

impl Sequence {
    /// Requests without a reply.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.expected + u64::from(self.missing)
    }

    /// The full number of which only the low `bits` arrived: the nearest one, ahead if it can be.
    pub fn restore(&self, low: u64, bits: u32) -> u64 {
        match bits {
            64.. => low,
            // Nothing arrived but the message itself: it answers the oldest request.
            0 => self.expected,
            _ => {
                let modulus = 1_u64 << bits;
                let ahead = low.wrapping_sub(self.expected) % modulus;
                if self.expected + ahead < self.sent {
                    return self.expected + ahead;
                }
                (self.expected + ahead)
                    .checked_sub(modulus)
                    .unwrap_or(u64::MAX)
            }
        }
    }

    /// Notes that `seq` has come.
    pub fn arrive(&mut self, seq: u64) -> Arrival {
        if seq >= self.sent {
            return Arrival::Unknown;
        }
        if seq < self.expected {
            return Arrival::Behind;
        }
        let skipped = seq - self.expected;
        self.expected = seq + 1;
        self.missing = self
            .missing
            .saturating_add(u32::try_from(skipped).unwrap_or(u32::MAX));
        Arrival::Ahead { skipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(sent: u64, expected: u64) -> Sequence {
        Sequence {
            sent,
            expected,
            missing: 0,
        }
    }

    #[test]
    fn table() {
        let mut stream = sequence(5, 0);
        assert_eq!(stream.arrive(0), Arrival::Ahead { skipped: 0 });
        assert_eq!(stream.arrive(3), Arrival::Ahead { skipped: 2 });
        assert_eq!(stream.in_flight(), 3);
        assert_eq!(stream.arrive(1), Arrival::Behind);
        assert_eq!(stream.arrive(3), Arrival::Behind);
        assert_eq!(stream.arrive(5), Arrival::Unknown);
        assert_eq!(stream.arrive(4), Arrival::Ahead { skipped: 0 });
    }

    #[test]
    fn short_numbers_are_restored() {
        // One byte: 255 -> 0 wraps ahead.
        assert_eq!(sequence(260, 255).restore(255, 8), 255);
        assert_eq!(sequence(260, 255).restore(0, 8), 256);
        // A duplicate of the one before.
        assert_eq!(sequence(260, 255).restore(254, 8), 254);
        // Never sent, and nothing below fits either.
        assert_eq!(sequence(3, 3).restore(7, 8), u64::MAX);
        assert_eq!(sequence(3, 1).restore(0, 0), 1);
    }

    proptest! {
        #[test]
        fn a_number_within_the_window_is_restored(
            expected in 0_u64..100_000,
            window in 1_u64..128,
            at in 0_u64..128,
        ) {
            let stream = sequence(expected + window, expected);
            let seq = expected + at % window;
            prop_assert_eq!(stream.restore(seq & 0xff, 8), seq);
        }

        #[test]
        fn any_order_without_loss_ends_with_nothing_in_flight(
            order in Just((0_u64..40).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut stream = sequence(40, 0);
            let mut overtaken = Overtaken::default();
            for seq in order {
                match stream.arrive(seq) {
                    Arrival::Ahead { skipped } => {
                        for missing in seq - skipped..seq {
                            overtaken.insert((0, missing), ());
                        }
                    }
                    Arrival::Behind => {
                        prop_assert!(overtaken.remove(&(0, seq)).is_some());
                        stream.missing -= 1;
                    }
                    Arrival::Unknown => prop_assert!(false),
                }
            }
            prop_assert_eq!(stream.in_flight(), 0);
            prop_assert!(overtaken.is_empty());
        }
    }
}
