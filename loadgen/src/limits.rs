//! What the system allows this process.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

/// Descriptors this process needs besides its connections: standard streams, files, and per thread a ring and an eventfd.
const RESERVE: u64 = 32;
const PER_THREAD: u64 = 4;

/// Raises the soft limit of open files to the hard one; returns what is in force.
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        // Unknown is not a reason to refuse: a real lack shows as EMFILE with a message of its own.
        return u64::MAX;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

/// Refuses more connections than `open_files` descriptors can hold.
///
/// # Errors
/// The arithmetic, and what to do.
pub fn check_open_files(open_files: u64, connections: u64, threads: u64) -> Result<(), String> {
    let reserve = RESERVE + PER_THREAD * threads;
    let needed = connections + reserve;
    if needed <= open_files {
        return Ok(());
    }
    let most = open_files.saturating_sub(reserve);
    Err(format!(
        "{connections} connections need {needed} open files ({connections} + {reserve} for the process itself), but the limit \
         (RLIMIT_NOFILE, hard) is {open_files}: use at most -c {most}, raise the limit (`ulimit -Hn {needed}` as root, \
         LimitNOFILE= in systemd, --ulimit nofile= in docker), or run several loadgen processes"
    ))
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
pub fn ephemeral_ports() -> u64 {
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

/// CPUs this process may run on.
pub fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_shown() {
        assert_eq!(check_open_files(20_000, 19_000, 2), Ok(()));
        let error = check_open_files(20_000, 50_000, 2).unwrap_err();
        for part in ["50040", "20000", "-c 19960", "ulimit"] {
            assert!(error.contains(part), "{error}");
        }
    }

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
}
