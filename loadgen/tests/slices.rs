//! Runs in slices, driven as the referee drives them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
};

use loadgen::{
    histogram,
    record::{
        Record,
        slice::{Line, Slice},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{echo, echo_server, room, server};
use tungstenite::Message;

const MS: u64 = 1_000_000;

/// A generator that waits for commands.
struct Generator {
    process: Child,
    lines: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

/// How it ended.
struct Ended {
    code: Option<i32>,
    /// What it said after the last line that was read.
    lines: Vec<Line>,
    stderr: String,
    record: Record,
    folder: tempfile::TempDir,
}

impl Generator {
    /// Its connections are up.
    fn start(load: &str, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(load.split_whitespace())
            .args(["--slices", "--quiet", "--json"])
            .arg(folder.path().join("r.json"))
            .arg("--hlog")
            .arg(folder.path().join("r.hlog"))
            .arg(format!("ws://{address}/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut generator = Self {
            process,
            lines,
            folder,
        };
        let Some(Line::Up(up)) = generator.line() else {
            panic!("it did not come up");
        };
        assert_eq!(up.pid, generator.process.id());
        generator
    }

    fn line(&mut self) -> Option<Line> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn command(&mut self, command: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    fn slice(&mut self, settle_ms: u64, measure_ms: u64) -> Slice {
        self.command(&format!("slice {settle_ms}ms {measure_ms}ms"));
        match self.line() {
            Some(Line::Slice(slice)) => *slice,
            other => panic!("{other:?}"),
        }
    }

    /// One that does not end by itself, until it is under way: `count` is what was received.
    fn begin_slice(&mut self, count: &AtomicU64) {
        let before = count.load(SeqCst);
        self.command("slice 0 10m");
        while count.load(SeqCst) < before + 50 {
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    fn stop(mut self) -> Ended {
        self.command("stop");
        self.ended()
    }

    fn ended(mut self) -> Ended {
        let lines = std::iter::from_fn(|| self.line()).collect();
        let output = self.process.wait_with_output().unwrap();
        let record = fs::read(self.folder.path().join("r.json")).unwrap();
        Ended {
            code: output.status.code(),
            lines,
            stderr: String::from_utf8(output.stderr).unwrap(),
            record: serde_json::from_slice(&record).unwrap(),
            folder: self.folder,
        }
    }
}

/// An echo server, what it has received, and its ends of the connections.
fn watched() -> (SocketAddr, Arc<AtomicU64>, Arc<Mutex<Vec<TcpStream>>>) {
    let count: Arc<AtomicU64> = Arc::default();
    let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let (counter, kept) = (count.clone(), streams.clone());
    let address = server(move |_, socket| {
        let stream = socket.get_ref().try_clone().unwrap();
        kept.lock().unwrap().push(stream.try_clone().unwrap());
        echo(socket, |_, _, _| {
            counter.fetch_add(1, SeqCst);
            false
        });
        let _ = stream.shutdown(Shutdown::Both);
    });
    (address, count, streams)
}

/// An echo server, or a room without gaps.
fn server_for(load: &str) -> SocketAddr {
    match load.starts_with("echo") {
        true => echo_server(),
        false => room(|_, _| false),
    }
}

const LOADS: [&str; 8] = [
    "echo -c 6 --window 2 -t 1",
    "echo -c 6 --window 2 -t 2",
    "echo -c 6 -r 1990 -t 1",
    "echo -c 6 -s 5 -r 1990 -t 2",
    "broadcast -c 5 --publishers 2 --window 2 -t 1",
    "broadcast -c 5 --publishers 2 --window 2 -t 2",
    "broadcast -c 5 --publishers 3 -r 390 -t 1",
    "broadcast -c 5 --publishers 3 -r 390 -t 2",
];

#[test]
fn slices_add_up_to_the_record() {
    for load in LOADS {
        let mut generator = Generator::start(load, server_for(load));
        let slices: Vec<Slice> = [(50, 60), (50, 50), (50, 1_100)]
            .map(|(settle, measure)| generator.slice(settle, measure))
            .into();
        let ended = generator.stop();
        assert_eq!(ended.lines.len(), 0);
        let record = ended.record;
        for (index, slice) in slices.iter().enumerate() {
            assert_eq!(slice.number, index as u64 + 1);
            assert!(slice.paused_ns >= slice.to_ns, "{load}: {slice:?}");
            assert!(slice.messages.received > 0, "{load}: {slice:?}");
            check_slice(load, slice, &record);
        }
        check_sums(load, &slices, &record);
        let log = fs::read_to_string(ended.folder.path().join("r.hlog")).unwrap();
        check_log(load, &slices, &record, &log);
    }
}

/// One thread, so that each slice has exactly what the schedule says.
#[test]
fn messages_to_connections_that_are_not_hot_are_apart_in_each_slice() {
    let load = "echo -c 10 -r 1k --hot 0.2 --hot-share 0.75 -t 1";
    let mut generator = Generator::start(load, echo_server());
    for _ in 0..2 {
        let slice = generator.slice(20, 200);
        assert_eq!((slice.messages.sent, slice.messages.received), (200, 200));
        assert_eq!(slice.latency_others.unwrap().count, 50);
    }
    let ended = generator.stop();
    let others = ended.record.latency_others.unwrap();
    assert_eq!(others.count, 100);
    let log = fs::read_to_string(ended.folder.path().join("r.hlog")).unwrap();
    let tagged = |tag: &str| log.lines().filter(|line| line.starts_with(tag)).count();
    assert_eq!(
        ["Tag=intended,", "Tag=actual,", "Tag=others,"].map(tagged),
        [2, 1, 1]
    );
}

fn check_slice(load: &str, slice: &Slice, record: &Record) {
    let (messages, options) = (&slice.messages, &record.options);
    let each = match options.publishers {
        Some(_) => options.connections,
        None => 1,
    };
    assert_eq!(messages.expected, messages.sent * each, "{load}");
    assert_eq!(messages.received, messages.expected, "{load}");
    assert_eq!(slice.connections_up, options.connections);
    assert_eq!(
        slice.latency_intended.is_some(),
        options.rate_per_s.is_some()
    );
    let latency = slice.latency_actual.as_ref().unwrap();
    assert_eq!(latency.count, messages.received, "{load}");
    let is_exact =
        options.publishers.is_none() || (options.rate_per_s.is_none() && options.threads == 1);
    assert_eq!(slice.in_flight.is_some(), is_exact, "{load}");
    if let Some(law) = slice.in_flight {
        assert!((law.ratio - 1.0).abs() < 0.02, "{load}: {law:?}");
    }
    if let Some(rate) = options.rate_per_s {
        let scheduled = rate * (slice.to_ns - slice.from_ns) as f64 / 1e9;
        let due = messages.sent + messages.unsent;
        assert!(
            (due as f64 - scheduled).abs() <= options.threads as f64,
            "{load}: {due} for {scheduled}"
        );
        assert_eq!(messages.unsent, 0);
    }
}

fn check_sums(load: &str, slices: &[Slice], record: &Record) {
    let sum = |of: fn(&Slice) -> u64| slices.iter().map(of).sum::<u64>();
    let messages = &record.messages;
    for (count, of_slices) in [
        (messages.sent, sum(|slice| slice.messages.sent)),
        (messages.expected, sum(|slice| slice.messages.expected)),
        (messages.received, sum(|slice| slice.messages.received)),
        (
            messages.received_payload_bytes,
            sum(|slice| slice.messages.received_payload_bytes),
        ),
        (
            messages.delayed_by_window,
            sum(|slice| slice.messages.delayed_by_window),
        ),
        (record.window_ns, sum(|slice| slice.to_ns - slice.from_ns)),
        (record.window_ns, 1_210 * MS),
        (record.options.duration_ns, 1_210 * MS),
        (record.options.warmup_ns, 150 * MS),
        (record.slices.unwrap(), slices.len() as u64),
        (record.window_start_monotonic_ns, slices[0].from_ns),
        (record.window_end_monotonic_ns, slices[2].to_ns),
        (
            record.generator.cpu_user_ns + record.generator.cpu_sys_ns,
            sum(|slice| slice.cpu_user_ns + slice.cpu_sys_ns),
        ),
        (
            record.generator.longest_stall_ns(),
            slices
                .iter()
                .map(|slice| slice.longest_stall_ns)
                .max()
                .unwrap(),
        ),
        (
            record.generator.threads.len() as u64,
            record.options.threads,
        ),
    ] {
        assert_eq!(count, of_slices, "{load}");
    }
    let replies = record.throughput.messages_per_s * record.window_ns as f64 / 1e9;
    assert!(
        (replies - sum(|slice| slice.replies) as f64).abs() < 0.5,
        "{load}"
    );
    let mut all = histogram::new();
    for slice in slices {
        let latency = slice
            .latency_intended
            .as_ref()
            .or(slice.latency_actual.as_ref());
        let text = &latency.unwrap().histogram_v2_deflate_base64;
        histogram::merge(&mut all, &histogram::unpack(text).unwrap());
    }
    let mut whole = histogram::summarise(&all).unwrap();
    let of_record = record.latency().unwrap();
    whole.mean_ns = of_record.mean_ns;
    assert_eq!(&whole, of_record, "{load}");
    if let Some(law) = record.littles_law {
        assert!((law.ratio - 1.0).abs() < 0.02, "{load}: {law:?}");
    }
    assert_eq!(record.series, [], "{load}");
    let broadcast = record.broadcast.as_ref();
    let complete = broadcast.map_or(messages.sent, |section| section.complete_messages);
    assert_eq!(complete, messages.sent, "{load}");
    let faults: Vec<String> = record.validity.faults().map(ToString::to_string).collect();
    // On a busy machine a generator may be late.
    let of_server = |fault: &&String| !fault.contains("the generator");
    assert_eq!(faults.iter().find(of_server), None, "{load}");
    assert_eq!(record.totals.lost_in_warmup, 0);
}

fn check_log(load: &str, slices: &[Slice], record: &Record, log: &str) {
    let tag = record
        .latency_intended
        .as_ref()
        .map_or("", |_| "Tag=intended,");
    let mut rows = log.lines().filter(|line| !line.starts_with(['#', '"']));
    for slice in slices {
        let start = (slice.from_ns - slices[0].from_ns) as f64 / 1e9;
        let length = (slice.to_ns - slice.from_ns) as f64 / 1e9;
        let row = rows.next().unwrap();
        let begin = format!("{tag}{start:.3},{length:.3},");
        assert!(row.starts_with(&begin), "{load}: {begin} {row}");
    }
    let others: Vec<&str> = rows.collect();
    assert_eq!(others.len(), usize::from(!tag.is_empty()), "{load}");
}

/// A thread that is woken late finds them over; what was due in them it owes all the same.
#[test]
fn slices_shorter_than_a_wake_up_leave_nothing_behind() {
    for load in LOADS {
        let mut generator = Generator::start(load, server_for(load));
        for _ in 0..100 {
            generator.command("slice 0 30us");
            assert!(matches!(generator.line(), Some(Line::Slice(_))), "{load}");
        }
        let last = generator.slice(50, 50);
        let record = generator.stop().record;
        let messages = record.messages;
        assert!(last.messages.received > 0);
        assert_eq!(messages.received, messages.expected, "{load}");
        let faults = messages.unsent + messages.duplicated + messages.corrupted;
        assert_eq!(faults, 0, "{load}: {messages:?}");
        assert_eq!(record.totals.lost_in_warmup, 0);
    }
}

/// While another generator is awake, and so for as long as its slice takes.
#[test]
fn nothing_is_sent_in_a_pause_and_the_schedule_does_not_run() {
    const RATE: u64 = 1_000;
    for load in ["echo -c 4 -t 2", "echo -c 4 -t 2 -r 1000"] {
        let (address, count, _) = watched();
        let mut generator = Generator::start(load, address);
        let (other_address, other_count, _) = watched();
        let mut other = Generator::start(load, other_address);
        let mut slices = Vec::new();
        for _ in 0..3 {
            slices.push(generator.slice(10, 100));
            let paused = count.load(SeqCst);
            let before = other_count.load(SeqCst);
            let awake = other.slice(0, 400);
            assert!(other_count.load(SeqCst) > before);
            assert_eq!(count.load(SeqCst), paused, "{load}");
            let last = slices.last().unwrap();
            assert!(last.paused_ns <= awake.from_ns && last.to_ns < awake.to_ns);
        }
        for slice in &slices {
            // With a schedule that ran on, half of the messages would be 200 ms late or more.
            if let Some(latency) = &slice.latency_intended {
                assert!(latency.p50_ns < 200 * MS, "{latency:?}");
                assert_eq!(slice.messages.sent, RATE / 10);
            }
        }
        let record = generator.stop().record;
        assert_eq!(record.totals.sent, count.load(SeqCst), "{load}");
        assert_eq!(record.totals.sent, record.totals.received, "{load}");
    }
}

#[test]
fn a_ping_is_answered_in_a_pause() {
    let (heard, pongs) = mpsc::channel();
    let heard = Mutex::new(heard);
    let stream: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    let kept = stream.clone();
    let address = server(move |_, mut socket| {
        *kept.lock().unwrap() = Some(socket.get_ref().try_clone().unwrap());
        while let Ok(message) = socket.read() {
            match message {
                Message::Pong(_) => heard.lock().unwrap().send(()).unwrap(),
                Message::Close(_) => drop(socket.flush()),
                message => socket.send(message).unwrap(),
            }
        }
    });
    let mut generator = Generator::start("echo -c 1", address);
    generator.slice(0, 50);
    for _ in 0..3 {
        let stream = stream.lock().unwrap();
        stream.as_ref().unwrap().write_all(&[0x89, 0]).unwrap();
        pongs.recv().unwrap();
    }
    generator.slice(0, 50);
    let ended = generator.stop();
    assert_eq!(ended.record.totals.pings_answered, 3);
    assert_eq!(ended.record.messages.corrupted, 0);
}

#[test]
fn stop_and_the_end_of_the_input_come_after_the_slices_before_them() {
    for end in ["stop", ""] {
        let mut generator = Generator::start("echo -c 2", echo_server());
        generator.command("slice 0 40ms\nslice 10ms 50ms");
        match end {
            "" => drop(generator.process.stdin.take()),
            end => generator.command(end),
        }
        let ended = generator.ended();
        assert_eq!(ended.lines.len(), 2, "{end:?}");
        assert_eq!(ended.record.slices, Some(2));
        assert_eq!(ended.record.window_ns, 90 * MS);
        assert!(!ended.record.interrupted);
    }
}

#[test]
fn a_line_that_is_no_command_ends_the_run_with_what_it_has() {
    let mut generator = Generator::start("echo -c 2", echo_server());
    generator.slice(0, 40);
    generator.command("slice 10 parsecs");
    let ended = generator.ended();
    assert_eq!(ended.code, Some(2));
    for part in ["line 2", "slice 10 parsecs", "slice SETTLE MEASURE", "stop"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(ended.record.slices, Some(1));
    assert_eq!(ended.record.messages.lost, 0);
}

#[test]
fn a_run_without_slices_measured_nothing() {
    let ended = Generator::start("echo -c 2", echo_server()).stop();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("nothing was received"),
        "{}",
        ended.stderr
    );
    assert_eq!((ended.record.slices, ended.record.window_ns), (Some(0), 0));
    assert_eq!(ended.record.window_start_monotonic_ns, 0);
}

#[test]
fn a_signal_ends_a_pause_and_cuts_a_slice() {
    for load in LOADS {
        let (address, count, _) = watched();
        let address = match load.starts_with("echo") {
            true => address,
            false => room(|_, _| false),
        };
        let mut generator = Generator::start(load, address);
        let whole = generator.slice(0, 40);
        generator.signal(Signal::SIGTERM);
        let ended = generator.ended();
        assert_eq!(ended.code, Some(130), "{load}: {}", ended.stderr);
        assert!(ended.lines.is_empty() && ended.record.interrupted);
        assert_eq!(ended.record.messages, whole.messages);
        if load.starts_with("broadcast") {
            continue;
        }
        let mut generator = Generator::start(load, address);
        generator.begin_slice(&count);
        generator.signal(Signal::SIGINT);
        let ended = generator.ended();
        assert_eq!(ended.code, Some(130), "{load}: {}", ended.stderr);
        let [Line::Slice(cut)] = &ended.lines[..] else {
            panic!("{:?}", ended.lines);
        };
        assert_eq!(cut.to_ns - cut.from_ns, ended.record.window_ns);
        assert_eq!(cut.messages, ended.record.messages, "{load}");
        assert!(
            cut.messages.received > 0 && cut.messages.lost == 0,
            "{load}"
        );
    }
}

#[test]
fn a_connection_lost_in_a_pause_makes_the_run_invalid() {
    let (address, _, streams) = watched();
    let mut generator = Generator::start("echo -c 3 -t 2", address);
    generator.slice(0, 40);
    streams.lock().unwrap()[0].shutdown(Shutdown::Both).unwrap();
    let slice = generator.slice(0, 40);
    assert_eq!(slice.connections_up, 2);
    assert_eq!(slice.messages.lost, 0);
    let ended = generator.stop();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("1 of 3 connections were closed"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.record.connections.closed_early, 1);
    assert_eq!(ended.record.slices, Some(2));
}

#[test]
fn a_server_that_is_gone_ends_the_run() {
    for load in ["echo -c 3 -t 2", "echo -c 3 -t 2 -r 1000"] {
        for in_slice in [false, true] {
            let (address, count, streams) = watched();
            let mut generator = Generator::start(load, address);
            generator.slice(0, 40);
            if in_slice {
                generator.begin_slice(&count);
            }
            for stream in &*streams.lock().unwrap() {
                stream.shutdown(Shutdown::Both).unwrap();
            }
            let ended = generator.ended();
            assert_eq!(ended.code, Some(1), "{load}: {}", ended.stderr);
            assert_eq!(ended.record.connections.closed_early, 3);
            assert_eq!(ended.lines.len(), usize::from(in_slice));
            assert!(!ended.record.interrupted);
        }
    }
}

#[test]
fn a_slice_that_leaves_replies_outstanding_is_the_last() {
    let address = server(|connection, socket| {
        echo(socket, |number, _, _| connection == 0 && number == 5);
    });
    let mut generator = Generator::start("echo -c 2 --drain-timeout 50ms", address);
    let slice = generator.slice(0, 100);
    assert_eq!(slice.messages.lost, 1);
    let ended = generator.ended();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("never came"), "{}", ended.stderr);
    assert_eq!(ended.record.messages, slice.messages);
}
