//! What the system allows this process.

use std::{fs, path::Path};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

/// What there is to plan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemLimits {
    /// CPUs this process may run on.
    pub cpus: usize,
    /// Ports the kernel chooses from for one pair of addresses.
    pub ports: u64,
    /// Most descriptors of one process.
    pub open_files: u64,
    /// Descriptors of all processes: in use, and at most; where the system tells.
    pub system_files: Option<(u64, u64)>,
    /// Memory that can be had; where the system tells.
    pub available_bytes: Option<u64>,
}

impl SystemLimits {
    /// This one. Raises the soft limit of open files to the hard one.
    pub fn this() -> Self {
        Self {
            cpus: available_cpus(),
            ports: ephemeral_ports(),
            open_files: raise_open_files(),
            system_files: fs::read_to_string("/proc/sys/fs/file-nr")
                .ok()
                .and_then(|text| file_numbers(&text)),
            available_bytes: available_bytes(),
        }
    }
}

/// Raises the soft limit of open files to the hard one; returns what is in force.
fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        // Unknown is not a reason to refuse: a real lack shows as EMFILE with a message of its own.
        return u64::MAX;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

/// Refuses a CPU that this process may not run on.
///
/// # Errors
/// Which one, and what may be used.
pub fn check_cpus(wanted: &[usize]) -> Result<(), String> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        // Unknown is not a reason to refuse: pinning says it.
        return Ok(());
    };
    let is_allowed = |cpu: usize| allowed.is_set(cpu).unwrap_or(false);
    let Some(cpu) = wanted.iter().find(|cpu| !is_allowed(**cpu)) else {
        return Ok(());
    };
    let usable: Vec<String> = (0..CpuSet::count())
        .filter(|cpu| is_allowed(*cpu))
        .map(|cpu| cpu.to_string())
        .collect();
    Err(format!(
        "--cpus names CPU {cpu}, which this process may not use (taskset, cgroup): it may use {}",
        usable.join(",")
    ))
}

/// How many ports the kernel chooses from for one pair of addresses.
fn ephemeral_ports() -> u64 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| port_range(&text))
        .unwrap_or(28_232)
}

fn port_range(text: &str) -> Option<u64> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    last.checked_sub(first).map(|ports| ports + 1)
}

/// Allocated, (unused,) at most.
fn file_numbers(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (allocated, _, most) = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    Some((allocated, most))
}

/// What the machine has left, or this process's control group if that is less.
fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = available_in(&text)?;
    Some(group_bytes().map_or(machine, |group| group.min(machine)))
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// The least that any group above this process has left. Version 2 of control groups only.
fn group_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(path);
    let number = |group: &Path, name| -> Option<u64> {
        fs::read_to_string(group.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    own.ancestors()
        .take_while(|group| group.starts_with("/sys/fs/cgroup"))
        .filter_map(|group| {
            // "max" is no number: no limit.
            let most = number(group, "memory.max")?;
            let used = number(group, "memory.current")?;
            Some(most.saturating_sub(used.saturating_sub(idle_cache(group))))
        })
        .min()
}

/// File pages of a group that nobody has used lately: given up when memory is wanted.
fn idle_cache(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("inactive_file "))
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

/// CPUs this process may run on.
fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_ours_is_refused() {
        assert_eq!(check_cpus(&[]), Ok(()));
        let error = check_cpus(&[1000]).unwrap_err();
        assert!(error.contains("CPU 1000"), "{error}");
    }

    #[test]
    fn reads_the_port_range() {
        assert_eq!(port_range("32768\t60999\n"), Some(28_232));
        assert_eq!(port_range("x"), None);
        assert!(ephemeral_ports() > 0);
    }

    #[test]
    fn reads_what_the_system_has_left() {
        assert_eq!(file_numbers("1344\t0\t2466193\n"), Some((1_344, 2_466_193)));
        assert_eq!(file_numbers("1344"), None);
        let meminfo = "MemTotal:       24684212 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(available_in(meminfo), Some(23_000_000 * 1024));
        assert!(
            SystemLimits::this()
                .available_bytes
                .is_some_and(|bytes| bytes > 0)
        );
    }
}
