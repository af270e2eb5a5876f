//! A server's `/proc` figures (all its processes together) over a run, and what they come to inside the measured window.
//!
//! The referee learns the window only from the generator's record, after the run, so it looks at the server at regular
//! instants and interpolates between the two looks around each end. With a look every 50 ms and a server whose use of the CPU is
//! steady, the error at each end is far below 1% of a one-second window.

use serde::{Deserialize, Serialize};

use crate::proc::{self, KernelMemory, ProcessSample};

/// Looks at one process, and at the kernel's memory.
#[derive(Debug)]
pub struct Sampler {
    pid: u32,
    with_pss: bool,
    samples: Vec<ProcessSample>,
    memory: Vec<MemorySample>,
}

/// One look at what costs more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemorySample {
    unix_ns: u64,
    kernel: Option<KernelMemory>,
    pss_bytes: Option<u64>,
}

/// What the server used inside the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowUse {
    /// Time on a CPU, all threads, ns.
    pub cpu_ns: u64,
    /// CPU time divided by window and number of the server's CPUs.
    pub cpu_share: f64,
    /// Voluntary context switches.
    pub voluntary_switches: u64,
    /// Involuntary context switches.
    pub involuntary_switches: u64,
    /// Resident memory, median of the looks inside the window.
    pub rss_bytes: u64,
    /// Proportional set size inside the window (scenarios of kind `idle` only).
    pub pss_bytes: Option<u64>,
    /// Kernel memory at the last look inside the window.
    pub kernel: Option<KernelMemory>,
    /// Looks inside the window.
    pub looks: usize,
}

impl Sampler {
    /// Of process `pid`; PSS too if `with_pss`.
    pub fn new(pid: u32, with_pss: bool) -> Self {
        Self {
            pid,
            with_pss,
            samples: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Looks now. Nothing is recorded once the process has ended.
    pub fn look(&mut self) {
        self.samples.extend(proc::sample_tree(self.pid));
    }

    /// Looks at the kernel's memory (and PSS) now.
    pub fn look_at_memory(&mut self) {
        self.memory.push(MemorySample {
            unix_ns: proc::unix_ns(),
            kernel: proc::read_kernel_memory(),
            pss_bytes: if self.with_pss {
                proc::read_pss_bytes(self.pid)
            } else {
                None
            },
        });
    }

    /// What was used between two instants, by a server on `cpus` CPUs. `None` if the looks do not reach around the window.
    pub fn window(&self, start_unix_ns: u64, end_unix_ns: u64, cpus: usize) -> Option<WindowUse> {
        let start = interpolate(&self.samples, start_unix_ns)?;
        let end = interpolate(&self.samples, end_unix_ns)?;
        let length = end_unix_ns
            .checked_sub(start_unix_ns)
            .filter(|length| *length > 0)?;
        let inside = |unix_ns: u64| (start_unix_ns..=end_unix_ns).contains(&unix_ns);
        let mut rss: Vec<u64> = self
            .samples
            .iter()
            .filter(|sample| inside(sample.unix_ns))
            .map(|sample| sample.rss_bytes)
            .collect();
        rss.sort_unstable();
        let memory = self.memory.iter().rfind(|sample| inside(sample.unix_ns));
        let cpu_ns = end.cpu_ns.saturating_sub(start.cpu_ns);
        Some(WindowUse {
            cpu_ns,
            cpu_share: cpu_ns as f64 / length as f64 / cpus.max(1) as f64,
            voluntary_switches: end
                .voluntary_switches
                .saturating_sub(start.voluntary_switches),
            involuntary_switches: end
                .involuntary_switches
                .saturating_sub(start.involuntary_switches),
            rss_bytes: rss.get(rss.len() / 2).copied().unwrap_or(end.rss_bytes),
            pss_bytes: memory.and_then(|memory| memory.pss_bytes),
            kernel: memory.and_then(|memory| memory.kernel),
            looks: rss.len(),
        })
    }
}

/// The counters at an instant, linear between the looks before and after it.
fn interpolate(samples: &[ProcessSample], at: u64) -> Option<ProcessSample> {
    let after = samples.partition_point(|sample| sample.unix_ns < at);
    let b = samples.get(after)?;
    if b.unix_ns == at {
        return Some(*b);
    }
    let a = samples.get(after.checked_sub(1)?)?;
    let part = (at - a.unix_ns) as f64 / (b.unix_ns - a.unix_ns) as f64;
    let between = |a: u64, b: u64| a + (part * b.saturating_sub(a) as f64) as u64;
    Some(ProcessSample {
        unix_ns: at,
        cpu_ns: between(a.cpu_ns, b.cpu_ns),
        voluntary_switches: between(a.voluntary_switches, b.voluntary_switches),
        involuntary_switches: between(a.involuntary_switches, b.involuntary_switches),
        rss_bytes: if part < 0.5 { a.rss_bytes } else { b.rss_bytes },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(samples: &[(u64, u64)]) -> Sampler {
        let mut sampler = Sampler::new(0, false);
        sampler.samples = samples
            .iter()
            .map(|(unix_ns, cpu_ns)| ProcessSample {
                unix_ns: *unix_ns,
                cpu_ns: *cpu_ns,
                voluntary_switches: cpu_ns / 10,
                rss_bytes: 1000 + unix_ns,
                ..Default::default()
            })
            .collect();
        sampler
    }

    #[test]
    fn a_window_between_looks_is_interpolated() {
        // Idle until 100, then 80% of one CPU.
        let sampler = sampler(&[(0, 0), (100, 0), (200, 80), (300, 160), (400, 240)]);
        let window = sampler.window(150, 350, 1).unwrap();
        assert_eq!(window.cpu_ns, 160);
        assert!((window.cpu_share - 0.8).abs() < 1e-9);
        assert_eq!(window.voluntary_switches, 16);
        assert_eq!((window.looks, window.rss_bytes), (2, 1300));
        assert!((sampler.window(150, 350, 2).unwrap().cpu_share - 0.4).abs() < 1e-9);
    }

    #[test]
    fn a_window_the_looks_do_not_cover_is_refused() {
        let sampler = sampler(&[(100, 0), (200, 80)]);
        assert_eq!(sampler.window(50, 150, 1), None);
        assert_eq!(sampler.window(150, 250, 1), None);
        assert_eq!(sampler.window(150, 150, 1), None);
        assert!(sampler.window(100, 200, 1).is_some());
    }
}
