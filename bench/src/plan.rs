//! Who runs when, and how long it takes. Pure.
//!
//! A suite runs in rounds. Round *r* holds block *r* of every bout, the bouts in random order; a
//! block holds one run of every contestant, in random order. So the runs that are compared stand
//! side by side in time, each bout is spread over the whole suite (a bad minute of the machine hits
//! one block of every bout, not all of one bout), and a suite that ends early ends with the same
//! number of blocks everywhere.

use std::time::Duration;

use crate::config::{Calibration, Kind, Scenario, Timing};
use crate::rng::{SplitMix64, derive_seed};

/// Order of `contestants` in a block of a bout, as indices.
pub fn order_in_block(suite_seed: u64, bout: &str, block: usize, contestants: usize) -> Vec<usize> {
    shuffled(
        derive_seed(suite_seed, &format!("order/{bout}/{block}")),
        contestants,
    )
}

/// Order of `bouts` in a round, as indices.
pub fn order_of_bouts(suite_seed: u64, round: usize, bouts: usize) -> Vec<usize> {
    shuffled(derive_seed(suite_seed, &format!("round/{round}")), bouts)
}

fn shuffled(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    SplitMix64::new(seed).shuffle(&mut order);
    order
}

/// Valid runs each contestant of a bout needs for the suite to succeed: four fifths of the blocks.
pub fn runs_needed(repeats: usize) -> usize {
    (repeats * 4).div_ceil(5)
}

/// Start and end of two processes, in seconds (measured on two CPUs, as the rates below).
const PROCESSES_S: f64 = 0.2;
/// Connections that come up per second.
const CONNECTS_PER_S: f64 = 12_000.0;
/// Connections that are closed per second at the end.
const CLOSES_PER_S: f64 = 40_000.0;

/// Until the memory of many connections is back.
const GIVING_BACK_S: f64 = 3.0;

/// Probes of a search for a capacity, about: the first rate is a good guess.
const PROBES: u32 = 12;

/// How long a run takes, about.
pub fn estimate_run(scenario: &Scenario, timing: Timing) -> Duration {
    let connections = scenario.connections as f64;
    let opening = if scenario.kind == Kind::Connect {
        0.0
    } else {
        connections / CONNECTS_PER_S
    };
    let giving_back = if scenario.kind == Kind::Scale {
        GIVING_BACK_S
    } else {
        0.0
    };
    let once =
        Duration::from_secs_f64(PROCESSES_S + opening + connections / CLOSES_PER_S + giving_back)
            + timing.warmup
            + timing.duration;
    match scenario.kind {
        Kind::Capacity => once * PROBES,
        _ => once,
    }
}

/// How long the calibration of one scenario takes for one contestant, about.
pub fn estimate_calibration(scenario: &Scenario, calibration: Calibration) -> Duration {
    let timing = Timing {
        warmup: calibration.warmup,
        duration: calibration.duration,
    };
    estimate_run(scenario, timing) * calibration.runs as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    #[test]
    fn orders_follow_from_the_seed_and_differ_between_blocks() {
        let order = |seed, block| order_in_block(seed, "echo", block, 3);
        assert_eq!(order(1, 1), order(1, 1));
        let of_blocks: std::collections::BTreeSet<Vec<usize>> =
            (1..40).map(|block| order(1, block)).collect();
        assert_eq!(of_blocks.len(), 6, "every order occurs");
        assert_ne!(
            (1..20).map(|block| order(1, block)).collect::<Vec<_>>(),
            (1..20).map(|block| order(2, block)).collect::<Vec<_>>()
        );
        let mut bouts = order_of_bouts(1, 1, 13);
        bouts.sort_unstable();
        assert_eq!(bouts, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn needed_runs_are_four_fifths_rounded_up() {
        assert_eq!([1, 2, 5, 10, 12, 16].map(runs_needed), [1, 2, 4, 8, 10, 13]);
    }

    #[test]
    fn more_connections_take_longer() {
        let timing = Timing {
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs(1),
        };
        let mut scenario = canned::scenario("x");
        let small = estimate_run(&scenario, timing);
        scenario.connections = 10_000;
        assert!(estimate_run(&scenario, timing) > small + Duration::from_millis(500));
        assert_eq!(
            estimate_run(&canned::capacity_scenario(), timing),
            small * PROBES
        );
        assert!(small > Duration::from_millis(1400) && small < Duration::from_secs(2));
    }
}
