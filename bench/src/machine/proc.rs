//! Figures of a process and of the machine from `/proc`. Parsers are pure; readers return `None`
//! for what is not there (a process that has ended, a kernel without the file), never a guess.

use std::fs;
use std::path::Path;

use loadgen::engine::shared::monotonic_ns;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cgroup::Throttling;
use super::ksoftirqd::{Ksoftirqd, KsoftirqdTime, parse_schedstat};

/// One sample of a process, cheap enough to repeat twenty times a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// When, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Time on a CPU, all threads (`/proc/PID/task/*/schedstat`), ns.
    pub cpu_ns: u64,
    /// Context switches because the process waited, all threads.
    pub voluntary_switches: u64,
    /// Context switches because the kernel took the CPU away, all threads.
    pub involuntary_switches: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// User and kernel time, all threads, in clock ticks.
    #[serde(default)]
    pub ticks: CpuTicks,
}

/// The CPUs of a run, none in both; empty where server and generator share theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// The server's.
    pub server: Vec<usize>,
    /// The generator's.
    pub generator: Vec<usize>,
}

/// CPU time of some CPUs since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// How many.
    pub cpus: u64,
    /// With nothing to do.
    pub idle_ns: u64,
    /// In interrupts and what they leave to be done (`softirq`: most of TCP's work).
    pub interrupts_ns: u64,
    /// Taken by the hypervisor.
    pub steal_ns: u64,
}

/// CPU time of the whole machine since boot, all CPUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineSample {
    /// When, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// All CPUs that are on.
    pub all: CpuTime,
    /// The server's.
    pub server: CpuTime,
    /// The generator's.
    pub generator: CpuTime,
    /// Used by this process.
    pub own_ns: u64,
    /// Used by the kernel's `ksoftirqd` threads.
    pub ksoftirqd: KsoftirqdTime,
    /// How often a CPU quota stopped us, where that is counted.
    pub throttling: Option<Throttling>,
}

/// User and kernel time of a process in clock ticks of 10 ms (`/proc/PID/stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CpuTicks {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// TCP sockets of the whole network namespace, both ends of a loopback connection
/// (`/proc/net/sockstat`), and the kernel's slab memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelMemory {
    /// TCP sockets in use.
    pub tcp_sockets: u64,
    /// TCP sockets in TIME_WAIT.
    pub tcp_time_wait: u64,
    /// Pages of socket buffers, in bytes.
    pub tcp_buffer_bytes: u64,
    /// All of the kernel's slab caches (`Slab` in `/proc/meminfo`): sockets, inodes, files; without
    /// what `/proc` itself keeps there for every descriptor that somebody looked at, where that can
    /// be told (`/proc/slabinfo`, root only).
    pub slab_bytes: u64,
    /// Page tables of all processes.
    #[serde(default)]
    pub page_table_bytes: u64,
    /// Kernel stacks of all threads.
    #[serde(default)]
    pub stack_bytes: u64,
    /// All memory in use by whatever it is, apart from the page cache and from what is left out of
    /// `slab_bytes` (in results before 2026-11-23 it was left in).
    #[serde(default)]
    pub used_bytes: u64,
    /// What `free` calls available (`MemAvailable`): the kernel's guess of what programs could
    /// still get. It takes the inodes and directory entries of open sockets for memory that it
    /// could have back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

impl KernelMemory {
    /// Memory of the kernel for connections and for the processes that hold them.
    pub fn kernel_bytes(&self) -> u64 {
        self.slab_bytes + self.tcp_buffer_bytes + self.page_table_bytes + self.stack_bytes
    }
}

/// Memory of a process and its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TreeMemory {
    /// Processes.
    pub processes: u64,
    /// Their resident memory, added up: pages that several share count several times.
    pub rss_bytes: u64,
    /// Their proportional set sizes, added up: shared pages count once.
    pub pss_bytes: u64,
}

/// Wall clock in ns since the epoch: a name for a moment, which may be set back. What is joined or
/// subtracted is of CLOCK_MONOTONIC.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

/// All processes in `proc` (`/proc`).
pub(super) fn processes(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `pid` and its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(parent) = pids.get(next) {
        let tasks = fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    pids
}

/// Samples process `pid` and its descendants.
pub fn sample_tree(pid: u32) -> Option<ProcessSample> {
    let mut tree = tree(pid).into_iter();
    let mut sum = sample_process(tree.next()?)?;
    // A child that has ended between the two reads has no figures any more.
    for child in tree.filter_map(sample_process) {
        sum.cpu_ns += child.cpu_ns;
        sum.voluntary_switches += child.voluntary_switches;
        sum.involuntary_switches += child.involuntary_switches;
        sum.rss_bytes += child.rss_bytes;
        sum.ticks.user += child.ticks.user;
        sum.ticks.system += child.ticks.system;
    }
    Some(sum)
}

/// Memory of process `pid` and its descendants now; costs a walk over their page tables.
pub fn read_tree_memory(pid: u32) -> Option<TreeMemory> {
    let mut memory = TreeMemory::default();
    for pid in tree(pid) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        if let (Some(rss), Some(pss)) = (parse_field(&rollup, "Rss:"), parse_field(&rollup, "Pss:"))
        {
            memory.processes += 1;
            memory.rss_bytes += rss * 1024;
            memory.pss_bytes += pss * 1024;
        }
    }
    (memory.processes > 0).then_some(memory)
}

/// Samples process `pid`.
fn sample_process(pid: u32) -> Option<ProcessSample> {
    let mut sample = ProcessSample {
        at_ns: monotonic_ns(),
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
    sample.ticks = read_ticks(pid).unwrap_or_default();
    Some(sample)
}

/// Proportional set size of `pid` and its descendants: costs a walk over the page tables, so it is
/// read a few times per run only.
pub fn read_pss_bytes(pid: u32) -> Option<u64> {
    read_tree_memory(pid).map(|memory| memory.pss_bytes)
}

/// User and kernel time of `pid` and its descendants.
pub fn read_cpu_ticks(pid: u32) -> Option<CpuTicks> {
    tree(pid)
        .into_iter()
        .filter_map(read_ticks)
        .reduce(|a, b| CpuTicks {
            user: a.user + b.user,
            system: a.system + b.system,
        })
}

fn read_ticks(pid: u32) -> Option<CpuTicks> {
    parse_cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Samples the machine.
pub fn sample_machine(ksoftirqd: &Ksoftirqd, sides: &Sides) -> Option<MachineSample> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut sample = parse_machine(&stat, sides)?;
    sample.at_ns = monotonic_ns();
    sample.own_ns = sample_process(std::process::id())?.cpu_ns;
    sample.ksoftirqd = ksoftirqd.read(&sides.server);
    sample.throttling = Throttling::read();
    Some(sample)
}

/// Kernel memory now.
pub fn read_kernel_memory() -> Option<KernelMemory> {
    let sockstat = fs::read_to_string("/proc/net/sockstat").ok()?;
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let mut memory = parse_sockstat(&sockstat)?;
    let bytes = |key: &str| parse_field(&meminfo, key).map(|kib| kib * 1024);
    let looked_at =
        fs::read_to_string("/proc/slabinfo").map_or(0, |slabinfo| parse_proc_caches(&slabinfo));
    memory.slab_bytes = bytes("Slab:")?.saturating_sub(looked_at);
    memory.page_table_bytes = bytes("PageTables:")?;
    memory.stack_bytes = bytes("KernelStack:")?;
    let unused = bytes("MemFree:")? + bytes("Buffers:")? + bytes("Cached:")?;
    memory.used_bytes = bytes("MemTotal:")?.saturating_sub(unused + looked_at);
    memory.available_bytes = bytes("MemAvailable:");
    Some(memory)
}

/// Bytes of the inodes of `/proc` and of a directory entry for each, from `/proc/slabinfo`: a
/// monitor that walks `/proc/PID/fd` leaves one for each descriptor, measured: 0.9 KB per
/// connection; the kernel takes them back when it needs memory.
fn parse_proc_caches(slabinfo: &str) -> u64 {
    let row = |name: &str| -> Option<(u64, u64)> {
        let row = slabinfo
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))?;
        let mut numbers = row.split_whitespace().skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    let entry_bytes = row("dentry").map_or(0, |(_, bytes)| bytes);
    row("proc_inode_cache").map_or(0, |(inodes, bytes)| inodes * (bytes + entry_bytes))
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
pub(super) const NS_PER_TICK: u64 = 10_000_000;

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Number after `key` at the start of a line.
pub(crate) fn parse_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_statm_rss_pages(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` from the third on; counted from the closing parenthesis, because
/// a program's name may hold blanks.
pub(super) fn stat_fields(text: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, after_name) = text.rsplit_once(')')?;
    Some(after_name.split_ascii_whitespace())
}

/// Fields 14 and 15.
fn parse_cpu_ticks(text: &str) -> Option<CpuTicks> {
    let mut fields = stat_fields(text)?.skip(11);
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
        ..KernelMemory::default()
    })
}

fn parse_machine(text: &str, sides: &Sides) -> Option<MachineSample> {
    let mut lines = text.lines();
    let mut sample = MachineSample {
        all: parse_cpu(lines.next()?.strip_prefix("cpu ")?)?,
        ..MachineSample::default()
    };
    for line in lines {
        let Some((cpu, times)) = line
            .strip_prefix("cpu")
            .and_then(|line| line.split_once(' '))
        else {
            break;
        };
        let (cpu, time) = (cpu.parse().ok()?, parse_cpu(times)?);
        sample.all.cpus += 1;
        for (cpus, sum) in [
            (&sides.server, &mut sample.server),
            (&sides.generator, &mut sample.generator),
        ] {
            if cpus.contains(&cpu) {
                sum.cpus += 1;
                sum.idle_ns += time.idle_ns;
                sum.interrupts_ns += time.interrupts_ns;
                sum.steal_ns += time.steal_ns;
            }
        }
    }
    Some(sample)
}

/// The numbers of a `cpu` line: user, nice, system, idle, iowait, irq, softirq, steal (the rest is
/// in these).
fn parse_cpu(times: &str) -> Option<CpuTime> {
    let numbers = times.split_ascii_whitespace().map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let ns = |place: usize| Some(numbers.get(place)? * NS_PER_TICK);
    Some(CpuTime {
        cpus: 0,
        idle_ns: ns(3)? + ns(4)?,
        interrupts_ns: ns(5)? + ns(6)?,
        steal_ns: ns(7)?,
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
        let stat = "cpu  1 2 3 44 5 7 9 8 9 10\ncpu0 0 0 0 1 0 0 0 0 0 0\n\
                    cpu2 1 1 1 20 2 3 4 5 0 0\ncpu10 0 1 2 23 3 4 5 3 9 10\nintr 5\n";
        let sides = Sides {
            server: vec![2],
            generator: vec![0, 10],
        };
        let machine = parse_machine(stat, &sides).unwrap();
        let time = |cpus, idle: u64, interrupts: u64, steal: u64| CpuTime {
            cpus,
            idle_ns: idle * NS_PER_TICK,
            interrupts_ns: interrupts * NS_PER_TICK,
            steal_ns: steal * NS_PER_TICK,
        };
        assert_eq!(machine.all, time(3, 49, 16, 8));
        assert_eq!(machine.server, time(1, 22, 7, 5));
        assert_eq!(machine.generator, time(2, 27, 9, 3));
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
            assert_eq!(parse_machine(text, &Sides::default()), None);
            assert_eq!(parse_field(text, "Pss:"), None);
        }
    }

    #[test]
    fn our_own_process_can_be_read_and_a_missing_one_cannot() {
        let sample = sample_process(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 100_000 && sample.at_ns <= monotonic_ns());
        assert!(read_pss_bytes(std::process::id()).unwrap() > 0);
        assert!(read_cpu_ticks(std::process::id()).is_some());
        let machine = sample_machine(&Ksoftirqd::find(), &Sides::default()).unwrap();
        assert!(machine.all.cpus > 0 && machine.all.idle_ns > 0 && machine.own_ns > 0);
        let kernel = read_kernel_memory().unwrap();
        assert!(kernel.slab_bytes > 0 && kernel.used_bytes > kernel.kernel_bytes());
        assert_eq!(sample_process(u32::MAX), None);
        assert_eq!(sample_tree(u32::MAX), None);
        assert_eq!(read_tree_memory(u32::MAX), None);
    }

    #[test]
    fn children_are_part_of_the_tree() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(tree(own).contains(&child.id()));
        let both = read_tree_memory(own).unwrap();
        assert!(both.processes > 1 && both.pss_bytes <= both.rss_bytes);
        assert!(sample_tree(own).unwrap().rss_bytes > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!tree(own).contains(&child.id()));
    }

    #[test]
    fn what_proc_keeps_for_itself_is_told_from_the_rest() {
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\n\
                        proc_inode_cache   90    100    696   23    4 : tunables 0 0 0\n\
                        dentry            500    600    192   21    1 : tunables 0 0 0\n";
        assert_eq!(parse_proc_caches(slabinfo), 100 * (696 + 192));
        assert_eq!(parse_proc_caches(""), 0);
    }
}
