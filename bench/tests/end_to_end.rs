//! The whole referee with fake servers, a fake generator and a fake conformance suite.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;
mod validator;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use bench::output::notes::notes;
use bench::output::words;
use bench::record::{RunRecord, Status};
use bench::store::schema::Document;
use rustix::process::{Pid, Signal, kill_process};

use validator::Validator;

use stage::{SUITE, Stage, code, folder, is_alive, recipe, runs_of, stderr, summary};

#[test]
fn a_suite_from_its_first_check_to_its_last_line() {
    let stage = Stage::new();
    let output = stage.run(&[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);
    assert!(
        folder
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .contains("-test-")
    );

    let summary = summary(&folder);
    assert!(summary.complete);
    assert_eq!(
        summary.bouts[1].rate_per_s,
        Some(50_000.0),
        "half of the smaller capacity"
    );
    let comparison = &summary.bouts[0].pairs[0].comparisons[0];
    assert!((comparison.ratio.ratio - 1.2).abs() < 1e-12);
    let words: Vec<String> = words::of_pair(&summary.bouts[0].pairs[0]).collect();
    assert_eq!(
        words[0],
        "too few runs for a claim (n=2); fast / slow: 1.200 [1.200, 1.200]"
    );

    let runs = runs_of(&folder, "closed");
    assert_eq!(runs.len(), 4);
    for run in &runs {
        assert!(run.status.counts(), "{}", words::of_run(run));
        assert!(run.server.window.unwrap().samples > 0 && run.server.final_line.is_some());
        assert!(run.metric("server_cpu_ns_per_message").is_some());
    }
    let mut first_block: Vec<&str> = runs[..2]
        .iter()
        .map(|run| run.contestant.as_str())
        .collect();
    first_block.sort_unstable();
    assert_eq!(first_block, ["fast", "slow"]);
    assert_eq!(runs_of(&folder, "capacity-64b-c10").len(), 2);

    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.contains("too few runs") && printed.contains("120k/s ±0.0%"),
        "{printed}"
    );
    let markdown = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(markdown.contains("fast / slow: 1.20") && markdown.contains("What none of this shows"));
    let environment = fs::read_to_string(folder.join("environment.json")).unwrap();
    let log = stderr(&output);
    assert!(log.contains(", servers on CPUs "), "{log}");
    assert!(environment.contains("\"topology\": [\n"));
    assert!(environment.contains("tcp_congestion_control") && environment.contains("\"seed\": 7"));
    assert!(
        fs::read_to_string(folder.join("conformance/fast.log"))
            .unwrap()
            .contains("ok")
    );
    let left = fs::read_dir(folder.join("runs/closed")).unwrap().count();
    assert_eq!(left, 4, "empty logs and copies are gone");

    assert_schema(Document::Summary, &folder.join("summary.json"));
    for run in fs::read_dir(folder.join("runs/closed")).unwrap() {
        assert_schema(Document::Run, &run.unwrap().path());
    }
}

fn assert_schema(document: Document, file: &Path) {
    let written: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let schema = Validator::new(document.schema().as_value().clone());
    if let Err(error) = schema.check(&written) {
        panic!("{}: {error}", file.display());
    }
}

#[test]
fn a_scale_step_is_laid_out_and_what_the_machine_cannot_hold_is_a_row() {
    let stage = Stage::new();
    for (name, connections) in [("tiny", 200_u64), ("absurd", 4_000_000_000)] {
        let text = format!(
            "title = 'Many'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'scale'\nconnections = {connections}\n\
             load = {{ rate = 100.0 }}\nactive_fraction = 0.05\nserver_args = ['--drained', '0']\n"
        );
        fs::write(stage.path(&format!("scenarios/{name}.toml")), text).unwrap();
    }
    let suite = "about = 'a'\nrepeats = 1\nbudget = '1m'\nwarmup = '0s'\nduration = '1s'\n\
                 scenarios = ['absurd', 'tiny']\ncontestants = ['wide']\n";
    fs::write(stage.path("suites/big.toml"), suite).unwrap();
    let output = stage.run(&["--suite", "big"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("tiny: about 0:04 min; wide: 1 process with "),
        "{}",
        stderr(&output)
    );
    let folder = folder(&output);

    let run = runs_of(&folder, "tiny").remove(0);
    assert!(run.status.counts(), "{}", words::of_run(&run));
    let command = run.server.command.join(" ");
    assert!(
        command.contains("--port 1001 --processes 1 --drained 0"),
        "{command}"
    );
    let command = run.generator.command.join(" ");
    assert!(
        command.contains(" idle ") && command.contains("--active 0.05 --size 64 --rate 100"),
        "{command}"
    );
    assert_eq!(run.metric("handshakes_per_s"), Some(1.0));
    let footprint = run.footprint.unwrap();
    assert!(footprint.ready.server.processes > 0 && footprint.emptied.is_some());
    assert!(footprint.ended.is_some() && footprint.drain_ns.is_some());

    let run = runs_of(&folder, "absurd").remove(0);
    assert_eq!(run.status, Status::Refused);
    let reasons = words::of_run(&run);
    assert!(
        reasons.contains("4,000,000,000 connections x 16 KiB"),
        "{reasons}"
    );
    assert!(run.server.pid.is_none(), "it was not even started");
    let markdown = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(
        markdown.contains("refused") && markdown.contains("1.00/s"),
        "{markdown}"
    );
}

#[test]
fn connections_that_come_and_go_get_a_rate_from_their_own_closed_loop() {
    let stage = Stage::new();
    let text = "title = 'Lives'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'connect'\nconnections = 10\n\
                messages = 3\nsize_bytes = 32\nload = { fraction_of_capacity = 0.5 }\n";
    fs::write(stage.path("scenarios/lives.toml"), text).unwrap();
    // What the fake generator says of handshakes: 600/s.
    let record = fs::read_to_string(stage.path("record.json")).unwrap();
    let record = record.replace("\"handshakes_per_s\":1.0", "\"handshakes_per_s\":600.0");
    fs::write(stage.path("record.json"), record).unwrap();
    let output = stage.run(&["--scenarios", "lives", "--repeats", "1"]);
    let folder = folder(&output);
    let key = "capacity-connect-m3-32b-c10";
    let calibrations = runs_of(&folder, key);
    assert_eq!(calibrations.len(), 2, "{}", stderr(&output));
    for run in &calibrations {
        let command = run.generator.command.join(" ");
        assert!(command.contains(" --messages 3 --size 32 "), "{command}");
        assert!(!command.contains("--rate"), "{command}");
    }
    for run in runs_of(&folder, "lives") {
        let command = run.generator.command.join(" ");
        assert!(command.contains(" connect ws://"), "{command}");
        assert!(
            command.contains(" --messages 3 --size 32 --rate 300 "),
            "{command}"
        );
    }
    let summary = summary(&folder);
    assert_eq!(summary.setting.capacities[key].smallest_per_s, 600.0);
    assert_eq!(summary.bouts[0].headline, "latency_intended_p99_ns");
    assert_eq!(summary.bouts[0].rate_per_s, Some(300.0));
    let alternates = summary.setting.rounds.contains_key("lives");
    assert!(!alternates, "connections that come and go run in sequence");
}

#[test]
fn a_search_is_one_run_with_its_probes_as_rows() {
    let stage = Stage::new();
    let knee = "title = 'Knee'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'capacity'\nconnections = 10\n\
                p99_limit_ms = 5000.0\nrate_max_per_s = 15000.0\nconfirmations = 1\n";
    fs::write(stage.path("scenarios/knee.toml"), knee).unwrap();
    let output = stage.run(&[
        "--scenarios",
        "knee",
        "--contestants",
        "fast",
        "--repeats",
        "1",
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);
    let run = runs_of(&folder, "knee").remove(0);
    // The fake server is as quick at every rate: the scenario's bound is the end.
    assert_eq!(run.status, Status::Doubtful, "{}", words::of_run(&run));
    assert!(words::of_run(&run).contains("the highest rate"));
    assert_eq!(run.metric("capacity_per_s"), Some(15_000.0));
    let search = run.capacity.unwrap();
    let rates: Vec<f64> = search.probes.iter().map(|probe| probe.rate_per_s).collect();
    assert_eq!(rates, [10_000.0, 12_500.0, 15_000.0, 15_000.0]);
    assert_eq!(search.contradictions(), [""; 0]);
    let files = fs::read_dir(folder.join("runs/knee")).unwrap().count();
    assert_eq!(files, 1, "the probes are inside");
    let markdown = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(
        markdown.contains("### Highest rate") && markdown.contains("the scenario's highest rate"),
        "{markdown}"
    );
    let page = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("report")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(page.status.success(), "{page:?}");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("latency against the rate, every probe a dot"));
    assert!(!page.contains("DOES NOT FOLLOW"), "{page}");
}

#[test]
fn a_result_that_was_edited_does_not_pass_a_gate() {
    let stage = Stage::new();
    let folder = folder(&stage.run(&["--scenarios", "closed"]));
    let rules = stage.path("gate.toml");
    fs::write(&rules, "[[rule]]\nexpect = 'suite.interrupted == 0'\n").unwrap();
    let gate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.arg("gate").arg(&folder).arg("--config").arg(&rules);
        command.output().unwrap()
    };
    assert_eq!(code(&gate()), 0, "{}", stderr(&gate()));
    let file = folder.join("summary.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("\"winner\": null", "\"winner\": \"slow\""),
    )
    .unwrap();
    let output = gate();
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("DOES NOT FOLLOW FROM ITS RUNS"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_recipe_in_the_readme_recomputes_ratio_and_interval() {
    let stage = Stage::new();
    fs::write(stage.path("vary"), "").unwrap();
    let output = stage.run(&["--scenarios", "closed", "--repeats", "3"]);
    let folder = folder(&output);
    let names = [
        r#""echo-64b-w1-c1000", "messages_per_s", "server-uring", "server-tokio""#,
        r#""closed", "messages_per_s", "fast", "slow""#,
    ];
    let python = recipe(2, names, &folder);
    let printed = String::from_utf8_lossy(&python.stdout).into_owned();
    let rows: Vec<Vec<f64>> = printed
        .lines()
        .map(|line| serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap())
        .collect();
    assert_eq!(rows.len(), 2, "{python:?}");
    for (recomputed, said) in rows[0].iter().zip(&rows[1]) {
        assert!((recomputed / said - 1.0).abs() < 1e-12, "{printed}");
    }
    assert!(
        rows[0][1] < rows[0][2],
        "the interval is one point: {printed}"
    );
}

#[test]
fn a_contestant_that_dies_is_a_row_in_every_block_and_the_others_go_on() {
    let stage = Stage::new();
    let output = stage.run(&["--contestants", "fast,dying", "--scenarios", "closed"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let folder = folder(&output);
    let runs = runs_of(&folder, "closed");
    assert_eq!(runs.len(), 4);
    for run in runs {
        if run.contestant == "fast" {
            assert!(run.status.counts(), "{}", words::of_run(&run));
        } else {
            assert_eq!(run.status, Status::Failed);
            let reasons = words::of_run(&run);
            assert!(
                reasons.contains("the server exited with 3 during the run: out of luck"),
                "{reasons}"
            );
        }
    }
    let summary = summary(&folder);
    let notes = notes(&summary, &[]);
    assert!(
        !summary.complete && notes[0].contains("0 of dying in closed"),
        "{notes:?}"
    );
    assert_eq!(summary.bouts[0].problems.len(), 2);
    assert!(
        fs::read_to_string(folder.join("summary.md"))
            .unwrap()
            .contains("Runs that do not count")
    );
}

#[test]
fn a_single_block_that_does_not_count_is_run_again() {
    let stage = Stage::new();
    let of_one = ["--scenarios", "closed", "--repeats", "1"];
    let output = stage.run(&[&["--contestants", "fast,dying"], &of_one[..]].concat());
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let runs = runs_of(&folder(&output), "closed");
    let blocks: Vec<usize> = runs.iter().map(|run| run.block).collect();
    assert_eq!(blocks, [1, 1, 2, 2]);
    let output = stage.run(&[&["--contestants", "fast,slow"], &of_one[..]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(runs_of(&folder(&output), "closed").len(), 2);
}

#[test]
fn who_breaks_the_rules_or_cannot_start_is_excluded_by_name() {
    let stage = Stage::new();
    let output = stage.run(&["--contestants", "fast,rude", "--scenarios", "closed"]);
    assert_eq!(code(&output), 1);
    let summary = summary(&folder(&output));
    let reason = summary.setting.contestants[1].excluded.as_ref().unwrap();
    assert!(reason.contains("FAILED  masks"), "{reason}");
    assert_eq!(summary.bouts[0].contestants.len(), 1);
    assert_eq!(summary.bouts[0].contestants[0].valid_runs, 2);
    assert!(String::from_utf8_lossy(&output.stdout).contains("EXCLUDED: rude"));

    let output = stage.run(&["--contestants", "missing"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("no-server does not exist"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_contestant_of_raw_bytes_echoes_beside_the_others_and_owes_no_counters() {
    let stage = Stage::new();
    let crowd = "title = 'Crowd'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'connect'\nconnections = 10\n";
    fs::write(stage.path("scenarios/crowd.toml"), crowd).unwrap();
    let output = stage.run(&["--contestants", "fast,floor", "--scenarios", "closed,crowd"]);
    let folder = folder(&output);
    let echoes = runs_of(&folder, "closed");
    let floor: Vec<&RunRecord> = echoes
        .iter()
        .filter(|run| run.contestant == "floor")
        .collect();
    assert_eq!(floor.len(), 2);
    for run in floor {
        assert!(run.status.counts(), "{}", words::of_run(run));
        assert!(run.generator.command[2].starts_with("tcp://"));
    }
    assert!(
        runs_of(&folder, "crowd")
            .iter()
            .all(|run| run.contestant == "fast")
    );
    let summary = summary(&folder);
    assert_eq!(summary.bouts[0].pairs[0].second, "floor");
    assert_eq!(summary.bouts[1].contestants.len(), 1);
    assert!(String::from_utf8_lossy(&output.stdout).contains("in echo bouts only"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn an_interrupted_suite_keeps_what_it_has_and_leaves_nobody_behind() {
    let stage = Stage::new();
    let (child, server) = stage.start_and_wait();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert!(!is_alive(server));
    let folder = folder(&output);
    assert!(summary(&folder).setting.interrupted);
    let runs = runs_of(&folder, "closed");
    assert_eq!(runs[0].status, Status::Interrupted);
    assert!(String::from_utf8_lossy(&output.stdout).contains("INTERRUPTED"));
}

#[test]
fn a_second_referee_is_refused_until_the_first_has_ended() {
    let stage = Stage::new();
    let (mut child, _) = stage.start_and_wait();
    let second = stage.bench("second", &[]).output().unwrap();
    assert_eq!(code(&second), 1);
    let message = stderr(&second);
    let pid = message.split("another referee is running on this machine (pid ");
    let pid = pid.last().unwrap().split(',').next().unwrap();
    assert!(is_alive(pid.parse().unwrap()), "{message}");
    assert!(second.stdout.is_empty() && !stage.path("second").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let free = || (code(&stage.run(&["--scenarios", "closed"])) == 0).then_some(());
    stage.wait_for("the lock", free);
}

#[test]
fn nobody_outlives_a_referee_that_is_killed() {
    let stage = Stage::new();
    let (mut child, server) = stage.start_and_wait();
    child.kill().unwrap();
    child.wait().unwrap();
    stage.wait_for("the server's end", || (!is_alive(server)).then_some(()));
}

#[test]
fn results_that_cannot_be_written_end_the_suite_and_what_is_there_stays() {
    let stage = Stage::new();
    let output = stage.run(&["--contestants", "unrecordable", "--scenarios", "closed"]);
    assert_eq!(code(&output), 1);
    let message = stderr(&output);
    assert!(
        message.contains("cannot write") && message.contains("001-unrecordable.json"),
        "{message}"
    );
    let folder = folder(&output);
    assert!(folder.join("environment.json").exists());
    let noted = notes(&summary(&folder), &[]);
    assert!(noted[0].starts_with("ABORTED: cannot write"), "{noted:?}");

    fs::write(stage.path("file"), "").unwrap();
    let output = stage.bench("file", &[]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("cannot make the folder"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn one_contestant_runs_against_itself_beside_the_others() {
    let stage = Stage::new();
    let suite = SUITE.replace("[calibration]", "again = ['closed']\n[calibration]");
    fs::write(stage.path("suites/mini.toml"), suite).unwrap();
    let output = stage.run(&["--scenarios", "closed"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);
    assert_eq!(runs_of(&folder, "closed").len(), 6);
    let summary = summary(&folder);
    let noise = summary.noise.unwrap();
    assert_eq!(
        (noise.noisy, noise.bouts[0].contestant.as_str()),
        (false, "fast")
    );
    let markdown = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(
        markdown.starts_with("# Ringside `mini`: fast against slow\n")
            && markdown.contains("One contestant against itself")
    );
}

#[test]
fn blocks_are_added_until_the_interval_is_narrow() {
    let stage = Stage::new();
    let until = ["--scenarios", "closed", "--until-ci", "3%", "--max-repeats"];
    // The fake figures do not vary: narrow as soon as there are runs for a claim.
    let output = stage.run(&[&until[..], &["12"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let summary_of = |output: &Output| summary(&folder(output));
    let pair = &summary_of(&output).bouts[0].pairs[0];
    assert_eq!(pair.comparisons[0].ratio.pairs, 10);
    let words: Vec<String> = words::of_pair(pair).collect();
    assert_eq!(words[0], "fast 1.200x [1.200, 1.200]");
    let output = stage.run(&[&until[..], &["3"]].concat());
    assert_eq!(
        summary_of(&output).bouts[0].pairs[0].comparisons[0]
            .ratio
            .pairs,
        3
    );
}

#[test]
fn a_dry_run_says_how_long_and_runs_nothing() {
    let stage = Stage::new();
    let output = stage.run(&["--dry-run"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        plan.contains("| closed | fast, slow  | in sequence      |      2 |"),
        "{plan}"
    );
    assert!(plan.contains("in all about 0:0"), "{plan}");
    assert!(!stage.path("out").exists());
}

#[test]
fn a_path_that_is_no_text_is_a_usage_error() {
    let stage = Stage::new();
    for option in [
        "--out",
        "--resume",
        "--bin-dir",
        "--config-dir",
        "--contestants-file",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.arg(option).arg(OsStr::from_bytes(b"caf\xe9"));
        let output = command.current_dir(stage.dir.path()).output().unwrap();
        assert_eq!(code(&output), 2, "{option}: {}", stderr(&output));
        assert!(stderr(&output).contains("UTF-8"), "{}", stderr(&output));
    }
}

#[test]
fn a_suite_that_does_not_exist_is_a_usage_error() {
    let stage = Stage::new();
    for args in [
        &["--scenarios", "opera"][..],
        &["--contestants", "nobody"],
        &["--repeats", "none"],
    ] {
        let output = stage.run(args);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(!stage.path("out").exists());
    }
}
