//! The frame header on the wire, RFC 6455 section 5.2: constants, writing.

use crate::{OpCode, mask::mask};

/// The longest frame header: 2 bytes, 8 of length, 4 of masking key (section 5.2).
pub const MAX_HEADER_BYTES: usize = 14;
/// The longest payload of a control frame, in bytes (section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// Writes the header of an unfragmented frame (FIN set) of `payload_len` bytes to the start of `out`; returns its length
/// in bytes: 2, 4 or 10, plus 4 with a masking key (section 5.2). The payload behind it must then be masked with the same
/// key, see [`mask`](crate::mask()).
///
/// # Panics
/// When `out` is shorter than the header; [`MAX_HEADER_BYTES`] is always enough.
pub fn write_frame_header(
    opcode: OpCode,
    payload_len: usize,
    key: Option<[u8; 4]>,
    out: &mut [u8],
) -> usize {
    todo!()
}

/// Appends an unfragmented, unmasked frame (server to client) to `out`.
pub fn encode_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    todo!()
}

/// Appends an unfragmented frame masked with `key` (client to server) to `out`.
pub fn encode_masked_frame(opcode: OpCode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    todo!()
}
