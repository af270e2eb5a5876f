//! What one thread counts of lives: connections that exchange some messages and leave.

use serde::{Deserialize, Serialize};

use crate::{
    engine::shared::Times,
    histogram::{self, Latencies},
    record::Messages,
    wire,
};

/// Lives, and the messages in them. A message belongs to the window in which it was sent, a life to
/// that in which it ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct LifeStats {
    /// Lives that ended inside the window: all replies came, and the closing handshake was done.
    pub completed: u64,
    /// Messages of the window. `expected` and `lost` are worked out when the threads are merged.
    pub messages: Messages,
    /// Of them those that got a reply of whatever content.
    pub settled: u64,
    /// The same of the whole run.
    pub settled_in_all: u64,
    /// Replies received inside the window, whenever their messages were sent.
    pub replies_in_window: u64,
    /// From the send of a message to its reply.
    #[serde(with = "wire::latencies")]
    pub round_trips: Latencies,
}

impl Default for LifeStats {
    fn default() -> Self {
        Self {
            completed: 0,
            messages: Messages::default(),
            settled: 0,
            settled_in_all: 0,
            replies_in_window: 0,
            round_trips: histogram::new(),
        }
    }
}

impl LifeStats {
    /// What another thread counted.
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        let (sum, messages) = (&mut self.messages, &other.messages);
        sum.sent += messages.sent;
        sum.received += messages.received;
        sum.duplicated += messages.duplicated;
        sum.corrupted += messages.corrupted;
        sum.received_payload_bytes += messages.received_payload_bytes;
        self.settled += other.settled;
        self.settled_in_all += other.settled_in_all;
        self.replies_in_window += other.replies_in_window;
        histogram::merge(&mut self.round_trips, &other.round_trips);
    }

    /// They came too late for the window.
    pub fn drop_replies(&mut self) {
        self.settled = 0;
        self.messages.received = 0;
        self.messages.received_payload_bytes = 0;
        self.round_trips.reset();
    }

    /// A message was sent.
    pub fn sent(&mut self, times: &Times, now: u64) {
        self.messages.sent += u64::from(times.contain(now));
    }

    /// Its reply came, of whatever content.
    pub fn settled(&mut self, times: &Times, sent: u64) {
        self.settled_in_all += 1;
        self.settled += u64::from(times.contain(sent));
    }

    /// Its reply came, verified, with `size` bytes.
    pub fn reply(&mut self, times: &Times, now: u64, sent: u64, size: u64) {
        self.settled(times, sent);
        self.replies_in_window += u64::from(times.contain(now));
        if times.contain(sent) {
            self.messages.received += 1;
            self.messages.received_payload_bytes += size;
            histogram::record(&mut self.round_trips, now.saturating_sub(sent));
        }
    }

    /// A life ended as it should.
    pub fn over(&mut self, times: &Times, now: u64) {
        self.completed += u64::from(times.contain(now));
    }
}
