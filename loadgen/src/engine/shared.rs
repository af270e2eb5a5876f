//! What the threads of a run share: the clock, the begin and the end, gauges for the progress line.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    engine::second::SecondPart,
    histogram::{self, Latencies},
};

const UNSET: u64 = u64::MAX;

/// How often two clocks are read against each other; the closest pair counts.
const READINGS: usize = 16;

/// Nanoseconds since the begin of the run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
    /// The same moment as [`monotonic_ns`] tells it.
    epoch_ns: u64,
}

impl Clock {
    /// Time 0 is now.
    pub fn start() -> Self {
        Self::since(monotonic_ns())
    }

    /// Time 0 was when [`monotonic_ns`] was `epoch_ns`: one clock for all processes of a run, the
    /// same to within the time it takes to read it.
    pub fn since(epoch_ns: u64) -> Self {
        let reading = |()| {
            let before = Instant::now();
            let elapsed = monotonic_ns().saturating_sub(epoch_ns);
            let took = before.elapsed();
            let epoch = before.checked_sub(Duration::from_nanos(elapsed));
            (took, epoch.unwrap_or(before) + took / 2)
        };
        let closest = [(); READINGS].map(reading).into_iter().min();
        Self {
            epoch: closest.map_or_else(Instant::now, |(_, epoch)| epoch),
            epoch_ns,
        }
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> u64 {
        // A run of 584 years would be needed to overflow.
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A time of this clock as an instant.
    pub fn instant(&self, ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(ns)
    }

    /// A time of this clock on the system's monotonic one.
    pub fn monotonic(&self, ns: u64) -> u64 {
        self.epoch_ns.saturating_add(ns)
    }
}

/// Nanoseconds of the system's monotonic clock, which all processes share.
pub fn monotonic_ns() -> u64 {
    // Linux has had this clock since 2.6; it cannot fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// The phases of a run, in clock time. Before the load begins all are [`u64::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The load begins: warm-up.
    pub start: u64,
    /// The measured window begins.
    pub from: u64,
    /// It ends (not included), as planned or earlier.
    pub to: u64,
}

impl Times {
    /// Does what happened at `ns` belong to the measured window?
    #[inline]
    pub fn contain(&self, ns: u64) -> bool {
        self.from <= ns && ns < self.to
    }

    /// How much of the time from `begin` to `end` lies inside the measured window.
    #[inline]
    pub fn overlap(&self, begin: u64, end: u64) -> u64 {
        end.min(self.to).saturating_sub(begin.max(self.from))
    }
}

/// One thread's part of a second that is over, by number of the second.
pub type ClosedSecond = (u64, SecondPart);

/// What the threads of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The one clock.
    pub clock: Clock,
    warmup_ns: AtomicU64,
    duration_ns: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    /// Threads that will start no more messages.
    stopped: AtomicU64,
    /// Threads of this process.
    threads: u64,
    /// No other process will start a message either.
    others_stopped: AtomicBool,
    /// Connections up now.
    pub up: AtomicU64,
    /// Handshakes completed.
    pub opened: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    live: Option<Mutex<Latencies>>,
    feed: Option<Sender<ClosedSecond>>,
    failure: Mutex<Option<String>>,
    first_loss: Mutex<Option<String>>,
}

impl Shared {
    /// The shared state of a run of `threads`; `live`: keep a histogram for the progress line.
    pub fn new(threads: usize, warmup: Duration, duration: Duration, live: bool) -> Self {
        Self {
            clock: Clock::start(),
            warmup_ns: AtomicU64::new(warmup.as_nanos() as u64),
            duration_ns: AtomicU64::new(duration.as_nanos() as u64),
            start: AtomicU64::new(UNSET),
            end: AtomicU64::new(UNSET),
            stopped: AtomicU64::new(0),
            threads: threads as u64,
            others_stopped: AtomicBool::new(true),
            up: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            live: live.then(|| Mutex::new(histogram::new())),
            feed: None,
            failure: Mutex::new(None),
            first_loss: Mutex::new(None),
        }
    }

    /// As part of a run of several processes: by their common clock, waiting for the others' last
    /// messages, every second told to `feed`.
    #[must_use]
    pub fn in_shard(mut self, clock: Clock, feed: Sender<ClosedSecond>) -> Self {
        self.clock = clock;
        self.feed = Some(feed);
        self.others_stopped = AtomicBool::new(false);
        self
    }

    /// The load begins at `ns`.
    pub fn begin_at(&self, ns: u64) {
        self.start.store(ns, Relaxed);
    }

    /// The next slice begins at `ns`: `settle`, then `measure`. Only while all threads are paused;
    /// what tells them to go on makes them see it.
    pub fn begin_slice(&self, ns: u64, settle: Duration, measure: Duration) {
        self.stopped.store(0, Relaxed);
        self.warmup_ns.store(settle.as_nanos() as u64, Relaxed);
        self.duration_ns.store(measure.as_nanos() as u64, Relaxed);
        self.begin_at(ns);
    }

    /// The load ends now, if it has not ended before.
    pub fn end_now(&self) {
        self.end_at(self.clock.now());
    }

    /// The load ends at `ns`, if it does not end before.
    pub fn end_at(&self, ns: u64) {
        self.end.fetch_min(ns, Relaxed);
    }

    /// One more thread will start no more messages.
    pub fn thread_stopped(&self) {
        self.stopped.fetch_add(1, AcqRel);
    }

    /// All threads of this process will start no more messages.
    pub fn own_threads_stopped(&self) -> bool {
        self.stopped.load(Acquire) >= self.threads
    }

    /// The threads of all other processes will start no more messages.
    pub fn others_stopped(&self) {
        self.others_stopped.store(true, Release);
    }

    /// No thread will start another message: only now is "nothing outstanding" the end.
    pub fn all_stopped(&self) -> bool {
        self.own_threads_stopped() && self.others_stopped.load(Acquire)
    }

    /// True once the load has been told to begin.
    pub fn has_begun(&self) -> bool {
        self.start.load(Relaxed) != UNSET
    }

    /// True when the run was ended before its time.
    pub fn ended_early(&self) -> bool {
        self.end.load(Relaxed) != UNSET
    }

    /// The phases.
    pub fn times(&self) -> Times {
        let start = self.start.load(Relaxed);
        let from = start.saturating_add(self.warmup_ns.load(Relaxed));
        let to = from.saturating_add(self.duration_ns.load(Relaxed));
        Times {
            start,
            from,
            to: to.min(self.end.load(Relaxed)),
        }
    }

    /// The run cannot go on: keeps the first cause and ends the load.
    pub fn fail(&self, cause: String) {
        keep_first(&self.failure, cause);
        self.end_now();
    }

    /// Why the run could not go on.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// A connection was lost: keeps the first cause.
    pub fn lost(&self, cause: String) {
        keep_first(&self.first_loss, cause);
    }

    /// How the first lost connection was lost.
    pub fn first_loss(&self) -> Option<String> {
        lock(&self.first_loss).clone()
    }

    /// A thread's second is over.
    pub fn second_closed(&self, second: u64, part: &SecondPart, latencies: &Latencies) {
        self.show(latencies);
        if let Some(feed) = &self.feed {
            // The receiver is gone: the run is over.
            let _ = feed.send((second, part.clone()));
        }
    }

    /// Adds to the histogram of the progress line.
    pub fn show(&self, latencies: &Latencies) {
        if let Some(live) = &self.live {
            histogram::merge(&mut lock(live), latencies);
        }
    }

    /// Median and 99th percentile so far, in nanoseconds.
    pub fn quantiles(&self) -> Option<(u64, u64)> {
        let live = lock(self.live.as_ref()?);
        (!live.is_empty()).then(|| (live.value_at_quantile(0.5), live.value_at_quantile(0.99)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is kept is complete after every statement: a panic cannot have left a half of it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_first(place: &Mutex<Option<String>>, cause: String) {
    lock(place).get_or_insert(cause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_one_epoch_agree() {
        let epoch = monotonic_ns();
        let (one, other) = (Clock::since(epoch), Clock::since(epoch));
        let (low, between, high) = (one.now(), other.now(), one.now());
        let slack = 100_000;
        assert!(
            low <= between + slack && between <= high + slack,
            "{low} {between} {high}"
        );
    }

    #[test]
    fn a_shard_waits_for_the_others() {
        let (feed, seconds) = std::sync::mpsc::channel();
        let shared =
            Shared::new(1, Duration::ZERO, Duration::ZERO, false).in_shard(Clock::start(), feed);
        shared.thread_stopped();
        assert!(shared.own_threads_stopped() && !shared.all_stopped());
        shared.others_stopped();
        assert!(shared.all_stopped());
        shared.second_closed(3, &SecondPart::default(), &histogram::new());
        assert_eq!(seconds.recv(), Ok((3, SecondPart::default())));
    }

    #[test]
    fn a_slice_has_its_own_phases() {
        let shared = Shared::new(1, Duration::ZERO, Duration::ZERO, false);
        for begin in [100, 9_000] {
            shared.begin_slice(begin, Duration::from_nanos(begin), Duration::from_nanos(50));
            let times = shared.times();
            assert_eq!((times.start, times.from), (begin, 2 * begin));
            assert_eq!(times.to, times.from + 50);
            assert!(!shared.all_stopped());
            shared.thread_stopped();
            assert!(shared.all_stopped());
        }
    }

    #[test]
    fn phases() {
        let shared = Shared::new(1, Duration::from_secs(1), Duration::from_secs(2), false);
        assert!(!shared.has_begun());
        assert_eq!(shared.times().to, UNSET);
        shared.begin_at(500);
        let times = shared.times();
        assert_eq!((times.from, times.to), (1_000_000_500, 3_000_000_500));
        assert!(times.contain(times.from) && !times.contain(times.to));
        assert_eq!(times.overlap(0, times.from + 3), 3);
        assert_eq!(times.overlap(times.to - 2, u64::MAX), 2);
        assert_eq!(times.overlap(times.to + 1, times.to + 9), 0);
        shared.fail("first".into());
        shared.fail("second".into());
        assert_eq!(shared.failure().as_deref(), Some("first"));
        assert!(shared.times().to < times.to);
    }
}
