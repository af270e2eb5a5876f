//! The figures a run is summed up in: one table that extraction, comparison and report share.

use std::collections::BTreeMap;

use loadgen::record::{Latency, Record};

use super::memory::CONNECTIONS_FOR_MEMORY;
use crate::config::{Load, Scenario, ScenarioKind};
use crate::machine::proc::CpuTicks;
use crate::record::{Footprint, MemorySample, Percentiles, RunRecord, Search, ServerSide, Slice};
use crate::stats::Direction::{self, HigherIsBetter, LowerIsBetter};
use crate::units::Unit;

/// The percentiles of a latency, by the ending of their keys.
const PERCENTILES: [(&str, f64); 4] = [
    ("_p50_ns", 50.0),
    ("_p90_ns", 90.0),
    ("_p99_ns", 99.0),
    ("_p99_9_ns", 99.9),
];
/// With fewer, a split by clock ticks is chance.
const TICKS_FOR_A_SPLIT: u64 = 20;

/// One figure of a run.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Key in records and summaries; ends in the unit.
    pub key: &'static str,
    /// For tables with a row per metric.
    pub title: &'static str,
    /// Heading in the table of figures, short; empty: not in it.
    pub column: &'static str,
    /// How tables print it.
    pub unit: Unit,
    /// Which end is good; `None`: a fact, not a merit.
    pub direction: Option<Direction>,
    kind: ScenarioKind,
    extract: fn(&Facts<'_>) -> Option<f64>,
}

impl Metric {
    /// Messages, deliveries or, where they come and go, connections per second: in an open loop the
    /// rate.
    pub fn is_throughput(&self) -> bool {
        match self.kind {
            ScenarioKind::Connect => self.unit == Unit::PerSecond,
            _ => ["messages_per_s", "deliveries_per_s"].contains(&self.key),
        }
    }

    /// Connections that leave after some messages are counted and paid for as lives, others as
    /// handshakes; connections are others only beside hot ones.
    fn is_of(&self, scenario: &Scenario) -> bool {
        match self.key {
            "lives_per_s" | "server_cpu_ns_per_life" => scenario.messages > 0,
            "handshakes_per_s" | "server_cpu_ns_per_handshake" => scenario.messages == 0,
            "latency_others_p50_ns" | "latency_others_p99_ns" => scenario.hot.is_some(),
            _ => true,
        }
    }
}

/// What extraction may look at.
struct Facts<'a> {
    loadgen: &'a Record,
    server: &'a ServerSide,
    footprint: Option<&'a Footprint>,
    capacity: Option<&'a Search>,
}

impl RunRecord {
    /// All figures of the run, by key; none without the generator's record. Figures that the run
    /// cannot give are present as `None`.
    pub fn extract_metrics(&self) -> BTreeMap<String, Option<f64>> {
        let Some(loadgen) = &self.loadgen else {
            return BTreeMap::new();
        };
        let facts = Facts {
            loadgen,
            server: &self.server,
            footprint: self.footprint.as_ref(),
            capacity: self.capacity.as_ref(),
        };
        let finite = |value: &f64| value.is_finite();
        of_kind(self.scenario.kind)
            .map(|metric| {
                let value = (metric.extract)(&facts).filter(finite);
                (metric.key.to_owned(), value)
            })
            .collect()
    }
}

/// Samples beyond a percentile that make it a figure of a slice. A run needs more to be quoted
/// (`loadgen::record::MIN_SAMPLES_BEYOND`): nobody quotes a slice, and what its few samples leave
/// open is in the interval over all slices.
const MIN_SAMPLES_BEYOND_IN_SLICE: f64 = 10.0;

impl Slice {
    /// The figure of a slice that a run has under `key`; `None` where a slice has none or too few
    /// samples stand behind it.
    pub fn metric(&self, key: &str) -> Option<f64> {
        let messages = self.messages as f64;
        let per_message = |amount: u64| (self.messages > 0).then(|| amount as f64 / messages);
        let value = match key {
            "messages_per_s" | "deliveries_per_s" => {
                Some(messages * 1e9 / self.window_ns.max(1) as f64)
            }
            "server_cpu_ns_per_message" | "server_cpu_ns_per_delivery" => {
                per_message(self.server?.cpu_ns)
            }
            "server_context_switches_per_message" => per_message(self.server?.switches),
            _ => {
                let latency = match family(key)? {
                    "latency_intended" => self.latency_intended?,
                    "latency_actual" => self.latency_actual?,
                    "latency_others" => self.latency_others?,
                    _ => return None,
                };
                let (_, of_key) = PERCENTILES
                    .iter()
                    .find(|(ending, _)| key.ends_with(ending))?;
                let beyond = latency.count as f64 * (1.0 - of_key / 100.0) + 0.5;
                (beyond >= MIN_SAMPLES_BEYOND_IN_SLICE)
                    .then(|| value_at(&latency.into(), *of_key))
                    .flatten()
            }
        };
        value.filter(|value| *value > 0.0)
    }
}

impl From<Percentiles> for Latency {
    fn from(of_slice: Percentiles) -> Self {
        Self {
            count: of_slice.count,
            p50_ns: of_slice.p50_ns,
            p90_ns: of_slice.p90_ns,
            p99_ns: of_slice.p99_ns,
            p99_9_ns: of_slice.p99_9_ns,
            ..Self::default()
        }
    }
}

/// The metrics of a kind, in the order of the report.
pub fn of_kind(kind: ScenarioKind) -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(move |metric| metric.kind == kind)
}

/// A metric by key.
pub fn find(kind: ScenarioKind, key: &str) -> Option<&'static Metric> {
    of_kind(kind).find(|metric| metric.key == key)
}

/// The server's CPU time for each thing it did, where a scenario has such a metric.
pub fn server_cpu(scenario: &Scenario) -> Option<&'static Metric> {
    let mut own = of_kind(scenario.kind).filter(|metric| metric.is_of(scenario));
    own.find(|metric| metric.key.starts_with("server_cpu_ns_per_"))
}

/// What was done per second, where a scenario has such a metric.
pub fn throughput(scenario: &Scenario) -> Option<&'static Metric> {
    let mut own = of_kind(scenario.kind).filter(|metric| metric.is_of(scenario));
    own.find(|metric| metric.unit == Unit::PerSecond)
}

/// What a bout at an equal rate is about: the server's CPU time, and how long a reply takes.
pub fn at_equal_rate(scenario: &Scenario) -> impl Iterator<Item = &'static Metric> + use<> {
    let p99 = find(scenario.kind, "latency_intended_p99_ns");
    server_cpu(scenario).into_iter().chain(p99)
}

/// The metrics that a comparison of two contestants in this scenario is about, its headline first.
///
/// At a fixed rate the throughput of every contestant is the rate; it is not compared. Others than
/// hot connections there are only in a scenario with hot ones.
pub fn compared(scenario: &Scenario) -> Vec<&'static Metric> {
    let fixed_rate = matches!(
        scenario.load,
        Some(Load::Rate(_) | Load::FractionOfCapacity(_))
    );
    let headline = headline(scenario);
    let mut metrics: Vec<&Metric> = of_kind(scenario.kind)
        .filter(|metric| metric.direction.is_some() && !(fixed_rate && metric.is_throughput()))
        .filter(|metric| fixed_rate || !metric.key.starts_with("latency_intended"))
        .filter(|metric| metric.is_of(scenario))
        .collect();
    metrics.sort_by_key(|metric| metric.key != headline);
    metrics
}

/// What metrics that are tested together have in common: the percentiles of one latency are several
/// looks at the same replies.
pub fn family(key: &str) -> Option<&str> {
    PERCENTILES
        .iter()
        .find_map(|(ending, _)| key.strip_suffix(ending))
}

/// Key of the metric that decides a bout.
pub fn headline(scenario: &Scenario) -> &str {
    if let Some(headline) = &scenario.headline {
        return headline;
    }
    match (scenario.kind, scenario.load) {
        (ScenarioKind::Echo, Some(Load::Window(_)) | None) => "messages_per_s",
        (ScenarioKind::Echo, Some(_)) if scenario.hot.is_some() => "latency_others_p99_ns",
        (ScenarioKind::Echo, Some(_)) => "latency_intended_p99_ns",
        (ScenarioKind::Broadcast, Some(Load::Window(_)) | None) => "deliveries_per_s",
        (ScenarioKind::Broadcast, Some(_)) => "latency_last_receiver_mean_ns",
        (ScenarioKind::Connect, Some(_)) => "latency_intended_p99_ns",
        (ScenarioKind::Connect, None) if scenario.messages > 0 => "lives_per_s",
        (ScenarioKind::Connect, None) => "handshakes_per_s",
        (ScenarioKind::Idle, _) => "server_bytes_per_connection",
        (ScenarioKind::Scale, _) => "handshakes_per_s",
        (ScenarioKind::Capacity, _) => "capacity_per_s",
    }
}

macro_rules! metric {
    (
        $kind:ident, $key:literal, $title:literal, $column:literal, $unit:ident, $direction:expr,
        $extract:expr
    ) => {
        Metric {
            key: $key,
            title: $title,
            column: $column,
            unit: Unit::$unit,
            direction: $direction,
            kind: ScenarioKind::$kind,
            extract: $extract,
        }
    };
}

const UP: Option<Direction> = Some(HigherIsBetter);
const DOWN: Option<Direction> = Some(LowerIsBetter);

#[rustfmt::skip]
static METRICS: &[Metric] = &[
    metric!(Echo, "messages_per_s", "echoes/s", "echoes/s", PerSecond, UP,
        |f| Some(f.loadgen.throughput.messages_per_s)),
    metric!(Echo, "latency_intended_p50_ns", "p50 intended", "p50 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 50.0)),
    metric!(Echo, "latency_intended_p90_ns", "p90 intended", "", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 90.0)),
    metric!(Echo, "latency_intended_p99_ns", "p99 intended", "p99 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 99.0)),
    metric!(Echo, "latency_intended_p99_9_ns", "p99.9 intended", "p99.9 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 99.9)),
    metric!(Echo, "latency_actual_p50_ns", "p50 actual", "p50 act.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_actual.as_ref(), 50.0)),
    metric!(Echo, "latency_actual_p90_ns", "p90 actual", "", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_actual.as_ref(), 90.0)),
    metric!(Echo, "latency_actual_p99_ns", "p99 actual", "p99 act.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_actual.as_ref(), 99.0)),
    metric!(Echo, "latency_actual_p99_9_ns", "p99.9 actual", "", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_actual.as_ref(), 99.9)),
    metric!(Echo, "latency_others_p50_ns", "p50 of the others", "p50 others", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_others.as_ref(), 50.0)),
    metric!(Echo, "latency_others_p99_ns", "p99 of the others", "p99 others", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_others.as_ref(), 99.0)),
    metric!(Echo, "server_cpu_ns_per_message", "server CPU/message", "CPU/msg", Nanoseconds, DOWN,
        |f| cpu_per(f, f.loadgen.throughput.messages_per_s)),
    metric!(Echo, "server_cpu_user_ns_per_message", "of it in user mode", "user", Nanoseconds, None,
        |f| split(f, f.loadgen.throughput.messages_per_s, |ticks| ticks.user)),
    metric!(Echo, "server_cpu_sys_ns_per_message", "of it in the kernel", "kernel",
        Nanoseconds, None, |f| split(f, f.loadgen.throughput.messages_per_s, |ticks| ticks.system)),
    metric!(Echo, "server_enters_per_message", "io_uring_enter/message", "enters/msg", Number, None,
        enters_per_message),
    metric!(Echo, "server_context_switches_per_message", "switches/message", "", Number, None,
        |f| switches_per(f, f.loadgen.throughput.messages_per_s)),
    metric!(Echo, "server_bytes_per_connection", "memory/connection", "mem/conn", Bytes, DOWN,
        bytes_per_connection),
    metric!(Echo, "server_cpu_share", "server CPU", "CPU", Share, None, server_cpu_share),
    metric!(Echo, "generator_cpu_share", "generator CPU", "gen. CPU", Share, None,
        generator_cpu_share),

    metric!(Broadcast, "deliveries_per_s", "deliveries/s", "deliveries/s", PerSecond, UP,
        |f| Some(f.loadgen.broadcast.as_ref()?.deliveries_per_s)),
    metric!(Broadcast, "latency_intended_p50_ns", "delivery, p50 intended", "",
        Nanoseconds, DOWN, |f| percentile(f.loadgen.latency_intended.as_ref(), 50.0)),
    metric!(Broadcast, "latency_intended_p99_ns", "delivery, p99 intended", "p99 int.",
        Nanoseconds, DOWN, |f| percentile(f.loadgen.latency_intended.as_ref(), 99.0)),
    metric!(Broadcast, "latency_first_receiver_mean_ns", "first member, mean", "first",
        Nanoseconds, DOWN, |f| mean(f.loadgen.broadcast.as_ref()?.first_receiver.as_ref())),
    metric!(Broadcast, "latency_median_receiver_mean_ns", "median member, mean", "median",
        Nanoseconds, DOWN, |f| mean(f.loadgen.broadcast.as_ref()?.median_receiver.as_ref())),
    metric!(Broadcast, "latency_last_receiver_mean_ns", "last member, mean", "last",
        Nanoseconds, DOWN, |f| mean(f.loadgen.broadcast.as_ref()?.last_receiver.as_ref())),
    metric!(Broadcast, "latency_last_receiver_p99_ns", "last member, p99", "last p99",
        Nanoseconds, DOWN,
        |f| percentile(f.loadgen.broadcast.as_ref()?.last_receiver.as_ref(), 99.0)),
    metric!(Broadcast, "server_cpu_ns_per_delivery", "server CPU/delivery", "CPU/dlv",
        Nanoseconds, DOWN, |f| cpu_per(f, f.loadgen.broadcast.as_ref()?.deliveries_per_s)),
    metric!(Broadcast, "server_cpu_user_ns_per_delivery", "of it in user mode", "user",
        Nanoseconds, None,
        |f| split(f, f.loadgen.broadcast.as_ref()?.deliveries_per_s, |ticks| ticks.user)),
    metric!(Broadcast, "server_cpu_sys_ns_per_delivery", "of it in the kernel", "kernel",
        Nanoseconds, None,
        |f| split(f, f.loadgen.broadcast.as_ref()?.deliveries_per_s, |ticks| ticks.system)),
    metric!(Broadcast, "server_bytes_per_connection", "memory/connection", "mem/conn", Bytes, DOWN,
        bytes_per_connection),
    metric!(Broadcast, "server_cpu_share", "server CPU", "CPU", Share, None, server_cpu_share),
    metric!(Broadcast, "generator_cpu_share", "generator CPU", "gen. CPU", Share, None,
        generator_cpu_share),

    metric!(Connect, "handshakes_per_s", "handshakes/s", "handshakes/s", PerSecond, UP,
        |f| Some(f.loadgen.connect.handshakes_per_s)),
    metric!(Connect, "lives_per_s", "lives/s", "lives/s", PerSecond, UP,
        |f| Some(f.loadgen.connect.lives?.lives_per_s)),
    metric!(Connect, "latency_intended_p50_ns", "p50 intended", "p50 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.connect.handshake_latency_intended.as_ref(), 50.0)),
    metric!(Connect, "latency_intended_p99_ns", "p99 intended", "p99 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.connect.handshake_latency_intended.as_ref(), 99.0)),
    metric!(Connect, "latency_handshake_p50_ns", "p50", "p50", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.connect.handshake_latency.as_ref(), 50.0)),
    metric!(Connect, "latency_handshake_p99_ns", "p99", "p99", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.connect.handshake_latency.as_ref(), 99.0)),
    metric!(Connect, "server_cpu_ns_per_handshake", "server CPU/handshake", "CPU/handshake",
        Nanoseconds, DOWN, |f| cpu_per(f, f.loadgen.connect.handshakes_per_s)),
    metric!(Connect, "server_cpu_ns_per_life", "server CPU/life", "CPU/life",
        Nanoseconds, DOWN, |f| cpu_per(f, f.loadgen.connect.lives?.lives_per_s)),
    metric!(Connect, "server_cpu_share", "server CPU", "CPU", Share, None, server_cpu_share),
    metric!(Connect, "generator_cpu_share", "generator CPU", "gen. CPU", Share, None,
        generator_cpu_share),

    metric!(Idle, "server_bytes_per_connection", "memory/connection", "mem/conn", Bytes, DOWN,
        bytes_per_connection),
    metric!(Idle, "server_pss_bytes_per_connection", "PSS/connection", "PSS/conn", Bytes, None,
        pss_per_connection),
    metric!(Idle, "kernel_bytes_per_connection_both_ends", "kernel/connection (both ends)",
        "kernel/conn (both ends)", Bytes, None, kernel_per_connection),
    metric!(Idle, "server_rss_bytes_after", "RSS after all left", "RSS after", Bytes, None,
        |f| Some(f.server.after.rss_bytes? as f64)),
    metric!(Idle, "server_cpu_share", "server CPU", "CPU", Share, None, server_cpu_share),

    metric!(Scale, "handshakes_per_s", "connected/s", "up/s", PerSecond, UP,
        |f| Some(f.loadgen.connect.handshakes_per_s)),
    metric!(Scale, "connect_ns", "time to connect all", "up in", Nanoseconds, None,
        |f| Some(f.loadgen.connect.elapsed_ns as f64)),
    metric!(Scale, "server_user_bytes_per_connection", "server memory/connection", "server/conn",
        Bytes, DOWN, |f| grown(f, |sample| sample.server.pss_bytes)),
    metric!(Scale, "server_resident_bytes_per_connection", "the same by resident memory", "",
        Bytes, None, |f| grown(f, |sample| sample.server.rss_bytes)),
    metric!(Scale, "generator_user_bytes_per_connection", "generator memory/connection",
        "gen./conn", Bytes, None, |f| grown(f, |sample| sample.generator.pss_bytes)),
    metric!(Scale, "kernel_bytes_per_connection_both_ends", "kernel memory/connection (both ends)",
        "kernel/conn", Bytes, None, |f| grown(f, |sample| sample.kernel.kernel_bytes())),
    metric!(Scale, "all_bytes_at_peak", "all memory, both ends, kernel and user, at its peak",
        "in all", Bytes, None, all_at_peak),
    metric!(Scale, "all_bytes_no_longer_available",
        "all memory as `free` counts it (MemAvailable), all up", "by `free`", Bytes, None,
        no_longer_available),
    metric!(Scale, "latency_intended_p50_ns", "p50 intended", "p50 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 50.0)),
    metric!(Scale, "latency_intended_p99_ns", "p99 intended", "p99 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 99.0)),
    metric!(Scale, "latency_intended_p99_9_ns", "p99.9 intended", "p99.9 int.", Nanoseconds, DOWN,
        |f| percentile(f.loadgen.latency_intended.as_ref(), 99.9)),
    metric!(Scale, "pings_answered_per_s", "pings answered/s", "pings/s", PerSecond, None,
        pings_per_s),
    metric!(Scale, "server_cpu_share", "server CPU", "CPU", Share, None, server_cpu_share),
    metric!(Scale, "generator_cpu_share", "generator CPU", "gen. CPU", Share, None,
        generator_cpu_share),
    metric!(Scale, "drain_ns", "time to close all", "closed in", Nanoseconds, None,
        |f| Some(f.footprint?.drain_ns? as f64)),
    metric!(Scale, "kept_bytes", "memory not given back at the end", "kept", Bytes, None,
        |f| f.footprint?.kept_bytes()),

    metric!(Capacity, "capacity_per_s", "highest rate within the limit", "highest rate",
        PerSecond, UP, |f| f.capacity?.rate_per_s()),
    metric!(Capacity, "latency_intended_p50_ns", "p50 intended at that rate", "p50 int.",
        Nanoseconds, None, |f| percentile(f.loadgen.latency_intended.as_ref(), 50.0)),
    metric!(Capacity, "latency_intended_p99_ns", "p99 intended at that rate", "p99 int.",
        Nanoseconds, None, |f| percentile(f.loadgen.latency_intended.as_ref(), 99.0)),
    metric!(Capacity, "server_cpu_ns_per_message", "server CPU/message", "CPU/msg",
        Nanoseconds, DOWN, |f| cpu_per(f, f.loadgen.throughput.messages_per_s)),
    metric!(Capacity, "server_cpu_share", "server CPU at that rate", "CPU", Share, None,
        server_cpu_share),
    metric!(Capacity, "generator_cpu_share", "generator CPU at that rate", "gen. CPU", Share, None,
        generator_cpu_share),
];

/// A percentile with enough samples beyond it.
fn percentile(latency: Option<&Latency>, percentile: f64) -> Option<f64> {
    let latency = latency.filter(|latency| latency.supports(percentile / 100.0))?;
    value_at(latency, percentile)
}

fn value_at(latency: &Latency, percentile: f64) -> Option<f64> {
    let value = match percentile {
        50.0 => latency.p50_ns,
        90.0 => latency.p90_ns,
        99.0 => latency.p99_ns,
        99.9 => latency.p99_9_ns,
        99.99 => latency.p99_99_ns,
        _ => return None,
    };
    Some(value as f64)
}

/// No minimum sample count for the mean: large broadcasts have few messages per second, and
/// variation shows between runs.
fn mean(latency: Option<&Latency>) -> Option<f64> {
    latency
        .filter(|latency| latency.count > 0)
        .map(|latency| latency.mean_ns)
}

/// Events inside the window, from their rate.
fn events(facts: &Facts<'_>, per_s: f64) -> Option<f64> {
    let events = per_s * facts.loadgen.window_ns as f64 / 1e9;
    (events > 0.0).then_some(events)
}

fn cpu_per(facts: &Facts<'_>, per_s: f64) -> Option<f64> {
    Some(facts.server.window?.cost_ns() as f64 / events(facts, per_s)?)
}

/// The exact CPU time, split as the clock ticks of 10 ms are: too coarse for the time itself, good
/// enough for the proportion.
fn split(facts: &Facts<'_>, per_s: f64, of: fn(&CpuTicks) -> u64) -> Option<f64> {
    let ticks = facts.server.window?.ticks;
    let all = ticks.user + ticks.system;
    (all >= TICKS_FOR_A_SPLIT).then_some(())?;
    Some(cpu_per(facts, per_s)? * of(&ticks) as f64 / all as f64)
}

/// Counted by the server itself over its whole life, the opening of the connections included, as
/// are the messages. `None` where a server cannot count them: monoio keeps its ring to itself, and
/// on epoll only a tracer could, at a cost that is no longer the server's.
fn enters_per_message(facts: &Facts<'_>) -> Option<f64> {
    let last = facts.server.final_line.as_ref()?;
    let enters = last.get("enters")?.as_u64()?;
    let messages = last.get("messages_received")?.as_u64()?;
    (messages > 0).then(|| enters as f64 / messages as f64)
}

fn switches_per(facts: &Facts<'_>, per_s: f64) -> Option<f64> {
    let window = facts.server.window?;
    Some((window.voluntary_switches + window.involuntary_switches) as f64 / events(facts, per_s)?)
}

fn server_cpu_share(facts: &Facts<'_>) -> Option<f64> {
    Some(facts.server.window?.cpu_share)
}

fn generator_cpu_share(facts: &Facts<'_>) -> Option<f64> {
    facts.loadgen.generator.busiest_share()
}

/// (RSS in the window - RSS before the first connection) / connections.
fn bytes_per_connection(facts: &Facts<'_>) -> Option<f64> {
    growth_per_connection(
        facts,
        facts.server.window?.rss_bytes,
        facts.server.before.rss_bytes?,
    )
}

fn pss_per_connection(facts: &Facts<'_>) -> Option<f64> {
    growth_per_connection(
        facts,
        facts.server.window?.pss_bytes?,
        facts.server.before.pss_bytes?,
    )
}

/// Slab caches and socket buffers. On loopback both ends of a connection are in it.
fn kernel_per_connection(facts: &Facts<'_>) -> Option<f64> {
    let (during, before) = (facts.server.window?.kernel?, facts.server.before.kernel?);
    growth_per_connection(
        facts,
        during.slab_bytes + during.tcp_buffer_bytes,
        before.slab_bytes + before.tcp_buffer_bytes,
    )
}

/// Growth from the server's readiness until all were up, per connection. Of the generator it is
/// all: it was not there before.
fn grown(facts: &Facts<'_>, of: impl Fn(&MemorySample) -> u64) -> Option<f64> {
    let footprint = facts.footprint?;
    growth_per_connection(facts, of(&footprint.up?), of(&footprint.ready))
}

/// What the machine used at most, beyond what it used before the server was there.
fn all_at_peak(facts: &Facts<'_>) -> Option<f64> {
    let footprint = facts.footprint?;
    let grown = footprint
        .peak_used_bytes
        .checked_sub(footprint.before.used_bytes)?;
    (footprint.connections >= CONNECTIONS_FOR_MEMORY).then_some(grown as f64)
}

/// By how much `MemAvailable` sank until all were up.
fn no_longer_available(facts: &Facts<'_>) -> Option<f64> {
    let footprint = facts.footprint?;
    let (before, up) = (footprint.before, footprint.up?.kernel);
    let sunk = before.available_bytes?.checked_sub(up.available_bytes?)?;
    (footprint.connections >= CONNECTIONS_FOR_MEMORY).then_some(sunk as f64)
}

fn pings_per_s(facts: &Facts<'_>) -> Option<f64> {
    let pings = facts.loadgen.idle?.pings_answered_in_window;
    Some(pings as f64 / (facts.loadgen.window_ns as f64 / 1e9))
}

fn growth_per_connection(facts: &Facts<'_>, during: u64, before: u64) -> Option<f64> {
    let connections = facts.loadgen.connections.up;
    (connections >= CONNECTIONS_FOR_MEMORY)
        .then(|| (during as f64 - before as f64) / connections as f64)
}

#[cfg(test)]
mod tests;
