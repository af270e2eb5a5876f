//! Time, number and file limits: what they stop, whom they leave alone, and that they let go again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::{Raw, eventually, upgrade_request};
use super::harness::{PATIENCE, Server, Target};
use super::wire::{self, CLOSE, FIN, PING, PONG, TEXT};

/// `--handshake-timeout`: a peer that has not sent a request by then gets 408 or a close; one that
/// has is left alone.
pub fn handshake_timeout_closes_the_silent(target: &Target) {
    let server = target.start(&["--handshake-timeout", "300ms"]);
    let mut upgraded = server.upgraded("/ws");
    let start = Instant::now();
    let mut silent = server.raw();
    let mut partial = server.raw();
    partial.send(b"GET /ws HTTP/1.1\r\nHost: conf");
    for raw in [&mut silent, &mut partial] {
        timed_out(raw);
        assert!(
            start.elapsed() >= Duration::from_millis(250),
            "closed after {:?}",
            start.elapsed()
        );
    }
    upgraded.expect_alive();
}

/// Sending a byte now and then does not buy more time.
pub fn handshake_timeout_stops_a_drip(target: &Target) {
    let server = target.start(&["--handshake-timeout", "300ms"]);
    let mut raw = server.raw();
    let deadline = Instant::now() + server.patience;
    let request = upgrade_request("/ws", &"X-Drip: drop\r\n".repeat(60));
    for byte in request.as_bytes() {
        let sent = raw.try_send(&[*byte]);
        if !sent || raw.hears_something_within(Duration::from_millis(40)) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "still accepting one byte at a time"
        );
    }
    timed_out(&mut raw);
}

/// `--idle-timeout`: pings after half of it; a peer that answers stays, one that only sends, too.
pub fn idle_timeout_keeps_who_answers(target: &Target) {
    let server = target.start(&["--idle-timeout", "600ms"]);
    for path in ["/ws", "/broadcast/quiet"] {
        let start = Instant::now();
        let mut answers = server.upgraded(path);
        for _ in 0..3 {
            let ping = answers.frame();
            assert_eq!(ping.first, FIN | PING, "{ping:?}");
            answers.send(&wire::masked(FIN | PONG, &ping.payload));
        }
        assert!(
            start.elapsed() > Duration::from_millis(600),
            "three pings in {:?}",
            start.elapsed()
        );
        alive_among_pings(&mut answers);
        drop(answers);
        let mut talks = server.upgraded(path);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(900) {
            alive_among_pings(&mut talks);
            talks.hears_something_within(Duration::from_millis(100));
        }
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("idle_timeouts"), 0);
    assert!(metrics.get("pongs_received") >= 6);
    assert!(metrics.get("pings_sent") >= metrics.get("pongs_received"));
}

/// `--idle-timeout`: a peer that answers nothing is pinged and then closed, and is counted.
pub fn idle_timeout_closes_the_silent(target: &Target) {
    let server = target.start(&["--idle-timeout", "600ms"]);
    for path in ["/ws", "/broadcast/quiet"] {
        let start = Instant::now();
        let mut silent = server.upgraded(path);
        let ping = silent.frame();
        assert_eq!(ping.first, FIN | PING, "{ping:?}");
        while let Some(frame) = silent.next_frame() {
            assert!(matches!(frame.opcode(), PING | CLOSE), "{frame:?}");
            assert!(
                start.elapsed() < server.patience,
                "still there, though silent; last came {frame:?}"
            );
        }
        assert!(
            start.elapsed() >= Duration::from_millis(550),
            "closed after {:?}",
            start.elapsed()
        );
    }
    server.await_metric("connections_open", 0);
    server.await_metric("idle_timeouts", 2);
}

/// `--idle-timeout`: a peer that takes nothing of its echoes is silent, too. It is closed and
/// counted, though no Close reaches it.
pub fn idle_timeout_closes_who_does_not_read(target: &Target) {
    let server = target.start(&["--idle-timeout", "600ms"]);
    let mut stuck = server.upgraded_with_small_buffer("/ws");
    let bytes = wire::binary(&vec![7; 1 << 20]);
    while stuck.send_until_stuck(&bytes, Duration::from_millis(200)) == bytes.len() {}
    server.await_metric("connections_open", 0);
    server.await_metric("idle_timeouts", 1);
}

/// `--max-connections`: one more upgrade gets 503, plain requests are still served, and a leave
/// makes room.
// RFC 6455 section 4.2.2: unwanted-is-refused
pub fn max_connections_refuses_and_recovers(target: &Target) {
    let server = target.start(&["--max-connections", "3"]);
    let mut members = vec![
        server.upgraded("/ws"),
        server.upgraded("/broadcast/full"),
        server.upgraded("/ws"),
    ];
    for path in ["/ws", "/broadcast/full"] {
        let mut raw = server.raw();
        raw.send(upgrade_request(path, "").as_bytes());
        raw.expect_error(503);
    }
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.metrics().get("refused"), 2);
    for member in &mut members {
        member.expect_alive();
    }
    for polite in [true, false] {
        let mut leaves = members.remove(0);
        if polite {
            leaves.send(&wire::close(1000, b""));
            leaves.expect_close(1000);
        } else {
            leaves.reset();
        }
        let raw = eventually(server.patience, "there is room again", || {
            upgraded_or_refused(&server)
        });
        members.push(raw);
        assert!(upgraded_or_refused(&server).is_none(), "one too many");
    }
    drop(members);
    assert!(server.stop()["refused"].as_u64() >= Some(4));
}

/// The soft limit of open files is raised to the hard one, and the `ready` line says so.
pub fn file_limit_is_raised(target: &Target) {
    let server = target.start_in_shell("ulimit -S -n 100 && ulimit -H -n 500", &[]);
    let path = format!("/proc/{}/limits", server.serving_pids()[0]);
    let limits =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap_or_default();
    let values: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values, ["500", "500"], "soft and hard limit");
    assert_eq!(
        server.ready["options"]["open_files"], 500,
        "{}",
        server.ready
    );
}

/// Out of file descriptors: the server stops accepting, counts it, does not spin, and serves the
/// waiting peers once others leave.
pub fn out_of_files_is_survived(target: &Target) {
    const LIMIT: u32 = 64;
    let server = target.start_in_shell(&format!("ulimit -n {LIMIT}"), &["--workers", "1"]);
    let request = upgrade_request("/ws", "");
    let mut clients: Vec<Raw> = (0..100)
        .map(|_| {
            let mut raw = server.raw();
            raw.send(request.as_bytes());
            raw
        })
        .collect();
    if server.ready["options"]["direct_descriptors"] == true {
        // Connections are not among its open files, but as many as the limit says is what its
        // worker holds.
        clients[LIMIT as usize - 1].expect_101();
    } else {
        eventually(server.patience, "the server has used its files up", || {
            (server.open_files() >= LIMIT as usize - 4).then_some(())
        });
    }
    clients[0].expect_101();
    clients[0].expect_alive();
    // For a second nothing can be accepted: a server that tries without a pause burns a second of
    // CPU.
    let cpu = server.cpu_time();
    let start = Instant::now();
    let served = clients[99].hears_something_within(Duration::from_secs(1));
    let (spent, passed) = (server.cpu_time() - cpu, start.elapsed());
    assert!(
        !served,
        "the hundredth client of {LIMIT} files heard something"
    );
    assert!(
        spent < passed / 3,
        "{spent:?} of CPU within {passed:?} while it cannot accept"
    );
    clients[0].expect_alive();

    let waiting = clients.split_off(75);
    drop(clients);
    let mut waiting: Vec<Raw> = waiting;
    for raw in &mut waiting {
        raw.expect_101();
        raw.expect_alive();
    }
    server.await_metric("connections_open", 25);
    assert!(server.metrics().get("accept_errors") >= 1, "not counted");
    drop(waiting);
    server.await_metric("connections_open", 0);
    server.upgraded("/ws").expect_alive();
    let exit = server.terminate();
    let lines = exit.stderr.lines().count();
    assert!(lines < 100, "{lines} lines of log for one episode");
    assert!(exit.expect_clean()["accept_errors"].as_u64() >= Some(1));
}

/// Out of file descriptors while clients come and go by the hundred: the log says when that begins
/// and when it ends, not each time that a descriptor comes free and is gone again.
pub fn out_of_files_is_said_twice(target: &Target) {
    const BEGIN: &str = "cannot accept";
    const END: &str = "accepting again";
    let server = target.start_in_shell("ulimit -n 40", &["--workers", "1"]);
    let request = upgrade_request("/ws", "");
    let mut clients = VecDeque::new();
    let churn = |clients: &mut VecDeque<Raw>, most: usize| {
        let mut raw = server.raw();
        raw.try_send(request.as_bytes());
        clients.push_back(raw);
        while clients.len() > most {
            clients.pop_front();
        }
    };
    eventually(server.patience, "descriptors have run out", || {
        churn(&mut clients, 100);
        server.stderr().contains(BEGIN).then_some(())
    });
    for _ in 0..2000 {
        churn(&mut clients, 100);
    }
    drop(clients);
    eventually(
        server.patience,
        "the log says that they suffice again",
        || {
            churn(&mut VecDeque::new(), 0);
            server.stderr().contains(END).then_some(())
        },
    );
    let exit = server.terminate();
    // A machine that stands still for a second may end it, and let it begin anew.
    let said = |what| exit.stderr.matches(what).count();
    assert!((1..=3).contains(&said(BEGIN)), "{}", exit.stderr);
    assert_eq!(said(BEGIN), said("accepts failed"), "{}", exit.stderr);
    assert!(exit.stderr.lines().count() < 10, "{}", exit.stderr);
    assert!(exit.expect_clean()["accept_errors"].as_u64() >= Some(1));
}

/// Clients that reset, with and without data on the way, leave the count right and the server well.
pub fn resets_leave_the_count_right(target: &Target) {
    let server = target.start(&[]);
    let mut stays = server.upgraded("/ws");
    for path in ["/ws", "/broadcast/reset"] {
        for i in 0..10 {
            let mut raw = server.upgraded_with_small_buffer(path);
            match i % 3 {
                0 => {}
                1 => raw.send(&wire::binary(&vec![1; 100_000])),
                _ => raw.send(&wire::binary(&vec![1; 100_000])[..50_000]),
            }
            raw.reset();
        }
    }
    server.await_metric("connections_open", 1);
    stays.expect_alive();
}

/// Hundreds of connections that end in every way there is leave no connection and no file behind.
pub fn churn_leaves_nothing_behind(target: &Target) {
    let server = target.start(&[]);
    churn(&server, 20);
    server.await_metric("connections_open", 0);
    let files = server.open_files();
    churn(&server, 400);
    server.await_metric("connections_open", 0);
    eventually(server.patience, "all files are closed again", || {
        (server.open_files() <= files && server.open_sockets() == 0).then_some(())
    });
    server.upgraded("/ws").expect_alive();
}

fn churn(server: &Server, rounds: usize) {
    for round in 0..rounds {
        let path = if round % 2 == 0 {
            "/ws"
        } else {
            "/broadcast/churn"
        };
        match round % 7 {
            0 => server.ws(path).close(),
            1 => server.upgraded(path).reset(),
            2 => drop(server.upgraded(path)),
            3 => drop(server.raw()),
            4 => assert_eq!(server.get("/healthz").status, 200),
            5 => {
                let mut raw = server.upgraded(path);
                raw.send(&wire::unmasked(FIN | TEXT, b"bare"));
                raw.expect_close(1002);
            }
            _ => {
                let mut raw = server.upgraded(path);
                raw.finish_sending();
                while raw.next_frame().is_some() {}
            }
        }
    }
}

/// A connection if there is room, `None` for a 503.
#[track_caller]
fn upgraded_or_refused(server: &Server) -> Option<Raw> {
    let mut raw = server.raw();
    raw.send(upgrade_request("/ws", "").as_bytes());
    match raw.response_or_close() {
        Some(response) if response.status == 101 => Some(raw),
        Some(response) => {
            assert_eq!(response.status, 503, "{response:?}");
            None
        }
        None => panic!("closed without an answer"),
    }
}

/// 408 and a close, or a close alone.
#[track_caller]
fn timed_out(raw: &mut Raw) {
    if let Some(response) = raw.response_or_close() {
        assert_eq!(response.status, 408, "{response:?}");
        raw.expect_closed();
    }
}

/// An echo, whatever pings come between.
#[track_caller]
fn alive_among_pings(raw: &mut Raw) {
    raw.send(&wire::text("here"));
    let start = Instant::now();
    let frame = loop {
        let frame = raw.frame();
        if frame.opcode() != PING {
            break frame;
        }
        assert!(start.elapsed() < PATIENCE, "pings, but no echo");
    };
    assert_eq!(
        (frame.opcode(), frame.payload.as_slice()),
        (TEXT, &b"here"[..]),
        "{frame:?}"
    );
}
