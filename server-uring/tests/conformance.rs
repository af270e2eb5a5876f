//! The conformance suite of `server-core` against both engines, in one process and in two, and
//! against the raw one with its connections in either kind of table.

mod monoio {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio"] }
}

mod monoio_processes {
    server_core::conformance_tests_of_processes! {
        binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio", "--processes", "2"]
    }
}

mod raw_processes {
    server_core::conformance_tests_of_processes! {
        binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--processes", "2"]
    }
}

mod raw {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=off"] }
}

mod raw_direct {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw", "--direct=on"] }
}
