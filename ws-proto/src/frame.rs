//! The frame on the wire, RFC 6455 section 5.2: constants, header parsing, writing.

use crate::{OpCode, mask::append_masked, violation::Rule};

/// The longest frame header: 2 bytes, 8 of length, 4 of masking key (section 5.2).
pub const MAX_HEADER_BYTES: usize = 14;
/// The longest payload of a control frame, in bytes (section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// First byte: this is the last frame of its message (section 5.2).
pub(crate) const FIN: u8 = 0x80;
/// First byte: the three bits reserved for extensions (section 5.2).
const RESERVED: u8 = 0x70;
/// First byte: the opcode (section 5.2).
const OPCODE: u8 = 0x0F;
/// Opcode of a frame that continues a message (section 5.4).
pub(crate) const CONTINUE: u8 = 0x0;
/// Opcode of a text message (section 5.6).
pub(crate) const TEXT: u8 = 0x1;
/// Opcode of a binary message (section 5.6).
pub(crate) const BINARY: u8 = 0x2;
/// Opcode of a Close (section 5.5.1); the first of the control opcodes (section 5.5).
pub(crate) const CLOSE: u8 = 0x8;
/// Opcode of a ping (section 5.5.2).
pub(crate) const PING: u8 = 0x9;
/// Opcode of a pong (section 5.5.3).
pub(crate) const PONG: u8 = 0xA;
/// Second byte: a masking key follows the length (section 5.2).
const MASKED: u8 = 0x80;
/// Second byte: the length, or one of the two values below (section 5.2).
const LENGTH: u8 = 0x7F;
/// The length is in the next 2 bytes, big endian, and at least 126 (section 5.2).
const LENGTH_16: u8 = 126;
/// The length is in the next 8 bytes, big endian, at least 65,536, and below 2^63 (section 5.2).
const LENGTH_64: u8 = 127;
/// Length of a masking key, in bytes (section 5.3).
pub(crate) const KEY_BYTES: usize = 4;

/// A header that has passed all checks that need no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    /// Zero where frames are not masked.
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) payload_len: usize,
    /// Length of the header itself.
    pub(crate) len: usize,
}

impl Header {
    pub(crate) fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// What the receiving side allows the next frame to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    /// Frames must be masked (server) or must not be (client).
    pub(crate) masked: bool,
    /// A fragmented message is open: data frames must continue it.
    pub(crate) in_message: bool,
    /// That message may have one more frame.
    pub(crate) fragment_allowed: bool,
    /// Payload bytes that a data frame may still have.
    pub(crate) room: usize,
}

/// Parses the header at the start of `bytes`; `None` while it is incomplete. Every rule is checked
/// as soon as its byte is there, so that a verdict does not depend on how the stream was cut.
// RFC 6455 section 6.2: parsed-as-frames
// RFC 6455 section 10.7: data-is-validated
#[inline]
pub(crate) fn parse(bytes: &[u8], expect: Expect) -> Result<Option<Header>, Rule> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let fin = first & FIN != 0;
    let opcode = first & OPCODE;
    check_first(first, expect)?;
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    match (second & MASKED != 0, expect.masked) {
        // RFC 6455 section 5.1: unmasked-closes
        (false, true) => return Err(Rule::Unmasked),
        // RFC 6455 section 5.1: masked-closes
        (true, false) => return Err(Rule::Masked),
        _ => {}
    }
    let short = second & LENGTH;
    // RFC 6455 section 5.5: control-is-short
    if opcode >= CLOSE && usize::from(short) > MAX_CONTROL_PAYLOAD {
        return Err(Rule::LongControl);
    }
    let (payload_len, after_length) = match short {
        LENGTH_16 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        LENGTH_64 => match bytes.get(2..10) {
            Some(&[a, b, c, d, e, f, g, h]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
            _ => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    // RFC 6455 section 5.2: length-sign
    if payload_len >> 63 != 0 {
        return Err(Rule::LengthSign);
    }
    // RFC 6455 section 5.2: length-is-minimal
    if after_length != 2 && after_length != length_end(payload_len) {
        return Err(Rule::NonMinimalLength);
    }
    // RFC 6455 section 10.4: limits-hold
    // Compared before it is converted: where a usize has 32 bits, all lengths beyond would be one.
    if opcode < CLOSE && payload_len > expect.room as u64 {
        return Err(Rule::MessageTooBig);
    }
    let payload_len = usize::try_from(payload_len).map_err(|_| Rule::MessageTooBig)?;
    let (key, len) = if expect.masked {
        let Some(&key) = bytes[after_length..].first_chunk() else {
            return Ok(None);
        };
        (key, after_length + KEY_BYTES)
    } else {
        ([0; KEY_BYTES], after_length)
    };
    Ok(Some(Header {
        fin,
        opcode,
        key,
        payload_len,
        len,
    }))
}

/// The rules that the first byte alone can break.
#[inline]
fn check_first(first: u8, expect: Expect) -> Result<(), Rule> {
    // RFC 6455 section 5.2: reserved-bits-fail
    if first & RESERVED != 0 {
        return Err(Rule::ReservedBits);
    }
    match (first & OPCODE, expect.in_message) {
        (CONTINUE, false) => Err(Rule::UnexpectedContinuation),
        // RFC 6455 section 5.4: no-interleaving, one-type
        (TEXT | BINARY, true) => Err(Rule::ExpectedContinuation),
        // RFC 6455 section 10.4: limits-hold
        (CONTINUE, true) if !expect.fragment_allowed => Err(Rule::TooManyFragments),
        (TEXT | BINARY, false) if !expect.fragment_allowed => Err(Rule::TooManyFragments),
        (CONTINUE | TEXT | BINARY, _) => Ok(()),
        // RFC 6455 section 5.4: control-is-one-frame
        // RFC 6455 section 5.5: control-is-unfragmented
        (CLOSE | PING | PONG, _) if first & FIN == 0 => Err(Rule::FragmentedControl),
        (CLOSE | PING | PONG, _) => Ok(()),
        // RFC 6455 section 5.2: unknown-opcode-fails
        _ => Err(Rule::UnknownOpcode),
    }
}

/// Where the length field ends in the shortest form for `payload_len` (section 5.2).
const fn length_end(payload_len: u64) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Length of an unmasked header in front of `payload_len` bytes.
#[inline]
pub(crate) const fn unmasked_header_len(payload_len: usize) -> usize {
    length_end(payload_len as u64)
}

/// An unfragmented data frame that lies whole at the start of a buffer: the common case, and
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// FIN and the opcode, as on the wire in both directions.
    pub(crate) first: u8,
    /// Zero where frames are not masked.
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) payload_len: usize,
    pub(crate) header_len: usize,
}

/// Recognises a [`Plain`] frame with a length of 7 or 16 bits and at most `max` payload bytes,
/// masked or not as it must be; everything else, violations too, is left to [`parse`].
#[inline]
pub(crate) fn parse_plain(bytes: &[u8], masked: bool, max: usize) -> Option<Plain> {
    let &[first, second, ..] = bytes else {
        return None;
    };
    let short = if masked { second ^ MASKED } else { second };
    if !matches!(first, 0x81 | 0x82) || short > LENGTH_16 {
        return None;
    }
    let (payload_len, length_end) = if short < LENGTH_16 {
        (usize::from(short), 2)
    } else {
        let &[_, _, high, low, ..] = bytes else {
            return None;
        };
        let payload_len = usize::from(u16::from_be_bytes([high, low]));
        if payload_len < usize::from(LENGTH_16) {
            return None;
        }
        (payload_len, 4)
    };
    let (key, header_len) = if masked {
        (*bytes[length_end..].first_chunk()?, length_end + KEY_BYTES)
    } else {
        ([0; KEY_BYTES], length_end)
    };
    let is_plain = payload_len <= max && header_len + payload_len <= bytes.len();
    is_plain.then_some(Plain {
        first,
        key,
        payload_len,
        header_len,
    })
}

/// Writes the header of an unfragmented frame (FIN set) of `payload_len` bytes to the start of
/// `out`; returns its length in bytes: 2, 4 or 10, plus 4 with a masking key (section 5.2). The
/// payload behind it must then be masked with the same key, see [`mask`](crate::mask()).
///
/// # Panics
/// When `out` is shorter than the header; [`MAX_HEADER_BYTES`] is always enough.
// RFC 6455 section 5.2: reserved-bits-are-zero
// RFC 6455 section 6.1: data-is-framed, opcode-is-set, last-has-fin
#[inline]
pub fn write_frame_header(
    opcode: OpCode,
    payload_len: usize,
    key: Option<[u8; 4]>,
    out: &mut [u8],
) -> usize {
    write_header(FIN | u8::from(opcode), payload_len, key, out)
}

/// [`write_frame_header`] for a ready first byte.
// RFC 6455 section 5.2: length-sign, length-is-minimal
// RFC 6455 section 5.3: mask-bit
#[inline]
pub(crate) fn write_header(
    first: u8,
    payload_len: usize,
    key: Option<[u8; KEY_BYTES]>,
    out: &mut [u8],
) -> usize {
    let mask_bit = if key.is_some() { MASKED } else { 0 };
    out[0] = first;
    let mut len = match payload_len {
        0..=125 => {
            out[1] = mask_bit | payload_len as u8;
            2
        }
        126..=0xFFFF => {
            out[1] = mask_bit | LENGTH_16;
            out[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = mask_bit | LENGTH_64;
            out[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        }
    };
    if let Some(key) = key {
        out[len..len + KEY_BYTES].copy_from_slice(&key);
        len += KEY_BYTES;
    }
    len
}

/// Appends an unfragmented, unmasked frame (server to client) to `out`.
// RFC 6455 section 5.1: server-does-not-mask
// RFC 6455 section 6.1: data-is-framed, opcode-is-set, last-has-fin
pub fn encode_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    append(FIN | u8::from(opcode), payload, None, out);
}

/// Appends an unfragmented frame masked with `key` (client to server) to `out`.
// RFC 6455 section 5.1: client-masks
// RFC 6455 section 6.1: data-is-masked
pub fn encode_masked_frame(opcode: OpCode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    append(FIN | u8::from(opcode), payload, Some(key), out);
}

pub(crate) fn append(first: u8, payload: &[u8], key: Option<[u8; KEY_BYTES]>, out: &mut Vec<u8>) {
    let mut header = [0; MAX_HEADER_BYTES];
    let len = write_header(first, payload.len(), key, &mut header);
    out.reserve(len + payload.len());
    out.extend_from_slice(&header[..len]);
    match key {
        Some(key) => append_masked(payload, key, out),
        None => out.extend_from_slice(payload),
    }
}

/// A frame of the payload that lies behind `room` bytes, in place: the room, which holds any
/// unmasked header, becomes the header. A room that is too long moves the payload.
pub(crate) fn write_before(first: u8, mut bytes: Vec<u8>, room: usize) -> Vec<u8> {
    let payload_len = bytes.len() - room;
    let header_len = unmasked_header_len(payload_len);
    bytes.drain(header_len..room);
    write_header(first, payload_len, None, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data;

    const OPEN: Expect = Expect {
        masked: true,
        in_message: false,
        fragment_allowed: true,
        room: 1 << 20,
    };

    // RFC 6455 section 5.2: reserved-bits-are-zero, length-is-minimal
    // RFC 6455 section 5.3: mask-bit
    // RFC 6455 section 6.2: parsed-as-frames
    #[test]
    fn headers_survive_the_round_trip_and_every_prefix_is_incomplete() {
        for payload_len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            for masked in [false, true] {
                let key = masked.then_some([1, 2, 3, 4]);
                let mut out = [0; MAX_HEADER_BYTES];
                let len =
                    write_frame_header(OpCode::Data(Data::Binary), payload_len, key, &mut out);
                let expect = Expect { masked, ..OPEN };
                let header = parse(&out, expect).unwrap().unwrap();
                assert_eq!(
                    header,
                    Header {
                        fin: true,
                        opcode: BINARY,
                        key: key.unwrap_or_default(),
                        payload_len,
                        len
                    }
                );
                for cut in 0..len {
                    assert_eq!(parse(&out[..cut], expect), Ok(None));
                }
            }
        }
    }

    #[test]
    fn the_fast_path_agrees_with_the_parser() {
        for payload_len in [0, 1, 125, 126, 300, 65_535, 65_536] {
            for masked in [false, true] {
                let mut out = Vec::new();
                append(
                    FIN | TEXT,
                    &vec![7; payload_len],
                    masked.then_some([9, 8, 7, 6]),
                    &mut out,
                );
                let header = parse(&out, Expect { masked, ..OPEN }).unwrap().unwrap();
                match parse_plain(&out, masked, payload_len) {
                    Some(plain) => {
                        assert_eq!((plain.first, plain.key), (FIN | TEXT, header.key));
                        assert_eq!(
                            (plain.payload_len, plain.header_len),
                            (header.payload_len, header.len)
                        );
                    }
                    None => assert_eq!(payload_len, 65_536),
                }
                assert_eq!(
                    parse_plain(&out[..out.len() - 1], masked, payload_len),
                    None
                );
                assert_eq!(parse_plain(&out, !masked, payload_len), None);
                if payload_len > 0 {
                    assert_eq!(parse_plain(&out, masked, payload_len - 1), None);
                }
            }
        }
        for strange in [
            &[0x83, 0x80, 0, 0, 0, 0][..],
            &[0x01, 0x80, 0, 0, 0, 0],
            &[0x81, 0x00, 0, 0, 0, 0],
            &[0xC1, 0x80, 0, 0, 0, 0],
            &[0x81, 0xFE, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5],
            &[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
            &[0x81, 0xFE, 0, 126],
        ] {
            assert_eq!(parse_plain(strange, true, 1000), None, "{strange:x?}");
        }
    }
}
