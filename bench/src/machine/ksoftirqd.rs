//! CPU time of the kernel's `ksoftirqd/N` threads. Packets over loopback are received in the
//! softirq of the CPU that sent them; mostly that runs in the sender's own time, but what the
//! kernel puts off goes to `ksoftirqd` of that CPU (kernel/softirq.c, `wakeup_softirqd`). It is
//! work that the program on the CPU caused: measured at 10,000 connections, 10-20% of the server's
//! CPU for one server and 1% for another, which no figure of the process shows.

use std::fs;

/// The threads, as they were found.
#[derive(Debug, Clone, Default)]
pub struct Softirqd {
    threads: Vec<Thread>,
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    cpu: usize,
    pid: u32,
}

/// Time since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoftirqdTime {
    /// On all CPUs, ns.
    pub all_ns: u64,
    /// Of it on the CPUs asked for, ns.
    pub of_cpus_ns: u64,
}

impl Softirqd {
    /// Looks for them; none are found where the kernel's threads cannot be seen (a PID namespace of
    /// a container).
    pub fn find() -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let threads = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some(Thread {
                    cpu: cpu_of(&name)?,
                    pid,
                })
            });
        Self {
            threads: threads.collect(),
        }
    }

    /// What they have used until now.
    pub fn read(&self, cpus: &[usize]) -> SoftirqdTime {
        let mut time = SoftirqdTime::default();
        for thread in &self.threads {
            let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", thread.pid));
            let ns = schedstat.ok().and_then(|text| parse_schedstat(&text));
            let ns = ns.unwrap_or(0);
            time.all_ns += ns;
            if cpus.contains(&thread.cpu) {
                time.of_cpus_ns += ns;
            }
        }
        time
    }
}

/// First number: ns on a CPU.
pub(super) fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// From the name of a thread.
fn cpu_of(name: &str) -> Option<usize> {
    name.trim_end().strip_prefix("ksoftirqd/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_stands_in_the_name() {
        assert_eq!(cpu_of("ksoftirqd/12\n"), Some(12));
        assert_eq!(cpu_of("kworker/1:1H\n"), None);
        assert_eq!(cpu_of("ksoftirqd/\n"), None);
    }

    #[test]
    fn time_of_some_cpus_is_part_of_all_time() {
        let softirqd = Softirqd::find();
        let (first, second) = (softirqd.read(&[]), softirqd.read(&[0]));
        assert_eq!(first.of_cpus_ns, 0);
        assert!(second.all_ns >= first.all_ns);
        assert!(second.of_cpus_ns <= second.all_ns);
    }
}
