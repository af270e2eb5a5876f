//! The command line both servers share, and what is in force once it has been checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
pub use units::HELP as UNITS_HELP;
use units::{CpuList, parse_duration, parse_size};

use crate::address::{Address, UNIX};
use crate::child::Child;
use crate::listen::{self, ListenError, ListenOn, Listeners};
use crate::system;
use crate::work::MAX_HANDLER_WORK_US;

/// Receive buffer of a worker in bytes. One per thread, shared by all its connections.
pub const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Frames that may wait in the mailbox of one worker, in bytes. A publisher that meets a fuller one
/// waits.
pub const MAILBOX_BYTES: usize = 256 * 1024;
/// Bytes of messages that may wait for one slow receiver, however few they are: its queue is full
/// from there on, until some are sent. One batch may begin below this and end above.
pub const SEND_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How long a connection that we are done with may take to read our last bytes and close.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much a peer may still send us (and we throw away) while it has not seen our Close frame or
/// HTTP error.
pub const LINGER_BYTES: usize = 64 * 1024 * 1024;
/// How long accepting pauses when the process has run out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Options of every Ringside server: flatten this into the server's own clap struct.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// Address to listen on, HOST:PORT; repeatable. PORT or :PORT alone is 127.0.0.1:PORT; a name
    /// is all its addresses; `[::]:PORT` is every address of this machine, IPv4 and IPv6 (IPv6 only
    /// where another --listen is an IPv4 address), 0.0.0.0:PORT every IPv4 one;
    /// `[fe80::1%eth0]:PORT` names the interface. Port 0 takes one that is free on all. unix:PATH
    /// is a Unix stream socket: the file is made with the permissions that the umask leaves,
    /// replaces that of a dead server, and is removed at the end. The `ready` line says all
    /// addresses
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: Vec<ListenOn>,
    /// Processes that share the address, each with --workers threads and its own limit of open
    /// files. Connections are spread over them by hash: for C connections under a limit of F take C
    /// / (F - 5 sqrt(F)), rounded up, so that none of them overflows. Rooms do not span processes:
    /// with more than one, /broadcast is refused. /metrics is that of the process that answers,
    /// which its labels name
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub processes: usize,
    /// Which of the --processes this one is: the parent tells its children
    #[arg(long, hide = true)]
    child: Option<Child>,
    /// Worker threads of a process [default: one per CPU available, or per CPU in --cpus, shared
    /// out among --processes]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// CPUs to run on, such as 0,2-3; workers are dealt to them in turn, and stay there
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Messages that may wait for one slow receiver (and no more than about 64 MiB of them)
    #[arg(long, value_name = "MESSAGES", default_value_t = 1024)]
    pub send_queue: usize,
    /// What happens to a receiver whose queue is full
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = SlowConsumer::Close)]
    pub slow_consumer: SlowConsumer,
    /// Largest message accepted; larger ones end with close code 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub max_message: u64,
    /// Most fragments of one message; more end with close code 1009
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub max_fragments: u32,
    /// Time a client has for its request; then 408 and close
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub handshake_timeout: Duration,
    /// Close a connection after this long without data; a ping is sent halfway (up to three
    /// quarters when very many connections go idle together). 0 disables
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub idle_timeout: Duration,
    /// WebSocket connections served at once, further ones get 503; 0 is unlimited. Each of
    /// --processes has an equal share
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_connections: usize,
    /// Time connections get to close after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// CPU time to burn for each message of /ws and each message published in a room, as a handler
    /// would that has work to do, in microseconds: 0 to 1000000. Calibrated at the start. A
    /// connection that asks for /ws?work=N gets N where that is less
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_HANDLER_WORK_US)))]
    pub handler_work_us: u32,
}

/// What happens to a receiver whose queue is full (`--slow-consumer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowConsumer {
    /// The connection is closed with code 1008
    Close,
    /// The message is dropped for this receiver and counted
    Drop,
}

/// Options after the check: what the server really does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen, as asked for: ports may still be 0.
    pub listen: Vec<SocketAddr>,
    /// Unix sockets to listen on.
    pub unix: Vec<PathBuf>,
    /// Processes that share the address.
    pub processes: usize,
    /// Which of several processes this is; `None` in their parent, and where there is only one.
    pub child: Option<Child>,
    /// Number of workers in a process, at least 1.
    pub workers: usize,
    /// CPUs to confine the process to, in worker order; `None` leaves affinity alone.
    pub cpus: Option<Vec<usize>>,
    /// Bound and policy of the outbound queue of one connection.
    pub send_queue: SendQueue,
    /// Message limits of the protocol.
    pub limits: ws_proto::Limits,
    /// Time for the request head.
    pub handshake_timeout: Duration,
    /// Time of silence before a connection is closed; `None` never.
    pub idle_timeout: Option<Duration>,
    /// WebSocket connections served at once; `None` is unlimited.
    pub max_connections: Option<usize>,
    /// Time to drain.
    pub drain_timeout: Duration,
    /// CPU time to burn for each message.
    pub handler_work_us: u32,
}

/// Bound and policy of the outbound queue of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendQueue {
    /// Messages that may wait.
    pub max_messages: usize,
    /// Bytes of messages from which on it is full.
    pub max_bytes: usize,
    /// What happens beyond.
    pub slow_consumer: SlowConsumer,
}

/// The limits and buffer sizes in force, as the `ready` line records them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Messages that may wait for one slow receiver.
    pub send_queue_messages: usize,
    /// Bytes of messages from which on that queue is full; 0 where a server has no such bound.
    #[serde(default)]
    pub send_queue_bytes: usize,
    /// What happens beyond.
    pub slow_consumer: SlowConsumer,
    /// Largest message accepted.
    pub max_message_bytes: u32,
    /// Most fragments of one message.
    pub max_fragments: u32,
    /// Time for the request head.
    pub handshake_timeout_ms: u64,
    /// Silence before a connection is closed; 0 is never.
    pub idle_timeout_ms: u64,
    /// WebSocket connections served at once; 0 is unlimited.
    pub max_connections: usize,
    /// Time to drain.
    pub drain_timeout_ms: u64,
    /// CPU time that is burnt for each message, beside what it takes to serve it.
    #[serde(default)]
    pub handler_work_us: u32,
    /// Receive buffer of one worker thread.
    pub read_buffer_bytes: usize,
    /// Frames that may wait in the mailbox of one worker.
    pub mailbox_bytes: usize,
    /// Length asked for the queue of connections not yet accepted.
    pub listen_backlog: u32,
    /// File descriptors the process may have open.
    pub open_files: u64,
    /// How long completions are polled for before the worker sleeps, where the server has the
    /// option; 0 is not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin_us: Option<u64>,
    /// Connections have no descriptors but places in their ring's own table, where the server has
    /// the option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_descriptors: Option<bool>,
    /// Completion entries of one worker's ring, where the server has the option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cq_entries: Option<u32>,
}

impl ServerOptions {
    /// Checks the options against each other and against this machine.
    ///
    /// # Errors
    /// The first impossible value or combination, with what to change.
    pub fn resolve(&self) -> anyhow::Result<Settings> {
        let available = system::available_cpus().context("cannot read the CPU affinity")?;
        self.resolve_on(&available)
    }

    /// [`resolve`](Self::resolve) on a machine with the given CPUs.
    fn resolve_on(&self, available: &[usize]) -> anyhow::Result<Settings> {
        let cpus = self.cpus.as_ref().map_or(available, CpuList::as_slice);
        if let Some(missing) = cpus.iter().find(|cpu| !available.contains(cpu)) {
            bail!(
                "--cpus names CPU {missing}, which this process may not use; available are \
                 {available:?}"
            );
        }
        ensure!(
            (1..=1024).contains(&self.processes),
            "--processes must be between 1 and 1024"
        );
        let workers = self.workers.unwrap_or(cpus.len().div_ceil(self.processes));
        ensure!(
            (1..=1024).contains(&workers),
            "--workers must be between 1 and 1024"
        );
        ensure!(
            self.send_queue > 0,
            "--send-queue must be at least 1: a queue of 0 could never send what a socket does not \
             take at once"
        );
        ensure!(
            (1..=1 << 30).contains(&self.max_message),
            "--max-message must be between 1 and 1GiB"
        );
        ensure!(self.max_fragments > 0, "--max-fragments must be at least 1");
        ensure!(
            self.handshake_timeout >= SHORTEST_TIMEOUT,
            "--handshake-timeout must be at least 10ms"
        );
        ensure!(
            self.idle_timeout.is_zero() || self.idle_timeout >= SHORTEST_TIMEOUT * 2,
            "--idle-timeout must be at least 20ms, or 0 for never"
        );
        ensure!(
            !(1..self.processes).contains(&self.max_connections),
            "--max-connections must be at least --processes: each process has an equal share"
        );
        let (listen, unix) = match &self.child {
            Some(child) => (child.addresses.clone(), Vec::new()),
            None => self.addresses()?,
        };
        ensure!(
            unix.is_empty() || self.processes == 1,
            "--processes share a port (SO_REUSEPORT), and a Unix socket has none: use --workers \
             instead, or an address in place of --listen {UNIX}{}",
            unix.first()
                .map_or("".into(), |path| path.to_string_lossy())
        );
        let child = self.child.as_ref();
        ensure!(
            child.is_none_or(|child| child.index < self.processes),
            "--child is beyond --processes"
        );
        // The first processes get what does not divide.
        let max_connections = child.map_or(self.max_connections, |child| {
            (self.max_connections + self.processes - 1 - child.index) / self.processes
        });
        Ok(Settings {
            listen,
            unix,
            processes: self.processes,
            child: self.child.clone(),
            workers,
            cpus: self.cpus.clone().map(CpuList::into_vec),
            send_queue: SendQueue {
                max_messages: self.send_queue,
                max_bytes: SEND_QUEUE_BYTES,
                slow_consumer: self.slow_consumer,
            },
            limits: ws_proto::Limits {
                // At most 2^30.
                max_message_bytes: self.max_message as u32,
                max_fragments: self.max_fragments,
            },
            handshake_timeout: self.handshake_timeout,
            idle_timeout: Some(self.idle_timeout).filter(|t| !t.is_zero()),
            max_connections: Some(max_connections).filter(|&n| n != 0),
            drain_timeout: self.drain_timeout,
            handler_work_us: self.handler_work_us,
        })
    }

    /// What `--listen` means on this machine: addresses of TCP, and paths.
    fn addresses(&self) -> anyhow::Result<(Vec<SocketAddr>, Vec<PathBuf>)> {
        let each = self.listen.iter().map(ListenOn::addresses);
        let all: Vec<_> = each.collect::<Result<_, _>>()?;
        let (mut ips, mut paths) = (Vec::new(), Vec::new());
        for address in listen::without_repetition(all.into_iter().flatten()) {
            match address {
                Address::Ip(ip) => ips.push(ip),
                Address::Unix(path) => paths.push(path),
            }
        }
        Ok((ips, paths))
    }
}

/// Timeouts below this cannot be kept by a sweep.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);

impl Settings {
    /// The CPU that worker `index` of this process is to stay on, when CPUs were named.
    fn cpu_of_worker(&self, index: usize) -> Option<usize> {
        let process = self.child.as_ref().map_or(0, |child| child.index);
        let place = process * self.workers + index;
        self.cpus.as_ref().map(|cpus| cpus[place % cpus.len()])
    }

    /// Keeps the calling thread on the CPU of worker `index`, where CPUs were named.
    pub fn pin_worker(&self, index: usize) {
        if let Some(cpu) = self.cpu_of_worker(index)
            && let Err(error) = system::confine_thread(&[cpu])
        {
            tracing::warn!("worker {index} is not pinned: {error:#}");
        }
    }

    /// Opens the sockets of `workers`, which share their ports where there are several, or several
    /// processes.
    ///
    /// # Errors
    /// Those of [`listen::listen`].
    pub fn listeners(&self, workers: usize) -> Result<Listeners, ListenError> {
        match self.child {
            Some(_) => listen::listen_shared(&self.listen, workers),
            None => listen::listen(&self.listen, workers),
        }
    }

    /// What the `ready` line records; `open_files` is the file limit after raising it.
    pub fn in_force(&self, open_files: u64) -> InForce {
        InForce {
            send_queue_messages: self.send_queue.max_messages,
            send_queue_bytes: self.send_queue.max_bytes,
            slow_consumer: self.send_queue.slow_consumer,
            max_message_bytes: self.limits.max_message_bytes,
            max_fragments: self.limits.max_fragments,
            handshake_timeout_ms: self.handshake_timeout.as_millis() as u64,
            idle_timeout_ms: self.idle_timeout.unwrap_or_default().as_millis() as u64,
            max_connections: self.max_connections.unwrap_or(0),
            drain_timeout_ms: self.drain_timeout.as_millis() as u64,
            handler_work_us: self.handler_work_us,
            read_buffer_bytes: READ_BUFFER_BYTES,
            mailbox_bytes: MAILBOX_BYTES,
            listen_backlog: listen::LISTEN_BACKLOG,
            open_files,
            spin_us: None,
            direct_descriptors: None,
            cq_entries: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerOptions,
    }

    fn resolve(line: &str) -> Result<Settings, String> {
        let words = std::iter::once("server").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        cli.server.resolve_on(&[0, 1, 5]).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = resolve("").unwrap();
        assert_eq!(settings.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(settings.unix.is_empty());
        assert_eq!((settings.processes, settings.child), (1, None));
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.cpus, None);
        assert_eq!(settings.send_queue.max_messages, 1024);
        assert_eq!(settings.send_queue.slow_consumer, SlowConsumer::Close);
        assert_eq!(settings.limits.max_message_bytes, 16 << 20);
        assert_eq!(settings.limits.max_fragments, 65_536);
        assert_eq!(settings.handshake_timeout, Duration::from_secs(10));
        assert_eq!(settings.idle_timeout, Some(Duration::from_secs(60)));
        assert_eq!(settings.max_connections, None);
        assert_eq!(settings.drain_timeout, Duration::from_secs(5));
        assert_eq!(settings.handler_work_us, 0);
    }

    #[test]
    fn cpus_set_the_number_of_workers_and_their_places() {
        let settings = resolve("--cpus 5,0").unwrap();
        assert_eq!(settings.workers, 2);
        assert_eq!(settings.cpu_of_worker(0), Some(5));
        assert_eq!(settings.cpu_of_worker(1), Some(0));
        let crowded = resolve("--cpus 1 --workers 2").unwrap();
        assert_eq!(crowded.cpu_of_worker(1), Some(1));
        assert_eq!(resolve("--workers 7").unwrap().cpu_of_worker(0), None);
    }

    #[test]
    fn processes_share_cpus_and_connections() {
        assert_eq!(resolve("--processes 2").unwrap().workers, 2);
        assert_eq!(resolve("--processes 52").unwrap().workers, 1);
        let line = "--cpus 5,0,1 --workers 2 --processes 4 --max-connections 11";
        let parent = resolve(line).unwrap();
        assert_eq!((parent.processes, parent.child), (4, None));
        assert_eq!(parent.max_connections, Some(11));
        let children: Vec<_> = (0..4)
            .map(|index| resolve(&format!("{line} --child {index},77,127.0.0.1:99")).unwrap())
            .collect();
        let shares: Vec<_> = children.iter().filter_map(|c| c.max_connections).collect();
        assert_eq!(shares, [3, 3, 3, 2]);
        let cpus: Vec<_> = children
            .iter()
            .flat_map(|child| [0, 1].map(|worker| child.cpu_of_worker(worker).unwrap()))
            .collect();
        assert_eq!(cpus, [5, 0, 1, 5, 0, 1, 5, 0]);
        assert_eq!(children[3].listen, ["127.0.0.1:99".parse().unwrap()]);
    }

    #[test]
    fn impossible_values_are_refused_with_their_flag() {
        for (line, names) in [
            ("--cpus 2", "CPU 2"),
            ("--workers 0", "--workers"),
            ("--workers 5000", "--workers"),
            ("--processes 0", "--processes"),
            ("--processes 2000", "--processes"),
            ("--processes 4 --max-connections 3", "--max-connections"),
            ("--processes 4 --child 4", "--child"),
            ("--processes 4 --child 4,77,127.0.0.1:99", "--child"),
            ("--send-queue 0", "--send-queue"),
            ("--max-message 0", "--max-message"),
            ("--max-message 3g", "--max-message"),
            ("--max-message 64q", "64KiB"),
            ("--max-fragments 0", "--max-fragments"),
            ("--handshake-timeout 0", "--handshake-timeout"),
            ("--idle-timeout 1ms", "--idle-timeout"),
            ("--idle-timeout soon", "--idle-timeout"),
            ("--slow-consumer wait", "--slow-consumer"),
            ("--listen nowhere", "--listen"),
            ("--listen name.invalid:80", "name.invalid:80"),
            ("--listen unix:", "--listen"),
            ("--listen unix:/x --processes 2", "--workers"),
            ("--frobnicate", "--frobnicate"),
        ] {
            let error = resolve(line).map(|_| ()).unwrap_err();
            assert!(error.contains(names), "{line}: {error}");
        }
    }

    #[test]
    fn several_addresses_each_once() {
        let settings = resolve("--listen :9001 --listen 127.0.0.1:9001 --listen [::]:0").unwrap();
        let expected = ["127.0.0.1:9001", "[::]:0"].map(|address| address.parse().unwrap());
        assert_eq!(settings.listen, expected);
        let settings = resolve("--listen unix:a --listen :1 --listen unix:a").unwrap();
        assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(settings.unix, [PathBuf::from("a")]);
        assert!(resolve("--listen unix:a").unwrap().listen.is_empty());
    }

    #[test]
    fn zero_switches_limits_off() {
        let settings = resolve("--idle-timeout 0 --max-connections 0").unwrap();
        assert_eq!(settings.idle_timeout, None);
        assert_eq!(settings.max_connections, None);
        let in_force = settings.in_force(20_000);
        assert_eq!(in_force.idle_timeout_ms, 0);
        assert_eq!(in_force.max_message_bytes, 16 << 20);
    }
}
