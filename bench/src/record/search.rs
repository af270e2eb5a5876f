//! A search for the highest rate at which a contestant keeps its promise: goal, probes, end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Status, Stopped};

/// A search: what was wanted, every probe, what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Search {
    /// What was searched.
    pub goal: LatencyTarget,
    /// In their order.
    pub probes: Vec<Probe>,
    /// The end; `null` if the search was ended early.
    pub found: Option<SearchResult>,
    /// What kept the rate from being higher.
    pub limiter: Option<Limiter>,
}

impl Search {
    /// Highest rate that met the target and was confirmed.
    pub fn rate_per_s(&self) -> Option<f64> {
        self.found?.rate_per_s
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Messages per second asked for.
    pub rate_per_s: f64,
    /// Why it was made.
    pub role: Role,
    /// What it said.
    pub outcome: Outcome,
    /// Status of the run.
    pub status: Status,
    /// The checks that it did not pass, if the target was not met.
    #[serde(default, deserialize_with = "loadgen::check::known")]
    pub checks: Vec<Check>,
    /// Why there was no run, or not a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Version 1: why the outcome is not `held`, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub reason: Option<String>,
    /// Messages per second answered.
    pub messages_per_s: Option<f64>,
    /// Median latency from the intended send.
    pub latency_intended_p50_ns: Option<f64>,
    /// Its 99th percentile.
    pub latency_intended_p99_ns: Option<f64>,
    /// Messages lost, never sent, duplicated, reordered or corrupted.
    pub faults: Option<u64>,
    /// Of the server's CPUs.
    pub server_cpu_share: Option<f64>,
    /// Of the generator's busiest CPU.
    pub generator_cpu_share: Option<f64>,
    /// Of all CPUs, by all programs.
    pub machine_cpu_share: Option<f64>,
    /// Of all CPUs, taken by the hypervisor.
    pub steal_share: Option<f64>,
    /// Socket buffers in use, both ends, at the last sample inside the window.
    pub socket_buffer_bytes: Option<u64>,
}

/// What is searched, and how closely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyTarget {
    /// The promise: 99 of 100 replies within this, counted from the intended send, and nothing
    /// lost.
    pub p99_limit_ns: u64,
    /// First rate, messages per second.
    pub start_per_s: f64,
    /// No rate below this is tried.
    pub min_per_s: f64,
    /// No rate above this is tried.
    pub max_per_s: f64,
    /// The rate found and the next one that missed the target are no further apart than this.
    pub resolution: f64,
    /// Runs at the rate found, most of which must meet the target.
    pub confirmations: usize,
}

impl LatencyTarget {
    /// Confirming runs that must meet the target.
    pub fn majority(&self) -> usize {
        self.confirmations / 2 + 1
    }
}

/// Whether one probe met the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The latency was within the limit, and nothing was lost.
    #[serde(rename = "held")]
    Met,
    /// It was not.
    #[serde(rename = "broke")]
    Missed,
    /// Nothing: the run does not count, for a reason that is not the server's.
    #[serde(rename = "void")]
    Inconclusive,
}

/// Why a rate is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To find it.
    Search,
    /// To confirm it.
    Confirm,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// The highest rate that met the target and was confirmed; `null` if there is none.
    pub rate_per_s: Option<f64>,
    /// The lowest rate above it that missed the target; `null` if the highest allowed met it.
    #[serde(rename = "broke_per_s")]
    pub missed_per_s: Option<f64>,
    /// Confirming runs that met the target.
    pub confirmed: usize,
}

/// What kept the rate from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limiter {
    /// The server's CPUs were full.
    ServerCpu,
    /// The generator's were, and the server's not: its capacity is higher than what was found.
    GeneratorCpu,
    /// The kernel's memory for socket buffers was.
    Memory,
    /// The machine's CPUs were full with neither of them full: `softirq`, the hypervisor, or other
    /// programs took their part (see the checks).
    Kernel,
    /// Nothing was full: the latency rose by itself.
    Latency,
    /// The highest rate that the scenario allows met the target.
    Bound,
}

impl Limiter {
    /// As written in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::ServerCpu => "server_cpu",
            Self::GeneratorCpu => "generator_cpu",
            Self::Memory => "memory",
            Self::Kernel => "kernel",
            Self::Latency => "latency",
            Self::Bound => "bound",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::ServerCpu => "server CPU",
            Self::GeneratorCpu => "generator CPU",
            Self::Memory => "memory of socket buffers",
            Self::Kernel => "machine (softirq, steal, other programs)",
            Self::Latency => "latency, with nothing full",
            Self::Bound => "the scenario's highest rate",
        }
    }
}
