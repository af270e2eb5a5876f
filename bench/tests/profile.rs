//! `bench profile` with fake servers, a fake generator and a fake `perf`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;
mod validator;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bench::record::{Profile, Share, Status};
use bench::store::load::Results;
use bench::store::schema::Document;
use rustix::process::{Pid, Signal, kill_process};
use stage::{Stage, code, folder, is_alive, stderr};
use validator::Validator;

/// A stage with a `perf`; what it is told by the names of files beside it.
fn stage(files: &[&str]) -> Stage {
    let stage = Stage::new();
    let perf = stage.path("perf");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/perf.py");
    fs::copy(source, &perf).unwrap();
    fs::set_permissions(&perf, fs::Permissions::from_mode(0o755)).unwrap();
    for file in files {
        fs::write(stage.path(file), "").unwrap();
    }
    stage
}

/// Into `out/`, unless `args` say `--into`.
fn profile(stage: &Stage, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("profile").args(["--machine", "test"]);
    command.arg("--config-dir").arg(stage.dir.path());
    command.arg("--bin-dir").arg(stage.dir.path());
    if !args.contains(&"--into") {
        command.arg("--out").arg(stage.path("out"));
    }
    let path = std::env::var("PATH").unwrap();
    command
        .args(args)
        .env("RINGSIDE_LOCK", stage.path("lock"))
        .env("PATH", format!("{}:{path}", stage.dir.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn short(stage: &Stage, args: &[&str]) -> Output {
    let args = [args, &["--duration", "300ms"]].concat();
    profile(stage, &args).output().unwrap()
}

fn record(folder: &Path) -> Profile {
    serde_json::from_slice(&fs::read(folder.join("profile.json")).unwrap()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap().path())).collect();
    names.sort();
    names
}

fn bench(command: &str, folder: &Path) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg(command).arg(folder).output().unwrap()
}

#[test]
fn a_profile_from_its_first_check_to_its_files() {
    let stage = stage(&[]);
    let output = short(&stage, &["closed", "--contestants", "fast,floor"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let folder = folder(&output);
    assert!(folder.ends_with("profiles/closed"), "{}", folder.display());
    assert_eq!(
        names(&folder),
        [
            "environment.json",
            "fast.folded",
            "fast.svg",
            "floor.folded",
            "floor.svg",
            "profile.html",
            "profile.json",
            "runs"
        ]
    );
    let left = names(&folder.join("runs/closed"));
    assert!(left.iter().all(|name| !name.contains("perf")), "{left:?}");

    let written = serde_json::from_slice(&fs::read(folder.join("profile.json")).unwrap()).unwrap();
    Validator::new(Document::Profile.schema().as_value().clone())
        .check(&written)
        .unwrap_or_else(|error| panic!("profile.json: {error}"));
    let record = record(&folder);
    assert_eq!(record.perf, "perf version fake");
    for one in &record.contestants {
        let shares = [Share::Program, Share::Tcp, Share::Softirq, Share::Copy];
        assert!(one.shares.keys().eq(shares.iter()), "{:?}", one.shares);
        assert_eq!(one.shares.values().sum::<u64>(), one.samples);
        assert!(one.messages > 0 && one.causes.is_empty(), "{one:?}");
    }
    let folded = fs::read_to_string(folder.join("fast.folded")).unwrap();
    assert!(
        folded.contains("worker;recv [libc.so.6];tcp_recvmsg_[k];_copy_to_iter_[k] "),
        "{folded}"
    );
    let svg = fs::read_to_string(folder.join("fast.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains("<title>_copy_to_iter: 2"),
        "{svg}"
    );
    let page = fs::read_to_string(folder.join("profile.html")).unwrap();
    for part in [
        "Flame graph of fast",
        "Flame graph of floor",
        "kernel TCP/IP",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.contains("| kernel TCP/IP") && printed.contains("samples (n)"),
        "{printed}"
    );
    assert!(!is_alive(pid(&stage, "perf.pid")) && !is_alive(stage.server_pid().unwrap()));
    let list = bench("list", &stage.path("out"));
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("profiles only: closed"), "{list}");
    let root = folder.ancestors().nth(2).unwrap();
    let message = stderr(&bench("report", root));
    assert!(
        message.contains("profiles/SCENARIO/profile.html"),
        "{message}"
    );
}

fn pid(stage: &Stage, file: &str) -> u32 {
    fs::read_to_string(stage.path(file))
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn the_report_of_a_result_shows_the_profiles_that_were_added() {
    let stage = stage(&[]);
    let suite = stage.run(&["--scenarios", "closed"]);
    assert_eq!(code(&suite), 0, "{}", stderr(&suite));
    let result = folder(&suite);
    let into = result.to_str().unwrap();
    let before = names(&result);
    for place in ["profiles/closed", "profiles/closed-2"] {
        let args = ["closed", "--contestants", "slow", "--into", into];
        let output = short(&stage, &args);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(folder(&output), result.join(place), "none is overwritten");
    }
    let mut expected = before;
    expected.push("profiles".to_owned());
    expected.sort();
    assert_eq!(names(&result), expected);

    let results = Results::load(&result).unwrap();
    assert_eq!(results.findings, [""; 0]);
    assert_eq!((results.profiles.len(), results.runs.len()), (2, 4));
    assert_eq!(code(&bench("report", &result)), 0);
    let page = fs::read_to_string(result.join("report.html")).unwrap();
    assert_eq!(
        page.matches("Flame graph of slow in closed").count(),
        2 * 2,
        "title and label"
    );
    assert!(page.contains("<h3>Where the CPU time goes</h3>"));
}

#[test]
fn an_open_loop_is_profiled_at_its_part_of_the_capacity() {
    let stage = stage(&[]);
    let output = short(&stage, &["open", "--contestants", "slow"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(record(&folder(&output)).rate_per_s, Some(50_000.0));
}

#[test]
fn what_perf_cannot_do_is_said_before_anything_starts() {
    for (files, path, expected) in [
        (&[][..], Some("/nowhere"), "perf is needed for a profile"),
        (
            &["refuse"],
            None,
            "perf: Access to performance monitoring is limited.). kernel.perf_event_paranoid is ",
        ),
    ] {
        let stage = stage(files);
        let mut command = profile(&stage, &["closed"]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command.output().unwrap();
        assert_eq!(code(&output), 1);
        assert!(output.stdout.is_empty() && !stage.path("out").exists());
        let log = stderr(&output);
        assert!(log.contains(expected), "{log}");
        assert_eq!(stage.server_pid(), None, "no server was started");
    }
}

#[test]
fn a_contestant_that_cannot_be_sampled_is_a_row_with_the_reason() {
    for (file, contestant, expected) in [
        (
            "die",
            "fast",
            "perf exited with 1 while it sampled the server: no memory left",
        ),
        (
            "nameless",
            "fast",
            "have no function's name. kernel.perf_event_paranoid is ",
        ),
        ("nothing", "dying", "the server exited with 3"),
    ] {
        let stage = stage(&[file]);
        let output = short(&stage, &["closed", "--contestants", contestant]);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        let row = record(&folder(&output)).contestants.remove(0);
        assert_eq!((row.samples, row.shares.len()), (0, 0));
        assert!(row.causes[0].contains(expected), "{:?}", row.causes);
        assert_eq!(row.status == Status::Failed, contestant == "dying");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            printed.contains(&format!("{contestant}: no profile: ")),
            "{printed}"
        );
    }
}

#[test]
fn an_interrupt_ends_all_processes_and_keeps_what_there_is() {
    let stage = stage(&[]);
    let args = ["closed", "--contestants", "fast,slow", "--duration", "60s"];
    let child = profile(&stage, &args).spawn().unwrap();
    let perf = stage.wait_for("perf", || {
        fs::read_to_string(stage.path("perf.pid"))
            .ok()?
            .parse()
            .ok()
    });
    let server = stage.server_pid().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert!(!is_alive(perf) && !is_alive(server));
    let rows = record(&folder(&output)).contestants;
    assert_eq!((rows.len(), rows[0].status), (1, Status::Interrupted));
}

#[test]
fn what_cannot_be_profiled_is_named() {
    let stage = stage(&[]);
    let text =
        "title = 'Idle'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'idle'\nconnections = 10\n";
    fs::write(stage.path("scenarios/idle.toml"), text).unwrap();
    let nowhere = stage.path("nowhere");
    for (args, expected) in [
        (
            &["idle"][..],
            "`idle` is of kind idle: a profile needs a load",
        ),
        (&["nothing"], "no scenario `nothing`"),
        (
            &["closed", "--contestants", "nobody"],
            "no contestant `nobody`",
        ),
        (
            &["closed", "--into", nowhere.to_str().unwrap()],
            "is no result folder",
        ),
        (&["closed", "--duration", "1ms"], "from 100ms to 10m"),
    ] {
        let output = profile(&stage, args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}
