//! What connections took goes back when they have left.

use conformance::Target;
use conformance::memory::{long_messages_leave_nothing_behind, memory_goes_back};

fn with(args: &[&str], path: &str) {
    memory_goes_back(&Target::new(env!("CARGO_BIN_EXE_server-tokio"), args), path);
}

#[test]
fn multi() {
    with(&["--flavor", "multi"], "/ws");
}

#[test]
fn multi_rooms() {
    with(&["--flavor", "multi"], "/broadcast/r");
}

#[test]
fn per_core() {
    with(&["--flavor", "per-core"], "/ws");
}

#[test]
fn long_messages() {
    let target = Target::new(env!("CARGO_BIN_EXE_server-tokio"), &[]);
    long_messages_leave_nothing_behind(&target);
}
