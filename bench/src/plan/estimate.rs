//! How long runs take, about. Pure.

use std::time::Duration;

use crate::config::{Alternation, Calibration, Scenario, ScenarioKind, Timing};

/// Start and end of two processes, in seconds (measured on two CPUs, as the rates below).
const PROCESSES_S: f64 = 0.2;
/// Connections that come up per second.
const CONNECTS_PER_S: f64 = 12_000.0;
/// Connections that are closed per second at the end.
const CLOSES_PER_S: f64 = 40_000.0;
/// Until the memory of many connections is back.
const GIVING_BACK_S: f64 = 3.0;
/// Between two slices: outstanding replies, the referee's looks.
const BETWEEN_SLICES: Duration = Duration::from_millis(6);
/// A stretch of a warm-up is as long as a slice, within these bounds: two shorter ones agree by
/// chance while buffers and rooms grow.
const SHORTEST_STRETCH: Duration = Duration::from_millis(150);
const LONGEST_STRETCH: Duration = Duration::from_millis(400);
/// Stretches of a warm-up, about.
const STRETCHES: u32 = 3;
/// Probes of a search for a capacity, about: the first rate is a good guess.
const PROBES: u32 = 12;

/// How long a run takes, about.
pub fn run(scenario: &Scenario, timing: Timing) -> Duration {
    let connections = scenario.connections as f64;
    let opening = if scenario.kind == ScenarioKind::Connect {
        0.0
    } else {
        connections / CONNECTS_PER_S
    };
    let giving_back = if scenario.kind == ScenarioKind::Scale {
        GIVING_BACK_S
    } else {
        0.0
    };
    let once =
        Duration::from_secs_f64(PROCESSES_S + opening + connections / CLOSES_PER_S + giving_back)
            + timing.warmup
            + timing.duration;
    match scenario.kind {
        ScenarioKind::Capacity => once * PROBES,
        _ => once,
    }
}

/// How long one contestant's part of a round takes, about.
pub fn round(scenario: &Scenario, alternation: Alternation) -> Duration {
    let connections = scenario.connections as f64;
    let once = PROCESSES_S + connections / CONNECTS_PER_S + connections / CLOSES_PER_S;
    let slice = alternation.settle + alternation.slice + BETWEEN_SLICES;
    let warm_up = (alternation.settle + stretch(alternation)) * STRETCHES;
    Duration::from_secs_f64(once) + warm_up + slice * alternation.cycles as u32
}

/// How long a stretch of the warm-up is measured.
pub fn stretch(alternation: Alternation) -> Duration {
    alternation.slice.clamp(SHORTEST_STRETCH, LONGEST_STRETCH)
}

/// How long the calibration of one scenario takes for one contestant, about.
pub fn calibration(scenario: &Scenario, calibration: Calibration) -> Duration {
    let timing = Timing {
        warmup: calibration.warmup,
        duration: calibration.duration,
    };
    run(scenario, timing) * calibration.runs as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn more_connections_take_longer() {
        let timing = Timing {
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs(1),
        };
        let mut scenario = test_data::scenario("x");
        let small = run(&scenario, timing);
        scenario.connections = 10_000;
        assert!(run(&scenario, timing) > small + Duration::from_millis(500));
        assert_eq!(run(&test_data::capacity_scenario(), timing), small * PROBES);
        assert!(small > Duration::from_millis(1400) && small < Duration::from_secs(2));
    }
}
