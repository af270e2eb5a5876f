//! Large messages, whole and in fragments, cut where a server may go over from one way of receiving
//! to another: nothing is lost, doubled or out of order there.

use std::ops::RangeInclusive;

use super::client::{Raw, eventually, upgrade_request};
use super::frames::pattern;
use super::harness::{Server, Target};
use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};

/// Sizes on both sides of what a receive buffer or a piece of a message may hold.
const SIZES: [usize; 10] = [
    4096,
    16 << 10,
    65_535,
    65_536,
    128 << 10,
    132 << 10,
    (256 << 10) + 1,
    512 << 10,
    1 << 20,
    (3 << 20) + 5,
];
/// How much of a stream arrives before there is a pause: within a header, right behind one, and
/// around the sizes of buffers.
const CUTS: [usize; 16] = [
    1, 2, 9, 13, 14, 15, 4096, 4103, 16_384, 65_535, 65_536, 65_550, 135_168, 262_144, 524_288,
    1_048_580,
];

/// Sizes of the servers' buffers and pieces: of what is received at once, of what has room in a
/// message before it is moved, of what is sent at once.
const BOUNDARIES: [usize; 10] = [
    4096,
    4096 + 64,
    16 << 10,
    64 << 10,
    128 << 10,
    132 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    (1 << 20) + 4096,
];
/// How far from a boundary a payload ends: headers have up to 14 bytes, those of replies up to 10.
const AROUND: RangeInclusive<isize> = -15..=1;
/// Between fragments, in an echo.
const PING_BODY: &[u8] = b"between";

/// A client, and another whose echo shows that the server has had its turn.
struct Pair {
    raw: Raw,
    other: Raw,
}

impl Pair {
    fn of(server: &Server) -> Self {
        Self {
            raw: server.upgraded("/ws"),
            other: server.upgraded("/ws"),
        }
    }

    /// Sends all of `bytes`, with a pause at each of `cuts` that the server notices.
    #[track_caller]
    fn send(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut sent = 0;
        for &cut in cuts.iter().filter(|&&cut| cut < bytes.len()) {
            self.raw.send(&bytes[sent..cut]);
            self.other.expect_alive();
            sent = cut;
        }
        self.raw.send(&bytes[sent..]);
    }
}

/// Payloads of any size, of which each is the begin of one and the same.
struct Prefixes {
    plain: Vec<u8>,
    /// Masked once for all of them.
    masked: Vec<u8>,
}

impl Prefixes {
    fn new() -> Self {
        let plain = pattern((1 << 20) + 8192);
        let frame = wire::binary(&plain);
        let masked = frame[frame.len() - plain.len()..].to_vec();
        Self { plain, masked }
    }

    fn frame(&self, first: u8, len: usize) -> Vec<u8> {
        let mut frame = wire::header(first, len);
        frame.extend_from_slice(&self.masked[..len]);
        frame
    }
}

/// Whole messages around every boundary, in an echo and in a room. The large and the small take
/// turns, so that a server which goes over from one way of receiving to another goes back, too.
pub fn sizes_around_every_boundary(target: &Target) {
    let server = target.start(&[]);
    let payloads = Prefixes::new();
    for path in ["/ws", "/broadcast/large"] {
        let mut raw = server.upgraded(path);
        for by in AROUND {
            for boundary in BOUNDARIES {
                let size = boundary.saturating_add_signed(by);
                let mut bytes = payloads.frame(FIN | BINARY, size);
                bytes.extend(wire::text("and a short one"));
                raw.send(&bytes);
                raw.expect(BINARY, &payloads.plain[..size]);
                raw.expect(TEXT, b"and a short one");
            }
        }
        for _ in 0..100 {
            raw.expect_alive();
        }
    }
}

/// Fragments that end around every boundary, pings between them.
pub fn fragments_around_every_boundary(target: &Target) {
    let server = target.start(&[]);
    let payloads = Prefixes::new();
    let mut raw = server.upgraded("/ws");
    for by in [-14, -10, -8, -4, -1, 0, 1] {
        for boundary in BOUNDARIES {
            let size = boundary.saturating_add_signed(by);
            for fragments in [&[size, 1][..], &[1, size], &[size / 2, 0, size - size / 2]] {
                let mut bytes = Vec::new();
                let mut message = Vec::new();
                for (at, &len) in fragments.iter().enumerate() {
                    let opcode = if at == 0 { BINARY } else { CONTINUATION };
                    let is_last = at + 1 == fragments.len();
                    bytes.extend(payloads.frame(if is_last { FIN } else { 0 } | opcode, len));
                    message.extend_from_slice(&payloads.plain[..len]);
                    if !is_last {
                        bytes.extend(wire::masked(FIN | PING, PING_BODY));
                    }
                }
                bytes.extend(wire::text("and a short one"));
                raw.send(&bytes);
                for _ in 1..fragments.len() {
                    raw.expect(PONG, PING_BODY);
                }
                raw.expect(BINARY, &message);
                raw.expect(TEXT, b"and a short one");
            }
        }
    }
}

/// A message that begins in the buffer of the request.
pub fn long_messages_right_behind_the_request(target: &Target) {
    let server = target.start(&[]);
    let payloads = Prefixes::new();
    for path in ["/ws", "/broadcast/eager-and-large"] {
        let request = upgrade_request(path, "");
        for boundary in BOUNDARIES {
            for size in [boundary - request.len() - 14, boundary] {
                let mut bytes = request.clone().into_bytes();
                bytes.extend(payloads.frame(FIN | BINARY, size));
                bytes.extend(wire::text("and a short one"));
                let mut raw = server.raw();
                raw.send(&bytes);
                raw.expect_101();
                raw.expect(BINARY, &payloads.plain[..size]);
                raw.expect(TEXT, b"and a short one");
            }
        }
    }
}

/// Each message comes back whole, and so does the short one whose bytes come with its last.
pub fn messages_cut_at_every_boundary(target: &Target) {
    let server = target.start(&[]);
    let mut pair = Pair::of(&server);
    for size in SIZES {
        let message = pattern(size);
        let bytes = [wire::binary(&message), wire::text("and a short one")].concat();
        let almost = [bytes.len() - 30, bytes.len() - 22, bytes.len() - 3];
        let each = CUTS.iter().chain(&almost).map(std::slice::from_ref);
        for cuts in each.chain([&CUTS[..], &[]]) {
            pair.send(&bytes, cuts);
            pair.raw.expect(BINARY, &message);
            pair.raw.expect(TEXT, b"and a short one");
        }
    }
}

/// Fragments of any size make one message, and a ping between them is answered at its place.
pub fn fragments_cut_at_every_boundary(target: &Target) {
    let server = target.start(&[]);
    let mut pair = Pair::of(&server);
    for size in SIZES {
        let message = pattern(size);
        for fragment in [1000, 4096, 65_536, 100_000, 524_288] {
            let mut bytes = Vec::new();
            let mut pings = 0;
            let last = (size - 1) / fragment;
            for (at, part) in message.chunks(fragment).enumerate() {
                let opcode = if at == 0 { BINARY } else { CONTINUATION };
                let fin = if at == last { FIN } else { 0 };
                bytes.extend(wire::masked(fin | opcode, part));
                if at % 7 == 1 && at < last {
                    bytes.extend(wire::masked(FIN | PING, PING_BODY));
                    pings += 1;
                }
            }
            bytes.extend(wire::text("and a short one"));
            for cuts in [&[][..], &CUTS, &CUTS[4..], &CUTS[6..9]] {
                pair.send(&bytes, cuts);
                for _ in 0..pings {
                    pair.raw.expect(PONG, PING_BODY);
                }
                pair.raw.expect(BINARY, &message);
                pair.raw.expect(TEXT, b"and a short one");
            }
        }
    }
}

/// A character of four bytes may lie across every boundary.
pub fn characters_across_every_boundary(target: &Target) {
    let server = target.start(&[]);
    let mut pair = Pair::of(&server);
    for shift in 0..4 {
        let text = format!("{}{}", &"abc"[..shift], "😀".repeat(300_000));
        let frame = wire::text(&text);
        for cuts in [&[][..], &CUTS] {
            pair.send(&frame, cuts);
            pair.raw.expect(TEXT, text.as_bytes());
        }
    }
}

/// A peer pays for memory with bytes: what it announces and does not send costs next to nothing.
pub fn announcements_cost_no_memory(target: &Target) {
    const CLIENTS: usize = 300;
    const ANNOUNCED: u64 = 1 << 20;
    const SENT: [u8; 200] = [b'x'; 200];
    let server = target.start(&["--workers", "2"]);
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| server.upgraded("/ws")).collect();
    clients.iter_mut().for_each(Raw::expect_alive);
    let resident = server.resident_bytes();
    let before = server.metrics().get("bytes_received") as usize;
    let header = wire::long_header(FIN | BINARY, ANNOUNCED);
    let mut sent = 0;
    // The second time into what the server has made ready for the rest.
    for part in [[&header[..], &SENT].concat(), SENT.to_vec()] {
        clients.iter_mut().for_each(|client| client.send(&part));
        sent += part.len() * CLIENTS;
        eventually(server.patience, "all bytes are received", || {
            let received = server.metrics().get("bytes_received") as usize - before;
            (received >= sent).then_some(())
        });
    }
    let grown = server.resident_bytes().saturating_sub(resident);
    assert!(grown < (CLIENTS as u64) * ANNOUNCED / 32, "{grown} bytes");
}

/// A byte that is not UTF-8 ends the connection wherever it is in a long text.
// RFC 6455 section 8.1: invalid-utf8-fails
pub fn bad_utf8_late_in_a_text_gets_1007(target: &Target) {
    let server = target.start(&[]);
    for at in [4096, 70_000, 299_999] {
        for cut in [14, 65_536, 200_000] {
            let mut pair = Pair::of(&server);
            let mut text = vec![b'a'; 300_000];
            text[at] = 0xff;
            pair.send(&wire::masked(FIN | TEXT, &text), &[cut]);
            pair.raw.expect_close(1007);
        }
    }
}
