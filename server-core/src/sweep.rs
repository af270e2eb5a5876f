//! Idle pings and timeouts without one timer per connection.
//!
//! Each worker wakes every [`Sweep::interval`], advances its tick and asks [`Tick::action`] about
//! a part of its connections, those in the slots that [`Sweep::slots`] gives; after a round of
//! ticks it has asked about all. In parts, because the connections of a flood fall silent together:
//! their pings would otherwise leave all at once, and whoever is active would wait behind them. For
//! the same reason a tick has pings for so many only that all connections, should they fall silent
//! together, are pinged within a quarter of the idle timeout: the last of them has another quarter
//! to answer in. A connection notes the tick of its last traffic in its [`Activity`]: one relaxed
//! store for each receive, nothing else.

use std::f64::consts::GOLDEN_RATIO;
use std::iter::StepBy;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::options::Settings;

/// When a connection was last heard of, in ticks of its worker, and whether it has been pinged
/// since.
#[derive(Debug)]
pub struct Activity(AtomicU32);

/// The lowest bit of an [`Activity`] says "pinged since", the others are the tick.
const PINGED: u32 = 1;

impl Activity {
    /// Heard of at `tick`.
    #[inline]
    pub fn at(tick: u32) -> Self {
        Self(AtomicU32::new(tick << 1))
    }

    /// Notes traffic from the peer at `tick`.
    #[inline]
    pub fn touch(&self, tick: u32) {
        self.0.store(tick << 1, Relaxed);
    }
}

fn silence(seen: u32, now: u32) -> u32 {
    // One tick may have begun just before the traffic: it does not count. Ticks wrap at 31 bits.
    (now.wrapping_sub(seen >> 1) & (u32::MAX >> 1)).saturating_sub(1)
}

/// How far a connection is, as far as timeouts are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request has not been answered. Its first byte does not count as activity: trickling does
    /// not help.
    Handshake,
    /// A WebSocket is open.
    Open,
    /// Being closed: whoever closes it has a deadline of its own.
    Closing,
}

/// What is due for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleAction {
    /// Nothing.
    Keep,
    /// Send it a ping. Said once for each silence.
    Ping,
    /// Answer 408 and close it.
    HandshakeTimeout,
    /// Close it.
    IdleTimeout,
}

/// Most parts of a round, a power of two ...
const MOST_PARTS: u32 = 16;
/// ... of at least this long each: a worker wakes for every one.
const SHORTEST_PART: Duration = Duration::from_millis(50);

/// The timeouts of [`Settings`] in ticks.
#[derive(Debug, Clone)]
pub struct Sweep {
    interval: Duration,
    /// Ticks of a round: a power of two.
    parts: u32,
    handshake: u32,
    idle: Option<IdleTicks>,
}

#[derive(Debug, Clone)]
struct IdleTicks {
    ping: u32,
    close: u32,
}

impl Sweep {
    /// A plan that keeps the timeouts within an eighth of the shortest of them, or within a second.
    pub fn new(settings: &Settings) -> Self {
        let shortest = match settings.idle_timeout {
            Some(idle) => settings.handshake_timeout.min(idle / 2),
            None => settings.handshake_timeout,
        };
        let round = (shortest / 8).clamp(Duration::from_millis(2), Duration::from_secs(1));
        let mut parts = MOST_PARTS;
        while parts > 1 && round / parts < SHORTEST_PART {
            parts /= 2;
        }
        let interval = round / parts;
        let ticks = |time: Duration| {
            u32::try_from(time.as_nanos().div_ceil(interval.as_nanos())).unwrap_or(u32::MAX >> 2)
        };
        Self {
            interval,
            parts,
            handshake: ticks(settings.handshake_timeout),
            idle: settings.idle_timeout.map(|idle| IdleTicks {
                ping: ticks(idle / 2),
                close: ticks(idle),
            }),
        }
    }

    /// Time from one tick to the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How much later the ticks of `worker` are to begin than it does: workers and processes that
    /// share a CPU, fifty of them for a million connections, would otherwise all look over their
    /// connections in the same millisecond, and whoever is active would wait.
    pub fn phase(&self, worker: usize) -> Duration {
        self.phase_of(std::process::id().wrapping_add(worker as u32))
    }

    /// Numbers in a row, however many, are spread evenly over an interval by multiples of the
    /// golden ratio.
    fn phase_of(&self, number: u32) -> Duration {
        self.interval
            .mul_f64((f64::from(number) * GOLDEN_RATIO).fract())
    }

    /// The slots below `end` whose turn it is at tick `now`, far apart: connections that came
    /// together lie side by side.
    pub fn slots(&self, now: u32, end: usize) -> StepBy<Range<usize>> {
        let first = (now % self.parts) as usize;
        (first..end).step_by(self.parts as usize)
    }

    /// Whether tick `now` is the last of a round.
    pub fn ends_round(&self, now: u32) -> bool {
        now % self.parts == self.parts - 1
    }

    /// Whether there was traffic within two rounds, as of tick `now`. One message per second counts
    /// as busy.
    #[inline]
    pub fn is_busy(&self, now: u32, activity: &Activity) -> bool {
        silence(activity.0.load(Relaxed), now) < 2 * self.parts
    }

    /// Tick `now` of a worker with so many connections.
    pub fn tick(&self, now: u32, connections: usize) -> Tick<'_> {
        let pings = match &self.idle {
            Some(idle) => connections.div_ceil((idle.ping / 2).max(1) as usize),
            None => 0,
        };
        Tick {
            sweep: self,
            now,
            pings,
        }
    }
}

/// One tick of a worker: what is due for whom, and how many pings it has left.
#[derive(Debug)]
pub struct Tick<'a> {
    sweep: &'a Sweep,
    now: u32,
    pings: usize,
}

impl Tick<'_> {
    /// What is due for a connection in `phase`.
    #[inline]
    pub fn action(&mut self, phase: Phase, activity: &Activity) -> IdleAction {
        let Self { sweep, now, .. } = *self;
        let seen = activity.0.load(Relaxed);
        let silent = silence(seen, now);
        match (phase, &sweep.idle) {
            (Phase::Handshake, _) if silent >= sweep.handshake => IdleAction::HandshakeTimeout,
            (Phase::Open, Some(idle)) if silent >= idle.close => IdleAction::IdleTimeout,
            (Phase::Open, Some(idle))
                if silent >= idle.ping && seen & PINGED == 0 && self.pings > 0 =>
            {
                // Lost to a touch in between, the mark is not set: the touch wins, as it should.
                let marked = activity
                    .0
                    .compare_exchange(seen, seen | PINGED, Relaxed, Relaxed);
                if marked.is_ok() {
                    self.pings -= 1;
                    IdleAction::Ping
                } else {
                    IdleAction::Keep
                }
            }
            _ => IdleAction::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::ServerOptions;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerOptions,
    }

    fn sweep(line: &str) -> Sweep {
        let words = std::iter::once("server").chain(line.split_whitespace());
        Sweep::new(&Cli::parse_from(words).server.resolve().unwrap())
    }

    /// For the only connection of a worker.
    fn action(sweep: &Sweep, now: u32, phase: Phase, activity: &Activity) -> IdleAction {
        sweep.tick(now, 1).action(phase, activity)
    }

    #[test]
    fn the_interval_follows_the_shortest_timeout() {
        let usual = sweep("");
        assert_eq!(usual.interval() * usual.parts, Duration::from_secs(1));
        assert_eq!(usual.parts, 16);
        let halves = sweep("--handshake-timeout 1s");
        assert_eq!(
            (halves.interval(), halves.parts),
            (Duration::from_micros(62_500), 2)
        );
        let fast = sweep("--handshake-timeout 400ms");
        assert_eq!(fast.interval(), Duration::from_millis(50));
        let idle = sweep("--idle-timeout 800ms");
        assert_eq!(idle.interval(), Duration::from_millis(50));
        let shortest = sweep("--idle-timeout 20ms");
        assert_eq!(shortest.interval(), Duration::from_millis(2));
    }

    #[test]
    fn workers_and_processes_take_turns_within_a_tick() {
        let sweep = sweep("");
        // Workers of one process; processes of two and of four threads, which have numbers, too.
        for (count, step) in [(2, 1), (6, 1), (53, 1), (53, 2), (53, 4)] {
            let numbers = (0..count).map(|worker| 31_000 + worker * step);
            let mut phases: Vec<_> = numbers.map(|number| sweep.phase_of(number)).collect();
            phases.sort_unstable();
            phases.push(sweep.interval() + phases[0]);
            let gaps = phases.windows(2).map(|pair| pair[1] - pair[0]);
            let fair = sweep.interval() / count;
            let widest = gaps.max().unwrap();
            assert!(
                widest < fair * 3,
                "{count} by {step}: {widest:?}, fair {fair:?}"
            );
        }
    }

    #[test]
    fn a_silent_connection_is_pinged_once_and_then_closed() {
        let sweep = sweep("--idle-timeout 8s --handshake-timeout 8s");
        assert_eq!(sweep.interval(), Duration::from_micros(62_500));
        let activity = Activity::at(100);
        let verdicts: Vec<_> = (100..=229)
            .map(|now| action(&sweep, now, Phase::Open, &activity))
            .collect();
        let mut expected = vec![IdleAction::Keep; 130];
        expected[65] = IdleAction::Ping;
        expected[129] = IdleAction::IdleTimeout;
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn silence_is_counted_in_whole_ticks() {
        let seen = 7 << 1;
        assert_eq!([7, 8, 9, 10].map(|now| silence(seen, now)), [0, 0, 1, 2]);
        let last = u32::MAX - 1;
        assert_eq!([0, 1].map(|now| silence(last, now)), [0, 1]);
    }

    #[test]
    fn a_round_asks_about_every_place_once() {
        for line in ["", "--handshake-timeout 1s", "--handshake-timeout 100ms"] {
            let sweep = sweep(line);
            let mut asked = vec![0; 1000];
            let mut now = u32::MAX >> 1;
            loop {
                now = now.wrapping_add(1);
                sweep
                    .slots(now, asked.len())
                    .for_each(|place| asked[place] += 1);
                if sweep.ends_round(now) {
                    break;
                }
            }
            assert_eq!(asked, [1; 1000], "{line}");
        }
    }

    #[test]
    fn who_was_heard_of_within_two_rounds_is_busy() {
        let sweep = sweep("");
        let activity = Activity::at(3);
        assert!([3, 4, 35].iter().all(|now| sweep.is_busy(*now, &activity)));
        assert!(!sweep.is_busy(36, &activity));
    }

    #[test]
    fn traffic_starts_the_silence_anew() {
        let sweep = sweep("--idle-timeout 8s --handshake-timeout 8s");
        let activity = Activity::at(0);
        assert_eq!(action(&sweep, 65, Phase::Open, &activity), IdleAction::Ping);
        activity.touch(70);
        assert_eq!(
            action(&sweep, 134, Phase::Open, &activity),
            IdleAction::Keep
        );
        assert_eq!(
            action(&sweep, 135, Phase::Open, &activity),
            IdleAction::Ping
        );
    }

    #[test]
    fn a_request_has_its_own_time() {
        let sweep = sweep("--idle-timeout 0 --handshake-timeout 2s");
        let activity = Activity::at(0);
        assert_eq!(
            [32, 33].map(|now| action(&sweep, now, Phase::Handshake, &activity)),
            [IdleAction::Keep, IdleAction::HandshakeTimeout]
        );
        assert_eq!(
            action(&sweep, 9999, Phase::Open, &activity),
            IdleAction::Keep
        );
        assert_eq!(
            action(&sweep, 9999, Phase::Closing, &activity),
            IdleAction::Keep
        );
    }

    #[test]
    fn ticks_wrap_around() {
        let sweep = sweep("--idle-timeout 8s --handshake-timeout 8s");
        let activity = Activity::at((u32::MAX >> 1) - 1);
        assert_eq!(action(&sweep, 1, Phase::Open, &activity), IdleAction::Keep);
        assert_eq!(
            action(&sweep, 200, Phase::Open, &activity),
            IdleAction::IdleTimeout
        );
    }

    #[test]
    fn a_flood_that_falls_silent_is_pinged_over_a_quarter_of_the_timeout() {
        let sweep = sweep("--idle-timeout 80s");
        let flood: Vec<_> = (0..10_000).map(|_| Activity::at(0)).collect();
        let quarter = sweep.idle.as_ref().unwrap().ping / 2;
        let mut pinged = Vec::new();
        for now in 0..=4 * quarter {
            let mut tick = sweep.tick(now, flood.len());
            let mut pings = 0;
            for place in sweep.slots(now, flood.len()) {
                match tick.action(Phase::Open, &flood[place]) {
                    IdleAction::Ping => pings += 1,
                    IdleAction::Keep => {}
                    other => panic!("{other:?} at {now}"),
                }
            }
            pinged.push(pings);
        }
        let of = |range: std::ops::Range<u32>| {
            let range = range.start as usize..range.end as usize;
            pinged[range].iter().sum::<usize>()
        };
        assert_eq!(of(0..2 * quarter), 0);
        // A round more, for a part may be full in one and not in the next.
        assert_eq!(of(2 * quarter..3 * quarter + 2 * sweep.parts), flood.len());
        let fair = flood.len() / quarter as usize;
        assert!(pinged.iter().all(|pings| *pings <= fair + 1), "{pinged:?}");
    }
}
