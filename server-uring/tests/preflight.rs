//! Without io_uring the server says why and what to do, and does not serve.

use std::process::{Command, Output, Stdio};

/// Runs the command line behind it with `io_uring_setup` (system call 425 on every architecture)
/// failing with the error number given first, as a container's seccomp profile or an old kernel
/// would have it.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
errno = int(sys.argv[1])
code = [
    (0x20, 0, 0, 0),                    # load the number of the system call
    (0x15, 0, 1, 425),                  # io_uring_setup?
    (0x06, 0, 0, 0x00050000 | errno),   # then fail with errno
    (0x06, 0, 0, 0x7fff0000),           # else allow
]
filters = b"".join(struct.pack("HBBI", *line) for line in code)
filters = ctypes.create_string_buffer(filters)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn run_without_io_uring(errno: i32) -> Output {
    Command::new("python3")
        .args(["-c", WITHOUT_IO_URING, &errno.to_string()])
        .arg(env!("CARGO_BIN_EXE_server-uring"))
        .args(["--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("python3, which sets up the seccomp filter: {error}"))
}

#[track_caller]
fn assert_refuses(errno: i32, words: &[&str]) {
    let output = run_without_io_uring(errno);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty(), "no ready line");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
}

#[test]
fn a_seccomp_filter_is_named() {
    const EPERM: i32 = 1;
    assert_refuses(EPERM, &["io_uring", "seccomp"]);
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    const ENOSYS: i32 = 38;
    assert_refuses(ENOSYS, &["io_uring", "kernel"]);
}
