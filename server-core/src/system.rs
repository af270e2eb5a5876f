//! What a server asks of the operating system before it serves: file limit, CPU affinity.

use std::io;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CpuSet, disable_transparent_huge_pages, sched_getaffinity, sched_setaffinity,
};

/// Keeps this process from getting transparent huge pages.
///
/// The allocator's arena is one large mapping, which the kernel would back with 2 MiB pages: idle
/// connections would then be charged with memory that nothing uses, and how much would depend on
/// luck.
pub fn use_small_pages() {
    // Without it only the footprint is larger.
    let _ = disable_transparent_huge_pages(true);
}

/// Raises the soft limit of open files to the hard one; returns the limit then in force.
///
/// Where even that fails the old limit stands and is returned: the server still works, for fewer
/// connections.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current
        }
    };
    in_force.unwrap_or(u64::MAX)
}

/// CPUs this process may run on, in ascending order.
///
/// # Errors
/// What `sched_getaffinity` said.
pub fn available_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

/// Confines the calling thread, and the threads it starts from now on, to the given CPUs.
///
/// # Errors
/// The kernel refuses them.
pub fn confine_thread(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPUs {cpus:?}"))
}

/// Whether `accept` failed because descriptors or memory ran out: wait
/// [`ACCEPT_PAUSE`](crate::options::ACCEPT_PAUSE) or until a connection closes, then try again.
/// Other errors concern one connection only.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_confined() {
        let cpus = available_cpus().unwrap();
        let last = *cpus.last().unwrap();
        std::thread::spawn(move || {
            confine_thread(&[last]).unwrap();
            assert_eq!(available_cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
        let error = confine_thread(&[1023]).unwrap_err();
        assert!(error.to_string().contains("CPUs [1023]"), "{error}");
    }

    #[test]
    fn the_file_limit_is_at_the_hard_limit_afterwards() {
        let in_force = raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.current.unwrap_or(u64::MAX), in_force);
    }

    #[test]
    fn out_of_descriptors_is_told_from_a_lost_connection() {
        use rustix::io::Errno;
        assert!(is_out_of_descriptors(&Errno::MFILE.into()));
        assert!(!is_out_of_descriptors(&Errno::CONNABORTED.into()));
    }
}
