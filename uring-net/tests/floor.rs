//! The example `floor_tcp`, with which servers are compared, gives back what it gets, whatever the
//! size, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, fs, process, thread};

use common::{PATIENCE, pattern};
use rustix::process::{Pid, Signal, kill_process};

/// A running floor. Dropped, it is killed.
struct Floor {
    process: Child,
    address: String,
}

impl Floor {
    fn start(args: &[&str]) -> Self {
        let mut process = Command::new(program())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo test -p uring-net builds the example floor_tcp");
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let (_, address) = ready.split_once(r#""address":""#).expect(&ready);
        let address = address.split('"').next().unwrap().to_owned();
        Self { process, address }
    }

    /// Ends it as `bench` does.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo puts it beside the tests.
fn program() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let target = tests.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("examples/floor_tcp")
}

/// What is sent comes back, also when more is under way than the socket's buffers hold.
fn echoes(mut reading: impl Read, mut writing: impl Write + Send, bytes: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| writing.write_all(bytes).unwrap());
        let mut back = vec![0; bytes.len()];
        reading.read_exact(&mut back).unwrap();
        assert!(back == bytes, "{} bytes come back changed", bytes.len());
    });
}

fn tcp_echoes(address: SocketAddr, bytes: &[u8]) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    echoes(&stream, &stream, bytes);
}

#[test]
fn messages_come_back_whole() {
    for (message_bytes, more) in [
        (64, &[][..]),
        (4096, &["--direct"][..]),
        (131_072, &[][..]),
        (1 << 20, &["--workers", "2"][..]),
    ] {
        let size = message_bytes.to_string();
        let floor = Floor::start(&[&["--message-bytes", &size], more].concat());
        let address: SocketAddr = floor.address.parse().unwrap();
        let bytes = pattern(message_bytes);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| tcp_echoes(address, &bytes));
            }
        });
        // Longer than the load it was started for.
        tcp_echoes(address, &pattern(3 << 20));
        floor.end();
    }
}

#[test]
fn a_unix_socket_is_served_by_all_workers_and_removed() {
    let path = env::temp_dir().join(format!("floor-{}.socket", process::id()));
    let listen = format!("unix:{}", path.display());
    let floor = Floor::start(&["--listen", &listen, "--workers", "2"]);
    assert_eq!(floor.address, listen);
    let bytes = pattern(100_000);
    for _ in 0..4 {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        echoes(&stream, &stream, &bytes);
    }
    floor.end();
    assert!(!fs::exists(&path).unwrap(), "{} is left", path.display());
}
