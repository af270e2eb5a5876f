//! Work in the place of a handler's: CPU time per message that no protocol asks for, so that bouts
//! can tell at how much of it the runtime still matters (`--handler-work-us`).

use std::hint::black_box;
use std::time::{Duration, Instant};

/// The most that `--handler-work-us` takes.
pub const MAX_HANDLER_WORK_US: u32 = 1_000_000;
/// How long one try of the calibration takes at least: long against the reading of a clock, short
/// against a time slice of the scheduler.
const TRY: Duration = Duration::from_millis(1);
/// Tries of which the fastest counts: the others were disturbed.
const TRIES: usize = 16;

/// The work for one message, in steps of plain arithmetic. A clock is read when the steps are
/// calibrated, and never while they are done.
///
/// Every connection has its own, so it is small: 2^32 steps are more than [`MAX_HANDLER_WORK_US`],
/// each of them being a chain of six instructions.
#[derive(Debug, Clone, Copy, Default)]
pub struct HandlerWork {
    steps: u32,
}

impl HandlerWork {
    /// Work of `us` microseconds of this CPU as it is now; takes about 20 ms, unless `us` is 0.
    pub fn calibrated(us: u32) -> Self {
        let steps = if us == 0 { 0 } else { steps_in(us) };
        Self { steps }
    }

    /// Does the work of a handler that was given this many messages.
    #[inline]
    pub fn run(self, messages: u64) {
        if self.steps != 0 {
            burn(u64::from(self.steps).saturating_mul(messages));
        }
    }
}

/// What a server's options say about the work, and what a connection may make of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeclaredWork {
    us: u32,
    whole: HandlerWork,
}

impl DeclaredWork {
    /// Work of `us` microseconds, [calibrated](HandlerWork::calibrated).
    pub fn calibrated(us: u32) -> Self {
        let whole = HandlerWork::calibrated(us);
        Self { us, whole }
    }

    /// The work of a connection whose request target has this query: all of it, or with `work=N` N
    /// microseconds where that is less. A peer cannot ask for more than the server was started
    /// with, or it could keep the server busy with a few bytes. What else is in a query has no
    /// meaning here, and neither has an N that is no number.
    pub fn of_connection(self, query: &str) -> HandlerWork {
        match asked_for(query) {
            Some(us) if us < self.us => {
                let steps = u64::from(self.whole.steps) * u64::from(us) / u64::from(self.us);
                let steps = u32::try_from(steps).unwrap_or(self.whole.steps);
                HandlerWork { steps }
            }
            _ => self.whole,
        }
    }
}

/// The least of what `work=N` asks for, if it is there several times.
fn asked_for(query: &str) -> Option<u32> {
    let values = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("work="));
    values.filter_map(|us| us.parse().ok()).min()
}

/// Steps that take `us` microseconds, at least one.
fn steps_in(us: u32) -> u32 {
    let mut steps: u64 = 1024;
    while fastest(3, steps) < TRY {
        steps *= 2;
    }
    let ns = fastest(TRIES, steps).as_nanos().max(1);
    let wanted = u128::from(steps) * u128::from(us) * 1000 / ns;
    u32::try_from(wanted).unwrap_or(u32::MAX).max(1)
}

fn fastest(tries: usize, steps: u64) -> Duration {
    let took = |_| {
        let begin = Instant::now();
        burn(steps);
        begin.elapsed()
    };
    (0..tries).map(took).min().unwrap_or_default()
}

/// Steps of a xorshift generator, each of which needs the one before: nothing to fetch, nothing to
/// run in parallel. One copy of the loop, so that what was calibrated is what is done.
#[cold]
#[inline(never)]
fn burn(steps: u64) {
    let mut state = black_box(0x9E37_79B9_7F4A_7C15_u64);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_work_has_no_steps_and_more_work_has_more() {
        assert_eq!(HandlerWork::calibrated(0).steps, 0);
        let (one, many) = (HandlerWork::calibrated(1), HandlerWork::calibrated(1000));
        // A thousand times as many, but for a CPU that changes its speed in between.
        assert!(
            one.steps > 0 && many.steps > 50 * one.steps,
            "{one:?} {many:?}"
        );
    }

    #[test]
    fn a_connection_may_lower_its_work_and_nothing_else() {
        let declared = DeclaredWork {
            us: 100,
            whole: HandlerWork { steps: 5_000 },
        };
        for (query, steps) in [
            ("", 5_000),
            ("work=0", 0),
            ("work=1", 50),
            ("room=a&work=99&x", 4_950),
            ("work=10&work=20", 500),
            ("work=100", 5_000),
            ("work=999999", 5_000),
            ("work=99999999999", 5_000),
            ("work=-1", 5_000),
            ("work=1.5", 5_000),
            ("work=", 5_000),
            ("work", 5_000),
            ("homework=0", 5_000),
            ("WORK=0", 5_000),
        ] {
            assert_eq!(declared.of_connection(query).steps, steps, "{query}");
        }
        assert_eq!(DeclaredWork::default().of_connection("work=7").steps, 0);
    }

    #[test]
    fn work_is_done_for_each_message() {
        let work = HandlerWork::calibrated(2000);
        let begin = Instant::now();
        work.run(10);
        // A lower bound: a slow machine only takes longer.
        assert!(begin.elapsed() >= Duration::from_millis(10));
    }
}
