//! The processes of a child: itself, its descendants, and its session.
//!
//! A wrapper may start its server in the background and end without it. Such a server keeps its
//! port, and would answer the next run in the place of a fresh process. The shim makes each child
//! the subreaper of its descendants (prctl(2), `PR_SET_CHILD_SUBREAPER`): while it lives, whatever
//! it started, daemons with sessions of their own too, is below it in the tree. When it ends, what
//! is left is known from the last look, and from the session.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::proc;

/// A process, told from a later one with its number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// Clock ticks since boot.
    started: u64,
}

/// The family of a child.
#[derive(Debug)]
pub struct Family {
    leader: Process,
    /// Without the leader.
    seen: Vec<Process>,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    session: u32,
    started: u64,
}

impl Family {
    /// Of a child that leads a session.
    pub fn of(pid: u32) -> Self {
        let started = stat(pid).map_or(0, |stat| stat.started);
        Self {
            leader: Process { pid, started },
            seen: Vec::new(),
        }
    }

    /// Notes who belongs to it now.
    pub fn look(&mut self) {
        let leader = self.leader.pid;
        if stat(leader).is_some_and(|stat| stat.started != self.leader.started) {
            // It has ended, and the number is another's, which the kernel gives only when the
            // session is over too.
            return;
        }
        let all = proc::tree(leader).into_iter().chain(session(leader));
        for pid in all.filter(|pid| *pid != leader) {
            if let Some(Stat { started, .. }) = stat(pid) {
                let process = Process { pid, started };
                if !self.seen.contains(&process) {
                    self.seen.push(process);
                }
            }
        }
    }

    /// Kills all but the leader. How many are still there.
    pub fn kill_the_rest(&mut self) -> usize {
        self.look();
        self.seen.retain(|process| process.is_alive());
        for process in &self.seen {
            process.kill();
        }
        self.seen.len()
    }
}

impl Process {
    /// A zombie whose threads have all ended holds nothing any more.
    fn is_alive(self) -> bool {
        let threads =
            || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        stat(self.pid).is_some_and(|stat| {
            stat.started == self.started && (!matches!(stat.state, 'Z' | 'X') || threads() > 1)
        })
    }

    fn kill(self) {
        let Some(pid) = Pid::from_raw(self.pid as i32) else {
            return;
        };
        // From here on the handle is of one process, whoever has the number later.
        if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            && self.is_alive()
        {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

/// The processes of a session.
fn session(leader: u32) -> impl Iterator<Item = u32> {
    proc::processes(Path::new("/proc"))
        .filter(move |pid| stat(*pid).is_some_and(|stat| stat.session == leader))
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, 6 and 22.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = proc::stat_fields(text)?.collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_session_and_start_are_read_after_the_name() {
        let text = "42 (a b) c) S 1 2 33 4 5 6 7 8 9 10 11 12 0 0 20 0 1 0 777 5 6\n";
        let expected = Stat {
            state: 'S',
            session: 33,
            started: 777,
        };
        assert_eq!(parse(text), Some(expected));
        for garbage in ["", ")", "42 (a) S 1 2", "42 (a) S x y z"] {
            assert_eq!(parse(garbage), None);
        }
    }

    #[test]
    fn one_with_the_number_of_another_is_left_alone() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let started = stat(pid).unwrap().started;
        let process = |started| Process { pid, started };
        process(started + 1).kill();
        assert!(!process(started + 1).is_alive() && process(started).is_alive());
        process(started).kill();
        child.wait().unwrap();
        assert!(!process(started).is_alive());
    }
}
