//! What the threads of a run share: the clock, the begin and the end, gauges for the progress line.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::histogram::{self, Latencies};

const UNSET: u64 = u64::MAX;

/// Nanoseconds since the begin of the process's run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// Time 0 is now.
    pub fn start() -> Self {
        Self {
            epoch: Instant::now(),
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
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The one clock.
    pub clock: Clock,
    warmup_ns: u64,
    duration_ns: u64,
    start: AtomicU64,
    end: AtomicU64,
    /// Threads that will start no more messages: only then is "nothing outstanding" the end.
    pub stopped: AtomicU64,
    /// Threads in all.
    pub threads: u64,
    /// Connections up now.
    pub up: AtomicU64,
    /// Handshakes completed.
    pub opened: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    live: Option<Mutex<Latencies>>,
    failure: Mutex<Option<String>>,
    first_loss: Mutex<Option<String>>,
}

impl Shared {
    /// The shared state of a run of `threads`; `live`: keep a histogram for the progress line.
    pub fn new(threads: usize, warmup: Duration, duration: Duration, live: bool) -> Self {
        Self {
            clock: Clock::start(),
            warmup_ns: warmup.as_nanos() as u64,
            duration_ns: duration.as_nanos() as u64,
            start: AtomicU64::new(UNSET),
            end: AtomicU64::new(UNSET),
            stopped: AtomicU64::new(0),
            threads: threads as u64,
            up: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            live: live.then(|| Mutex::new(histogram::new())),
            failure: Mutex::new(None),
            first_loss: Mutex::new(None),
        }
    }

    /// The load begins at `ns`.
    pub fn begin_at(&self, ns: u64) {
        self.start.store(ns, Relaxed);
    }

    /// The load ends now, if it has not ended before.
    pub fn end_now(&self) {
        self.end.fetch_min(self.clock.now(), Relaxed);
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
        let from = start.saturating_add(self.warmup_ns);
        let to = from.saturating_add(self.duration_ns);
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
    // What is kept is complete after every statement, whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_first(place: &Mutex<Option<String>>, cause: String) {
    lock(place).get_or_insert(cause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases() {
        let shared = Shared::new(1, Duration::from_secs(1), Duration::from_secs(2), false);
        assert!(!shared.has_begun());
        assert_eq!(shared.times().to, UNSET);
        shared.begin_at(500);
        let times = shared.times();
        assert_eq!((times.from, times.to), (1_000_000_500, 3_000_000_500));
        assert!(times.contain(times.from) && !times.contain(times.to));
        shared.fail("first".into());
        shared.fail("second".into());
        assert_eq!(shared.failure().as_deref(), Some("first"));
        assert!(shared.times().to < times.to);
    }
}
