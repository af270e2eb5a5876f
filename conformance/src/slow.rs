//! Peers that read slowly: progress keeps them, whatever the timeouts, and one that makes none is
//! reset. The end of a stream (FIN) never comes within a frame.

use std::io::{ErrorKind, Read, Write};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Raw, eventually};
use super::harness::{Server, Target};
use super::wire::{self, BINARY, CLOSE, FIN, Frame, PING, PONG};

const PATHS: [&str; 2] = ["/ws", "/broadcast/slow"];
/// More than the kernel takes for a peer that does not read (`tcp_wmem`: 4 MiB).
const MESSAGE_BYTES: usize = 5 << 20;
/// How much of it a peer reads that then stops.
const FIRST_BYTES: usize = 64 << 10;

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

/// Whoever reads, however slowly, is not idle: it gets its whole message, which takes more than
/// twice the idle timeout, and is still served.
pub fn slow_readers_are_not_idle(target: &Target) {
    const BYTES_PER_S: usize = 1 << 20;
    // Longer than a machine busy with other tests lets a reader wait for its turn.
    let server = target.start(&["--idle-timeout", "2s"]);
    let due = message();
    let readers = PATHS.map(|path| asking(&server, path));
    thread::scope(|scope| {
        let readers = readers.map(|reader| scope.spawn(|| read_slowly(reader, BYTES_PER_S, &due)));
        for reader in readers {
            reader.join().unwrap_or_else(|cause| resume_unwind(cause));
        }
    });
    assert_eq!(server.metrics().get("idle_timeouts"), 0);
}

/// Nor is whoever sends a long message slowly, in pieces that come far sooner than the timeout: it
/// is answered when it is whole, and needs no ping.
pub fn slow_writers_are_not_idle(target: &Target) {
    const PIECES: usize = 25;
    let server = target.start(&["--idle-timeout", "1s"]);
    let message = super::frames::pattern(200_000);
    let frame = wire::binary(&message);
    let (first, slow) = frame.split_at(frame.len() - 100 * PIECES);
    let mut writers = PATHS.map(|path| server.upgraded(path));
    for writer in &mut writers {
        writer.send(first);
    }
    for piece in slow.chunks(100) {
        // tidy: may sleep, a writer that is slow on purpose.
        thread::sleep(Duration::from_millis(100));
        for writer in &mut writers {
            writer.send(piece);
        }
    }
    for writer in &mut writers {
        writer.expect(BINARY, &message);
    }
    assert_eq!(server.metrics().get("idle_timeouts"), 0);
}

/// A reader that stops within a message for longer than the idle timeout is reset.
pub fn stopped_readers_are_reset(target: &Target) {
    let server = target.start(&["--idle-timeout", "600ms"]);
    let readers = PATHS.map(|path| half_read(&server, path));
    await_sockets(&server, 0);
    server.await_metric("idle_timeouts", 2);
    for (mut reader, received) in readers {
        expect_reset(&mut reader, received);
    }
}

/// So is a slow consumer that has half a message, and takes no more of it when it is closed.
pub fn stopped_consumers_are_reset(target: &Target) {
    let server = target.start(&["--send-queue", "2"]);
    let (mut reader, received) = half_read(&server, PATHS[1]);
    let mut sender = server.ws(PATHS[1]);
    for n in 0..5 {
        sender.echo(tungstenite::Message::text(format!("{n}")));
    }
    server.await_metric("slow_consumers_closed", 1);
    await_sockets(&server, 1);
    expect_reset(&mut reader, received);
}

/// A drain waits for a slow reader: it gets its whole message, and then the 1001.
pub fn drain_waits_for_slow_readers(target: &Target) {
    let server = target.start(&["--drain-timeout", "60s"]);
    let mut readers = PATHS.map(|path| half_read(&server, path));
    server.signal(Signal::TERM);
    for (reader, received) in &mut readers {
        let mut frames = Vec::new();
        while frames.len() < 2 {
            match Frame::parse(received) {
                Some((frame, used)) => {
                    received.drain(..used);
                    frames.push(frame);
                }
                None => assert_eq!(read_some(reader, 256 << 10, received), None),
            }
        }
        assert!(frames[0].first == FIN | BINARY && frames[0].payload == message());
        assert_eq!(frames[1].close_code(), Some(1001), "{:?}", frames[1]);
        reader.send(&wire::close(1001, b""));
        reader.expect_closed();
    }
    assert_eq!(server.wait().expect_clean()["drained_in_time"], true);
}

/// A drain that is over before a reader has its message resets it.
pub fn drain_resets_who_has_half_a_message(target: &Target) {
    let server = target.start(&["--drain-timeout", "200ms"]);
    let readers = PATHS.map(|path| half_read(&server, path));
    let last = server.stop();
    assert_eq!(last["drained_in_time"], false, "{last}");
    for (mut reader, received) in readers {
        expect_reset(&mut reader, received);
    }
}

/// So does a server that is killed.
pub fn a_killed_server_resets_who_has_half_a_message(target: &Target) {
    let server = target.start(&[]);
    let readers = PATHS.map(|path| half_read(&server, path));
    server.signal(Signal::KILL);
    server.wait();
    for (mut reader, received) in readers {
        expect_reset(&mut reader, received);
    }
}

/// Reads its message at `bytes_per_s`, answering nothing; then it is still served.
fn read_slowly(mut reader: Raw, bytes_per_s: usize, message: &[u8]) {
    let mut received = Vec::new();
    let start = Instant::now();
    let echo = loop {
        let due = (start.elapsed().as_secs_f64() * bytes_per_s as f64) as usize;
        if received.len() > due {
            // tidy: may sleep, a reader that is slow on purpose.
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let end = read_some(&mut reader, 32 << 10, &mut received);
        assert_eq!(end, None, "after {} bytes", received.len());
        if let Some((frame, used)) = Frame::parse(&received) {
            received.drain(..used);
            if frame.opcode() != PING {
                break frame;
            }
        }
    };
    assert!(echo.first == FIN | BINARY && echo.payload == message);
    // It has answered no ping so far, for they were behind the message.
    reader.send(&wire::masked(FIN | PING, b"now"));
    loop {
        match Frame::parse(&received) {
            Some((frame, used)) => {
                assert!(matches!(frame.opcode(), PING | PONG), "{frame:?}");
                received.drain(..used);
                if frame.opcode() == PONG {
                    break;
                }
            }
            None => assert_eq!(read_some(&mut reader, 1024, &mut received), None),
        }
    }
}

/// What every reader asks for.
fn message() -> Vec<u8> {
    super::frames::pattern(4093).repeat(MESSAGE_BYTES / 4093)
}

/// A connection with a small receive buffer that has asked for a message.
#[track_caller]
fn asking(server: &Server, path: &str) -> Raw {
    let message = wire::binary(&message());
    let reader = server.upgraded_with_small_buffer(path);
    let mut writer = reader.writer();
    thread::spawn(move || writer.write_all(&message));
    reader
}

/// The same, with the beginning of what it has received.
#[track_caller]
fn half_read(server: &Server, path: &str) -> (Raw, Vec<u8>) {
    let mut reader = asking(server, path);
    let mut received = Vec::new();
    read_first(&mut reader, &mut received);
    (reader, received)
}

#[track_caller]
fn read_first(reader: &mut Raw, received: &mut Vec<u8>) {
    while received.len() < FIRST_BYTES {
        assert_eq!(read_some(reader, 16 << 10, received), None);
    }
}

/// Waits until the server holds no more than its end of so many connections.
#[track_caller]
fn await_sockets(server: &Server, count: usize) {
    eventually(server.patience, "the others are closed", || {
        (server.open_sockets() == count).then_some(())
    });
}

/// Reads once, at most `bytes`; how the stream ended, if it did.
#[track_caller]
fn read_some(reader: &mut Raw, bytes: usize, received: &mut Vec<u8>) -> Option<End> {
    let before = received.len();
    received.resize(before + bytes, 0);
    let outcome = reader.stream.read(&mut received[before..]);
    received.truncate(before + outcome.as_ref().map_or(0, |n| *n));
    match outcome {
        Ok(0) => Some(End::Fin),
        Ok(_) => None,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
        Err(e) => panic!("cannot read: {e}"),
    }
}

/// Reads the rest: what comes breaks off within the message, by a reset.
#[track_caller]
fn expect_reset(reader: &mut Raw, mut received: Vec<u8>) {
    let end = loop {
        if let Some(end) = read_some(reader, 256 << 10, &mut received) {
            break end;
        }
    };
    let opcode = Frame::parse(&received).map(|(frame, _)| frame.opcode());
    assert_ne!(opcode, Some(CLOSE));
    assert_eq!(opcode, None, "all of it came: {} bytes", received.len());
    assert_eq!(end, End::Reset, "after {} bytes", received.len());
}
