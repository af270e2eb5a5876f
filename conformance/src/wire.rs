//! Bytes on the wire, written out by hand: the suite judges the servers' codec, so it must not
//! borrow it.

/// FIN bit of a frame's first byte (RFC 6455 section 5.2).
pub const FIN: u8 = 0x80;
/// Opcode of a continuation frame.
pub const CONTINUATION: u8 = 0x0;
/// Opcode of a text frame.
pub const TEXT: u8 = 0x1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 0x2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping frame.
pub const PING: u8 = 0x9;
/// Opcode of a pong frame.
pub const PONG: u8 = 0xA;

/// The key every hand-made frame is masked with; its four bytes differ, so a rotated mask shows.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The example key of RFC 6455 section 1.3.
pub const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`SAMPLE_KEY`] that RFC 6455 section 1.3 works out.
pub const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A masked frame with the given first byte (FIN, RSV bits and opcode) and the shortest length
/// encoding.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len());
    push_masked(payload, &mut out);
    out
}

/// The header of [`masked`] for a payload of so many bytes, with room for them; the key is its end.
pub fn header(first: u8, payload_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload_len + 14);
    out.push(first);
    match payload_len {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out
}

/// A whole text message in one masked frame.
pub fn text(payload: &str) -> Vec<u8> {
    masked(FIN | TEXT, payload.as_bytes())
}

/// A whole binary message in one masked frame.
pub fn binary(payload: &[u8]) -> Vec<u8> {
    masked(FIN | BINARY, payload)
}

/// A masked close frame with a code and a reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason);
    masked(FIN | CLOSE, &payload)
}

/// A frame header whose length field says `claimed`, in 64 bits, whatever follows it.
pub fn long_header(first: u8, claimed: u64) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 127];
    out.extend_from_slice(&claimed.to_be_bytes());
    out.extend_from_slice(&MASK);
    out
}

/// A masked frame whose length is written in 16 bits though it may need fewer.
pub fn with_16_bit_length(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 126];
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&MASK);
    push_masked(payload, &mut out);
    out
}

/// A masked frame whose length is written in 64 bits though it may need fewer.
pub fn with_64_bit_length(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 127];
    out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    out.extend_from_slice(&MASK);
    push_masked(payload, &mut out);
    out
}

/// A frame without a mask, which a client must never send (at most 125 bytes).
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125, "unmasked() writes short frames only");
    let mut out = vec![first, payload.len() as u8];
    out.extend_from_slice(payload);
    out
}

fn push_masked(payload: &[u8], out: &mut Vec<u8>) {
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// A frame as it came from a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    /// Whether the mask bit was set.
    pub masked: bool,
    /// Length of the header in bytes.
    pub header: usize,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The first frame of `bytes` and the number of bytes it takes; `None` when more are needed.
    pub fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (mut header, length): (usize, usize) = match second & 0x7f {
            126 => (
                4,
                u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize,
            ),
            127 => (
                10,
                u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            ),
            n => (2, n as usize),
        };
        let masked = second & 0x80 != 0;
        if masked {
            header += 4;
        }
        let payload = bytes.get(header..header.checked_add(length)?)?.to_vec();
        Some((
            Frame {
                first,
                masked,
                header,
                payload,
            },
            header + length,
        ))
    }

    /// The opcode.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The code of a close frame; `None` when it carries none.
    pub fn close_code(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(..2)?.try_into().ok()?))
    }

    /// Whether the length is written in as few bytes as it can be.
    pub fn is_minimal(&self) -> bool {
        let needed = match self.payload.len() {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        self.header == needed + if self.masked { 4 } else { 0 }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.payload[..self.payload.len().min(40)];
        write!(
            f,
            "frame {:#04x}{} of {} bytes \"{}\"",
            self.first,
            if self.masked { " masked" } else { "" },
            self.payload.len(),
            shown.escape_ascii()
        )?;
        match self.close_code() {
            Some(code) if self.opcode() == CLOSE => write!(f, " (close {code})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out_byte_for_byte() {
        // The single-frame masked text message of RFC 6455 section 5.7.
        let expected = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(text("Hello"), expected);
    }

    #[test]
    fn lengths_use_the_shortest_encoding() {
        for (length, header) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            assert_eq!(binary(&vec![7; length]).len(), header + length);
        }
    }

    #[test]
    fn a_frame_is_parsed_only_when_whole() {
        let mut bytes = vec![0x82, 126, 0, 200];
        bytes.extend_from_slice(&[9; 200]);
        for cut in 0..bytes.len() {
            assert_eq!(Frame::parse(&bytes[..cut]), None);
        }
        let (frame, used) = Frame::parse(&bytes).expect("whole");
        assert_eq!(
            (frame.opcode(), frame.payload.len(), used),
            (BINARY, 200, 204)
        );
        assert!(frame.is_minimal() && !frame.masked);
    }
}
