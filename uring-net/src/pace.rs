//! How a worker waits: at once for whatever comes when there is little to do, in batches when there
//! is much.

use std::io;
use std::time::{Duration, Instant};

use crate::ring::Ring;

/// From so many completions in one turn on a worker is busy.
const BUSY: usize = 32;
/// The most it waits for. Without a bound the turns grow until half of the receives find no buffer
/// in the pool (measured: docs/experiments.md).
const BATCH: usize = 64;
/// How long a busy worker waits for a batch before it is content with less.
const PATIENCE: Duration = Duration::from_micros(20);

/// Decides how long to wait. The rule:
///
/// - Work left over: do not wait at all.
/// - Few completions in the last turn: wait for one, after polling for as long as was asked for.
/// - Many: wait for as many again as came last, half of them at least being new arrivals (the sends
///   that the wait itself starts complete within it and count), but no more than `BATCH` and no
///   longer than `PATIENCE`. A larger number also lets the kernel run more of its deferred work in
///   one pass, of which it otherwise does 20 at a time (since 6.13).
#[derive(Debug)]
pub struct Pace {
    spin: Duration,
}

impl Pace {
    /// Spins for `spin` before it sleeps.
    #[must_use]
    pub fn new(spin: Duration) -> Self {
        Self { spin }
    }

    /// Submits what has been started and waits. `last` completions came in the last turn;
    /// `work_left` says that there is something to do without any.
    ///
    /// # Errors
    /// As [`Ring::wait`].
    pub fn wait(&self, ring: &mut Ring, last: usize, work_left: bool) -> io::Result<()> {
        if work_left {
            return ring.wait(0, None);
        }
        if last >= BUSY {
            return ring.wait_batch(last.min(BATCH), PATIENCE, None);
        }
        if !self.spin.is_zero() && self.poll(ring)? {
            return Ok(());
        }
        ring.wait(1, None)
    }

    /// Polls for completions; whether there are some.
    fn poll(&self, ring: &mut Ring) -> io::Result<bool> {
        let start = Instant::now();
        loop {
            ring.wait(0, None)?;
            if ring.has_completions() {
                return Ok(true);
            }
            if start.elapsed() >= self.spin {
                return Ok(false);
            }
        }
    }
}
