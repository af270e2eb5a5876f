//! `--resume`: a suite that was interrupted goes on where it was.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;

use std::fs;
use std::path::PathBuf;

use bench::output::notes::notes;
use rustix::process::{Pid, Signal, kill_process};

use stage::{Stage, code, folder, runs_of, stderr, summary};

/// Interrupts a suite of three blocks in its second one, when the generator would stay.
fn interrupted(stage: &Stage) -> PathBuf {
    let args = ["--scenarios", "closed", "--repeats", "3"];
    fs::write(stage.path("stay-at"), "4").unwrap();
    let child = stage.bench("out", &args).spawn().unwrap();
    stage.wait_for("the run", || stage.path("started").exists().then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    fs::remove_file(stage.path("stay-at")).unwrap();
    folder(&output)
}

#[test]
fn an_interrupted_suite_goes_on_with_what_is_missing() {
    let stage = Stage::new();
    let left = interrupted(&stage);
    let noted = notes(&summary(&left), &[]);
    assert_eq!(noted.len(), 1, "{noted:?}");
    let of_block = |block: usize| -> Vec<(String, u64)> {
        let runs = runs_of(&left, "closed").into_iter();
        runs.filter(|run| run.block == block)
            .map(|run| (run.contestant, run.started_unix_ns))
            .collect()
    };
    let (first, second) = (of_block(1), of_block(2));
    assert_eq!((first.len(), second.len(), of_block(3).len()), (2, 2, 0));

    let output = stage.resume(&left, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(folder(&output), left);
    assert_eq!(of_block(1), first, "what was whole stays");
    let redone = of_block(2);
    assert!(redone[0].1 > second[1].1 && redone[1].1 > second[1].1);
    assert_eq!(redone[0].0, second[0].0, "in the same order");
    assert_eq!(of_block(3).len(), 2);
    let summary = summary(&left);
    let noted = notes(&summary, &[]);
    assert!(summary.complete && noted.is_empty(), "{noted:?}");
    assert_eq!(summary.setting.seed, 7);
    let log = stderr(&output);
    assert!(log.contains("2 runs are there already"), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log}");
}

#[test]
fn a_suite_goes_on_after_a_power_cut_and_beside_strangers() {
    let stage = Stage::new();
    let left = interrupted(&stage);
    let torn = fs::read_dir(left.join("runs/closed")).unwrap();
    let torn = torn.map(|entry| entry.unwrap().path());
    let torn = torn.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
    let torn = torn.min().unwrap();
    fs::write(&torn, "").unwrap();
    fs::write(left.join("capacities.json"), [0; 64]).unwrap();
    fs::write(left.join("runs/.DS_Store"), [0, 0, 0, 1]).unwrap();
    let output = stage.resume(&left, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let log = stderr(&output);
    let name = torn.file_name().unwrap().to_str().unwrap();
    for said in [
        &format!("runs/closed/{name} is empty or ends early: its block is run again"),
        "no suite writes such files: runs/.DS_Store",
        "capacities.json is empty or ends early: capacities are measured again",
        "0 runs are there already",
    ] {
        assert_eq!(log.matches(said).count(), 1, "{log}");
    }
    assert_eq!(runs_of(&left, "closed").len(), 6);
    assert!(summary(&left).complete);
}

#[test]
fn a_suite_is_not_resumed_with_other_things_unless_by_force() {
    let stage = Stage::new();
    let left = interrupted(&stage);
    let server = fs::read_to_string(stage.path("server")).unwrap();
    fs::write(stage.path("server"), format!("{server}\n# newer\n")).unwrap();
    let output = stage.resume(&left, &[]);
    assert_eq!(code(&output), 1);
    let message = stderr(&output);
    assert!(
        message.contains("the binary of fast is another") && message.contains("--force"),
        "{message}"
    );
    assert!(summary(&left).setting.interrupted, "nothing was touched");

    let output = stage.resume(&left, &["--force"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let note = &notes(&summary(&left), &[])[0];
    assert!(
        note.starts_with("RESUMED BY FORCE") && note.contains("fast"),
        "{note}"
    );

    let output = stage.resume(stage.dir.path(), &[]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("no environment.json"),
        "{}",
        stderr(&output)
    );
}
