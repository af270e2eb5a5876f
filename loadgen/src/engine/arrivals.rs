//! Kind `connect` in an open loop: connections are begun on a schedule.
//!
//! An arrival that finds no place waits, and its waiting counts: its time runs from when the
//! schedule intended it, however late a place is free.

use crate::{
    engine::{shared::Times, stats::Stats},
    pacer::Pacer,
};

/// When a connection was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// When the schedule intended it; without a schedule the same as `at`.
    pub meant: u64,
    /// When it was.
    pub at: u64,
}

/// The arrivals of one thread.
#[derive(Debug)]
pub struct Arrivals {
    pacer: Pacer,
    begun: u64,
    /// Arrivals that were begun or found no place: how late these are begun is not the generator's
    /// doing.
    seen: u64,
    gave_up: bool,
}

impl Arrivals {
    /// None is begun yet.
    pub fn new(pacer: Pacer) -> Self {
        Self {
            pacer,
            begun: 0,
            seen: 0,
            gave_up: false,
        }
    }

    /// When the next arrival was intended, if it is due: it is begun now.
    pub fn take(&mut self, times: &Times, now: u64, stats: &mut Stats) -> Option<u64> {
        if !self.waits(times, now) {
            return None;
        }
        let meant = self.meant(times, self.begun);
        if self.begun >= self.seen {
            stats.scheduled(times, meant, now);
        }
        self.begun += 1;
        self.seen = self.seen.max(self.begun);
        Some(meant)
    }

    /// Others wait already, so what became due since then waits behind them.
    pub fn queue(&mut self, times: &Times, now: u64, stats: &mut Stats) {
        if self.begun < self.seen {
            self.wait(times, now, stats);
        }
    }

    /// No place is free: what is due waits.
    pub fn wait(&mut self, times: &Times, now: u64, stats: &mut Stats) {
        let due = self.due(times, now);
        let waiting = (self.seen..due).filter(|one| times.contain(self.meant(times, *one)));
        stats.window.delayed_by_window += waiting.count() as u64;
        self.seen = self.seen.max(due);
    }

    /// An arrival is due and not begun.
    pub fn waits(&self, times: &Times, now: u64) -> bool {
        !self.gave_up && self.begun < self.due(times, now)
    }

    /// When the next arrival is due.
    pub fn next_due(&self, times: &Times) -> Option<u64> {
        let due = self.meant(times, self.begun);
        (due < times.to).then_some(due)
    }

    /// What waits is not begun any more.
    pub fn give_up(&mut self) {
        self.gave_up = true;
    }

    /// How many are due inside the measured window.
    pub fn of_window(&self, times: &Times) -> u64 {
        let before = |at: u64| self.pacer.due_before(at.saturating_sub(times.start));
        before(times.to).saturating_sub(before(times.from))
    }

    fn meant(&self, times: &Times, arrival: u64) -> u64 {
        times.start.saturating_add(self.pacer.due_at_ns(arrival))
    }

    /// Nothing new is due after the window.
    fn due(&self, times: &Times, now: u64) -> u64 {
        let most = self.pacer.due_before(times.to.saturating_sub(times.start));
        match now.checked_sub(times.start) {
            Some(elapsed) => self.pacer.due(elapsed).min(most),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const TIMES: Times = Times {
        start: 5 * MS,
        from: 15 * MS,
        to: 25 * MS,
    };

    fn arrivals() -> (Arrivals, Stats) {
        let pacer = Pacer::new(1_000.0, 1, 1, 0).unwrap();
        (Arrivals::new(pacer), Stats::new(true))
    }

    #[test]
    fn each_is_begun_once_and_none_after_the_window() {
        let (mut arrivals, mut stats) = arrivals();
        assert_eq!(arrivals.take(&TIMES, 4 * MS, &mut stats), None);
        assert_eq!(arrivals.next_due(&TIMES), Some(5 * MS));
        let begun = (0..100 * MS)
            .step_by(MS as usize / 4)
            .filter_map(|now| arrivals.take(&TIMES, now, &mut stats));
        let intended: Vec<u64> = (5..25).map(|ms| ms * MS).collect();
        assert_eq!(begun.collect::<Vec<_>>(), intended);
        assert_eq!(arrivals.of_window(&TIMES), 10);
        assert_eq!(arrivals.next_due(&TIMES), None);
        assert_eq!((stats.lag.len(), stats.lag.max()), (10, 0));
    }

    #[test]
    fn those_that_wait_keep_their_time_and_are_no_lag_of_the_generator() {
        let (mut arrivals, mut stats) = arrivals();
        while arrivals.take(&TIMES, 15 * MS, &mut stats).is_some() {}
        let in_time = stats.lag.len();
        // No place for those of 16, 17 and 18 ms; that of 19 ms is behind them.
        arrivals.wait(&TIMES, 18 * MS, &mut stats);
        assert_eq!(stats.window.delayed_by_window, 3);
        assert!(arrivals.waits(&TIMES, 18 * MS));
        arrivals.queue(&TIMES, 19 * MS, &mut stats);
        assert_eq!(stats.window.delayed_by_window, 4);
        for meant in 16..20 {
            assert_eq!(arrivals.take(&TIMES, 19 * MS, &mut stats), Some(meant * MS));
        }
        assert_eq!(stats.lag.len(), in_time, "a full house is no lag");
        arrivals.queue(&TIMES, 20 * MS, &mut stats);
        assert_eq!(arrivals.take(&TIMES, 21 * MS, &mut stats), Some(20 * MS));
        assert_eq!(stats.lag.len(), in_time + 1);
        arrivals.give_up();
        assert!(!arrivals.waits(&TIMES, 30 * MS));
    }
}
