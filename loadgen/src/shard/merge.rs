//! What is left of a shard that died.

use std::collections::BTreeMap;

use crate::{
    engine::{
        second::SecondPart,
        shared::{ClosedSecond, Times},
        stats::{Latest, Stats},
        worker::{Outcome, ThreadResult},
    },
    histogram::{self, Latencies},
    record::ThreadUsage,
    shard::protocol::Gauges,
};

/// The seconds that a shard has reported, of each of its threads. As they came, packed: fifty
/// shards tell of fifty histograms a second.
#[derive(Debug, Default)]
pub(super) struct PartialResult {
    seconds: BTreeMap<u64, Vec<SecondPart>>,
}

impl PartialResult {
    /// One more part; gives its latencies back.
    pub(super) fn add(&mut self, (second, part): ClosedSecond) -> Latencies {
        let latencies = unpack(&part);
        self.seconds.entry(second).or_default().push(part);
        latencies
    }

    /// As if the shard had ended after the last second it reported: its connections are lost from
    /// there on.
    pub(super) fn into_result(
        self,
        connections: u64,
        gauges: Gauges,
        times: &Times,
        open_loop: bool,
    ) -> ThreadResult {
        let mut stats = Stats::new(open_loop);
        let mut main = histogram::new();
        let window_seconds = times.to.saturating_sub(times.from).div_ceil(1_000_000_000);
        let last = self.seconds.keys().last().map_or(0, |last| last + 1);
        let mut seconds = vec![SecondPart::default(); last as usize];
        for (second, parts) in self.seconds {
            let (sum, mut all) = (&mut seconds[second as usize], histogram::new());
            for part in parts {
                sum.sent += part.sent;
                sum.received += part.received;
                histogram::merge(&mut all, &unpack(&part));
            }
            stats.window.sent += sum.sent;
            if second < window_seconds {
                stats.replies_in_window += sum.received;
            }
            histogram::merge(&mut main, &all);
            sum.latencies = histogram::pack(&all);
        }
        stats.window.received = main.len();
        stats.settled = main.len();
        stats.settled_in_all = main.len();
        stats.due = stats.window.sent;
        stats.totals.sent = gauges.sent.max(stats.window.sent);
        stats.totals.received = gauges.received.max(main.len());
        stats.totals.handshakes = gauges.opened;
        let had_begun = times.start != u64::MAX;
        ThreadResult {
            stats,
            latest: Latest {
                main,
                actual: open_loop.then(histogram::new),
                others: None,
                seconds,
            },
            outcome: Outcome::of_the_dead(if had_begun {
                gauges.opened.min(connections)
            } else {
                0
            }),
            usage: ThreadUsage {
                connections,
                ..ThreadUsage::default()
            },
            opening: None,
        }
    }
}

fn unpack(part: &SecondPart) -> Latencies {
    let mut latencies = histogram::new();
    if !part.latencies.is_empty() {
        histogram::add_packed(&mut latencies, &part.latencies);
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reported_is_kept() {
        let part = |values: &[u64]| {
            let mut latencies = histogram::new();
            values
                .iter()
                .for_each(|value| histogram::record(&mut latencies, *value));
            SecondPart {
                sent: 5,
                received: values.len() as u64,
                latencies: histogram::pack(&latencies),
            }
        };
        let mut partial = PartialResult::default();
        for second in [(0, part(&[10, 20])), (0, part(&[30])), (2, part(&[40]))] {
            partial.add(second);
        }
        let times = Times {
            start: 0,
            from: 0,
            to: 10_000_000_000,
        };
        let gauges = Gauges {
            up: 0,
            opened: 7,
            sent: 30,
            received: 9,
        };
        let result = partial.into_result(8, gauges, &times, false);
        assert_eq!(
            (result.stats.window.sent, result.stats.window.received),
            (15, 4)
        );
        assert_eq!(
            (result.stats.totals.sent, result.stats.totals.received),
            (30, 9)
        );
        assert_eq!((result.outcome.up, result.outcome.closed_early), (7, 7));
        let received: Vec<u64> = result
            .latest
            .seconds
            .iter()
            .map(|second| second.received)
            .collect();
        assert_eq!(received, [3, 0, 1]);
        assert_eq!(result.latest.main.max(), 40);
    }
}
