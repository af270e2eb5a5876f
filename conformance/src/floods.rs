//! Floods: whatever a client sends without end, and whether it reads the replies never, slowly or
//! promptly, the server's memory stays bounded, and the server goes on serving.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::Target;
use super::client::{Raw, eventually};
use super::harness::Server;
use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};

/// What a client repeats.
struct Flood {
    name: &'static str,
    /// Sent once.
    first: Vec<u8>,
    /// Sent over and over.
    frames: Vec<u8>,
    /// A client that reads promptly sends so much.
    bytes: u64,
}

/// How much more memory the server may take than before the flood: six clients at once, each of
/// which has replies in flight, replies that wait, and messages in the queue of each member.
const MOST: u64 = 24 << 20;
/// How much more it may still hold when they have left.
const LEFT: u64 = 8 << 20;
/// What a client writes at once, and a slow one reads at once.
const WRITE_BYTES: usize = 64 * 1024;
const SLOW_READ_BYTES: usize = 16 * 1024;
/// What a client that reads promptly sends. A debug build takes equally long for both.
const LONG_FRAMES_BYTES: u64 = 16 << 20;
const SHORT_FRAMES_BYTES: u64 = 4 << 20;

/// Pings of the largest payload, each of which costs a pong.
pub fn pings_cost_bounded_memory(target: &Target) {
    flood(
        target,
        "pings",
        &[],
        &wire::masked(FIN | PING, &[b'p'; 125]),
        LONG_FRAMES_BYTES,
    );
}

/// Empty pings: the most pongs for each byte.
pub fn empty_pings_cost_bounded_memory(target: &Target) {
    flood(
        target,
        "empty pings",
        &[],
        &wire::masked(FIN | PING, b""),
        SHORT_FRAMES_BYTES,
    );
}

/// Pings between the fragments of a message that never ends.
pub fn pings_between_fragments_cost_bounded_memory(target: &Target) {
    let first = wire::masked(TEXT, b"the first of two");
    let mut frames = wire::masked(FIN | PING, &[b'p'; 125]).repeat(1000);
    frames.extend(wire::masked(CONTINUATION, b"x"));
    flood(
        target,
        "pings between fragments",
        &first,
        &frames,
        LONG_FRAMES_BYTES,
    );
}

/// Messages of one byte: the most of them for each byte.
pub fn short_messages_cost_bounded_memory(target: &Target) {
    flood(
        target,
        "short messages",
        &[],
        &wire::masked(FIN | BINARY, b"x"),
        SHORT_FRAMES_BYTES,
    );
}

/// Few messages among many pongs, which cost nothing.
pub fn pongs_cost_bounded_memory(target: &Target) {
    let mut frames = wire::masked(FIN | PONG, &[b'p'; 125]).repeat(500);
    frames.extend(wire::masked(FIN | BINARY, b"x"));
    flood(target, "pongs", &[], &frames, LONG_FRAMES_BYTES);
}

fn flood(target: &Target, name: &'static str, first: &[u8], frames: &[u8], bytes: u64) {
    let flood = Arc::new(Flood {
        name,
        first: first.to_vec(),
        frames: frames.repeat((WRITE_BYTES / frames.len()).max(1)),
        bytes,
    });
    for policy in ["close", "drop"] {
        let server = target.start(&["--workers", "2", "--slow-consumer", policy]);
        let mut bystander = server.upgraded("/ws");
        bystander.expect_alive();
        let ways = ["/ws", "/broadcast/flood"]
            .into_iter()
            .flat_map(|path| Reading::ALL.map(|reading| (path, reading)));
        let opened: Vec<_> = ways
            .map(|(path, reading)| (path, reading, open(&server, path)))
            .collect();
        let before = server.resident_bytes();
        let deadline = Instant::now() + server.patience;
        let mut clients: Vec<Client> = opened
            .into_iter()
            .map(|(path, reading, raw)| Client::start(&flood, path, reading, &raw))
            .collect();
        let what = "those who read promptly have sent all";
        eventually(2 * server.patience, what, || {
            let resident = server.resident_bytes();
            assert!(
                resident <= before + MOST && Instant::now() < deadline,
                "{} ({policy}): {resident} bytes are resident, {before} were before; sent {:?}",
                flood.name,
                clients.iter().map(Client::progress).collect::<Vec<_>>()
            );
            clients.iter_mut().for_each(Client::read_some);
            clients.iter().all(Client::is_done).then_some(())
        });
        bystander.expect_alive();
        clients.into_iter().for_each(Client::stop);
        eventually(server.patience, "all others have left", || {
            (server.open_sockets() == 1).then_some(())
        });
        let what = format!(
            "the memory of {} ({policy}) goes back to {before} bytes",
            flood.name
        );
        eventually(server.patience, &what, || {
            (server.resident_bytes() <= before + LEFT).then_some(())
        });
        bystander.expect_alive();
    }
}

/// How a client reads what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Never,
    /// A little, now and then.
    Slowly,
    Promptly,
}

impl Reading {
    const ALL: [Self; 3] = [Self::Never, Self::Slowly, Self::Promptly];
}

/// A client that has used once what all connections share.
#[track_caller]
fn open(server: &Server, path: &str) -> Raw {
    let mut raw = server.upgraded(path);
    raw.send(&wire::masked(FIN | PING, b"now"));
    raw.expect(PONG, b"now");
    raw
}

/// A client that sends a flood, in threads of its own.
struct Client {
    path: &'static str,
    reading: Reading,
    sent: Arc<AtomicU64>,
    socket: TcpStream,
    sending: JoinHandle<()>,
    /// Lets a slow reader read a little.
    permits: SyncSender<()>,
    receiving: JoinHandle<()>,
}

impl Client {
    fn start(flood: &Arc<Flood>, path: &'static str, reading: Reading, raw: &Raw) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let (permits, permitted) = mpsc::sync_channel(1);
        let [to_send, to_receive] = [raw.writer(), raw.writer()];
        Self {
            path,
            reading,
            sent: Arc::clone(&sent),
            socket: raw.writer(),
            sending: thread::spawn({
                let flood = Arc::clone(flood);
                move || send(&flood, to_send, &sent)
            }),
            permits,
            receiving: thread::spawn(move || match reading {
                Reading::Never => {}
                Reading::Slowly => receive(to_receive, SLOW_READ_BYTES, permitted.iter()),
                Reading::Promptly => receive(to_receive, WRITE_BYTES, std::iter::repeat(())),
            }),
        }
    }

    /// Lets a slow reader go on.
    fn read_some(&mut self) {
        // When it still has a permit, or has gone, there is nothing to be done.
        let _ = self.permits.try_send(());
    }

    /// How far it is, for the reader of a failure.
    fn progress(&self) -> String {
        let sent = self.sent.load(Ordering::Relaxed);
        format!("{} {:?}: {sent} bytes", self.path, self.reading)
    }

    /// Whether it need not be waited for: it has sent all, or the server has closed, or it does not
    /// read and need never be done.
    fn is_done(&self) -> bool {
        self.reading != Reading::Promptly || self.sending.is_finished()
    }

    #[track_caller]
    fn stop(self) {
        // An error means that the server has closed.
        let _ = self.socket.shutdown(Shutdown::Both);
        drop(self.permits);
        assert!(self.sending.join().is_ok() && self.receiving.join().is_ok());
    }
}

/// Sends until all is sent or the server closes.
fn send(flood: &Flood, mut socket: TcpStream, sent: &AtomicU64) {
    if socket.write_all(&flood.first).is_err() {
        return;
    }
    while sent.load(Ordering::Relaxed) < flood.bytes {
        if socket.write_all(&flood.frames).is_err() {
            return;
        }
        sent.fetch_add(flood.frames.len() as u64, Ordering::Relaxed);
    }
}

/// Reads once for each permit, to the end of the connection; then nothing can be sent any more.
fn receive(mut socket: TcpStream, bytes: usize, permits: impl Iterator<Item = ()>) {
    let mut buffer = vec![0; bytes];
    for () in permits {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    // An error means that the server has closed already.
    let _ = socket.shutdown(Shutdown::Both);
}
