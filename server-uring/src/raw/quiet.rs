//! Sends of the same messages to many members that say nothing where the socket takes everything:
//! most of them.
//!
//! A quiet send that was started in one turn is settled in the next, when all completions have been
//! taken: it has gone as a whole, unless one of them said otherwise.

use server_core::counters::LocalCounters;
use server_core::rooms::Frames;
use uring_net::Ring;

/// The quiet sends of a worker that may not be settled.
#[derive(Debug, Default)]
pub(crate) struct QuietSends {
    /// What they send.
    frames: Vec<Frames>,
    /// What has been sent, if no completion says otherwise.
    messages: u64,
    bytes: u64,
    /// The first turn whose sends are not settled.
    unsettled: u32,
}

impl QuietSends {
    /// These frames are to be sent to many members; what [`taken_back`](Self::taken_back) calls
    /// them by.
    pub(crate) fn begin(&mut self, frames: &Frames) {
        self.frames.push(frames.clone());
    }

    /// One member is sent the frames that were begun last; the name of those.
    #[inline]
    pub(crate) fn count(&mut self, frames: &Frames) -> u32 {
        self.messages += u64::from(frames.messages);
        self.bytes += frames.bytes.len() as u64;
        self.frames.len() as u32
    }

    /// A member was sent only `bytes` bytes of the frames with this name: those, which do not count
    /// as sent, and neither do the other bytes.
    pub(crate) fn taken_back(&mut self, name: u32, bytes: usize) -> Option<Frames> {
        let frames = self.frames.get((name as usize).checked_sub(1)?)?;
        self.messages -= u64::from(frames.messages);
        self.bytes -= (frames.bytes.len() - bytes) as u64;
        Some(frames.clone())
    }

    /// Whether there are some.
    pub(crate) fn are_unsettled(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether a quiet send of turn `since` is settled in the turn `now`.
    #[inline]
    pub(crate) fn is_settled(&self, since: u32, now: u32) -> bool {
        now.wrapping_sub(since) > now.wrapping_sub(self.unsettled)
    }

    /// All completions of the turn `now` have been taken, before a send was started in it.
    pub(crate) fn settle(&mut self, ring: &Ring, now: u32, counters: &mut LocalCounters) {
        // Otherwise the kernel was short of memory: they are settled some turns later.
        if ring.has_settled() {
            self.unsettled = now;
            self.frames.clear();
            counters.messages_sent += std::mem::take(&mut self.messages);
            counters.bytes_sent += std::mem::take(&mut self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use server_core::rooms::FrameBuilder;
    use ws_proto::Kind;

    use super::*;

    fn frames(payloads: &[&[u8]]) -> Frames {
        let mut builder = FrameBuilder::default();
        for payload in payloads {
            builder.push(Kind::Binary, payload);
        }
        builder.take().unwrap()
    }

    #[test]
    fn what_the_socket_did_not_take_does_not_count() {
        let ring = Ring::builder().build().unwrap();
        let (mut quiet, mut counters) = (QuietSends::default(), LocalCounters::default());
        let (two, one) = (frames(&[b"a", b"b"]), frames(&[b"c"]));
        quiet.begin(&two);
        quiet.count(&two);
        let name = quiet.count(&two);
        quiet.begin(&one);
        quiet.count(&one);
        assert!(quiet.are_unsettled());
        assert_eq!(quiet.taken_back(name, 4), Some(two));
        quiet.settle(&ring, 7, &mut counters);
        assert_eq!(
            (counters.messages_sent, counters.bytes_sent),
            (3, 6 + 4 + 3)
        );
        assert!(!quiet.are_unsettled());
        assert_eq!(quiet.taken_back(name, 0), None);
    }

    #[test]
    fn a_send_is_settled_in_the_next_turn_also_when_their_number_begins_anew() {
        let ring = Ring::builder().build().unwrap();
        let (mut quiet, mut counters) = (QuietSends::default(), LocalCounters::default());
        for turn in [5, u32::MAX, 0] {
            quiet.settle(&ring, turn, &mut counters);
            assert!(!quiet.is_settled(turn, turn));
            let next = turn.wrapping_add(1);
            assert!(
                !quiet.is_settled(turn, next),
                "completions have not been taken"
            );
            quiet.settle(&ring, next, &mut counters);
            assert!(quiet.is_settled(turn, next));
        }
    }
}
