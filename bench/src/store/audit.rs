//! Recomputes every figure in a result folder and reports differences: a run's figures from the
//! generator's record and what was seen of the server, its status from its checks, the summary from
//! the runs. Where they disagree, somebody has edited a file, or another version of bench wrote it.
//! Pure.

use loadgen::check;
use loadgen::record::{Latency, LoadKind, Record};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::judge::ruling::{Surroundings, decide};
use crate::record::environment::Environment;
use crate::record::{Check, CheckStatus, RunRecord, SCHEMA_VERSION, Search, Status};
use crate::summary::Summary;

/// How far two ways to the same number may part: JSON keeps all digits that matter.
const SAME: f64 = 1e-9;
/// How far a figure may be from what its histogram says: a histogram has three digits.
const SAME_IN_HISTOGRAM: f64 = 0.002;

/// What in the runs does not follow from what it should follow from; empty in an honest result.
pub fn audit_runs(runs: &[RunRecord], environment: &Environment) -> Vec<String> {
    runs.iter()
        .flat_map(|run| {
            let of_run = format!("{} block {} {}", run.bout, run.block, run.contestant);
            let found = audit_run(run, environment);
            found
                .into_iter()
                .map(move |finding| format!("{of_run}: {finding}"))
        })
        .collect()
}

fn audit_run(run: &RunRecord, environment: &Environment) -> Vec<String> {
    let mut found = Vec::new();
    let rules = Rules::of(Some(u64::from(run.schema_version)));
    if let Some(record) = &run.loadgen {
        let follow = run.extract_metrics();
        differences(
            "metrics",
            &json(&run.metrics),
            &json(&follow),
            rules,
            &mut found,
        );
        if run.status.counts() {
            found.extend(contradictions(record));
        }
        let (status, checks) = decide(run, Surroundings::of(environment, &run.contestant));
        // An older bench had other checks.
        if rules == Rules::Own {
            found.extend(other_figures("check", &run.checks, &checks));
            let of_generator = loadgen::verdict::checks(record);
            let said = &record.validity.checks;
            found.extend(other_figures("the generator's check", said, &of_generator));
        }
        found.extend(too_good(run, record, status, &checks));
    }
    let search = run.capacity.iter();
    found.extend(search.flat_map(Search::contradictions));
    found
}

/// A run that claims more than its checks allow. The other way round there may be reasons that left
/// no trace in the record.
fn too_good(run: &RunRecord, record: &Record, follows: Status, checks: &[Check]) -> Option<String> {
    // Results from before there were checks rest on the generator's verdict.
    let refuted = if run.checks.is_empty() {
        !record.is_valid()
    } else {
        !follows.counts() || (run.status == Status::Valid && follows != Status::Valid)
    };
    (run.status.counts() && refuted).then(|| {
        let failed = checks
            .iter()
            .filter(|check| check.status >= CheckStatus::Doubtful);
        let names: Vec<String> = failed.map(|check| check.name.code()).collect();
        format!(
            "it is said to be {}, and its checks come to {}: {}",
            run.status.name(),
            follows.name(),
            names.join(", ")
        )
    })
}

/// Checks whose figures, or status by the same limit, are not what follows. Those of other names
/// and limits are of other rules.
fn other_figures<N>(what: &str, said: &[check::Check<N>], follow: &[check::Check<N>]) -> Vec<String>
where
    N: PartialEq + Serialize,
{
    let mut found = Vec::new();
    for one in said {
        let same = |other: &&check::Check<N>| other.name == one.name && other.detail == one.detail;
        let Some(other) = follow.iter().find(same) else {
            continue;
        };
        let name = json(&one.name);
        let place = format!("{what} {}", name.as_str().unwrap_or_default());
        let figures = |check: &check::Check<N>| json(&(check.observed, check.beside));
        differences(
            &place,
            &figures(one),
            &figures(other),
            Rules::Own,
            &mut found,
        );
        if one.limit == other.limit && one.status != other.status {
            found.push(format!(
                "{place}: it says {:?}, and {:?} follows",
                one.status, other.status
            ));
        }
    }
    found
}

/// Where the numbers of a generator's record cannot all be true.
fn contradictions(record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    let broadcast = record.broadcast.as_ref();
    for (name, latency) in [
        ("latency_intended", record.latency_intended.as_ref()),
        ("latency_actual", record.latency_actual.as_ref()),
        ("latency_others", record.latency_others.as_ref()),
        (
            "handshake_latency",
            record.connect.handshake_latency.as_ref(),
        ),
        (
            "handshake_latency_intended",
            record.connect.handshake_latency_intended.as_ref(),
        ),
        (
            "first_receiver",
            broadcast.and_then(|part| part.first_receiver.as_ref()),
        ),
        (
            "median_receiver",
            broadcast.and_then(|part| part.median_receiver.as_ref()),
        ),
        (
            "last_receiver",
            broadcast.and_then(|part| part.last_receiver.as_ref()),
        ),
    ] {
        if let Some(latency) = latency {
            found.extend(against_its_histogram(name, latency));
        }
    }
    let received = record.messages.received;
    for latency in [&record.latency_intended, &record.latency_actual]
        .into_iter()
        .flatten()
    {
        if latency.count != received {
            found.push(format!(
                "{received} messages were received, and there are latencies of {}",
                latency.count
            ));
        }
    }
    let others = record.latency_others.as_ref().map_or(0, |own| own.count);
    if others > received {
        found.push(format!(
            "{received} messages were received, {others} of them not hot"
        ));
    }
    // Replies counted by when they came, and by when they were meant to be sent: they differ by
    // what is in flight at the edges.
    let options = &record.options;
    let in_flight = match (options.rate_per_s, record.latency()) {
        (Some(rate), Some(latency)) if record.kind != LoadKind::Connect => {
            // A published message is in flight to every member.
            let copies = match record.kind {
                LoadKind::Broadcast => options.connections,
                _ => 1,
            };
            rate * copies as f64 * latency.max_ns as f64 / 1e9
        }
        _ => {
            let streams = options.connections * options.publishers.unwrap_or(1).max(1);
            (streams * options.window) as f64
        }
    };
    // Each slice has edges of its own.
    let edges = 2.0 * record.slices.unwrap_or(1).max(1) as f64;
    let tolerated = (edges * in_flight).max(received as f64 * 0.02);
    let replies = record.throughput.messages_per_s * record.window_ns as f64 / 1e9;
    if received > 0 && (replies - received as f64).abs() > tolerated {
        found.push(format!(
            "{received} messages were received, and the throughput says {replies:.0}"
        ));
    }
    found
}

fn against_its_histogram(name: &str, latency: &Latency) -> Option<String> {
    if latency.histogram_v2_deflate_base64.is_empty() {
        return None;
    }
    let Some(histogram) = loadgen::histogram::unpack(&latency.histogram_v2_deflate_base64) else {
        return Some(format!("the histogram of {name} cannot be read"));
    };
    if histogram.len() != latency.count {
        return Some(format!(
            "{name} says {} samples, its histogram has {}",
            latency.count,
            histogram.len()
        ));
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    [
        ("mean", latency.mean_ns, histogram.mean()),
        ("p50", latency.p50_ns as f64, at(0.5)),
        ("p90", latency.p90_ns as f64, at(0.9)),
        ("p99", latency.p99_ns as f64, at(0.99)),
        ("p99.9", latency.p99_9_ns as f64, at(0.999)),
        ("p99.99", latency.p99_99_ns as f64, at(0.9999)),
    ]
    .into_iter()
    .find(|(_, said, follows)| !close(*said, *follows, SAME_IN_HISTOGRAM))
    .map(|(what, said, follows)| {
        format!("the {what} of {name} is said to be {said} ns, its histogram gives {follows} ns")
    })
}

/// What in `summary.json` does not follow from the runs. Sentences of version 1 are no facts and
/// are not looked at.
pub fn audit_summary(said: &Value, follows: &Summary) -> Vec<String> {
    let mut found = Vec::new();
    let mut follows = json(follows);
    let rules = Rules::of(said["schema_version"].as_u64());
    if rules == Rules::Older {
        follows["schema_version"] = said["schema_version"].clone();
    }
    differences("summary", said, &follows, rules, &mut found);
    found
}

/// Who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// An older bench: what it did not know yet, or said otherwise, is not held against it.
    Older,
    /// This one.
    Own,
}

impl Rules {
    fn of(schema_version: Option<u64>) -> Self {
        match schema_version {
            Some(version) if version == u64::from(SCHEMA_VERSION) => Self::Own,
            _ => Self::Older,
        }
    }
}

/// Everywhere that `said` and `follows` both say something, and not the same.
fn differences(place: &str, said: &Value, follows: &Value, rules: Rules, found: &mut Vec<String>) {
    match (said, follows) {
        (Value::Null, _) if rules == Rules::Older => {}
        (Value::Object(said), Value::Object(follows)) => {
            let old = is_old_comparison(said);
            if old && !agrees_with_its_ratio(said) {
                found.push(format!(
                    "{place}: the advantage in its verdict is not its ratio"
                ));
            }
            let others = follows.keys().filter(|key| !said.contains_key(*key));
            for key in said.keys().chain(others) {
                let unknown = rules == Rules::Older && !follows.contains_key(key);
                if unknown || (old && key == "verdict") {
                    continue;
                }
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                let place = format!("{place}, {key}");
                differences(&place, &of(said), &of(follows), rules, found);
            }
        }
        (Value::Array(said), Value::Array(follows)) if said.len() == follows.len() => {
            for (said, follows) in said.iter().zip(follows) {
                let name = said.get("metric").or(said.get("contestant"));
                let place = match name.and_then(Value::as_str) {
                    Some(name) => format!("{place} of {name}"),
                    None => place.to_owned(),
                };
                differences(&place, said, follows, rules, found);
            }
        }
        (Value::Number(one), Value::Number(other)) if same(one.as_f64(), other.as_f64()) => {}
        _ if said == follows => {}
        _ => found.push(format!("{place}: it says {said}, and {follows} follows")),
    }
}

/// A comparison from before there was a test: its verdict followed another rule.
fn is_old_comparison(object: &Map<String, Value>) -> bool {
    object.contains_key("verdict")
        && object.contains_key("ci_low")
        && object.get("significance").is_none_or(Value::is_null)
}

/// Whether the advantage is the ratio or its inverse: all that can be said of such a verdict.
fn agrees_with_its_ratio(comparison: &Map<String, Value>) -> bool {
    let ratio = comparison.get("ratio").and_then(Value::as_f64);
    let verdict = comparison.get("verdict");
    let said = verdict.and_then(|verdict| verdict["advantage"].as_f64());
    same(said, ratio) || same(said, ratio.map(f64::recip))
}

fn same(one: Option<f64>, other: Option<f64>) -> bool {
    one.zip(other)
        .is_some_and(|(one, other)| close(one, other, SAME))
}

fn close(one: f64, other: f64, tolerance: f64) -> bool {
    (one - other).abs() <= tolerance * one.abs().max(other.abs())
}

fn json(value: &impl Serialize) -> Value {
    // What bench writes can be written.
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
