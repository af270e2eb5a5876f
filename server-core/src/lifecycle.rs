//! The life of a server process: logging, the `ready` and `final` lines, signals.

use std::env::{self, VarError};
use std::io::{self, IsTerminal, PipeReader, Read, Write};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::address::Address;
use crate::counters::Totals;
use crate::options::InForce;

/// The first line on stdout: the server accepts connections from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "ready")]
pub struct Ready {
    /// Name of the program, such as `server-tokio`.
    pub server: String,
    /// Its version.
    pub version: String,
    /// Runtime and its version, such as `tokio 1.54.1`.
    pub runtime: String,
    /// `--flavor`, where the server has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// `--engine`, where the server has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The first of `addresses`.
    pub address: Address,
    /// Where clients reach it, ports never 0: `[::]` and 0.0.0.0 are every address of this machine
    /// in their family. Unix sockets (`unix:PATH`) come last.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Processes that share the addresses (`--processes`).
    #[serde(default = "one")]
    pub processes: usize,
    /// Those processes, where there are several: the children of `pid`, which serves nobody itself.
    #[serde(default)]
    pub pids: Vec<u32>,
    /// Number of workers, in each process.
    pub workers: usize,
    /// CPUs it is confined to, in worker order; all CPUs available without `--cpus`.
    pub cpus: Vec<usize>,
    /// Its process.
    pub pid: u32,
    /// Limits and buffer sizes in force, in each process; `max_connections` is that of all
    /// together.
    pub options: InForce,
}

fn one() -> usize {
    1
}

/// The last line on stdout: everything that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "final")]
pub struct Final {
    /// Whether all connections closed within `--drain-timeout`.
    pub drained_in_time: bool,
    /// Calls of `io_uring_enter` of all workers, where the server can count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enters: Option<u64>,
    /// The counters.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Prints one record as one line on stdout.
///
/// # Errors
/// When nobody reads stdout any more.
pub fn print_line(record: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(record).map_err(io::Error::other)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

/// Sends log lines to stderr: `info` and up, or what `RUST_LOG` says: `LEVEL`, or
/// `TARGET=LEVEL,...`.
///
/// # Errors
/// When `RUST_LOG` says neither.
pub fn init_logging() -> anyhow::Result<()> {
    let filter = match env::var("RUST_LOG") {
        Ok(directives) => Targets::from_str(&directives).map_err(|error| {
            anyhow!("RUST_LOG is `{directives}`: {error}; write LEVEL or TARGET=LEVEL,...")
        })?,
        Err(VarError::NotPresent) => Targets::new().with_default(LevelFilter::INFO),
        Err(error @ VarError::NotUnicode(_)) => return Err(error).context("RUST_LOG"),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    Ok(())
}

/// Signals closer together are one request: `timeout` signals a process and then its whole group,
/// and a terminal's Ctrl-C reaches a server beside its supervisor, which passes it on.
const SAME_REQUEST: Duration = Duration::from_millis(250);

/// Says once that the server is to end: reads as ended from then on.
#[derive(Debug)]
pub struct Shutdown(pub(crate) PipeReader);

impl Shutdown {
    /// Begins the shutdown at the first SIGTERM or SIGINT; a second one ends the process at once
    /// (exit code 128 + signal), unless it comes right behind the first. One thread waits for the
    /// signals.
    ///
    /// # Errors
    /// When the handlers or the thread cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let (begun, open_until_then) = io::pipe()?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let listen = move || {
            let mut signals = signals.forever();
            let signal = signals.next();
            let first_came = Instant::now();
            tracing::info!(signal, "draining");
            drop(open_until_then);
            for signal in signals {
                if first_came.elapsed() >= SAME_REQUEST {
                    tracing::warn!(signal, "second signal: ending at once");
                    std::process::exit(128 + signal);
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(listen)?;
        Ok(Self(begun))
    }

    /// Blocks the thread until it has begun.
    ///
    /// # Errors
    /// The pipe that says so cannot be read.
    pub fn wait(&self) -> io::Result<()> {
        (&self.0).read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Counts what is still alive (connections), so that draining can wait for it from another thread.
#[derive(Debug, Clone, Default)]
pub struct Alive(Arc<(Mutex<Count>, Condvar)>);

#[derive(Debug, Default)]
struct Count {
    alive: usize,
    /// Somebody waits for the next one to go.
    awaited: bool,
}

/// One thing that is alive; dropping it says that it is not any more.
#[derive(Debug)]
pub struct AliveGuard(Alive);

impl Alive {
    /// One more.
    pub fn enter(&self) -> AliveGuard {
        self.lock().alive += 1;
        AliveGuard(self.clone())
    }

    /// Blocks the thread until none is alive, at most for `timeout`; returns whether none is.
    pub fn wait_for_none(&self, timeout: Duration) -> bool {
        let waiting = self
            .0
            .1
            .wait_timeout_while(self.lock(), timeout, |count| count.alive > 0);
        let (count, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        count.alive == 0
    }

    /// Blocks the thread until one is alive no more, at most for `timeout`.
    pub fn wait_for_one(&self, timeout: Duration) {
        let mut count = self.lock();
        count.awaited = true;
        let still = |count: &mut Count| count.awaited;
        let waiting = self.0.1.wait_timeout_while(count, timeout, still);
        waiting.unwrap_or_else(PoisonError::into_inner).0.awaited = false;
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AliveGuard {
    fn drop(&mut self) {
        let mut count = self.0.lock();
        count.alive -= 1;
        if count.alive == 0 || std::mem::take(&mut count.awaited) {
            self.0.0.1.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SlowConsumer;

    fn ready() -> Ready {
        Ready {
            server: "server-test".into(),
            version: "0.1.0".into(),
            runtime: "test 1".into(),
            flavor: Some("multi".into()),
            engine: None,
            address: "127.0.0.1:1234".parse().unwrap(),
            addresses: vec!["127.0.0.1:1234".parse().unwrap()],
            processes: 3,
            pids: vec![8, 9, 10],
            workers: 2,
            cpus: vec![0, 1],
            pid: 7,
            options: InForce {
                send_queue_messages: 1024,
                send_queue_bytes: 1 << 26,
                slow_consumer: SlowConsumer::Close,
                max_message_bytes: 16 << 20,
                max_fragments: 65_536,
                handshake_timeout_ms: 10_000,
                idle_timeout_ms: 60_000,
                max_connections: 0,
                drain_timeout_ms: 5000,
                handler_work_us: 10,
                read_buffer_bytes: 65_536,
                mailbox_bytes: 1 << 22,
                listen_backlog: 65_535,
                open_files: 20_000,
                spin_us: None,
                direct_descriptors: None,
                cq_entries: None,
            },
        }
    }

    #[test]
    fn lines_name_their_event_and_read_back() {
        let line = serde_json::to_string(&ready()).unwrap();
        assert!(
            line.starts_with(r#"{"event":"ready","server":"server-test""#),
            "{line}"
        );
        assert!(!line.contains("engine") && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Ready>(&line).unwrap(), ready());

        let last = Final {
            drained_in_time: true,
            enters: Some(7),
            totals: Totals {
                messages_sent: 42,
                ..Totals::default()
            },
        };
        let line = serde_json::to_string(&last).unwrap();
        assert!(line.starts_with(r#"{"event":"final","#), "{line}");
        assert!(line.contains(r#""messages_sent":42"#), "{line}");
        assert_eq!(serde_json::from_str::<Final>(&line).unwrap(), last);
        assert!(serde_json::from_str::<Ready>(&line).is_err());
    }

    #[test]
    fn waiting_for_none_ends_with_the_last_or_at_the_deadline() {
        let alive = Alive::default();
        assert!(alive.wait_for_none(Duration::ZERO));
        let (first, second) = (alive.enter(), alive.enter());
        drop(first);
        assert!(!alive.wait_for_none(Duration::from_millis(1)));
        let waiting = std::thread::spawn({
            let alive = alive.clone();
            move || alive.wait_for_none(Duration::from_secs(60))
        });
        drop(second);
        assert!(waiting.join().unwrap());

        let (first, _second) = (alive.enter(), alive.enter());
        alive.wait_for_one(Duration::from_millis(1));
        let waiting = std::thread::spawn({
            let alive = alive.clone();
            move || alive.wait_for_one(Duration::from_secs(60))
        });
        while !alive.lock().awaited {
            std::thread::yield_now();
        }
        drop(first);
        waiting.join().unwrap();
    }
}
