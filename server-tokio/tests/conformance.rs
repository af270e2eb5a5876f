//! The conformance suite against both flavors, and against two processes.
//!
//! One module around all, so that `--skip conformance::` leaves them out: scripts/test.sh runs them
//! apart, many at a time, for they mostly wait.

mod conformance {
    mod multi {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"] }
    }

    mod processes {
        ::conformance::tests_of_processes! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--processes", "2"] }
    }

    mod per_core {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "per-core"] }
    }
}
