//! Tells the program which tokio it was built with, for the `ready` line.

#[path = "../scripts/locked_version.rs"]
mod locked_version;

fn main() {
    locked_version::export(&[("tokio", "TOKIO_VERSION")]);
}
