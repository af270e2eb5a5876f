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

/// Sends what a socket takes at once.
///
/// By number, as in [`deliver_on_close`].
///
/// # Errors
/// What `send` says; [`WouldBlock`](io::ErrorKind::WouldBlock) where the socket takes nothing.
pub fn send_now(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads the bytes during the call; a number that is no socket's is an error.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Appends what a socket has received to `buf`, at most `most` bytes and no more than it has spare
/// capacity for. 0 is the end of the stream, unless there was room for nothing.
///
/// By number, as in [`deliver_on_close`].
///
/// # Errors
/// What `recv` says; [`WouldBlock`](io::ErrorKind::WouldBlock) where there is nothing.
pub fn receive_now(socket: RawFd, buf: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let spare = buf.spare_capacity_mut();
    let (start, room) = (spare.as_mut_ptr(), spare.len().min(most));
    // SAFETY: the kernel writes to spare capacity alone, during the call; a number that is no
    // socket's is an error.
    let received = unsafe { libc::recv(socket, start.cast(), room, libc::MSG_DONTWAIT) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has initialised so many bytes of the spare capacity.
    unsafe { buf.set_len(buf.len() + received) };
    Ok(received)
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
    use std::os::unix::net::UnixStream;
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
    fn sends_and_receives_take_what_there_is_and_never_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, peer) = (ours.as_raw_fd(), theirs.as_raw_fd());
        let mut buf = Vec::with_capacity(8);
        let nothing = receive_now(ours, &mut buf, 8).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(send_now(peer, b"0123456789").unwrap(), 10);
        assert_eq!(receive_now(ours, &mut buf, 3).unwrap(), 3);
        assert_eq!(receive_now(ours, &mut buf, 100).unwrap(), 5);
        assert_eq!((&buf[..], buf.capacity()), (&b"01234567"[..], 8));
        let full = loop {
            if let Err(error) = send_now(ours, &[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        buf.clear();
        assert!(send_now(ours, b"x").is_err());
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
