//! The conformance suite against both engines, in one process and in two, and against the raw one
//! with its connections in either kind of table; over TCP and over Unix sockets.
//!
//! One module around all, so that `--skip conformance::` leaves them out: scripts/test.sh runs them
//! apart, many at a time, for they mostly wait.

mod conformance {
    mod monoio {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio"] }
    }

    mod monoio_over_unix {
        ::conformance::tests_over_unix! {
            binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio"]
        }
    }

    mod raw_over_unix {
        ::conformance::tests_over_unix! {
            binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=off"]
        }
    }

    mod raw_direct_over_unix {
        ::conformance::tests_over_unix! {
            binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=on"]
        }
    }

    mod monoio_processes {
        ::conformance::tests_of_processes! {
            binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio", "--processes", "2"]
        }
    }

    mod raw_processes {
        ::conformance::tests_of_processes! {
            binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--processes", "2"]
        }
    }

    mod raw {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=off"] }
    }

    mod raw_direct {
        ::conformance::tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=on"] }
    }
}
