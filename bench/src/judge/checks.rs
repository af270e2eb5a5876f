//! The checks that only the referee can make. Pure.
//!
//! A check that fails is `invalid`: the numbers do not say what they seem to say. One that is
//! passed with a doubt is `doubtful`: the run counts, and every report marks it.
//! `docs/method.md` has the table of which does what.

use loadgen::record::{LoadKind, Record};
use loadgen::verdict::BUSY_LIMIT;
use server_core::lifecycle::Final;

use crate::record::{Check, CheckName, CheckStatus, ServerSide, Slice, Slices};

/// A server busier than this was at its limit, so a full generator did not hold it back much.
pub const SERVER_FULL: f64 = 0.90;
/// At a fixed rate a server busier than this has no time to spare: the latency is that of a queue.
pub const SERVER_AT_ITS_RATE: f64 = 0.97;
/// A server cannot use more than its CPUs; a little more shows because the samples are not of one
/// instant.
pub const SERVER_IMPOSSIBLE: f64 = 1.05;
/// More CPU time than this share of all CPUs taken by the hypervisor is a doubt.
pub const STEAL_SHARE: f64 = 0.02;
/// More CPU time than this share of all CPUs used by others is a doubt, in older results.
pub const OTHER_LOAD_SHARE: f64 = 0.05;
/// More than this share of a CPU used by others on one side is a doubt, and this more for each
/// further CPU of the side: a busy loop takes a tenth of a server's CPU, or all that it leaves.
pub const OTHER_LOAD_ON_A_SIDE: (f64, f64) = (0.08, 0.005);
/// Of the time that a server's CPUs sleep, this share more: packets that arrive meanwhile are in
/// the figures of nobody (on a quiet machine up to 10.5% of a CPU at half load, 7.3% at full load).
pub const OTHER_LOAD_ASLEEP: f64 = 0.10;

/// More than this share of a CPU used by a server while others have their turn is a doubt: it takes
/// from them what is not counted as its own.
pub const AWAY_SHARE: f64 = 0.01;
/// CPU time that the kernel alone needs to take one message from a socket and to send one, ns. Each
/// passes through a system call (or an entry of io_uring) and TCP, and the one that is sent through
/// the receiver's softirq too: 0.3 us are some thousand instructions for all of that. The least in
/// a committed result is 4.7 us, of a server of raw TCP.
pub const SERVER_FLOOR_NS: f64 = 300.0;
/// With fewer messages in a window its edges, which are interpolated, would say more than they.
const MESSAGES_FOR_A_FLOOR: f64 = 1000.0;

/// A contestant is warm when the last two stretches of its warm-up differ by at most this share, in
/// throughput and in CPU time per message.
pub const WARM_WITHIN: f64 = 0.10;

/// In a closed loop a full generator beside a server with time to spare measures the generator. At
/// a fixed rate that is told by its lag, and where the server was not watched by nothing.
pub(super) fn generator_limit(record: &Record, server: &ServerSide) -> Option<Check> {
    let closed_loop = record.options.rate_per_s.is_none() && record.kind != LoadKind::Idle;
    if !closed_loop || record.options.spin_us > 0 {
        return None;
    }
    let busiest = record.generator.busiest_share().unwrap_or(0.0);
    let server_share = server.window?.cpu_share;
    let was_the_limit = busiest > BUSY_LIMIT && server_share < SERVER_FULL;
    let check = Check::ok(CheckName::GeneratorLimit, busiest, BUSY_LIMIT);
    Some(
        check
            .when(was_the_limit, CheckStatus::Invalid)
            .beside(server_share),
    )
}

/// What the server used of its CPUs.
pub(super) fn server_cpu(record: &Record, server: &ServerSide) -> Check {
    let at_its_rate = match record.options.rate_per_s {
        Some(_) => SERVER_AT_ITS_RATE,
        None => SERVER_IMPOSSIBLE,
    };
    let Some(window) = server.window else {
        return Check {
            observed: None,
            ..Check::ok(CheckName::ServerCpu, 0.0, at_its_rate)
        }
        .when(true, CheckStatus::Invalid);
    };
    let share = window.cpu_share;
    let limit = match share > SERVER_IMPOSSIBLE {
        true => SERVER_IMPOSSIBLE,
        false => at_its_rate,
    };
    Check::ok(CheckName::ServerCpu, share, limit).when(share > limit, CheckStatus::Doubtful)
}

/// Whether the server used what it must have used to answer: messages of one connection that are in
/// flight together may be received and answered together. `None` where it was not seen, or there
/// was too little to do.
pub(super) fn server_cpu_floor(record: &Record, server: &ServerSide) -> Option<Check> {
    let window = server.window?;
    let seconds = record.window_ns as f64 / 1e9;
    let (count, together) = match record.kind {
        LoadKind::Echo => (record.throughput.messages_per_s * seconds, together(record)),
        LoadKind::Broadcast => (record.messages.sent as f64, together(record)),
        LoadKind::Connect => (record.connect.completed as f64, 1.0),
        LoadKind::Idle => return None,
    };
    if count < MESSAGES_FOR_A_FLOOR {
        return None;
    }
    let (each_ns, floor_ns) = (window.cost_ns() as f64 / count, SERVER_FLOOR_NS / together);
    let check = Check::ok(CheckName::ServerCpuFloor, each_ns, floor_ns).beside(together);
    Some(check.when(each_ns < floor_ns, CheckStatus::Invalid))
}

/// Messages of a connection that may be in flight together: the window of a closed loop; at a fixed
/// rate what is due on a connection within the 99th percentile of the latency.
fn together(record: &Record) -> f64 {
    let Some(rate_per_s) = record.options.rate_per_s else {
        return record.options.window.max(1) as f64;
    };
    let latency_s = record
        .latency()
        .map_or(0.0, |latency| latency.p99_ns as f64 / 1e9);
    let connections = record.options.connections.max(1) as f64;
    (rate_per_s * latency_s / connections).ceil().max(1.0)
}

/// What the hypervisor took.
pub(super) fn steal(share: f64) -> Check {
    Check::ok(CheckName::Steal, share, STEAL_SHARE).when(share > STEAL_SHARE, CheckStatus::Doubtful)
}

/// How often a CPU quota stopped threads: any such pause is longer than most latencies.
pub(super) fn throttled(periods: u64) -> Check {
    Check::ok(CheckName::Throttled, periods as f64, 0.0).when(periods > 0, CheckStatus::Doubtful)
}

/// What everybody else used.
pub(super) fn other_load(share: f64) -> Check {
    Check::ok(CheckName::OtherLoad, share, OTHER_LOAD_SHARE)
        .when(share > OTHER_LOAD_SHARE, CheckStatus::Doubtful)
}

/// What everybody else used of the CPUs of the server and of the generator: the side where it was
/// more in proportion to the limit. `server_share`: what the server used of its CPUs.
pub(super) fn other_load_of_sides(
    server: (u64, f64),
    generator: (u64, f64),
    server_share: f64,
) -> Check {
    let server = of_side("server", server, asleep(server_share));
    let generator = of_side("generator", generator, 0.0);
    let over = |check: &Check| {
        check
            .observed
            .zip(check.limit)
            .map(|(seen, limit)| seen / limit)
    };
    match over(&server) >= over(&generator) {
        true => server,
        false => generator,
    }
}

/// What everybody else used where server and generator share their CPUs, and used `busy` of them.
pub(super) fn other_load_of_shared(both: (u64, f64), busy: f64) -> Check {
    of_side("shared", both, asleep(busy))
}

fn of_side(side: &str, (cpus, others): (u64, f64), asleep: f64) -> Check {
    let (first, further) = OTHER_LOAD_ON_A_SIDE;
    let limit = first + further * cpus.saturating_sub(1) as f64 + asleep * cpus as f64;
    let check = Check::ok(CheckName::OtherLoad, others, limit).detail(side);
    check.when(others > limit, CheckStatus::Doubtful)
}

fn asleep(busy: f64) -> f64 {
    OTHER_LOAD_ASLEEP * (1.0 - busy).clamp(0.0, 1.0)
}

/// What the server used while others had their turn; `None` of a single slice.
pub(super) fn away(alternation: &Slices) -> Option<Check> {
    let slices = alternation.slices.iter();
    let (cpu_ns, away_ns) = slices.fold((0, 0), |(cpu_ns, away_ns), slice| {
        (cpu_ns + slice.away_cpu_ns, away_ns + slice.away_ns)
    });
    let share = (away_ns > 0).then(|| cpu_ns as f64 / away_ns as f64)?;
    let check = Check::ok(CheckName::Away, share, AWAY_SHARE);
    Some(check.when(share > AWAY_SHARE, CheckStatus::Doubtful))
}

/// Whether the contestant was warm before the first cycle.
pub(super) fn warm_up(alternation: &Slices) -> Check {
    let stretches = &alternation.warm_up;
    let apart = apart(stretches);
    let check = Check::ok(CheckName::WarmUp, apart.unwrap_or(1.0), WARM_WITHIN);
    check
        .when(
            apart.is_none_or(|apart| apart > WARM_WITHIN),
            CheckStatus::Doubtful,
        )
        .beside(stretches.len() as f64)
}

/// How far the last two stretches of a warm-up lie apart, in throughput or CPU time per message,
/// whichever is more; `None` of fewer than two.
pub fn apart(stretches: &[Slice]) -> Option<f64> {
    let [.., a, b] = stretches else { return None };
    let between = |key: &str| Some((a.metric(key)? / b.metric(key)?).ln().abs());
    let of_cost = between("server_cpu_ns_per_message").unwrap_or(0.0);
    let apart = between("messages_per_s")?.max(of_cost);
    apart.is_finite().then_some(apart)
}

/// Those that fail, or one that says that none does.
pub(super) fn or_ok(failed: Vec<Check>, name: CheckName) -> Vec<Check> {
    if failed.is_empty() {
        vec![Check::ok(name, 0.0, 0.0)]
    } else {
        failed
    }
}

/// Where the server's counters and the generator's cannot both be true. After a scale step
/// (`emptied`) all connections have been closed in order, so both sides have counted the same; and
/// the silent ones have been pinged inside the window, all or `pinged_fraction` of them.
pub(super) fn server_counters(
    record: &Record,
    server: &ServerSide,
    emptied: bool,
    pinged_fraction: Option<f64>,
) -> Vec<Check> {
    let fault = |what: &str, observed: u64, limit: u64| {
        Check::ok(CheckName::ServerCounters, observed as f64, limit as f64)
            .when(true, CheckStatus::Invalid)
            .detail(what)
    };
    let counted: Final = match final_counters(server) {
        Ok(counted) => counted,
        Err(what) => {
            return vec![Check {
                observed: None,
                limit: None,
                ..fault(&what, 0, 0)
            }];
        }
    };
    let (totals, counted) = (&record.totals, &counted.totals);
    let equal = |a: u64, b: u64| a == b || !emptied;
    let mut found = Vec::new();
    for (what, holds, observed, limit) in [
        (
            "messages_sent",
            counted.messages_sent >= totals.received,
            counted.messages_sent,
            totals.received,
        ),
        (
            "messages_received",
            counted.messages_received <= totals.sent
                && equal(counted.messages_received, totals.sent),
            counted.messages_received,
            totals.sent,
        ),
        (
            "connections_accepted",
            counted.connections_accepted >= totals.handshakes,
            counted.connections_accepted,
            totals.handshakes,
        ),
        (
            "pongs_received",
            equal(counted.pongs_received, totals.pings_answered),
            counted.pongs_received,
            totals.pings_answered,
        ),
        (
            "handshakes",
            equal(counted.handshakes, totals.handshakes),
            counted.handshakes,
            totals.handshakes,
        ),
    ] {
        if !holds {
            found.push(fault(what, observed, limit));
        }
    }
    let of_emptied = |count: u64| if emptied { count } else { 0 };
    for (what, count) in [
        ("violations", counted.violations),
        ("dropped", counted.dropped),
        ("slow_consumers_closed", counted.slow_consumers_closed),
        ("refused", counted.refused),
        ("accept_errors", counted.accept_errors),
        ("idle_timeouts", of_emptied(counted.idle_timeouts)),
        ("drained", of_emptied(counted.drained)),
    ] {
        if count > 0 {
            found.push(fault(what, count, 0));
        }
    }
    if let Some(idle) = record.idle.filter(|_| emptied) {
        let silent = idle.held - idle.active.min(idle.held);
        let expected = (silent as f64 * pinged_fraction.unwrap_or(1.0)) as u64;
        let pinged = idle.pings_answered_in_window;
        if pinged < expected {
            found.push(fault("pings_in_window", pinged, expected).beside(silent as f64));
        }
    }
    or_ok(found, CheckName::ServerCounters)
}

fn final_counters(server: &ServerSide) -> Result<Final, String> {
    let line = server
        .final_line
        .as_ref()
        .ok_or("the server printed no line of final counters")?;
    serde_json::from_value(line.clone())
        .map_err(|error| format!("the server's final line is not in order: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;
    use CheckStatus::{Doubtful, Invalid, Ok};

    #[test]
    fn cpu_has_limits_on_both_sides() {
        let run = |busiest: f64, share: f64, rate: Option<f64>| {
            let run = test_data::echo_run("server-uring", 1, 100_000.0);
            let (mut record, mut server) = (run.loadgen.unwrap(), run.server);
            record.options.rate_per_s = rate;
            record.generator.threads[0].busy_share = busiest;
            server.window.as_mut().unwrap().cpu_share = share;
            (
                generator_limit(&record, &server).map(|check| check.status),
                server_cpu(&record, &server).status,
            )
        };
        assert_eq!(run(0.5, 0.9, None), (Some(Ok), Ok));
        assert_eq!(run(0.97, 0.6, None), (Some(Ok), Ok));
        assert_eq!(run(0.971, 0.89, None), (Some(Invalid), Ok));
        assert_eq!(run(0.99, 0.90, None), (Some(Ok), Ok));
        assert_eq!(run(0.5, 1.05, None), (Some(Ok), Ok));
        assert_eq!(run(0.5, 1.06, None), (Some(Ok), Doubtful));
        assert_eq!(run(0.99, 0.97, Some(1e5)), (None, Ok));
        assert_eq!(run(0.5, 0.98, Some(1e5)), (None, Doubtful));
    }

    #[test]
    fn a_server_that_used_too_little_did_not_answer() {
        let check = |cpu_ns: u64, change: fn(&mut Record)| {
            let run = test_data::echo_run("server-uring", 1, 100_000.0);
            let (mut record, mut server) = (run.loadgen.unwrap(), run.server);
            change(&mut record);
            server.window.as_mut().unwrap().cpu_ns = cpu_ns;
            server_cpu_floor(&record, &server)
        };
        // 100,000 messages in a second, at 12.5 ns each.
        let leftover = check(1_250_000, |_| {}).unwrap();
        assert_eq!((leftover.status, leftover.observed), (Invalid, Some(12.5)));
        assert_eq!(leftover.limit, Some(300.0));
        assert_eq!(check(30_000_000, |_| {}).unwrap().status, Ok);
        let of_16 = |record: &mut Record| record.options.window = 16;
        assert_eq!(check(1_250_000, of_16).unwrap().status, Invalid);
        assert_eq!(
            check(2_000_000, of_16).unwrap().status,
            Ok,
            "sixteen in one"
        );
        let queue = |record: &mut Record| {
            // 1,000 connections, a message every 10 ms on each.
            record.options.rate_per_s = Some(100_000.0);
            record.latency_intended = record.latency_actual.clone();
            record.latency_intended.as_mut().unwrap().p99_ns = 200_000_000;
        };
        assert_eq!(check(1_250_000, queue).unwrap().limit, Some(15.0));
        let few = |record: &mut Record| record.throughput.messages_per_s = 900.0;
        assert_eq!(check(0, few), None);
    }

    #[test]
    fn a_generator_that_polls_is_always_busy() {
        let run = test_data::echo_run("server-uring", 1, 100_000.0);
        let mut record = run.loadgen.unwrap();
        record.generator.threads[0].busy_share = 1.0;
        record.options.spin_us = 50;
        assert_eq!(generator_limit(&record, &run.server), None);
    }

    #[test]
    fn a_server_that_was_not_watched_is_not_measured() {
        let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
        run.server.window = None;
        let check = server_cpu(&run.loadgen.unwrap(), &run.server);
        assert_eq!((check.status, check.observed), (Invalid, None));
    }

    #[test]
    fn the_machine_can_only_raise_doubts() {
        let busy_loop = |cpus: u64| other_load_of_sides((cpus, 0.108), (cpus, 0.02), 1.0);
        for cpus in [1, 2, 4] {
            let check = busy_loop(cpus);
            assert_eq!(
                (check.status, check.detail.as_deref()),
                (Doubtful, Some("server"))
            );
        }
        let quiet = other_load_of_sides((4, 0.07), (1, 0.06), 1.0);
        let half = other_load_of_sides((1, 0.105), (1, 0.0), 0.5);
        assert_eq!(half.status, Ok);
        assert_eq!(
            (quiet.status, quiet.detail.as_deref()),
            (Ok, Some("generator"))
        );
        assert_eq!(steal(0.02).status, Ok);
        assert_eq!(steal(0.021).status, Doubtful);
        assert_eq!(other_load(0.05).status, Ok);
        let check = other_load(0.31);
        assert_eq!((check.status, check.limit), (Doubtful, Some(0.05)));
    }

    /// By what the counters were changed, and which check then fails with which numbers.
    #[test]
    fn counters_that_contradict_each_other_are_named_with_both_numbers() {
        type Change = fn(&mut Record, &mut ServerSide);
        fn set(server: &mut ServerSide, counter: &str, count: u64) {
            server.final_line.as_mut().unwrap()[counter] = count.into();
        }
        let found = |emptied: bool, change: Change| {
            let run = match emptied {
                true => test_data::scale_run("server-tokio", 100_000),
                false => test_data::echo_run("server-uring", 1, 100_000.0),
            };
            let (mut record, mut server) = (run.loadgen.unwrap(), run.server);
            change(&mut record, &mut server);
            let checks = server_counters(&record, &server, emptied, None);
            assert_eq!(checks.len(), 1, "{checks:?}");
            let check = checks.into_iter().next().unwrap();
            (check.status, check.detail, check.observed, check.limit)
        };
        let cases: [(bool, Change, &str, u64, u64); 13] = [
            (
                false,
                |r, _| r.totals.received += 1,
                "messages_sent",
                200_000,
                200_001,
            ),
            (
                false,
                |r, _| r.totals.sent -= 1,
                "messages_received",
                200_000,
                199_999,
            ),
            (
                false,
                |r, _| r.totals.handshakes = 5_000,
                "connections_accepted",
                1_000,
                5_000,
            ),
            (false, |_, s| set(s, "violations", 1), "violations", 1, 0),
            (false, |_, s| set(s, "dropped", 7), "dropped", 7, 0),
            (
                false,
                |_, s| set(s, "slow_consumers_closed", 1),
                "slow_consumers_closed",
                1,
                0,
            ),
            (false, |_, s| set(s, "refused", 1), "refused", 1, 0),
            (
                false,
                |_, s| set(s, "accept_errors", 1),
                "accept_errors",
                1,
                0,
            ),
            (
                true,
                |r, _| r.totals.pings_answered += 1,
                "pongs_received",
                200_000,
                200_001,
            ),
            (
                true,
                |_, s| set(s, "messages_received", 19_999),
                "messages_received",
                19_999,
                20_000,
            ),
            (
                true,
                |_, s| set(s, "idle_timeouts", 3),
                "idle_timeouts",
                3,
                0,
            ),
            (true, |_, s| set(s, "drained", 4), "drained", 4, 0),
            (
                true,
                |r, _| r.idle.as_mut().unwrap().pings_answered_in_window = 98_999,
                "pings_in_window",
                98_999,
                99_000,
            ),
        ];
        for (emptied, change, what, observed, limit) in cases {
            assert_eq!(
                found(emptied, change),
                (
                    Invalid,
                    Some(what.to_owned()),
                    Some(observed as f64),
                    Some(limit as f64)
                )
            );
        }
        for emptied in [false, true] {
            assert_eq!(found(emptied, |_, _| {}), (Ok, None, Some(0.0), Some(0.0)));
            let (status, what, observed, _) = found(emptied, |_, s| s.final_line = None);
            assert_eq!((status, observed), (Invalid, None));
            assert!(what.unwrap().contains("no line of final counters"));
        }
        // One side more that only a scale step is held to.
        assert_eq!(found(false, |_, s| set(s, "idle_timeouts", 3)).0, Ok);
    }
}
