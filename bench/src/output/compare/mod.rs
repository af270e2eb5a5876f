//! `bench compare A B`: two result folders of the same scenarios, run against run.
//!
//! The statistics are those of a bout, for samples that are not paired: ratio of the medians with a
//! bootstrap interval, a rank-sum test, Holm over the percentiles of one latency, the factor that
//! would have been found. What blocks give a bout, that both sides had the same machine at the same
//! time, two folders do not have; the text says so.

mod mismatch;

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};

use crate::config::Scenario;
use crate::judge::metrics::{self, Metric};
use crate::output::notes::notes;
use crate::output::table::Table;
use crate::output::text::{cell, p_value};
use crate::output::words;
use crate::stats::rng::derive_seed;
use crate::stats::{
    Direction, PairedRatio, RESAMPLES, RUNS_FOR_A_CLAIM, Spread, holm, minimal_detectable_unpaired,
    rank_sum_p, unpaired_ratio,
};
use crate::store::load::Results;
use crate::summary::Bout;
use crate::summary::verdict::{Significance, Verdict, compare};
use mismatch::Mismatch;

/// Below the tables.
const METHOD: &str = "\
Figures are medians of the valid runs, ± their median absolute deviation. A factor is the ratio of the medians of A and B; its interval is a
bootstrap in which the runs of A and those of B are drawn separately (10,000 times, seed from the seeds of both suites). A or B is
named if the interval excludes 1 and a rank-sum test, corrected for the percentiles of a latency, finds p <= 0.05; else the smallest
ratio that would be found four times in five stands beside. Fewer than 10 runs in A or in B allow no claim.

These runs are not paired: A and B had the machine at different times, and whatever changed about it between them (other load, heat, a
noisy neighbour) is in the factors and not in the intervals: equal servers on a machine that was 15% slower during B are told apart as surely
as unequal ones. If everybody changed by the same factor, suspect the machine. To be sure, run both revisions interleaved in one suite:
scripts/bench_pull_request.sh.
";

/// The comparison for people.
///
/// # Errors
/// When the folders have no bout and contestant in common, or are different measurements and
/// `force` is not given.
pub fn text(a: &Results, b: &Results, force: bool) -> Result<String> {
    let mismatches = mismatch::all(a, b);
    ensure!(
        mismatches.is_empty() || force,
        "A and B are different measurements, so their figures cannot be compared:\n{}--force compares them all the same, and says so on every line",
        lines(&mismatches)
    );
    let mut text = heading(a, b);
    if !mismatches.is_empty() {
        let _ = write!(
            text,
            "\n**UNLIKE, compared with --force:**\n\n{}",
            lines(&mismatches)
        );
    }
    let mut left_out = String::new();
    let mut bouts = 0;
    for (first, second) in common_bouts(a, b) {
        let mut of_bout = mismatches.clone();
        if let Some(rate) =
            mismatch::rates(&first.scenario.name, first.rate_per_s, second.rate_per_s)
        {
            if !force {
                let _ = writeln!(left_out, "- {rate}");
                continue;
            }
            of_bout.push(rate);
        }
        let table = table(a, b, &first.scenario, &of_bout);
        if !table.is_empty() {
            bouts += 1;
            let _ = write!(text, "\n### {}\n\n{}", first.scenario.name, table.render());
        }
    }
    if !left_out.is_empty() {
        let _ = write!(
            text,
            "\nNot compared, because latency depends on the rate (a fraction of the capacity that each suite measured):\n\n{left_out}"
        );
    }
    if bouts == 0 && left_out.is_empty() {
        bail!("A and B have no bout in common in which the same contestant has valid runs");
    }
    let _ = write!(text, "\n{METHOD}");
    Ok(text)
}

fn lines(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(|one| format!("- {one}\n")).collect()
}

fn heading(a: &Results, b: &Results) -> String {
    let mut text = String::from("# A against B\n\n");
    for (letter, results) in [("A", a), ("B", b)] {
        let setting = &results.summary.setting;
        let name = results.root.file_name().unwrap_or(results.root.as_os_str());
        let rustc = results
            .environment
            .rustc
            .as_deref()
            .unwrap_or("rustc unknown");
        let _ = writeln!(
            text,
            "- **{letter}**: {} · suite `{}` · {} · revision {} · {rustc}",
            name.to_string_lossy(),
            setting.suite,
            setting.started_utc,
            setting.revision,
        );
        for note in notes(&results.summary, &results.findings) {
            let _ = writeln!(text, "  - {note}");
        }
    }
    let digest = |results: &Results| results.environment.binaries.get("loadgen").cloned();
    if digest(a).is_none() || digest(a) != digest(b) {
        text.push_str("\nThe generator may be another program too: its binaries differ, or are not recorded.\n");
    }
    if contestants_of_one_binary(a, b).next().is_some() {
        text.push_str(
            "\nA contestant marked as the same binary is the same program in A and in B: what differs about it is of the machine or its moment, so neither is called better.\n",
        );
    }
    text
}

/// The contestants whose binary is the same in both.
fn contestants_of_one_binary<'a>(a: &'a Results, b: &'a Results) -> impl Iterator<Item = &'a str> {
    let binaries = a.environment.binaries.iter();
    let same = binaries.filter(|(name, digest)| b.environment.binaries.get(*name) == Some(*digest));
    let names = same.map(|(name, _)| name.as_str());
    names.filter(|name| !["loadgen", "conformance"].contains(name))
}

fn common_bouts<'a>(a: &'a Results, b: &'a Results) -> impl Iterator<Item = (&'a Bout, &'a Bout)> {
    a.summary.bouts.iter().filter_map(|first| {
        let mut others = b.summary.bouts.iter();
        let second = others.find(|second| second.scenario.name == first.scenario.name)?;
        Some((first, second))
    })
}

/// A row per contestant and metric that both folders have.
fn table(a: &Results, b: &Results, scenario: &Scenario, mismatches: &[Mismatch]) -> Table {
    let mut headings = vec![
        "contestant",
        "metric",
        "A",
        "B",
        "n",
        "better, by how much [95% interval]",
        "p (Holm)",
    ];
    if !mismatches.is_empty() {
        headings.push("unlike");
    }
    let mut table = Table::new(
        headings.into_iter().map(str::to_owned).collect(),
        vec![2, 3, 6],
    );
    for contestant in contestants(a, scenario) {
        let mut of_one_binary = contestants_of_one_binary(a, b);
        let is_same = of_one_binary.any(|name| name == contestant);
        let shown = match is_same {
            true => format!("{contestant} (same binary)"),
            false => contestant.to_owned(),
        };
        for change in changes(a, b, scenario, contestant) {
            let mut row = vec![
                shown.clone(),
                change.metric.title.to_owned(),
                cell(change.metric.unit, Some(change.a)),
                cell(change.metric.unit, Some(change.b)),
                format!("{}+{}", change.a.n, change.b.n),
                match is_same {
                    true => words::of_one_binary(&change.ratio),
                    false => words::verdict("A", "B", &change.ratio, &change.verdict),
                },
                p_value(change.significance.p_adjusted),
            ];
            let differences: Vec<&str> = mismatches
                .iter()
                .filter(|one| one.touches(&scenario.name, contestant))
                .map(|one| one.what.as_str())
                .collect();
            row.push(match differences.as_slice() {
                [] => "nothing".to_owned(),
                some => some.join(", "),
            });
            row.truncate(7 + usize::from(!mismatches.is_empty()));
            table.row(row);
        }
    }
    table
}

/// The contestants, each under one name.
fn contestants<'a>(results: &'a Results, scenario: &Scenario) -> Vec<&'a str> {
    let entrants = results.summary.setting.contestants.iter();
    entrants
        .filter(|entrant| entrant.duplicate.is_none() && entrant.takes_part_in(scenario))
        .map(|entrant| entrant.name.as_str())
        .collect()
}

/// One contestant by one metric, in A and in B.
struct Change {
    metric: &'static Metric,
    a: Spread,
    b: Spread,
    significance: Significance,
    ratio: PairedRatio,
    verdict: Verdict,
}

/// Both samples of one metric, before the correction for its family.
struct Samples {
    metric: &'static Metric,
    direction: Direction,
    a: Vec<f64>,
    b: Vec<f64>,
    p_value: f64,
}

fn changes(a: &Results, b: &Results, scenario: &Scenario, contestant: &str) -> Vec<Change> {
    let values = |results: &Results, metric: &Metric| -> Vec<f64> {
        results
            .runs_of(&scenario.name)
            .filter(|run| run.contestant == contestant && run.status.counts())
            .filter_map(|run| run.metric(metric.key))
            .collect()
    };
    let samples: Vec<Samples> = metrics::compared(scenario)
        .into_iter()
        .filter_map(|metric| {
            let (of_a, of_b) = (values(a, metric), values(b, metric));
            (!of_a.is_empty() && !of_b.is_empty()).then_some(())?;
            Some(Samples {
                metric,
                direction: metric.direction?,
                p_value: rank_sum_p(&of_a, &of_b),
                a: of_a,
                b: of_b,
            })
        })
        .collect();
    let seeds = (a.summary.setting.seed, b.summary.setting.seed);
    samples
        .iter()
        .filter_map(|one| {
            let name = format!(
                "{}/{}/{contestant}/{}",
                scenario.name, one.metric.key, seeds.1
            );
            one.detect_change(derive_seed(seeds.0, &name), &samples)
        })
        .collect()
}

impl Samples {
    /// `None` for values that have no ratio.
    fn detect_change(&self, seed: u64, all: &[Self]) -> Option<Change> {
        let ratio = unpaired_ratio(&self.a, &self.b, seed, RESAMPLES)?;
        let family = self.family(all);
        let p_values: Vec<f64> = family.iter().map(|one| one.p_value).collect();
        let place = family.iter().position(|one| std::ptr::eq(*one, self))?;
        let significance = Significance {
            p_value: self.p_value,
            p_adjusted: holm(&p_values)[place],
            family: family.len(),
            minimal_detectable: minimal_detectable_unpaired(&self.a, &self.b, family.len()),
        };
        Some(Change {
            metric: self.metric,
            a: Spread::of(&self.a)?,
            b: Spread::of(&self.b)?,
            verdict: compare(
                "A",
                "B",
                self.direction,
                &ratio,
                &significance,
                ratio.pairs >= RUNS_FOR_A_CLAIM,
            ),
            ratio,
            significance,
        })
    }

    /// Itself and the other percentiles of its latency.
    fn family<'a>(&'a self, all: &'a [Self]) -> Vec<&'a Self> {
        match metrics::family(self.metric.key) {
            None => vec![self],
            family => all
                .iter()
                .filter(|one| metrics::family(one.metric.key) == family)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::test_data;

    /// `runs` blocks; server-uring `faster` times as fast as in the other folder, server-tokio
    /// always the same.
    fn folder(name: &str, revision: &str, runs: usize, faster: f64) -> Results {
        let runs: Vec<RunRecord> = (1..=runs)
            .flat_map(|block| {
                let noise = 1.0 + 0.004 * ((block * 7) % 5) as f64;
                [
                    test_data::echo_run("server-uring", block, 100_000.0 * faster * noise),
                    test_data::echo_run("server-tokio", block, 100_000.0 * noise),
                    test_data::open_run("server-uring", block, 50_000.0 * faster, 800_000),
                    test_data::open_run("server-tokio", block, 50_000.0 * faster, 700_000),
                ]
            })
            .collect();
        test_data::results(name, revision, runs)
    }

    #[test]
    fn a_faster_server_is_named_and_an_unchanged_one_is_not() {
        let (a, b) = (
            folder("before", "abc1234", 10, 1.0),
            folder("after", "def5678", 12, 1.05),
        );
        insta::assert_snapshot!(text(&a, &b, false).unwrap());
    }

    #[test]
    fn unlike_folders_are_refused_and_with_force_every_line_says_why() {
        let (a, mut b) = (
            folder("before", "abc1234", 10, 1.0),
            folder("after", "def5678", 4, 1.05),
        );
        b.environment.machine.kernel = "Linux 6.19.0 x86_64".into();
        b.environment.suite.warmup *= 2;
        b.environment.contestants[1].args = vec!["--flavor".into(), "per-core".into()];
        let refusal = text(&a, &b, false).unwrap_err().to_string();
        for what in [
            "kernel: Linux 6.18.0 x86_64 in A, Linux 6.19.0 x86_64 in B",
            "echo-64b-w1-c1000, warmup: 200ms in A, 400ms in B",
            "server-tokio, args: none in A, --flavor per-core in B",
        ] {
            assert!(refusal.contains(what), "{refusal}");
        }
        let forced = text(&a, &b, true).unwrap();
        let rows: Vec<&str> = forced
            .lines()
            .filter(|line| line.starts_with("| server-"))
            .collect();
        assert!(rows.len() > 10);
        for row in rows {
            let why = row.rsplit('|').nth(1).unwrap();
            assert!(why.contains("kernel") && why.contains(", warmup"), "{row}");
            assert_eq!(
                why.contains("server-tokio, args"),
                row.starts_with("| server-tokio"),
                "{row}"
            );
            assert_eq!(
                why.contains(", rate"),
                why.contains("echo-64b-open-50"),
                "{row}"
            );
            assert!(row.contains("too few runs for a claim (n=4)"), "{row}");
        }
    }

    #[test]
    fn what_is_of_the_moment_or_prose_is_no_difference() {
        let (a, mut b) = (
            folder("before", "abc1234", 3, 1.0),
            folder("after", "def5678", 3, 1.0),
        );
        b.environment.machine.load_1min = Some(3.0);
        b.environment.machine.busy_cpus = Some(0.5);
        b.environment.scenarios[0].shows = "Other words.".into();
        b.environment.contestants[0].program = "/other/server".into();
        assert!(text(&a, &b, false).is_ok());
    }

    #[test]
    fn a_program_compared_with_itself_is_marked() {
        let (mut a, mut b) = (
            folder("before", "abc1234", 3, 1.0),
            folder("after", "def5678", 3, 1.0),
        );
        let binaries = |tokio: &str| {
            let digests = [
                ("server-uring", "1"),
                ("server-tokio", tokio),
                ("loadgen", "4"),
            ];
            digests.map(|(name, digest)| (name.to_owned(), digest.to_owned()))
        };
        (a.environment.binaries, b.environment.binaries) =
            (binaries("2").into(), binaries("3").into());
        let text = text(&a, &b, false).unwrap();
        assert!(
            text.contains("A contestant marked as the same binary"),
            "{text}"
        );
        for row in text.lines().filter(|line| line.starts_with("| server-")) {
            let is_marked = row.contains(" (same binary)");
            assert_eq!(is_marked, row.starts_with("| server-uring"), "{row}");
        }
    }

    #[test]
    fn folders_with_nothing_in_common_are_an_error() {
        let (a, mut b) = (
            folder("before", "abc1234", 3, 1.0),
            folder("after", "def5678", 3, 1.0),
        );
        b.summary.bouts.clear();
        let message = text(&a, &b, false).unwrap_err().to_string();
        assert!(message.contains("no bout in common"), "{message}");
    }
}
