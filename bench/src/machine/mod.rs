//! The facts and limits of this computer, read once at the start, and its `/proc` during runs.

pub mod ask;
pub mod cgroup;
pub mod cpus;
pub mod family;
pub mod ksoftirqd;
pub mod limits;
pub mod listener;
pub mod lock;
pub mod perf;
pub mod preflight;
pub mod priority;
pub mod proc;
pub mod same;
pub mod topology;

pub use cpus::CpuSet;
pub use topology::Topology;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use loadgen::preflight::{Refusal, io_uring};
use serde::{Deserialize, Serialize};

use proc::{parse_field, read_value};

/// Settings of the kernel that shape a result.
const SYSCTLS: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.io_uring_group",
    "kernel.sched_autogroup_enabled",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "vm.overcommit_memory",
];

/// The machine's facts. A fact that cannot be read is `None` or missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Host name, or what `--machine` said.
    pub name: String,
    /// `Linux 6.18.0 x86_64`.
    pub kernel: String,
    /// Model of the first CPU.
    pub cpu_model: Option<String>,
    /// Runs under a hypervisor.
    pub virtual_machine: Option<bool>,
    /// CPUs this process may use.
    pub cpus: Option<CpuSet>,
    /// Their cores; none in older results.
    #[serde(default)]
    pub topology: Topology,
    /// Memory in all.
    pub memory_bytes: Option<u64>,
    /// Memory that could be had at the start.
    pub memory_available_bytes: Option<u64>,
    /// CPUs that others kept busy at the start, measured for a moment.
    pub busy_cpus: Option<f64>,
    /// Load average over one minute (a build just before shows here).
    pub load_1min: Option<f64>,
    /// Frequency governor of CPU 0.
    pub governor: Option<String>,
    /// Clock source of the kernel.
    pub clocksource: Option<String>,
    /// Most open files a process may raise itself to; `None`: no limit.
    pub nofile_hard: Option<u64>,
    /// Files open on the whole machine at the start (`fs.file-nr`).
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Connection tracking sees loopback connections: tried with one. `None`: there is no
    /// connection tracking.
    #[serde(default)]
    pub conntrack_in_force: Option<bool>,
    /// The kernel accounts the time of interrupts apart from that of processes; `None`: its
    /// configuration cannot be read.
    #[serde(default)]
    pub interrupts_accounted_apart: Option<bool>,
    /// What the kernel said when a ring was tried, if it refused one.
    #[serde(default)]
    pub io_uring_refused: Option<Refusal>,
    /// A seccomp filter is in force.
    pub seccomp: Option<bool>,
    /// Per-thread CPU time in ns is available (`/proc/PID/task/*/schedstat`).
    pub schedstat: bool,
    /// User id is 0.
    pub root: bool,
    /// Nice value that servers and generator get; `None`: that of the referee, because this
    /// user may not raise it.
    #[serde(default)]
    pub run_nice: Option<i32>,
    /// Queueing discipline of the loopback interface.
    pub loopback_qdisc: Option<String>,
    /// MTU of the loopback interface.
    pub loopback_mtu: Option<u64>,
    /// Limits of our control group (`cpu.max`, `memory.max`, `cpuset.cpus.effective`).
    pub cgroup: BTreeMap<String, String>,
    /// The tightest CPU quota of our control group and its parents.
    #[serde(default)]
    pub cpu_quota: Option<cgroup::Quota>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Mitigations of CPU flaws, which decide what a system call costs.
    pub cpu_vulnerabilities: BTreeMap<String, String>,
}

impl Machine {
    /// Reads this machine, `name` instead of the host name if given. Takes a moment to see what
    /// else runs.
    pub fn read(name: Option<&str>) -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let cpuinfo = read_value("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read_value("/proc/meminfo").unwrap_or_default();
        let memory = |key: &str| parse_field(&meminfo, key).map(|kib| kib * 1024);
        let cpus = CpuSet::allowed().ok();
        let topology = cpus
            .as_ref()
            .map(|cpus| Topology::read(Path::new("/"), cpus));
        Self {
            name: name.map_or_else(|| text(uname.nodename()), str::to_owned),
            kernel: format!(
                "{} {} {}",
                text(uname.sysname()),
                text(uname.release()),
                text(uname.machine())
            ),
            cpu_model: cpuinfo_value(&cpuinfo, "model name"),
            virtual_machine: cpuinfo_value(&cpuinfo, "flags")
                .map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            topology: topology.unwrap_or_default(),
            cpus,
            memory_bytes: memory("MemTotal:"),
            memory_available_bytes: memory("MemAvailable:"),
            busy_cpus: measure_busy_cpus(),
            load_1min: read_value("/proc/loadavg")
                .and_then(|text| text.split(' ').next()?.parse().ok()),
            governor: read_value("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clocksource: read_value(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
            nofile_hard: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
            open_files: read_value("/proc/sys/fs/file-nr")
                .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok()),
            conntrack_in_force: is_tracked(),
            interrupts_accounted_apart: interrupts_accounted_apart(&text(uname.release())),
            io_uring_refused: io_uring().err(),
            seccomp: read_value("/proc/self/status")
                .and_then(|status| parse_field(&status, "Seccomp:"))
                .map(|mode| mode != 0),
            schedstat: Path::new("/proc/self/schedstat").exists(),
            root: rustix::process::geteuid().is_root(),
            run_nice: priority::available(),
            loopback_qdisc: ask::first_line("ip", &["-o", "link", "show", "lo"])
                .and_then(|line| word_after(&line, "qdisc")),
            loopback_mtu: read_value("/sys/class/net/lo/mtu").and_then(|mtu| mtu.parse().ok()),
            cgroup: cgroup_limits(),
            cpu_quota: cgroup::Groups::find(Path::new("/")).quota(),
            sysctls: SYSCTLS
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), sysctl(key)?)))
                .collect(),
            cpu_vulnerabilities: files_of("/sys/devices/system/cpu/vulnerabilities"),
        }
    }

    /// A kernel setting as a number.
    pub fn sysctl_number(&self, key: &str) -> Option<u64> {
        self.sysctls.get(key)?.parse().ok()
    }

    /// Socket buffers from which on the kernel saves memory: the second number of
    /// `net.ipv4.tcp_mem`, in pages.
    pub fn memory_pressure_bytes(&self) -> Option<u64> {
        let limits = self.sysctls.get("net.ipv4.tcp_mem")?;
        let pages: u64 = limits.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }
}

/// Reads the kernel's configuration, in one of its two places.
fn interrupts_accounted_apart(release: &str) -> Option<bool> {
    let zipped = ask::ask("zcat", &["/proc/config.gz"]).ok();
    let config = zipped.or_else(|| read_value(format!("/boot/config-{release}")))?;
    Some(
        config
            .lines()
            .any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y"),
    )
}

fn sysctl(key: &str) -> Option<String> {
    read_value(Path::new("/proc/sys").join(key.replace('.', "/")))
        .map(|value| value.replace('\t', " "))
}

fn cpuinfo_value(cpuinfo: &str, key: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn word_after(line: &str, word: &str) -> Option<String> {
    line.split_ascii_whitespace()
        .skip_while(|candidate| *candidate != word)
        .nth(1)
        .map(str::to_owned)
}

/// Version 2 of control groups; the limits of the group we are in, not of its parents.
fn cgroup_limits() -> BTreeMap<String, String> {
    let membership = read_value("/proc/self/cgroup").unwrap_or_default();
    let group = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let folder = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    ["cpu.max", "cpuset.cpus.effective", "memory.max", "pids.max"]
        .iter()
        .filter_map(|file| Some(((*file).to_owned(), read_value(folder.join(file))?)))
        .collect()
}

fn files_of(folder: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            Some((
                entry.file_name().into_string().ok()?,
                read_value(entry.path())?,
            ))
        })
        .collect()
}

/// Whether connection tracking counts a connection over loopback: the module may be loaded without
/// a rule that uses it.
fn is_tracked() -> Option<bool> {
    let count = "/proc/sys/net/netfilter/nf_conntrack_count";
    read_value(count)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let _connection = std::net::TcpStream::connect(listener.local_addr().ok()?).ok()?;
    Some(read_value(count)?.parse::<u64>().ok()? > 0)
}

/// CPUs busy over 300 ms, ourselves asleep.
fn measure_busy_cpus() -> Option<f64> {
    let (busy_before, all_before) = cpu_ticks(&read_value("/proc/stat")?)?;
    std::thread::sleep(Duration::from_millis(300));
    let (busy_after, all_after) = cpu_ticks(&read_value("/proc/stat")?)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let all = all_after
        .checked_sub(all_before)
        .filter(|ticks| *ticks > 0)?;
    Some(busy_after.saturating_sub(busy_before) as f64 / all as f64 * cpus)
}

/// Ticks not idle, and all ticks.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: u64 = ticks.iter().sum();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(Some("here"));
        assert_eq!(machine.name, "here");
        assert!(machine.kernel.starts_with("Linux "));
        assert!(machine.memory_bytes.unwrap() > machine.memory_available_bytes.unwrap());
        assert!(
            machine
                .sysctls
                .contains_key("net.ipv4.tcp_congestion_control")
        );
        assert!(!machine.cpus.unwrap().is_empty());
    }

    #[test]
    fn parsers_of_text() {
        assert_eq!(cpu_ticks("cpu  10 0 5 80 5 0 0 0 0 0\n"), Some((15, 100)));
        assert_eq!(cpu_ticks("intr 1\n"), None);
        let line = "1: lo: <LOOPBACK> mtu 65536 qdisc noqueue state UNKNOWN";
        assert_eq!(word_after(line, "qdisc").as_deref(), Some("noqueue"));
        assert_eq!(
            cpuinfo_value("processor : 0\nmodel name\t: AMD EPYC\n", "model name").as_deref(),
            Some("AMD EPYC")
        );
    }
}
