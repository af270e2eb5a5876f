//! A clock that ticks through the ring.
//!
//! monoio's own timers put a timeout on every wait, which costs on every turn of the event loop;
//! this one costs only when it ticks.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Ticks at a fixed interval.
pub(crate) struct Ticker {
    timerfd: ::monoio::fs::File,
    buf: Vec<u8>,
}

impl Ticker {
    /// A clock whose first tick is one `interval` and `phase` from now. Call on a worker's thread,
    /// within its runtime.
    ///
    /// # Errors
    /// No descriptor for the timerfd.
    pub(crate) fn every(interval: Duration, phase: Duration) -> io::Result<Self> {
        let timespec = |time| {
            Timespec::try_from(time).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        // Blocking on purpose: io_uring answers EAGAIN instead of waiting for a non-blocking one.
        let timerfd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let times = Itimerspec {
            it_interval: timespec(interval)?,
            it_value: timespec(interval + phase)?,
        };
        timerfd_settime(&timerfd, TimerfdTimerFlags::empty(), &times)?;
        Ok(Self {
            timerfd: ::monoio::fs::File::from_std(File::from(timerfd))?,
            buf: vec![0; 8],
        })
    }

    /// Waits for the next tick and says how many have passed since the last call: more than 1 after
    /// a long turn.
    ///
    /// # Errors
    /// What reading the timerfd said.
    pub(crate) async fn tick(&mut self) -> io::Result<u32> {
        let (result, buf) = self.timerfd.read_at(std::mem::take(&mut self.buf), 0).await;
        let mut count = [0; 8];
        if result? == count.len() {
            count.copy_from_slice(&buf[..8]);
        }
        self.buf = buf;
        Ok(u32::try_from(u64::from_ne_bytes(count)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::monoio::ring;

    #[test]
    fn ticks_add_up_to_the_time_that_passed() {
        ring::build().unwrap().block_on(async {
            let interval = Duration::from_millis(5);
            let start = Instant::now();
            let mut ticker = Ticker::every(interval, interval / 2).unwrap();
            let mut ticks = 0;
            while ticks < 10 {
                ticks += ticker.tick().await.unwrap();
            }
            assert!(start.elapsed() >= interval * 10 + interval / 2);
        });
    }
}
