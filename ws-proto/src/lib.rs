//! Sans-I/O WebSocket, [RFC 6455], both roles: bytes in, events and bytes out. No socket, clock,
//! runtime or logger.
//!
//! # Order of calls
//!
//! 1. [`handshake`]: a server feeds what it received to [`handshake::server::parse_request`] until
//!    it is complete, then asks the head to [`upgrade`](handshake::server::RequestHead::upgrade)
//!    and writes the response. A client writes a [`handshake::client::Request`] and feeds the
//!    answer to [`handshake::client::check_response`]. Bytes after the head already belong to step
//!    2.
//! 2. [`Session`]: every receive buffer goes through [`Session::receive`] (events, one at a time,
//!    until `None`) or through [`Session::echo`] (the whole buffer at once, replies written over
//!    the requests). The caller owns the buffers; a message that lies whole in one is unmasked in
//!    place, never copied and never allocated for.
//! 3. What the caller sends, it encodes with [`encode_frame`] (server) or [`encode_masked_frame`]
//!    (client).
//! 4. Closing: [`Session::close`] starts it, [`Session::answer_close`] answers the peer;
//!    [`State::Closed`] says that both Close frames have passed and TCP may be closed once the
//!    output is written.
//!
//! ```
//! use ws_proto::{Reply, Role, Session, Limits};
//!
//! let mut session = Session::new(Role::Server, Limits::default());
//! let mut spill = Vec::new();
//! // "Hello" as a client sends it (RFC 6455, section 5.7).
//! let mut received = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
//! let echo = session.echo(&mut received, &mut spill);
//! let to_send = match echo.reply {
//!     Reply::None => &[],
//!     Reply::InPlace(range) => &received[range],
//!     Reply::Spilled => &spill[..],
//! };
//! assert_eq!(to_send, b"\x81\x05Hello");
//! ```
//!
//! # Extensions
//!
//! None are implemented, so none are negotiated: a server declines whatever a client offers by
//! leaving `Sec-WebSocket-Extensions` out of its response (section 9.1), and a client refuses a
//! response that names one. A reserved bit is therefore always a violation.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

pub use crate::{
    echo::{Echo, End, Reply},
    frame::{
        MAX_CONTROL_PAYLOAD, MAX_HEADER_BYTES, encode_frame, encode_masked_frame,
        write_frame_header,
    },
    limits::Limits,
    mask::{append_masked, mask, random_key},
    partial::Unfinished,
    session::{Begun, Event, Input, Kind, Role, Session, State},
    violation::Violation,
};

mod close;
mod echo;
mod frame;
pub mod handshake;
mod intake;
mod limits;
mod mask;
mod partial;
mod session;
mod utf8;
mod violation;
