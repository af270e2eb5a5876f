//! Canned runs for tests.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use loadgen::record::Record;
use serde_json::json;

use crate::committed::varied_result;
use crate::config::{Contestant, Load, Protocol, Scenario, ScenarioKind, Suite};
use crate::machine::Machine;
use crate::machine::proc::{KernelMemory, TreeMemory};
use crate::record::environment::{Environment, Revision};
use crate::record::{
    Ending, Footprint, GeneratorSide, Layout, MemorySample, PROFILE_VERSION, Percentiles, Profile,
    Profiled, RunRecord, SCHEMA_VERSION, ServerMemory, ServerSide, Share, Slice, SliceUse, Slices,
    Status, Stopped, WindowUse,
};
use crate::store::load::Results;
use crate::summary::{Entrant, MeasuredCapacity, Setting, Summary, summarize};

const START: u64 = 1_790_000_000_000_000_000;

pub(crate) fn scenario(name: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        title: "Echo 64 B, 1,000 connections, window 1".to_owned(),
        shows: "Capacity when each client waits for its reply.".to_owned(),
        does_not_show: "Latency that can be trusted.".to_owned(),
        kind: ScenarioKind::Echo,
        connections: 1000,
        size_bytes: 64,
        fragments: 1,
        publishers: 1,
        messages: 0,
        load: Some(Load::Window(1)),
        active_fraction: None,
        pinged_fraction: None,
        p99_limit_ms: None,
        rate_max_per_s: None,
        confirmations: 3,
        server_args: vec![],
        transport: Default::default(),
        hot: None,
        shared_cpus: None,
        at_rate_of: None,
        headline: None,
        generator_args: vec![],
    }
}

/// A valid closed-loop run of one second with this throughput, 0.9 s of server CPU and 3,000 bytes
/// per connection.
pub(crate) fn echo_run(contestant: &str, block: usize, per_s: f64) -> RunRecord {
    let loadgen = loadgen_record(per_s, None);
    let messages = per_s as u64;
    let mut run = RunRecord {
        schema_version: SCHEMA_VERSION,
        bout: "echo-64b-w1-c1000".to_owned(),
        contestant: contestant.to_owned(),
        block,
        position: 1,
        status: Status::Valid,
        reasons: vec![],
        stopped: None,
        checks: vec![],
        metrics: Default::default(),
        started_unix_ns: START,
        elapsed_ns: 2_000_000_000,
        machine_steal_ns: Some(0),
        scenario: scenario("echo-64b-w1-c1000"),
        server: ServerSide {
            command: vec![contestant.to_owned()],
            cpus: "0".parse().unwrap(),
            pid: Some(42),
            ready: Some(json!({"event": "ready", "server": contestant, "runtime": "tokio 1.54.1"})),
            final_line: Some(final_line(messages * 2)),
            exit: Some("exited with 0".to_owned()),
            window: Some(WindowUse {
                cpu_ns: 900_000_000,
                softirqd_ns: 0,
                cpu_share: 0.9,
                voluntary_switches: 500,
                involuntary_switches: 5,
                rss_bytes: 8_000_000,
                pss_bytes: None,
                kernel: None,
                samples: 20,
                ticks: Default::default(),
                machine: None,
            }),
            before: ServerMemory {
                rss_bytes: Some(5_000_000),
                ..Default::default()
            },
            after: ServerMemory {
                rss_bytes: Some(6_000_000),
                ..Default::default()
            },
            cpu_ticks: None,
        },
        generator: GeneratorSide {
            command: vec!["loadgen".to_owned()],
            cpus: "1".parse().unwrap(),
            rate_per_s: None,
            exit: Some("exited with 0".to_owned()),
        },
        footprint: None,
        capacity: None,
        alternation: None,
        loadgen: Some(loadgen),
    };
    fill(&mut run);
    run
}

/// The same in an open loop at this rate: `p99_ns` from the intended send, 100 µs from the actual
/// one.
pub(crate) fn open_run(contestant: &str, block: usize, rate: f64, p99_ns: u64) -> RunRecord {
    let mut run = echo_run(contestant, block, rate);
    run.scenario.name = "echo-64b-open-50".to_owned();
    run.scenario.title = "Echo 64 B, 1,000 connections, open loop at 50% of capacity".to_owned();
    run.scenario.load = Some(Load::FractionOfCapacity(0.5));
    run.bout = run.scenario.name.clone();
    run.generator.rate_per_s = Some(rate);
    run.loadgen = Some(loadgen_record(rate, Some(p99_ns)));
    fill(&mut run);
    run
}

/// What a contestant did in a round of an alternating bout: in each slice of 50 ms so many messages
/// and so much CPU time of the server; in an open loop also a p99 of 1 ms.
pub(crate) fn round_run(
    scenario: &Scenario,
    contestant: &str,
    round: usize,
    slices: impl IntoIterator<Item = (u64, u64)>,
) -> RunRecord {
    let p99 = Percentiles {
        count: 100_000,
        p50_ns: 500_000,
        p90_ns: 800_000,
        p99_ns: 1_000_000,
        p99_9_ns: 2_000_000,
    };
    let is_open = matches!(
        scenario.load,
        Some(Load::Rate(_) | Load::FractionOfCapacity(_))
    );
    let slice = |(place, (messages, cpu_ns)): (usize, (u64, u64))| Slice {
        cycle: place + 1,
        position: 1,
        window_ns: 50_000_000,
        messages,
        latency_intended: is_open.then_some(p99),
        server: Some(SliceUse {
            cpu_ns,
            ..SliceUse::default()
        }),
        ..Slice::default()
    };
    let mut run = echo_run(contestant, round, 100_000.0);
    run.bout = scenario.name.clone();
    run.scenario = scenario.clone();
    run.alternation = Some(Slices {
        warm_up: vec![],
        slices: slices.into_iter().enumerate().map(slice).collect(),
    });
    run
}

pub(crate) fn contestant(name: &str) -> Contestant {
    Contestant {
        name: name.to_owned(),
        about: String::new(),
        program: name.into(),
        args: vec![],
        run_args: vec![],
        scale_by: None,
        scale_args: vec![],
        conformance: true,
        needs: Default::default(),
        foreign: false,
        spins: false,
        protocol: Protocol::Ws,
        handler_work: None,
        lowers_work: None,
        unix: None,
        default: false,
        duplicate: None,
    }
}

pub(crate) fn capacity_scenario() -> Scenario {
    Scenario {
        title: "Highest rate with p99 below 5 ms, 1,000 connections".to_owned(),
        kind: ScenarioKind::Capacity,
        load: None,
        p99_limit_ms: Some(5.0),
        ..scenario("capacity-p99-64b-c1000")
    }
}

pub(crate) fn scale_scenario(connections: u64) -> Scenario {
    Scenario {
        title: format!("{connections} connections, 1% of them active"),
        kind: ScenarioKind::Scale,
        connections,
        load: Some(Load::Rate(10_000.0)),
        active_fraction: Some(0.01),
        pinged_fraction: None,
        ..scenario(&format!("scale-{connections}"))
    }
}

/// A valid scale step: 10,000 connected per second, 300 bytes of the server, 150 of the generator
/// and 7,000 of the kernel for each.
pub(crate) fn scale_run(contestant: &str, connections: u64) -> RunRecord {
    let mut run = open_run(contestant, 1, 10_000.0, 900_000);
    run.scenario = scale_scenario(connections);
    run.bout = run.scenario.name.clone();
    run.footprint = Some(footprint(connections));
    let pings = 2 * connections;
    if let Some(record) = &mut run.loadgen {
        record.kind = loadgen::record::LoadKind::Idle;
        record.connections.requested = connections;
        record.connections.up = connections;
        record.connect.completed = connections;
        record.connect.elapsed_ns = connections * 100_000;
        record.totals.handshakes = connections;
        record.totals.pings_answered = pings;
        record.idle = Some(loadgen::record::Idle {
            held: connections,
            still_up: connections,
            active: connections / 100,
            pings_answered: pings,
            pings_answered_in_window: connections,
        });
    }
    let last = run.server.final_line.as_mut().unwrap();
    last["pings_sent"] = pings.into();
    last["pongs_received"] = pings.into();
    last["connections_accepted"] = connections.into();
    last["handshakes"] = connections.into();
    fill(&mut run);
    run
}

/// What [`scale_run`] took and gave back; 10 MB stayed in use.
pub(crate) fn footprint(connections: u64) -> Footprint {
    let kernel = |tcp_sockets, slab_bytes, used_bytes| KernelMemory {
        tcp_sockets,
        slab_bytes,
        used_bytes,
        available_bytes: Some(20_000_000_000 - used_bytes / 5 * 4),
        ..KernelMemory::default()
    };
    let tree = |bytes: u64| TreeMemory {
        processes: 1,
        rss_bytes: bytes,
        pss_bytes: bytes,
    };
    let (slab, used, own) = (800_000_000, 2_000_000_000, 5_000_000);
    let ready = MemorySample {
        kernel: kernel(5, slab, used),
        server: tree(own),
        generator: TreeMemory::default(),
    };
    let up = MemorySample {
        kernel: kernel(
            5 + 2 * connections,
            slab + 7_000 * connections,
            used + 7_450 * connections,
        ),
        server: tree(own + 300 * connections),
        generator: tree(150 * connections),
    };
    Footprint {
        layout: Layout {
            processes: 1,
            workers: 1,
        },
        connections,
        before: kernel(4, slab, used),
        ready,
        up: Some(up),
        peak_used_bytes: up.kernel.used_bytes,
        drain_ns: Some(2_500_000_000),
        emptied: Some(ready),
        emptied_after_ns: 100_000_000,
        ended: Some(kernel(4, slab, used + 10_000_000)),
    }
}

/// The run as it would be if the machine could not hold it.
pub(crate) fn refused(mut run: RunRecord, reason: &str) -> RunRecord {
    run = failed(run, reason);
    run.status = Status::Refused;
    run.stopped.as_mut().unwrap().how = Ending::Refused;
    run.footprint = None;
    run
}

/// Extracts the metrics again after a change.
pub(crate) fn fill(run: &mut RunRecord) {
    run.metrics = run.extract_metrics();
}

/// The run as it would be if the server had died.
pub(crate) fn failed(mut run: RunRecord, reason: &str) -> RunRecord {
    run.status = Status::Failed;
    run.stopped = Some(Stopped {
        how: Ending::Failed,
        causes: vec![reason.to_owned()],
    });
    run.loadgen = None;
    run.metrics.clear();
    run
}

fn final_line(messages: u64) -> serde_json::Value {
    let totals = server_core::counters::Totals {
        messages_received: messages,
        messages_sent: messages,
        connections_accepted: 1000,
        handshakes: 1000,
        ..Default::default()
    };
    serde_json::to_value(server_core::lifecycle::Final {
        drained_in_time: true,
        enters: None,
        totals,
    })
    .unwrap()
}

fn loadgen_record(per_s: f64, intended_p99_ns: Option<u64>) -> Record {
    let latency = |p50: u64, p99: u64| {
        json!({"count": per_s as u64, "min_ns": p50 / 2, "mean_ns": p50 as f64,
               "p50_ns": p50, "p90_ns": p50 * 2, "p99_ns": p99,
               "p99_9_ns": p99 * 2, "p99_99_ns": p99 * 3, "max_ns": p99 * 4})
    };
    let mut record = json!({
        "schema_version": 1, "loadgen_version": "0.1.0", "kind": "echo",
        "options": {"urls": ["ws://127.0.0.1:40000/ws"], "connections": 1000,
                    "duration_ns": 1_000_000_000_u64, "warmup_ns": 0, "drain_timeout_ns": 0,
                    "threads": 1, "window": 1, "size_bytes": 64,
                    "rate_per_s": intended_p99_ns.map(|_| per_s)},
        "validity": {"verdict": "valid"},
        "started_unix_ns": START, "window_start_unix_ns": START + 500_000_000,
        "window_end_unix_ns": START + 1_500_000_000, "window_ns": 1_000_000_000_u64,
        "connections": {"requested": 1000, "up": 1000, "closed_early": 0, "failed": 0},
        "connect": {"completed": 1000, "failed": 0, "elapsed_ns": 100_000_000,
                    "handshakes_per_s": 10_000.0},
        "messages": {"sent": per_s as u64, "expected": per_s as u64, "received": per_s as u64,
                     "lost": 0, "unsent": 0, "duplicated": 0, "reordered": 0, "corrupted": 0,
                     "received_payload_bytes": 0},
        "totals": {"sent": per_s as u64 * 2, "received": per_s as u64 * 2, "pings_answered": 0,
                   "handshakes": 1000},
        "throughput": {"messages_per_s": per_s, "payload_bytes_per_s": per_s * 64.0},
        "latency_actual": latency(50_000, 100_000),
        "generator": {"cpu_user_ns": 1, "cpu_sys_ns": 1,
                      "threads": [{"connections": 1000, "busy_share": 0.5, "cpu_user_ns": 1,
                                   "cpu_sys_ns": 1}]},
    });
    if let Some(p99_ns) = intended_p99_ns {
        record["latency_intended"] = latency(p99_ns / 2, p99_ns);
    }
    serde_json::from_value(record).unwrap()
}

/// Ten blocks of one bout in which server-tokio answers 1.25 times as many as server-uring.
pub(crate) fn tokio_a_quarter_better() -> Summary {
    let runs: Vec<RunRecord> = (1..=10)
        .flat_map(|block| {
            [
                echo_run("server-uring", block, 100_000.0),
                echo_run("server-tokio", block, 125_000.0),
            ]
        })
        .collect();
    summarize(setting(), &[scenario("echo-64b-w1-c1000")], &runs)
}

/// Two contestants, ten blocks, seed 7.
pub(crate) fn setting() -> Setting {
    let entrant = |name: &str, about: &str| Entrant {
        name: name.to_owned(),
        about: about.to_owned(),
        protocol: crate::config::Protocol::Ws,
        can_work: true,
        can_lower_work: true,
        can_unix: true,
        runtime: Some("tokio 1.54.1".to_owned()),
        excluded: None,
        duplicate: None,
    };
    Setting {
        suite: "quick".to_owned(),
        seed: 7,
        started_utc: "2026-11-22T10:00:00Z".to_owned(),
        revision: "abc1234".to_owned(),
        machine: "vm: AMD EPYC, 2 CPUs, virtual machine, Linux 6.18.0 x86_64".to_owned(),
        server_cpus: "0".to_owned(),
        generator_cpus: "1".to_owned(),
        repeats: 10,
        rounds: Default::default(),
        runs_needed: 8,
        interrupted: false,
        aborted: None,
        cut: None,
        changed: vec![],
        contestants: vec![
            entrant(
                "server-uring",
                "io_uring, one thread per core, engine monoio",
            ),
            entrant("server-tokio", "tokio's work-stealing runtime"),
        ],
        capacities: [(
            "capacity-64b-c1000".to_owned(),
            MeasuredCapacity {
                messages_per_s: [
                    ("server-uring".to_owned(), 112_000.0),
                    ("server-tokio".to_owned(), 100_000.0),
                ]
                .into(),
                smallest_per_s: 100_000.0,
                in_doubt: Default::default(),
            },
        )]
        .into(),
    }
}

/// The committed result with every kind of bout. Read once, for everything in it is computed anew
/// when it is read, which takes seconds.
pub(crate) fn varied() -> Results {
    static READ: LazyLock<Results> = LazyLock::new(|| Results::load(&varied_result()).unwrap());
    READ.clone()
}

/// What would be read back from a folder with these runs, made by the suite of [`setting`] at this
/// revision.
pub(crate) fn results(folder: &str, revision: &str, runs: Vec<RunRecord>) -> Results {
    let mut setting = setting();
    setting.revision = revision.to_owned();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for run in &runs {
        if scenarios.iter().all(|one| one.name != run.scenario.name) {
            scenarios.push(run.scenario.clone());
        }
    }
    let contestants = setting.contestants.iter();
    let contestants = contestants.map(|one| contestant(&one.name)).collect();
    Results {
        findings: vec![],
        strangers: vec![],
        profiles: vec![],
        root: Path::new("bench-results").join(folder),
        environment: environment(&setting, scenarios.clone(), contestants),
        summary: summarize(setting, &scenarios, &runs),
        runs,
    }
}

fn environment(
    setting: &Setting,
    scenarios: Vec<Scenario>,
    contestants: Vec<Contestant>,
) -> Environment {
    Environment {
        schema_version: SCHEMA_VERSION,
        started_utc: setting.started_utc.clone(),
        command: vec!["bench".to_owned()],
        seed: setting.seed,
        revision: Revision {
            commit: Some(setting.revision.clone()),
            dirty: false,
            build: None,
            why: None,
        },
        rustc: Some("rustc 1.95.0".to_owned()),
        bench_version: "0.1.0".to_owned(),
        machine: Machine {
            name: "vm".to_owned(),
            kernel: "Linux 6.18.0 x86_64".to_owned(),
            ..Machine::default()
        },
        findings: vec![],
        server_cpus: "0".parse().unwrap(),
        generator_cpus: "1".parse().unwrap(),
        suite: Suite {
            alternation: None,
            alternation_of: Default::default(),
            equal_rate: None,
            name: setting.suite.clone(),
            about: String::new(),
            repeats: setting.repeats,
            extra_blocks: 0,
            budget: Duration::from_secs(600),
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs(1),
            scenarios: scenarios.iter().map(|one| one.name.clone()).collect(),
            duplicate: vec![],
            timing: Default::default(),
            contestants: vec![],
            calibration: Default::default(),
        },
        scenarios,
        contestants,
        options: None,
        binaries: Default::default(),
        resumed: vec![],
        ready: Default::default(),
    }
}

/// Two contestants in `echo`, one of which could not be sampled.
pub(crate) fn profile() -> Profile {
    let shares = [
        (Share::Program, 400),
        (Share::Tcp, 2_400),
        (Share::Softirq, 1_600),
        (Share::IoUring, 600),
    ];
    let sampled = Profiled {
        contestant: "server-uring-raw".to_owned(),
        binary: None,
        status: Status::Valid,
        causes: vec![],
        doubts: vec![],
        window_ns: 5_000_000_000,
        messages: 1_000_000,
        cpu_ns: 5_000_000_000,
        softirqd_ns: 0,
        samples: 5_000,
        shares: shares.into(),
    };
    let failed = Profiled {
        contestant: "server-tokio".to_owned(),
        status: Status::Failed,
        causes: vec!["the server exited with 3".to_owned()],
        samples: 0,
        shares: Default::default(),
        ..sampled.clone()
    };
    Profile {
        schema_version: PROFILE_VERSION,
        started_utc: "2026-11-22T10:00:00Z".to_owned(),
        revision: "abc1234".to_owned(),
        machine: "vm: 2 CPUs".to_owned(),
        perf: "perf version 6.1".to_owned(),
        frequency_hz: 999,
        scenario: scenario("echo"),
        rate_per_s: None,
        contestants: vec![sampled, failed],
    }
}
