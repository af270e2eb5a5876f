//! The profile of a scenario: where the servers' CPU time went, in samples of their stacks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Status};
use crate::config::Scenario;

/// Version of [`Profile`].
pub const PROFILE_VERSION: u32 = 1;

/// Content of `profiles/SCENARIO/profile.json`. The stacks themselves lie beside it, in
/// `CONTESTANT.folded`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// [`PROFILE_VERSION`] of the writer.
    #[schemars(extend("const" = PROFILE_VERSION))]
    pub schema_version: u32,
    /// When it was begun, UTC.
    pub started_utc: String,
    /// Source that the binaries were built from, short.
    pub revision: String,
    /// The machine in one line.
    pub machine: String,
    /// What `perf version` says.
    pub perf: String,
    /// Stack samples per second of CPU time.
    pub frequency_hz: u32,
    /// The scenario in force.
    pub scenario: Scenario,
    /// Rate in force, for open loops.
    pub rate_per_s: Option<f64>,
    /// In the order in which they ran.
    pub contestants: Vec<Profiled>,
}

/// One contestant in a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Profiled {
    /// Which.
    pub contestant: String,
    /// SHA-1 of its binary.
    pub binary: Option<String>,
    /// Of its run.
    pub status: Status,
    /// Why there are no samples, if so.
    pub causes: Vec<String>,
    /// The checks of its run that came out doubtful or invalid.
    pub doubts: Vec<Check>,
    /// Length of the measured window.
    pub window_ns: u64,
    /// Verified replies inside the window; of a broadcast deliveries.
    pub messages: u64,
    /// CPU time of the server's threads inside the window.
    pub cpu_ns: u64,
    /// CPU time of `ksoftirqd` on the server's CPUs inside the window: in no sample.
    pub softirqd_ns: u64,
    /// Stack samples inside the window.
    pub samples: u64,
    /// The same by what the CPU did; they add up to `samples`.
    pub shares: BTreeMap<Share, u64>,
}

/// What a CPU did when a stack was sampled.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// The server's own code.
    Program,
    /// Shared libraries, and allocators wherever they are linked.
    Library,
    /// The kernel's sockets, TCP, IP and devices, on the server's side.
    Tcp,
    /// Receipt of packets on the server's CPU: over loopback the generator's side.
    Softirq,
    /// Copies between user and kernel.
    Copy,
    /// The kernel's io_uring.
    IoUring,
    /// `epoll`, `poll`, and what they ask of a socket.
    Poll,
    /// Entry and exit of system calls, and files.
    Syscall,
    /// Scheduling, waiting and waking.
    Scheduling,
    /// Page faults and mappings.
    Memory,
    /// Interrupts, the rest of the kernel, and what has no name.
    Other,
}

impl Share {
    /// In the order of tables.
    pub const ALL: [Self; 11] = [
        Self::Program,
        Self::Library,
        Self::Tcp,
        Self::Softirq,
        Self::Copy,
        Self::IoUring,
        Self::Poll,
        Self::Syscall,
        Self::Scheduling,
        Self::Memory,
        Self::Other,
    ];
}

impl Profiled {
    /// CPU time of the server's threads per message.
    pub fn cpu_ns_per_message(&self) -> Option<f64> {
        (self.messages > 0).then(|| self.cpu_ns as f64 / self.messages as f64)
    }

    /// Samples of a share, as a part of all.
    pub fn part(&self, share: Share) -> f64 {
        let samples = self.shares.get(&share).copied().unwrap_or(0);
        samples as f64 / self.samples.max(1) as f64
    }

    /// CPU time per message that a share stands for.
    pub fn share_ns_per_message(&self, share: Share) -> Option<f64> {
        Some(self.part(share) * self.cpu_ns_per_message()?)
    }
}

impl Profile {
    /// The contestants that were sampled.
    pub fn sampled(&self) -> impl Iterator<Item = &Profiled> {
        self.contestants.iter().filter(|one| one.samples > 0)
    }

    /// The shares that any of them has, in the order of tables.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        let all = Share::ALL.into_iter();
        all.filter(|share| self.sampled().any(|one| one.part(*share) > 0.0))
    }

    /// How much of the servers' CPU time the samples of one contestant stand for.
    pub fn coverage(&self, one: &Profiled) -> f64 {
        let sampled_ns = one.samples as f64 * 1e9 / f64::from(self.frequency_hz);
        sampled_ns / one.cpu_ns.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_cpu_time_per_message_add_up_to_it() {
        let shares = [(Share::Tcp, 30), (Share::Copy, 10)].into();
        let one = Profiled {
            contestant: "a".to_owned(),
            binary: None,
            status: Status::Valid,
            causes: vec![],
            doubts: vec![],
            window_ns: 1_000_000_000,
            messages: 20,
            cpu_ns: 40_000_000,
            softirqd_ns: 0,
            samples: 40,
            shares,
        };
        assert_eq!(one.share_ns_per_message(Share::Tcp), Some(1_500_000.0));
        let all = Share::ALL.map(|share| one.share_ns_per_message(share).unwrap());
        assert_eq!(all.iter().sum::<f64>(), 2_000_000.0);
        let none = Profiled { messages: 0, ..one };
        assert_eq!(none.share_ns_per_message(Share::Tcp), None);
    }
}
