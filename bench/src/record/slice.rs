//! The slices of a run in an alternating bout: what one contestant did in one round.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a contestant did in one round of an alternating bout. The record beside it is of all slices
/// together: its measured window is their sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slices {
    /// The stretches of load before the first cycle, which do not count: they end when two in a row
    /// agree.
    pub warm_up: Vec<Slice>,
    /// One entry per cycle.
    pub slices: Vec<Slice>,
}

/// One slice: one contestant awake, all others paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slice {
    /// Cycle of the round, from 1; slices of one cycle are pairs.
    pub cycle: usize,
    /// Place in the cycle's random order, from 1.
    pub position: usize,
    /// When it began, by the system's monotonic clock.
    pub from_ns: u64,
    /// Its length.
    pub window_ns: u64,
    /// Replies (broadcast: deliveries) received inside it.
    pub messages: u64,
    /// Latency from the intended send (open loop only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_intended: Option<Percentiles>,
    /// Latency from the actual send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_actual: Option<Percentiles>,
    /// Latency from the intended send of the messages to connections that are not hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_others: Option<Percentiles>,
    /// 99th percentile of how late messages were sent that could have been sent at once (open loop
    /// only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_lag_p99_ns: Option<u64>,
    /// CPU time of the generator's threads.
    pub generator_cpu_ns: u64,
    /// What the server used; `null`: the referee was late at an edge of the slice.
    pub server: Option<SliceUse>,
    /// How long the contestant had been paused before.
    pub away_ns: u64,
    /// CPU time of the server in that time.
    pub away_cpu_ns: u64,
}

/// What a server used in a slice: what was seen around it, scaled to its length; of the machine as
/// it was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SliceUse {
    /// CPU time of all its processes, and of `ksoftirqd` on its CPUs.
    pub cpu_ns: u64,
    /// Its context switches.
    pub switches: u64,
    /// Time that all CPUs spent in interrupts and `softirq`.
    pub interrupts_ns: u64,
    /// Time that the hypervisor took.
    pub steal_ns: u64,
}

/// Percentiles of a slice's latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p99_9_ns: u64,
}
