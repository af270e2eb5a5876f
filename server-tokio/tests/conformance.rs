//! The conformance suite against both flavors, over TCP and over Unix sockets, and against two
//! processes.
//!
//! One module around all, so that `--skip conformance::` leaves them out: scripts/test.sh runs them
//! apart, many at a time, for they mostly wait.

mod conformance {
    mod multi {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"] }
    }

    mod multi_over_unix {
        ::conformance::tests_over_unix! {
            binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "multi"]
        }
    }

    mod per_core_over_unix {
        ::conformance::tests_over_unix! {
            binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "per-core"]
        }
    }

    mod processes {
        ::conformance::tests_of_processes! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--processes", "2"] }
    }

    mod per_core {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-tokio"), args: ["--flavor", "per-core"] }
    }
}
