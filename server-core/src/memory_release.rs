//! Memory goes back to the system when most connections have left, or much traffic has ended.
//!
//! Tables grow with the connections and are kept for the next ones. After each round of the sweep a
//! worker asks its [`IdleShrink`] whether to shrink them. Freed memory first returns to the
//! allocator: mimalloc looks for memory that it no longer needs only while a thread
//! allocates, and gives it back no sooner than a second later: a server to which nobody connects
//! any more would keep all of it. Hence [`collect`], when the tables have shrunk, and again when
//! that second has passed.

use std::hint;
use std::time::{Duration, Instant};

/// With fewer connections gone there is little to give back.
const WORTH_IT: usize = 512;
/// Memory is given back when at most one of so many connections is left.
const ONE_LEFT_OF: usize = 4;
/// Much traffic is more than this in a round of the sweep; it has ended with a round of less.
const QUIET_BYTES: u64 = 64 * 1024;
/// How long the allocator keeps what was freed: `mi_option_purge_delay`, a second, and some more
/// for its clock.
const KEPT_FOR: Duration = Duration::from_millis(1200);
/// How often memory is given back: a thread may have found some only when the others gave theirs.
const COLLECTIONS: u32 = 2;
/// mimalloc takes stock of a thread's memory once in 1,000 allocations that are not small: a page
/// in which nothing is goes after 16 times, and every 10,000 (`mi_option_generic_collect`) it looks
/// at all pages and gives back what is due.
const ALLOCATIONS: usize = 20_000;
/// Not small: above `MI_SMALL_SIZE_MAX`.
const ALLOCATION_BYTES: usize = 2048;

/// What a worker is to do about its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Shrink its tables to what they hold, then as [`Collect`](Self::Collect).
    Shrink,
    /// Free spare buffers, then [`collect`].
    Collect,
}

/// Observes how many connections a worker has, and how much they send and receive.
#[derive(Debug, Default)]
pub struct IdleShrink {
    /// The most there were since memory was given back.
    most: usize,
    /// How many there were last.
    last: usize,
    /// Bytes received and sent until the last round.
    bytes: u64,
    /// There was much traffic since memory was given back.
    busy: bool,
    /// When something was last said, and how often [`Step::Collect`] is still to follow.
    said: Option<(Instant, u32)>,
}

impl IdleShrink {
    /// At the end of a round of the sweep, with `open` connections, which have received and sent
    /// `bytes` bytes since the server started.
    pub fn step(&mut self, open: usize, bytes: u64, now: Instant) -> Step {
        let going = open < self.last;
        let quiet = bytes.saturating_sub(self.bytes) <= QUIET_BYTES;
        self.last = open;
        self.bytes = bytes;
        self.busy |= !quiet;
        self.most = self.most.max(open);
        if let Some((at, left)) = self.said {
            if now.duration_since(at) < KEPT_FOR {
                return Step::Keep;
            }
            self.said = (left > 1).then_some((now, left - 1));
            return Step::Collect;
        }
        // A worker that is still losing connections has soon more to give back.
        let gone = !going && self.most - open >= WORTH_IT && open <= self.most / ONE_LEFT_OF;
        let calm = quiet && self.busy;
        if !gone && !calm {
            return Step::Keep;
        }
        self.busy = false;
        self.said = Some((now, COLLECTIONS));
        if !gone {
            return Step::Collect;
        }
        self.most = open;
        Step::Shrink
    }
}

/// Has the allocator look for memory that this thread no longer needs, and give back what it has
/// found more than a second ago. About a millisecond of CPU time.
pub fn collect() {
    for _ in 0..ALLOCATIONS {
        drop(hint::black_box(Vec::<u8>::with_capacity(ALLOCATION_BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said when there are these many connections, at rounds of a second each.
    fn steps(open: &[usize]) -> Vec<Step> {
        let (mut memory_release, start) = (IdleShrink::default(), Instant::now());
        let at =
            |(second, &open)| memory_release.step(open, 0, start + Duration::from_secs(second));
        (0..).zip(open).map(at).collect()
    }

    #[test]
    fn memory_is_given_back_once_when_connections_have_stopped_leaving() {
        use Step::{Collect, Keep, Shrink};
        assert_eq!(
            steps(&[1000, 500, 100, 100, 100, 100, 100, 100, 100]),
            [Keep, Keep, Keep, Shrink, Keep, Collect, Keep, Collect, Keep]
        );
        // Again after the next flood, smaller than the first.
        assert_eq!(
            steps(&[9000, 0, 0, 0, 0, 700, 700, 0, 0, 0]),
            [
                Keep, Keep, Shrink, Keep, Collect, Keep, Collect, Keep, Shrink, Keep
            ]
        );
    }

    #[test]
    fn memory_is_given_back_when_much_traffic_has_ended() {
        use Step::{Collect, Keep};
        let (mut idle_shrink, start) = (IdleShrink::default(), Instant::now());
        let kib = [0, 60, 120, 900, 900, 900, 900, 900, 900, 960, 1500, 1500];
        let at = |(second, kib): (u64, u64)| {
            idle_shrink.step(1, kib << 10, start + Duration::from_secs(second))
        };
        let said: Vec<_> = (0..).zip(kib).map(at).collect();
        let once = [Collect, Keep, Collect, Keep, Collect];
        let wanted = [&[Keep; 4][..], &once, &[Keep; 2], &[Collect]].concat();
        assert_eq!(said, wanted);
    }

    #[test]
    fn as_many_as_before_or_few_keep_their_memory() {
        for open in [[1000, 400, 400, 400], [600, 100, 100, 100], [0, 9, 0, 0]] {
            assert_eq!(steps(&open), [Step::Keep; 4], "{open:?}");
        }
    }
}
