//! `bench export`: a result in the formats of other tools.
//!
//! | file | for |
//! |---|---|
//! | `github-bigger-is-better.json`, `github-smaller-is-better.json` | github-action-benchmark, tools `customBiggerIsBetter` and `customSmallerIsBetter` |
//! | `bencher.json` | Bencher Metric Format, `bencher run --adapter json` |
//! | `runs.csv` | spreadsheets, R, pandas: one row per run, calibrations and runs that do not count included |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::judge::metrics::{self, Metric};
use crate::output::words;
use crate::record::RunRecord;
use crate::stats::{Direction, Spread};
use crate::summary::Summary;
use crate::units::Unit;

/// Writes all files into `folder`, which is made if it is missing. Returns their names.
///
/// # Errors
/// When one cannot be written.
pub fn write_all(
    folder: &Path,
    summary: &Summary,
    runs: &[RunRecord],
) -> Result<Vec<&'static str>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let files = [
        (
            "github-bigger-is-better.json",
            json(&github(summary, Direction::HigherIsBetter))?,
        ),
        (
            "github-smaller-is-better.json",
            json(&github(summary, Direction::LowerIsBetter))?,
        ),
        ("bencher.json", json(&bencher(summary))?),
        ("runs.csv", csv(runs)?),
    ];
    files
        .into_iter()
        .map(|(name, content)| {
            let path = folder.join(name);
            std::fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(name)
        })
        .collect()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).context("a figure cannot be written as JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// One entry of github-action-benchmark's custom tools.
#[derive(Debug, PartialEq, Serialize)]
struct GithubEntry {
    name: String,
    unit: &'static str,
    value: f64,
    /// Median absolute deviation.
    range: String,
    extra: String,
}

fn github(summary: &Summary, direction: Direction) -> Vec<GithubEntry> {
    figures(summary)
        .filter(|figure| figure.metric.direction == Some(direction))
        .map(|figure| GithubEntry {
            name: format!(
                "{}/{}/{}",
                figure.bout, figure.contestant, figure.metric.key
            ),
            unit: unit(figure.metric),
            value: figure.spread.median,
            range: format!("± {}", figure.spread.mad),
            extra: format!(
                "median of {} runs, revision {}, {}",
                figure.spread.n, summary.setting.revision, summary.setting.machine
            ),
        })
        .collect()
}

/// One measure of Bencher's: the median with the quartiles around it.
#[derive(Debug, PartialEq, Serialize)]
struct BencherMeasure {
    value: f64,
    lower_value: f64,
    upper_value: f64,
}

fn bencher(summary: &Summary) -> BTreeMap<String, BTreeMap<&'static str, BencherMeasure>> {
    let mut benchmarks: BTreeMap<String, BTreeMap<&str, BencherMeasure>> = BTreeMap::new();
    for Figure {
        bout,
        contestant,
        metric,
        spread,
    } in figures(summary)
    {
        let measure = BencherMeasure {
            value: spread.median,
            lower_value: spread.q1,
            upper_value: spread.q3,
        };
        let benchmark = benchmarks
            .entry(format!("{bout}/{contestant}"))
            .or_default();
        benchmark.insert(metric.key, measure);
    }
    benchmarks
}

/// One row per run; a column per metric that any run has; empty where there is no figure.
fn csv(runs: &[RunRecord]) -> Result<Vec<u8>> {
    let keys: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| run.metrics.keys())
        .map(String::as_str)
        .collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let fixed = [
        "bout",
        "contestant",
        "block",
        "position",
        "status",
        "started_unix_ns",
        "reasons",
        "notes",
    ];
    table.write_record(fixed.iter().chain(&keys))?;
    for run in runs {
        let mut row = vec![
            run.bout.clone(),
            run.contestant.clone(),
            run.block.to_string(),
            run.position.to_string(),
            run.status.name().to_owned(),
            run.started_unix_ns.to_string(),
            words::of_run(run),
            words::notes_of_run(run),
        ];
        row.extend(keys.iter().map(|key| {
            run.metric(key)
                .map_or_else(String::new, |value| value.to_string())
        }));
        table.write_record(&row)?;
    }
    table
        .into_inner()
        .context("the table of runs cannot be written")
}

/// One metric of one contestant in one bout.
struct Figure<'a> {
    bout: &'a str,
    contestant: &'a str,
    metric: &'static Metric,
    spread: Spread,
}

fn figures(summary: &Summary) -> impl Iterator<Item = Figure<'_>> {
    summary.bouts.iter().flat_map(|bout| {
        bout.contestants.iter().flat_map(move |result| {
            metrics::of_kind(bout.scenario.kind).filter_map(move |metric| {
                Some(Figure {
                    bout: &bout.scenario.name,
                    contestant: &result.contestant,
                    metric,
                    spread: (*result.metrics.get(metric.key)?)?,
                })
            })
        })
    })
}

fn unit(metric: &Metric) -> &'static str {
    match metric.unit {
        Unit::PerSecond => "1/s",
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Share => "share",
        Unit::Number => "number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarize;
    use crate::test_data;

    fn result() -> (Summary, Vec<RunRecord>) {
        let mut runs = vec![
            test_data::echo_run("server-uring", 1, 120_000.0),
            test_data::echo_run("server-tokio", 1, 100_000.0),
            test_data::echo_run("server-uring", 2, 124_000.0),
            test_data::echo_run("server-tokio", 2, 98_000.0),
        ];
        runs[3] = test_data::failed(runs[3].clone(), "the server, \"alas\", died");
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        (summarize(test_data::setting(), &scenarios, &runs), runs)
    }

    #[test]
    fn two_files_for_github_one_per_direction() {
        let (summary, _) = result();
        let bigger = github(&summary, Direction::HigherIsBetter);
        let names: Vec<&str> = bigger.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "echo-64b-w1-c1000/server-uring/messages_per_s",
                "echo-64b-w1-c1000/server-tokio/messages_per_s"
            ]
        );
        assert_eq!((bigger[0].value, bigger[0].unit), (122_000.0, "1/s"));
        assert_eq!(bigger[0].range, "± 2000");
        let smaller = github(&summary, Direction::LowerIsBetter);
        assert!(
            smaller.iter().any(
                |entry| entry.name.ends_with("server_cpu_ns_per_message") && entry.unit == "ns"
            )
        );
        assert!(smaller.iter().all(|entry| !entry.name.contains("per_s")));
    }

    #[test]
    fn bencher_gets_quartiles() {
        let (summary, _) = result();
        let measure = &bencher(&summary)["echo-64b-w1-c1000/server-uring"]["messages_per_s"];
        assert_eq!(
            measure,
            &BencherMeasure {
                value: 122_000.0,
                lower_value: 121_000.0,
                upper_value: 123_000.0
            }
        );
    }

    #[test]
    fn every_run_is_a_row_whatever_became_of_it() {
        let (_, runs) = result();
        let text = csv(&runs).unwrap();
        let mut table = csv::Reader::from_reader(text.as_slice());
        let header = table.headers().unwrap().clone();
        let column = |name: &str| header.iter().position(|header| header == name).unwrap();
        let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 4);
        assert_eq!(&rows[0][column("messages_per_s")], "120000");
        assert_eq!(&rows[3][column("status")], "failed");
        assert_eq!(&rows[3][column("reasons")], "the server, \"alas\", died");
        assert_eq!(&rows[3][column("messages_per_s")], "");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let (summary, runs) = result();
        let dir = tempfile::tempdir().unwrap();
        let names = write_all(&dir.path().join("new"), &summary, &runs).unwrap();
        assert!(
            names
                .iter()
                .all(|name| dir.path().join("new").join(name).is_file())
        );
        let taken = dir.path().join("taken");
        std::fs::write(&taken, "").unwrap();
        let message = format!("{:#}", write_all(&taken, &summary, &runs).unwrap_err());
        assert!(message.contains("taken"), "{message}");
    }
}
