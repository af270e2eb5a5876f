use super::*;
use crate::test_data;

#[test]
fn figures_of_a_known_run() {
    let run = test_data::echo_run("server-uring", 1, 100_000.0);
    let metrics = run.extract_metrics();
    assert_eq!(metrics["messages_per_s"], Some(100_000.0));
    // 0.9 s of CPU for 100,000 messages in a window of 1 s.
    assert_eq!(metrics["server_cpu_ns_per_message"], Some(9_000.0));
    assert_eq!(metrics["server_cpu_share"], Some(0.9));
    // 3 MB more than before, 1,000 connections.
    assert_eq!(metrics["server_bytes_per_connection"], Some(3_000.0));
    assert_eq!(metrics["latency_intended_p99_ns"], None);
    assert!(metrics["latency_actual_p99_ns"].is_some());
    // Exactly 100 samples beyond it: just enough. One fewer in a thousand is not.
    assert!(metrics["latency_actual_p99_9_ns"].is_some());
    let run = test_data::echo_run("server-uring", 1, 99_000.0);
    assert_eq!(run.metrics["latency_actual_p99_9_ns"], None);
}

#[test]
fn a_slice_needs_fewer_samples_than_a_run() {
    let with = |count| {
        let latency = Percentiles {
            count,
            p99_ns: 7,
            ..Percentiles::default()
        };
        let slice = Slice {
            latency_intended: Some(latency),
            ..Slice::default()
        };
        slice.metric("latency_intended_p99_ns")
    };
    assert_eq!((with(1_000), with(900)), (Some(7.0), None));
}

#[test]
fn cpu_time_is_split_by_ticks_and_enters_are_the_servers_own_count() {
    let mut run = test_data::echo_run("server-uring-raw", 1, 100_000.0);
    test_data::fill(&mut run);
    assert_eq!(run.metrics["server_cpu_user_ns_per_message"], None);
    assert_eq!(run.metrics["server_enters_per_message"], None);
    run.server.window.as_mut().unwrap().ticks = CpuTicks {
        user: 9,
        system: 81,
    };
    // It counted 200,000 messages.
    run.server.final_line.as_mut().unwrap()["enters"] = 5_000.into();
    test_data::fill(&mut run);
    let value = |key: &str| run.metrics[key].unwrap();
    assert!((value("server_cpu_user_ns_per_message") - 900.0).abs() < 1e-6);
    assert!((value("server_cpu_sys_ns_per_message") - 8_100.0).abs() < 1e-6);
    assert_eq!(value("server_enters_per_message"), 0.025);
}

#[test]
fn keys_are_unique_per_kind_and_name_their_unit() {
    for kind in ScenarioKind::ALL {
        let keys: Vec<&str> = of_kind(kind).map(|metric| metric.key).collect();
        let unique: std::collections::BTreeSet<&&str> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len());
        for metric in of_kind(kind) {
            let word = match metric.unit {
                Unit::PerSecond => "_per_s",
                Unit::Nanoseconds => "_ns",
                Unit::Bytes => "_bytes",
                Unit::Share => "_share",
                Unit::Number => "_per_",
            };
            assert!(metric.key.contains(word), "{}", metric.key);
        }
    }
}

#[test]
fn the_percentiles_of_one_latency_are_a_family() {
    let family_of = |wanted: &str| {
        of_kind(ScenarioKind::Echo)
            .filter(|metric| family(metric.key) == Some(wanted))
            .count()
    };
    assert_eq!(family_of("latency_intended"), 4);
    assert_eq!(family_of("latency_actual"), 4);
    assert_eq!(family_of("latency_others"), 2);
    assert_eq!(family("messages_per_s"), None);
    assert_eq!(family("latency_last_receiver_mean_ns"), None);
}

#[test]
fn lives_are_compared_where_connections_have_messages() {
    let keys = |messages: u64, load: Option<Load>| -> Vec<&str> {
        let mut scenario = test_data::scenario("come-and-go");
        (scenario.kind, scenario.messages) = (ScenarioKind::Connect, messages);
        scenario.load = load;
        compared(&scenario)
            .iter()
            .map(|metric| metric.key)
            .collect()
    };
    let latency = ["latency_handshake_p50_ns", "latency_handshake_p99_ns"];
    let handshakes = [
        "handshakes_per_s",
        latency[0],
        latency[1],
        "server_cpu_ns_per_handshake",
    ];
    assert_eq!(keys(0, None), handshakes);
    let lives = [
        "lives_per_s",
        latency[0],
        latency[1],
        "server_cpu_ns_per_life",
    ];
    assert_eq!(keys(10, None), lives);
    let open = keys(10, Some(Load::FractionOfCapacity(0.5)));
    assert_eq!(
        open[..2],
        ["latency_intended_p99_ns", "latency_intended_p50_ns"]
    );
    assert!(!open.contains(&"lives_per_s") && open.contains(&"server_cpu_ns_per_life"));
}

#[test]
fn figures_of_lives() {
    let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
    run.scenario.kind = ScenarioKind::Connect;
    let record = run.loadgen.as_mut().unwrap();
    record.connect.lives = Some(loadgen::record::Lives {
        messages: 10,
        completed: 5_000,
        lives_per_s: 5_000.0,
    });
    record.connect.handshake_latency_intended = Some(Latency {
        count: 5_000,
        p50_ns: 7,
        ..Latency::default()
    });
    let metrics = run.extract_metrics();
    assert_eq!(metrics["lives_per_s"], Some(5_000.0));
    // 0.9 s of CPU.
    assert_eq!(metrics["server_cpu_ns_per_life"], Some(180_000.0));
    assert_eq!(metrics["latency_intended_p50_ns"], Some(7.0));
    assert_eq!(metrics["latency_intended_p99_ns"], None, "too few for it");
}

#[test]
fn a_fixed_rate_compares_latency_from_the_intended_send_and_not_the_rate() {
    let mut scenario = test_data::scenario("echo-open");
    scenario.load = Some(Load::FractionOfCapacity(0.5));
    let keys: Vec<&str> = compared(&scenario)
        .iter()
        .map(|metric| metric.key)
        .collect();
    assert_eq!(keys[0], "latency_intended_p99_ns");
    assert!(!keys.contains(&"messages_per_s"));
    assert!(!keys.contains(&"latency_others_p99_ns"));
    scenario.hot = Some(crate::config::Hot {
        connections: 0.1,
        messages: 0.9,
        size_bytes: None,
    });
    assert_eq!(compared(&scenario)[0].key, "latency_others_p99_ns");
    (scenario.hot, scenario.load) = (None, Some(Load::Window(1)));
    let keys: Vec<&str> = compared(&scenario)
        .iter()
        .map(|metric| metric.key)
        .collect();
    assert_eq!(keys[0], "messages_per_s");
    assert!(!keys.contains(&"latency_intended_p99_ns"));
}
