//! The schedule of an open loop: a pure function of elapsed time and count.
//!
//! Message `k` of a thread belongs to its stream (connection or publisher) `k mod streams` and is
//! due at `phase + k / rate`. Nothing is ever pushed back: what a slow server makes late stays
//! late, and its intended time can be computed at any later moment. That is why a backlog needs no
//! queue and why there is no coordinated omission.

/// One thread's share of a schedule. Times are nanoseconds since the begin of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacer {
    /// `interval_num / interval_den` nanoseconds lie between two messages.
    interval_num: u128,
    interval_den: u128,
    phase_ns: u64,
}

impl Pacer {
    /// The schedule of a thread that owns `share` of `streams` in a total of `rate_per_s`; the
    /// threads are `thread` in order, and each starts one message of the total later than the one
    /// before it.
    ///
    /// `rate_per_s` counts in thousandths. `None` when there is nothing to send: no rate or no
    /// streams.
    pub fn new(rate_per_s: f64, share: usize, streams: usize, thread: usize) -> Option<Self> {
        Self::weighted(rate_per_s, share as u128, streams as u128, thread)
    }

    /// The same for a thread whose part of the total is `share` in `streams`, whatever these count.
    pub fn weighted(rate_per_s: f64, share: u128, streams: u128, thread: usize) -> Option<Self> {
        let rate_milli = (rate_per_s * 1e3).round();
        // NaN fails the comparison too.
        if !(1.0..=1e15).contains(&rate_milli) || share == 0 || streams == 0 {
            return None;
        }
        let rate_milli = rate_milli as u128;
        let total_interval_num = 1_000_000_000_000_u128;
        Some(Self {
            interval_num: total_interval_num * streams,
            interval_den: rate_milli * share,
            phase_ns: u64::try_from(total_interval_num * thread as u128 / rate_milli)
                .unwrap_or(u64::MAX),
        })
    }

    /// When message `k` is due.
    pub fn due_at_ns(&self, k: u64) -> u64 {
        // Rounded up, so that `due` (rounded down) counts a message exactly from its time on.
        let ns = (u128::from(k) * self.interval_num).div_ceil(self.interval_den);
        u64::try_from(ns)
            .unwrap_or(u64::MAX)
            .saturating_add(self.phase_ns)
    }

    /// How many messages are due at `elapsed_ns`, that moment included: messages `0..due`.
    pub fn due(&self, elapsed_ns: u64) -> u64 {
        let Some(since_phase) = elapsed_ns.checked_sub(self.phase_ns) else {
            return 0;
        };
        let whole = u128::from(since_phase) * self.interval_den / self.interval_num;
        u64::try_from(whole + 1).unwrap_or(u64::MAX)
    }

    /// How many messages are due before `elapsed_ns`.
    pub fn due_before(&self, elapsed_ns: u64) -> u64 {
        elapsed_ns.checked_sub(1).map_or(0, |last| self.due(last))
    }
}

/// How many of the messages `0..due` belong to stream `stream` of `streams`.
pub fn stream_due(due: u64, stream: usize, streams: usize) -> u64 {
    let (stream, streams) = (stream as u64, streams as u64);
    due.saturating_sub(stream).div_ceil(streams)
}

/// The place in the thread's schedule of message `seq` of a stream; of a number that nobody can
/// have sent, the last place.
pub fn schedule_index(seq: u64, stream: usize, streams: usize) -> u64 {
    seq.saturating_mul(streams as u64)
        .saturating_add(stream as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn table() {
        // (rate, share, streams, thread) -> due at 0 ms, 1 ms, 10 ms, 1 s
        for (args, expected) in [
            ((1_000.0, 1, 1, 0), [1, 2, 11, 1_001]),
            ((1_000.0, 1, 2, 0), [1, 1, 6, 501]),
            // The second of two threads starts one message of the total (1 ms) later.
            ((1_000.0, 1, 2, 1), [0, 1, 5, 500]),
            ((0.5, 1, 1, 0), [1, 1, 1, 1]),
            ((3.0, 1, 1, 0), [1, 1, 1, 4]),
            ((1_000_000.0, 4, 4, 0), [1, 1_001, 10_001, 1_000_001]),
            ((7.0, 3, 10, 0), [1, 1, 1, 3]),
        ] {
            let (rate, share, streams, thread) = args;
            let pacer = Pacer::new(rate, share, streams, thread).unwrap();
            let due = [0, MS, 10 * MS, 1_000 * MS].map(|at| pacer.due(at));
            assert_eq!(due, expected, "{args:?}");
        }
    }

    #[test]
    fn nothing_to_send() {
        assert_eq!(Pacer::new(0.0, 1, 1, 0), None);
        assert_eq!(Pacer::new(f64::NAN, 1, 1, 0), None);
        assert_eq!(Pacer::new(10.0, 0, 1, 0), None);
    }

    #[test]
    fn streams_take_turns() {
        let counts: Vec<u64> = (0..3).map(|stream| stream_due(7, stream, 3)).collect();
        assert_eq!(counts, [3, 2, 2]);
        assert_eq!(schedule_index(2, 1, 3), 7);
        assert_eq!(stream_due(0, 0, 3), 0);
    }

    #[test]
    fn before_excludes_the_moment_itself() {
        let pacer = Pacer::new(1_000.0, 1, 1, 0).unwrap();
        assert_eq!(pacer.due_before(0), 0);
        assert_eq!(pacer.due_before(MS), 1);
        assert_eq!(pacer.due(MS), 2);
    }

    proptest! {
        #[test]
        fn due_and_due_at_are_inverse(
            rate in 0.001_f64..20_000_000.0,
            share in 1_usize..50,
            more in 0_usize..50,
            thread in 0_usize..8,
            k in 0_u64..1_000_000_000,
        ) {
            let pacer = Pacer::new(rate, share, share + more, thread).unwrap();
            let at = pacer.due_at_ns(k);
            prop_assert!(pacer.due(at) > k, "message {k} is due at its own time");
            prop_assert!(pacer.due_before(at) <= k, "and not before");
            prop_assert!(pacer.due_at_ns(k + 1) >= at);
        }

        #[test]
        fn threads_add_up_to_the_rate(
            rate in 1.0_f64..1_000_000.0,
            threads in 1_usize..9,
            each in 1_usize..100,
        ) {
            let total: u64 = (0..threads)
                .map(|thread| Pacer::new(rate, each, each * threads, thread).unwrap())
                .map(|pacer| pacer.due(10_000 * MS))
                .sum();
            let expected = 10.0 * rate;
            prop_assert!(
                (total as f64 - expected).abs() <= threads as f64 + 1.0,
                "{total} against {expected}"
            );
        }

        #[test]
        fn every_message_belongs_to_one_stream(due in 0_u64..10_000, streams in 1_usize..100) {
            let sum: u64 = (0..streams).map(|stream| stream_due(due, stream, streams)).sum();
            prop_assert_eq!(sum, due);
            for stream in 0..streams {
                let count = stream_due(due, stream, streams);
                prop_assert!(schedule_index(count, stream, streams) >= due);
                prop_assert!(count == 0 || schedule_index(count - 1, stream, streams) < due);
            }
        }
    }
}
