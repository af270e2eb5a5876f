//! The JSON record of one run: what was asked for, what was measured, and whether it may be used.
//!
//! The options that made a run are part of its record, and nothing in it depends on the machine.
//! Every number carries its unit in its key (`_ns`, `_per_s`, `_bytes`); absolute times are
//! nanoseconds since the Unix epoch. Fields that a later version adds are optional, so that an old
//! reader can read a new record and a new reader an old one.
//!
//! "Window" has one meaning in the counts below: the measured window, from the end of the warm-up
//! to the end of the duration. A message belongs to the window in which it was *meant* to be sent
//! (open loop) or was sent (closed loop), and its reply counts with it even when it arrives in the
//! drain phase.

mod connections;
pub mod slice;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{RunStatus, Validity};
pub use connections::{ConnectPhase, ConnectSchedule, Connections, Lives, Subprotocols};

/// The `schema_version` this code writes.
pub const SCHEMA_VERSION: u32 = 1;

/// A percentile is worth quoting when at least this many samples lie beyond it.
pub const MIN_SAMPLES_BEYOND: f64 = 100.0;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// [`SCHEMA_VERSION`] of the writer.
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Version of the loadgen that wrote this.
    pub loadgen_version: String,
    /// Kind of load.
    pub kind: LoadKind,
    /// The options in force, defaults filled in.
    pub options: Options,
    /// May the numbers be used?
    pub validity: Validity,
    /// Ctrl-C or SIGTERM ended the run before its time.
    #[serde(default)]
    pub interrupted: bool,
    /// Why the run could not go on, as the system, the server or a shard said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When the process began to connect.
    pub started_unix_ns: u64,
    /// Begin of the measured window; for `idle` the hold phase. 0 when the run never got there.
    #[serde(default)]
    pub window_start_unix_ns: u64,
    /// Last instant of the measured window (earlier than asked for when the run ended early).
    #[serde(default)]
    pub window_end_unix_ns: u64,
    /// Begin of the measured window on CLOCK_MONOTONIC; 0 as above, and in older records.
    #[serde(default)]
    pub window_start_monotonic_ns: u64,
    /// Its last instant on CLOCK_MONOTONIC.
    #[serde(default)]
    pub window_end_monotonic_ns: u64,
    /// Length of the measured window; of a run in slices, of all of them together.
    pub window_ns: u64,
    /// Slices of the measured window, with pauses between them; absent in a run without pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<u64>,
    /// Connections: asked for, up, lost.
    pub connections: Connections,
    /// The opening of the connections; in kind `connect` the handshakes of the measured window.
    pub connect: ConnectPhase,
    /// Messages that belong to the measured window.
    pub messages: Messages,
    /// All messages of the run, warm-up and drain included; to hold against a server's own
    /// counters.
    #[serde(default)]
    pub totals: Totals,
    /// Replies received inside the measured window, per second.
    pub throughput: Throughput,
    /// Latency from the intended send (open loop only): free of coordinated omission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_intended: Option<Latency>,
    /// Latency from the actual send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_actual: Option<Latency>,
    /// Latency from the intended send of the messages to connections that are not hot (echo with
    /// hot connections only); those messages are in the other distributions too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_others: Option<Latency>,
    /// Not where the law is not exact: kinds `connect` and `broadcast` (but for a closed loop of
    /// one thread).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub littles_law: Option<LittlesLaw>,
    /// What the generator itself needed, inside the measured window.
    pub generator: Generator,
    /// Kind `broadcast` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Broadcast>,
    /// Kind `idle` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// One row per second of the measured window, and of the drain if replies came in it; none of a
    /// run in slices.
    #[serde(default)]
    pub series: Vec<Second>,
}

impl Record {
    /// The latency to quote: from the intended send where there is a schedule, else from the actual
    /// send.
    pub fn latency(&self) -> Option<&Latency> {
        self.latency_intended
            .as_ref()
            .or(self.latency_actual.as_ref())
    }

    /// True when the numbers may be used.
    pub fn is_valid(&self) -> bool {
        self.validity.verdict == RunStatus::Valid
    }

    /// True when messages are sent, or handshakes made, all the time.
    pub fn has_traffic(&self) -> bool {
        match self.kind {
            LoadKind::Echo | LoadKind::Broadcast | LoadKind::Connect => true,
            LoadKind::Idle => self.options.active_fraction.is_some(),
        }
    }
}

/// Kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoadKind {
    /// Every message comes back to its sender.
    Echo,
    /// Every message goes to every member of a room.
    Broadcast,
    /// Handshakes per second.
    Connect,
    /// Connections that are held open.
    Idle,
}

impl std::fmt::Display for LoadKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
            Self::Connect => "connect",
            Self::Idle => "idle",
        })
    }
}

/// The options of the run, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Options {
    /// Target URLs, in the order given.
    pub urls: Vec<String>,
    /// Connections in all (`connect`: at a time).
    pub connections: u64,
    /// Length of the measured window asked for.
    pub duration_ns: u64,
    /// Load before the measured window, not recorded.
    pub warmup_ns: u64,
    /// Longest wait for outstanding replies after the window.
    pub drain_timeout_ns: u64,
    /// Generator threads, of all shards.
    pub threads: u64,
    /// Processes that made the load.
    #[serde(default = "one")]
    pub shards: u64,
    /// CPUs the threads were pinned to, in thread order; empty: not pinned.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// Messages (`connect`: connections) per second in all; absent: closed loop.
    #[serde(default)]
    pub rate_per_s: Option<f64>,
    /// Most requests in flight per connection (closed-loop broadcast: messages per publisher;
    /// open-loop broadcast: of no effect).
    pub window: u64,
    /// Payload bytes per message.
    pub size_bytes: u64,
    /// Kind `echo`: frames of each message, if more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<u64>,
    /// Connects begun per second, if limited.
    #[serde(default)]
    pub connect_rate_per_s: Option<f64>,
    /// Source addresses in use; empty: the kernel chose.
    #[serde(default)]
    pub source_ips: Vec<String>,
    /// Names of the extra request headers (values may be secrets and are not recorded).
    #[serde(default)]
    pub header_names: Vec<String>,
    /// Values of those that are no secrets: Host, Origin, User-Agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header_values: BTreeMap<String, String>,
    /// Subprotocols offered.
    #[serde(default)]
    pub subprotocols: Vec<String>,
    /// Kind `broadcast`: members that also publish.
    #[serde(default)]
    pub publishers: Option<u64>,
    /// Kind `idle`: fraction of the connections that send.
    #[serde(default)]
    pub active_fraction: Option<f64>,
    /// Kind `connect`: messages of each connection before it leaves, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u64>,
    /// Kind `echo`: connections that are hot. Without `hot_size_bytes` the others asked for no work
    /// in the handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_connections: Option<u64>,
    /// Share of the messages that went to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_share: Option<f64>,
    /// Payload bytes of their messages, if not `size_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_size_bytes: Option<u64>,
    /// How long a thread polls before it sleeps, in microseconds; 0: it sleeps at once.
    #[serde(default)]
    pub spin_us: u64,
    /// What of a reply is checked.
    #[serde(default)]
    pub verification: Verification,
}

/// Records from before there were shards are of one process.
fn one() -> u64 {
    1
}

/// What of a reply is checked, by payload size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// 16 bytes and more: sequence number, connection, run, and every byte of the rest.
    #[default]
    Full,
    /// 8 to 15 bytes: sequence number and every byte of the rest.
    Sequence,
    /// 1 to 7 bytes: the low bytes of the sequence number.
    TruncatedSequence,
    /// Empty messages: the number of replies.
    Count,
}

/// Messages that belong to the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Messages {
    /// Sent (broadcast: published).
    pub sent: u64,
    /// Replies expected to what was sent: equal to `sent`; in broadcast times the members.
    pub expected: u64,
    /// Distinct replies received, correct in sequence number (broadcast: deliveries).
    pub received: u64,
    /// `expected - received` at the end of the drain.
    pub lost: u64,
    /// Due by the schedule inside the window, yet never sent.
    pub unsent: u64,
    /// Replies received once more.
    pub duplicated: u64,
    /// Replies that came after a later one.
    pub reordered: u64,
    /// Replies with wrong content.
    pub corrupted: u64,
    /// Messages nobody asked for (before the first request on their connection).
    #[serde(default)]
    pub unsolicited: u64,
    /// Payload bytes of `received`.
    pub received_payload_bytes: u64,
    /// Messages that waited for a place in the window after they were due.
    #[serde(default)]
    pub delayed_by_window: u64,
}

/// All messages of the run, warm-up and drain included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Messages sent.
    pub sent: u64,
    /// Messages received, whatever they were.
    pub received: u64,
    /// Pings of the server answered: their pongs have left.
    pub pings_answered: u64,
    /// Pings that found many pongs waiting and got none of their own: that of a later ping stands
    /// for it (RFC 6455, section 5.5.3).
    #[serde(default)]
    pub pings_unanswered: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Replies to messages of the warm-up that never came.
    #[serde(default)]
    pub lost_in_warmup: u64,
}

/// Replies received inside the measured window, per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Throughput {
    /// Messages (echo: replies; broadcast: deliveries).
    pub messages_per_s: f64,
    /// Their payload.
    pub payload_bytes_per_s: f64,
}

/// A latency distribution: figures and the whole histogram.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Smallest.
    pub min_ns: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p99_9_ns: u64,
    /// 99.99th percentile.
    pub p99_99_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// HdrHistogram, V2 with deflate, base64; values in ns, three significant digits.
    #[serde(default)]
    pub histogram_v2_deflate_base64: String,
}

impl Latency {
    /// True when enough samples lie beyond `quantile` (0.99 and so on) to quote it.
    pub fn supports(&self, quantile: f64) -> bool {
        supports(self.count, quantile)
    }
}

/// True when of `count` samples enough lie beyond `quantile` to quote it, to the nearest sample.
pub fn supports(count: u64, quantile: f64) -> bool {
    // A hair of tolerance: 1 - 0.99 is not exactly 0.01.
    count as f64 * (1.0 - quantile) + 0.5 >= MIN_SAMPLES_BEYOND - 1e-6
}

/// Little's law: requests in flight = throughput x mean latency.
///
/// Closed loop: both sides are averages over the measured window, with flights cut at its edges; in
/// a window much longer than the latency that is `throughput.messages_per_s` x
/// `latency_actual.mean_ns`, and it should be connections x window. Open loop: the number in
/// flight, integrated over time for the window's messages without looking at which reply is whose,
/// and the messages due in the window, per second, x `latency_actual.mean_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LittlesLaw {
    /// Connections x window; open loop: rate x mean latency.
    pub in_flight_expected: f64,
    /// Average number in flight, of requests that were answered.
    pub in_flight_measured: f64,
    /// Measured / expected; 1 within 2% in a sound run.
    pub ratio: f64,
}

/// What the generator itself needed, inside the measured window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Generator {
    /// CPU time of its threads in user mode.
    pub cpu_user_ns: u64,
    /// CPU time of its threads in the kernel.
    pub cpu_sys_ns: u64,
    /// CPU time per message received; absent without messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_message: Option<f64>,
    /// CPUs that its threads share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// One entry per thread, of all shards.
    #[serde(default)]
    pub threads: Vec<ThreadUsage>,
    /// One entry per shard; empty when one process did it all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<Shard>,
    /// How late messages were sent that had a free place in their window (open loop only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_lag: Option<ScheduleLag>,
}

impl Generator {
    /// The largest share of a CPU that one thread used, or threads together that are pinned to one:
    /// a CPU without time to spare limits the generator, whatever the others do, and fifty shards
    /// on it are not each idle by the share of the others. Threads that are not pinned have nothing
    /// to spare either when they use up all CPUs together. `None` without threads.
    pub fn busiest_share(&self) -> Option<f64> {
        let mut of_cpus: BTreeMap<usize, f64> = BTreeMap::new();
        let mut busiest = None::<f64>;
        for ThreadUsage {
            cpu, busy_share, ..
        } in &self.threads
        {
            let share = match cpu {
                Some(cpu) => {
                    let all = of_cpus.entry(*cpu).or_default();
                    *all += busy_share;
                    *all
                }
                None => *busy_share,
            };
            busiest = Some(busiest.map_or(share, |most| most.max(share)));
        }
        let all: f64 = self.threads.iter().map(|thread| thread.busy_share).sum();
        let of_all = self.cpus.map_or(0.0, |cpus| all / cpus.max(1) as f64);
        busiest.map(|most| most.max(of_all))
    }

    /// Threads that take turns on a CPU, where they have to.
    pub fn threads_per_cpu(&self) -> Option<u64> {
        let cpus = self.cpus.filter(|cpus| *cpus > 0)?;
        Some((self.threads.len() as u64).div_ceil(cpus))
    }

    /// The longest stall of a thread.
    pub fn longest_stall_ns(&self) -> u64 {
        let stalls = self.threads.iter().map(|thread| thread.longest_stall_ns);
        stalls.max().unwrap_or(0)
    }
}

/// One generator process of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// Its process.
    pub pid: u32,
    /// Connections it was to open.
    pub connections: u64,
    /// Of them up when the load began.
    pub up: u64,
    /// Its threads.
    pub threads: u64,
    /// CPU time of its threads in user mode, inside the measured window.
    pub cpu_user_ns: u64,
    /// CPU time of its threads in the kernel, inside the measured window.
    pub cpu_sys_ns: u64,
    /// Most memory it had resident; 0 when it died before it could tell.
    pub peak_rss_bytes: u64,
}

/// One generator thread.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ThreadUsage {
    /// CPU it was pinned to.
    #[serde(default)]
    pub cpu: Option<usize>,
    /// Connections it owned.
    pub connections: u64,
    /// CPU time / wall time.
    pub busy_share: f64,
    /// CPU time in user mode.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel.
    pub cpu_sys_ns: u64,
    /// Longest time inside the window for which it was not woken although it had something to do:
    /// the machine stood still, or others had its CPU.
    #[serde(default)]
    pub longest_stall_ns: u64,
    /// Calls of `io_uring_enter`.
    #[serde(default)]
    pub enters: u64,
}

/// How late the generator itself was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleLag {
    /// Messages.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

/// Kind `broadcast`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Broadcast {
    /// Members of the room, publishers included.
    pub members: u64,
    /// Members that publish.
    pub publishers: u64,
    /// Messages published in the window.
    pub published: u64,
    /// `published x members`.
    pub deliveries_expected: u64,
    /// Distinct deliveries of them.
    pub deliveries: u64,
    /// Deliveries inside the measured window, per second.
    pub deliveries_per_s: f64,
    /// Deliveries that came after a later message of the same publisher, at the same member.
    pub out_of_order: u64,
    /// Messages that reached every member; the three distributions are of these.
    pub complete_messages: u64,
    /// To the first receiver, from the intended (closed loop: actual) send, one sample per message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_receiver: Option<Latency>,
    /// To the median receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_receiver: Option<Latency>,
    /// To the last receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_receiver: Option<Latency>,
}

/// Kind `idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Idle {
    /// Connections held.
    pub held: u64,
    /// Of them still up at the end.
    pub still_up: u64,
    /// Connections that also sent.
    pub active: u64,
    /// Pings of the server answered.
    pub pings_answered: u64,
    /// Of them inside the measured window.
    #[serde(default)]
    pub pings_answered_in_window: u64,
}

/// One second of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Second {
    /// Seconds since the begin of the measured window.
    pub second: u64,
    /// Messages sent in it.
    pub sent: u64,
    /// Replies received in it.
    pub received: u64,
    /// 99th percentile of their latency (intended send in an open loop).
    #[serde(default)]
    pub latency_p99_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_need_a_hundred_samples_beyond() {
        for (quantile, fewest) in [(0.5, 199), (0.9, 995), (0.99, 9_950), (0.999, 99_500)] {
            assert!(supports(fewest, quantile), "{quantile}");
            assert!(!supports(fewest - 1, quantile), "{quantile}");
            let of_percent = quantile * 100.0 / 100.0;
            assert!(supports(fewest, of_percent), "{of_percent}");
        }
        assert!(!supports(100_000, 0.9999));
    }

    #[test]
    fn threads_on_one_cpu_share_its_time() {
        let busiest = |threads: &[(Option<usize>, f64)]| {
            let threads = threads.iter().map(|&(cpu, busy_share)| ThreadUsage {
                cpu,
                busy_share,
                ..ThreadUsage::default()
            });
            Generator {
                threads: threads.collect(),
                ..Generator::default()
            }
            .busiest_share()
        };
        assert_eq!(busiest(&[]), None);
        assert_eq!(busiest(&[(None, 0.25), (None, 0.5)]), Some(0.5));
        let shared = [(Some(1), 0.25), (Some(0), 0.375), (Some(1), 0.5)];
        assert_eq!(busiest(&shared), Some(0.75));
        assert_eq!(busiest(&[(Some(1), 0.25), (None, 0.75)]), Some(0.75));
        let unpinned = Generator {
            cpus: Some(2),
            threads: [0.5, 0.75, 0.5, 0.25]
                .map(|busy_share| ThreadUsage {
                    busy_share,
                    ..ThreadUsage::default()
                })
                .to_vec(),
            ..Generator::default()
        };
        assert_eq!(unpinned.busiest_share(), Some(1.0));
        assert_eq!(unpinned.threads_per_cpu(), Some(2));
    }
}
