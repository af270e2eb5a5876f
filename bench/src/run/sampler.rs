//! A server's `/proc` figures (all its processes together) over a run, and what they come to inside
//! the measured window.
//!
//! The referee learns the window only from the generator's record, after the run, so it samples
//! the server at regular instants and interpolates between the two samples around each end. With a
//! sample every 50 ms and a server whose use of the CPU is steady, the error at each end is far
//! below 1% of a one-second window.

use loadgen::engine::shared::monotonic_ns;

use crate::machine::CpuSet;
use crate::machine::ksoftirqd::{Ksoftirqd, KsoftirqdTime};
use crate::machine::proc::{
    self, CpuTicks, CpuTime, KernelMemory, MachineSample, ProcessSample, Sides,
};
use crate::record::{MachineUse, SideUse, WindowUse};

/// What is watched of the machine: all of it, and each side apart.
#[derive(Debug, Clone, Default)]
pub struct MachineWatch {
    ksoftirqd: Ksoftirqd,
    sides: Sides,
}

impl MachineWatch {
    /// With the CPUs of server and generator as sides, if they do not share them.
    pub fn new(server: &CpuSet, generator: &CpuSet) -> Self {
        let sides = match server.is_apart(generator) {
            true => Sides {
                server: server.cpus().to_vec(),
                generator: generator.cpus().to_vec(),
            },
            false => Sides::default(),
        };
        Self {
            ksoftirqd: Ksoftirqd::find(),
            sides,
        }
    }

    /// The same where server and generator share their CPUs.
    pub fn without_sides(&self) -> Self {
        Self {
            ksoftirqd: self.ksoftirqd.clone(),
            sides: Sides::default(),
        }
    }

    /// Now.
    pub fn sample(&self) -> Option<MachineSample> {
        proc::sample_machine(&self.ksoftirqd, &self.sides)
    }
}

/// Looks at one process, and at the kernel's memory.
#[derive(Debug)]
pub struct Sampler {
    pid: u32,
    watch: MachineWatch,
    with_pss: bool,
    samples: Vec<ProcessSample>,
    machine: Vec<MachineSample>,
    memory: Vec<TimedMemory>,
}

/// Memory at one instant: it costs more to read than CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimedMemory {
    at_ns: u64,
    kernel: Option<KernelMemory>,
    pss_bytes: Option<u64>,
}

impl Sampler {
    /// Of process `pid`, a server on its side; PSS too if `with_pss`.
    pub fn new(pid: u32, watch: MachineWatch, with_pss: bool) -> Self {
        Self {
            pid,
            watch,
            with_pss,
            samples: Vec::new(),
            machine: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Takes a sample. Nothing is recorded once the process has ended.
    pub fn sample(&mut self) {
        self.samples.extend(proc::sample_tree(self.pid));
        self.machine.extend(self.watch.sample());
    }

    /// Samples the kernel's memory (and PSS) now.
    pub fn sample_memory(&mut self) {
        self.memory.push(TimedMemory {
            at_ns: monotonic_ns(),
            kernel: proc::read_kernel_memory(),
            pss_bytes: if self.with_pss {
                proc::read_pss_bytes(self.pid)
            } else {
                None
            },
        });
    }

    /// The use of a server on `cpus` CPUs between two instants of CLOCK_MONOTONIC. `None` if the
    /// samples do not reach around the window.
    pub fn window(&self, start_ns: u64, end_ns: u64, cpus: usize) -> Option<WindowUse> {
        let start = interpolate(&self.samples, start_ns)?;
        let end = interpolate(&self.samples, end_ns)?;
        if end_ns <= start_ns {
            return None;
        }
        let inside = |at_ns: u64| (start_ns..=end_ns).contains(&at_ns);
        let mut rss: Vec<u64> = self
            .samples
            .iter()
            .filter(|sample| inside(sample.at_ns))
            .map(|sample| sample.rss_bytes)
            .collect();
        rss.sort_unstable();
        let memory = self.memory.iter().rfind(|sample| inside(sample.at_ns));
        let around = machine_at(&self.machine, start_ns).zip(machine_at(&self.machine, end_ns));
        Some(WindowUse {
            rss_bytes: rss.get(rss.len() / 2).copied().unwrap_or(end.rss_bytes),
            pss_bytes: memory.and_then(|memory| memory.pss_bytes),
            kernel: memory.and_then(|memory| memory.kernel),
            samples: rss.len(),
            ..WindowUse::between(&start, &end, around, cpus)
        })
    }
}

impl WindowUse {
    /// Between two samples of a server on `cpus` CPUs, and of the machine around it; memory as it
    /// was at the end.
    pub(super) fn between(
        start: &ProcessSample,
        end: &ProcessSample,
        machine: Option<(MachineSample, MachineSample)>,
        cpus: usize,
    ) -> Self {
        let grown = |of: fn(&ProcessSample) -> u64| of(end).saturating_sub(of(start));
        let cpu_ns = grown(|sample| sample.cpu_ns);
        let softirqd_ns = machine.map_or(0, |(start, end)| {
            (end.ksoftirqd.of_cpus_ns).saturating_sub(start.ksoftirqd.of_cpus_ns)
        });
        Self {
            cpu_ns,
            softirqd_ns,
            ticks: CpuTicks {
                user: grown(|sample| sample.ticks.user),
                system: grown(|sample| sample.ticks.system),
            },
            cpu_share: share(cpu_ns + softirqd_ns, grown(|sample| sample.at_ns), cpus),
            voluntary_switches: grown(|sample| sample.voluntary_switches),
            involuntary_switches: grown(|sample| sample.involuntary_switches),
            rss_bytes: end.rss_bytes,
            pss_bytes: None,
            kernel: None,
            samples: 1,
            machine: machine.map(|(start, end)| MachineUse::between(&start, &end)),
        }
    }
}

/// The share of `cpus` CPUs that was used in `length_ns`.
pub(super) fn share(cpu_ns: u64, length_ns: u64, cpus: usize) -> f64 {
    cpu_ns as f64 / length_ns.max(1) as f64 / cpus.max(1) as f64
}

impl MachineUse {
    /// Between two samples.
    pub(super) fn between(start: &MachineSample, end: &MachineSample) -> Self {
        let grown = |of: fn(&MachineSample) -> u64| of(end).saturating_sub(of(start));
        let length_ns = grown(|sample| sample.at_ns);
        let side = |of: fn(&MachineSample) -> CpuTime| {
            let side = SideUse::between(&of(start), &of(end), length_ns);
            (side.cpus > 0).then_some(side)
        };
        let all = SideUse::between(&start.all, &end.all, length_ns);
        Self {
            all_ns: all.all_ns,
            busy_ns: all.busy_ns,
            interrupts_ns: all.interrupts_ns,
            steal_ns: all.steal_ns,
            referee_ns: grown(|sample| sample.own_ns),
            softirqd_ns: grown(|sample| sample.ksoftirqd.all_ns),
            throttled_periods: end
                .throttling
                .zip(start.throttling)
                .map(|(end, start)| end.periods.saturating_sub(start.periods)),
            server: side(|sample| sample.server),
            generator: side(|sample| sample.generator),
        }
    }
}

impl SideUse {
    fn between(start: &CpuTime, end: &CpuTime, length_ns: u64) -> Self {
        let grown = |of: fn(&CpuTime) -> u64| of(end).saturating_sub(of(start));
        let all_ns = length_ns * end.cpus;
        let steal_ns = grown(|time| time.steal_ns);
        let unused = grown(|time| time.idle_ns) + steal_ns;
        Self {
            cpus: end.cpus,
            all_ns,
            busy_ns: all_ns.saturating_sub(unused),
            interrupts_ns: grown(|time| time.interrupts_ns),
            steal_ns,
        }
    }
}

/// The samples before and after an instant, and how far it is from the one to the other; twice the
/// same sample where that is of the instant.
fn around<T>(samples: &[T], at_ns: fn(&T) -> u64, at: u64) -> Option<(&T, &T, f64)> {
    let after = samples.partition_point(|sample| at_ns(sample) < at);
    let b = samples.get(after)?;
    if at_ns(b) == at {
        return Some((b, b, 0.0));
    }
    let a = samples.get(after.checked_sub(1)?)?;
    let part = at.saturating_sub(at_ns(a)) as f64 / at_ns(b).saturating_sub(at_ns(a)).max(1) as f64;
    Some((a, b, part))
}

fn interpolated(a: u64, b: u64, part: f64) -> u64 {
    a + (part * b.saturating_sub(a) as f64) as u64
}

/// The machine's counters at an instant, in the same way.
fn machine_at(samples: &[MachineSample], at: u64) -> Option<MachineSample> {
    let (a, b, part) = around(samples, |sample| sample.at_ns, at)?;
    let between = |of: fn(&MachineSample) -> u64| interpolated(of(a), of(b), part);
    let time = |of: fn(&MachineSample) -> CpuTime| {
        let (a, b) = (of(a), of(b));
        let between = |of: fn(&CpuTime) -> u64| interpolated(of(&a), of(&b), part);
        CpuTime {
            cpus: b.cpus,
            idle_ns: between(|time| time.idle_ns),
            interrupts_ns: between(|time| time.interrupts_ns),
            steal_ns: between(|time| time.steal_ns),
        }
    };
    Some(MachineSample {
        at_ns: at,
        all: time(|sample| sample.all),
        server: time(|sample| sample.server),
        generator: time(|sample| sample.generator),
        own_ns: between(|sample| sample.own_ns),
        // Whole periods: one that goes on at the end of a window counts.
        throttling: b.throttling,
        ksoftirqd: KsoftirqdTime {
            all_ns: between(|sample| sample.ksoftirqd.all_ns),
            of_cpus_ns: between(|sample| sample.ksoftirqd.of_cpus_ns),
        },
    })
}

/// The counters at an instant, linear between the samples before and after it.
fn interpolate(samples: &[ProcessSample], at: u64) -> Option<ProcessSample> {
    let (a, b, part) = around(samples, |sample| sample.at_ns, at)?;
    let between = |a, b| interpolated(a, b, part);
    Some(ProcessSample {
        at_ns: at,
        cpu_ns: between(a.cpu_ns, b.cpu_ns),
        voluntary_switches: between(a.voluntary_switches, b.voluntary_switches),
        involuntary_switches: between(a.involuntary_switches, b.involuntary_switches),
        ticks: CpuTicks {
            user: between(a.ticks.user, b.ticks.user),
            system: between(a.ticks.system, b.ticks.system),
        },
        rss_bytes: if part < 0.5 { a.rss_bytes } else { b.rss_bytes },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cgroup::Throttling;

    fn sampler(samples: &[(u64, u64)]) -> Sampler {
        let mut sampler = Sampler::new(0, MachineWatch::default(), false);
        sampler.samples = samples
            .iter()
            .map(|(at_ns, cpu_ns)| ProcessSample {
                at_ns: *at_ns,
                cpu_ns: *cpu_ns,
                voluntary_switches: cpu_ns / 10,
                rss_bytes: 1000 + at_ns,
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
        assert_eq!((window.samples, window.rss_bytes), (2, 1300));
        assert!((sampler.window(150, 350, 2).unwrap().cpu_share - 0.4).abs() < 1e-9);
    }

    #[test]
    fn what_is_left_of_the_busy_time_is_others() {
        let mut sampler = sampler(&[(0, 0), (1000, 800)]);
        let time = |cpus, idle_ns, interrupts_ns, steal_ns| CpuTime {
            cpus,
            idle_ns,
            interrupts_ns,
            steal_ns,
        };
        let sample = |at_ns, idle_ns, interrupts_ns, steal_ns, own_ns| MachineSample {
            at_ns,
            all: time(2, idle_ns, interrupts_ns, steal_ns),
            server: time(1, idle_ns / 2, interrupts_ns, 0),
            generator: CpuTime::default(),
            own_ns,
            ksoftirqd: KsoftirqdTime {
                all_ns: at_ns / 50,
                of_cpus_ns: at_ns / 100,
            },
            throttling: Some(Throttling {
                periods: at_ns / 250,
            }),
        };
        sampler.machine = vec![sample(0, 50, 5, 7, 1), sample(1000, 250, 105, 27, 11)];
        let window = sampler.window(0, 1000, 1).unwrap();
        assert_eq!((window.cpu_ns, window.cost_ns()), (800, 810));
        assert!((window.cpu_share - 0.81).abs() < 1e-9);
        let machine = window.machine.unwrap();
        assert_eq!((machine.all_ns, machine.busy_ns), (2000, 1780));
        assert_eq!(machine.throttled_periods, Some(4));
        assert_eq!(machine.generator, None);
        let server = machine.server.unwrap();
        assert_eq!((server.all_ns, server.busy_ns), (1000, 900));
        assert_eq!(server.other_cpus(810, Some(false)), 0.09);
        assert_eq!(server.other_cpus(750, Some(true)), 0.05);
        assert_eq!(server.other_cpus(901, Some(false)), 0.0);
        let share = |ns: u32| f64::from(ns) / 2000.0;
        assert_eq!(machine.steal_share(), share(20));
        // 1780 busy - 1500 of server and generator - 10 of the referee - 20 of ksoftirqd.
        assert_eq!(machine.other_share(1500, Some(false)), share(250));
        assert_eq!(machine.other_share(1500, Some(true)), share(150));
        assert_eq!(machine.other_share(1500, None), share(150));
        assert_eq!(machine.other_share(1800, Some(false)), 0.0);
        let half = sampler.window(500, 1000, 1).unwrap().machine.unwrap();
        assert_eq!((half.all_ns, half.steal_ns), (1000, 10));
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
