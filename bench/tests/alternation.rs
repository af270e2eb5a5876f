//! Alternating bouts with fake servers and a fake generator.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bench::output::words;
use bench::record::{RunRecord, Status};
use bench::store::load::Results;
use rustix::process::{Pid, Signal, kill_process};
use stage::{Stage, code, folder, is_alive, recipe, runs_of, stderr, summary};

const SUITE: &str = r#"
about = "an alternating bout and one at a rate"
repeats = 2
budget = "1m"
warmup = "0s"
duration = "100ms"
scenarios = ["closed", "open"]
[alternation]
rounds = 4
cycles = 3
settle = "1ms"
slice = "80ms"
[alternation_of.open]
rounds = 2
cycles = 2
settle = "1ms"
slice = "80ms"
[equal_rate]
fraction = 0.5
alternation = { rounds = 2, cycles = 2, settle = "1ms", slice = "80ms" }
[calibration]
runs = 1
warmup = "0s"
duration = "100ms"
"#;

/// Of one bout that alternates.
const ONE_ROUND: [&str; 6] = [
    "--suite",
    "turns",
    "--scenarios",
    "closed",
    "--repeats",
    "1",
];

fn stage() -> Stage {
    let stage = Stage::new();
    fs::write(stage.path("suites/turns.toml"), SUITE).unwrap();
    stage
}

#[test]
fn all_contestants_live_at_once_and_are_compared_slice_by_slice() {
    let stage = stage();
    let output = stage.run(&["--suite", "turns"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);

    let runs = runs_of(&folder, "closed");
    assert_eq!(runs.len(), 8, "four rounds of two");
    let mut orders = BTreeSet::new();
    for round in 1..=4 {
        let of_round: Vec<_> = runs.iter().filter(|run| run.block == round).collect();
        for cycle in 1..=3 {
            let positions = of_round.iter().map(|run| {
                assert!(run.status.counts(), "{}", words::of_run(run));
                let slices = &run.alternation.as_ref().unwrap().slices;
                let slice = slices.iter().find(|slice| slice.cycle == cycle).unwrap();
                (slice.position, slice.from_ns, run.contestant.clone())
            });
            let mut positions: Vec<_> = positions.collect();
            positions.sort_unstable();
            assert_eq!((positions[0].0, positions[1].0), (1, 2));
            assert!(positions[0].1 < positions[1].1, "one after the other");
            orders.insert(positions.remove(0).2);
        }
        let of_first = of_round[0].alternation.as_ref().unwrap();
        assert!(of_first.warm_up.len() >= 2, "warmed up");
    }
    assert_eq!(orders.len(), 2, "either is first at times");

    assert_eq!(Results::load(&folder).unwrap().findings, [""; 0]);
    the_recipe_of_the_readme_recomputes_the_ratio(&folder);
    let summary = summary(&folder);
    let comparison = &summary.bouts[0].pairs[0].comparisons[0];
    let levels = comparison.levels.unwrap();
    assert_eq!((levels.rounds, levels.cycles), (4, 12));
    assert_eq!(comparison.verdict.winner.as_deref(), Some("fast"));
    assert!(
        (comparison.ratio.ratio - 1.2).abs() < 0.02,
        "{comparison:?}"
    );
    let rate_per_s = summary.bouts[2].rate_per_s.unwrap();
    assert!((rate_per_s / 50_000.0 - 1.0).abs() < 0.01, "{rate_per_s}");
    assert_eq!(runs_of(&folder, "open").len(), 4);
    let companion = &summary.bouts[1];
    assert_eq!(companion.scenario.at_rate_of.as_deref(), Some("closed"));
    let half = summary.setting.capacities["closed"].smallest_per_s / 2.0;
    assert_eq!(companion.rate_per_s, Some(half.round()));
    assert_eq!(companion.contestants[0].valid_runs, 2);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("4 x 3"), "{printed}");
}

#[test]
fn rounds_are_added_until_the_interval_is_narrow_and_then_two_more() {
    let stage = stage();
    let until = ["--suite", "turns", "--scenarios", "closed", "--until-ci"];
    // The companion has no figure that could become narrow: fakes use no CPU.
    let output = stage.run(&[&until[..], &["5%", "--max-repeats", "6"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let rounds = runs_of(&folder(&output), "closed").len() / 2;
    assert_eq!(rounds, 6, "narrow with the first four: {}", stderr(&output));
    let lines = stderr(&output);
    assert!(lines.contains("closed round 6 of 6: slow 0.8"), "{lines}");
}

fn the_recipe_of_the_readme_recomputes_the_ratio(folder: &Path) {
    let names = [
        r#""echo-64b-w1-c1000", "server-uring", "server-tokio""#,
        r#""closed", "fast", "slow""#,
    ];
    let printed = String::from_utf8(recipe(1, names, folder).stdout).unwrap();
    let last = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let ratios: Vec<f64> = printed.lines().map(last).collect();
    assert_eq!(ratios.len(), 2, "{printed}");
    assert!((ratios[0] / ratios[1] - 1.0).abs() < 1e-12, "{printed}");
}

#[test]
fn one_that_dies_in_its_turn_is_a_row_and_the_others_go_on() {
    let stage = stage();
    let output = stage.run(&[&ONE_ROUND[..], &["--contestants", "fast,dying"]].concat());
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let runs = runs_of(&folder(&output), "closed");
    let of = |name: &str| runs.iter().find(|run| run.contestant == name).unwrap();
    let (fast, dying) = (of("fast"), of("dying"));
    assert!(fast.status.counts(), "{}", words::of_run(fast));
    assert_eq!(fast.alternation.as_ref().unwrap().slices.len(), 3);
    assert_eq!(dying.status, Status::Failed);
    assert!(
        words::of_run(dying).contains("out of luck"),
        "{}",
        words::of_run(dying)
    );
    for run in &runs {
        assert!(!is_alive(run.server.pid.unwrap()));
    }
}

#[test]
fn contestants_that_poll_run_in_sequence_and_that_is_said() {
    let stage = stage();
    let contestants = fs::read_to_string(stage.path("contestants.toml")).unwrap();
    let polling = contestants.replace("slow = { about", "slow = { spins = true, about");
    fs::write(stage.path("contestants.toml"), polling).unwrap();
    let output = stage.run(&["--suite", "turns", "--scenarios", "closed"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let why = "closed: runs in sequence: slow polls while it is not its turn";
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
    let runs = runs_of(&folder(&output), "closed");
    assert!(runs.iter().all(|run| run.alternation.is_none()));
}

#[test]
fn a_generator_that_dies_in_a_pause_fails_its_run_alone() {
    let stage = stage();
    fs::write(stage.path("die-in-pause"), "").unwrap();
    let output = stage.run(&ONE_ROUND);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let runs = runs_of(&folder(&output), "closed");
    let of = |name: &str| runs.iter().find(|run| run.contestant == name).unwrap();
    let (fast, slow) = (of("fast"), of("slow"));
    assert_eq!(fast.status, Status::Failed);
    let why = words::of_run(fast);
    assert!(
        why.contains("generator") && why.contains("no memory left"),
        "{why}"
    );
    assert!(slow.status.counts(), "{}", words::of_run(slow));
    assert_eq!(slow.alternation.as_ref().unwrap().slices.len(), 3);
    assert_ended(&runs);
}

#[test]
fn a_round_that_is_interrupted_is_run_again_as_a_whole() {
    let stage = stage();
    fs::write(stage.path("stay-in-slice"), "").unwrap();
    let child = stage.bench("out", &ONE_ROUND).spawn().unwrap();
    stage.wait_for("the slice", || stage.path("started").exists().then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_ne!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);
    let runs = runs_of(&folder, "closed");
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(run.status, Status::Interrupted, "{}", words::of_run(run));
    }
    assert_ended(&runs);

    let resumed = stage.resume(&folder, &[]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));
    let runs = runs_of(&folder, "closed");
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert!(run.status.counts(), "{}", words::of_run(run));
    }
}

fn assert_ended(runs: &[RunRecord]) {
    for pid in runs.iter().filter_map(|run| run.server.pid) {
        assert!(!is_alive(pid));
    }
}

#[test]
fn work_is_asked_of_those_who_can_do_it_and_must_be_declared() {
    let stage = stage();
    let closed = fs::read_to_string(stage.path("scenarios/closed.toml")).unwrap();
    let work = format!("{closed}server_args = ['--handler-work-us', '10']\n");
    fs::write(stage.path("scenarios/work.toml"), work).unwrap();
    let contestants = fs::read_to_string(stage.path("contestants.toml")).unwrap();
    // Their last options overrule what the scenario asks for.
    let more = "stubborn = { about = 'works as it likes', program = './stubborn', run_args = ['--port', '1001'] }\n";
    fs::write(stage.path("contestants.toml"), contestants + more).unwrap();
    let stubborn = "#!/bin/sh\nexec $(dirname $0)/server \"$@\" --handler-work-us 0\n";
    fs::write(stage.path("stubborn"), stubborn).unwrap();
    fs::set_permissions(stage.path("stubborn"), fs::Permissions::from_mode(0o755)).unwrap();
    for suite in ["turns", "mini"] {
        let output = stage.run(&[
            "--suite",
            suite,
            "--scenarios",
            "work",
            "--contestants",
            "fast,floor,stubborn",
            "--repeats",
            "1",
        ]);
        let absent = "work: without floor: no --handler-work-us (key `handler_work`)";
        assert!(stderr(&output).contains(absent), "{}", stderr(&output));
        let folder = folder(&output);
        let runs = runs_of(&folder, "work");
        let entered: BTreeSet<_> = runs.iter().map(|run| run.contestant.as_str()).collect();
        assert_eq!(entered, BTreeSet::from(["fast", "stubborn"]));
        for run in &runs {
            assert!(
                run.server
                    .command
                    .ends_with(&["--handler-work-us".into(), "10".into()])
            );
            let words = words::of_run(run);
            if run.contestant == "fast" {
                assert!(run.status.counts(), "{words}");
            } else {
                assert_eq!(run.status, Status::Failed, "{words}");
                assert!(
                    words.contains("handler_work_us 0, asked for was 10"),
                    "{words}"
                );
            }
        }
    }
}

#[test]
fn a_unix_socket_is_for_those_who_listen_on_one_and_must_be_listened_on() {
    let stage = stage();
    let closed = fs::read_to_string(stage.path("scenarios/closed.toml")).unwrap();
    let unix = format!("{closed}transport = 'unix'\n");
    fs::write(stage.path("scenarios/unix.toml"), unix).unwrap();
    let contestants = fs::read_to_string(stage.path("contestants.toml")).unwrap();
    let more = "local = { about = 'goes where it is told', program = './server', \
                run_args = ['--port', '1001', '--listen', '{listen}'] }\n";
    fs::write(stage.path("contestants.toml"), contestants + more).unwrap();
    let output = stage.run(&[
        "--suite",
        "turns",
        "--scenarios",
        "unix",
        "--contestants",
        "local,slow,floor",
        "--repeats",
        "1",
    ]);
    let absent = "unix: without floor: no --listen unix:PATH (key `unix`)";
    assert!(stderr(&output).contains(absent), "{}", stderr(&output));
    let folder = folder(&output);
    let summary = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(summary.contains("floor**") && summary.contains("listens on no Unix socket"));
    let runs = runs_of(&folder, "unix");
    assert_eq!(runs.len(), 2);
    for run in &runs {
        let words = words::of_run(run);
        if run.contestant == "local" {
            let listen = run.server.command.last().unwrap();
            let path = listen.strip_prefix("unix:").unwrap();
            let target = format!("ws+unix:{path}:/ws");
            assert!(run.generator.command.contains(&target), "{words}");
            assert!(run.status.counts(), "{words}");
        } else {
            assert_eq!(run.status, Status::Failed, "{words}");
            assert!(words.contains("asked for was a Unix socket"), "{words}");
        }
    }
}

#[test]
fn hot_connections_are_asked_of_those_who_know_them_and_cpus_are_shared_where_a_scenario_says_so() {
    let stage = stage();
    let closed = fs::read_to_string(stage.path("scenarios/closed.toml")).unwrap();
    let uneven = closed.replace("window = 1", "rate = 1000.0")
        + "server_args = ['--handler-work-us', '10']\n\
           hot = { connections = 0.1, messages = 0.9 }\nshared_cpus = 1\n";
    fs::write(stage.path("scenarios/uneven.toml"), uneven).unwrap();
    let contestants = fs::read_to_string(stage.path("contestants.toml")).unwrap();
    let more = "even = { about = 'works for all', program = './server', lowers_work = false, \
                run_args = ['--port', '1001'] }\n";
    fs::write(stage.path("contestants.toml"), contestants + more).unwrap();
    for suite in ["turns", "mini"] {
        let output = stage.run(&[
            "--suite",
            suite,
            "--scenarios",
            "uneven",
            "--contestants",
            "fast,even,slow",
            "--repeats",
            "1",
        ]);
        let absent = "uneven: without even: no ?work=N (key `lowers_work`)";
        assert!(stderr(&output).contains(absent), "{}", stderr(&output));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("SHARED CPUS: in uneven "), "{printed}");
        let folder = folder(&output);
        let runs = runs_of(&folder, "uneven");
        let entered: BTreeSet<_> = runs.iter().map(|run| run.contestant.as_str()).collect();
        assert_eq!(entered, BTreeSet::from(["fast", "slow"]));
        for run in &runs {
            assert_eq!(run.server.cpus, run.generator.cpus);
            assert_eq!(run.server.cpus.len(), 1);
            let command = run.generator.command.join(" ");
            assert!(command.contains("--hot 0.1 --hot-share 0.9"), "{command}");
        }
        assert_eq!(Results::load(&folder).unwrap().findings, [""; 0]);
    }
}
