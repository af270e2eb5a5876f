//! The conformance suite of `server-core` against the server on io_uring.

server_core::conformance_tests! { binary: env!("CARGO_BIN_EXE_server-uring"), args: ["--engine", "monoio"] }
