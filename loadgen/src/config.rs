//! What a run is asked to do, checked and in units.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    plan::Plan,
    record::{LoadKind, Options, Verification},
};

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
    /// Messages per second in all; `None`: closed loop.
    pub rate_per_s: Option<f64>,
    /// Requests in flight per connection or publisher.
    pub window: u64,
    /// Payload bytes.
    pub size: u64,
    /// Broadcast: members that publish.
    pub publishers: Option<u64>,
    /// Idle: fraction that sends, as asked for.
    pub active_fraction: Option<f64>,
    /// Idle: connections that send.
    pub active_connections: Option<u64>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            rate_per_s: None,
            window: 1,
            size: 0,
            publishers: None,
            active_fraction: None,
            active_connections: None,
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
    /// The options as the record keeps them; processes, threads and source addresses as the plan
    /// decided.
    pub fn to_options(&self, plan: &Plan) -> Options {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Options {
            urls: self.urls.clone(),
            connections: self.connections,
            duration_ns: ns(self.duration),
            warmup_ns: ns(self.warmup),
            drain_timeout_ns: ns(self.drain_timeout),
            threads: plan.threads as u64,
            shards: plan.shards as u64,
            cpus: self.cpus.clone(),
            rate_per_s: self.traffic.rate_per_s,
            window: self.traffic.window,
            size_bytes: self.traffic.size,
            connect_rate_per_s: self.connect_rate_per_s,
            source_ips: plan.source_ips().iter().map(ToString::to_string).collect(),
            header_names: self.headers.iter().map(|(name, _)| name.clone()).collect(),
            header_values: self.headers.iter().filter_map(public).cloned().collect(),
            subprotocols: self.subprotocols.clone(),
            publishers: self.traffic.publishers,
            active_fraction: self.traffic.active_fraction,
            spin_us: self.spin.as_micros() as u64,
            verification: Verification::of_size(self.traffic.size),
        }
    }

    /// True when messages are sent at all.
    pub fn has_traffic(&self) -> bool {
        match self.kind {
            LoadKind::Echo | LoadKind::Broadcast => true,
            LoadKind::Idle => self.traffic.active_connections.is_some(),
            LoadKind::Connect => false,
        }
    }
}

/// A header whose value is no secret.
fn public(header: &(String, String)) -> Option<&(String, String)> {
    let is = |name: &&str| header.0.eq_ignore_ascii_case(name);
    ["Host", "Origin", "User-Agent"]
        .iter()
        .any(is)
        .then_some(header)
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
