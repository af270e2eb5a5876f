//! What a server asks of the operating system before it serves: file limit, CPU affinity, listening
//! sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CpuSet, disable_transparent_huge_pages, sched_getaffinity, sched_setaffinity,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Queue of connections not yet accepted; the kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: u32 = 65_535;

/// Why a server could not get ready. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// Somebody listens there already.
    #[error(
        "{address} is in use: another process listens there; stop it (`ss -ltnp` names it) or choose another --listen (port 0 takes a free one)"
    )]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port is a privileged one.
    #[error(
        "not allowed to listen on {address}: choose a port from 1024 up in --listen, or run with CAP_NET_BIND_SERVICE"
    )]
    NotAllowed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address is not one of this machine's.
    #[error(
        "{address} is not an address of this machine: choose another --listen (`ip addr` lists them)"
    )]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else that went wrong with the listener.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A CPU could not be pinned to.
    #[error("cannot run on CPUs {cpus:?}: {source}")]
    Affinity {
        /// The CPUs asked for.
        cpus: Vec<usize>,
        /// What the kernel said.
        source: io::Error,
    },
}

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
/// [`SystemError::Affinity`].
pub fn confine_thread(cpus: &[usize]) -> Result<(), SystemError> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| SystemError::Affinity {
        cpus: cpus.to_vec(),
        source: error.into(),
    })
}

/// Opens `count` non-blocking listening sockets on one address: 1 plain one, or several that share
/// the port by `SO_REUSEPORT`. Port 0 is resolved once, for all of them. Accepted sockets inherit
/// `TCP_NODELAY`.
///
/// # Errors
/// The listener variants of [`SystemError`]. A port on which another process listens is refused
/// even where `SO_REUSEPORT` would let us share it.
pub fn listen(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, SystemError> {
    if count > 1 {
        let port = reserve(address)?;
        return listen_shared(port.address, count);
    }
    let socket = bind(address, false).and_then(start_listening);
    Ok(vec![socket.map_err(|error| explain(address, error))?])
}

/// A port that is ours to share. As nobody listens on this socket, the kernel gives it no
/// connections.
#[derive(Debug)]
pub struct ReservedPort {
    /// Never with port 0.
    pub address: SocketAddr,
    _socket: Socket,
}

/// Takes a port for sockets of [`listen_shared`], in this process and in its children.
///
/// # Errors
/// Those of [`listen`].
pub fn reserve(address: SocketAddr) -> Result<ReservedPort, SystemError> {
    let explain = |error| explain(address, error);
    if address.port() != 0 {
        // Closed again at once: only asks whether the port is free of others.
        bind(address, false).map_err(explain)?;
    }
    let socket = bind(address, true).map_err(explain)?;
    let bound = socket.local_addr().map_err(explain)?.as_socket();
    Ok(ReservedPort {
        address: bound.ok_or_else(|| explain(io::ErrorKind::Unsupported.into()))?,
        _socket: socket,
    })
}

/// Opens `count` sockets like those of [`listen`] on a [reserved](reserve) port.
///
/// # Errors
/// The listener variants of [`SystemError`].
pub fn listen_shared(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, SystemError> {
    let sockets: io::Result<Vec<_>> = (0..count).map(|_| bind(address, true)).collect();
    // All are bound before the first listens, so that none gets the connections of the others.
    let listening = sockets.and_then(|all| all.into_iter().map(start_listening).collect());
    listening.map_err(|error| explain(address, error))
}

fn start_listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(LISTEN_BACKLOG as i32)?;
    Ok(socket.into())
}

fn explain(address: SocketAddr, source: io::Error) -> SystemError {
    match source.kind() {
        io::ErrorKind::AddrInUse => SystemError::AddressInUse { address },
        io::ErrorKind::PermissionDenied => SystemError::NotAllowed { address },
        io::ErrorKind::AddrNotAvailable => SystemError::NotLocal { address },
        _ => SystemError::Listen { address, source },
    }
}

fn bind(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    // Linux hands this on to every accepted socket, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let listener = listen(any_port(), 1).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(SockRef::from(&accepted).tcp_nodelay().unwrap());
    }

    #[test]
    fn several_listeners_share_one_port() {
        let listeners = listen(any_port(), 3).unwrap();
        let ports: Vec<_> = listeners
            .iter()
            .map(|l| l.local_addr().unwrap().port())
            .collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, [ports[0]; 3]);
    }

    #[test]
    fn a_port_in_use_is_refused_even_when_it_could_be_shared() {
        for held in [1, 2] {
            let holders = listen(any_port(), held).unwrap();
            let address = holders[0].local_addr().unwrap();
            for wanted in [1, 2] {
                let error = listen(address, wanted).unwrap_err();
                assert!(matches!(error, SystemError::AddressInUse { .. }), "{error}");
                assert!(error.to_string().contains("--listen"));
            }
        }
    }

    #[test]
    fn a_reserved_port_gets_no_connection_of_its_own() {
        let port = reserve(any_port()).unwrap();
        TcpStream::connect(port.address).unwrap_err();
        let listener = listen_shared(port.address, 1).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let clients: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(port.address).unwrap())
            .collect();
        for _ in &clients {
            listener.accept().unwrap();
        }
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let error = listen("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, SystemError::NotLocal { .. }), "{error}");
    }

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
        assert!(matches!(
            confine_thread(&[1023]),
            Err(SystemError::Affinity { .. })
        ));
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
