//! `bench gate`: rules on a result, for CI. Each rule is printed with what it found; a breach is
//! exit code 99, as in k6.

mod expression;
mod require;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::config::{ScenarioKind, load_toml};
use crate::judge::metrics;
use crate::record::{RunRecord, Status};
use crate::stats::{PairedRatio, Spread};
use crate::summary::{Bout, Summary};
use crate::units::{self, Unit};
use expression::{Expression, Subject};
use require::{Require, judged};

/// Exit code of a breach.
pub const BREACH: u8 = 99;

/// Content of a gate file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// At least one.
    #[serde(rename = "rule")]
    rules: Vec<Rule>,
    /// What must be in the result at all.
    #[serde(default)]
    require: Require,
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The condition that must hold.
    expect: Expression,
    /// Why: printed when it is broken.
    because: Option<String>,
}

impl Gate {
    /// Reads a gate file.
    ///
    /// # Errors
    /// When it has no rule or one that cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let gate: Self = load_toml(path)?;
        ensure!(
            !gate.rules.is_empty(),
            "{}: no [[rule]] in it",
            path.display()
        );
        Ok(gate)
    }

    /// Applies every rule. Returns what is to be printed and whether all hold.
    ///
    /// # Errors
    /// When a rule is about something that the result does not have: a gate that looks at nothing
    /// would let everything pass.
    pub fn evaluate(&self, summary: &Summary, runs: &[RunRecord]) -> Result<(String, bool)> {
        let mut text = String::new();
        let mut broken = 0;
        let required = self.require.judge(summary);
        for (line, holds) in &required {
            let _ = writeln!(text, "{line}");
            broken += usize::from(!holds);
        }
        for rule in &self.rules {
            let found = look(&rule.expect.subject, summary, runs)
                .map_err(|error| anyhow!("`{}`: {error:#}", rule.expect))?;
            let judged = judged(&rule.expect.subject, &found, summary);
            let holds = print_rule(rule, &found, &judged, &mut text);
            broken += usize::from(!holds);
        }
        let all = self.rules.len() + required.len();
        let _ = match broken {
            0 => write!(text, "gate: all {all} rules hold"),
            broken => write!(text, "gate: {broken} of {all} rules broken"),
        };
        let doubtful = runs.iter().filter(|run| run.status == Status::Doubtful);
        let _ = match doubtful.count() {
            0 => writeln!(text),
            doubtful => writeln!(text, "; {doubtful} of {} runs are doubtful", runs.len()),
        };
        Ok((text, broken == 0))
    }
}

/// One figure that a rule is about.
#[derive(Debug)]
struct Observed {
    place: String,
    /// `None`: there is no such figure in this result, for lack of valid runs.
    value: Option<f64>,
    unit: Unit,
}

impl Observed {
    fn shown(&self) -> String {
        match self.value {
            None => "no valid figure".to_owned(),
            Some(count) if self.unit == Unit::Number && count.fract() == 0.0 => count.to_string(),
            Some(value) => units::format(self.unit, value),
        }
    }
}

fn print_rule(rule: &Rule, found: &[Observed], judged: &str, text: &mut String) -> bool {
    let expression = &rule.expect;
    let (operator, limit) = (expression.operator, expression.limit);
    let holds = |found: &&Observed| {
        found
            .value
            .is_some_and(|value| operator.holds(value, limit))
    };
    let broken: Vec<&Observed> = found.iter().filter(|found| !holds(found)).collect();
    let say = |found: &Observed| format!("{} = {}", found.place, found.shown());
    // Writing to a String cannot fail.
    if broken.is_empty() {
        let closest = found
            .iter()
            .min_by(|a, b| margin(a, limit).total_cmp(&margin(b, limit)));
        let shown = closest.map(say).unwrap_or_default();
        let _ = match found.len() {
            1 => writeln!(text, "ok    {}   ({shown}{judged})", rule.expect),
            n => writeln!(
                text,
                "ok    {}   ({n} figures, closest: {shown}{judged})",
                rule.expect
            ),
        };
        return true;
    }
    let _ = writeln!(text, "FAIL  {}", rule.expect);
    for found in &broken {
        let _ = writeln!(
            text,
            "      {}, wanted {operator} {}",
            say(found),
            expression.limit_text
        );
    }
    if let Some(because) = &rule.because {
        let _ = writeln!(text, "      because: {because}");
    }
    false
}

fn margin(found: &Observed, limit: f64) -> f64 {
    found.value.map_or(0.0, |value| (value - limit).abs())
}

/// All figures that `subject` names. Never empty.
fn look(subject: &Subject, summary: &Summary, runs: &[RunRecord]) -> Result<Vec<Observed>> {
    match subject {
        Subject::Suite(figure) => Ok(vec![suite_figure(figure, summary)?]),
        Subject::Bout {
            place,
            what,
            figure,
        } => bout_figures(place, what, figure, summary, runs),
    }
}

fn suite_figure(figure: &str, summary: &Summary) -> Result<Observed> {
    let value = match figure {
        "complete" => summary.complete,
        "interrupted" => summary.setting.interrupted,
        "noisy" => summary.is_noisy(),
        _ => bail!("the suite has `complete`, `interrupted` and `noisy`"),
    };
    Ok(Observed {
        place: format!("suite.{figure}"),
        value: Some(f64::from(u8::from(value))),
        unit: Unit::Number,
    })
}

fn bout_figures(
    place: &str,
    what: &str,
    figure: &str,
    summary: &Summary,
    runs: &[RunRecord],
) -> Result<Vec<Observed>> {
    let mut found = Vec::new();
    let mut known = Vec::new();
    let mut refusals = Vec::new();
    for bout in &summary.bouts {
        for who in contestants_and_pairs(bout) {
            let name = format!("{}.{who}", bout.scenario.name);
            if !matches(place, &bout.scenario.name, &who) {
                known.push(name);
                continue;
            }
            match figure_of(bout, &who, what, figure, runs) {
                Ok((value, unit)) => found.push(Observed {
                    place: format!("{name}.{what}.{figure}"),
                    value,
                    unit,
                }),
                Err(refusal) => refusals.push(refusal),
            }
        }
    }
    // With a wildcard, bouts that have no such metric are passed over, as long as some have it.
    match refusals.into_iter().next() {
        Some(refusal) if found.is_empty() || !place.contains('*') => Err(refusal),
        _ if found.is_empty() => bail!(
            "nothing is called `{place}` here; there is: {}",
            known.join(", ")
        ),
        _ => Ok(found),
    }
}

/// Every contestant of a bout, and every pair in both directions.
fn contestants_and_pairs(bout: &Bout) -> Vec<String> {
    let single = bout
        .contestants
        .iter()
        .map(|result| result.contestant.clone());
    let pairs = bout.pairs.iter().flat_map(|pair| {
        [
            format!("{}/{}", pair.first, pair.second),
            format!("{}/{}", pair.second, pair.first),
        ]
    });
    single.chain(pairs).collect()
}

/// Whether `place` (`BOUT.WHO`, each possibly with a `*` at its end) means this bout and this
/// contestant or pair.
///
/// A `*` in the place of WHO means every contestant, but no pair: a pair has two directions, and
/// one of them would be wrong.
fn matches(place: &str, bout: &str, who: &str) -> bool {
    place.match_indices('.').any(|(dot, _)| {
        let (where_, whom) = (&place[..dot], &place[dot + 1..]);
        fits(where_, bout) && fits(whom, who) && (whom.contains('/') || !who.contains('/'))
    })
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

fn figure_of(
    bout: &Bout,
    who: &str,
    what: &str,
    figure: &str,
    runs: &[RunRecord],
) -> Result<(Option<f64>, Unit)> {
    match (what, who.split_once('/')) {
        ("runs" | "messages" | "connections", None) => {
            let own = runs
                .iter()
                .filter(|run| run.bout == bout.scenario.name && run.contestant == who);
            Ok((Some(count(own, what, figure)? as f64), Unit::Number))
        }
        ("runs" | "messages" | "connections", Some(_)) => {
            bail!("`{what}` is of one contestant, not of a pair")
        }
        (_, None) => {
            let metric = metric(bout, what)?;
            let spread = bout
                .result_of(who)
                .and_then(|result| result.metrics.get(metric.key).copied().flatten());
            let value = of_spread(figure)?;
            Ok((
                spread.as_ref().map(value),
                if figure == "n" {
                    Unit::Number
                } else {
                    metric.unit
                },
            ))
        }
        (_, Some((first, second))) => {
            let metric = metric(bout, what)?;
            let value = of_ratio(figure)?;
            Ok((
                ratio(bout, first, second, metric.key).as_ref().map(value),
                Unit::Number,
            ))
        }
    }
}

fn metric(bout: &Bout, name: &str) -> Result<&'static metrics::Metric> {
    let kind: ScenarioKind = bout.scenario.kind;
    let found = match name {
        "headline" => metrics::find(kind, &bout.headline),
        "throughput" => metrics::throughput(&bout.scenario),
        key => metrics::find(kind, key),
    };
    found.ok_or_else(|| {
        let keys: Vec<&str> = metrics::of_kind(kind).map(|metric| metric.key).collect();
        anyhow!(
            "{} has no metric `{name}`; there are: headline, throughput (where there is one), runs, messages, connections, {}",
            bout.scenario.name,
            keys.join(", ")
        )
    })
}

fn of_spread(figure: &str) -> Result<fn(&Spread) -> f64> {
    Ok(match figure {
        "n" => |spread| spread.n as f64,
        "median" => |spread| spread.median,
        "mad" => |spread| spread.mad,
        "q1" => |spread| spread.q1,
        "q3" => |spread| spread.q3,
        "min" => |spread| spread.min,
        "max" => |spread| spread.max,
        _ => bail!("`{figure}`: a contestant's metric has n, median, mad, q1, q3, min and max"),
    })
}

fn of_ratio(figure: &str) -> Result<fn(&PairedRatio) -> f64> {
    Ok(match figure {
        "pairs" => |ratio| ratio.pairs as f64,
        "ratio" => |ratio| ratio.ratio,
        "ci_low" => |ratio| ratio.ci_low,
        "ci_high" => |ratio| ratio.ci_high,
        _ => bail!("`{figure}`: a pair's metric has ratio, ci_low, ci_high and pairs"),
    })
}

/// first / second, whichever way round the summary has it.
fn ratio(bout: &Bout, first: &str, second: &str, metric: &str) -> Option<PairedRatio> {
    bout.pairs.iter().find_map(|pair| {
        let ratio = pair
            .comparisons
            .iter()
            .find(|comparison| comparison.metric == metric)?
            .ratio;
        if (pair.first.as_str(), pair.second.as_str()) == (first, second) {
            Some(ratio)
        } else if (pair.second.as_str(), pair.first.as_str()) == (first, second) {
            Some(PairedRatio {
                ratio: 1.0 / ratio.ratio,
                ci_low: 1.0 / ratio.ci_high,
                ci_high: 1.0 / ratio.ci_low,
                ..ratio
            })
        } else {
            None
        }
    })
}

/// Sum over all runs of a contestant in a bout, those that do not count included: a loss is a loss.
fn count<'a>(runs: impl Iterator<Item = &'a RunRecord>, what: &str, figure: &str) -> Result<u64> {
    let of_run: fn(&RunRecord) -> u64 = match (what, figure) {
        ("runs", "total") => |_| 1,
        ("runs", "valid") => |run| u64::from(run.status.counts()),
        ("runs", "doubtful") => |run| u64::from(run.status == Status::Doubtful),
        ("runs", "invalid") => |run| u64::from(run.status == Status::Invalid),
        ("runs", "failed") => |run| u64::from(run.status == Status::Failed),
        ("runs", _) => bail!(
            "`{figure}`: runs are total, valid (in doubt or not), doubtful, invalid or failed"
        ),
        ("messages", "lost") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.messages.lost)
        },
        ("messages", "duplicated") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.messages.duplicated)
        },
        ("messages", "reordered") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.messages.reordered)
        },
        ("messages", "corrupted") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.messages.corrupted)
        },
        ("messages", _) => {
            bail!("`{figure}`: messages are lost, duplicated, reordered or corrupted")
        }
        ("connections", "closed_early") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.connections.closed_early)
        },
        ("connections", "failed") => |run| {
            run.loadgen
                .as_ref()
                .map_or(0, |record| record.connections.failed)
        },
        (_, _) => bail!("`{figure}`: connections are closed_early or failed"),
    };
    Ok(runs.map(of_run).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarize;
    use crate::test_data;

    /// server-uring 1.2 times as fast as server-tokio, give or take, over ten blocks; one run lost
    /// seven messages.
    fn result() -> (Summary, Vec<RunRecord>) {
        let mut runs: Vec<RunRecord> = (1..=10)
            .flat_map(|block| {
                let noise = 1.0 + 0.01 * (block % 3) as f64;
                [
                    test_data::echo_run("server-uring", block, 120_000.0 * noise),
                    test_data::echo_run("server-tokio", block, 100_000.0),
                ]
            })
            .collect();
        runs[19].status = Status::Invalid;
        runs[19].loadgen.as_mut().unwrap().messages.lost = 7;
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        (summarize(test_data::setting(), &scenarios, &runs), runs)
    }

    fn gate(rules: &[&str]) -> Result<(String, bool)> {
        let rules = rules
            .iter()
            .map(|expect| Rule {
                expect: expect.parse().unwrap(),
                because: Some("it matters".into()),
            })
            .collect();
        let (summary, runs) = result();
        let require = Require::default();
        Gate { rules, require }.evaluate(&summary, &runs)
    }

    #[test]
    fn what_a_wildcard_passes_over_is_said() {
        let (mut summary, mut runs) = result();
        let mut other = summary.bouts[0].clone();
        other.scenario.name = "echo-7b".to_owned();
        other.pairs.clear();
        summary.bouts.push(other);
        summary.setting.contestants[1].excluded = Some("it did not start".to_owned());
        runs[0].status = Status::Doubtful;
        let judged = |expect: &str| {
            let expect = expect.parse().unwrap();
            let rules = vec![Rule {
                expect,
                because: None,
            }];
            let require = Require::default();
            Gate { rules, require }.evaluate(&summary, &runs).unwrap().0
        };
        let text = judged("*.server-uring/server-tokio.throughput.ratio > 1.1");
        assert!(text.contains(", judged 1 of 2 bouts)"), "{text}");
        assert!(text.contains("; 1 of 20 runs are doubtful"), "{text}");
        let text = judged("*.*.runs.valid >= 0");
        assert!(
            text.contains(", without server-tokio (excluded))"),
            "{text}"
        );
        assert!(!text.contains("judged"), "{text}");
    }

    #[test]
    fn rules_that_hold_and_rules_that_do_not() {
        for (rule, holds) in [
            ("suite.complete == 1", true),
            ("suite.interrupted == 1", false),
            ("suite.noisy == 0", true),
            (
                "echo-64b-w1-c1000.server-uring/server-tokio.throughput.ci_low > 1.1",
                true,
            ),
            (
                "echo-64b-w1-c1000.server-uring/server-tokio.headline.ci_low > 1.25",
                false,
            ),
            (
                "echo-64b-w1-c1000.server-tokio/server-uring.throughput.ci_high < 0.9",
                true,
            ),
            (
                "echo-*.server-uring/server-tokio.messages_per_s.pairs >= 9",
                true,
            ),
            ("*.server-tokio.throughput.median == 100k", true),
            ("*.*.server_cpu_ns_per_message.median < 10us", true),
            ("*.*.server_cpu_ns_per_message.median < 8us", false),
            ("*.*.messages.lost == 0", false),
            ("*.server-uring.messages.lost == 0", true),
            ("*.server-tokio.runs.invalid <= 1", true),
            ("*.server-tokio.runs.valid >= 10", false),
        ] {
            let (text, all) = gate(&[rule]).unwrap();
            assert_eq!(all, holds, "{rule}\n{text}");
        }
    }

    #[test]
    fn a_figure_that_no_valid_run_gave_is_a_breach() {
        let (text, all) = gate(&["*.server-uring.latency_intended_p99_ns.median < 1s"]).unwrap();
        assert!(!all && text.contains("no valid figure"), "{text}");
    }

    #[test]
    fn a_rule_about_nothing_is_an_error_and_not_a_pass() {
        for (rule, part) in [
            (
                "echo-7b.server-uring.throughput.median > 1",
                "echo-64b-w1-c1000.server-uring",
            ),
            ("*.nobody.throughput.median > 1", "nothing is called"),
            ("*.server-uring.speed.median > 1", "no metric `speed`"),
            ("*.server-uring.throughput.ratio > 1", "n, median"),
            (
                "*.server-uring/server-tokio.throughput.median > 1",
                "ci_low",
            ),
            ("*.server-uring.messages.gone == 0", "lost"),
            (
                "*.server-uring/server-tokio.messages.lost == 0",
                "of one contestant",
            ),
            ("suite.fun == 1", "complete"),
        ] {
            let error = format!("{:#}", gate(&[rule]).unwrap_err());
            assert!(
                error.contains(part) && error.contains(rule),
                "{rule}: {error}"
            );
        }
    }

    #[test]
    fn every_rule_is_printed_with_what_it_found() {
        let (text, all) = gate(&[
            "suite.complete == 1",
            "*.*.messages.lost == 0",
            "*.*.throughput.min >= 90k",
            "*.server-tokio/server-uring.throughput.ci_low > 0.95",
        ])
        .unwrap();
        assert!(!all);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_committed_gate_files_can_be_read() {
        for name in ["gate", "gate-pull-request", "gate-referee"] {
            let file = format!("{}/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            Gate::load(Path::new(&file)).unwrap();
        }
    }

    #[test]
    fn gate_files_are_checked_when_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gate.toml");
        for (content, part) in [
            ("", "missing field `rule`"),
            ("rule = []", "no [[rule]]"),
            ("[[rule]]\nexpect = 'a.b.c.d'", "no comparison"),
            ("[[rule]]\nexpekt = ''", "expekt"),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = format!("{:#}", Gate::load(&file).unwrap_err());
            assert!(
                error.contains(part) && error.contains("gate.toml"),
                "{content}: {error}"
            );
        }
    }
}
