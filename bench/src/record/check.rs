//! The checks of a run: the generator's own, and those of what only the referee can see.

use loadgen::check;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::CheckStatus;

/// One check of a run: a code, what was found, what it may be. `output::words` makes the sentence.
pub type Check = check::Check<CheckName>;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// Share of a CPU that the generator's busiest thread used in a closed loop; `beside`: what
    /// the server used of its CPUs. In the place of the generator's own `generator_cpu`.
    GeneratorLimit,
    /// Share of its CPUs that the server used; `null`: it could not be watched.
    ServerCpu,
    /// CPU time of the server for each message (handshake), ns, where it is less than the kernel
    /// needs to receive and to send one: somebody else answered. `beside`: messages that may have
    /// gone together.
    ServerCpuFloor,
    /// A counter of the server, named by `detail`, against the generator's; of all that agree 0.
    ServerCounters,
    /// What `detail` names and was not given back after all connections were closed: bytes, or
    /// sockets that were left; 0 of nothing.
    MemoryGivenBack,
    /// Bytes of the whole machine that were not given back after the server's end.
    MemoryOfTheMachine,
    /// Share of the CPUs in use that the hypervisor took; in older results of all CPUs.
    Steal,
    /// Periods in which a CPU quota of the control group stopped threads.
    Throttled,
    /// What processes used that are no part of the run: CPUs of the side that `detail` names;
    /// without it (older results, or where server and generator share their CPUs) a share of all.
    OtherLoad,
    /// Share of a CPU that the server used while others had their turn.
    Away,
    /// How far the last two stretches of a warm-up lie apart, as a share; `beside`: stretches.
    WarmUp,
    /// Confirming runs of a search that met the target; `beside`: all probes; `detail`: the limiter
    /// that leaves the capacity in doubt.
    CapacityConfirmed,
    /// One of the generator's.
    #[serde(untagged)]
    Generator(check::CheckName),
}

impl CheckName {
    /// As written in JSON.
    pub fn code(self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }
}

/// Why there was no run, or not a whole one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopped {
    /// How it ended.
    pub how: Ending,
    /// What went wrong, as the server, the generator or the system said it; for what was refused
    /// the arithmetic.
    pub causes: Vec<String>,
}

/// How a run ended that did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The server did not start, died, or had to be killed; or the generator broke.
    Failed,
    /// Somebody ended the suite during the run.
    Interrupted,
    /// Not run: this machine cannot hold it.
    Refused,
}
