//! Every peer as a process: it echoes, it broadcasts, and it ends when it is told to.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::{Message, WebSocket};

/// A test that hangs must fail.
const WITHIN: Duration = Duration::from_secs(10);

/// The program, if it is there: the ones of this package always are, uWebSockets after
/// peers/uwebsockets/build.sh.
fn programs() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_BIN_EXE_peer-fastwebsockets"));
    let uwebsockets = own
        .ancestors()
        .nth(2)
        .unwrap()
        .join("release/peer-uwebsockets");
    let mut programs = vec![
        own.to_path_buf(),
        env!("CARGO_BIN_EXE_peer-tokio-tungstenite").into(),
    ];
    if uwebsockets.is_file() {
        programs.push(uwebsockets);
    } else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {}, which peers/uwebsockets/build.sh makes",
            uwebsockets.display()
        );
    }
    programs
}

struct Peer {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    address: String,
}

impl Peer {
    fn start(program: &Path, workers: &str) -> Self {
        Self::start_with(program, workers, 0)
    }

    fn start_with(program: &Path, workers: &str, handler_work_us: u32) -> Self {
        let mut process = Command::new(program)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--cpus",
                "0",
                "--workers",
                workers,
                "--handler-work-us",
                &handler_work_us.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["event"], "ready");
        assert_eq!(ready["pid"], process.id());
        assert_eq!(ready["options"]["handler_work_us"], handler_work_us);
        assert_eq!(
            ready["server"].as_str(),
            program.file_name().unwrap().to_str()
        );
        Self {
            process,
            _stdout: stdout,
            address: ready["address"].as_str().unwrap().to_owned(),
        }
    }

    fn connect(&self, path: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let url = format!("ws://{}{path}", self.address);
        tungstenite::client(url, stream).unwrap().0
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_peer_sends_back_what_it_gets_in_its_order() {
    for program in programs() {
        let peer = Peer::start(&program, "1");
        let mut client = peer.connect("/ws");
        let long = "x".repeat(200_000);
        let messages: Vec<Message> = (0..100)
            .map(|n| Message::binary(format!("message {n}").into_bytes()))
            .chain([
                Message::text("Grüße"),
                Message::text(long),
                Message::binary(Vec::new()),
            ])
            .collect();
        for message in &messages {
            client.write(message.clone()).unwrap();
        }
        client.flush().unwrap();
        for message in &messages {
            assert_eq!(client.read().unwrap(), *message, "{}", program.display());
        }
        client.send(Message::Ping(b"there?"[..].into())).unwrap();
        assert_eq!(
            client.read().unwrap(),
            Message::Pong(b"there?"[..].into()),
            "{}",
            program.display()
        );
        client.close(None).unwrap();
        assert!(client.read().unwrap().is_close());
        assert_eq!(peer.stop(), Some(0), "{}", program.display());
    }
}

#[test]
fn a_message_arrives_in_pieces_and_leaves_whole() {
    for program in programs() {
        let peer = Peer::start(&program, "1");
        let mut client = peer.connect("/ws");
        // "Hello" in two frames, masked with zeros, byte by byte.
        let frames = b"\x01\x83\0\0\0\0Hel\x80\x82\0\0\0\0lo";
        for byte in frames {
            client.get_mut().write_all(&[*byte]).unwrap();
        }
        assert_eq!(client.read().unwrap(), Message::text("Hello"));
    }
}

#[test]
fn a_publish_reaches_every_member_of_its_room_on_every_worker() {
    for program in programs() {
        let peer = Peer::start(&program, "2");
        let mut elsewhere = peer.connect("/broadcast/other");
        let mut members: Vec<_> = (0..20).map(|_| peer.connect("/broadcast/ring")).collect();
        // Who has heard its own message is in the room.
        for member in 0..members.len() {
            let said = Message::binary(format!("from {member}").into_bytes());
            members[member].send(said.clone()).unwrap();
            for hearing in &mut members[..=member] {
                let heard = loop {
                    let heard = hearing.read().unwrap();
                    if heard == said {
                        break heard;
                    }
                };
                assert_eq!(heard, said);
            }
        }
        let all = Message::text("to all");
        members[7].send(all.clone()).unwrap();
        for member in &mut members {
            while member.read().unwrap() != all {}
        }
        let apart = Message::text("apart");
        elsewhere.send(apart.clone()).unwrap();
        assert_eq!(elsewhere.read().unwrap(), apart, "{}", program.display());
        assert_eq!(peer.stop(), Some(0), "{}", program.display());
    }
}

#[test]
fn other_paths_are_refused() {
    for program in programs() {
        let peer = Peer::start(&program, "1");
        let stream = TcpStream::connect(&peer.address).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let url = format!("ws://{}/elsewhere", peer.address);
        assert!(tungstenite::client(url, stream).is_err());
    }
}

#[test]
fn every_message_costs_the_handler_work() {
    for program in programs() {
        let peer = Peer::start_with(&program, "1", 20_000);
        for path in ["/ws", "/broadcast/work"] {
            let mut client = peer.connect(path);
            let begin = Instant::now();
            for _ in 0..10 {
                client.write(Message::text("x")).unwrap();
            }
            client.flush().unwrap();
            for _ in 0..10 {
                assert_eq!(client.read().unwrap(), Message::text("x"));
            }
            // Half of it: the calibration may have met a CPU that was slow for once.
            let (took, least) = (begin.elapsed(), Duration::from_millis(100));
            assert!(took >= least, "{} {path}: {took:?}", program.display());
        }
        assert_eq!(peer.stop(), Some(0));
    }
}
