//! What is special about the raw engine: a pool of receive buffers shared by all connections, sends from those buffers, receives that are
//! stopped and begun again. The conformance suite shows the rest, a full table of descriptors among it.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use server_core::conformance::client::{Raw, eventually};
use server_core::conformance::harness::Server;
use server_core::conformance::{Target, wire};

/// Receive buffers of a worker, and the size of one: see `raw/ring.rs`. A change there that makes these tests pointless fails the first one.
const BUFFERS: usize = 512;
const BUFFER_BYTES: usize = 4096;

const BINARY: u8 = 2;

/// Starts a server that says at its end how its ring fared.
fn start(extra: &[&str]) -> Server {
    let args = ["--engine", "raw", "--workers", "1"];
    Target::new(env!("CARGO_BIN_EXE_server-uring"), &args)
        .start_in_shell("export RUST_LOG=server_uring::raw::worker=debug", extra)
}

/// Bytes that differ from place to place and from one `seed` to the next.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (((i + seed * 977) as u32).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

#[test]
fn the_ready_line_names_the_pool_and_the_spinning() {
    let server = start(&["--spin-us", "25"]);
    let ready = &server.ready["options"];
    assert_eq!(ready["read_buffer_bytes"], BUFFERS * BUFFER_BYTES);
    assert_eq!(ready["spin_us"], 25);
    server.upgraded("/ws").expect_alive();
    server.terminate().expect_clean();
}

/// More arrives at once than the pool holds (ENOBUFS): everybody gets everything back, in order.
#[test]
fn more_than_all_buffers_at_once() {
    const CONNECTIONS: usize = 400;
    const BYTES: usize = 3 * BUFFER_BYTES;
    let server = start(&[]);
    for path in ["/ws", "/broadcast/mine-"] {
        let mut clients: Vec<Raw> = (0..CONNECTIONS)
            .map(|i| {
                let alone = if path == "/ws" {
                    String::new()
                } else {
                    i.to_string()
                };
                server.upgraded(&format!("{path}{alone}"))
            })
            .collect();
        // While the server stands still, three times its pool piles up.
        server.signal(Signal::STOP);
        for (i, client) in clients.iter_mut().enumerate() {
            for piece in 0..3 {
                client.send(&wire::binary(&pattern(i + piece, BYTES / 3)));
            }
        }
        server.signal(Signal::CONT);
        for (i, client) in clients.iter_mut().enumerate() {
            for piece in 0..3 {
                client.expect(BINARY | 0x80, &pattern(i + piece, BYTES / 3));
            }
        }
        drop(clients);
        server.await_metric("connections_open", 0);
    }
    // Without a connection the process could be gone before its worker has said how its ring fared.
    let mut last = server.upgraded("/ws");
    server.signal(Signal::TERM);
    last.expect_close(1001);
    drop(last);
    let exit = server.wait();
    assert!(
        exit.stderr.contains("receives_starved: ") && !exit.stderr.contains("receives_starved: 0,"),
        "there were buffers enough: {}",
        exit.stderr
    );
    exit.expect_clean();
}

/// More connections than buffers send and do not read. Their replies get stuck (short sends, sends that wait, receives that are stopped), and
/// nobody else notices. Then they read: nothing is lost.
#[test]
fn peers_that_do_not_read_hold_no_buffers() {
    const CONNECTIONS: usize = BUFFERS + 50;
    // So little of it fits into a socket that every reply gets stuck.
    const MESSAGE: usize = 3000;
    const MESSAGES: usize = 60;
    let server = start(&[]);
    let mut other = server.upgraded("/ws");
    let mut stuck: Vec<Raw> = (0..CONNECTIONS)
        .map(|_| server.upgraded_with_small_buffer("/ws"))
        .collect();
    let writers: Vec<_> = stuck.iter().map(Raw::writer).collect();
    let sending = thread::spawn(move || {
        // Each in turn, so that all get stuck before any is done.
        let mut writers = writers;
        for message in 0..MESSAGES {
            for (i, writer) in writers.iter_mut().enumerate() {
                let frame = wire::binary(&pattern(i + message, MESSAGE));
                writer.write_all(&frame).unwrap();
            }
        }
    });
    eventually(server.patience, "everything is sent", || {
        other.expect_alive();
        sending.is_finished().then_some(())
    });
    sending.join().unwrap();
    other.expect_alive();
    for (i, client) in stuck.iter_mut().enumerate() {
        for message in 0..MESSAGES {
            client.expect(BINARY | 0x80, &pattern(i + message, MESSAGE));
        }
    }
    other.expect_alive();
    drop(stuck);
    server.await_metric("connections_open", 1);
    server.terminate().expect_clean();
}

/// Connections end while their sends are stuck and their receives stopped: all operations are cancelled, all descriptors closed.
#[test]
fn connections_that_end_in_the_middle_leave_nothing() {
    let server = start(&[]);
    server.upgraded("/ws").expect_alive();
    let files = server.open_files();
    for path in ["/ws", "/broadcast/middle"] {
        for round in 0..10 {
            let mut client = server.upgraded_with_small_buffer(path);
            let frame = wire::binary(&pattern(round, 60_000));
            let mut sent = 0;
            loop {
                let now = client.send_until_stuck(&frame, Duration::from_millis(20));
                sent += now;
                if now < frame.len() || sent > 32 << 20 {
                    break;
                }
            }
            if round % 2 == 0 {
                client.reset();
            } else {
                drop(client);
            }
        }
    }
    server.await_metric("connections_open", 0);
    eventually(server.patience, "all files are closed again", || {
        (server.open_files() <= files).then_some(())
    });
    server.upgraded("/ws").expect_alive();
    server.terminate().expect_clean();
}

/// A drain in the middle of stuck sends ends in time, with all connections gone.
#[test]
fn a_drain_does_not_wait_for_stuck_sends() {
    let server = start(&["--drain-timeout", "300ms"]);
    let mut stuck: Vec<Raw> = (0..20)
        .map(|_| server.upgraded_with_small_buffer("/ws"))
        .collect();
    let frame = wire::binary(&pattern(1, 60_000));
    for client in &mut stuck {
        while client.send_until_stuck(&frame, Duration::from_millis(20)) == frame.len() {}
    }
    let last = server.terminate().expect_clean();
    assert_eq!(last["drained_in_time"], false);
    assert_eq!(last["drained"], 20);
}
