//! What a process uses, as `/proc` tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use super::client::Address;

/// CPU time used so far, user and system, of all threads.
#[track_caller]
pub fn cpu_time(pid: u32) -> Duration {
    let stat = read(&format!("/proc/{pid}/stat"));
    // Fields 14 and 15 of proc_pid_stat(5); the name in field 2 may hold blanks but ends with ')'.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<u64>().ok())
        .sum();
    // USER_HZ is 100 on every Linux architecture Rust supports.
    Duration::from_millis(ticks * 10)
}

/// Connections to a server's address of which somebody holds the server's end, with a descriptor or
/// without one.
#[track_caller]
pub fn open_sockets(address: &Address) -> usize {
    let address = match address {
        Address::Tcp(address) => address,
        Address::Unix(path) => {
            // Number, three that do not matter, type, state (3: connected), inode, path, which an
            // accepted socket has from its listener.
            let end = format!(" {}", path.display());
            let held =
                |line: &&str| line.ends_with(&end) && line.split_whitespace().nth(5) == Some("03");
            return read("/proc/net/unix").lines().filter(held).count();
        }
    };
    let table = if address.is_ipv6() {
        "/proc/net/tcp6"
    } else {
        "/proc/net/tcp"
    };
    let text = read(table);
    let port = format!(":{:04X}", address.port());
    // Number, local and remote address, state, three that do not matter, user, timeouts, inode. It
    // is 0 once nobody holds the socket.
    let held = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, local, _, state, _, _, _, _, _, inode, ..] => {
            (local.ends_with(&port) && state != "0A" && inode != "0").then(|| inode.to_owned())
        }
        _ => None,
    };
    // A set: a line may come twice when the table changes while it is read.
    text.lines().filter_map(held).collect::<BTreeSet<_>>().len()
}

/// CPU time used so far by each thread, by thread id, in nanoseconds (no ticks:
/// `/proc/PID/task/TID/schedstat`).
#[track_caller]
pub fn thread_cpu_times(pid: u32) -> BTreeMap<String, u64> {
    let cpu_of = |thread: &fs::DirEntry| {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse().ok()
    };
    let named = |thread: fs::DirEntry| {
        Some((
            thread.file_name().to_string_lossy().into_owned(),
            cpu_of(&thread)?,
        ))
    };
    let threads = list(&format!("/proc/{pid}/task"));
    threads.filter_map(Result::ok).filter_map(named).collect()
}

/// Number of open file descriptors.
#[track_caller]
pub fn open_files(pid: u32) -> usize {
    list(&format!("/proc/{pid}/fd")).count()
}

/// Resident memory in bytes.
#[track_caller]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = read(&format!("/proc/{pid}/status"));
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    let kib = line.split_whitespace().next();
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Whether there is such a process, and it has not ended (a zombie has).
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    after_name.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}

#[track_caller]
fn list(path: &str) -> fs::ReadDir {
    fs::read_dir(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}
