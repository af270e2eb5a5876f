//! Threads' results into one record, once, at the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    check::Validity,
    config::Config,
    engine::{
        fan_out_timing::FanOutTiming,
        second::SecondPart,
        shared::Shared,
        worker::{ThreadResult, merge_handshakes},
    },
    histogram::{self, Latencies},
    plan::Plan,
    record::{
        Broadcast, ConnectPhase, Connections, Generator, Idle, LittlesLaw, LoadKind, Messages,
        Options, Record, SCHEMA_VERSION, Second, Shard, Subprotocols, Throughput, Totals,
        Verification,
    },
    verdict::check_run,
};

/// With fewer, one message more or less at the edges of the window is a visible part of the rate.
const MESSAGES_FOR_A_RATE: u64 = 100;

/// What a run gives: the record, and what the histogram files need beyond it.
#[derive(Debug)]
pub struct RunOutput {
    /// The record.
    pub record: Record,
    /// From the send that counts; in kind `connect` the handshakes.
    pub main: Latencies,
    /// From the actual send, in an open loop.
    pub actual: Option<Latencies>,
    /// `main` by second.
    pub seconds: Vec<Latencies>,
    /// When the measured window began.
    pub window_start: SystemTime,
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
}

/// Puts everything together and judges it.
pub fn assemble(partial: PartialResults<'_>) -> RunOutput {
    let PartialResults {
        config,
        plan,
        shared,
        epoch,
        results,
        ..
    } = &partial;
    let times = shared.times();
    let window_ns = if times.start == u64::MAX {
        0
    } else {
        times.to.saturating_sub(times.from)
    };
    let (main, actual) = merge_latencies(results);
    let seconds = merge_seconds(results);
    let mut counts = Counts::of(results, config);
    if partial.incomplete {
        counts.totals.lost_in_warmup = 0;
    }
    let per_second = |count: u64| rate(count, window_ns);
    let throughput = Throughput {
        messages_per_s: per_second(counts.replies_in_window),
        payload_bytes_per_s: per_second(counts.replies_in_window) * config.traffic.size as f64,
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
        window_start_unix_ns: if window_ns == 0 {
            0
        } else {
            unix_ns(*epoch, times.from)
        },
        window_end_unix_ns: if window_ns == 0 {
            0
        } else {
            unix_ns(*epoch, times.to)
        },
        window_ns,
        connections: connections(&partial),
        connect: connect_phase(results),
        messages: counts.messages,
        totals: counts.totals,
        throughput,
        latency_intended: None,
        latency_actual: None,
        littles_law: None,
        generator: generator(&partial, counts.replies_in_window),
        broadcast: None,
        idle: None,
        series: series(results, &seconds),
    };
    match (&actual, config.kind) {
        (_, LoadKind::Connect) => {
            record.connect = ConnectPhase {
                completed: counts.replies_in_window,
                failed: record.connections.failed,
                elapsed_ns: window_ns,
                handshakes_per_s: per_second(counts.replies_in_window),
                handshake_latency: summary,
                subprotocols: record.connect.subprotocols.take(),
            };
            record.messages = Messages::default();
            record.throughput = Throughput::default();
            record.generator.schedule_lag = None;
        }
        (Some(actual), _) => {
            record.latency_intended = summary;
            record.latency_actual = histogram::summarise(actual);
        }
        (None, _) => record.latency_actual = summary,
    }
    match config.kind {
        LoadKind::Broadcast => record.broadcast = Some(broadcast(&record, config, partial.timing)),
        LoadKind::Idle => record.idle = Some(idle(results, config, &record)),
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
        seconds,
        window_start: *epoch
            + std::time::Duration::from_nanos(if window_ns == 0 { 0 } else { times.from }),
    }
}

/// Counters of all threads.
#[derive(Debug, Default)]
struct Counts {
    messages: Messages,
    totals: Totals,
    replies_in_window: u64,
    in_flight_ns: u128,
    outstanding_ns: i128,
}

impl Counts {
    fn of(results: &[ThreadResult], config: &Config) -> Self {
        let mut all = Self::default();
        let (mut settled, mut settled_in_all, mut due) = (0, 0, 0);
        for ThreadResult { stats, .. } in results {
            let (messages, window) = (&mut all.messages, &stats.window);
            messages.sent += window.sent;
            messages.received += window.received;
            messages.duplicated += window.duplicated;
            messages.reordered += window.reordered;
            messages.corrupted += window.corrupted;
            messages.unsolicited += window.unsolicited;
            messages.received_payload_bytes += window.received_payload_bytes;
            messages.delayed_by_window += window.delayed_by_window;
            all.totals.sent += stats.totals.sent;
            all.totals.received += stats.totals.received;
            all.totals.pings_answered += stats.totals.pings_answered;
            all.totals.pings_unanswered += stats.totals.pings_unanswered;
            all.totals.handshakes += stats.totals.handshakes;
            all.replies_in_window += stats.replies_in_window;
            all.in_flight_ns += stats.in_flight_ns;
            all.outstanding_ns += stats.outstanding_ns;
            settled += stats.settled;
            settled_in_all += stats.settled_in_all;
            due += stats.due;
        }
        let replies_each = match config.kind {
            LoadKind::Broadcast => config.connections,
            LoadKind::Echo | LoadKind::Connect | LoadKind::Idle => 1,
        };
        all.messages.expected = all.messages.sent * replies_each;
        all.messages.lost = all.messages.expected.saturating_sub(settled);
        all.messages.unsent = due.saturating_sub(all.messages.sent);
        all.totals.lost_in_warmup = (all.totals.sent * replies_each)
            .saturating_sub(settled_in_all)
            .saturating_sub(all.messages.lost);
        all
    }
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

fn merge_latencies(results: &[ThreadResult]) -> (Latencies, Option<Latencies>) {
    let mut main = histogram::new();
    let mut actual = None;
    for result in results {
        histogram::merge(&mut main, &result.latest.main);
        if let Some(part) = &result.latest.actual {
            histogram::merge(actual.get_or_insert_with(histogram::new), part);
        }
    }
    (main, actual)
}

fn merge_seconds(results: &[ThreadResult]) -> Vec<Latencies> {
    let count = results
        .iter()
        .map(|result| result.latest.seconds.len())
        .max()
        .unwrap_or(0);
    (0..count)
        .map(|second| {
            let mut all = histogram::new();
            for part in parts(results, second).filter(|part| !part.latencies.is_empty()) {
                histogram::add_packed(&mut all, &part.latencies);
            }
            all
        })
        .collect()
}

fn parts(results: &[ThreadResult], second: usize) -> impl Iterator<Item = &SecondPart> {
    results
        .iter()
        .filter_map(move |result| result.latest.seconds.get(second))
}

fn series(results: &[ThreadResult], seconds: &[Latencies]) -> Vec<Second> {
    seconds
        .iter()
        .enumerate()
        .map(|(second, latencies)| Second {
            second: second as u64,
            sent: parts(results, second).map(|part| part.sent).sum(),
            received: parts(results, second).map(|part| part.received).sum(),
            latency_p99_ns: (!latencies.is_empty()).then(|| latencies.value_at_quantile(0.99)),
        })
        .collect()
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
        spin_us: config.spin.as_micros() as u64,
        verification: Verification::of_size(config.traffic.size),
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

fn connect_phase(results: &[ThreadResult]) -> ConnectPhase {
    let openings = results.iter().filter_map(|result| result.opening);
    let (first, last) = openings.fold((u64::MAX, 0), |(first, last), (begun, done)| {
        (first.min(begun), last.max(done))
    });
    let completed = results
        .iter()
        .map(|result| result.stats.totals.handshakes)
        .sum();
    let elapsed_ns = last.saturating_sub(first);
    let mut subprotocols = Subprotocols::default();
    for result in results {
        subprotocols.add(&result.stats.subprotocols);
    }
    ConnectPhase {
        completed,
        failed: results.iter().map(|result| result.outcome.failed).sum(),
        elapsed_ns,
        handshakes_per_s: rate(completed, elapsed_ns),
        handshake_latency: histogram::summarise(&merge_handshakes(results)),
        subprotocols: (subprotocols != Subprotocols::default()).then_some(subprotocols),
    }
}

fn generator(partial: &PartialResults<'_>, messages: u64) -> Generator {
    let results = &partial.results;
    let threads: Vec<_> = results.iter().map(|result| result.usage).collect();
    let cpu_user_ns = threads.iter().map(|thread| thread.cpu_user_ns).sum();
    let cpu_sys_ns = threads.iter().map(|thread| thread.cpu_sys_ns).sum();
    let mut lag = histogram::new();
    for result in results {
        histogram::merge(&mut lag, &result.stats.lag);
    }
    Generator {
        cpu_user_ns,
        cpu_sys_ns,
        cpu_ns_per_message: (messages > 0)
            .then(|| (cpu_user_ns + cpu_sys_ns) as f64 / messages as f64),
        cpus: Some(partial.plan.cpus as u64),
        threads,
        shards: partial.shards.clone(),
        schedule_lag: histogram::lag(&lag),
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

fn idle(results: &[ThreadResult], config: &Config, record: &Record) -> Idle {
    Idle {
        held: record.connections.up,
        still_up: results.iter().map(|result| result.outcome.still_up).sum(),
        active: config.traffic.active_connections.unwrap_or(0),
        pings_answered: record.totals.pings_answered,
        pings_answered_in_window: results
            .iter()
            .map(|result| result.stats.pings_in_window)
            .sum(),
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
/// Open loop: rate x mean latency, both as recorded, against the number in flight integrated over
/// time ([`Stats::outstanding_ns`](crate::engine::stats::Stats::outstanding_ns)). A reply taken for
/// that of another message, a latency that is not in the histogram, a rate that was not kept: each
/// breaks it. Both sides are of the window's messages until their last reply, so there are no
/// edges.
fn littles_law(record: &Record, config: &Config, counts: &Counts) -> Option<LittlesLaw> {
    if record.messages.received == 0 {
        return None;
    }
    let window_ns = record.window_ns.max(1) as f64;
    let (expected, measured) = match (config.traffic.rate_per_s, config.kind) {
        (Some(_), _) if record.messages.received < MESSAGES_FOR_A_RATE => return None,
        (Some(rate), LoadKind::Echo | LoadKind::Idle) => (
            rate * record.latency_actual.as_ref()?.mean_ns / 1e9,
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
