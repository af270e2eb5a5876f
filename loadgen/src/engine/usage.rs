//! What a thread costs and where it runs.

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
    },
    unistd::Pid,
};

use crate::record::ThreadUsage;

/// CPU time of the calling thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub sys_ns: u64,
}

impl CpuTime {
    /// Up to now; zero where the kernel does not say.
    pub fn of_this_thread() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else {
            return Self::default();
        };
        let ns = |time: nix::sys::time::TimeVal| {
            time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1_000
        };
        Self {
            user_ns: ns(usage.user_time()),
            sys_ns: ns(usage.system_time()),
        }
    }

    /// Since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            sys_ns: self.sys_ns.saturating_sub(earlier.sys_ns),
        }
    }

    /// Both.
    pub fn total_ns(&self) -> u64 {
        self.user_ns + self.sys_ns
    }
}

/// What a thread has spent up to a moment, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// The moment, or the time between.
    pub at: u64,
    /// CPU time.
    pub cpu: CpuTime,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
}

impl Spent {
    /// Since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            at: self.at.saturating_sub(earlier.at),
            cpu: self.cpu.since(&earlier.cpu),
            enters: self.enters - earlier.enters,
        }
    }

    /// In another slice.
    pub fn add(&mut self, other: &Self) {
        self.at += other.at;
        self.cpu.user_ns += other.cpu.user_ns;
        self.cpu.sys_ns += other.cpu.sys_ns;
        self.enters += other.enters;
    }

    /// As the record has it, of a thread on `cpu`.
    pub fn usage(&self, cpu: Option<usize>, connections: usize, stall_ns: u64) -> ThreadUsage {
        ThreadUsage {
            cpu,
            connections: connections as u64,
            busy_share: match self.at {
                0 => 0.0,
                wall => self.cpu.total_ns() as f64 / wall as f64,
            },
            cpu_user_ns: self.cpu.user_ns,
            cpu_sys_ns: self.cpu.sys_ns,
            longest_stall_ns: stall_ns,
            enters: self.enters,
        }
    }
}

/// Pins the calling thread.
///
/// # Errors
/// A sentence.
pub fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| {
            format!("cannot pin a thread to CPU {cpu}: {error}; is it in this process's set (taskset, cgroup)?")
        })
}

/// Asks for timers that fire when they are due, not up to 50 us later (the default slack).
pub fn sharpen_timers() {
    // Without it the schedule is merely less sharp, and its lag is in the record.
    let _ = prctl::set_timerslack(1_000);
}

/// Keeps this process from getting transparent huge pages.
///
/// mimalloc's arena is one large mapping, which the kernel backs with 2 MiB pages where it may:
/// measured with 10,000 idle connections, that made 1,300 bytes resident per connection of the 240
/// in use.
pub fn use_small_pages() {
    // Without it only the footprint is larger.
    let _ = prctl::set_thp_disable(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes() {
        let before = CpuTime::of_this_thread();
        let mut after = before;
        while after.since(&before).total_ns() == 0 {
            after = CpuTime::of_this_thread();
        }
        assert!(after.total_ns() > before.total_ns());
    }

    #[test]
    fn an_absent_cpu_is_refused() {
        assert!(pin(1000).unwrap_err().contains("CPU 1000"));
    }
}
