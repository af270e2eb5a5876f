//! The commands that read results, as their users run them: what they print, where, and with which
//! exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bench::store::schema::Document;
use serde_json::json;

/// The first committed result of a suite: a later one may be of a single bout, run again.
fn committed(suite: &str) -> PathBuf {
    let of_suite = |folder: &PathBuf| {
        let summary = fs::read_to_string(folder.join("summary.json")).unwrap();
        summary.contains(&format!("\"suite\": \"{suite}\""))
    };
    committed::results().into_iter().find(of_suite).unwrap()
}

fn name(folder: &Path) -> &str {
    folder.file_name().unwrap().to_str().unwrap()
}

fn bench<A: AsRef<Path>>(command: &str, args: &[A]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg(command)
        .args(args.iter().map(AsRef::as_ref))
        .output()
        .unwrap()
}

/// Stdout of a command that succeeds and has nothing to complain about.
#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Stderr of a command that refuses: exit code 2, and nothing on stdout that could be taken for a
/// result.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A copy of a committed result, to be changed.
fn copy(suite: &str, to: &Path) -> PathBuf {
    let original = committed(suite);
    let copy = to.join(name(&original));
    committed::copy(&original, &copy);
    copy
}

#[test]
fn list_has_a_row_for_every_result() {
    let dir = tempfile::tempdir().unwrap();
    let results = committed::results();
    for result in &results {
        let copy = dir.path().join(name(result));
        fs::create_dir(&copy).unwrap();
        fs::copy(result.join("summary.json"), copy.join("summary.json")).unwrap();
    }
    let text = printed(&bench("list", &[dir.path()]));
    let mut rows = text.lines();
    let head: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
    insta::assert_snapshot!(head.join(" "), @"| folder | begun (UTC) | suite | revision | machine | bouts | valid runs | state |");
    let listed: Vec<&str> = rows
        .skip(1)
        .map(|row| row.split('|').nth(1).unwrap().trim())
        .collect();
    let names: Vec<&str> = results.iter().map(|result| name(result)).collect();
    assert_eq!(listed, names);
    let message = refused(&bench("list", &[dir.path().join("nowhere")]));
    assert!(message.contains("cannot read the folder"), "{message}");
}

#[test]
fn show_prints_the_tables_again() {
    let text = printed(&bench("show", &[committed("scale")]));
    assert!(
        text.starts_with("# Ringside `scale`: server-uring-raw against server-tokio\n"),
        "{text}"
    );
    for bout in ["scale-10k", "scale-100k"] {
        assert!(text.contains(bout), "{text}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let message = refused(&bench("show", &[nothing.path()]));
    assert!(message.contains("is no result folder"), "{message}");
}

#[test]
fn compare_refuses_results_with_nothing_in_common() {
    // Forced, for they may also be of different kernels.
    let force = PathBuf::from("--force");
    let message = refused(&bench(
        "compare",
        &[committed("quick"), committed("scale"), force],
    ));
    insta::assert_snapshot!(message, @"error: A and B have no bout in common in which the same contestant has valid runs");
}

/// The rows of a comparison.
fn rows(text: &str) -> Vec<&str> {
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| server-"))
        .collect();
    assert!(rows.len() > 4, "{text}");
    rows
}

#[test]
fn compare_says_on_every_line_what_force_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (committed("scale"), copy("scale", dir.path()));
    let alike = printed(&bench("compare", &[&a, &b]));
    for row in rows(&alike) {
        // One run each.
        assert!(row.contains("the same program: A / B 1.000"), "{row}");
    }
    assert!(alike.contains("These runs are not paired"), "{alike}");

    let file = b.join("environment.json");
    let mut environment: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let sysctl = &mut environment["machine"]["sysctls"]["net.ipv4.tcp_max_orphans"];
    assert!(!sysctl.is_null());
    *sysctl = json!("1");
    fs::write(&file, environment.to_string()).unwrap();
    let message = refused(&bench("compare", &[&a, &b]));
    assert!(message.contains("tcp_max_orphans"), "{message}");
    let forced = printed(&bench("compare", &[&a, &b, &PathBuf::from("--force")]));
    assert!(forced.contains("**UNLIKE, compared with --force:**"));
    for row in rows(&forced) {
        assert!(row.contains("tcp_max_orphans"), "{row}");
    }
}

#[test]
fn a_result_that_does_not_follow_from_its_runs_goes_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let tampered = copy("scale", dir.path());
    let file = tampered.join("summary.json");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"valid_runs\": 1"));
    fs::write(
        &file,
        text.replacen("\"valid_runs\": 1", "\"valid_runs\": 2", 1),
    )
    .unwrap();
    let history = dir.path().join("history.jsonl");
    for output in [
        bench("compare", &[&committed("scale"), &tampered]),
        bench("export", &[&tampered]),
        bench("history", &[&history, &tampered]),
    ] {
        let message = refused(&output);
        assert!(
            message.contains("DOES NOT FOLLOW FROM ITS RUNS"),
            "{message}"
        );
    }
    assert!(!tampered.join("export").exists() && !history.exists());
}

#[test]
fn history_grows_by_what_it_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.jsonl");
    let remember = || printed(&bench("history", &[file.clone(), committed("scale")]));
    let first = remember();
    let lines = fs::read_to_string(&file).unwrap().lines().count();
    assert!(lines > 0);
    assert!(
        first.ends_with(&format!("history.jsonl: {lines} lines added\n")),
        "{first}"
    );
    assert!(remember().ends_with("history.jsonl: 0 lines added\n"));

    fs::write(&file, "notes\n").unwrap();
    let message = refused(&bench("history", &[file.clone(), committed("scale")]));
    assert!(message.contains("history.jsonl, line 1"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "notes\n");
}

#[test]
fn export_names_the_files_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("export");
    let args = [committed("scale"), "--to".into(), to.clone()];
    let text = printed(&bench("export", &args));
    let files: Vec<&Path> = text.lines().map(Path::new).collect();
    let mut names: Vec<&str> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "bencher.json",
            "github-bigger-is-better.json",
            "github-smaller-is-better.json",
            "runs.csv"
        ]
    );
    for file in files {
        assert_eq!(file.parent(), Some(to.as_path()));
        assert!(fs::metadata(file).unwrap().len() > 0, "{}", file.display());
    }
    let rows = fs::read_to_string(to.join("runs.csv"))
        .unwrap()
        .lines()
        .count();
    let runs = fs::read_dir(committed("scale").join("runs")).unwrap();
    let runs = runs.flat_map(|bout| fs::read_dir(bout.unwrap().path()).unwrap());
    let runs = runs
        .filter(|file| {
            let path = file.as_ref().unwrap().path();
            path.extension().is_some_and(|kind| kind == "json")
        })
        .count();
    assert_eq!(rows, 1 + runs, "a heading and a row for each run");
}

#[test]
fn schema_prints_what_is_committed() {
    let text = printed(&bench("schema", &["summary"]));
    assert_eq!(text, Document::Summary.text().unwrap());
}
