//! User memory per idle connection.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tungstenite::handshake::derive_accept_key;

/// At most this much per connection. 148 to 170 were measured here, where buffers and histograms
/// grow too; 115 between 5,000 and 19,000.
const LIMIT_BYTES: u64 = 256;

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Resident memory of a generator that holds `connections`, all of them up.
fn resident_with(connections: u64) -> u64 {
    let open = Arc::new(AtomicU64::new(0));
    let counter = open.clone();
    let streams = Mutex::new(Vec::new());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = String::from_utf8(support::read_head(&mut stream)).unwrap();
            let key = head
                .lines()
                .find_map(|line| {
                    line.split_once(": ")
                        .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
                })
                .unwrap()
                .1;
            let accept = derive_accept_key(key.as_bytes());
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .unwrap();
            streams.lock().unwrap().push(stream);
            counter.fetch_add(1, SeqCst);
        }
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "idle",
            "-t",
            "1",
            "-d",
            "10m",
            "--quiet",
            "-c",
            &connections.to_string(),
        ])
        .arg(format!("ws://{address}/"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while open.load(SeqCst) < connections {
        assert!(
            Instant::now() < deadline,
            "{} of {connections} up",
            open.load(SeqCst)
        );
        // tidy: may sleep, a poll with a deadline.
        std::thread::sleep(Duration::from_millis(1));
    }
    let bytes = resident(child.id());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    // A second signal ends the process at once; this server answers no closing handshake.
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    bytes
}

#[test]
fn an_idle_connection_costs_at_most_256_bytes() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(soft), hard).unwrap();
    let connections = 10_000.min(hard - 100);
    let few = resident_with(100);
    let many = resident_with(connections);
    let each = many.saturating_sub(few) / (connections - 100);
    println!("{each} bytes per idle connection");
    assert!(each <= LIMIT_BYTES, "{each} bytes per idle connection");
}
