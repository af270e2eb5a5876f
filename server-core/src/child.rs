//! `--child`: what the parent of several processes tells each of them on its command line.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// What the parent tells a child: `INDEX,PARENT,ADDRESS[,ADDRESS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Which of the processes it is, from 0.
    pub index: usize,
    /// Where all of them listen; ports are never 0.
    pub addresses: Vec<SocketAddr>,
    /// The process id of the parent.
    pub(crate) parent: i32,
}

impl Child {
    /// Has the kernel kill this process when its parent ends. `false` says that the parent is gone
    /// already.
    pub(crate) fn share_fate(&self) -> io::Result<bool> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended just before.
        Ok(Pid::as_raw(getppid()) == self.parent)
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.index, self.parent)?;
        let mut addresses = self.addresses.iter();
        addresses.try_for_each(|address| write!(f, ",{address}"))
    }
}

impl FromStr for Child {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(',');
            let child = Self {
                index: parts.next()?.parse().ok()?,
                parent: parts.next()?.parse().ok()?,
                addresses: parts.map(str::parse).collect::<Result<Vec<_>, _>>().ok()?,
            };
            (!child.addresses.is_empty()).then_some(child)
        };
        parse().ok_or("only a server started with --processes says this, to its children")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_is_told_reads_back() {
        for addresses in [vec!["127.0.0.1:8080"], vec!["[::1]:1", "[fe80::1%7]:1"]] {
            let told = Child {
                index: 51,
                parent: 4711,
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            };
            assert_eq!(told.to_string().parse(), Ok(told));
        }
        for text in ["", "1", "1,2", "1,2,3", "x,2,127.0.0.1:80"] {
            assert!(text.parse::<Child>().is_err(), "{text}");
        }
    }
}
