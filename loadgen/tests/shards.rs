//! Runs in several processes: what they measure together, and what becomes of them when one of
//! them, or the first, ends.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use loadgen::record::Record;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{echo, invalid_because, server};
use tungstenite::Message;

/// Echoes, and knows how many connections came from where and how many messages it has seen.
struct Server {
    address: SocketAddr,
    sources: Arc<Mutex<HashMap<IpAddr, u64>>>,
    messages: Arc<AtomicU64>,
}

impl Server {
    fn start() -> Self {
        let sources: Arc<Mutex<HashMap<IpAddr, u64>>> = Arc::default();
        let messages: Arc<AtomicU64> = Arc::default();
        let (seen, counter) = (sources.clone(), messages.clone());
        let address = server(move |_, socket| {
            let source = socket.get_ref().peer_addr().unwrap().ip();
            *lock(&seen).entry(source).or_default() += 1;
            echo(socket, |_, _, _| {
                counter.fetch_add(1, SeqCst);
                false
            });
        });
        Self {
            address,
            sources,
            messages,
        }
    }

    fn messages(&self) -> u64 {
        self.messages.load(SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn loadgen(args: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(args.split_whitespace());
    command.arg(format!("ws://{address}/"));
    command.args(["--shards", "3", "--format", "json"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn record(output: &Output) -> Record {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Waits for `condition`, for as long as a test may take.
fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        // tidy: may sleep, a poll with a deadline.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The shards of a generator.
fn shards(parent: &Child) -> Vec<u32> {
    let pid = parent.id();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn is_alive(pid: u32) -> bool {
    // An orphan that nobody has reaped yet is a zombie.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[test]
fn lives_of_three_processes_are_added_up() {
    let server = Server::start();
    let args = "connect -c 6 -r 300 --messages 2 -d 600ms --warmup 100ms";
    let output = loadgen(args, server.address).output().unwrap();
    let record = record(&output);
    let schedule = record.connect.schedule.unwrap();
    assert_eq!((schedule.due, schedule.missing), (180, 0), "{schedule:?}");
    let intended = record.connect.handshake_latency_intended.unwrap();
    assert_eq!(intended.count, 180, "{:?}", record.validity);
    let messages = record.messages;
    assert!(record.connect.lives.unwrap().completed > 100);
    assert_eq!(record.latency_actual.unwrap().count, messages.received);
    assert_eq!(messages.lost, 0);
    assert_eq!(record.totals.sent, 2 * record.totals.handshakes);
    assert_eq!(record.totals.sent, server.messages());
}

#[test]
fn three_processes_make_one_record() {
    let server = Server::start();
    let output = loadgen("echo -c 60 -d 1500ms --warmup 200ms", server.address)
        .output()
        .unwrap();
    let record = record(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("60 connections / 3 processes = 20 each"),
        "{said}"
    );
    assert_eq!((record.options.shards, record.options.threads), (3, 3));
    assert_eq!(
        (record.connections.requested, record.connections.up),
        (60, 60)
    );
    assert_eq!(record.messages.lost, 0);
    assert_eq!(record.connect.completed, 60);

    let latency = record.latency_actual.as_ref().unwrap();
    assert_eq!(latency.count, record.messages.received);
    // Replies to the warm-up's last messages came in the first second, too.
    assert!(
        record
            .series
            .iter()
            .map(|second| second.received)
            .sum::<u64>()
            >= latency.count
    );
    assert_eq!(
        record.series.iter().map(|second| second.sent).sum::<u64>(),
        record.messages.sent
    );
    assert_eq!(record.totals.sent, server.messages());
    assert_eq!(record.totals.received, server.messages());
    let law = record.littles_law.unwrap();
    assert!((law.in_flight_expected - 60.0).abs() < 1e-9);

    let generator = &record.generator;
    assert_eq!(generator.shards.len(), 3);
    for shard in &generator.shards {
        assert_eq!((shard.connections, shard.up, shard.threads), (20, 20, 1));
        assert!(shard.peak_rss_bytes > 0);
    }
    let cpu: u64 = generator.shards.iter().map(|shard| shard.cpu_user_ns).sum();
    assert_eq!(cpu, generator.cpu_user_ns);
    // A process's connections come from its own address.
    let sources = lock(&server.sources);
    assert_eq!(sources.len(), 3);
    assert!(sources.values().all(|count| *count == 20), "{sources:?}");
}

#[test]
fn a_schedule_is_shared_to_the_last_message() {
    let server = Server::start();
    for (load, expected) in [
        ("echo -c 31 -r 500 -d 2s --warmup 500ms", 1_000),
        ("idle -c 31 --active 0.5 -r 100 -d 2s --warmup 500ms", 200),
    ] {
        let before = server.messages();
        let output = loadgen(load, server.address).output().unwrap();
        let record = record(&output);
        // Each thread rounds its own share.
        assert!(
            record.messages.sent.abs_diff(expected) <= 3,
            "{} for {expected}",
            record.messages.sent
        );
        assert_eq!(record.messages.received, record.messages.sent);
        assert_eq!(record.messages.unsent, 0);
        assert_eq!(record.totals.sent, server.messages() - before);
        assert_eq!(
            record.latency_intended.unwrap().count,
            record.messages.received
        );
        assert_eq!(
            record.generator.schedule_lag.unwrap().count,
            record.messages.sent
        );
    }
}

#[test]
fn handshakes_are_counted_together() {
    let server = Server::start();
    let output = loadgen("connect -c 6 -d 1s --warmup 100ms", server.address)
        .output()
        .unwrap();
    let record = record(&output);
    assert!(record.connect.completed > 0);
    // One is counted where it ended, the other where it began.
    let timed = record.connect.handshake_latency.unwrap().count;
    assert!(timed.abs_diff(record.connect.completed) <= 6);
    assert!(lock(&server.sources).values().sum::<u64>() >= record.connect.completed);
}

/// A room: every message goes to everybody.
fn room() -> SocketAddr {
    let members: Arc<Mutex<Vec<Sender<Message>>>> = Arc::default();
    server(move |_, socket| {
        let (inbox, messages) = mpsc::channel::<Message>();
        lock(&members).push(inbox);
        let stream = socket.get_ref().try_clone().unwrap();
        let mut writer = tungstenite::WebSocket::from_raw_socket(
            stream,
            tungstenite::protocol::Role::Server,
            None,
        );
        std::thread::spawn(move || {
            for message in messages {
                if writer.send(message).is_err() {
                    return;
                }
            }
        });
        let members = members.clone();
        echo(socket, move |_, _, message| {
            for member in lock(&members).iter() {
                let _ = member.send(message.clone());
            }
            true
        });
    })
}

#[test]
fn members_of_a_room_are_spread_over_processes() {
    let output = loadgen(
        "broadcast -c 12 --publishers 5 -r 100 -d 2s --warmup 200ms",
        room(),
    )
    .output()
    .unwrap();
    let record = record(&output);
    let section = record.broadcast.unwrap();
    assert!(
        section.published.abs_diff(200) <= 5,
        "{}",
        section.published
    );
    assert_eq!(section.deliveries, section.published * 12);
    assert_eq!(section.complete_messages, section.published);
    assert_eq!(record.messages.corrupted, 0);
    let spread = [
        section.first_receiver,
        section.median_receiver,
        section.last_receiver,
    ]
    .map(Option::unwrap);
    assert!(
        spread
            .iter()
            .all(|latency| latency.count == section.published)
    );
    assert!(spread[0].mean_ns <= spread[1].mean_ns && spread[1].mean_ns <= spread[2].mean_ns);
}

#[test]
fn a_shard_that_is_killed_makes_an_invalid_run_and_loses_nothing_told() {
    let server = Server::start();
    let mut child = loadgen("echo -c 60 -r 600 -d 10m --warmup 0", server.address)
        .spawn()
        .unwrap();
    // Two seconds are told for certain.
    until(|| server.messages() > 1_800 || child.try_wait().unwrap().is_some());
    let shards = shards(&child);
    assert_eq!(shards.len(), 3);
    signal(shards[1], Signal::SIGKILL);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let record = record(&output);
    let named = format!(
        "shard 2 of 3 (pid {}, 20 connections) was killed by SIGKILL",
        shards[1]
    );
    let failure = record.failure.as_deref().unwrap_or_default();
    assert!(failure.starts_with(&named), "{failure}");
    invalid_because(&record, "20 of 60 connections were closed");
    assert!(
        record.messages.received > 1_200,
        "{}",
        record.messages.received
    );
    assert_eq!(
        record.latency_intended.as_ref().unwrap().count,
        record.messages.received
    );
    let of: Vec<(u64, bool)> = record
        .generator
        .shards
        .iter()
        .map(|shard| (shard.up, shard.peak_rss_bytes > 0))
        .collect();
    assert_eq!(of, [(20, true), (20, false), (20, true)]);
    assert!(!shards.into_iter().any(is_alive));
}

#[test]
fn a_shard_that_dies_while_it_connects_ends_the_run() {
    // Takes connections and never answers.
    let server = support::raw_server("127.0.0.1:0", |_, mut stream| {
        support::read_head(&mut stream);
        support::read_head(&mut stream);
    })
    .unwrap();
    let child = loadgen("idle -c 6", server).spawn().unwrap();
    until(|| shards(&child).len() == 3);
    signal(shards(&child)[0], Signal::SIGKILL);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let record = record(&output);
    invalid_because(&record, "shard 1 of 3");
    invalid_because(
        &record,
        "0 of 6 connections were up when the load was to begin",
    );
}

#[test]
fn shards_end_with_the_first_process() {
    let server = Server::start();
    let mut child = loadgen("echo -c 12 -d 10m --warmup 0", server.address)
        .spawn()
        .unwrap();
    until(|| server.messages() > 100 || child.try_wait().unwrap().is_some());
    let shards = shards(&child);
    assert_eq!(shards.len(), 3);
    signal(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    until(|| !shards.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn interrupted_shards_give_one_record_of_what_they_have() {
    let server = Server::start();
    // To the first process alone, as a script does, and to all, as a terminal does.
    for to_all in [false, true] {
        let before = server.messages();
        let mut child = loadgen("echo -c 12 -d 10m --warmup 0", server.address)
            .spawn()
            .unwrap();
        until(|| server.messages() > before + 200 || child.try_wait().unwrap().is_some());
        let shards = shards(&child);
        signal(child.id(), Signal::SIGINT);
        for shard in shards.iter().filter(|_| to_all) {
            signal(*shard, Signal::SIGINT);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let record = record(&output);
        assert!(record.interrupted && record.messages.received > 100);
        assert_eq!(record.messages.lost, 0);
        assert_eq!(record.generator.shards.len(), 3);
        assert!(!shards.into_iter().any(is_alive));
    }
}
