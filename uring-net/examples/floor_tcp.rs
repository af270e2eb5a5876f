//! The floor: what a server on this ring could reach if WebSocket cost nothing.
//!
//! A TCP echo with everything that the raw engine of `server-uring` does and nothing of what it
//! must do besides: one pinned thread, one ring and one `SO_REUSEPORT` listener per worker,
//! multishot accept and receive, the reply sent from the buffer in which the bytes arrived, one
//! send in flight per connection, the same waiting rule. What a run of the raw engine costs more
//! than a run of this is ours.
//!
//! The buffers fit the messages of the load (`--message-bytes`), so that one is received whole and
//! no byte is copied in user space, whatever the size.
//!
//! ```sh
//! cargo run --release --example floor_tcp -- --listen 127.0.0.1:0 --cpus 0
//! ```
//!
//! With `--listen unix:PATH` it is the floor without TCP. Workers cannot share such a socket as
//! they share a port: a thread accepts, and deals the connections out in turn, as for our servers.
//!
//! With `--burn-ns N` it is the referee's test weight: it spins for N ns on everything that it
//! receives (with one request in flight on a connection: on every message), so that it is slower by
//! a known amount and the referee can be seen to find it (`bench/suites/referee.toml`).
//!
//! Also the shortest whole program on a [`Ring`]: begin with [`serve`].

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{convert::Infallible, fs, hint, io, process, thread};

use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};
use uring_net::{
    Completion, Event, MAX_DIRECT_SLOTS, OpKind, Pace, ReceivedBuf, Ring, SendBuf, SocketId, Token,
    Waker,
};

#[derive(Parser)]
struct Options {
    /// Address to listen on, or unix:PATH; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// CPUs to run on, such as 0,1; worker i stays on the i-th of them
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Worker threads [default: one per CPU named]
    #[arg(long)]
    workers: Option<usize>,
    /// Size of the load's messages: receive buffers are chosen to hold one
    #[arg(long, default_value_t = 64)]
    message_bytes: u32,
    /// Delay injected for everything that is received, in ns: tests the program that measures this
    #[arg(long, default_value_t = 0)]
    burn_ns: u64,
    /// Busy-poll for completions this many microseconds before sleeping; 0 disables
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
    /// Keep connections in the rings' own tables, without descriptors
    #[arg(long)]
    direct: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let open_files = raise_file_limit()?;
    let mut address = options.listen;
    let buffers = Buffers::holding(options.message_bytes);
    let unix_path = address.strip_prefix("unix:").map(ToOwned::to_owned);
    // The kernel would choose a name that nobody knows.
    anyhow::ensure!(
        unix_path.as_deref() != Some(""),
        "--listen unix: names no path"
    );
    let burn = Duration::from_nanos(options.burn_ns);
    let spin = Duration::from_micros(options.spin_us);
    let slots = if options.direct {
        open_files.min(MAX_DIRECT_SLOTS)
    } else {
        0
    };
    let (wakers, workers) = (
        mpsc::channel(),
        options.workers.unwrap_or(options.cpus.len()),
    );
    let mut dealt = Vec::new();
    for worker in 0..workers.max(1) {
        let source = if unix_path.is_some() {
            let (deal, dealt_to) = mpsc::channel();
            dealt.push(deal);
            Source::Dealt(dealt_to, wakers.0.clone(), worker)
        } else {
            let cannot = || format!("cannot listen on {address}");
            let listener = address.parse().map_err(anyhow::Error::from);
            let listener = listener.and_then(|address| Ok(listen(address)?));
            let listener = listener.with_context(cannot)?;
            // Port 0 is resolved once, for all.
            address = listener.local_addr()?.to_string();
            Source::Listener(listener)
        };
        let cpu = options
            .cpus
            .get(worker % options.cpus.len().max(1))
            .copied();
        thread::spawn(move || {
            let Err(error) = pin(cpu).and_then(|()| serve(source, buffers, slots, spin, burn));
            eprintln!("error: worker {worker}: {error:#}");
            process::exit(1);
        });
    }
    if let Some(path) = &unix_path {
        // Nothing is replaced: this is for measuring.
        let listener = UnixListener::bind(path);
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let mut wakers: Vec<_> = wakers.1.iter().take(dealt.len()).collect();
        wakers.sort_by_key(|(worker, _)| *worker);
        thread::spawn(move || deal(&listener, &dealt, &wakers));
    }
    println!(
        r#"{{"event":"ready","server":"floor-tcp","version":"{}","runtime":"io_uring, no WebSocket","address":{address:?},"pid":{}}}"#,
        env!("CARGO_PKG_VERSION"),
        process::id(),
    );
    signals.forever().next();
    if let Some(path) = unix_path {
        fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
    }
    Ok(())
}

/// The token of what is not a connection's operation. Those are called by their socket's index.
const LISTENER: Token = Token(u64::MAX);

/// Where a worker's connections come from.
enum Source {
    /// It accepts them.
    Listener(TcpListener),
    /// The thread that accepts from a Unix socket, which is told what wakes this worker.
    Dealt(Receiver<UnixStream>, Sender<(usize, Waker)>, usize),
}

/// Accepts, and gives the connections to the workers in turn.
fn deal(listener: &UnixListener, workers: &[Sender<UnixStream>], wakers: &[(usize, Waker)]) {
    let in_turn = workers.iter().zip(wakers).cycle();
    for (accepted, (worker, (_, waker))) in listener.incoming().zip(in_turn) {
        match accepted {
            // A worker that is gone has ended the process.
            Ok(stream) => drop(worker.send(stream)),
            Err(error) => {
                eprintln!("error: cannot accept: {error}");
                process::exit(1);
            }
        }
        waker.wake();
    }
}

/// A worker: takes completions and starts what follows from them, until the ring breaks.
fn serve(
    source: Source,
    buffers: Buffers,
    slots: u32,
    spin: Duration,
    weight: Duration,
) -> anyhow::Result<Infallible> {
    // The queues of the raw engine (`server-uring/src/raw/ring.rs`).
    let builder = Ring::builder()
        .entries(4096)
        .cq_entries(16_384)
        .buffers(buffers.count, buffers.bytes);
    let mut ring = match &source {
        Source::Listener(_) => builder.direct(slots),
        Source::Dealt(..) => builder.direct_adopted(slots),
    }
    .build()?;
    let dealt = match source {
        Source::Listener(listener) => {
            let listener = ring.adopt(listener)?;
            ring.accept(listener, LISTENER);
            None
        }
        Source::Dealt(dealt, wakers, worker) => {
            wakers.send((worker, ring.waker(LISTENER)?))?;
            Some(dealt)
        }
    };
    let mut connections: Vec<Connection> = Vec::new();
    let pace = Pace::new(spin);
    let mut completions = 0;
    loop {
        pace.wait(&mut ring, completions, false)?;
        completions = 0;
        while let Some(Completion { token, event }) = ring.next_completion() {
            completions += 1;
            match event {
                Event::Accepted(socket) => begin(&mut ring, &mut connections, socket),
                Event::Woken => {
                    for stream in dealt.iter().flat_map(Receiver::try_iter) {
                        let socket = ring.adopt(stream)?;
                        begin(&mut ring, &mut connections, socket);
                    }
                }
                Event::Received(bytes) => {
                    burn(weight);
                    connections[place(token)].reply(&mut ring, bytes);
                }
                Event::Sent { buf, bytes } => connections[place(token)].sent(&mut ring, buf, bytes),
                Event::Failed {
                    op: OpKind::Accept,
                    error,
                    ..
                } => {
                    return Err(error).context("cannot accept");
                }
                Event::Eof
                | Event::Failed {
                    op: OpKind::Receive | OpKind::Send,
                    ..
                } => connections[place(token)].close(&mut ring),
                _ => {}
            }
        }
    }
}

fn begin(ring: &mut Ring, connections: &mut Vec<Connection>, socket: SocketId) {
    let index = socket.index();
    if index >= connections.len() {
        connections.resize_with(index + 1, || Connection::new(socket));
    }
    connections[index] = Connection::new(socket);
    ring.receive(socket, Token(index as u64));
}

/// Keeps the CPU busy for this long.
fn burn(weight: Duration) {
    if weight.is_zero() {
        return;
    }
    let begun = Instant::now();
    while begun.elapsed() < weight {
        hint::spin_loop();
    }
}

fn place(token: Token) -> usize {
    token.0 as usize
}

/// Receive buffers of a ring.
#[derive(Clone, Copy)]
struct Buffers {
    count: u16,
    bytes: u32,
}

impl Buffers {
    /// Two to four MiB in all, which a cache holds, in buffers that hold a message and its header;
    /// longer ones come in pieces. The smallest are the raw engine's: a page, 512 of them.
    fn holding(message_bytes: u32) -> Self {
        const ALL_BYTES: u32 = 4 << 20;
        const PAGE_BYTES: u32 = 4096;
        const HEADER_BYTES: u32 = 14;
        const LARGEST_WHOLE: u32 = 128 << 10;
        const PIECE_BYTES: u32 = 256 << 10;
        let bytes = match message_bytes {
            ..=LARGEST_WHOLE => (message_bytes + HEADER_BYTES).next_multiple_of(PAGE_BYTES),
            _ => PIECE_BYTES,
        };
        let count = 1 << (ALL_BYTES / bytes).clamp(16, 512).ilog2();
        Self { count, bytes }
    }
}

/// A connection. What waits behind a send in flight keeps its receive buffers, so a peer that does
/// not read can hold those of all others: a server that meets strangers must stop receiving from it
/// at some point.
struct Connection {
    socket: SocketId,
    /// A send is in flight. Another one beside it could overtake it.
    sending: bool,
    /// To be sent after that, from where it is.
    pending: VecDeque<ReceivedBuf>,
}

impl Connection {
    fn new(socket: SocketId) -> Self {
        Self {
            socket,
            sending: false,
            pending: VecDeque::new(),
        }
    }

    fn token(&self) -> Token {
        Token(self.socket.index() as u64)
    }

    /// Sends the bytes back from where they are. The ring gets their buffer back when they are
    /// sent.
    fn reply(&mut self, ring: &mut Ring, bytes: ReceivedBuf) {
        if self.sending {
            self.pending.push_back(bytes);
        } else {
            self.sending = true;
            ring.send_now(self.socket, bytes, self.token());
        }
    }

    /// Sends what the socket did not take, as soon as it does, and then what has come meanwhile.
    fn sent(&mut self, ring: &mut Ring, buf: SendBuf, bytes: usize) {
        if bytes < buf.len()
            && let SendBuf::Received(mut rest) = buf
        {
            rest.narrow(bytes..usize::MAX);
            ring.send(self.socket, rest, self.token());
            return;
        }
        self.sending = false;
        if let Some(next) = self.pending.pop_front() {
            self.reply(ring, next);
        }
    }

    fn close(&mut self, ring: &mut Ring) {
        self.pending.clear();
        ring.close(self.socket, self.token());
    }
}

/// A listener of its own for each worker; the kernel spreads connections over those of one port.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(65_535)?;
    Ok(socket.into())
}

fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    if let Some(cpu) = cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    Ok(())
}

/// As many connections as the hard limit allows; how many files that is.
fn raise_file_limit() -> io::Result<u32> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    Ok(maximum
        .and_then(|files| u32::try_from(files).ok())
        .unwrap_or(u32::MAX))
}
