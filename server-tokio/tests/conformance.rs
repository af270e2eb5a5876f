//! The conformance suite of `server-core` against both flavors.

mod multi {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"] }
}

mod per_core {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "per-core"] }
}
