//! The checks of a run, one by one, as data: what was looked at, what it was, and what it may be.
//! Pure.
//!
//! A check that fails is `invalid`: the numbers do not say what they seem to say. One that is
//! passed with a doubt is `doubtful`: the run counts, and every report marks it.
//! `docs/method.md` has the table of which does what.

use loadgen::record::{Kind, Record};
use loadgen::verdict::{
    BUSY_LIMIT, LAG_P99_LIMIT_NS, LAG_P99_WARNING_NS, LAG_SHARE_LIMIT, LITTLE_TOLERANCE,
    STALL_SHARE_LIMIT, STALL_WARNING_NS,
};

use crate::record::{Check, CheckStatus, ServerSide};

/// A generator thread busier than this had no time left for more load.
pub const GENERATOR_FULL: f64 = 0.97;
/// A server busier than this was at its limit, so a full generator did not hold it back much.
pub const SERVER_FULL: f64 = 0.90;
/// At a fixed rate a server busier than this has no time to spare: the latency is that of a queue.
pub const SERVER_AT_ITS_RATE: f64 = 0.97;
/// A server cannot use more than its CPUs; a little more is the looks not being at one instant.
const SERVER_IMPOSSIBLE: f64 = 1.05;
/// More CPU time than this share of all CPUs taken by the hypervisor is a doubt.
pub const STEAL_SHARE: f64 = 0.02;
/// More CPU time than this share of all CPUs used by others is a doubt.
pub const OTHER_LOAD_SHARE: f64 = 0.05;

impl Check {
    fn new(name: &str, value: f64, limit: f64) -> Self {
        Self {
            name: name.to_owned(),
            status: CheckStatus::Ok,
            value: Some(value),
            limit: Some(limit),
            reason: None,
        }
    }

    /// Not ok if `reason` says so.
    fn unless(mut self, status: CheckStatus, reason: Option<String>) -> Self {
        if reason.is_some() {
            (self.status, self.reason) = (status, reason);
        }
        self
    }

    /// A check that counts faults, none of which may be.
    pub(crate) fn of_faults(name: &str, faults: Vec<String>) -> Self {
        let reason = (!faults.is_empty()).then(|| faults.join("; "));
        Self::new(name, faults.len() as f64, 0.0).unless(CheckStatus::Invalid, reason)
    }

    /// A check that can only raise a doubt, and has no number.
    pub(crate) fn of_doubt(name: &str, doubt: Option<String>) -> Self {
        Self {
            value: None,
            limit: None,
            ..Self::new(name, 0.0, 0.0)
        }
        .unless(CheckStatus::Doubtful, doubt)
    }
}

/// What the generator also judges itself, checked again from its numbers.
pub(crate) fn of_the_record(record: &Record) -> Vec<Check> {
    [
        Some(connections(record)),
        Some(losses(record)),
        littles_law(record),
        lag(record),
        Some(stall(record)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn connections(record: &Record) -> Check {
    let found = &record.connections;
    if record.kind == Kind::Connect {
        // They come and go; each is one that must not fail.
        let failed = found.failed;
        return Check::new("connections", failed as f64, 0.0).unless(
            CheckStatus::Invalid,
            (failed > 0).then(|| format!("{failed} handshakes failed")),
        );
    }
    let held = found.up.saturating_sub(found.closed_early);
    Check::new("connections", held as f64, found.requested as f64).unless(
        CheckStatus::Invalid,
        (held < found.requested).then(|| {
            format!(
                "{held} of {} connections were up from the begin of the load to the end of the window",
                found.requested
            )
        }),
    )
}

fn losses(record: &Record) -> Check {
    let all = faults(record);
    let words: Vec<String> = kinds_of_fault(record)
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} messages {what}"))
        .collect();
    Check::new("losses", all as f64, 0.0)
        .unless(CheckStatus::Invalid, (all > 0).then(|| words.join(", ")))
}

fn kinds_of_fault(record: &Record) -> [(u64, &'static str); 5] {
    let found = &record.messages;
    [
        (found.lost, "lost"),
        (found.unsent, "never sent"),
        (found.duplicated, "duplicated"),
        (found.reordered, "reordered"),
        (found.corrupted, "corrupted"),
    ]
}

/// Messages with which something is wrong.
pub(crate) fn faults(record: &Record) -> u64 {
    kinds_of_fault(record).iter().map(|(count, _)| count).sum()
}

fn littles_law(record: &Record) -> Option<Check> {
    let ratio = record.littles_law?.ratio;
    let holds = (ratio - 1.0).abs() <= LITTLE_TOLERANCE;
    let should_be = match record.options.rate_per_s {
        Some(_) => "rate x mean latency",
        None => "connections x window",
    };
    Some(
        Check::new("littles_law", ratio, 1.0 + LITTLE_TOLERANCE).unless(
            CheckStatus::Invalid,
            (!holds).then(|| {
                format!("the requests in flight were {ratio:.3} of {should_be} (Little's law)")
            }),
        ),
    )
}

fn lag(record: &Record) -> Option<Check> {
    let lag = record.generator.schedule_lag?;
    let latency_ns = record.latency()?.p99_ns;
    let share = lag.p99_ns as f64 / latency_ns.max(1) as f64;
    let check = Check::new(
        "generator_lag",
        lag.p99_ns as f64,
        LAG_P99_WARNING_NS as f64,
    );
    if lag.p99_ns <= LAG_P99_WARNING_NS || share <= LAG_SHARE_LIMIT {
        return Some(check);
    }
    let status = if lag.p99_ns > LAG_P99_LIMIT_NS {
        CheckStatus::Invalid
    } else {
        CheckStatus::Doubtful
    };
    let reason = format!(
        "one message in a hundred was sent {:.1} ms late or more, {:.0}% of the latency's p99",
        lag.p99_ns as f64 / 1e6,
        share * 100.0
    );
    Some(check.unless(status, Some(reason)))
}

fn stall(record: &Record) -> Check {
    let threads = record.generator.threads.iter();
    let longest = threads
        .map(|thread| thread.longest_stall_ns)
        .max()
        .unwrap_or(0);
    let most = record.window_ns as f64 * STALL_SHARE_LIMIT;
    let status = if longest > 0 && longest as f64 >= most {
        CheckStatus::Invalid
    } else {
        CheckStatus::Doubtful
    };
    let stalled = longest >= STALL_WARNING_NS || status == CheckStatus::Invalid;
    Check::new("generator_stall", longest as f64, STALL_WARNING_NS as f64).unless(
        status,
        stalled.then(|| {
            format!(
                "the generator did not run for {:.0} ms of the window at a stretch",
                longest as f64 / 1e6
            )
        }),
    )
}

/// In a closed loop a full generator beside a server with time to spare measures the generator; at
/// a fixed rate it has nothing to catch up with, should it fall behind.
pub(crate) fn generator_cpu(record: &Record, server: &ServerSide) -> Option<Check> {
    if record.options.spin_us > 0 {
        // It polls: its CPU is always full.
        return None;
    }
    let busiest = record.generator.busiest_share().unwrap_or(0.0);
    let percent = busiest * 100.0;
    if record.options.rate_per_s.is_some() || record.kind == Kind::Idle {
        let full = busiest > BUSY_LIMIT;
        return Some(Check::new("generator_cpu", busiest, BUSY_LIMIT).unless(
            CheckStatus::Doubtful,
            full.then(|| format!("the generator used {percent:.0}% of a CPU: none to spare")),
        ));
    }
    let server_share = server.window?.cpu_share;
    let was_the_limit = busiest > GENERATOR_FULL && server_share < SERVER_FULL;
    Some(Check::new("generator_cpu", busiest, GENERATOR_FULL).unless(
        CheckStatus::Invalid,
        was_the_limit.then(|| {
            format!(
                "the generator was the limit: it used {percent:.0}% of a CPU, the server {:.0}% of its own",
                server_share * 100.0
            )
        }),
    ))
}

/// What the server used of its CPUs.
pub(crate) fn server_cpu(record: &Record, server: &ServerSide) -> Check {
    let limit = match record.options.rate_per_s {
        Some(_) => SERVER_AT_ITS_RATE,
        None => SERVER_IMPOSSIBLE,
    };
    let Some(window) = server.window else {
        let unseen = "the server could not be watched over the whole window".to_owned();
        return Check {
            value: None,
            ..Check::new("server_cpu", 0.0, limit)
        }
        .unless(CheckStatus::Invalid, Some(unseen));
    };
    let share = window.cpu_share;
    let percent = share * 100.0;
    let reason = if share > SERVER_IMPOSSIBLE {
        Some(format!(
            "the server used {percent:.0}% of its CPUs: it was not kept to them"
        ))
    } else {
        (share > limit).then(|| {
            format!("the server used {percent:.0}% of its CPUs: at this rate its latency is that of a queue")
        })
    };
    Check::new("server_cpu", share, limit).unless(CheckStatus::Doubtful, reason)
}

/// What the hypervisor took.
pub(crate) fn steal(share: f64) -> Check {
    Check::new("steal", share, STEAL_SHARE).unless(
        CheckStatus::Doubtful,
        (share > STEAL_SHARE)
            .then(|| format!("the hypervisor took {:.1}% of the CPUs", share * 100.0)),
    )
}

/// What everybody else used.
pub(crate) fn other_load(share: f64) -> Check {
    Check::new("other_load", share, OTHER_LOAD_SHARE).unless(
        CheckStatus::Doubtful,
        (share > OTHER_LOAD_SHARE).then(|| {
            format!(
                "processes that are no part of the run used {:.1}% of the CPUs in the window",
                share * 100.0
            )
        }),
    )
}

#[cfg(test)]
mod tests {
    use loadgen::record::{LittlesLaw, ScheduleLag};

    use super::*;
    use crate::test_data;

    fn after(change: impl FnOnce(&mut Record)) -> Vec<Check> {
        let run = test_data::open_run("server-uring", 1, 50_000.0, 8_000_000);
        let mut record = run.loadgen.unwrap();
        change(&mut record);
        of_the_record(&record)
    }

    fn lag(p99_ns: u64) -> Option<ScheduleLag> {
        Some(ScheduleLag {
            p99_ns,
            ..ScheduleLag::default()
        })
    }

    #[test]
    fn each_number_has_its_check() {
        use CheckStatus::{Doubtful, Invalid, Ok};
        type Change = fn(&mut Record);
        let cases: [(Change, &str, CheckStatus, f64); 10] = [
            (|_| {}, "connections", Ok, 1000.0),
            (
                |r| r.connections.closed_early = 3,
                "connections",
                Invalid,
                997.0,
            ),
            (|r| r.messages.lost = 3, "losses", Invalid, 3.0),
            (|r| r.messages.unsent = 4, "losses", Invalid, 4.0),
            (
                |r| {
                    r.littles_law = Some(LittlesLaw {
                        ratio: 0.97,
                        ..LittlesLaw::default()
                    })
                },
                "littles_law",
                Invalid,
                0.97,
            ),
            (
                |r| {
                    r.littles_law = Some(LittlesLaw {
                        ratio: 1.01,
                        ..LittlesLaw::default()
                    })
                },
                "littles_law",
                Ok,
                1.01,
            ),
            (
                |r| r.generator.schedule_lag = lag(900_000),
                "generator_lag",
                Ok,
                9e5,
            ),
            (
                |r| r.generator.schedule_lag = lag(3_000_000),
                "generator_lag",
                Doubtful,
                3e6,
            ),
            (
                |r| r.generator.schedule_lag = lag(6_000_000),
                "generator_lag",
                Invalid,
                6e6,
            ),
            (
                |r| r.generator.threads[0].longest_stall_ns = 120_000_000,
                "generator_stall",
                Doubtful,
                1.2e8,
            ),
        ];
        for (change, name, status, value) in cases {
            let checks = after(change);
            let check = checks.iter().find(|check| check.name == name).unwrap();
            assert_eq!((check.status, check.value), (status, Some(value)), "{name}");
            assert_eq!(check.reason.is_some(), status != Ok, "{name}");
            let not_ok = checks.iter().filter(|check| check.status != Ok).count();
            assert_eq!(not_ok, usize::from(status != Ok), "{checks:?}");
        }
    }

    #[test]
    fn cpu_has_limits_on_both_sides() {
        use CheckStatus::{Doubtful, Invalid, Ok};
        let run = |busiest: f64, share: f64, rate: Option<f64>| {
            let run = test_data::echo_run("server-uring", 1, 100_000.0);
            let (mut record, mut server) = (run.loadgen.unwrap(), run.server);
            record.options.rate_per_s = rate;
            record.generator.threads[0].busy_share = busiest;
            server.window.as_mut().unwrap().cpu_share = share;
            (
                generator_cpu(&record, &server).unwrap().status,
                server_cpu(&record, &server).status,
            )
        };
        assert_eq!(run(0.5, 0.9, None), (Ok, Ok));
        assert_eq!(run(0.99, 0.6, None), (Invalid, Ok));
        assert_eq!(run(0.99, 0.95, None), (Ok, Ok));
        assert_eq!(run(0.5, 1.2, None), (Ok, Doubtful));
        assert_eq!(run(0.99, 0.6, Some(1e5)), (Doubtful, Ok));
        assert_eq!(run(0.5, 0.98, Some(1e5)), (Ok, Doubtful));
    }

    #[test]
    fn a_generator_that_polls_is_always_busy() {
        let run = test_data::echo_run("server-uring", 1, 100_000.0);
        let mut record = run.loadgen.unwrap();
        record.generator.threads[0].busy_share = 1.0;
        record.options.spin_us = 50;
        assert_eq!(generator_cpu(&record, &run.server), None);
    }

    #[test]
    fn the_machine_can_only_raise_doubts() {
        assert_eq!(steal(0.019).status, CheckStatus::Ok);
        assert_eq!(steal(0.5).status, CheckStatus::Doubtful);
        assert_eq!(other_load(0.049).status, CheckStatus::Ok);
        let check = other_load(0.31);
        assert_eq!(check.status, CheckStatus::Doubtful);
        assert!(check.reason.unwrap().contains("31.0% of the CPUs"));
    }
}
