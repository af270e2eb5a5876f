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
            rate * latency.max_ns as f64 / 1e9
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
mod tests {
    use super::*;
    use crate::committed::{copy, varied_result};
    use crate::store::load::Results;
    use crate::summary::summarize;
    use crate::test_data;
    use loadgen::check::RunStatus;
    use std::fs;

    const BOUT: &str = "echo-64b-open-50";

    /// One bout of a committed result of version 1: its summary as it is, the rest read.
    fn honest() -> (Value, Results) {
        let folder = varied_result();
        let mut said: Value =
            serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap();
        assert_eq!(said["schema_version"], 1);
        let mut results = test_data::varied();
        results.runs.retain(|run| run.bout == BOUT);
        let bouts = said["bouts"].as_array_mut().unwrap();
        bouts.retain(|bout| bout["scenario"]["name"] == BOUT);
        // They are about other bouts.
        (said["noise"], said["complete"]) = (Value::Null, Value::Null);
        (said, results)
    }

    fn audited(
        (said, results): &(Value, Results),
        change: impl FnOnce(&mut Value, &mut Results),
    ) -> Vec<String> {
        let (mut said, mut results) = (said.clone(), results.clone());
        change(&mut said, &mut results);
        let bouts = results.summary.bouts.iter();
        let scenarios: Vec<_> = bouts
            .map(|bout| bout.scenario.clone())
            .filter(|scenario| scenario.name == BOUT)
            .collect();
        let follows = summarize(results.summary.setting.clone(), &scenarios, &results.runs);
        let mut found = audit_runs(&results.runs, &results.environment);
        found.extend(audit_summary(&said, &follows));
        found
    }

    fn record(results: &mut Results) -> &mut Record {
        results.runs[0].loadgen.as_mut().unwrap()
    }

    fn comparison(said: &mut Value) -> &mut Value {
        &mut said["bouts"][0]["pairs"][0]["comparisons"][0]
    }

    fn times(value: &mut Value, factor: f64) {
        *value = (value.as_f64().unwrap() * factor).into();
    }

    type Change = fn(&mut Value, &mut Results);

    fn assert_found(honest: &(Value, Results), cases: &[(Change, &str)]) {
        assert_eq!(audited(honest, |_, _| {}), [""; 0]);
        for (change, expected) in cases {
            let found = audited(honest, change);
            assert!(
                found.iter().any(|finding| finding.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn every_kind_of_tampering_is_found() {
        let cases: [(Change, &str); 12] = [
            (
                |_, r| {
                    let better = r.runs[0]
                        .metric("latency_intended_p99_ns")
                        .map(|ns| ns / 2.0);
                    r.runs[0]
                        .metrics
                        .insert("latency_intended_p99_ns".into(), better);
                },
                "metrics, latency_intended_p99_ns: it says",
            ),
            (
                |_, r| record(r).messages.received += 1000,
                "there are latencies of",
            ),
            (
                |_, r| record(r).latency_intended.as_mut().unwrap().count += 1,
                "its histogram has",
            ),
            (
                |_, r| record(r).latency_intended.as_mut().unwrap().p99_ns /= 2,
                "the p99 of latency_intended is said to be",
            ),
            (
                |_, r| record(r).throughput.messages_per_s *= 2.0,
                "the throughput says",
            ),
            (
                |_, r| record(r).validity.verdict = RunStatus::Invalid,
                "its checks come to invalid",
            ),
            (
                // As an older bench wrote it.
                |_, r| {
                    r.runs[0].checks.clear();
                    record(r).validity.verdict = RunStatus::Invalid;
                },
                "its checks come to invalid",
            ),
            (
                |s, _| times(&mut comparison(s)["ratio"], 1.3),
                "ratio: it says",
            ),
            (
                |s, _| comparison(s)["verdict"]["advantage"] = 9.into(),
                "advantage: it says",
            ),
            (
                |s, _| comparison(s)["verdict"]["winner"] = "server-tokio".into(),
                "winner: it says",
            ),
            (
                |s, _| s["bouts"][0]["contestants"][0]["valid_runs"] = 9.into(),
                "valid_runs: it says",
            ),
            (|_, r| drop(r.runs.remove(3)), "runs: it says"),
        ];
        assert_found(&honest(), &cases);
    }

    #[test]
    fn sentences_of_version_1_are_no_facts() {
        let found = audited(&honest(), |said, results| {
            said["notes"] = serde_json::json!(["all is well"]);
            comparison(said)["verdict"]["words"] = "everybody wins".into();
            said["bouts"][0]["doubts"][0]["reasons"] = serde_json::json!(["none"]);
            for run in &mut results.runs {
                run.reasons = vec!["somebody else says so".into()];
            }
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn an_old_comparison_has_its_own_verdict_but_no_other_ratio() {
        let old = |advantage: f64| {
            audited(&honest(), |said, _| {
                let one = comparison(said);
                one["significance"] = Value::Null;
                one["verdict"]["winner"] = "server-by-another-rule".into();
                times(&mut one["verdict"]["advantage"], advantage);
            })
        };
        assert_eq!(old(1.0), [""; 0]);
        let found = old(1.3);
        assert!(found[0].contains("is not its ratio"), "{found:?}");
    }

    /// Ten blocks of today, judged and summed up.
    fn today() -> (Value, Results) {
        let runs = (1..=10).flat_map(|block| {
            let noise = 1.0 + 0.01 * (block % 3) as f64;
            [
                test_data::open_run("server-uring", block, 50_000.0, 800_000),
                test_data::open_run("server-tokio", block, 50_000.0 * noise, 900_000),
            ]
        });
        let mut results = test_data::results("folder", "abc", runs.collect());
        // One in doubt and one that failed.
        results.runs[2].machine_steal_ns = Some(results.runs[2].elapsed_ns);
        results.runs[5] = test_data::failed(results.runs[5].clone(), "the server died");
        for run in &mut results.runs {
            let around = Surroundings::of(&results.environment, &run.contestant);
            (run.status, run.checks) = decide(run, around);
            if let Some(record) = &mut run.loadgen {
                record.validity.checks = loadgen::verdict::checks(record);
            }
        }
        let scenarios = [results.summary.bouts[0].scenario.clone()];
        let summary = summarize(results.summary.setting.clone(), &scenarios, &results.runs);
        (json(&summary), results)
    }

    #[test]
    fn a_changed_number_of_today_is_found() {
        let cases: [(Change, &str); 12] = [
            (
                |s, _| comparison(s)["verdict"]["winner"] = "server-tokio".into(),
                "winner: it says",
            ),
            (
                |s, _| comparison(s)["verdict"]["leader"] = Value::Null,
                "leader: it says",
            ),
            (
                |s, _| comparison(s)["verdict"]["detectable"] = 1.01.into(),
                "detectable: it says",
            ),
            (
                |s, _| s["bouts"][0]["doubts"][0]["checks"][0]["observed"] = 0.021.into(),
                "observed: it says",
            ),
            (
                |s, _| s["bouts"][0]["problems"][0]["stopped"]["how"] = "interrupted".into(),
                "how: it says",
            ),
            (
                |s, _| {
                    drop(
                        s["bouts"][0]["contestants"][0]
                            .as_object_mut()
                            .unwrap()
                            .remove("doubtful_runs"),
                    )
                },
                "doubtful_runs: it says null, and 1 follows",
            ),
            (
                |_, r| r.runs[2].machine_steal_ns = Some(0),
                "check steal: it says",
            ),
            (
                |_, r| r.runs[2].status = Status::Valid,
                "its checks come to doubtful: steal",
            ),
            (
                |_, r| {
                    let mut checks = r.runs[2].checks.iter_mut();
                    let doubt = checks.find(|check| check.status == CheckStatus::Doubtful);
                    doubt.unwrap().status = CheckStatus::Ok;
                },
                "check steal: it says Ok, and Doubtful follows",
            ),
            (
                |_, r| record(r).messages.lost = 9,
                "its checks come to invalid: lost",
            ),
            (
                |_, r| record(r).validity.checks[0].observed = Some(1.0),
                "the generator's check connections: it says",
            ),
            (
                |_, r| {
                    r.runs[0]
                        .metrics
                        .insert("latency_intended_p99_ns".into(), None);
                },
                "latency_intended_p99_ns: it says null",
            ),
        ];
        assert_found(&today(), &cases);
    }

    #[test]
    fn a_file_that_was_edited_marks_the_whole_result() {
        let dir = tempfile::tempdir().unwrap();
        copy(&varied_result(), dir.path());
        let files = fs::read_dir(dir.path().join("runs/echo-64b-w1-c1000")).unwrap();
        let mut records = files.map(|entry| entry.unwrap().path());
        let file = records
            .find(|file| {
                file.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .unwrap();
        let mut run: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let per_s = run["metrics"]["messages_per_s"].as_f64().unwrap();
        run["metrics"]["messages_per_s"] = (per_s * 1.5).into();
        fs::write(&file, run.to_string()).unwrap();
        let results = Results::load(dir.path()).unwrap();
        assert!(
            results.findings[0].contains("metrics, messages_per_s: it says"),
            "{:?}",
            results.findings
        );
        let message = results.require_consistent().unwrap_err().to_string();
        assert!(
            message.contains("DOES NOT FOLLOW FROM ITS RUNS"),
            "{message}"
        );
    }
}
