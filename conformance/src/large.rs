//! Large messages, whole and in fragments, cut where a server may go over from one way of receiving
//! to another: nothing is lost, doubled or out of order there.

use super::client::Raw;
use super::frames::pattern;
use super::harness::{Server, Target};
use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};

/// Sizes on both sides of what a receive buffer or a piece of a message may hold.
const SIZES: [usize; 9] = [
    4096,
    16 << 10,
    65_535,
    65_536,
    128 << 10,
    (256 << 10) + 1,
    512 << 10,
    1 << 20,
    (3 << 20) + 5,
];
/// How much of a stream arrives before there is a pause: within a header, right behind one, and
/// around the sizes of buffers.
const CUTS: [usize; 15] = [
    1, 2, 9, 13, 14, 15, 4096, 4103, 16_384, 65_535, 65_536, 65_550, 262_144, 524_288, 1_048_580,
];

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
                    bytes.extend(wire::masked(FIN | PING, b"between"));
                    pings += 1;
                }
            }
            bytes.extend(wire::text("and a short one"));
            for cuts in [&[][..], &CUTS, &CUTS[4..], &CUTS[6..9]] {
                pair.send(&bytes, cuts);
                for _ in 0..pings {
                    pair.raw.expect(PONG, b"between");
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
