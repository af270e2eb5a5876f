//! Accepting without descriptors: the log says when that begins and when it ends, and how much of
//! it there was, however many connections come and go meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A shortage is over when nothing has failed for this long. While descriptors are short, each one
/// that comes free is given away, and the next accept fails again.
const SETTLED: Duration = Duration::from_secs(1);

/// Whether a server is short of descriptors (or of memory) to accept with. One for all workers.
#[derive(Debug)]
pub struct Shortage {
    /// What to do about it.
    advice: &'static str,
    has_begun: AtomicBool,
    state: Mutex<Option<State>>,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    began: Instant,
    failed_last: Instant,
    failures: u64,
    /// Since the last failure.
    accepted: bool,
}

impl Shortage {
    /// None so far.
    pub fn new(advice: &'static str) -> Self {
        Self {
            advice,
            has_begun: AtomicBool::new(false),
            state: Mutex::new(None),
        }
    }

    /// An accept has failed [for want of descriptors](crate::system::is_out_of_descriptors).
    pub fn failed(&self, error: &io::Error) {
        if self.note_failure(Instant::now()) {
            let advice = self.advice;
            tracing::warn!(%error, "cannot accept: waiting for connections to close ({advice})");
        }
    }

    /// A connection was accepted.
    #[inline]
    pub fn accepted(&self) {
        if self.has_begun.load(Relaxed)
            && let Some(state) = &mut *self.lock()
        {
            state.accepted = true;
        }
    }

    /// At each tick of a worker's sweep: says when it is over.
    #[inline]
    pub fn tick(&self) {
        if self.has_begun.load(Relaxed) {
            self.end("accepting again", |state| {
                state.accepted && state.failed_last.elapsed() >= SETTLED
            });
        }
    }

    /// Nothing will be accepted any more.
    pub fn stop(&self) {
        self.end("no more is accepted", |_| true);
    }

    /// Returns whether it is the first.
    fn note_failure(&self, now: Instant) -> bool {
        let mut state = self.lock();
        self.has_begun.store(true, Relaxed);
        let first = state.is_none();
        let state = state.get_or_insert(State {
            began: now,
            failed_last: now,
            failures: 0,
            accepted: false,
        });
        state.failed_last = now;
        state.failures += 1;
        state.accepted = false;
        first
    }

    fn end(&self, how: &str, is_over: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        if let Some(over) = state.take_if(is_over) {
            self.has_begun.store(false, Relaxed);
            let seconds = over.began.elapsed().as_secs();
            let failures = over.failures;
            tracing::info!("{how}: {failures} accepts failed within {seconds} s");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(shortage: &Shortage) -> Option<u64> {
        shortage.lock().as_ref().map(|state| state.failures)
    }

    #[test]
    fn a_shortage_ends_when_something_is_accepted_and_nothing_fails_for_a_while() {
        let shortage = Shortage::new("");
        shortage.accepted();
        shortage.tick();
        assert_eq!(failures(&shortage), None);
        let long_ago = Instant::now() - 2 * SETTLED;
        assert!(shortage.note_failure(long_ago));
        assert!(!shortage.note_failure(long_ago));
        shortage.tick();
        assert_eq!(failures(&shortage), Some(2), "nothing was accepted");
        shortage.accepted();
        assert!(!shortage.note_failure(long_ago));
        shortage.tick();
        assert_eq!(failures(&shortage), Some(3), "nothing was, since then");
        shortage.accepted();
        shortage.tick();
        assert_eq!(failures(&shortage), None);

        assert!(shortage.note_failure(Instant::now()));
        shortage.accepted();
        shortage.tick();
        assert_eq!(failures(&shortage), Some(1), "it failed just now");
        shortage.stop();
        assert_eq!(failures(&shortage), None);
    }
}
