//! How a published message spread over the members: first, median and last receiver.
//!
//! Each thread notes when its members got a message, as runs of equal times; when the last of them
//! has it, the part is handed over. [`FanOutTiming`] puts the parts of all threads together.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    histogram::{self, Latencies},
    record::Broadcast,
};

/// Messages of which some threads have all deliveries and others not. Beyond them a message is left
/// out of the distributions: a server that leaves out deliveries must not fill the memory.
const MOST_PENDING: usize = 1 << 17;

/// Publisher and sequence number.
pub type MessageId = (u32, u64);

/// When one thread's members got one message. Times ascend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `(time, receivers)`.
    pub runs: Vec<(u64, u32)>,
}

impl Part {
    /// One more receiver.
    #[inline]
    pub fn note(&mut self, now: u64) {
        match self.runs.last_mut() {
            Some((time, count)) if *time == now => *count += 1,
            _ => self.runs.push((now, 1)),
        }
    }
}

/// A part that is complete, on its way to [`FanOutTiming`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedPart {
    /// Which message.
    pub message: MessageId,
    /// Its intended send; in a closed loop the actual one.
    pub meant: u64,
    /// Its receivers.
    pub part: Part,
}

/// The timing of all messages of the measured window.
#[derive(Debug)]
pub struct FanOutTiming {
    /// Threads that own members.
    parts_each: usize,
    pending: HashMap<MessageId, Vec<Part>>,
    complete: u64,
    first: Latencies,
    median: Latencies,
    last: Latencies,
}

impl FanOutTiming {
    /// `threads` parts make a message complete.
    pub fn new(threads: usize) -> Self {
        Self {
            parts_each: threads,
            pending: HashMap::new(),
            complete: 0,
            first: histogram::new(),
            median: histogram::new(),
            last: histogram::new(),
        }
    }

    /// Takes a part.
    pub fn add(&mut self, finished: FinishedPart) {
        if self.parts_each == 1 {
            return self.complete(finished.meant, vec![finished.part]);
        }
        if self.pending.len() >= MOST_PENDING && !self.pending.contains_key(&finished.message) {
            return;
        }
        let parts = self.pending.entry(finished.message).or_default();
        parts.push(finished.part);
        if parts.len() == self.parts_each {
            let parts = std::mem::take(parts);
            self.pending.remove(&finished.message);
            self.complete(finished.meant, parts);
        }
    }

    fn complete(&mut self, meant: u64, parts: Vec<Part>) {
        let mut runs: Vec<(u64, u32)> = parts.into_iter().flat_map(|part| part.runs).collect();
        runs.sort_unstable();
        let Some([first, median, last]) = first_median_last(&runs) else {
            return;
        };
        self.complete += 1;
        histogram::record(&mut self.first, first.saturating_sub(meant));
        histogram::record(&mut self.median, median.saturating_sub(meant));
        histogram::record(&mut self.last, last.saturating_sub(meant));
    }

    /// Fills in the three distributions.
    pub fn fill(&self, section: &mut Broadcast) {
        section.complete_messages = self.complete;
        section.first_receiver = histogram::summarise(&self.first);
        section.median_receiver = histogram::summarise(&self.median);
        section.last_receiver = histogram::summarise(&self.last);
    }
}

/// Times of the first, the median (of an even number the earlier one) and the last receiver in
/// ascending runs.
fn first_median_last(runs: &[(u64, u32)]) -> Option<[u64; 3]> {
    let receivers: u64 = runs.iter().map(|(_, count)| u64::from(*count)).sum();
    let middle = receivers.div_ceil(2);
    let mut seen = 0;
    let median = runs.iter().find(|(_, count)| {
        seen += u64::from(*count);
        seen >= middle
    })?;
    Some([runs.first()?.0, median.0, runs.last()?.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (runs, expected) in [
            (vec![], None),
            (vec![(5, 1)], Some([5, 5, 5])),
            (vec![(5, 1), (9, 1)], Some([5, 5, 9])),
            (vec![(5, 1), (6, 1), (9, 1)], Some([5, 6, 9])),
            (vec![(5, 1), (6, 10), (9, 1)], Some([5, 6, 9])),
            (vec![(5, 10), (6, 1), (9, 9)], Some([5, 5, 9])),
        ] {
            assert_eq!(first_median_last(&runs), expected, "{runs:?}");
        }
    }

    #[test]
    fn parts_of_two_threads_make_one_message() {
        let part = |times: &[u64]| {
            let mut part = Part::default();
            times.iter().for_each(|time| part.note(*time));
            part
        };
        let finished = |message, times| FinishedPart {
            message,
            meant: 100,
            part: part(times),
        };
        assert_eq!(part(&[1, 1, 2]).runs, [(1, 2), (2, 1)]);
        let mut timing = FanOutTiming::new(2);
        timing.add(finished((0, 0), &[110, 130]));
        timing.add(finished((0, 1), &[110, 130]));
        let mut section = Broadcast::default();
        timing.fill(&mut section);
        assert_eq!(section.complete_messages, 0);
        timing.add(finished((0, 0), &[105, 106, 107]));
        timing.fill(&mut section);
        assert_eq!(section.complete_messages, 1);
        assert_eq!(section.first_receiver.unwrap().max_ns, 5);
        assert_eq!(section.median_receiver.unwrap().max_ns, 7);
        assert_eq!(section.last_receiver.unwrap().max_ns, 30);
    }
}
