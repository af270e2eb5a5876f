//! What a run is asked to do, checked and in units.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::record::{LoadKind, Verification};

/// A broadcast payload carries sequence number, publisher, run and send time.
pub const BROADCAST_LEAST_SIZE: u64 = 24;
/// Largest payload: what the WebSocket session accepts as one message.
pub const MOST_SIZE: u64 = 16 << 20;
/// Most requests in flight, all connections together: 8 bytes each are kept.
pub const MOST_IN_FLIGHT: u64 = 1 << 28;

/// Most pairs of publisher and member: 24 bytes each are kept to check the order of deliveries.
pub const MOST_PAIRS: u64 = 1 << 26;
/// Most payload in flight, all connections together: with a slow server all of it may wait in this
/// process.
pub const MOST_BYTES_IN_FLIGHT: u64 = 8 << 30;

/// Shares are counted in millionths.
pub const MILLION: u64 = 1_000_000;

/// One run, as asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Kind of load.
    pub kind: LoadKind,
    /// Targets as typed.
    pub urls: Vec<String>,
    /// Connections in all.
    pub connections: u64,
    /// Length of the measured window.
    pub duration: Duration,
    /// Load before it.
    pub warmup: Duration,
    /// Longest wait for outstanding replies.
    pub drain_timeout: Duration,
    /// Load in slices, on command; `duration` and `warmup` are theirs.
    pub slices: bool,
    /// Processes; `None`: as many as the limits make necessary.
    pub shards: Option<u64>,
    /// Threads of all processes; `None`: one per CPU available. Every process has at least one.
    pub threads: Option<u64>,
    /// CPUs to pin them to, in turn; empty: not pinned.
    pub cpus: Vec<usize>,
    /// How long a thread polls before it sleeps.
    pub spin: Duration,
    /// Connects begun per second.
    pub connect_rate_per_s: Option<f64>,
    /// Source addresses; empty: chosen by the plan.
    pub source_ips: Vec<IpAddr>,
    /// Extra request headers.
    pub headers: Vec<(String, String)>,
    /// Subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// What is sent.
    pub traffic: Traffic,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Messages (connect: connections) per second in all; `None`: closed loop.
    pub rate_per_s: Option<f64>,
    /// Requests in flight per connection or publisher.
    pub window: u64,
    /// Payload bytes.
    pub size: u64,
    /// Echo: frames of each message.
    pub fragments: u64,
    /// Connect: messages of each connection before it leaves.
    pub messages: u64,
    /// Broadcast: members that publish.
    pub publishers: Option<u64>,
    /// Idle: fraction that sends, as asked for.
    pub active_fraction: Option<f64>,
    /// Idle: connections that send.
    pub active_connections: Option<u64>,
    /// Echo, open loop: connections that differ from the others.
    pub hot: Option<Hot>,
}

/// Connections that get a share of the messages of their own, and differ in what these cost: with a
/// size in that, else they ask for the target as given, and the others ask the server for no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot {
    /// How many; the first ones. Fewer than all.
    pub connections: u64,
    /// Of [`MILLION`] messages so many go to them; neither none nor all.
    pub share_millionths: u64,
    /// Payload bytes of their messages, if not those of all.
    pub size: Option<u64>,
}

impl Traffic {
    /// Payload bytes of the hot connections' messages, if they have a size of their own.
    pub fn hot_size(&self) -> Option<u64> {
        self.hot?.size
    }

    /// Payload bytes of the longest messages.
    pub fn largest_size(&self) -> u64 {
        self.size.max(self.hot_size().unwrap_or(0))
    }

    /// Payload bytes of the shortest messages.
    pub fn smallest_size(&self) -> u64 {
        self.size.min(self.hot_size().unwrap_or(u64::MAX))
    }

    /// Payload bytes of a message, on average.
    pub fn mean_size(&self) -> f64 {
        let size = self.size as f64;
        self.hot
            .and_then(|hot| Some((hot.size? as f64, hot.share_millionths)))
            .map_or(size, |(hot_size, share)| {
                size + (hot_size - size) * share as f64 / MILLION as f64
            })
    }

    /// Payload bytes that `connections` may have in flight.
    pub fn bytes_in_flight(&self, connections: u64) -> u64 {
        let hot = self.hot.map_or(0, |hot| hot.connections);
        let each = hot
            .saturating_mul(self.hot_size().unwrap_or(self.size))
            .saturating_add((connections - hot).saturating_mul(self.size));
        self.window.saturating_mul(each)
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            rate_per_s: None,
            window: 1,
            size: 0,
            fragments: 1,
            messages: 0,
            publishers: None,
            active_fraction: None,
            active_connections: None,
            hot: None,
        }
    }
}

/// Files to write, each optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The record.
    pub json: Option<PathBuf>,
    /// Percentile distribution.
    pub hgrm: Option<PathBuf>,
    /// Histogram log.
    pub hlog: Option<PathBuf>,
}

impl Config {
    /// True when messages are sent at all.
    pub fn has_traffic(&self) -> bool {
        match self.kind {
            LoadKind::Echo | LoadKind::Broadcast => true,
            LoadKind::Idle => self.traffic.active_connections.is_some(),
            LoadKind::Connect => false,
        }
    }
}

impl Verification {
    /// What can be checked in a payload of `size` bytes.
    pub fn of_size(size: u64) -> Self {
        match size {
            0 => Self::Count,
            1..=7 => Self::TruncatedSequence,
            8..=15 => Self::Sequence,
            _ => Self::Full,
        }
    }
}
