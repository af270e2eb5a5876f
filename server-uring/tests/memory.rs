//! What connections took goes back when they have left.

use conformance::Target;
use conformance::memory::{long_messages_leave_nothing_behind, memory_goes_back};

fn with(args: &[&str], path: &str) {
    memory_goes_back(&Target::new(env!("CARGO_BIN_EXE_server-uring"), args), path);
}

#[test]
fn monoio() {
    with(&["--engine", "monoio"], "/ws");
}

#[test]
fn monoio_long_messages() {
    let args = &["--engine", "monoio"];
    long_messages_leave_nothing_behind(&Target::new(env!("CARGO_BIN_EXE_server-uring"), args));
}

#[test]
fn raw() {
    with(&["--engine", "raw", "--direct=off"], "/ws");
}

#[test]
fn raw_long_messages() {
    let args = &["--engine", "raw"];
    long_messages_leave_nothing_behind(&Target::new(env!("CARGO_BIN_EXE_server-uring"), args));
}

#[test]
fn raw_direct() {
    with(&["--engine", "raw", "--direct=on"], "/ws");
}

#[test]
fn raw_rooms() {
    with(&["--engine", "raw"], "/broadcast/r");
}
