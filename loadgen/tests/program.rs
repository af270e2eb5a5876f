//! The program as a user sees it: exit codes, messages, files.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use loadgen::{check::RunStatus, record::Record};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{answering, echo, echo_server, raw_server, read_head, server};

fn loadgen(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(args.split_whitespace());
    command.stdin(Stdio::null());
    command
}

fn run(args: &str) -> Output {
    loadgen(args).output().unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/ws")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for `condition`, for as long as a test may take.
fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        // tidy: may sleep, a poll with a deadline.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_valid_run_exits_0_and_writes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let files = format!(
        "--json {} --hgrm {} --hlog {}",
        path("r.json").display(),
        path("r.hgrm").display(),
        path("r.hlog").display()
    );
    let target = url(echo_server());
    let output = run(&format!(
        "echo -c 4 -t 1 -d 2500ms --warmup 100ms {files} {target}"
    ));
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    for part in [
        "verdict      valid",
        "4 of 4 up",
        "messages/s",
        "p50",
        "Little's law",
    ] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert_eq!(
        text(&output.stderr),
        "",
        "no progress line without a terminal"
    );

    let record: Record = serde_json::from_slice(&fs::read(path("r.json")).unwrap()).unwrap();
    assert!(record.is_valid());
    let count = record.latency().unwrap().count;
    assert_eq!(record.series.len(), 3);

    let hgrm = fs::read_to_string(path("r.hgrm")).unwrap();
    let rows = hgrm
        .lines()
        .filter(|line| line.contains('.') && !line.starts_with('#'));
    assert!(rows.clone().count() > 5);
    assert!(rows.clone().all(|row| row.split_whitespace().count() == 4));

    let hlog = fs::read(path("r.hlog")).unwrap();
    let log = text(&hlog);
    assert!(
        log.starts_with("#[Histogram log format version 1.3]\n"),
        "{log}"
    );
    assert!(log.contains("\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"));
    // The crate's reader knows no legend.
    let without_legend: String = log
        .lines()
        .filter(|line| !line.starts_with('"'))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut total = 0;
    for entry in IntervalLogIterator::new(without_legend.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            use base64::Engine;
            let packed = base64::engine::general_purpose::STANDARD
                .decode(interval.encoded_histogram())
                .unwrap();
            let part: Histogram<u64> = Deserializer::new().deserialize(&mut &packed[..]).unwrap();
            total += part.len();
        }
    }
    assert_eq!(total, count);
}

#[test]
fn json_goes_to_stdout_and_quiet_says_nothing() {
    let target = url(echo_server());
    let output = run(&format!(
        "echo -c 1 -d 200ms --warmup 0 --format json {target}"
    ));
    let record: Record = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record.options.urls, std::slice::from_ref(&target));
    assert_eq!(record.schema_version, loadgen::record::SCHEMA_VERSION);
    let output = run(&format!(
        "echo -c 1 -r 50 -d 500ms --warmup 0 --quiet {target}"
    ));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn usage_exits_2_and_says_what_to_do() {
    let target = url(echo_server());
    for (args, hint) in [
        ("", "Usage"),
        ("frobnicate", "frobnicate"),
        ("echo", "<URL>"),
        (&format!("echo --nonsense {target}"), "--nonsense"),
        (&format!("echo -c 0 {target}"), "use 1 or more"),
        (
            &format!("echo -c 100m --shards 1 {target}"),
            "RLIMIT_NOFILE",
        ),
        (&format!("echo -c 3 --shards 4 {target}"), "--shards 4"),
        (&format!("broadcast -c 9 --shards 3 {target}"), "--rate"),
        ("shard", "nobody said what to do"),
        (&format!("broadcast -s 4 {target}"), "--size 24"),
        ("echo wss://localhost/ws", "TLS"),
        ("echo ws://name.invalid/ws", "cannot resolve"),
        (
            &format!("echo --json /nonexistent/r.json {target}"),
            "/nonexistent/r.json",
        ),
        (
            &format!("echo -H Sec-WebSocket-Protocol:x {target}"),
            "--subprotocol",
        ),
    ] {
        let output = run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {stderr}");
        assert!(stderr.contains(hint), "{args}: {stderr}");
    }
    for args in ["--help", "echo --help", "idle --help"] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            text(&output.stdout).contains("130"),
            "exit codes are documented: {args}"
        );
    }
}

/// An address nobody listens at.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

// RFC 6455 section 4.1: not-opened-fails, answer-conforms
// RFC 6455 section 7.2.1: handshake-fails
#[test]
fn what_is_no_websocket_server_is_named() {
    let garbage = raw_server("127.0.0.1:0", |_, mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9\r\n\r\n");
    })
    .unwrap();
    let hangs_up = raw_server("127.0.0.1:0", |_, mut stream| {
        read_head(&mut stream);
    })
    .unwrap();
    let wrong_key = answering(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    );
    for (address, hint) in [
        (nobody(), "refused: is the server running"),
        (
            answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            "speaks HTTP",
        ),
        (
            answering("HTTP/1.1 404 Not Found\r\n\r\n"),
            "the path is wrong",
        ),
        (
            answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            "--max-connections",
        ),
        (garbage, "no WebSocket server"),
        (hangs_up, "is it a WebSocket server"),
        (wrong_key, "Sec-WebSocket-Accept"),
    ] {
        for kind in ["echo", "connect"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("r.json");
            let output = run(&format!(
                "{kind} -c 3 -d 30s --quiet --json {} {}",
                file.display(),
                url(address)
            ));
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(hint), "{kind} {hint}: {stderr}");
            let record: Record = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            assert_eq!(record.validity.verdict, RunStatus::Invalid);
            assert_eq!(record.messages.sent, 0);
        }
    }
}

#[test]
fn a_server_that_closes_mid_run_exits_1_with_what_was_recorded() {
    let address = server(|_, socket| {
        let stream = socket.get_ref().try_clone().unwrap();
        echo(socket, |number, _, _| {
            number == 30 && stream.shutdown(std::net::Shutdown::Both).is_ok()
        });
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.json");
    let output = run(&format!(
        "echo -c 2 -r 100 -d 60s --warmup 0 --json {} {}",
        file.display(),
        url(address)
    ));
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("INVALID") && stdout.contains("closed before the end"),
        "{stdout}"
    );
    let record: Record = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert!(record.messages.received >= 60);
    assert!(record.latency_intended.is_some());
}

/// A run that is under way, and its server's count of messages.
fn under_way(args: &str) -> (Child, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let address = server(move |_, socket| {
        echo(socket, |_, _, _| {
            counter.fetch_add(1, SeqCst);
            false
        });
    });
    let child = loadgen(&format!("{args} {}", url(address)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, count)
}

#[test]
fn an_interrupted_run_prints_what_it_has_and_exits_130() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.json");
        let args = format!("echo -c 2 -d 10m --warmup 0 --json {}", file.display());
        let (child, count) = under_way(&args);
        until(|| count.load(SeqCst) > 50);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let stdout = text(&output.stdout);
        assert!(
            stdout.contains("(interrupted)") && stdout.contains("p50"),
            "{stdout}"
        );
        let record: Record = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert!(record.interrupted && !record.is_valid());
        assert!(record.messages.received > 40);
        assert_eq!(record.messages.lost, 0);
    }
}

#[test]
fn a_run_that_is_interrupted_while_it_connects_ends_too() {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    let silent = raw_server("127.0.0.1:0", move |number, mut stream| {
        read_head(&mut stream);
        counter.fetch_add(1, SeqCst);
        // The first gets no answer, ever: the read ends with the client.
        if number > 0 {
            let _ = stream.write_all(b"HTTP/1.1 101 ");
        }
        read_head(&mut stream);
    })
    .unwrap();
    for load in ["echo -r 100", "echo", "broadcast -r 10", "connect", "idle"] {
        asked.store(0, SeqCst);
        let child = loadgen(&format!("{load} -c 4 -t 2 {}", url(silent)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until(|| asked.load(SeqCst) >= 4);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("interrupted"));
    }
}

#[test]
fn a_full_disk_is_an_error_after_the_report() {
    let target = url(echo_server());
    let output = run(&format!(
        "echo -c 1 -d 200ms --warmup 0 --json /dev/full {target}"
    ));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("messages/s"));
    assert!(text(&output.stderr).contains("/dev/full"));
}
