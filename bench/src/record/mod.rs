//! What is written to disk: plain data. Here the record of one run: the generator's record and what
//! the referee saw of the server.

mod check;
pub mod environment;
mod footprint;
mod layout;
mod profile;
mod search;
mod slice;
mod usage;

pub use check::{Check, CheckName, CheckStatus, Ending, Stopped};
pub use footprint::{Footprint, MemorySample};
pub use layout::Layout;
pub use profile::{PROFILE_VERSION, Profile, Profiled, Share};
pub use search::{LatencyTarget, Limiter, Outcome, Probe, Role, Search, SearchResult};
pub use slice::{Percentiles, Slice, SliceUse, Slices};
pub use usage::{MachineUse, SideUse, WindowUse};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Scenario;
use crate::machine::CpuSet;
use crate::machine::proc::{CpuTicks, KernelMemory};

/// Version of [`RunRecord`] and of the summary. 1 had sentences (`reasons`, `warnings`, `notes`,
/// `words`) where 2 has codes with numbers; both are read.
pub const SCHEMA_VERSION: u32 = 2;

/// One contestant, one scenario, one fresh process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the scenario, or of the calibration.
    pub bout: String,
    /// Which contestant.
    pub contestant: String,
    /// Block or round of the bout, from 1: runs of one block are pairs.
    pub block: usize,
    /// Place in the block's random order (in a round: of starts), from 1.
    pub position: usize,
    /// May the numbers be used?
    pub status: Status,
    /// Why there was no run, or not a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// What the status rests on: all checks that apply, the generator's included.
    #[serde(default, deserialize_with = "loadgen::check::known")]
    pub checks: Vec<Check>,
    /// Version 1: why it does not count or is in doubt, in words.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub reasons: Vec<String>,
    /// The figures that summaries are made of; `null` where there is none or too few samples stand
    /// behind it.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// When the server process was started.
    pub started_unix_ns: u64,
    /// From the start of the server process to its end.
    pub elapsed_ns: u64,
    /// Time the hypervisor took from this machine's CPUs during the run, all CPUs together.
    pub machine_steal_ns: Option<u64>,
    /// The scenario in force.
    pub scenario: Scenario,
    /// The server under test.
    pub server: ServerSide,
    /// The generator's side.
    pub generator: GeneratorSide,
    /// Memory from before the server's start until after its end (kind `scale` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footprint: Option<Footprint>,
    /// The search (kind `capacity` only): then the rest of the record is that of the last run that
    /// confirmed the rate found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Search>,
    /// Slice by slice, in an alternating bout; `block` is then the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternation: Option<Slices>,
    /// The generator's own record.
    pub loadgen: Option<loadgen::record::Record>,
}

/// May the numbers of a run be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They may.
    Valid,
    /// They may, and a check raised a doubt: it counts, and is marked.
    Doubtful,
    /// It ran, and its numbers do not say what they seem to say.
    Invalid,
    /// It did not run to its end.
    Failed,
    /// The suite was ended during the run.
    Interrupted,
    /// Not run: this machine cannot hold it.
    Refused,
}

impl Status {
    /// Whether its numbers are part of the result.
    pub fn counts(self) -> bool {
        matches!(self, Self::Valid | Self::Doubtful)
    }

    /// As written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Doubtful => "doubtful",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Refused => "refused",
        }
    }
}

/// What the referee saw of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSide {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it was pinned to.
    pub cpus: CpuSet,
    /// Its process id.
    pub pid: Option<u32>,
    /// The line it printed when it was ready, as it was.
    pub ready: Option<serde_json::Value>,
    /// The line it printed at its end, as it was.
    #[serde(rename = "final")]
    pub final_line: Option<serde_json::Value>,
    /// How it ended.
    pub exit: Option<String>,
    /// Inside the measured window.
    pub window: Option<WindowUse>,
    /// Ready, before the first connection.
    pub before: ServerMemory,
    /// After the last connection was closed.
    pub after: ServerMemory,
    /// User and kernel time of its whole life, in ticks of 10 ms.
    pub cpu_ticks: Option<CpuTicks>,
}

/// Memory at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerMemory {
    /// Resident memory of the server.
    pub rss_bytes: Option<u64>,
    /// Its proportional set size.
    pub pss_bytes: Option<u64>,
    /// The kernel's, both ends of every connection.
    pub kernel: Option<KernelMemory>,
}

/// What the referee saw of the generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratorSide {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it was pinned to.
    pub cpus: CpuSet,
    /// Rate it was told to keep, messages per second.
    pub rate_per_s: Option<f64>,
    /// How it ended.
    pub exit: Option<String>,
}

impl RunRecord {
    /// The checks that make it invalid or doubtful.
    pub fn failed_checks(&self) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(|check| check.status >= CheckStatus::Doubtful)
    }

    /// The generator was the limit: its throughput is not the server's.
    pub fn is_generator_limited(&self) -> bool {
        let mut failed = self.failed_checks();
        failed.any(|check| check.name == CheckName::GeneratorLimit)
    }

    /// The generator has something to say about the load.
    pub fn has_notes(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| check.status == CheckStatus::Note)
    }

    /// A figure, if there is one.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.get(key).copied().flatten()
    }
}
