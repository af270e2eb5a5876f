use super::*;
use crate::record::{ConnectSchedule, LittlesLaw, ThreadUsage};
use CheckStatus::{Doubtful, Invalid, Note, Ok};

/// What was measured, with this changed.
fn after(change: impl FnOnce(&mut Record)) -> Record {
    let record = serde_json::json!({
        "schema_version": 1,
        "loadgen_version": "0.1.0",
        "kind": "echo",
        "options": {
            "urls": [], "connections": 10, "duration_ns": 10_000_000_000_u64, "warmup_ns": 0,
            "drain_timeout_ns": 0, "threads": 1, "window": 1, "size_bytes": 64,
        },
        "validity": {"verdict": "valid"},
        "started_unix_ns": 0,
        "window_end_monotonic_ns": 1,
        "window_ns": 1_000_000_000,
        "connections": {"requested": 10, "up": 10, "closed_early": 0, "failed": 0},
        "connect": {"completed": 10, "failed": 0, "elapsed_ns": 1, "handshakes_per_s": 1.0},
        "messages": {
            "sent": 100_000, "expected": 100_000, "received": 100_000, "lost": 0, "unsent": 0,
            "duplicated": 0, "reordered": 0, "corrupted": 0, "received_payload_bytes": 0,
        },
        "throughput": {"messages_per_s": 1.0, "payload_bytes_per_s": 64.0},
        "generator": {"cpu_user_ns": 1, "cpu_sys_ns": 1},
    });
    let mut record: Record = serde_json::from_value(record).unwrap();
    record.generator.threads = vec![ThreadUsage {
        busy_share: 0.5,
        ..ThreadUsage::default()
    }];
    change(&mut record);
    record
}

/// In an open loop, that late, with these latencies at the same percentiles.
fn late(record: &mut Record, lag_ns: [u64; 2], latency_ns: [u64; 2]) {
    let [p50_ns, p99_ns] = lag_ns;
    record.generator.schedule_lag = Some(ScheduleLag {
        p50_ns,
        p99_ns,
        ..ScheduleLag::default()
    });
    record.latency_intended = Some(Latency {
        count: 1_000_000,
        p50_ns: latency_ns[0],
        p99_ns: latency_ns[1],
        ..Latency::default()
    });
}

fn law(record: &mut Record, ratio: f64) {
    record.littles_law = Some(LittlesLaw {
        ratio,
        ..LittlesLaw::default()
    });
}

#[test]
fn a_sound_run_is_valid() {
    let record = after(|_| {});
    let validity = check_run(&record);
    assert_eq!(validity.verdict, RunStatus::Valid);
    assert!(validity.checks.len() > 8 && worst(&validity.checks) == Ok);
    let idle = after(|record| {
        record.kind = LoadKind::Idle;
        record.messages = Default::default();
    });
    assert_eq!(worst(&checks(&idle)), Ok);
}

/// Each limit, from both sides: what holds, and what does not by the least that can be told.
#[test]
fn every_check_has_its_limit() {
    use CheckName::*;
    type Change = fn(&mut Record);
    const MS: u64 = 1_000_000;
    let table: &[(CheckName, CheckStatus, Change, &str)] = &[
        (Connections, Ok, |_| {}, ""),
        (
            Connections,
            Invalid,
            |r| r.connections.up = 9,
            "9 of 10 connections were up",
        ),
        (ConnectionsLost, Ok, |_| {}, ""),
        (
            ConnectionsLost,
            Invalid,
            |r| {
                r.connections.closed_early = 1;
                r.connections.first_loss = Some("code 1001".into());
            },
            "1 of 10 connections were closed before the end of the measured window; the first: \
             code 1001",
        ),
        (Handshakes, Ok, |r| r.kind = LoadKind::Connect, ""),
        (
            Handshakes,
            Invalid,
            |r| {
                r.kind = LoadKind::Connect;
                r.connections.failed = 1;
            },
            "1 handshakes failed",
        ),
        (Lost, Ok, |_| {}, ""),
        (
            Lost,
            Invalid,
            |r| r.messages.lost = 1,
            "1 of 100,000 expected messages never came",
        ),
        (LostInWarmup, Ok, |_| {}, ""),
        (
            LostInWarmup,
            Invalid,
            |r| r.totals.lost_in_warmup = 1,
            "of the warm-up",
        ),
        (Unsent, Ok, |_| {}, ""),
        (Unsent, Invalid, |r| r.messages.unsent = 1, "never sent"),
        (Duplicated, Ok, |_| {}, ""),
        (
            Duplicated,
            Invalid,
            |r| r.messages.duplicated = 1,
            "duplicated",
        ),
        (Reordered, Ok, |_| {}, ""),
        (
            Reordered,
            Invalid,
            |r| r.messages.reordered = 1,
            "reordered",
        ),
        (Corrupted, Ok, |_| {}, ""),
        (
            Corrupted,
            Invalid,
            |r| r.messages.corrupted = 1,
            "corrupted",
        ),
        (PingsUnanswered, Ok, |_| {}, ""),
        (
            PingsUnanswered,
            Invalid,
            |r| r.totals.pings_unanswered = 3,
            "3 pings got no pong",
        ),
        (Received, Ok, |r| r.messages.received = 1, ""),
        (
            Received,
            Invalid,
            |r| r.messages.received = 0,
            "nothing was received",
        ),
        (
            Failure,
            Invalid,
            |r| r.failure = Some("refused".into()),
            "refused",
        ),
        (
            Interrupted,
            Invalid,
            |r| r.interrupted = true,
            "interrupted: 1.00 s of 10.0 s were measured",
        ),
        (LittlesLaw, Ok, |r| law(r, 0.981), ""),
        (
            LittlesLaw,
            Invalid,
            |r| law(r, 0.979),
            "0.979 of connections x window (limit 0.98)",
        ),
        (LittlesLaw, Ok, |r| law(r, 1.019), ""),
        (LittlesLaw, Invalid, |r| law(r, 1.021), "limit 1.02"),
        (
            LittlesLaw,
            Invalid,
            |r| law(r, f64::INFINITY),
            "does not hold",
        ),
        (
            LittlesLawOpenLoop,
            Invalid,
            |r| {
                r.options.rate_per_s = Some(1000.0);
                law(r, 0.9);
            },
            "0.900 of rate x mean latency",
        ),
        (GeneratorLagP50, Ok, |r| late(r, [MS, 0], [MS, MS]), ""),
        (
            GeneratorLagP50,
            Ok,
            |r| late(r, [5 * MS, 0], [20 * MS, MS]),
            "",
        ),
        (
            GeneratorLagP50,
            Doubtful,
            |r| late(r, [5 * MS + 1, 0], [20 * MS, MS]),
            "half of the messages 5.00 ms late or more (limit 5.00 ms), 25% of the latency's p50",
        ),
        (
            GeneratorLagP50,
            Invalid,
            |r| late(r, [MS + 1, 0], [MS, MS]),
            "(limit 1.00 ms), 100% of the latency's p50: give it more CPU",
        ),
        (
            GeneratorLagP99,
            Ok,
            |r| late(r, [0, 26 * MS], [MS, 407 * MS]),
            "",
        ),
        (
            GeneratorLagP99,
            Doubtful,
            |r| late(r, [0, 10 * MS], [MS, 20 * MS]),
            "1% of the messages 10.0 ms late or more (limit 5.00 ms), 50%",
        ),
        (
            GeneratorLagP99,
            Invalid,
            |r| late(r, [0, 10 * MS + 1], [MS, 20 * MS]),
            "(limit 10.0 ms), 50% of the latency's p99",
        ),
        (
            GeneratorLagP99,
            Doubtful,
            |r| {
                late(r, [0, 19 * MS], [MS, 20 * MS]);
                r.window_end_monotonic_ns = 0;
            },
            "(limit 5.00 ms), 95%",
        ),
        (GeneratorStall, Ok, |r| stalled(r, 99 * MS, 1), ""),
        (
            GeneratorStall,
            Doubtful,
            |r| stalled(r, 100 * MS, 1),
            "did not run for 100 ms of the window at a stretch (limit 100 ms)",
        ),
        (
            GeneratorStall,
            Doubtful,
            |r| stalled(r, 249 * MS, 51),
            "51 of its threads take turns",
        ),
        (
            GeneratorStall,
            Invalid,
            |r| stalled(r, 250 * MS, 1),
            "(limit 250 ms): the machine was paused",
        ),
        (
            GeneratorCpu,
            Ok,
            |r| r.generator.threads[0].busy_share = 0.97,
            "",
        ),
        (
            GeneratorCpu,
            Doubtful,
            |r| r.generator.threads[0].busy_share = 0.98,
            "98% of a CPU (limit 97%)",
        ),
        (Unsolicited, Ok, |_| {}, ""),
        (
            Unsolicited,
            Note,
            |r| r.messages.unsolicited = 3,
            "3 messages",
        ),
        (
            DelayedByWindow,
            Ok,
            |r| r.messages.delayed_by_window = 1_000,
            "",
        ),
        (
            DelayedByWindow,
            Note,
            |r| r.messages.delayed_by_window = 50_000,
            "50%",
        ),
        (SamplesForP99, Ok, |r| samples(r, 9_950), ""),
        (
            SamplesForP99,
            Note,
            |r| samples(r, 9_949),
            "9,949 samples are too few",
        ),
        (
            SourceAddresses,
            Ok,
            |r| r.connections.most_per_source = Some(12_000),
            "",
        ),
        (
            SourceAddresses,
            Note,
            |r| r.connections.most_per_source = Some(12_001),
            "--source-ips",
        ),
    ];
    for (name, status, change, words) in table {
        let record = after(change);
        let found = checks(&record);
        let mut of_name = found.iter().filter(|check| check.name == *name);
        let check = of_name.next().unwrap();
        assert_eq!(of_name.next(), None, "once");
        assert_eq!(check.status, *status, "{check:?}");
        assert!(check.to_string().contains(words), "{check}");
        let others = found.iter().filter(|check| check.name != *name);
        assert!(others.clone().all(|check| check.status == Ok), "{found:?}");
        let verdict = check_run(&record).verdict;
        assert_eq!(verdict == RunStatus::Invalid, *status == Invalid, "{check}");
    }
}

fn stalled(record: &mut Record, ns: u64, threads: usize) {
    record.generator.threads = vec![
        ThreadUsage {
            longest_stall_ns: ns,
            ..ThreadUsage::default()
        };
        threads
    ];
    record.generator.cpus = Some(1);
}

fn samples(record: &mut Record, count: u64) {
    record.latency_actual = Some(Latency {
        count,
        ..Latency::default()
    });
}

#[test]
fn a_generator_that_stood_still_is_told_from_a_server_that_did() {
    let record = after(|record| {
        record.messages.received = 0;
        stalled(record, 990_000_000, 1);
    });
    let validity = check_run(&record);
    let names: Vec<_> = validity.faults().map(|check| check.name).collect();
    assert_eq!(names, [CheckName::GeneratorStall]);
}

#[test]
fn a_generator_that_polls_is_always_busy() {
    let record = after(|record| {
        record.options.spin_us = 50;
        record.generator.threads[0].busy_share = 1.0;
    });
    assert_eq!(worst(&checks(&record)), Ok);
}

#[test]
fn an_old_record_keeps_its_verdict_and_its_words() {
    let said = |reasons: &[&str]| {
        let record = after(|record| {
            record.validity.verdict = RunStatus::Invalid;
            record.validity.reasons = reasons.iter().map(|said| (*said).to_owned()).collect();
        });
        let validity = check_run(&record);
        assert_eq!(validity.verdict, RunStatus::Invalid);
        let faults: Vec<String> = validity.faults().map(Check::to_string).collect();
        faults.join("; ")
    };
    assert_eq!(said(&["no route", "too late"]), "no route; too late");
    assert!(said(&[]).contains("no fact in it says why"));
}

#[test]
fn checks_of_other_versions_are_left_out_when_read() {
    let text = r#"{"verdict": "valid", "checks": [
        {"name": "lost", "status": "ok", "value": 0, "limit": 0, "reason": null},
        {"name": "losses", "status": "ok", "observed": 0, "limit": 0}
    ]}"#;
    let validity: Validity = serde_json::from_str(text).unwrap();
    assert_eq!(validity.checks, [Check::ok(CheckName::Lost, 0.0, 0.0)]);
}

#[test]
fn a_schedule_of_connections_is_judged_as_one_of_connections() {
    let with = |change: fn(&mut Record)| {
        let record = after(|record| {
            record.kind = LoadKind::Connect;
            record.connect.schedule = Some(ConnectSchedule {
                due: 1_000,
                ..ConnectSchedule::default()
            });
            // Of messages inside lives: what the schedule is held against is the connects.
            late(record, [0, 20_000_000], [1_000_000, 1_000_000_000]);
            record.connect.handshake_latency_intended = record.latency_intended.take();
            change(record);
        });
        let checks = checks(&record);
        let found = checks.iter().filter(|check| check.status != Ok);
        found
            .map(|check| (check.status, check.to_string()))
            .collect()
    };
    let all: Vec<(CheckStatus, String)> = with(|_| {});
    assert_eq!(all, []);
    let one = |change| match &with(change)[..] {
        [(status, said)] => (*status, said.clone()),
        other => panic!("{other:?}"),
    };
    let (status, said) = one(|record| record.connect.schedule.as_mut().unwrap().missing = 3);
    assert_eq!(status, Invalid);
    assert!(
        said.starts_with("3 of 1,000 connections were due but"),
        "{said}"
    );
    let (status, said) = one(|record| record.connect.schedule.as_mut().unwrap().delayed = 30);
    assert_eq!(status, Note);
    assert!(said.starts_with("3% of the connections waited"), "{said}");
    let (status, said) = one(|record| {
        let latency = record.connect.handshake_latency_intended.as_mut();
        latency.unwrap().p99_ns = 30_000_000;
    });
    assert_eq!(status, Invalid);
    assert!(
        said.contains("it began 1% of the connections 20.0 ms late"),
        "{said}"
    );
    let (status, _) = one(|record| {
        record.connect.lives = Some(Default::default());
        record.messages.lost = 1;
    });
    assert_eq!(status, Invalid);
}
