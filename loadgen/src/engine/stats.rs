//! What one thread counts and records.

use serde::{Deserialize, Serialize};

use crate::{
    engine::{
        arrivals::Begun,
        lives::LifeStats,
        second::SecondPart,
        shared::{Shared, Times},
    },
    histogram::{self, Latencies},
    record::{Messages, Subprotocols, Totals},
    wire,
};

const SECOND_NS: u64 = 1_000_000_000;

/// One thread's counters and histograms. A shard sends only the fields that are not in [`Latest`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Messages of the measured window. `expected`, `lost` and `unsent` are worked out when the
    /// threads are merged.
    pub window: Messages,
    /// Messages of the whole run.
    pub totals: Totals,
    /// What was chosen of the subprotocols offered.
    pub subprotocols: Subprotocols,
    /// Kind `connect`: connections that exchanged messages.
    pub lives: LifeStats,
    /// Pings answered inside the window.
    pub pings_in_window: u64,
    /// Window messages that got a reply of whatever content.
    pub settled: u64,
    /// Messages of the whole run that got a reply of whatever content.
    pub settled_in_all: u64,
    /// Window messages due by the schedule, sent or not.
    pub due: u64,
    /// Replies received inside the window, whenever they were sent.
    pub replies_in_window: u64,
    /// Time that answered requests spent in flight inside the window, summed up.
    pub in_flight_ns: u128,
    /// The number of the window's messages in flight, integrated over time: less the clock at every
    /// send, plus the clock at every reply. It knows nothing of which reply belongs to which
    /// message, so it can be held against their latencies.
    pub outstanding_ns: i128,
    /// From the send that counts (intended in an open loop): this second, and all seconds before.
    #[serde(skip, default = "histogram::new")]
    interval: Latencies,
    #[serde(skip, default = "histogram::new")]
    main: Latencies,
    /// From the actual send, when that is not the one that counts.
    #[serde(skip)]
    actual: Option<Latencies>,
    /// Of `main` and `interval` those to connections that are not hot, where some are.
    #[serde(skip)]
    others: Option<Latencies>,
    /// How late messages were sent that had a free place.
    #[serde(with = "wire::latencies")]
    pub lag: Latencies,
    /// Handshakes.
    #[serde(with = "wire::latencies")]
    pub handshakes: Latencies,
    #[serde(skip)]
    seconds: Vec<SecondPart>,
    #[serde(skip)]
    current: SecondPart,
}

/// Histograms and series of a thread that has finished.
#[derive(Debug, Serialize, Deserialize)]
pub struct Latest {
    /// From the send that counts.
    #[serde(with = "wire::latencies")]
    pub main: Latencies,
    /// From the actual send, in an open loop.
    #[serde(with = "wire::latencies_if_any")]
    pub actual: Option<Latencies>,
    /// Of `main` those to connections that are not hot, where some are.
    #[serde(with = "wire::latencies_if_any")]
    pub others: Option<Latencies>,
    /// One entry per second.
    pub seconds: Vec<SecondPart>,
}

impl Latest {
    /// The histograms of another thread, or of another slice, but not the series.
    pub fn add(&mut self, other: &Self) {
        histogram::merge(&mut self.main, &other.main);
        for (sum, part) in [
            (&mut self.actual, &other.actual),
            (&mut self.others, &other.others),
        ] {
            if let Some(part) = part {
                histogram::merge(sum.get_or_insert_with(histogram::new), part);
            }
        }
    }
}

impl Stats {
    /// Empty; `open_loop`: latencies are recorded from two send times.
    pub fn new(open_loop: bool) -> Self {
        Self {
            window: Messages::default(),
            totals: Totals::default(),
            subprotocols: Subprotocols::default(),
            lives: LifeStats::default(),
            pings_in_window: 0,
            settled: 0,
            settled_in_all: 0,
            due: 0,
            replies_in_window: 0,
            in_flight_ns: 0,
            outstanding_ns: 0,
            interval: histogram::new(),
            main: histogram::new(),
            actual: open_loop.then(histogram::new),
            others: None,
            lag: histogram::new(),
            handshakes: histogram::new(),
            seconds: Vec::new(),
            current: SecondPart::default(),
        }
    }

    /// What another thread counted, or this one in another slice.
    pub fn add(&mut self, other: &Self) {
        let (sum, window) = (&mut self.window, &other.window);
        sum.sent += window.sent;
        sum.received += window.received;
        sum.duplicated += window.duplicated;
        sum.reordered += window.reordered;
        sum.corrupted += window.corrupted;
        sum.unsolicited += window.unsolicited;
        sum.received_payload_bytes += window.received_payload_bytes;
        sum.delayed_by_window += window.delayed_by_window;
        let (sum, totals) = (&mut self.totals, &other.totals);
        sum.sent += totals.sent;
        sum.received += totals.received;
        sum.pings_answered += totals.pings_answered;
        sum.pings_unanswered += totals.pings_unanswered;
        sum.handshakes += totals.handshakes;
        self.subprotocols.add(&other.subprotocols);
        self.lives.add(&other.lives);
        self.pings_in_window += other.pings_in_window;
        self.settled += other.settled;
        self.settled_in_all += other.settled_in_all;
        self.due += other.due;
        self.replies_in_window += other.replies_in_window;
        self.in_flight_ns += other.in_flight_ns;
        self.outstanding_ns += other.outstanding_ns;
        histogram::merge(&mut self.lag, &other.lag);
        histogram::merge(&mut self.handshakes, &other.handshakes);
    }

    /// What came after the drain: too late for the window, and so lost.
    pub fn add_late(&mut self, mut late: Self) {
        late.settled = 0;
        late.lives.drop_replies();
        late.window.received = 0;
        late.window.received_payload_bytes = 0;
        self.add(&late);
    }

    /// `count` messages were sent at `now`; they belong where `meant` (the intended or else the
    /// actual send) lies.
    #[inline]
    pub fn sent(&mut self, times: &Times, now: u64, meant: u64, count: u64) {
        self.totals.sent += count;
        if times.contain(meant) {
            self.outstanding_ns -= i128::from(now) * i128::from(count);
            self.window.sent += count;
            self.current.sent += count;
        }
    }

    /// Kind `connect`: a handshake is done. It is counted and timed like a message with its reply,
    /// and belongs where its begin (the intended or else the actual one) lies.
    pub fn handshake(&mut self, times: &Times, now: u64, begun: Begun) {
        if times.contain(begun.meant) {
            self.window.sent += 1;
            self.current.sent += 1;
        }
        self.reply(times, now, begun.meant, begun.at, 1);
    }

    /// The pongs of `pings` pings have left.
    pub fn pinged(&mut self, times: &Times, now: u64, pings: u64) {
        self.totals.pings_answered += pings;
        if times.contain(now) {
            self.pings_in_window += pings;
        }
    }

    /// The first replies to `count` messages with these times arrived at `now`, verified.
    #[inline]
    pub fn reply(&mut self, times: &Times, now: u64, meant: u64, sent: u64, count: u64) {
        self.settled_in_all += count;
        if times.contain(now) {
            self.replies_in_window += count;
        }
        if now >= times.from {
            self.current.received += count;
        }
        if times.contain(meant) {
            self.settled += count;
            self.outstanding_ns += i128::from(now) * i128::from(count);
            self.window.received += count;
            histogram::record_many(&mut self.interval, now.saturating_sub(meant), count);
            if let Some(actual) = &mut self.actual {
                histogram::record_many(actual, now.saturating_sub(sent), count);
            }
        }
    }

    /// [Replies](Self::reply) came to a connection that is not hot.
    #[inline]
    pub fn reply_of_others(&mut self, times: &Times, now: u64, meant: u64, count: u64) {
        if times.contain(meant) {
            let others = self.others.get_or_insert_with(histogram::new);
            histogram::record_many(others, now.saturating_sub(meant), count);
        }
    }

    /// `count` requests sent at `sent` are answered. What of their flight lies inside the window
    /// counts, also of one sent before it or answered after it: so the sum has no edges.
    #[inline]
    pub fn landed(&mut self, times: &Times, now: u64, sent: u64, count: u64) {
        self.in_flight_ns += u128::from(times.overlap(sent, now)) * u128::from(count);
    }

    /// A reply with wrong content arrived, taken for the answer to the message meant at `meant`, if
    /// one was in flight.
    pub fn corrupted(&mut self, times: &Times, meant: Option<u64>) {
        self.window.corrupted += 1;
        if let Some(meant) = meant {
            self.settled_in_all += 1;
            if times.contain(meant) {
                self.settled += 1;
            }
        }
    }

    /// A message was sent `late` after it was due, although it could have been sent at once.
    #[inline]
    pub fn scheduled(&mut self, times: &Times, meant: u64, now: u64) {
        if times.contain(meant) {
            histogram::record(&mut self.lag, now.saturating_sub(meant));
        }
    }

    /// Closes the seconds that are over.
    pub fn roll(&mut self, times: &Times, now: u64, shared: &Shared) {
        while now
            >= times
                .from
                .saturating_add((self.seconds.len() as u64 + 1) * SECOND_NS)
        {
            self.close_second(shared);
        }
    }

    fn close_second(&mut self, shared: &Shared) {
        let mut second = std::mem::take(&mut self.current);
        if !self.interval.is_empty() {
            second.latencies = histogram::pack(&self.interval);
            histogram::merge(&mut self.main, &self.interval);
        }
        shared.second_closed(self.seconds.len() as u64, &second, &self.interval);
        if !self.interval.is_empty() {
            self.interval.reset();
        }
        self.seconds.push(second);
    }

    /// The end: everything that is left goes into the last second.
    pub fn finish(&mut self, shared: &Shared) -> Latest {
        if self.current != SecondPart::default() || !self.interval.is_empty() {
            self.close_second(shared);
        }
        Latest {
            main: std::mem::replace(&mut self.main, histogram::new()),
            actual: self.actual.take(),
            others: self.others.take(),
            seconds: std::mem::take(&mut self.seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn flights_are_cut_at_the_edges_of_the_window() {
        let mut stats = Stats::new(false);
        for (sent, now, expected) in [
            (0, 10, 0),
            (SECOND_NS - 5, SECOND_NS + 5, 5),
            (SECOND_NS, SECOND_NS + 7, 7),
            (3 * SECOND_NS - 3, 4 * SECOND_NS, 3),
            (3 * SECOND_NS, 4 * SECOND_NS, 0),
        ] {
            stats.in_flight_ns = 0;
            stats.landed(&TIMES, now, sent, 1);
            assert_eq!(stats.in_flight_ns, expected);
        }
    }

    const TIMES: Times = Times {
        start: 0,
        from: SECOND_NS,
        to: 3 * SECOND_NS,
    };

    #[test]
    fn pings_count_in_all_and_inside_the_window() {
        let times = Times {
            start: 50,
            from: 100,
            to: 200,
        };
        let mut stats = Stats::new(true);
        for now in [50, 100, 199, 200] {
            stats.pinged(&times, now, 1);
        }
        assert_eq!(stats.totals.pings_answered, 4);
        assert_eq!(stats.pings_in_window, 2);
    }

    #[test]
    fn a_reply_after_the_drain_stays_lost() {
        let (mut stats, mut late) = (Stats::new(false), Stats::new(false));
        let sent = SECOND_NS + 10;
        stats.sent(&TIMES, sent, sent, 1);
        late.reply(&TIMES, 9 * SECOND_NS, sent, sent, 1);
        late.totals.received = 1;
        late.window.duplicated = 1;
        stats.add_late(late);
        assert_eq!((stats.window.sent, stats.window.received), (1, 0));
        assert_eq!((stats.settled, stats.settled_in_all), (0, 1));
        assert_eq!((stats.totals.received, stats.window.duplicated), (1, 1));
    }

    #[test]
    fn warm_up_is_left_out_and_the_drain_kept() {
        let shared = Shared::new(1, Duration::ZERO, Duration::ZERO, false);
        let mut stats = Stats::new(true);
        stats.sent(&TIMES, 20, 10, 1);
        stats.reply(&TIMES, SECOND_NS + 5, 10, 20, 1);
        stats.sent(&TIMES, SECOND_NS + 30, SECOND_NS + 10, 1);
        stats.roll(&TIMES, 3 * SECOND_NS + 50, &shared);
        stats.reply(
            &TIMES,
            3 * SECOND_NS + 50,
            SECOND_NS + 10,
            SECOND_NS + 30,
            1,
        );
        let latest = stats.finish(&shared);
        assert_eq!(stats.totals.sent, 2);
        assert_eq!((stats.window.sent, stats.window.received), (1, 1));
        assert_eq!(stats.replies_in_window, 1);
        assert_eq!(stats.outstanding_ns, 2 * i128::from(SECOND_NS) + 20);
        assert_eq!(latest.main.len(), 1);
        assert_eq!(
            latest.main.max(),
            latest.main.highest_equivalent(2 * SECOND_NS + 40)
        );
        assert_eq!(latest.actual.unwrap().len(), 1);
        let received: Vec<u64> = latest
            .seconds
            .iter()
            .map(|second| second.received)
            .collect();
        assert_eq!(received, [1, 0, 1]);
    }
}
