//! What `/proc` says about a process and the machine. Parsers are pure; readers return `None` for what is not there (a process
//! that has ended, a kernel without the file), never a guess.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One look at a process, cheap enough to repeat twenty times a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Wall clock, ns since the epoch.
    pub unix_ns: u64,
    /// Time on a CPU, all threads (`/proc/PID/task/*/schedstat`), ns.
    pub cpu_ns: u64,
    /// Context switches because the process waited, all threads.
    pub voluntary_switches: u64,
    /// Context switches because the kernel took the CPU away, all threads.
    pub involuntary_switches: u64,
    /// Resident memory.
    pub rss_bytes: u64,
}

/// User and kernel time of a process in clock ticks of 10 ms (`/proc/PID/stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTicks {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// TCP sockets of the whole network namespace, both ends of a loopback connection (`/proc/net/sockstat`), and the kernel's
/// slab memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMemory {
    /// TCP sockets in use.
    pub tcp_sockets: u64,
    /// TCP sockets in TIME_WAIT.
    pub tcp_time_wait: u64,
    /// Pages of socket buffers, in bytes.
    pub tcp_buffer_bytes: u64,
    /// All of the kernel's slab caches (`Slab` in `/proc/meminfo`): sockets, inodes, files.
    pub slab_bytes: u64,
}

/// Wall clock in ns since the epoch.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

/// A look at process `pid` now.
pub fn sample_process(pid: u32) -> Option<ProcessSample> {
    let mut sample = ProcessSample {
        unix_ns: unix_ns(),
        ..Default::default()
    };
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end between the listing and the reading; its time is then lost to us.
        let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        sample.cpu_ns += parse_schedstat(&schedstat).unwrap_or(0);
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sample.voluntary_switches += parse_field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        sample.involuntary_switches +=
            parse_field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    sample.rss_bytes = parse_statm_rss_pages(&statm)? * page_bytes();
    Some(sample)
}

/// Proportional set size: costs a walk over the page tables, so it is read a few times per run only.
pub fn read_pss_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    parse_field(&rollup, "Pss:").map(|kib| kib * 1024)
}

/// User and kernel time of `pid`.
pub fn read_cpu_ticks(pid: u32) -> Option<CpuTicks> {
    parse_cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Kernel memory now.
pub fn read_kernel_memory() -> Option<KernelMemory> {
    let sockstat = fs::read_to_string("/proc/net/sockstat").ok()?;
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let mut memory = parse_sockstat(&sockstat)?;
    memory.slab_bytes = parse_field(&meminfo, "Slab:")? * 1024;
    Some(memory)
}

/// Time the hypervisor took from all CPUs of this machine since boot, ns.
pub fn read_steal_ns() -> Option<u64> {
    parse_steal_ticks(&fs::read_to_string("/proc/stat").ok()?).map(|ticks| ticks * NS_PER_TICK)
}

/// Trimmed content of a one-value file such as those under `/proc/sys`.
pub fn read_value(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// USER_HZ is 100 on every architecture this runs on.
const NS_PER_TICK: u64 = 10_000_000;

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// First number: ns on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Number after `key` at the start of a line.
pub(crate) fn parse_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_statm_rss_pages(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Fields 14 and 15; counted from the closing parenthesis, because a program's name may hold blanks.
fn parse_cpu_ticks(text: &str) -> Option<CpuTicks> {
    let after_name = &text[text.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    Some(CpuTicks {
        user: fields.next()?.parse().ok()?,
        system: fields.next()?.parse().ok()?,
    })
}

fn parse_sockstat(text: &str) -> Option<KernelMemory> {
    let line = text.lines().find(|line| line.starts_with("TCP:"))?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let value = |key: &str| -> Option<u64> {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1)?.parse().ok()
    };
    Some(KernelMemory {
        tcp_sockets: value("inuse")?,
        tcp_time_wait: value("tw")?,
        tcp_buffer_bytes: value("mem")? * page_bytes(),
        slab_bytes: 0,
    })
}

/// Eighth number of the `cpu` line.
fn parse_steal_ticks(text: &str) -> Option<u64> {
    text.lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .nth(7)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_read_what_linux_6_18_writes() {
        assert_eq!(parse_schedstat("95217 77366 2\n"), Some(95_217));
        assert_eq!(
            parse_statm_rss_pages("5000 321 200 10 0 100 0\n"),
            Some(321)
        );
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 1 0 100\n";
        assert_eq!(
            parse_cpu_ticks(stat),
            Some(CpuTicks {
                user: 111,
                system: 222
            })
        );
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(parse_field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(parse_field(status, "nonvoluntary_ctxt_switches:"), Some(3));
        assert_eq!(
            parse_field("Rss: 12 kB\nPss:      10 kB\n", "Pss:"),
            Some(10)
        );
        assert_eq!(
            parse_steal_ticks("cpu  1 2 3 4 5 6 7 88 9 10\ncpu0 1\n"),
            Some(88)
        );
        let sockstat =
            "sockets: used 15\nTCP: inuse 1 orphan 0 tw 4 alloc 1 mem 2\nUDP: inuse 0 mem 0\n";
        let memory = parse_sockstat(sockstat).unwrap();
        assert_eq!((memory.tcp_sockets, memory.tcp_time_wait), (1, 4));
        assert_eq!(memory.tcp_buffer_bytes, 2 * page_bytes());
    }

    #[test]
    fn garbage_is_none_and_never_a_panic() {
        for text in ["", "x", ")", "cpu", "cpu  a", "TCP:", "TCP: inuse", "Pss:"] {
            assert_eq!(parse_schedstat(text), None);
            assert_eq!(parse_statm_rss_pages(text), None);
            assert_eq!(parse_cpu_ticks(text), None);
            assert_eq!(parse_sockstat(text), None);
            assert_eq!(parse_steal_ticks(text), None);
            assert_eq!(parse_field(text, "Pss:"), None);
        }
    }

    #[test]
    fn our_own_process_can_be_read_and_a_missing_one_cannot() {
        let sample = sample_process(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 100_000 && sample.unix_ns > 1_600_000_000_000_000_000);
        assert!(read_pss_bytes(std::process::id()).unwrap() > 0);
        assert!(read_cpu_ticks(std::process::id()).is_some());
        assert!(read_kernel_memory().unwrap().slab_bytes > 0);
        assert_eq!(sample_process(u32::MAX), None);
    }
}
