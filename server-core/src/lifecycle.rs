//! The life of a server process: logging, the `ready` and `final` lines, signals.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

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
    /// Where it listens; the port is never 0.
    pub address: SocketAddr,
    /// Number of workers.
    pub workers: usize,
    /// CPUs it is confined to, in worker order; all CPUs available without `--cpus`.
    pub cpus: Vec<usize>,
    /// Its process.
    pub pid: u32,
    /// Limits and buffer sizes in force.
    pub options: InForce,
}

/// The last line on stdout: everything that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "final")]
pub struct Final {
    /// Whether all connections closed within `--drain-timeout`.
    pub drained_in_time: bool,
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

/// Sends log lines to stderr: `info` and up, or what `RUST_LOG` says.
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
}

/// Told once that the server is to end. Clones are handles to the same event.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    begun: Condvar,
}

#[derive(Default)]
struct State {
    begun: bool,
    callbacks: Vec<Box<dyn FnOnce() + Send>>,
}

impl Shutdown {
    /// Begins the shutdown at the first SIGTERM or SIGINT; a second one ends the process at once (exit code 128 + signal).
    /// One thread waits for the signals.
    ///
    /// # Errors
    /// When the handlers or the thread cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let told = shutdown.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for (nth, signal) in signals.forever().enumerate() {
                    if nth > 0 {
                        tracing::warn!(signal, "second signal: ending at once");
                        std::process::exit(128 + signal);
                    }
                    tracing::info!(signal, "draining");
                    told.begin();
                }
            })?;
        Ok(shutdown)
    }

    /// Begins the shutdown; the callbacks run on this thread. Without effect the second time.
    pub fn begin(&self) {
        let callbacks = {
            let mut state = self.lock();
            state.begun = true;
            std::mem::take(&mut state.callbacks)
        };
        self.0.begun.notify_all();
        callbacks.into_iter().for_each(|callback| callback());
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// Runs `callback` when the shutdown begins, on the signal thread, or at once if it has begun. It should only wake
    /// somebody: set a flag, wake a [`Waker`](std::task::Waker), send on a channel.
    pub fn on_begin(&self, callback: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if state.begun {
            drop(state);
            callback();
        } else {
            state.callbacks.push(Box::new(callback));
        }
    }

    /// Blocks the thread until it has begun.
    pub fn wait(&self) {
        let mut state = self.lock();
        while !state.begun {
            state = self
                .0
                .begun
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what is still alive (connections), so that draining can wait for it from another thread.
#[derive(Debug, Clone, Default)]
pub struct Alive(Arc<(Mutex<usize>, Condvar)>);

/// One thing that is alive; dropping it says that it is not any more.
#[derive(Debug)]
pub struct AliveGuard(Alive);

impl Alive {
    /// One more.
    pub fn enter(&self) -> AliveGuard {
        *self.lock() += 1;
        AliveGuard(self.clone())
    }

    /// How many are alive.
    pub fn count(&self) -> usize {
        *self.lock()
    }

    /// Blocks the thread until none is alive, at most for `timeout`; returns whether none is.
    pub fn wait_for_none(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut count = self.lock();
        while *count > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            count = self
                .0
                .1
                .wait_timeout(count, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AliveGuard {
    fn drop(&mut self) {
        let mut count = self.0.lock();
        *count -= 1;
        if *count == 0 {
            self.0.0.1.notify_all();
        }
    }
}
