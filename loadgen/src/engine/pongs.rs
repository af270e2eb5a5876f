//! Pongs on their way, of the few connections that have any.
//!
//! A server that pings and does not read would otherwise make this process keep a pong for each of
//! its pings. RFC 6455, section 5.5.3 asks for less: of several pings without an answer the last
//! one may be answered alone.

use std::collections::HashMap;

use ws_proto::{Control, OpCode, encode_masked_frame, random_key};

/// From so many bytes of waiting pongs on, 125 of the largest, a ping is put off.
pub(super) const MOST_WAITING_BYTES: usize = 16 << 10;

/// Counts of pongs, by connection.
#[derive(Debug, Default)]
pub(super) struct Pongs {
    by_conn: HashMap<u32, OnTheirWay>,
}

#[derive(Debug, Default)]
struct OnTheirWay {
    /// Behind the send in flight.
    waiting: u64,
    waiting_bytes: usize,
    /// In the send in flight.
    being_sent: u64,
    /// The last ping, if it found too many pongs waiting.
    put_off: Option<Vec<u8>>,
}

impl Pongs {
    /// Appends the pong for a ping to `out`, or puts it off. A ping that had been put off before
    /// gets no pong of its own then: 1, otherwise 0.
    pub(super) fn answer(&mut self, conn: usize, payload: &[u8], out: &mut Vec<u8>) -> u64 {
        let pongs = self.by_conn.entry(conn as u32).or_default();
        if pongs.waiting_bytes < MOST_WAITING_BYTES {
            pongs.append(payload, out);
            return 0;
        }
        match &mut pongs.put_off {
            Some(last) => {
                last.clear();
                last.extend_from_slice(payload);
                1
            }
            None => {
                pongs.put_off = Some(payload.to_vec());
                0
            }
        }
    }

    /// What waited is being sent.
    pub(super) fn sending(&mut self, conn: usize) {
        if let Some(pongs) = self.by_conn.get_mut(&(conn as u32)) {
            pongs.being_sent = std::mem::take(&mut pongs.waiting);
            pongs.waiting_bytes = 0;
        }
    }

    /// The send is over. How many pongs were in it; one that was put off goes to `out`.
    pub(super) fn sent(&mut self, conn: usize, out: &mut Vec<u8>) -> u64 {
        let Some(pongs) = self.by_conn.get_mut(&(conn as u32)) else {
            return 0;
        };
        if let Some(payload) = pongs.put_off.take() {
            pongs.append(&payload, out);
        }
        let sent = std::mem::take(&mut pongs.being_sent);
        if pongs.waiting == 0 {
            self.forget(conn);
        }
        sent
    }

    /// Whether `conn` has pongs on their way.
    pub(super) fn has(&self, conn: usize) -> bool {
        self.by_conn.contains_key(&(conn as u32))
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: usize) {
        self.by_conn.remove(&(conn as u32));
    }
}

impl OnTheirWay {
    fn append(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let before = out.len();
        encode_masked_frame(OpCode::Control(Control::Pong), payload, random_key(), out);
        self.waiting += 1;
        self.waiting_bytes += out.len() - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_answered_with_what_has_room_and_the_last_one() {
        let (mut pongs, mut out) = (Pongs::default(), Vec::new());
        let flood = |pongs: &mut Pongs, out: &mut Vec<u8>| {
            (0..10_000_u32).fold(0, |without, number| {
                without + pongs.answer(7, &number.to_be_bytes(), out)
            })
        };
        let without = flood(&mut pongs, &mut out);
        let frame = 2 + 4 + 4;
        let waiting = MOST_WAITING_BYTES.div_ceil(frame);
        assert_eq!(out.len(), waiting * frame);
        assert_eq!(without, 10_000 - waiting as u64 - 1);
        // A send takes them; as many wait behind it again.
        pongs.sending(7);
        out.clear();
        flood(&mut pongs, &mut out);
        assert_eq!(out.len(), waiting * frame);
        out.clear();
        assert_eq!(pongs.sent(7, &mut out), waiting as u64);
        let pong = &mut out[..];
        let key = [pong[2], pong[3], pong[4], pong[5]];
        ws_proto::mask(&mut pong[6..], key);
        assert_eq!(pong[6..], 9_999_u32.to_be_bytes(), "the last ping");
        pongs.sending(7);
        assert_eq!(pongs.sent(7, &mut out), waiting as u64 + 1);
        assert!(!pongs.has(7));
    }
}
