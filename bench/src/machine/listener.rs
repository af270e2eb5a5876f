//! Whose socket listens at an address: a server that an earlier run left behind keeps its port, and
//! one that listens with `SO_REUSEPORT` even takes a share of the connections.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::proc::processes;

/// The state of a listening socket in `/proc/net/tcp` (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// These processes alone, or nobody.
    Own,
    /// Somebody else; the words name the process where that can be seen.
    Other(String),
    /// The kernel does not show the descriptors of these processes to this user.
    Unseen,
}

/// Who listens at `address`, these processes or another one.
pub fn of(address: SocketAddr, processes: &[u32]) -> Listener {
    let mut inodes = listening(address);
    for pid in processes {
        match sockets(*pid) {
            Ok(own) => inodes.retain(|inode| !own.contains(inode)),
            Err(ErrorKind::PermissionDenied) => return Listener::Unseen,
            // It has ended.
            Err(_) => {}
        }
    }
    match inodes.first() {
        None => Listener::Own,
        Some(inode) => Listener::Other(holder(*inode)),
    }
}

/// Inodes of the sockets that connections to `address` may go to: those bound to it, or else those
/// bound to all addresses.
fn listening(address: SocketAddr) -> Vec<u64> {
    let read = |path| File::open(path).into_iter().map(BufReader::new);
    let lines = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(read)
        // All that listen come first; there may be a million others.
        .flat_map(|file| {
            let rows = file.lines().skip(1).map_while(Result::ok);
            rows.map_while(|row| parse(&row))
        });
    of_address(lines, address)
}

fn of_address(rows: impl Iterator<Item = (SocketAddr, u64)>, address: SocketAddr) -> Vec<u64> {
    let (mut exact, mut wildcard) = (Vec::new(), Vec::new());
    for (bound, inode) in rows.filter(|(bound, _)| bound.port() == address.port()) {
        let ip = bound.ip();
        if ip.to_canonical() == address.ip().to_canonical() {
            exact.push(inode);
        } else if ip.is_unspecified() && (ip.is_ipv6() || address.is_ipv4()) {
            wildcard.push(inode);
        }
    }
    if exact.is_empty() { wildcard } else { exact }
}

/// Local address and inode of a listening socket; `None` of any other.
fn parse(row: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != LISTEN {
        return None;
    }
    // Words in the byte order of the machine.
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::from(Ipv4Addr::from(bytes)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip, port), fields.get(9)?.parse().ok()?))
}

/// Inodes of the sockets that a process holds.
fn sockets(pid: u32) -> Result<BTreeSet<u64>, ErrorKind> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.kind())?;
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    };
    Ok(descriptors.flatten().filter_map(inode).collect())
}

/// `process 42 (nginx)`.
fn holder(inode: u64) -> String {
    let mut pids = processes(Path::new("/proc"));
    let found = pids.find(|pid| sockets(*pid).is_ok_and(|sockets| sockets.contains(&inode)));
    found.map_or_else(
        || "a process that this user cannot see".to_owned(),
        |pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_of_those_who_hold_its_descriptor() {
        for ip in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(socket) = TcpListener::bind(ip) else {
                eprintln!("skipped {ip}: this machine has no such address");
                continue;
            };
            let port = socket.local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let own = std::process::id();
            assert_eq!(of(address, &[own]), Listener::Own, "{ip}");
            let Listener::Other(who) = of(address, &[]) else {
                panic!("nobody listens at {ip}");
            };
            assert!(who.contains(&format!("process {own} (")), "{who}");
            drop(socket);
            assert_eq!(of(address, &[]), Listener::Own, "nobody");
        }
    }

    #[test]
    fn rows_are_read_as_the_kernel_writes_them() {
        // As on x86; the words are in the byte order of the machine.
        if cfg!(target_endian = "big") {
            return;
        }
        let v4 =
            "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1";
        assert_eq!(parse(v4), Some(("127.0.0.1:8080".parse().unwrap(), 77)));
        let v6 = "1: 00000000000000000000000001000000:1F90 0:0 0A 0:0 0:0 0 0 0 78 1";
        assert_eq!(parse(v6), Some(("[::1]:8080".parse().unwrap(), 78)));
        for other in [v4.replace(" 0A ", " 01 "), String::new(), "a b c d".into()] {
            assert_eq!(parse(&other), None);
        }
        let rows = [("0.0.0.0:80", 1), ("127.0.0.1:80", 2), ("127.0.0.1:81", 3)];
        let rows = rows.map(|(address, inode)| (address.parse().unwrap(), inode));
        let of = |address: &str| of_address(rows.into_iter(), address.parse().unwrap());
        assert_eq!(
            of("127.0.0.1:80"),
            [2],
            "the exact one gets the connections"
        );
        assert_eq!(of("127.0.0.2:80"), [1]);
        assert_eq!(of("[::1]:80"), [0; 0]);
    }
}
