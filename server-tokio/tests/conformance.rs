//! The conformance suite of `server-core` against both flavors, and against two processes.

mod multi {
    conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"] }
}

mod processes {
    conformance::tests_of_processes! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--processes", "2"] }
}

mod per_core {
    conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "per-core"] }
}
