//! Tells the programs which versions of the stacks they were built with, for the `ready` line.

#[path = "../scripts/locked_version.rs"]
mod locked_version;

fn main() {
    locked_version::export(&[
        ("fastwebsockets", "FASTWEBSOCKETS_VERSION"),
        ("tokio", "TOKIO_VERSION"),
        ("tokio-tungstenite", "TOKIO_TUNGSTENITE_VERSION"),
    ]);
}
