//! Counting without atomics: sums of one turn, handed over once.

use server_core::counters::WorkerCounters;

/// What is counted for each message.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) pings_received: u64,
    pub(crate) pings_sent: u64,
    pub(crate) pongs_received: u64,
}

impl Tally {
    /// Adds everything to the counters that others see.
    pub(crate) fn hand_over(&mut self, counters: &WorkerCounters) {
        let sums = std::mem::take(self);
        for (counter, sum) in [
            (&counters.messages_received, sums.messages_received),
            (&counters.messages_sent, sums.messages_sent),
            (&counters.bytes_received, sums.bytes_received),
            (&counters.bytes_sent, sums.bytes_sent),
            (&counters.pings_received, sums.pings_received),
            (&counters.pings_sent, sums.pings_sent),
            (&counters.pongs_received, sums.pongs_received),
        ] {
            if sum > 0 {
                counter.add(sum);
            }
        }
    }
}
