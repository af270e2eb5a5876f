//! Socket options that neither `socket2` nor `rustix` offers.

#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Sets `IP_BIND_ADDRESS_NO_PORT`: a later `bind` to port 0 fixes only the address and leaves the
/// choice of the port to `connect`, which may then use one port for several destinations. Works for
/// IPv4 and IPv6 sockets (`ip(7)`).
///
/// # Errors
/// What `setsockopt` says.
pub fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let socket = socket.as_fd().as_raw_fd();
    set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
}

/// `SO_LINGER` off: a close delivers what was sent, and then the end of the stream.
pub(crate) static LINGER_OFF: libc::linger = libc::linger {
    l_onoff: 0,
    l_linger: 0,
};

/// Takes back a `SO_LINGER` that a socket has inherited from its listener: a close then delivers
/// what was sent, and does not reset the connection.
///
/// By number, for monoio 0.2 lends no descriptor of its sockets. The socket must be open: with the
/// number of another one that one's option would be changed.
///
/// # Errors
/// What `setsockopt` says.
pub fn deliver_on_close(socket: RawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &LINGER_OFF)
}

fn set_option<T>(socket: RawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is initialised and of the size given, and the kernel copies it; a number
    // that is no socket's is an error.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_socket_delivers_again_what_it_would_have_discarded() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        deliver_on_close(socket.as_raw_fd()).unwrap();
        assert_eq!(socket.linger().unwrap(), None);
        assert!(deliver_on_close(-1).is_err());
    }

    #[test]
    fn binding_fixes_the_address_and_leaves_the_port_to_connect() {
        for host in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ] {
            let listener = TcpListener::bind(host).unwrap();
            let socket = Socket::new(Domain::for_address(host), Type::STREAM, None).unwrap();
            set_bind_address_no_port(&socket).unwrap();
            socket.bind(&host.into()).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0);
            socket
                .connect(&listener.local_addr().unwrap().into())
                .unwrap();
            assert_ne!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0);
        }
    }
}
