//! Tells the program which monoio and which io-uring it was built with, for the `ready` line.

#[path = "../scripts/locked_version.rs"]
mod locked_version;

fn main() {
    locked_version::export(&[
        ("monoio", "MONOIO_VERSION"),
        ("io-uring", "IO_URING_VERSION"),
    ]);
}
