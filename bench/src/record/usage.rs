//! What a server and the whole machine used inside the measured window.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::machine::proc::{CpuTicks, KernelMemory};

/// What the server used inside the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowUse {
    /// Time on a CPU, all threads, ns.
    pub cpu_ns: u64,
    /// User and kernel time in clock ticks of 10 ms: good for their proportion, to about three
    /// parts in a hundred of a second's window. `cpu_ns` is exact.
    #[serde(default)]
    pub ticks: CpuTicks,
    /// Time of the kernel's `ksoftirqd` on the server's CPUs, ns: softirq of packets that the
    /// server sent, put off. 0 where the server shares its CPUs with the generator, or those
    /// threads cannot be seen.
    #[serde(default)]
    pub softirqd_ns: u64,
    /// CPU time, `ksoftirqd`'s included, divided by window and number of the server's CPUs.
    pub cpu_share: f64,
    /// Voluntary context switches.
    pub voluntary_switches: u64,
    /// Involuntary context switches.
    pub involuntary_switches: u64,
    /// Resident memory, median of the samples inside the window.
    pub rss_bytes: u64,
    /// Proportional set size inside the window (scenarios of kind `idle` only).
    pub pss_bytes: Option<u64>,
    /// Kernel memory at the last sample inside the window.
    pub kernel: Option<KernelMemory>,
    /// Samples inside the window.
    #[serde(rename = "looks")]
    pub samples: usize,
    /// What the whole machine did meanwhile.
    #[serde(default)]
    pub machine: Option<MachineUse>,
}

impl WindowUse {
    /// What the server cost: its threads' time and what the kernel put off on its CPUs, ns.
    pub fn cost_ns(&self) -> u64 {
        self.cpu_ns + self.softirqd_ns
    }
}

/// CPU time of the whole machine inside the window, all CPUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineUse {
    /// What the CPUs could have given.
    pub all_ns: u64,
    /// Used by all programs and the kernel.
    pub busy_ns: u64,
    /// Of it in interrupts and `softirq`.
    pub interrupts_ns: u64,
    /// Taken by the hypervisor.
    pub steal_ns: u64,
    /// Used by the referee.
    pub referee_ns: u64,
    /// Used by the kernel's `ksoftirqd` threads.
    #[serde(default)]
    pub softirqd_ns: u64,
    /// Periods in which a CPU quota of our control group or its parents stopped threads; `null`: it
    /// is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
    /// The server's CPUs; `null`: it shares them with the generator, or the result is an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SideUse>,
    /// The generator's CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<SideUse>,
}

/// CPU time of one side's CPUs inside the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SideUse {
    /// How many.
    pub cpus: u64,
    /// What they could have given.
    pub all_ns: u64,
    /// Used by all programs and the kernel.
    pub busy_ns: u64,
    /// Of it in interrupts and `softirq`.
    pub interrupts_ns: u64,
    /// Taken by the hypervisor.
    #[serde(default)]
    pub steal_ns: u64,
}

impl SideUse {
    /// Two stretches of time together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpus: self.cpus,
            all_ns: self.all_ns + other.all_ns,
            busy_ns: self.busy_ns + other.busy_ns,
            interrupts_ns: self.interrupts_ns + other.interrupts_ns,
            steal_ns: self.steal_ns + other.steal_ns,
        }
    }

    /// How many of its CPUs all others used, `ours_ns` being ours; `interrupts_apart` as in
    /// [`MachineUse::other_share`].
    pub fn other_cpus(&self, ours_ns: u64, interrupts_apart: Option<bool>) -> f64 {
        let apart = match interrupts_apart {
            Some(false) => 0,
            Some(true) | None => self.interrupts_ns,
        };
        let others = self.busy_ns.saturating_sub(ours_ns + apart);
        others as f64 * self.cpus as f64 / self.all_ns.max(1) as f64
    }
}

impl MachineUse {
    /// Two stretches of time together.
    pub fn plus(self, other: Self) -> Self {
        let both = |of: fn(&Self) -> Option<SideUse>| {
            let sides = of(&self).zip(of(&other));
            sides.map(|(one, other)| one.plus(other))
        };
        let periods = self.throttled_periods.zip(other.throttled_periods);
        Self {
            all_ns: self.all_ns + other.all_ns,
            busy_ns: self.busy_ns + other.busy_ns,
            interrupts_ns: self.interrupts_ns + other.interrupts_ns,
            steal_ns: self.steal_ns + other.steal_ns,
            referee_ns: self.referee_ns + other.referee_ns,
            softirqd_ns: self.softirqd_ns + other.softirqd_ns,
            throttled_periods: periods.map(|(one, other)| one + other),
            server: both(|one| one.server),
            generator: both(|one| one.generator),
        }
    }

    /// The hypervisor's share of the CPUs that the run uses; of all where the sides are not known.
    pub fn steal_share(&self) -> f64 {
        let sides = self.server.zip(self.generator);
        let (steal_ns, all_ns) = sides.map_or((self.steal_ns, self.all_ns), |(one, other)| {
            (one.steal_ns + other.steal_ns, one.all_ns + other.all_ns)
        });
        steal_ns as f64 / all_ns.max(1) as f64
    }

    /// The share of all but the server, the generator and the referee, whose CPU time is `ours_ns`
    /// (the referee's apart), and of `ksoftirqd`, whose packets are ours.
    ///
    /// Where the kernel accounts interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING), ours is without the
    /// `softirq` that our packets need, and nothing says whose packets they were: all of it is then
    /// taken for ours. `None` is a kernel of which that is not known: the same, so that a quiet
    /// machine is never doubted.
    pub fn other_share(&self, ours_ns: u64, interrupts_apart: Option<bool>) -> f64 {
        let apart = match interrupts_apart {
            Some(false) => 0,
            Some(true) | None => self.interrupts_ns,
        };
        let others = self
            .busy_ns
            .saturating_sub(ours_ns + self.referee_ns + self.softirqd_ns + apart);
        others as f64 / self.all_ns.max(1) as f64
    }
}
