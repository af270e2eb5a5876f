//! Each run is answered by a process of its own contestant, and by none that is left from another.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;

use std::fs;
use std::net::{TcpListener, TcpStream};

use bench::output::words;
use stage::{Stage, code, folder, runs_of, stderr};

/// A stage whose contestants have the arguments given.
fn stage(contestants: &[(&str, String)]) -> Stage {
    let stage = Stage::new();
    let rows = contestants.iter().map(|(name, args)| {
        format!(
            "{name} = {{ about = 'one', program = './server', args = [{args}], default = true }}"
        )
    });
    let text: Vec<String> = rows.collect();
    fs::write(stage.path("contestants.toml"), text.join("\n")).unwrap();
    stage
}

#[test]
fn what_a_contestant_left_in_the_background_does_not_serve_the_next_run() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let stage = stage(&[("leaves", format!("'--leaves', '--port', '{port}'"))]);
    let output = stage.run(&["--scenarios", "closed"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for run in runs_of(&folder(&output), "closed") {
        assert!(run.status.counts(), "{}", words::of_run(&run));
    }
    let left = fs::read_to_string(stage.path("left")).unwrap();
    let mut pids: Vec<&str> = left.lines().collect();
    pids.dedup();
    assert_eq!(
        pids.len(),
        3,
        "the trial start and two runs, each with its own"
    );
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

#[test]
fn a_contestant_whose_port_belongs_to_another_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let stage = stage(&[("late", format!("'--port', '{port}'"))]);
    let output = stage.run(&["--scenarios", "closed"]);
    assert_ne!(code(&output), 0);
    let why = format!("process {} (", std::process::id());
    let log = stderr(&output);
    assert!(
        log.contains(&why) && log.contains("no process of the contestant"),
        "{log}"
    );
}
