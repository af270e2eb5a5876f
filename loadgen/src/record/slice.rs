//! What a run in slices prints on its way: one line of JSON when its connections are up, and one
//! per slice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Latency, LittlesLaw, Messages, ScheduleLag};

/// A line on stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line {
    /// All connections are up; the run is paused.
    Up(Up),
    /// A slice is over; the run is paused.
    Slice(Box<Slice>),
}

/// All connections are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Up {
    /// Connections.
    pub connections: u64,
    /// Generator threads.
    pub threads: u64,
    /// The generator's process.
    pub pid: u32,
}

/// One slice. A field that a [`Record`](super::Record) has too means the same, of this slice; times
/// are of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slice {
    /// Counts from 1.
    pub number: u64,
    /// Begin of the measured part.
    pub from_ns: u64,
    /// Its end (not included).
    pub to_ns: u64,
    /// When nothing was in flight any more, or the wait for it was over.
    pub paused_ns: u64,
    /// Connections up at the end.
    pub connections_up: u64,
    /// Messages that belong to the measured part.
    pub messages: Messages,
    /// Replies received inside the measured part.
    pub replies: u64,
    /// Latency from the intended send (open loop only), with its histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_intended: Option<Latency>,
    /// Latency from the actual send, with its histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_actual: Option<Latency>,
    /// Latency of the messages to connections that are not hot, with its histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_others: Option<Latency>,
    /// How late messages were sent that had a free place in their window (open loop only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_lag: Option<ScheduleLag>,
    /// CPU time of the generator's threads in user mode, inside the measured part.
    pub cpu_user_ns: u64,
    /// CPU time of the generator's threads in the kernel, inside the measured part.
    pub cpu_sys_ns: u64,
    /// [`Generator::busiest_share`](super::Generator::busiest_share).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busiest_share: Option<f64>,
    /// The longest stall of a thread; one of less than a sixteenth of the slice counts as none.
    pub longest_stall_ns: u64,
    /// Little's law, where it applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<LittlesLaw>,
}
