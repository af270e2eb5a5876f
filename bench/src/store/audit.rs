//! Does a result follow from itself? Every figure in a folder can be worked out again from what
//! lies beside it: a run's figures from the generator's record and what was seen of the server, its
//! status from its checks, the summary from the runs. Where they disagree, somebody has edited a
//! file, or another version of bench wrote it. Pure.

use loadgen::record::{Latency, Record, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::judge::ruling::{Evidence, other_load_share, rule, steal_share};
use crate::record::environment::Environment;
use crate::record::{RunRecord, Search, Status};
use crate::stats::Direction;
use crate::summary::{Comparison, Summary, summarize};

/// How far two ways to the same number may part: JSON keeps all digits that matter.
const SAME: f64 = 1e-9;
/// How far a figure may be from what its histogram says: a histogram has three digits.
const SAME_IN_HISTOGRAM: f64 = 0.002;

/// What does not follow from what it should follow from; empty in an honest result.
pub fn audit(summary: &Summary, environment: &Environment, runs: &[RunRecord]) -> Vec<String> {
    let mut found: Vec<String> = runs
        .iter()
        .flat_map(|run| {
            let of_run = format!("{} block {} {}", run.bout, run.block, run.contestant);
            let found = audit_run(run, environment);
            found
                .into_iter()
                .map(move |finding| format!("{of_run}: {finding}"))
        })
        .collect();
    found.extend(audit_summary(summary, runs));
    found
}

fn audit_run(run: &RunRecord, environment: &Environment) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(record) = &run.loadgen {
        let follow = run.extract_metrics();
        differences("metrics", &json(&run.metrics), &json(&follow), &mut found);
        if run.status.counts() {
            found.extend(contradictions(record));
        }
    }
    let search = run.capacity.iter();
    found.extend(search.flat_map(Search::contradictions));
    found.extend(status(run, environment));
    found
}

/// A run that claims more than its checks allow. The other way round there may be reasons that left
/// no trace in the record.
fn status(run: &RunRecord, environment: &Environment) -> Option<String> {
    let record = run.loadgen.as_ref()?;
    let claims = run.status.counts();
    if run.checks.is_empty() {
        let refuted = claims && record.validity.verdict == Verdict::Invalid;
        return refuted.then(|| {
            format!(
                "it is said to be {}, and its generator says: {}",
                run.status.name(),
                record.validity.reasons.join("; ")
            )
        });
    }
    let contestants = environment.contestants.iter();
    let foreign = contestants
        .filter(|contestant| contestant.name == run.contestant)
        .any(|contestant| contestant.foreign);
    let cpus = run.server.cpus.len() + run.generator.cpus.len();
    let follows = rule(&Evidence {
        loadgen: Some(record),
        server: Some(&run.server),
        footprint: run.footprint.as_ref(),
        foreign,
        pinged_fraction: run.scenario.pinged_fraction,
        steal_share: steal_share(&run.server, run.machine_steal_ns, run.elapsed_ns, cpus),
        other_load_share: other_load_share(
            &run.server,
            record,
            environment.machine.interrupts_accounted_apart,
        ),
        ..Evidence::default()
    });
    let hides_a_doubt = run.status == Status::Valid && follows.status != Status::Valid;
    let too_good = claims && (hides_a_doubt || !follows.status.counts());
    too_good.then(|| {
        format!(
            "it is said to be {}, and its checks come to {}: {}",
            run.status.name(),
            follows.status.name(),
            follows.reasons.join("; ")
        )
    })
}

/// Where the numbers of a generator's record cannot all be true.
fn contradictions(record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    let broadcast = record.broadcast.as_ref();
    for (name, latency) in [
        ("latency_intended", record.latency_intended.as_ref()),
        ("latency_actual", record.latency_actual.as_ref()),
        (
            "handshake_latency",
            record.connect.handshake_latency.as_ref(),
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
    // Replies counted by when they came, and by when they were meant to be sent: they differ by
    // what is in flight at the edges.
    let options = &record.options;
    let in_flight = match (options.rate_per_s, record.latency()) {
        (Some(rate), Some(latency)) => rate * latency.max_ns as f64 / 1e9,
        _ => {
            let streams = options.connections * options.publishers.unwrap_or(1).max(1);
            (streams * options.window) as f64
        }
    };
    let tolerated = (2.0 * in_flight).max(received as f64 * 0.02);
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

fn audit_summary(summary: &Summary, runs: &[RunRecord]) -> Vec<String> {
    let scenarios: Vec<_> = summary
        .bouts
        .iter()
        .map(|bout| bout.scenario.clone())
        .collect();
    let follows = summarize(summary.setting.clone(), &scenarios, runs);
    let mut found = Vec::new();
    let said = (summary.complete, &summary.noise);
    differences(
        "summary",
        &json(&said),
        &json(&(follows.complete, &follows.noise)),
        &mut found,
    );
    for (said, follows) in summary.bouts.iter().zip(&follows.bouts) {
        let place = format!("summary of {}", said.scenario.name);
        differences(&place, &json(said), &json(follows), &mut found);
        let pairs = said.pairs.iter();
        found.extend(
            pairs
                .flat_map(|pair| &pair.comparisons)
                .filter(|comparison| !agrees_with_its_ratio(comparison))
                .map(|comparison| {
                    format!(
                        "{place}: the words on {} are {:?}, the ratio beside them is {:.4}",
                        comparison.metric, comparison.verdict.words, comparison.ratio.ratio
                    )
                }),
        );
    }
    found
}

/// Whether the factor in the words is the ratio: all that can be said of verdicts that an older
/// bench reached by its own rules.
fn agrees_with_its_ratio(comparison: &Comparison) -> bool {
    let ratio = match comparison.direction {
        Direction::HigherIsBetter => comparison.ratio.ratio,
        Direction::LowerIsBetter => 1.0 / comparison.ratio.ratio,
    };
    let said = comparison.verdict.advantage;
    close(said, ratio, SAME) || close(said, 1.0 / ratio, SAME)
}

/// Everywhere that `said` and `follows` both say something, and not the same.
fn differences(place: &str, said: &Value, follows: &Value, found: &mut Vec<String>) {
    match (said, follows) {
        // An older bench did not know it yet.
        (Value::Null, _) => {}
        (Value::Object(said), Value::Object(follows)) => {
            let old = is_old_comparison(said);
            for (key, value) in said.iter().filter(|(key, _)| !(old && *key == "verdict")) {
                if let Some(other) = follows.get(key) {
                    differences(&format!("{place}, {key}"), value, other, found);
                }
            }
        }
        (Value::Array(said), Value::Array(follows)) if said.len() == follows.len() => {
            for (said, follows) in said.iter().zip(follows) {
                let name = said.get("metric").or(said.get("contestant"));
                let place = match name.and_then(Value::as_str) {
                    Some(name) => format!("{place} of {name}"),
                    None => place.to_owned(),
                };
                differences(&place, said, follows, found);
            }
        }
        (Value::Number(one), Value::Number(other)) if same(one.as_f64(), other.as_f64()) => {}
        _ if said == follows => {}
        _ => found.push(format!("{place}: it says {said}, and {follows} follows")),
    }
}

/// A comparison from before there was a test: its verdict followed another rule.
fn is_old_comparison(object: &Map<String, Value>) -> bool {
    object.contains_key("ci_low") && object.get("significance").is_none_or(Value::is_null)
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
    use std::fs;

    /// One bout of a committed result.
    fn honest() -> Results {
        let mut results = Results::load(&varied_result()).unwrap();
        // It is about other bouts.
        results.summary.noise = None;
        results
            .summary
            .bouts
            .retain(|bout| bout.scenario.name == "echo-64b-open-50");
        results.runs.retain(|run| run.bout == "echo-64b-open-50");
        results
    }

    fn audited(honest: &Results, change: impl FnOnce(&mut Results)) -> Vec<String> {
        let mut results = honest.clone();
        change(&mut results);
        audit(&results.summary, &results.environment, &results.runs)
    }

    #[test]
    fn every_kind_of_tampering_is_found() {
        fn record(results: &mut Results) -> &mut Record {
            results.runs[0].loadgen.as_mut().unwrap()
        }
        type Change = fn(&mut Results);
        let cases: [(Change, &str); 11] = [
            (
                |r| {
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
                |r| record(r).messages.received += 1000,
                "there are latencies of",
            ),
            (
                |r| record(r).latency_intended.as_mut().unwrap().count += 1,
                "its histogram has",
            ),
            (
                |r| record(r).latency_intended.as_mut().unwrap().p99_ns /= 2,
                "the p99 of latency_intended is said to be",
            ),
            (
                |r| record(r).throughput.messages_per_s *= 2.0,
                "the throughput says",
            ),
            (
                |r| record(r).validity.verdict = Verdict::Invalid,
                "its checks come to invalid",
            ),
            (
                // As an older bench wrote it.
                |r| {
                    r.runs[0].checks.clear();
                    record(r).validity.verdict = Verdict::Invalid;
                },
                "its generator says",
            ),
            (
                |r| r.summary.bouts[0].pairs[0].comparisons[0].ratio.ratio *= 1.3,
                "ratio: it says",
            ),
            (
                |r| r.summary.bouts[0].pairs[0].comparisons[0].verdict.advantage = 9.0,
                "the words on",
            ),
            (
                |r| r.summary.bouts[0].contestants[0].valid_runs -= 1,
                "valid_runs: it says",
            ),
            (|r| drop(r.runs.remove(3)), "runs: it says"),
        ];
        let honest = honest();
        assert_eq!(audited(&honest, |_| {}), [""; 0]);
        for (change, expected) in cases {
            let found = audited(&honest, change);
            assert!(
                found.iter().any(|finding| finding.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn a_changed_verdict_of_today_is_found() {
        use crate::test_data;
        let mut results = honest();
        let noise = |block: usize| 1.0 + 0.01 * (block % 3) as f64;
        results.runs = (1..=10)
            .flat_map(|block| {
                [
                    test_data::echo_run("server-uring", block, 120_000.0 * noise(block)),
                    test_data::echo_run("server-tokio", block, 100_000.0),
                ]
            })
            .collect();
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        results.summary = summarize(test_data::setting(), &scenarios, &results.runs);
        let audit =
            |results: &Results| audit(&results.summary, &results.environment, &results.runs);
        assert_eq!(audit(&results), [""; 0]);
        let verdict = &mut results.summary.bouts[0].pairs[0].comparisons[0].verdict;
        verdict.winner = Some("server-tokio".into());
        let found = audit(&results);
        assert!(found[0].contains("winner: it says"), "{found:?}");
    }

    #[test]
    fn a_status_that_the_checks_do_not_bear_is_found() {
        use crate::test_data;
        let environment = honest().environment;
        let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
        run.checks = rule(&Evidence {
            loadgen: run.loadgen.as_ref(),
            server: Some(&run.server),
            ..Evidence::default()
        })
        .checks;
        assert_eq!(audit_run(&run, &environment), [""; 0]);
        run.machine_steal_ns = Some(run.elapsed_ns);
        let found = audit_run(&run, &environment);
        assert!(
            found[0].contains("its checks come to doubtful"),
            "{found:?}"
        );
        run.status = Status::Doubtful;
        assert_eq!(audit_run(&run, &environment), [""; 0]);
        run.loadgen.as_mut().unwrap().messages.lost = 9;
        let found = audit_run(&run, &environment);
        assert!(found[0].contains("9 messages lost"), "{found:?}");
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
        let note = &results.summary.notes[0];
        assert!(note.starts_with("DOES NOT FOLLOW FROM ITS RUNS"), "{note}");
    }
}
