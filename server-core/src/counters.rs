//! What a server counts: per worker while it runs, summed for `/metrics` and for the final line.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use ws_proto::{Echo, End, Violation};

/// A number that only grows. Relaxed: it is read for reports only.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds `n` where one thread adds and all others only read: without the price of an atomic
    /// addition, which is some twenty cycles.
    #[inline]
    pub fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes over a sum that is kept elsewhere.
    pub fn set(&self, sum: u64) {
        self.0.store(sum, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$attribute:meta])* $field:ident: $help:literal,)*) => {
        /// Counters of one worker, on cache lines of their own: no worker slows another by
        /// counting.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct WorkerCounters {
            $(#[doc = $help] pub $field: Counter,)*
            /// Calls of `io_uring_enter`, where an engine can count them: not a row of `/metrics`,
            /// for most could only say 0.
            pub enters: Counter,
        }

        impl WorkerCounters {
            /// Bytes in and out of WebSocket connections.
            pub fn traffic_bytes(&self) -> u64 {
                self.bytes_received.get() + self.bytes_sent.get()
            }

            /// Counts what an echo made of `received` bytes; by the worker's own thread.
            #[inline]
            pub fn count_echo(&self, received: usize, echo: &Echo) {
                let mut local = LocalCounters::default();
                local.count_echo(received, echo);
                local.hand_over(self);
                if let Some(End::Violation(violation)) = &echo.end {
                    self.count_violation(violation);
                }
            }

            /// Counts and logs that a peer broke the protocol.
            #[cold]
            pub fn count_violation(&self, violation: &Violation) {
                self.violations.add(1);
                tracing::debug!(%violation, section = violation.section(), "closing");
            }
        }

        /// Sums over all workers at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Totals {
            $(#[doc = $help] $(#[$attribute])* pub $field: u64,)*
        }

        impl Totals {
            fn include(&mut self, worker: &WorkerCounters) {
                $(self.$field += worker.$field.get();)*
            }

            /// Adds what another process counted.
            pub fn add(&mut self, other: &Totals) {
                $(self.$field += other.$field;)*
            }

            /// Name, help text and value of every counter.
            fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $help, self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    messages_received: "Data messages received from WebSocket clients",
    messages_sent: "Data messages sent to WebSocket clients; an echo counts when it is made",
    bytes_received: "Bytes received on WebSocket connections after the handshake",
    bytes_sent: "Bytes handed to the kernel on WebSocket connections after the handshake",
    connections_accepted: "Connections accepted",
    handshakes: "WebSocket connections opened",
    http_responses: "Requests answered without an upgrade, errors included",
    refused: "Upgrades answered 503 because of --max-connections",
    handshake_timeouts: "Connections closed because their request took too long",
    idle_timeouts: "Connections closed because they were silent too long",
    pings_received: "Pings answered",
    #[serde(default)]
    pings_sent: "Pings sent to silent clients",
    #[serde(default)]
    pongs_received: "Pongs received, asked for or not",
    violations: "Connections closed because the client broke the protocol or a limit",
    dropped: "Messages dropped for slow receivers",
    slow_consumers_closed: "Connections closed because they did not read fast enough",
    accept_errors: "Failed accepts, such as for want of file descriptors",
    drained: "Connections open when the server began to drain",
}

macro_rules! local_counters {
    ($($field:ident),*) => {
        /// Counting without atomics: the sums of one turn or receive, added to those of the worker
        /// at once.
        #[derive(Debug, Default)]
        pub struct LocalCounters {
            $(#[doc = "As in [`WorkerCounters`]."] pub $field: u64,)*
        }

        impl LocalCounters {
            /// Adds what another has counted.
            #[inline]
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Adds everything to the counters that others see, and begins anew. These belong to
            /// the thread: no other may add to the same of them.
            #[inline]
            pub fn hand_over(&mut self, counters: &WorkerCounters) {
                let sums = std::mem::take(self);
                $(if sums.$field > 0 {
                    counters.$field.add_alone(sums.$field);
                })*
            }
        }
    };
}

local_counters!(
    messages_received,
    messages_sent,
    bytes_received,
    bytes_sent,
    pings_received,
    pings_sent,
    pongs_received
);

impl LocalCounters {
    /// Counts what an echo made of `received` bytes, but for a violation.
    #[inline]
    pub fn count_echo(&mut self, received: usize, echo: &Echo) {
        self.bytes_received += received as u64;
        self.messages_received += echo.messages;
        self.messages_sent += echo.messages;
        self.pings_received += echo.pings;
        self.pongs_received += echo.pongs;
    }
}

/// The counters of all workers.
#[derive(Debug)]
pub struct Counters {
    workers: Box<[WorkerCounters]>,
}

impl Counters {
    /// Zeroes for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| WorkerCounters::default()).collect(),
        }
    }

    /// Counters of worker `index`. Any thread may add to them, it is merely slower for two at a
    /// time; but to those of [`LocalCounters`] only the worker's own thread may.
    pub fn worker(&self, index: usize) -> &WorkerCounters {
        &self.workers[index]
    }

    /// Calls of `io_uring_enter` by all workers.
    pub fn enters(&self) -> u64 {
        self.workers.iter().map(|worker| worker.enters.get()).sum()
    }

    /// Sums over all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.workers {
            totals.include(worker);
        }
        totals
    }
}

/// Media type of [`render_metrics`]'s text (OpenMetrics 1.0, "Text format").
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The body of `/metrics`: all totals and the gauge of open WebSocket connections, as OpenMetrics
/// text. Where the server has several processes, these are those of one, and a label says of which.
pub fn render_metrics(totals: &Totals, connections_open: usize, process: Option<usize>) -> String {
    let label = process.map_or_else(String::new, |index| format!("{{process=\"{index}\"}}"));
    let mut text = String::with_capacity(4096);
    for (name, help, value) in totals.rows() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# TYPE ringside_{name} counter\n# HELP ringside_{name} {help}.\nringside_{name}_total{label} {value}\n"
        );
    }
    let _ = write!(
        text,
        "# TYPE ringside_connections_open gauge\n# HELP ringside_connections_open WebSocket connections open now.\nringside_connections_open{label} {connections_open}\n# EOF\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_over_workers() {
        let counters = Counters::new(3);
        counters.worker(0).messages_received.add(5);
        counters.worker(2).messages_received.add(2);
        counters.worker(1).dropped.add(1);
        let totals = counters.totals();
        assert_eq!(totals.messages_received, 7);
        assert_eq!(totals.dropped, 1);
        assert_eq!(totals.violations, 0);
    }

    #[test]
    fn workers_do_not_share_a_cache_line() {
        assert_eq!(align_of::<WorkerCounters>(), 128);
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }

    #[test]
    fn metrics_are_open_metrics() {
        let counters = Counters::new(1);
        counters.worker(0).messages_sent.add(42);
        let text = render_metrics(&counters.totals(), 3, None);
        assert!(text.contains("\nringside_messages_sent_total 42\n"));
        assert!(text.contains("# TYPE ringside_messages_sent counter\n"));
        assert!(text.contains("\nringside_connections_open 3\n"));
        assert!(text.ends_with("\n# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
        let text = render_metrics(&counters.totals(), 3, Some(7));
        assert!(text.contains("\nringside_messages_sent_total{process=\"7\"} 42\n"));
        assert!(text.contains("\nringside_connections_open{process=\"7\"} 3\n"));
    }
}
