//! Threads' results into one record, once, at the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    check::Validity,
    config::{Config, MILLION},
    engine::{
        fan_out_timing::FanOutTiming,
        second::SecondPart,
        shared::{Shared, Times},
        stats::{Latest, Stats},
        worker::ThreadResult,
    },
    histogram::{self, Latencies},
    plan::Plan,
    record::{
        Broadcast, ConnectPhase, ConnectSchedule, Connections, Generator, Idle, LittlesLaw, Lives,
        LoadKind, Options, Record, SCHEMA_VERSION, Second, Shard, Subprotocols, Throughput,
        Verification,
    },
    verdict::check_run,
};

const SECOND_NS: u64 = 1_000_000_000;

/// What a run gives: the record, and what the histogram files need beyond it.
#[derive(Debug)]
pub struct RunOutput {
    /// The record.
    pub record: Record,
    /// From the send that counts; in kind `connect` the handshakes.
    pub main: Latencies,
    /// From the actual send, in an open loop.
    pub actual: Option<Latencies>,
    /// Of `main` those to connections that are not hot, where some are.
    pub others: Option<Latencies>,
    /// `main` by second, or by slice.
    pub intervals: Vec<Interval>,
    /// Replies received inside the measured window.
    pub replies: u64,
    /// When the measured window began.
    pub window_start: SystemTime,
}

/// Latencies of a part of the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// Since the begin of the window.
    pub start_ns: u64,
    /// How long it was.
    pub length_ns: u64,
    /// [Packed](histogram::pack).
    pub latencies: Vec<u8>,
}

/// The measured window, in clock time; all 0 when the run never got there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: u64,
    /// Its end (not included).
    pub to: u64,
    /// Its length; of several slices, without the pauses.
    pub ns: u64,
}

impl Window {
    /// From the end of the warm-up to the end of the load.
    pub fn of(times: &Times) -> Self {
        match times.to.saturating_sub(times.from) {
            0 => Self::default(),
            ns => Self {
                from: times.from,
                to: times.to,
                ns,
            },
        }
    }

    /// And a later slice.
    pub fn add(&mut self, slice: &Self) {
        *self = Self {
            from: if self.ns == 0 { slice.from } else { self.from },
            to: slice.to,
            ns: self.ns + slice.ns,
        };
    }
}

/// What the threads of a run measured, before it is merged.
#[derive(Debug)]
pub struct PartialResults<'a> {
    /// What was asked for.
    pub config: &'a Config,
    /// Who opened what.
    pub plan: &'a Plan,
    /// The clock, the phases, the failures.
    pub shared: &'a Shared,
    /// Wall clock at time 0.
    pub epoch: SystemTime,
    /// Ctrl-C.
    pub interrupted: bool,
    /// What the threads measured.
    pub results: Vec<ThreadResult>,
    /// Kind `broadcast`.
    pub timing: &'a FanOutTiming,
    /// The processes, if there were several.
    pub shards: Vec<Shard>,
    /// One of them died: some counts are of a time when others were not.
    pub incomplete: bool,
    /// When was measured.
    pub window: Window,
    /// A run in slices, by slice.
    pub slices: Option<Vec<Interval>>,
}

/// Puts everything together and judges it.
pub fn assemble(partial: PartialResults<'_>) -> RunOutput {
    let PartialResults {
        config,
        plan,
        shared,
        epoch,
        results,
        window,
        ..
    } = &partial;
    let window_ns = window.ns;
    let in_window = |time: u64| if window_ns == 0 { 0 } else { time };
    let Latest {
        main,
        actual,
        others,
        ..
    } = merge_latencies(results);
    let (series, seconds) = seconds(results);
    let mut counts = count(results, config);
    if partial.incomplete {
        counts.totals.lost_in_warmup = 0;
    }
    let per_second = |count: u64| rate(count, window_ns);
    let throughput = Throughput {
        messages_per_s: per_second(counts.replies_in_window),
        payload_bytes_per_s: per_second(counts.replies_in_window) * config.traffic.mean_size(),
    };
    let summary = histogram::summarise(&main);
    let mut record = Record {
        schema_version: SCHEMA_VERSION,
        loadgen_version: env!("CARGO_PKG_VERSION").into(),
        kind: config.kind,
        options: to_options(config, plan),
        validity: Validity::default(),
        interrupted: partial.interrupted,
        failure: shared.failure(),
        started_unix_ns: unix_ns(*epoch, 0),
        window_start_unix_ns: in_window(unix_ns(*epoch, window.from)),
        window_end_unix_ns: in_window(unix_ns(*epoch, window.to)),
        window_start_monotonic_ns: in_window(shared.clock.monotonic(window.from)),
        window_end_monotonic_ns: in_window(shared.clock.monotonic(window.to)),
        window_ns,
        slices: partial.slices.as_ref().map(|slices| slices.len() as u64),
        connections: connections(&partial),
        connect: connect_phase(results, &counts),
        messages: counts.window,
        totals: counts.totals,
        throughput,
        latency_intended: None,
        latency_actual: None,
        latency_others: others.as_ref().and_then(histogram::summarise),
        littles_law: None,
        generator: generator(&partial, &counts),
        broadcast: None,
        idle: None,
        series,
    };
    match (&actual, config.kind) {
        (actual, LoadKind::Connect) => {
            let (from_begin, from_intended) = match actual {
                Some(actual) => (histogram::summarise(actual), summary),
                None => (summary, None),
            };
            record.connect = ConnectPhase {
                completed: counts.replies_in_window,
                failed: record.connections.failed,
                elapsed_ns: window_ns,
                handshakes_per_s: per_second(counts.replies_in_window),
                handshake_latency: from_begin,
                handshake_latency_intended: from_intended,
                schedule: config.traffic.rate_per_s.map(|_| ConnectSchedule {
                    due: counts.due,
                    missing: counts.window.unsent,
                    delayed: counts.window.delayed_by_window,
                }),
                lives: (config.traffic.messages > 0).then(|| Lives {
                    messages: config.traffic.messages,
                    completed: counts.lives.completed,
                    lives_per_s: per_second(counts.lives.completed),
                }),
                subprotocols: record.connect.subprotocols.take(),
            };
            let messages_per_s = per_second(counts.lives.replies_in_window);
            record.messages = counts.lives.messages;
            record.throughput = Throughput {
                messages_per_s,
                payload_bytes_per_s: messages_per_s * config.traffic.size as f64,
            };
            record.latency_actual = histogram::summarise(&counts.lives.round_trips);
        }
        (Some(actual), _) => {
            record.latency_intended = summary;
            record.latency_actual = histogram::summarise(actual);
        }
        (None, _) => record.latency_actual = summary,
    }
    match config.kind {
        LoadKind::Broadcast => record.broadcast = Some(broadcast(&record, config, partial.timing)),
        LoadKind::Idle => record.idle = Some(idle(results, config, &record, &counts)),
        LoadKind::Echo | LoadKind::Connect => {}
    }
    if !partial.incomplete {
        record.littles_law = littles_law(&record, config, &counts);
    }
    record.validity = check_run(&record);
    RunOutput {
        record,
        main,
        actual,
        others,
        intervals: partial.slices.unwrap_or(seconds),
        replies: counts.replies_in_window,
        window_start: partial.epoch + Duration::from_nanos(partial.window.from),
    }
}

/// Counters of all threads.
fn count(results: &[ThreadResult], config: &Config) -> Stats {
    let mut all = Stats::new(false);
    results.iter().for_each(|result| all.add(&result.stats));
    let replies_each = match config.kind {
        LoadKind::Broadcast => config.connections,
        LoadKind::Echo | LoadKind::Connect | LoadKind::Idle => 1,
    };
    let messages = &mut all.window;
    messages.expected = messages.sent * replies_each;
    messages.lost = messages.expected.saturating_sub(all.settled);
    messages.unsent = all.due.saturating_sub(messages.sent);
    let (settled_in_all, lost) = match config.kind {
        LoadKind::Connect => {
            let lives = &mut all.lives;
            lives.messages.expected = lives.messages.sent;
            lives.messages.lost = lives.messages.sent.saturating_sub(lives.settled);
            (lives.settled_in_all, lives.messages.lost)
        }
        LoadKind::Echo | LoadKind::Broadcast | LoadKind::Idle => {
            (all.settled_in_all, messages.lost)
        }
    };
    all.totals.lost_in_warmup = (all.totals.sent * replies_each)
        .saturating_sub(settled_in_all)
        .saturating_sub(lost);
    all
}

fn rate(count: u64, window_ns: u64) -> f64 {
    if window_ns == 0 {
        0.0
    } else {
        count as f64 * 1e9 / window_ns as f64
    }
}

fn unix_ns(epoch: SystemTime, ns: u64) -> u64 {
    let since = epoch.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u64).saturating_add(ns)
}

fn merge_latencies(results: &[ThreadResult]) -> Latest {
    let mut all = Latest {
        main: histogram::new(),
        actual: None,
        others: None,
        seconds: Vec::new(),
    };
    results.iter().for_each(|result| all.add(&result.latest));
    all
}

/// Every second, with its latencies.
fn seconds(results: &[ThreadResult]) -> (Vec<Second>, Vec<Interval>) {
    let counts = results.iter().map(|result| result.latest.seconds.len());
    (0..counts.max().unwrap_or(0))
        .map(|second| {
            let mut all = histogram::new();
            for part in parts(results, second).filter(|part| !part.latencies.is_empty()) {
                histogram::add_packed(&mut all, &part.latencies);
            }
            let row = Second {
                second: second as u64,
                sent: parts(results, second).map(|part| part.sent).sum(),
                received: parts(results, second).map(|part| part.received).sum(),
                latency_p99_ns: (!all.is_empty()).then(|| all.value_at_quantile(0.99)),
            };
            let interval = Interval {
                start_ns: second as u64 * SECOND_NS,
                length_ns: SECOND_NS,
                latencies: histogram::pack(&all),
            };
            (row, interval)
        })
        .unzip()
}

fn parts(results: &[ThreadResult], second: usize) -> impl Iterator<Item = &SecondPart> {
    results
        .iter()
        .filter_map(move |result| result.latest.seconds.get(second))
}

/// The options as the record keeps them; processes, threads and source addresses as the plan
/// decided.
fn to_options(config: &Config, plan: &Plan) -> Options {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Options {
        urls: config.urls.clone(),
        connections: config.connections,
        duration_ns: ns(config.duration),
        warmup_ns: ns(config.warmup),
        drain_timeout_ns: ns(config.drain_timeout),
        threads: plan.threads as u64,
        shards: plan.shards as u64,
        cpus: config.cpus.clone(),
        rate_per_s: config.traffic.rate_per_s,
        window: config.traffic.window,
        size_bytes: config.traffic.size,
        fragments: (config.traffic.fragments > 1).then_some(config.traffic.fragments),
        connect_rate_per_s: config.connect_rate_per_s,
        source_ips: plan.source_ips().iter().map(ToString::to_string).collect(),
        header_names: config
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        header_values: config.headers.iter().filter_map(public).cloned().collect(),
        subprotocols: config.subprotocols.clone(),
        publishers: config.traffic.publishers,
        active_fraction: config.traffic.active_fraction,
        messages_per_connection: (config.traffic.messages > 0).then_some(config.traffic.messages),
        hot_connections: config.traffic.hot.map(|hot| hot.connections),
        hot_share: config
            .traffic
            .hot
            .map(|hot| hot.share_millionths as f64 / MILLION as f64),
        hot_size_bytes: config.traffic.hot_size(),
        spin_us: config.spin.as_micros() as u64,
        verification: Verification::of_size(config.traffic.smallest_size()),
    }
}

/// A header whose value is no secret.
fn public(header: &(String, String)) -> Option<&(String, String)> {
    let is = |name: &&str| header.0.eq_ignore_ascii_case(name);
    ["Host", "Origin", "User-Agent"]
        .iter()
        .any(is)
        .then_some(header)
}

fn connections(partial: &PartialResults<'_>) -> Connections {
    let sum = |count: fn(&ThreadResult) -> u64| partial.results.iter().map(count).sum();
    Connections {
        requested: partial.config.connections,
        up: sum(|result| result.outcome.up),
        closed_early: sum(|result| result.outcome.closed_early),
        failed: sum(|result| result.outcome.failed),
        first_loss: partial.shared.first_loss(),
        most_per_source: Some(partial.plan.most_per_source),
    }
}

fn connect_phase(results: &[ThreadResult], counts: &Stats) -> ConnectPhase {
    let openings = results.iter().filter_map(|result| result.opening);
    let (first, last) = openings.fold((u64::MAX, 0), |(first, last), (begun, done)| {
        (first.min(begun), last.max(done))
    });
    let completed = counts.totals.handshakes;
    let elapsed_ns = last.saturating_sub(first);
    let subprotocols = counts.subprotocols.clone();
    ConnectPhase {
        completed,
        failed: results.iter().map(|result| result.outcome.failed).sum(),
        elapsed_ns,
        handshakes_per_s: rate(completed, elapsed_ns),
        handshake_latency: histogram::summarise(&counts.handshakes),
        handshake_latency_intended: None,
        schedule: None,
        lives: None,
        subprotocols: (subprotocols != Subprotocols::default()).then_some(subprotocols),
    }
}

fn generator(partial: &PartialResults<'_>, counts: &Stats) -> Generator {
    let results = &partial.results;
    let threads: Vec<_> = results.iter().map(|result| result.usage).collect();
    let cpu_user_ns = threads.iter().map(|thread| thread.cpu_user_ns).sum();
    let cpu_sys_ns = threads.iter().map(|thread| thread.cpu_sys_ns).sum();
    let messages = counts.replies_in_window;
    Generator {
        cpu_user_ns,
        cpu_sys_ns,
        cpu_ns_per_message: (messages > 0)
            .then(|| (cpu_user_ns + cpu_sys_ns) as f64 / messages as f64),
        cpus: Some(partial.plan.cpus as u64),
        threads,
        shards: partial.shards.clone(),
        schedule_lag: histogram::lag(&counts.lag),
    }
}

fn broadcast(record: &Record, config: &Config, timing: &FanOutTiming) -> Broadcast {
    let mut section = Broadcast {
        members: config.connections,
        publishers: config.traffic.publishers.unwrap_or(0),
        published: record.messages.sent,
        deliveries_expected: record.messages.expected,
        deliveries: record.messages.received,
        deliveries_per_s: record.throughput.messages_per_s,
        out_of_order: record.messages.reordered,
        ..Broadcast::default()
    };
    timing.fill(&mut section);
    section
}

fn idle(results: &[ThreadResult], config: &Config, record: &Record, counts: &Stats) -> Idle {
    Idle {
        held: record.connections.up,
        still_up: results.iter().map(|result| result.outcome.still_up).sum(),
        active: config.traffic.active_connections.unwrap_or(0),
        pings_answered: record.totals.pings_answered,
        pings_answered_in_window: counts.pings_in_window,
    }
}

/// Requests in flight on average, against those that should have been.
///
/// Closed loop: Little's law says that throughput x mean latency is the average number in flight,
/// which should be connections x window all the time; over a finite window that holds exactly when
/// flights are cut at its edges ([`Stats::landed`](crate::engine::stats::Stats::landed)).
/// Broadcast: a message is in flight until its last receiver has it; with several threads its
/// publisher gets to know of that a wake-up later, so the law is not exact and is left out.
///
/// Open loop: messages due in the window x mean latency, against the number in flight integrated
/// over time ([`outstanding_ns`](Stats::outstanding_ns)). A reply taken for that of another
/// message, a latency that is not in the histogram, a rate that was not kept: each breaks it. Both
/// sides are of the window's messages until their last reply, so there are no edges.
fn littles_law(record: &Record, config: &Config, counts: &Stats) -> Option<LittlesLaw> {
    if record.messages.received == 0 {
        return None;
    }
    let window_ns = record.window_ns.max(1) as f64;
    let (expected, measured) = match (config.traffic.rate_per_s, config.kind) {
        (Some(_), LoadKind::Echo | LoadKind::Idle) => (
            counts.due as f64 * record.latency_actual.as_ref()?.mean_ns / window_ns,
            counts.outstanding_ns as f64 / window_ns,
        ),
        (Some(_), _) => return None,
        (None, kind) => {
            let streams = match kind {
                LoadKind::Echo => config.connections,
                LoadKind::Broadcast if record.options.threads == 1 => config.traffic.publishers?,
                LoadKind::Broadcast | LoadKind::Connect | LoadKind::Idle => return None,
            };
            (
                streams as f64 * config.traffic.window as f64,
                counts.in_flight_ns as f64 / window_ns,
            )
        }
    };
    Some(LittlesLaw {
        in_flight_expected: expected,
        in_flight_measured: measured,
        ratio: measured / expected,
    })
}
