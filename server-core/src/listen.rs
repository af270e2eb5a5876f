//! `--listen`: what people write, the addresses it means on this machine, and the sockets there.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_socket_linger;
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{Address, UNIX};

/// Queue of connections not yet accepted; the kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: u32 = 65_535;
/// Bytes that a socket takes before the peer has room for them (`TCP_NOTSENT_LOWAT`, tcp(7)); it
/// takes more when half of them are on their way. Without a bound the kernel takes up to 4 MiB, and
/// more only when a third of that is gone: a peer that reads 256 KiB a second would look as if it
/// did not read for five seconds.
const NOT_SENT_BYTES: u32 = 64 * 1024;
/// Ports that are tried where one must be free on several addresses.
const PORT_ATTEMPTS: usize = 64;

/// One `--listen` as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenOn {
    /// A name or an IP address, and a port.
    Port {
        /// Without brackets; an IPv6 address may carry a zone (`fe80::1%eth0`).
        host: String,
        /// 0 takes a free one.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenOn {
    /// What to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(UNIX) {
            Some("") => return Err("a Unix socket has a path: unix:/run/ringside.sock".into()),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!(
                "an IPv6 address stands in brackets, with a port behind it: [{text}]:8080"
            ));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some(parts) if !text.ends_with(']') => parts,
            None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => ("", text),
            _ => {
                return Err(format!(
                    "`{text}` has no port: write HOST:PORT (localhost:8080, 127.0.0.1:8080, \
                     [::1]:8080), or a port alone for 127.0.0.1"
                ));
            }
        };
        let Ok(port) = port.parse() else {
            return Err(format!("`{port}` is not a port: 0 to 65535"));
        };
        let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match (inside, host) {
            (Some(address), _) if is_ipv6(address) => address,
            (None, "") => "127.0.0.1",
            (None, name) if name.contains(':') && is_ipv6(name) => {
                return Err(format!(
                    "an IPv6 address stands in brackets: [{name}]:{port}"
                ));
            }
            (None, name) if name.chars().all(is_of_a_name) => name,
            (None, "*") => {
                return Err(format!(
                    "for every address of this machine write [::]:{port} (IPv4 and IPv6) or \
                     0.0.0.0:{port} (IPv4)"
                ));
            }
            (_, wrong) => {
                return Err(format!(
                    "`{wrong}` is neither a name nor an IP address: write HOST:PORT \
                     (localhost:8080, 127.0.0.1:8080, [::1]:8080)"
                ));
            }
        };
        let host = host.to_owned();
        Ok(Self::Port { host, port })
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Port { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty()
}

fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || "-._".contains(character)
}

impl ListenOn {
    /// The addresses it means: one for an IP address or a path, all of this machine's for a name.
    ///
    /// A name may have addresses that this machine lacks (`localhost` is often also `::1` where
    /// there is no IPv6): they are left out, with a warning, if another remains.
    ///
    /// # Errors
    /// The name or the zone is unknown here.
    pub fn addresses(&self) -> Result<Vec<Address>, ListenError> {
        Ok(match self {
            Self::Port { host, port } => {
                let all = self.ip_addresses(host, *port)?.into_iter();
                all.map(Address::Ip).collect()
            }
            Self::Unix(path) => vec![Address::Unix(path.clone())],
        })
    }

    fn ip_addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
        let unknown = |reason: String| ListenError::Unknown {
            listen: self.clone(),
            reason,
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![(ip, port).into()]);
        }
        if let Some((ip, zone)) = host.split_once('%') {
            let ip = ip.parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
            let scope = match zone.parse() {
                Ok(index) => index,
                Err(_) => interface(zone).map_err(|_| {
                    unknown(format!(
                        "there is no interface `{zone}` (`ip link` lists them)"
                    ))
                })?,
            };
            return Ok(vec![SocketAddrV6::new(ip, port, 0, scope).into()]);
        }
        let found = (host, port).to_socket_addrs();
        let all = without_repetition(found.map_err(|error| unknown(error.to_string()))?);
        let is_here = |address: &&SocketAddr| match UdpSocket::bind((address.ip(), 0)) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    "{host}: {} is not an address of this machine: {error}",
                    address.ip()
                );
                false
            }
        };
        if all.len() < 2 {
            return Ok(all);
        }
        let here: Vec<SocketAddr> = all.iter().filter(is_here).copied().collect();
        // Without any, listening on the first one says what is wrong.
        Ok(if here.is_empty() { all } else { here })
    }
}

/// The number of a network interface.
fn interface(name: &str) -> io::Result<u32> {
    let any = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    Ok(name_to_index(&any, name)?)
}

/// Each address once, in order.
pub(crate) fn without_repetition<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for address in all {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

/// Why a server cannot listen. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not resolved.
    #[error("cannot listen on {listen}: {reason}")]
    Unknown {
        /// What was written.
        listen: ListenOn,
        /// What is missing.
        reason: String,
    },
    /// There can be no socket at the path.
    #[error("cannot listen on {UNIX}{}: {reason}", path.display())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The kernel refuses the address.
    #[error("{}", explain(*address, cause))]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn refused(address: SocketAddr) -> impl FnOnce(io::Error) -> ListenError {
    move |cause| ListenError::Refused { address, cause }
}

fn explain(address: SocketAddr, cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use: another process listens there; stop it (`ss -ltnp` names it) or \
             choose another --listen (port 0 takes a free one)"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "not allowed to listen on {address}: choose a port from 1024 up in --listen, or run \
             with CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "{address} is not an address of this machine: choose another --listen (`ip addr` \
             lists them)"
        ),
        _ if Errno::from_io_error(cause) == Some(Errno::AFNOSUPPORT) => {
            format!("cannot listen on {address}: this machine has no IPv6; choose an IPv4 address")
        }
        _ => format!("cannot listen on {address}: {cause}"),
    }
}

/// Listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// Where clients reach the server, ports never 0. `[::]` that takes both families is followed
    /// by 0.0.0.0.
    pub addresses: Vec<SocketAddr>,
    /// For each worker one non-blocking socket per address listened on.
    pub of_workers: Vec<Vec<TcpListener>>,
}

/// Opens sockets on all of `wanted` for each of `workers`: plain ones for one worker, else such as
/// share their port by `SO_REUSEPORT`. Where the port is 0 the kernel chooses one, the same for all
/// addresses and workers. Accepted sockets inherit `TCP_NODELAY`, a small
/// `TCP_NOTSENT_LOWAT`, and `SO_LINGER` of 0: whatever closes a connection, the end of the process
/// included, resets it, and what its peer has not got yet is discarded, so that half a frame never
/// looks like the end of the stream. [`deliver_on_close`] takes that back.
///
/// # Errors
/// A port on which another process listens is refused even where `SO_REUSEPORT` would let us share
/// it.
pub fn listen(wanted: &[SocketAddr], workers: usize) -> Result<Listeners, ListenError> {
    if workers > 1 {
        let ports = reserve(wanted)?;
        return listen_shared(&ports.addresses, workers);
    }
    listeners(vec![bind_all(wanted, false)?])
}

/// Ports that are ours to share. As nobody listens on these sockets, the kernel gives them no
/// connections.
#[derive(Debug)]
pub struct ReservedPorts {
    /// Never with port 0.
    pub addresses: Vec<SocketAddr>,
    _sockets: Vec<Socket>,
}

/// Takes ports for sockets of [`listen_shared`], in this process and in its children.
///
/// # Errors
/// Those of [`listen`].
pub fn reserve(wanted: &[SocketAddr]) -> Result<ReservedPorts, ListenError> {
    let fixed = wanted.iter().filter(|address| address.port() != 0);
    // Closed again at once: only asks whether the ports are free of others.
    bind_all(&fixed.copied().collect::<Vec<_>>(), false)?;
    let (sockets, addresses) = bind_all(wanted, true)?.into_iter().unzip();
    Ok(ReservedPorts {
        addresses,
        _sockets: sockets,
    })
}

/// Opens sockets like those of [`listen`] on [reserved](reserve) ports.
///
/// # Errors
/// Those of [`listen`].
pub fn listen_shared(addresses: &[SocketAddr], workers: usize) -> Result<Listeners, ListenError> {
    let of_workers = (0..workers).map(|_| bind_all(addresses, true));
    // All are bound before the first listens, so that none gets the connections of the others.
    listeners(of_workers.collect::<Result<_, _>>()?)
}

fn listeners(sockets: Vec<Vec<Bound>>) -> Result<Listeners, ListenError> {
    let bound: Vec<_> = sockets
        .first()
        .into_iter()
        .flatten()
        .map(|(_, at)| *at)
        .collect();
    let start_listening = |(socket, at): Bound| {
        let listening = socket.listen(LISTEN_BACKLOG as i32);
        listening.map_err(refused(at))?;
        Ok(socket.into())
    };
    let of_worker = |sockets: Vec<Bound>| sockets.into_iter().map(start_listening).collect();
    Ok(Listeners {
        addresses: reached(&bound),
        of_workers: sockets
            .into_iter()
            .map(of_worker)
            .collect::<Result<_, _>>()?,
    })
}

/// Where sockets bound so are reached.
fn reached(bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let of_both_families = |address: &SocketAddr| {
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let both = address.ip() == Ipv6Addr::UNSPECIFIED && !is_ipv6_only(bound);
        [Some(*address), both.then_some(v4)].into_iter().flatten()
    };
    bound.iter().flat_map(of_both_families).collect()
}

/// Whether `[::]` leaves IPv4 to others of these addresses.
fn is_ipv6_only(addresses: &[SocketAddr]) -> bool {
    addresses.iter().any(SocketAddr::is_ipv4)
}

/// A socket and its address, whose port is not 0.
type Bound = (Socket, SocketAddr);

/// Binds a socket to each address. Those of port 0 get the same one.
fn bind_all(wanted: &[SocketAddr], share_port: bool) -> Result<Vec<Bound>, ListenError> {
    let chosen = wanted.iter().filter(|address| address.port() == 0).count();
    let attempts = if chosen > 1 { PORT_ATTEMPTS } else { 1 };
    for _ in 1..attempts {
        match bind_once(wanted, share_port) {
            // Free on the first address, but not on another: the kernel chooses again.
            Err(ListenError::Refused { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
            }
            done => return done,
        }
    }
    bind_once(wanted, share_port)
}

fn bind_once(wanted: &[SocketAddr], share_port: bool) -> Result<Vec<Bound>, ListenError> {
    let only_ipv6 = is_ipv6_only(wanted);
    let mut chosen = 0;
    let bind_one = |&address: &SocketAddr| {
        let mut at = address;
        if at.port() == 0 {
            at.set_port(chosen);
        }
        let bound = bind(at, share_port, only_ipv6).map_err(refused(at))?;
        if address.port() == 0 {
            chosen = bound.1.port();
        }
        Ok(bound)
    };
    wanted.iter().map(bind_one).collect()
}

fn bind(address: SocketAddr, share_port: bool, only_ipv6: bool) -> io::Result<Bound> {
    let family = Domain::for_address(address);
    let socket = Socket::new(family, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said either way, so that net.ipv6.bindv6only does not decide.
        socket.set_only_v6(only_ipv6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    // Linux hands these on to every accepted socket, which saves system calls for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket();
    Ok((socket, bound.ok_or(io::ErrorKind::Unsupported)?))
}

/// From now on a close of `socket` lets its peer have all bytes that the socket took, and then the
/// end of the stream (FIN). Call it when those bytes end with a whole frame and none will follow.
pub fn deliver_on_close(socket: impl AsFd) {
    // An error would mean that it is no socket any more.
    let _ = set_socket_linger(socket, None);
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Addresses of loopback that every Linux has.
    fn two() -> [SocketAddr; 2] {
        ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap())
    }

    fn one(wanted: SocketAddr) -> TcpListener {
        listen(&[wanted], 1).unwrap().of_workers.remove(0).remove(0)
    }

    #[test]
    fn what_people_write() {
        for (text, meant) in [
            ("9001", "127.0.0.1:9001"),
            (":9001", "127.0.0.1:9001"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9001", "[::1]:9001"),
            ("[::]:9001", "[::]:9001"),
            ("[fe80::1%7]:9001", "[fe80::1%7]:9001"),
            ("unix:/run/a:b.sock", "unix:/run/a:b.sock"),
            ("unix:here", "unix:here"),
        ] {
            let listen: ListenOn = text.parse().unwrap();
            let addresses = listen.addresses().unwrap();
            assert_eq!(addresses, [meant.parse().unwrap()], "{text}");
            assert_eq!(listen.to_string().parse(), Ok(listen), "{text}");
        }
        let lo: ListenOn = "[fe80::1%lo]:9".parse().unwrap();
        assert_eq!(lo.addresses().unwrap(), ["[fe80::1%1]:9".parse().unwrap()]);
        let name: ListenOn = "localhost:9001".parse().unwrap();
        let addresses = name.addresses().unwrap();
        assert!(addresses.contains(&"127.0.0.1:9001".parse().unwrap()));
        assert_eq!(addresses, without_repetition(addresses.clone()));
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (text, hint) in [
            ("", "HOST:PORT"),
            ("localhost", "HOST:PORT"),
            ("127.0.0.1", "HOST:PORT"),
            ("[::1]", "HOST:PORT"),
            ("::1", "[::1]:8080"),
            ("::1:9001", "[::1:9001]:8080"),
            ("fe80::1%lo:80", "[fe80::1%lo]:80"),
            ("127.0.0.1:99999", "0 to 65535"),
            ("99999", "0 to 65535"),
            ("a:b", "0 to 65535"),
            ("a b:80", "neither a name"),
            ("[127.0.0.1]:80", "neither a name"),
            ("[::1%]:80", "neither a name"),
            ("ws://127.0.0.1:80", "neither a name"),
            ("*:80", "[::]:80"),
            ("unix:", "unix:/run/ringside.sock"),
        ] {
            let error = text.parse::<ListenOn>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        for (text, hint) in [
            ("name.invalid:80", "name.invalid:80"),
            ("[fe80::1%eth99]:80", "no interface `eth99`"),
        ] {
            let listen: ListenOn = text.parse().unwrap();
            let error = listen.addresses().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn both_families_unless_another_address_has_one() {
        let reached_from = |bound: &[&str]| {
            let bound: Vec<_> = bound.iter().map(|text| text.parse().unwrap()).collect();
            let reached: Vec<_> = reached(&bound).iter().map(ToString::to_string).collect();
            reached.join(" ")
        };
        assert_eq!(reached_from(&["[::]:9"]), "[::]:9 0.0.0.0:9");
        assert_eq!(
            reached_from(&["[::]:9", "127.0.0.1:9"]),
            "[::]:9 127.0.0.1:9"
        );
        assert_eq!(reached_from(&["[::1]:9"]), "[::1]:9");
    }

    #[test]
    fn accepted_sockets_inherit_their_options() {
        let listener = one(any_port());
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT_BYTES);
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        deliver_on_close(&accepted);
        assert_eq!(socket.linger().unwrap(), None);
    }

    #[test]
    fn several_listeners_and_addresses_share_one_port() {
        for workers in [1, 3] {
            let Listeners {
                addresses,
                of_workers,
            } = listen(&two(), workers).unwrap();
            assert_eq!(of_workers.len(), workers);
            for sockets in &of_workers {
                let bound: Vec<_> = sockets.iter().map(|l| l.local_addr().unwrap()).collect();
                assert_eq!(bound, addresses);
            }
            let [first, second] = addresses[..] else {
                panic!("{addresses:?}")
            };
            assert_ne!(first.port(), 0);
            assert_eq!(first.port(), second.port());
            assert_ne!(first.ip(), second.ip());
        }
    }

    #[test]
    fn a_port_in_use_is_refused_even_when_it_could_be_shared() {
        for held in [1, 2] {
            let holders = listen(&two(), held).unwrap();
            for wanted in [1, 2] {
                for address in &holders.addresses {
                    let error = listen(&[*address], wanted).unwrap_err();
                    assert!(error.to_string().contains("is in use"), "{error}");
                    assert!(error.to_string().contains("--listen"));
                }
            }
        }
    }

    #[test]
    fn a_reserved_port_gets_no_connection_of_its_own() {
        let ports = reserve(&[any_port()]).unwrap();
        let address = ports.addresses[0];
        TcpStream::connect(address).unwrap_err();
        let listeners = listen_shared(&ports.addresses, 1).unwrap();
        let listener = &listeners.of_workers[0][0];
        listener.set_nonblocking(false).unwrap();
        let clients: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for _ in &clients {
            listener.accept().unwrap();
        }
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let error = listen(&["192.0.2.1:0".parse().unwrap()], 1).unwrap_err();
        assert!(
            error.to_string().contains("not an address of this machine"),
            "{error}"
        );
    }
}
