//! CPU time of the kernel's `ksoftirqd/N` threads. Packets over loopback are received in the
//! softirq of the CPU that sent them; mostly that runs in the sender's own time, but what the
//! kernel puts off goes to `ksoftirqd` of that CPU (kernel/softirq.c, `wakeup_softirqd`). It is
//! work that the program on the CPU caused: measured at 10,000 connections, 10-20% of the server's
//! CPU for one server and 1% for another, which no figure of the process shows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::proc::processes;

/// The threads, as they were found.
#[derive(Debug, Clone, Default)]
pub struct Ksoftirqd {
    /// Where processes are listed: `/proc`.
    proc: PathBuf,
    threads: Vec<Thread>,
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    cpu: usize,
    pid: u32,
}

/// Time since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KsoftirqdTime {
    /// On all CPUs, ns.
    pub all_ns: u64,
    /// Of it on the CPUs asked for, ns.
    pub of_cpus_ns: u64,
}

impl Ksoftirqd {
    /// Looks for them; none are found where the kernel's threads cannot be seen (a PID namespace of
    /// a container).
    pub fn find() -> Self {
        Self::find_in(Path::new("/proc"))
    }

    fn find_in(proc: &Path) -> Self {
        let threads = processes(proc).filter_map(|pid| {
            let name = fs::read_to_string(proc.join(format!("{pid}/comm"))).ok()?;
            Some(Thread {
                cpu: cpu_of(&name)?,
                pid,
            })
        });
        Self {
            threads: threads.collect(),
            proc: proc.to_owned(),
        }
    }

    /// CPU time of the threads until now.
    pub fn read(&self, cpus: &[usize]) -> KsoftirqdTime {
        let mut time = KsoftirqdTime::default();
        for thread in &self.threads {
            let file = self.proc.join(format!("{}/schedstat", thread.pid));
            let schedstat = fs::read_to_string(file);
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

    /// The kernel's threads are invisible in many a container, so `/proc` is a fixture.
    #[test]
    fn time_of_some_cpus_is_part_of_all_time() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, comm, schedstat) in [
            ("12", "ksoftirqd/0\n", "1000 5 7\n"),
            ("19", "ksoftirqd/1\n", "200 5 7\n"),
            ("25", "ksoftirqd/2\n", "30 5 7\n"),
            ("40", "kworker/0:1\n", "9999 5 7\n"),
            ("self", "ksoftirqd/3\n", "9999 5 7\n"),
        ] {
            let process = proc.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("comm"), comm).unwrap();
            fs::write(process.join("schedstat"), schedstat).unwrap();
        }
        let ksoftirqd = Ksoftirqd::find_in(proc.path());
        let time = |of_cpus_ns| KsoftirqdTime {
            all_ns: 1230,
            of_cpus_ns,
        };
        assert_eq!(ksoftirqd.read(&[]), time(0));
        assert_eq!(ksoftirqd.read(&[0, 2]), time(1030));
        assert_eq!(ksoftirqd.read(&[1, 3]), time(200));
        fs::remove_dir_all(proc.path().join("12")).unwrap();
        assert_eq!(ksoftirqd.read(&[0]).all_ns, 230, "a thread that has ended");
    }
}
