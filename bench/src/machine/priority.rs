//! Raises the scheduling priority of runs, if the user has permission.
//!
//! A daemon that watches a machine often has a higher priority than other programs, and one that
//! lists the open files of a server with 250,000 connections delayed one message in a hundred by 80
//! ms (and by less than 2 ms with this; n = 5).
//!
//! Where the kernel shares a CPU out among sessions first (`kernel.sched_autogroup_enabled`,
//! sched(7)), the nice value of a process says nothing beyond its session, so server, generator and
//! referee get a session of their own each, and each session the same value: a referee that waited
//! for its generator would look at the server late.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process, setsid};

/// The priority of such a daemon, and no higher: at -20 the kernel, clearing up after a process
/// that had ended, spun for minutes, waiting for a daemon that the spinning kept from the CPU.
const NICE: i32 = -10;
/// Name and nice value of the session of the process that reads it: `/autogroup-1 nice 0`.
const SESSION: &str = "/proc/self/autogroup";
/// Unless by root, the values of sessions are changed no more than ten times per second on the
/// whole machine.
const TRIES: usize = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The nice value that runs get; `None`: this user may not raise it. Tried for a moment, by a
/// thread that ends.
pub fn available() -> Option<i32> {
    let tried = thread::spawn(|| {
        setpriority_process(None, NICE)?;
        match fs::read_to_string(SESSION) {
            Ok(session) => set_session(session.split(' ').next_back().unwrap_or_default().trim()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    });
    tried.join().ok()?.ok().map(|()| NICE)
}

/// Whether this process has it already.
pub fn is_taken() -> bool {
    getpriority_process(None).is_ok_and(|nice| nice <= NICE)
}

/// A session of its own for this process and all that it starts, with this nice value.
///
/// # Errors
/// When this process leads a group, or the kernel does not allow the value.
pub fn take(nice: Option<i32>) -> io::Result<()> {
    setsid()?;
    let Some(nice) = nice else {
        return Ok(());
    };
    setpriority_process(None, nice)?;
    match set_session(&nice.to_string()) {
        // All sessions are one.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        set => set,
    }
}

fn set_session(nice: &str) -> io::Result<()> {
    let mut tries = 1..TRIES;
    loop {
        let written = File::options()
            .write(true)
            .open(SESSION)
            .and_then(|mut session| session.write_all(nice.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock && tries.next().is_some() => {
                thread::sleep(BETWEEN_TRIES);
            }
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing() {
        let before = || {
            let session = fs::read_to_string(SESSION).ok();
            (session, rustix::process::getpriority_process(None).ok())
        };
        let (first, _) = (before(), available());
        assert_eq!(before(), first);
    }
}
