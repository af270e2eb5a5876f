//! Is the run valid? A pure function of its record.
//!
//! Whether the generator was the limit is told by its schedule lag in an open loop. In a closed
//! loop a busy generator proves nothing by itself: with equal costs on both ends both are saturated
//! together. So a thread without CPU time to spare is a doubt here, and whoever sees the server's
//! CPU time too (`bench`) decides.

use crate::{
    check::{Check, CheckName, CheckStatus, RunStatus, Validity, worst},
    plan::PER_TRIPLE,
    record::{Latency, LoadKind, MIN_SAMPLES_BEYOND, Record, ScheduleLag},
};

/// Little's law may be off by this much.
pub const LITTLE_TOLERANCE: f64 = 0.02;
/// A schedule lag above this share of the latency at the same percentile makes most of that latency
/// the generator's own ...
pub const LAG_SHARE_LIMIT: f64 = 0.5;
/// ... and one above this much of it ...
pub const LAG_SHARE_DOUBT: f64 = 0.25;
/// ... but none up to this matters: on a busy machine every thread is woken that late at times.
pub const LAG_FLOOR_NS: u64 = 1_000_000;
/// A CPU that is busier than this has no time left: what was measured may be the generator.
pub const BUSY_LIMIT: f64 = 0.97;
/// A generator that did not run for this share of the window at a stretch measured the machine, not
/// the server ...
pub const STALL_SHARE_LIMIT: f64 = 0.25;
/// ... and one that did not for this long may have.
pub const STALL_DOUBT_NS: u64 = 100_000_000;
/// More messages delayed by the window than this share are worth a note.
const DELAYED_SHARE: f64 = 0.01;

/// Of a schedule of connections, not of messages.
const CONNECTIONS: &str = "connections";

/// The latency of what a schedule asked for, or else of messages.
fn scheduled(record: &Record) -> Option<&Latency> {
    let of_connections = record.connect.handshake_latency_intended.as_ref();
    of_connections.or_else(|| record.latency())
}

/// Judges a run.
pub fn check_run(record: &Record) -> Validity {
    let checks = checks(record);
    Validity {
        verdict: match worst(&checks) {
            CheckStatus::Invalid => RunStatus::Invalid,
            CheckStatus::Ok | CheckStatus::Note | CheckStatus::Doubtful => RunStatus::Valid,
        },
        checks,
        reasons: Vec::new(),
    }
}

/// All checks that apply to a run, from the facts in its record.
pub fn checks(record: &Record) -> Vec<Check> {
    let mut checks = ending(record);
    checks.extend(connections(record));
    checks.extend(stall(record));
    if record.kind != LoadKind::Connect || record.connect.lives.is_some() {
        checks.extend(losses(record));
    }
    if let Some(schedule) = record.connect.schedule {
        let missing = none(CheckName::Unsent, schedule.missing).beside(schedule.due as f64);
        checks.push(missing.detail(CONNECTIONS));
    }
    let unanswered = record.totals.pings_unanswered;
    checks.push(none(CheckName::PingsUnanswered, unanswered));
    if record.has_traffic() && worst(&checks) != CheckStatus::Invalid {
        checks.push(received(record));
    }
    checks.extend(littles_law(record));
    if let (Some(lag), Some(latency)) = (record.generator.schedule_lag, scheduled(record)) {
        checks.extend(lags(record, &lag, latency));
    }
    checks.extend(busy(record));
    checks.extend(notes(record));
    checks.extend(said_before(record, worst(&checks)));
    checks
}

fn ending(record: &Record) -> Vec<Check> {
    let failure = record.failure.iter().map(failure);
    let (was, asked) = (record.window_ns, record.options.duration_ns);
    let interrupted = Check::ok(CheckName::Interrupted, was as f64, asked as f64)
        .when(record.interrupted, CheckStatus::Invalid);
    failure
        .chain(record.interrupted.then_some(interrupted))
        .collect()
}

fn failure(cause: impl Into<String>) -> Check {
    none(CheckName::Failure, 1).detail(cause)
}

/// Something of which there may be none.
fn none(name: CheckName, count: u64) -> Check {
    Check::ok(name, count as f64, 0.0).when(count > 0, CheckStatus::Invalid)
}

fn connections(record: &Record) -> Vec<Check> {
    let found = &record.connections;
    let (up, requested) = (found.up, found.requested);
    let lost = none(CheckName::ConnectionsLost, found.closed_early).beside(requested as f64);
    let lost = match &found.first_loss {
        Some(cause) => lost.detail(cause),
        None => lost,
    };
    let opened = match record.kind {
        // They come and go; each is one that must not fail.
        LoadKind::Connect => none(CheckName::Handshakes, found.failed),
        LoadKind::Echo | LoadKind::Broadcast | LoadKind::Idle => {
            Check::ok(CheckName::Connections, up as f64, requested as f64)
                .when(up < requested, CheckStatus::Invalid)
        }
    };
    vec![opened, lost]
}

fn stall(record: &Record) -> Option<Check> {
    let (stall_ns, window_ns) = (record.generator.longest_stall_ns(), record.window_ns);
    let share_ns = window_ns as f64 * STALL_SHARE_LIMIT;
    let too_long = stall_ns > 0 && stall_ns as f64 >= share_ns;
    let (limit_ns, status) = match too_long {
        true => (share_ns, CheckStatus::Invalid),
        false => (STALL_DOUBT_NS as f64, CheckStatus::Doubtful),
    };
    let check = Check::ok(CheckName::GeneratorStall, stall_ns as f64, limit_ns)
        .when(too_long || stall_ns >= STALL_DOUBT_NS, status);
    Some(match record.generator.threads_per_cpu() {
        Some(threads) => check.beside(threads as f64),
        None => check,
    })
}

fn losses(record: &Record) -> [Check; 6] {
    let found = &record.messages;
    [
        none(CheckName::Lost, found.lost).beside(found.expected as f64),
        none(CheckName::LostInWarmup, record.totals.lost_in_warmup),
        none(CheckName::Unsent, found.unsent),
        none(CheckName::Duplicated, found.duplicated),
        none(CheckName::Reordered, found.reordered),
        none(CheckName::Corrupted, found.corrupted),
    ]
}

/// Messages of the window with which something is wrong.
pub fn faulty_messages(record: &Record) -> u64 {
    let found = &record.messages;
    found.lost + found.unsent + found.duplicated + found.reordered + found.corrupted
}

fn received(record: &Record) -> Check {
    let count = match record.kind {
        LoadKind::Connect => record.connect.completed,
        LoadKind::Echo | LoadKind::Broadcast | LoadKind::Idle => record.messages.received,
    };
    Check::ok(CheckName::Received, count as f64, 1.0).when(count == 0, CheckStatus::Invalid)
}

fn littles_law(record: &Record) -> Option<Check> {
    let ratio = record.littles_law?.ratio;
    let name = match record.options.rate_per_s {
        Some(_) => CheckName::LittlesLawOpenLoop,
        None => CheckName::LittlesLaw,
    };
    let limit = match ratio < 1.0 {
        true => 1.0 - LITTLE_TOLERANCE,
        false => 1.0 + LITTLE_TOLERANCE,
    };
    let holds = (ratio - 1.0).abs() <= LITTLE_TOLERANCE;
    Some(Check::ok(name, ratio, limit).when(!holds, CheckStatus::Invalid))
}

fn lags(record: &Record, lag: &ScheduleLag, latency: &Latency) -> [Check; 2] {
    let of = |name, lag_ns: u64, latency_ns: u64| {
        let share = |share: f64| (latency_ns as f64 * share).max(LAG_FLOOR_NS as f64);
        let limit_ns = match had_other_limits(record) {
            true => f64::INFINITY,
            false => share(LAG_SHARE_LIMIT),
        };
        let lag_ns = lag_ns as f64;
        let (first_ns, status) = match lag_ns > limit_ns {
            true => (limit_ns, CheckStatus::Invalid),
            false => (share(LAG_SHARE_DOUBT), CheckStatus::Doubtful),
        };
        let check = Check::ok(name, lag_ns, first_ns)
            .when(lag_ns > first_ns, status)
            .beside(latency_ns as f64);
        match record.kind {
            LoadKind::Connect => check.detail(CONNECTIONS),
            LoadKind::Echo | LoadKind::Broadcast | LoadKind::Idle => check,
        }
    };
    [
        of(CheckName::GeneratorLagP50, lag.p50_ns, latency.p50_ns),
        of(CheckName::GeneratorLagP99, lag.p99_ns, latency.p99_ns),
    ]
}

/// A record from before there was this rule may be invalid for a lag by others: then it says so,
/// and here it is only marked.
fn had_other_limits(record: &Record) -> bool {
    record.window_end_monotonic_ns == 0
}

fn busy(record: &Record) -> Option<Check> {
    if record.options.spin_us > 0 {
        // It polls: its CPU is always full.
        return None;
    }
    let busiest = record.generator.busiest_share()?;
    let check = Check::ok(CheckName::GeneratorCpu, busiest, BUSY_LIMIT);
    Some(check.when(busiest > BUSY_LIMIT, CheckStatus::Doubtful))
}

fn notes(record: &Record) -> Vec<Check> {
    let note = |name, observed: f64, limit: f64| {
        Check::ok(name, observed, limit).when(observed > limit, CheckStatus::Note)
    };
    let messages = &record.messages;
    let due = messages.sent + messages.unsent;
    let delayed = messages.delayed_by_window as f64 / due.max(1) as f64;
    let mut notes = vec![
        note(CheckName::Unsolicited, messages.unsolicited as f64, 0.0),
        note(CheckName::DelayedByWindow, delayed, DELAYED_SHARE),
    ];
    if let Some(schedule) = record.connect.schedule {
        let delayed = schedule.delayed as f64 / schedule.due.max(1) as f64;
        let check = note(CheckName::DelayedByWindow, delayed, DELAYED_SHARE);
        notes.push(check.detail(CONNECTIONS));
    }
    if let Some(latency) = scheduled(record) {
        let beyond = latency.count as f64 * 0.01;
        let check = Check::ok(CheckName::SamplesForP99, beyond, MIN_SAMPLES_BEYOND)
            .when(!latency.supports(0.99), CheckStatus::Note);
        notes.push(check.beside(latency.count as f64));
    }
    if let Some(most) = record.connections.most_per_source {
        let limit = PER_TRIPLE as f64;
        notes.push(note(CheckName::SourceAddresses, most as f64, limit));
    }
    notes
}

/// What a record says that its facts do not: one from before they were stored, or judged by other
/// limits.
fn said_before(record: &Record, worst: CheckStatus) -> Option<Check> {
    let unexplained =
        record.validity.verdict == RunStatus::Invalid && worst != CheckStatus::Invalid;
    unexplained.then(|| {
        let faults = record.validity.faults().map(ToString::to_string);
        let said: Vec<String> = record
            .validity
            .reasons
            .iter()
            .cloned()
            .chain(faults)
            .collect();
        let said = said.join("; ");
        failure(match said.is_empty() {
            true => "its record says that it is invalid, and no fact in it says why".to_owned(),
            false => said,
        })
    })
}

#[cfg(test)]
mod tests;
