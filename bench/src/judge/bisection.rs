//! The highest rate at which a server meets a latency target, found by probing: bisection on a
//! logarithmic scale, then runs at the rate found that must confirm it. Pure: the next rate is a
//! function of the outcomes so far, so the search can be repeated from its probes.
//!
//! One probe is noisy. A rate counts as missed only when two probes at it missed, so that one stall
//! does not halve the result; and as found only when most of the confirming runs met the target, so
//! that one lucky probe does not raise it.

use loadgen::verdict::BUSY_LIMIT;

use super::checks::{SERVER_FULL, STEAL_SHARE};
use crate::record::{LatencyTarget, Limiter, Outcome, Role, SearchResult};

/// First step from the first rate; each further one is twice as long on the logarithmic scale.
const FIRST_STEP: f64 = 1.25;
/// The longest step.
const LONGEST_STEP: f64 = 4.0;
/// A rate counts as missed after this many probes that missed the target.
const MISSED_ENOUGH: usize = 2;
/// It counts as missed, too, after this many inconclusive probes.
const INCONCLUSIVE_ENOUGH: usize = 3;
/// A search that takes longer has no end.
const MOST_PROBES: usize = 60;
/// The share of all CPUs above which the machine is full.
const MACHINE_FULL: f64 = 0.95;
/// Socket buffers beyond this share of what the kernel calls pressure (`net.ipv4.tcp_mem`).
const BUFFERS_FULL: f64 = 0.9;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// A probe.
    Probe {
        /// Messages per second.
        rate_per_s: f64,
        /// Why.
        role: Role,
    },
    /// The search is over.
    Done(SearchResult),
}

/// The step after these probes.
pub fn next(goal: &LatencyTarget, probes: &[(f64, Outcome)]) -> Step {
    Bisection::new(goal).follow(probes)
}

/// Where a search stands.
struct Bisection<'a> {
    goal: &'a LatencyTarget,
    role: Role,
    rate: f64,
    step: f64,
    /// Highest rate that met the target, lowest that missed it.
    highest_met: Option<f64>,
    lowest_missed: Option<f64>,
    /// Outcomes at this rate since it was chosen.
    met: usize,
    missed: usize,
    inconclusive: usize,
}

impl<'a> Bisection<'a> {
    fn new(goal: &'a LatencyTarget) -> Self {
        Self {
            goal,
            role: Role::Search,
            rate: rounded(goal.start_per_s.clamp(goal.min_per_s, goal.max_per_s)),
            step: FIRST_STEP,
            highest_met: None,
            lowest_missed: None,
            met: 0,
            missed: 0,
            inconclusive: 0,
        }
    }

    fn follow(mut self, probes: &[(f64, Outcome)]) -> Step {
        for (_, outcome) in probes.iter().take(MOST_PROBES) {
            match outcome {
                Outcome::Met => self.met += 1,
                Outcome::Missed => self.missed += 1,
                Outcome::Inconclusive => self.inconclusive += 1,
            }
            let end = match self.role {
                Role::Search => self.search(),
                Role::Confirm => self.confirm(),
            };
            if let Some(found) = end {
                return Step::Done(found);
            }
        }
        if probes.len() >= MOST_PROBES {
            return Step::Done(self.nothing());
        }
        Step::Probe {
            rate_per_s: self.rate,
            role: self.role,
        }
    }

    fn search(&mut self) -> Option<SearchResult> {
        if self.met > 0 {
            self.highest_met = Some(self.rate);
        } else if self.missed >= MISSED_ENOUGH || self.inconclusive >= INCONCLUSIVE_ENOUGH {
            self.lowest_missed = Some(self.rate);
        } else {
            return None;
        }
        let next = match (self.highest_met, self.lowest_missed) {
            (Some(met), Some(missed)) if missed <= met * (1.0 + self.goal.resolution) => None,
            (Some(met), Some(missed)) => Some((met * missed).sqrt()),
            (Some(met), None) if met >= self.goal.max_per_s => None,
            (Some(met), None) => Some((met * self.stride()).min(self.goal.max_per_s)),
            (None, Some(missed)) if missed <= self.goal.min_per_s => return Some(self.nothing()),
            (None, Some(missed)) => Some((missed / self.stride()).max(self.goal.min_per_s)),
            (None, None) => return None,
        };
        match (next.map(rounded), self.highest_met) {
            // Between two whole numbers there is nothing left to try.
            (Some(rate), met) if Some(rate) != met && Some(rate) != self.lowest_missed => {
                self.go(rate)
            }
            (_, Some(met)) => {
                self.role = Role::Confirm;
                self.go(met);
            }
            (_, None) => return Some(self.nothing()),
        }
        None
    }

    fn confirm(&mut self) -> Option<SearchResult> {
        let goal = self.goal;
        let left = goal.confirmations.saturating_sub(self.met + self.missed);
        if left > 0 && self.inconclusive < INCONCLUSIVE_ENOUGH {
            return None;
        }
        if self.met >= goal.majority() {
            return Some(SearchResult {
                rate_per_s: Some(self.rate),
                missed_per_s: self.lowest_missed,
                confirmed: self.met,
            });
        }
        // One probe was lucky: the search goes on below, in growing steps.
        (self.highest_met, self.lowest_missed) = (None, Some(self.rate));
        (self.role, self.step) = (Role::Search, 1.0 + goal.resolution);
        let lower = rounded((self.rate / self.stride()).max(goal.min_per_s));
        if lower >= self.rate {
            return Some(self.nothing());
        }
        self.go(lower);
        None
    }

    fn nothing(&self) -> SearchResult {
        SearchResult {
            missed_per_s: self.lowest_missed,
            ..SearchResult::default()
        }
    }

    fn go(&mut self, rate: f64) {
        self.rate = rate;
        (self.met, self.missed, self.inconclusive) = (0, 0, 0);
    }

    /// Longer and longer, so that a first rate that is far off costs little.
    fn stride(&mut self) -> f64 {
        let stride = self.step;
        self.step = (stride * stride).min(LONGEST_STEP);
        stride
    }
}

/// The generator takes whole messages per second.
fn rounded(rate: f64) -> f64 {
    rate.round().max(1.0)
}

/// What was seen in the probes at the lowest rate that missed the target: shares, each the median
/// over them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Saturation {
    /// Of the server's CPUs.
    pub server_cpu: f64,
    /// Of the generator's busiest CPU.
    pub generator_cpu: f64,
    /// Of all CPUs of the machine, by all programs.
    pub machine_cpu: f64,
    /// Of all CPUs, taken by the hypervisor.
    pub steal: f64,
    /// Of the socket buffers that the kernel gives before it calls it pressure.
    pub socket_buffers: f64,
}

impl Saturation {
    /// The first of these that was full. Where server and generator are full together it is the
    /// server: the generator got its messages sent.
    pub fn limiter(&self) -> Limiter {
        if self.socket_buffers > BUFFERS_FULL {
            Limiter::Memory
        } else if self.server_cpu >= SERVER_FULL {
            Limiter::ServerCpu
        } else if self.generator_cpu > BUSY_LIMIT {
            Limiter::GeneratorCpu
        } else if self.machine_cpu + self.steal > MACHINE_FULL || self.steal > STEAL_SHARE {
            Limiter::Kernel
        } else {
            Limiter::Latency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::SplitMix64;

    const GOAL: LatencyTarget = LatencyTarget {
        p99_limit_ns: 5_000_000,
        start_per_s: 10_000.0,
        min_per_s: 100.0,
        max_per_s: 10_000_000.0,
        resolution: 0.03,
        confirmations: 3,
    };

    /// Searches with a server that answers as `holds` says; the probes, and what was found.
    fn search(
        goal: &LatencyTarget,
        mut probe: impl FnMut(f64) -> Outcome,
    ) -> (Vec<(f64, Outcome)>, SearchResult) {
        let mut probes = Vec::new();
        loop {
            match next(goal, &probes) {
                Step::Probe { rate_per_s, .. } => probes.push((rate_per_s, probe(rate_per_s))),
                Step::Done(found) => return (probes, found),
            }
        }
    }

    fn up_to(capacity: f64) -> impl Fn(f64) -> Outcome {
        move |rate| {
            if rate <= capacity {
                Outcome::Met
            } else {
                Outcome::Missed
            }
        }
    }

    #[test]
    fn a_server_without_noise_is_found_within_the_resolution_from_any_start() {
        for capacity in [137.0, 5_000.0, 9_990.0, 10_010.0, 123_456.0, 2_000_000.0] {
            for start in [100.0, 10_000.0, 5_000_000.0] {
                let goal = LatencyTarget {
                    start_per_s: start,
                    ..GOAL
                };
                let (probes, found) = search(&goal, up_to(capacity));
                let rate = found.rate_per_s.unwrap();
                assert!(
                    rate <= capacity && rate * 1.031 > capacity,
                    "{rate} of {capacity} from {start}"
                );
                assert!(found.missed_per_s.unwrap() > capacity);
                assert_eq!(found.confirmed, 3);
                assert!(probes.len() <= 45, "{} probes", probes.len());
            }
        }
    }

    #[test]
    fn a_good_start_costs_a_dozen_probes() {
        let goal = LatencyTarget {
            start_per_s: 80_000.0,
            ..GOAL
        };
        for capacity in [70_000.0, 85_000.0, 95_000.0, 99_000.0] {
            let (probes, _) = search(&goal, up_to(capacity));
            assert!(probes.len() <= 14, "{} for {capacity}", probes.len());
        }
    }

    /// What a server holds varies by 3% from probe to probe, and one probe in twenty breaks for
    /// nothing (a stall).
    #[test]
    fn noise_and_stalls_move_what_is_found_by_little() {
        let capacity = 50_000.0;
        let mut off = Vec::new();
        for seed in 0..1000 {
            let mut rng = SplitMix64::new(seed);
            let mut draw = move || rng.next_u64() as f64 / u64::MAX as f64;
            let (_, found) = search(&GOAL, |rate| {
                // Near enough to normal: a sum of three.
                let noise = (draw() + draw() + draw() - 1.5) * 2.0 * 0.03;
                if draw() < 0.05 {
                    return Outcome::Missed;
                }
                up_to(capacity * (1.0 + noise))(rate)
            });
            off.push((found.rate_per_s.unwrap() / capacity).ln());
        }
        off.sort_by(f64::total_cmp);
        let (low, median, high) = (off[25], off[500], off[975]);
        assert!(median.abs() < 0.03, "median off by {median}");
        assert!(low > -0.1 && high < 0.06, "95% within {low} to {high}");
    }

    #[test]
    fn one_stall_does_not_halve_a_server_and_one_stroke_of_luck_does_not_raise_it() {
        let capacity = 50_000.0;
        let mut number = 0;
        let (_, found) = search(&GOAL, |rate| {
            number += 1;
            match number {
                1 => Outcome::Missed,
                _ => up_to(capacity)(rate),
            }
        });
        assert!(found.rate_per_s.unwrap() > capacity / 1.031);
        let mut lucky = true;
        let (_, found) = search(&GOAL, |rate| {
            if rate > capacity * 1.02 && std::mem::take(&mut lucky) {
                return Outcome::Met;
            }
            up_to(capacity)(rate)
        });
        let rate = found.rate_per_s.unwrap();
        assert!(rate <= capacity && rate > capacity * 0.7, "{rate}");
    }

    #[test]
    fn both_ends_of_the_range_are_said_to_be_ends() {
        let goal = LatencyTarget {
            max_per_s: 20_000.0,
            ..GOAL
        };
        let (_, found) = search(&goal, |_| Outcome::Met);
        assert_eq!(
            (found.rate_per_s, found.missed_per_s),
            (Some(20_000.0), None)
        );
        let (_, found) = search(&GOAL, |_| Outcome::Missed);
        assert_eq!((found.rate_per_s, found.missed_per_s), (None, Some(100.0)));
    }

    #[test]
    fn probes_that_say_nothing_end_the_search_too() {
        let (probes, found) = search(&GOAL, |_| Outcome::Inconclusive);
        assert_eq!(found.rate_per_s, None);
        assert!(probes.len() <= MOST_PROBES);
        let mut number = 0;
        let (_, found) = search(&GOAL, |rate| {
            number += 1;
            match number % 2 {
                0 => Outcome::Inconclusive,
                _ => up_to(50_000.0)(rate),
            }
        });
        assert!(found.rate_per_s.unwrap() > 50_000.0 / 1.031);
    }

    #[test]
    fn a_search_that_nothing_confirms_ends_without_a_rate() {
        // It holds once at every rate, and never again.
        let mut seen = std::collections::BTreeSet::new();
        let (probes, found) = search(&GOAL, |rate| {
            if rate < 60_000.0 && seen.insert(rate as u64) {
                Outcome::Met
            } else {
                Outcome::Missed
            }
        });
        assert_eq!(found.rate_per_s, None);
        assert_eq!(probes.len(), MOST_PROBES);
    }

    #[test]
    fn the_limiter_is_what_was_full() {
        let quiet = Saturation {
            server_cpu: 0.6,
            generator_cpu: 0.7,
            machine_cpu: 0.7,
            ..Saturation::default()
        };
        type Change = fn(&mut Saturation);
        let cases: [(Change, Limiter); 6] = [
            (|_| {}, Limiter::Latency),
            (|s| s.server_cpu = 0.95, Limiter::ServerCpu),
            (|s| s.generator_cpu = 0.99, Limiter::GeneratorCpu),
            (|s| s.machine_cpu = 0.97, Limiter::Kernel),
            (|s| s.steal = 0.04, Limiter::Kernel),
            (|s| s.socket_buffers = 0.95, Limiter::Memory),
        ];
        for (change, expected) in cases {
            let mut saturation = quiet;
            change(&mut saturation);
            assert_eq!(saturation.limiter(), expected);
        }
        let both = Saturation {
            server_cpu: 0.99,
            generator_cpu: 0.99,
            ..quiet
        };
        assert_eq!(both.limiter(), Limiter::ServerCpu);
    }
}
