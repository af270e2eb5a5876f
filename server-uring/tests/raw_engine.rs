//! What is special about the raw engine: a pool of receive buffers shared by all connections, sends
//! from those buffers, receives that are stopped and begun again. The conformance suite shows the
//! rest, a full table of descriptors among it.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::thread;
use std::time::Duration;

use conformance::client::{Raw, eventually};
use conformance::harness::Server;
use conformance::{Target, wire};
use rustix::process::Signal;

/// Size of a receive buffer: see `raw/ring.rs`. The size of the pool is in the ready line.
const BUFFER_BYTES: usize = 4096 + 64;

const BINARY: u8 = 2;

/// Runs each test with its connections in the process's table of descriptors, and in the ring's
/// own.
macro_rules! in_both_tables {
    ($($test:ident)*) => {
        mod plain {
            $(#[test] fn $test() { super::$test("--direct=off") })*
        }
        mod direct {
            $(#[test] fn $test() { super::$test("--direct=on") })*
        }
    };
}

in_both_tables! {
    more_than_all_buffers_at_once
    more_completions_than_the_queue_holds
    peers_that_do_not_read_hold_no_buffers
    messages_that_grow_and_shrink_come_back
    connections_that_end_in_the_middle_leave_nothing
    a_drain_does_not_wait_for_stuck_sends
}

/// Starts a server that says at its end how its ring fared.
fn start(direct: &str, extra: &[&str]) -> Server {
    let args = ["--engine", "raw", "--workers", "1", direct];
    Target::new(env!("CARGO_BIN_EXE_server-uring"), &args)
        .start_in_shell("export RUST_LOG=server_uring::raw::event_loop=debug", extra)
}

/// Receive buffers of its one worker.
fn buffers(server: &Server) -> usize {
    let bytes = server.ready["options"]["read_buffer_bytes"].as_u64();
    bytes.unwrap() as usize / BUFFER_BYTES
}

/// Ends the server and returns the value of a counter of its ring.
fn end_and_count(server: Server, counter: &str) -> u64 {
    // Without a connection the process could be gone before its worker has said how its ring fared.
    let mut last = server.upgraded("/ws");
    server.signal(Signal::TERM);
    last.expect_close(1001);
    drop(last);
    let exit = server.wait();
    let (_, rest) = exit
        .stderr
        .split_once(&format!("{counter}: "))
        .unwrap_or_else(|| panic!("no {counter} in {}", exit.stderr));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    let count = digits.and_then(|digits| digits.parse().ok()).unwrap();
    exit.expect_clean();
    count
}

/// Bytes that differ from place to place and from one `seed` to the next.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (((i + seed * 977) as u32).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

#[test]
fn the_ready_line_names_the_pool_and_the_spinning() {
    let server = start("--direct=off", &["--spin-us", "25"]);
    let ready = &server.ready["options"];
    assert!(buffers(&server) > 0, "{ready}");
    assert_eq!(ready["spin_us"], 25);
    server.upgraded("/ws").expect_alive();
    server.terminate().expect_clean();
}

/// Whether connections have descriptors when the command line leaves it to the server.
#[track_caller]
fn is_direct_by_itself(open_files: u32, extra: &[&str]) -> bool {
    let prelude = format!("ulimit -n {open_files}");
    let args = ["--engine", "raw", "--workers", "2"];
    let server =
        Target::new(env!("CARGO_BIN_EXE_server-uring"), &args).start_in_shell(&prelude, extra);
    let direct = server.ready["options"]["direct_descriptors"].as_bool();
    server.upgraded("/ws").expect_alive();
    server.terminate().expect_clean();
    direct.unwrap()
}

#[test]
fn connections_have_descriptors_where_the_limit_holds_them() {
    assert!(is_direct_by_itself(500, &[]));
    assert!(is_direct_by_itself(500, &["--max-connections", "490"]));
    assert!(!is_direct_by_itself(500, &["--max-connections", "400"]));
    assert!(!is_direct_by_itself(500, &["--direct=off"]));
}

/// A server whose limit on open files is far below the connections that it serves.
#[test]
fn more_connections_than_open_files() {
    const LIMIT: usize = 64;
    let args = ["--engine", "raw", "--workers", "3"];
    let server = Target::new(env!("CARGO_BIN_EXE_server-uring"), &args)
        .start_in_shell(&format!("ulimit -n {LIMIT}"), &[]);
    let files = server.open_files();
    let mut clients: Vec<Raw> = (0..LIMIT + 10).map(|_| server.upgraded("/ws")).collect();
    eventually(server.patience, "all connections are held", || {
        (server.open_sockets() == clients.len()).then_some(())
    });
    for client in &mut clients {
        client.expect_alive();
    }
    assert_eq!(server.open_files(), files);
    drop(clients);
    eventually(server.patience, "all sockets are closed", || {
        (server.open_sockets() == 0).then_some(())
    });
    assert_eq!(server.open_files(), files);
    server.terminate().expect_clean();
}

/// More arrives at once than the pool holds (ENOBUFS): everybody gets everything back, in order.
fn more_than_all_buffers_at_once(direct: &str) {
    // One receive takes as many buffers as there are bytes for; of three each, a turn would not
    // empty the pool.
    const BYTES: usize = 15 * BUFFER_BYTES;
    let server = start(direct, &[]);
    let connections = buffers(&server);
    for path in ["/ws", "/broadcast/mine-"] {
        let mut clients: Vec<Raw> = (0..connections)
            .map(|i| {
                let alone = if path == "/ws" {
                    String::new()
                } else {
                    i.to_string()
                };
                server.upgraded(&format!("{path}{alone}"))
            })
            .collect();
        // While the server stands still, fifteen times its pool piles up.
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
    assert!(
        end_and_count(server, "receives_starved") > 0,
        "there were buffers enough"
    );
}

/// Completions overflow into the kernel's memory (a queue of 8): everybody gets everything, in
/// order.
fn more_completions_than_the_queue_holds(direct: &str) {
    const MEMBERS: usize = 100;
    const MESSAGES: usize = 50;
    let server = start(direct, &["--cq-entries", "8"]);
    assert_eq!(server.ready["options"]["cq_entries"], 8);
    let mut echoes: Vec<Raw> = (0..MEMBERS).map(|_| server.upgraded("/ws")).collect();
    let mut members: Vec<Raw> = (0..MEMBERS)
        .map(|_| server.upgraded("/broadcast/all"))
        .collect();
    // While the server stands still, more arrives than it can be told of at once.
    server.signal(Signal::STOP);
    for message in 0..MESSAGES {
        for (i, client) in echoes.iter_mut().enumerate() {
            client.send(&wire::binary(&pattern(i + message, 100)));
        }
        members[0].send(&wire::binary(&pattern(message, 100)));
    }
    server.signal(Signal::CONT);
    for message in 0..MESSAGES {
        for (i, client) in echoes.iter_mut().enumerate() {
            client.expect(BINARY | 0x80, &pattern(i + message, 100));
        }
        for client in &mut members {
            client.expect(BINARY | 0x80, &pattern(message, 100));
        }
    }
    drop((echoes, members));
    server.await_metric("connections_open", 0);
    eventually(server.patience, "all sockets are closed", || {
        (server.open_sockets() == 0).then_some(())
    });
    assert!(
        end_and_count(server, "cq_overflows") > 0,
        "it did not overflow"
    );
}

/// More connections than buffers send and do not read. Their replies get stuck (short sends, sends
/// that wait, receives that are stopped), and nobody else notices. Then they read: nothing is lost.
fn peers_that_do_not_read_hold_no_buffers(direct: &str) {
    // So little of it fits into a socket that every reply gets stuck.
    const MESSAGE: usize = 3000;
    const MESSAGES: usize = 60;
    let server = start(direct, &[]);
    let connections = buffers(&server) + 50;
    let mut other = server.upgraded("/ws");
    let mut stuck: Vec<Raw> = (0..connections)
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

/// The messages of all connections grow beyond a buffer, beyond a large buffer, and are short again
/// for so long that they are received as before.
fn messages_that_grow_and_shrink_come_back(direct: &str) {
    let server = start(direct, &[]);
    let mut clients: Vec<Raw> = (0..40).map(|_| server.upgraded("/ws")).collect();
    let short = [100; 20];
    for _ in 0..2 {
        for len in [20_000, 60_000, 70_000, 300_000, 1_100_000, 5_000]
            .into_iter()
            .chain(short)
        {
            for (i, client) in clients.iter_mut().enumerate() {
                client.send(&wire::binary(&pattern(i, len)));
            }
            for (i, client) in clients.iter_mut().enumerate() {
                client.expect(BINARY | 0x80, &pattern(i, len));
            }
        }
    }
    drop(clients);
    server.await_metric("connections_open", 0);
    server.terminate().expect_clean();
}

/// Connections end while their sends are stuck and their receives stopped: all operations are
/// cancelled, all descriptors closed.
fn connections_that_end_in_the_middle_leave_nothing(direct: &str) {
    let server = start(direct, &[]);
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
        (server.open_files() <= files && server.open_sockets() == 0).then_some(())
    });
    server.upgraded("/ws").expect_alive();
    server.terminate().expect_clean();
}

/// A drain in the middle of stuck sends ends in time, with all connections gone.
fn a_drain_does_not_wait_for_stuck_sends(direct: &str) {
    let server = start(direct, &["--drain-timeout", "300ms"]);
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

/// It says itself how often it entered the kernel, so that nobody has to trace it.
#[test]
fn the_final_line_counts_system_calls() {
    let server = start("--direct=off", &[]);
    server.upgraded("/ws").expect_alive();
    let last = server.terminate().expect_clean();
    assert!(
        last["enters"].as_u64().is_some_and(|enters| enters > 0),
        "{last}"
    );
}
