//! A wall clock that is set back changes no figure.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod stage;

use std::fs;

use bench::output::words;
use stage::{Stage, code, folder, runs_of, stderr};

#[test]
fn a_window_is_watched_whatever_the_wall_clock_does() {
    let stage = Stage::new();
    fs::write(stage.path("clock-set-back"), "").unwrap();
    let output = stage.run(&["--scenarios", "closed"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for run in runs_of(&folder(&output), "closed") {
        assert!(run.status.counts(), "{}", words::of_run(&run));
        assert!(run.server.window.unwrap().samples > 0);
    }
}
