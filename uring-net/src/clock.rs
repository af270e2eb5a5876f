//! From `Instant` to the kernel's monotonic clock.

#![expect(unsafe_code)]

use std::time::{Duration, Instant};

use io_uring::types::Timespec;

/// One reading of both clocks. On Linux an `Instant` is CLOCK_MONOTONIC but does not give its value
/// away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    instant: Instant,
    monotonic: Duration,
}

impl Clock {
    /// Reads `Instant` first: translated deadlines are then late by the time between the readings,
    /// never early.
    pub(crate) fn new() -> Self {
        let instant = Instant::now();
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel writes one timespec to `now`, which is one. It cannot fail: every
        // Linux has this clock. (Not rustix: its own search for the vdso does not survive valgrind,
        // under which this crate's users are profiled.)
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        let monotonic = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        );
        Self { instant, monotonic }
    }

    /// `deadline` as CLOCK_MONOTONIC time.
    #[inline]
    pub(crate) fn monotonic(&self, deadline: Instant) -> Timespec {
        let at = match deadline.checked_duration_since(self.instant) {
            Some(later) => self.monotonic.saturating_add(later),
            None => self
                .monotonic
                .saturating_sub(self.instant.duration_since(deadline)),
        };
        timespec(at)
    }
}

/// `duration` in the kernel's form.
#[inline]
pub(crate) fn timespec(duration: Duration) -> Timespec {
    // The kernel's seconds are signed: beyond that "never" is meant.
    let seconds = duration.as_secs().min(i64::MAX as u64 / 2_000_000_000);
    Timespec::new().sec(seconds).nsec(duration.subsec_nanos())
}
