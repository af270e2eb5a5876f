//! The conformance suite of `server-core` against both engines.

mod monoio {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio"] }
}

mod raw {
    server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "raw"] }
}
