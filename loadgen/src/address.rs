//! Where a target is: an address of TCP, or the path of a Unix socket.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr};

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// Of TCP.
    Ip(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// The address of TCP, if it is one: only there are ports and source addresses.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// True when both ends of a connection to it are on this machine.
    pub fn is_local(&self) -> bool {
        self.ip()
            .is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// The family of its sockets.
    pub fn domain(&self) -> Domain {
        self.ip().map_or(Domain::UNIX, Domain::for_address)
    }

    /// As the kernel takes it.
    ///
    /// # Errors
    /// The path is too long.
    pub fn to_socket_address(&self) -> io::Result<SockAddr> {
        match self {
            Self::Ip(address) => Ok((*address).into()),
            Self::Unix(path) => SockAddr::unix(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
