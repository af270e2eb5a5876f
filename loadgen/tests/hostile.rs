//! Servers that want to fill the generator's memory: it stays bounded, and the run is invalid.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loadgen::record::Record;
use socket2::{Domain, Socket, Type};
use support::read_head;

/// Resident memory of a generator with two connections: 13 to 18 MB were measured.
const LIMIT_BYTES: u64 = 36 << 20;
/// Bytes that a server writes at a time.
const CHUNK: usize = 64 << 10;
/// Bytes that it writes to a connection in all: if the generator kept as many for each of them,
/// that would be too many.
const VOLUME: usize = 16 << 20;
/// In empty frames: pongs for them have three times as many, more than the kernel keeps.
const EMPTY_VOLUME: usize = 6 << 20;

/// A chunk of one frame over and over.
fn chunk_of(frame: &[u8]) -> Vec<u8> {
    frame.repeat(CHUNK / frame.len())
}

fn ping(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x89, payload as u8];
    frame.resize(2 + payload, b'p');
    frame
}

/// What a server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    /// One byte before it writes.
    First,
    /// A byte for each chunk that it has written.
    Slowly,
    Everything,
}

/// A server that accepts the handshake, sends `begin`, then `chunk` again and again, and ends the
/// connection.
fn flooding(begin: &'static [u8], chunk: Vec<u8>, reads: Reads) -> SocketAddr {
    server(move |stream| {
        if let Ok(mut socket) = tungstenite::accept(stream) {
            let _ = flood(socket.get_mut(), begin, &chunk, reads);
        }
    })
}

fn flood(stream: &mut TcpStream, begin: &[u8], chunk: &[u8], reads: Reads) -> std::io::Result<()> {
    if reads == Reads::Everything {
        let mut reader = stream.try_clone()?;
        thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    }
    if reads == Reads::First {
        stream.read_exact(&mut [0])?;
    }
    stream.write_all(begin)?;
    let volume = if chunk[1] == 0 { EMPTY_VOLUME } else { VOLUME };
    for _ in 0..volume / CHUNK {
        stream.write_all(chunk)?;
        if reads == Reads::Slowly {
            stream.read_exact(&mut [0])?;
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// Gives every connection to `serve`, on a thread of its own. The kernel keeps few bytes that a
/// server does not read.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(16).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The most that was resident so far, at whatever moment it was.
fn most_resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Runs `loadgen ARGS` against `address` until all connections are lost, and watches its memory.
#[track_caller]
fn bounded(args: &str, address: SocketAddr, what: &str) -> Record {
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(args.split_whitespace())
        .args("-c 2 -d 1m --warmup 0 --drain-timeout 100ms -q --format json".split(' '))
        .arg(format!("ws://{address}/"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(most_resident(child.id()).unwrap_or(0));
        if most > LIMIT_BYTES || Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args}: {what}: {} MB, or for ever", most >> 20);
        }
        // tidy: may sleep, a poll with a deadline; without it the test takes a CPU from both ends.
        thread::sleep(Duration::from_millis(1));
    }
    println!("{args}: {what}: {} MB", most >> 20);
    let mut json = String::new();
    child.stdout.unwrap().read_to_string(&mut json).unwrap();
    let record: Record = serde_json::from_str(&json).unwrap();
    assert!(!record.is_valid(), "{args}: {what}");
    record
}

#[track_caller]
fn is_told(record: &Record, part: &str) {
    let reasons: Vec<String> = record.validity.faults().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains(part)),
        "{part:?} is not among {reasons:?}"
    );
}

fn memory_is_bounded(args: &str) {
    for reads in [Reads::Nothing, Reads::Slowly] {
        for payload in [0, 125] {
            let what = format!("pings of {payload} bytes, server reads: {reads:?}");
            let address = flooding(b"", chunk_of(&ping(payload)), reads);
            is_told(&bounded(args, address, &what), "no pong of their own");
        }
    }
    let address = flooding(b"", chunk_of(&ping(125)), Reads::Everything);
    let record = bounded(args, address, "pings, server reads them all");
    assert!(record.totals.pings_answered > 1_000, "{:?}", record.totals);
    let message = [&[0x82, 126, 0, 200][..], &[0; 200]].concat();
    for (frame, what) in [
        (&message[..], "messages that nobody asked for"),
        (&[0x82, 0], "empty messages"),
        // It is to have 2^63 - 1 bytes.
        (
            &[0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255],
            "a huge message",
        ),
    ] {
        bounded(args, flooding(b"", chunk_of(frame), Reads::Nothing), what);
    }
    let fragment = [&[0x00, 126, 3, 232][..], &[0; 1000]].concat();
    for (fragment, what) in [(&fragment[..], "fragments"), (&[0, 0], "empty fragments")] {
        let address = flooding(&[0x02, 0], chunk_of(fragment), Reads::Nothing);
        is_told(&bounded(args, address, what), "than this run takes");
    }
    let address = server(|mut stream| {
        read_head(&mut stream);
        let begin = b"HTTP/1.1 101 Switching Protocols\r\nX-Long: ";
        let _ = flood(&mut stream, begin, &[b'y'; CHUNK], Reads::Nothing);
    });
    let record = bounded(args, address, "a head without end");
    assert!(record.connections.failed > 0);
}

#[test]
fn of_an_idle_generator() {
    memory_is_bounded("idle -t 1");
}

#[test]
fn of_an_echo_generator() {
    memory_is_bounded("echo -t 1 --window 4");
}

#[test]
fn of_a_broadcast_generator() {
    memory_is_bounded("broadcast -t 2 -r 1k --publishers 2");
}

/// A message that answers a request makes the next one due. Empty ones carry nothing that a server
/// would have to read, and wrong ones need nothing.
#[test]
fn of_requests_that_are_answered_before_they_are_read() {
    let wrong = || flooding(b"", chunk_of(&[0x82, 0]), Reads::First);
    let record = bounded("echo -t 1 -s 0", wrong(), "replies to what was not read");
    is_told(&record, "waited to be sent");
    bounded("echo -t 1 -s 256k", wrong(), "wrong replies");
}
