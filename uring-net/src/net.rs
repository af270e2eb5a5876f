//! Socket options that neither `socket2` nor `rustix` offers.

use std::io;
use std::os::fd::AsFd;

/// Sets `IP_BIND_ADDRESS_NO_PORT`: a later `bind` to port 0 fixes only the address and leaves the choice of the port to
/// `connect`, which may then use one port for several destinations. Works for IPv4 and IPv6 sockets.
///
/// # Errors
/// What `setsockopt` says.
pub fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    let _ = socket;
    todo!()
}
