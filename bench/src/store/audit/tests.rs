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
