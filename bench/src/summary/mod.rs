//! What a suite found, from its run records: the content of `summary.json`. Pure.

mod against;
mod noise;
mod pairs;
pub mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Duplicate, Protocol, Scenario, ScenarioKind, Skills, plays};
use crate::judge::metrics::{self, Metric};
use crate::record::{Check, Limiter, RunRecord, Status, Stopped};
use crate::stats::{Direction, PairedRatio, Spread, TwoLevel};
pub use against::{Advantage, Figure};
pub use noise::{Noise, SelfBout};
pub use pairs::{by_round, cycles_of_rounds, rounds_to_narrow, standing, widest_interval};
use pairs::{pair, pairs_of};
use verdict::{Significance, Verdict};

/// Everything `summary.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// [`crate::record::SCHEMA_VERSION`] of the writer.
    #[schemars(extend("const" = crate::record::SCHEMA_VERSION))]
    pub schema_version: u32,
    /// What was run, where.
    pub setting: Setting,
    /// Every bout has enough valid runs of every contestant, and nobody was excluded.
    pub complete: bool,
    /// One contestant against itself; `null` in a suite without an A/A bout.
    #[serde(default)]
    pub noise: Option<Noise>,
    /// One entry per scenario.
    pub bouts: Vec<Bout>,
}

impl Summary {
    /// A difference was found between a contestant and itself.
    pub fn is_noisy(&self) -> bool {
        self.noise.as_ref().is_some_and(|noise| noise.noisy)
    }
}

/// What was run, where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// Name of the suite.
    pub suite: String,
    /// Seed of every order and every interval.
    pub seed: u64,
    /// When it began, UTC.
    pub started_utc: String,
    /// Git revision, with `-dirty` if files differed from it and `-profile-guided` if built so.
    pub revision: String,
    /// The machine in one line.
    pub machine: String,
    /// CPUs of the servers.
    pub server_cpus: String,
    /// CPUs of the generator.
    pub generator_cpus: String,
    /// Blocks planned per bout.
    pub repeats: usize,
    /// Valid runs each contestant needs per bout.
    pub runs_needed: usize,
    /// Rounds planned of the bouts that alternate, by scenario.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounds: BTreeMap<String, usize>,
    /// Somebody ended the suite early.
    pub interrupted: bool,
    /// What ended the suite before its time, other than a signal.
    pub aborted: Option<String>,
    /// Why not all planned blocks were run, although nothing went wrong.
    pub cut: Option<String>,
    /// What had changed when the suite was resumed all the same.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The contestants, in the order of tables.
    pub contestants: Vec<Entrant>,
    /// Capacities that rates are fractions of, by key, messages per second.
    pub capacities: BTreeMap<String, MeasuredCapacity>,
}

impl Setting {
    /// The contestant that the others are compared with: the first that took part.
    pub fn reference(&self) -> Option<&str> {
        let mut entrants = self.contestants.iter();
        let first = entrants.find(|one| one.excluded.is_none() && one.duplicate.is_none());
        first.map(|entrant| entrant.name.as_str())
    }

    /// Blocks or rounds planned of a bout.
    pub fn blocks(&self, bout: &str) -> usize {
        self.rounds.get(bout).copied().unwrap_or(self.repeats)
    }

    /// Valid runs that each contestant of a bout needs.
    pub fn runs_needed(&self, bout: &str) -> usize {
        let rounds = self.rounds.get(bout).copied();
        rounds.map_or(self.runs_needed, runs_needed)
    }
}

/// Valid runs each contestant of a bout needs for the suite to succeed: four fifths of the blocks.
pub fn runs_needed(blocks: usize) -> usize {
    (blocks * 4).div_ceil(5)
}

/// A contestant of the suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// Its one line.
    pub about: String,
    /// What it speaks, and so which bouts it can take part in.
    #[serde(default)]
    pub protocol: Protocol,
    /// It can do the work of a handler for each message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_work: bool,
    /// It does less of it for a connection that asks for less.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_lower_work: bool,
    /// It can listen on a Unix socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_unix: bool,
    /// Runtime and version, from its `ready` line.
    pub runtime: Option<String>,
    /// Why it took no part.
    pub excluded: Option<String>,
    /// It is another contestant under a second name.
    #[serde(rename = "again", default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Duplicate>,
}

impl Entrant {
    /// Whether it has runs in this bout.
    pub fn takes_part_in(&self, scenario: &Scenario) -> bool {
        let duplicate = self.duplicate.as_ref();
        let skills = Skills {
            can_work: self.can_work,
            can_lower_work: self.can_lower_work,
            can_unix: self.can_unix,
        };
        self.excluded.is_none() && plays(self.protocol, skills, duplicate, scenario)
    }
}

/// Capacity of each contestant, measured before the bouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredCapacity {
    /// By contestant: median of its calibration runs. Of kind connect it is connections per second.
    pub messages_per_s: BTreeMap<String, f64>,
    /// The smallest of them: what rates are fractions of.
    pub smallest_per_s: f64,
    /// Contestants whose capacity rests on runs that were doubtful, or invalid for another reason
    /// than that the generator was the limit.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_doubt: BTreeSet<String>,
}

/// All runs of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bout {
    /// What was run.
    pub scenario: Scenario,
    /// Rate in force, messages (kind connect: connections) per second (open loops).
    pub rate_per_s: Option<f64>,
    /// Key of the metric that decides it.
    pub headline: String,
    /// One entry per contestant.
    pub contestants: Vec<ContestantResult>,
    /// One entry per pair of contestants.
    pub pairs: Vec<Pair>,
    /// Runs that do not count.
    pub problems: Vec<Problem>,
    /// How the searches of this bout ended (kind `capacity` only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchEnd>,
    /// Runs that count although a check raised a doubt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Problem>,
}

impl Bout {
    /// What this contestant did in it.
    pub fn result_of(&self, contestant: &str) -> Option<&ContestantResult> {
        let mut all = self.contestants.iter();
        all.find(|result| result.contestant == contestant)
    }
}

/// How a search for a capacity ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchEnd {
    /// Who.
    pub contestant: String,
    /// Which block.
    pub block: usize,
    /// Highest rate that met the target and was confirmed.
    pub rate_per_s: Option<f64>,
    /// Lowest rate above it that missed the target.
    #[serde(rename = "broke_per_s")]
    pub missed_per_s: Option<f64>,
    /// Confirming runs that met the target, of this many.
    pub confirmed: (usize, usize),
    /// Probes in all.
    pub probes: usize,
    /// What kept the rate from being higher.
    pub limiter: Option<Limiter>,
}

impl SearchEnd {
    fn of(run: &RunRecord) -> Option<Self> {
        let search = run.capacity.as_ref()?;
        let found = search.found.unwrap_or_default();
        Some(Self {
            contestant: run.contestant.clone(),
            block: run.block,
            rate_per_s: found.rate_per_s,
            missed_per_s: found.missed_per_s,
            confirmed: (found.confirmed, search.goal.confirmations),
            probes: search.probes.len(),
            limiter: search.limiter,
        })
    }
}

/// A contestant in a bout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContestantResult {
    /// Its name.
    pub contestant: String,
    /// Runs.
    pub runs: usize,
    /// Those that count.
    pub valid_runs: usize,
    /// Of them those in doubt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doubtful_runs: usize,
    /// Valid ones with a note of the generator.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noted_runs: usize,
    /// Not run, because this machine cannot hold them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused_runs: usize,
    /// As many as needed, or all refused.
    pub enough: bool,
    /// Over the valid runs; `null` where no valid run has the figure.
    pub metrics: BTreeMap<String, Option<Spread>>,
}

/// Two contestants in a bout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// Above the line of every ratio.
    pub first: String,
    /// Below it.
    pub second: String,
    /// Both are the same contestant.
    #[serde(rename = "again", default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// The headline metric first.
    pub comparisons: Vec<Comparison>,
}

/// Two contestants by one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Key of the metric.
    pub metric: String,
    /// Its good end.
    pub direction: Direction,
    /// Blocks (rounds, in an alternating bout) in which both have a valid run with this figure.
    pub blocks: Vec<usize>,
    /// first / second, with interval and the seed to recompute it.
    #[serde(flatten)]
    pub ratio: PairedRatio,
    /// How sure that is (results older than the test have none).
    #[serde(default)]
    pub significance: Option<Significance>,
    /// Cliff's delta of the runs, pairing aside: 1 if every run of the first is above every run of
    /// the second, -1 if below.
    #[serde(default)]
    pub cliffs_delta: Option<f64>,
    /// Rounds and slices, in an alternating bout: what the interval rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<TwoLevel>,
    /// What that means.
    pub verdict: Verdict,
}

/// A run that does not count, or is in doubt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Who.
    pub contestant: String,
    /// Which block.
    pub block: usize,
    /// Not valid.
    pub status: Status,
    /// Why there was no run, or not a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// The checks that it did not pass.
    #[serde(default, deserialize_with = "loadgen::check::known")]
    pub checks: Vec<Check>,
}

impl Problem {
    fn of(run: &RunRecord) -> Self {
        Self {
            contestant: run.contestant.clone(),
            block: run.block,
            status: run.status,
            stopped: run.stopped.clone(),
            checks: run.failed_checks().cloned().collect(),
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Sums up the runs of all bouts.
pub fn summarize(setting: Setting, scenarios: &[Scenario], runs: &[RunRecord]) -> Summary {
    let bouts: Vec<Bout> = scenarios
        .iter()
        .map(|scenario| bout(&setting, scenario, runs))
        .collect();
    let excluded = setting
        .contestants
        .iter()
        .any(|entrant| entrant.excluded.is_some());
    let enough = bouts
        .iter()
        .flat_map(|bout| &bout.contestants)
        .all(|result| result.enough);
    let noise = Noise::of(&bouts);
    Summary {
        schema_version: crate::record::SCHEMA_VERSION,
        complete: enough && !excluded && !setting.interrupted && setting.aborted.is_none(),
        setting,
        noise,
        bouts,
    }
}

fn bout(setting: &Setting, scenario: &Scenario, runs: &[RunRecord]) -> Bout {
    let runs: Vec<&RunRecord> = runs
        .iter()
        .filter(|run| run.bout == scenario.name)
        .collect();
    let names = setting
        .contestants
        .iter()
        .filter(|entrant| entrant.takes_part_in(scenario))
        .map(|entrant| entrant.name.as_str());
    let pairs = pairs_of(setting, scenario)
        .into_iter()
        .map(|(first, second)| pair(setting.seed, scenario, first, second, &runs))
        .collect();
    Bout {
        scenario: scenario.clone(),
        // In a search every run ends at a rate of its own.
        rate_per_s: match scenario.kind {
            ScenarioKind::Capacity => None,
            _ => runs.iter().find_map(|run| run.generator.rate_per_s),
        },
        headline: metrics::headline(scenario).to_owned(),
        contestants: names
            .map(|name| result_of(setting.runs_needed(&scenario.name), scenario, name, &runs))
            .collect(),
        pairs,
        problems: runs
            .iter()
            .filter(|run| !run.status.counts())
            .map(|run| Problem::of(run))
            .collect(),
        searches: runs.iter().filter_map(|run| SearchEnd::of(run)).collect(),
        doubts: runs
            .iter()
            .filter(|run| run.status == Status::Doubtful)
            .map(|run| Problem::of(run))
            .collect(),
    }
}

fn result_of(
    runs_needed: usize,
    scenario: &Scenario,
    name: &str,
    runs: &[&RunRecord],
) -> ContestantResult {
    let own: Vec<&&RunRecord> = runs.iter().filter(|run| run.contestant == name).collect();
    let valid: Vec<&&&RunRecord> = own.iter().filter(|run| run.status.counts()).collect();
    let refused_runs = own
        .iter()
        .filter(|run| run.status == Status::Refused)
        .count();
    let spread = |metric: &Metric| {
        let values: Vec<f64> = valid
            .iter()
            .filter_map(|run| run.metric(metric.key))
            .collect();
        (metric.key.to_owned(), Spread::of(&values))
    };
    ContestantResult {
        contestant: name.to_owned(),
        runs: own.len(),
        valid_runs: valid.len(),
        doubtful_runs: valid
            .iter()
            .filter(|run| run.status == Status::Doubtful)
            .count(),
        noted_runs: valid.iter().filter(|run| run.has_notes()).count(),
        refused_runs,
        enough: valid.len() >= runs_needed || (refused_runs > 0 && refused_runs == own.len()),
        metrics: metrics::of_kind(scenario.kind).map(spread).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    fn suite(blocks: usize) -> Vec<RunRecord> {
        (1..=blocks)
            .flat_map(|block| {
                let drift = 1.0 - 0.02 * block as f64;
                [
                    test_data::echo_run("server-uring", block, 112_000.0 * drift),
                    test_data::echo_run("server-tokio", block, 100_000.0 * drift),
                ]
            })
            .collect()
    }

    fn summary_of(runs: &[RunRecord]) -> Summary {
        summarize(
            test_data::setting(),
            &[test_data::scenario("echo-64b-w1-c1000")],
            runs,
        )
    }

    #[test]
    fn a_known_ratio_comes_out_whatever_the_drift() {
        let summary = summary_of(&suite(10));
        assert!(summary.complete);
        let comparison = &summary.bouts[0].pairs[0].comparisons[0];
        assert_eq!(comparison.metric, "messages_per_s");
        let verdict = &comparison.verdict;
        assert_eq!(verdict.winner.as_deref(), Some("server-uring"));
        assert!((verdict.advantage - 1.12).abs() < 1e-9 && verdict.claim);
        assert_eq!(comparison.blocks, (1..=10).collect::<Vec<_>>());
        assert_eq!(summary.bouts[0].contestants[0].valid_runs, 10);
    }

    #[test]
    fn a_failed_run_is_a_row_and_takes_its_partner_out_of_the_pairs_only() {
        let mut runs = suite(10);
        runs[4] = test_data::failed(runs[4].clone(), "the server was killed by signal 9");
        let summary = summary_of(&runs);
        let bout = &summary.bouts[0];
        assert_eq!(
            (bout.contestants[0].runs, bout.contestants[0].valid_runs),
            (10, 9)
        );
        assert_eq!(bout.contestants[1].valid_runs, 10);
        let comparison = &bout.pairs[0].comparisons[0];
        assert_eq!(comparison.ratio.pairs, 9);
        assert!(!comparison.blocks.contains(&3));
        assert!(!comparison.verdict.claim);
        assert_eq!(bout.problems.len(), 1);
        assert!(summary.complete, "9 of 10 are enough");
    }

    #[test]
    fn too_few_valid_runs_exclusion_and_interruption_make_it_incomplete() {
        let mut runs = suite(10);
        for place in [0, 2, 4] {
            runs[place] = test_data::failed(runs[place].clone(), "x");
        }
        let summary = summary_of(&runs);
        assert!(!summary.complete);
        let result = summary.bouts[0].result_of("server-uring").unwrap();
        assert_eq!((result.valid_runs, result.enough), (7, false));

        let mut setting = test_data::setting();
        setting.contestants[0].excluded = Some("conformance: 2 cases fail".into());
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let summary = summarize(setting, &scenarios, &suite(10));
        assert!(!summary.complete && summary.bouts[0].pairs.is_empty());
        assert_eq!(summary.bouts[0].contestants.len(), 1);

        let mut setting = test_data::setting();
        setting.interrupted = true;
        let summary = summarize(setting, &scenarios, &suite(3));
        assert!(!summary.complete);
    }

    /// Ten blocks in which uring ran twice, the second time at this multiple of its speed.
    fn twice(factor: f64) -> Summary {
        let mut runs = suite(10);
        for block in 1..=10 {
            let noise = 1.0 + 0.02 * ((block * 7) % 5) as f64 - 0.04;
            let drift = 1.0 - 0.02 * block as f64;
            let per_s = 112_000.0 * drift * noise * factor;
            runs.push(test_data::echo_run("server-uring-again", block, per_s));
        }
        let mut setting = test_data::setting();
        let mut again = setting.contestants[0].clone();
        again.name = "server-uring-again".to_owned();
        again.duplicate = Some(Duplicate {
            of: "server-uring".to_owned(),
            bouts: vec!["echo-64b-w1-c1000".to_owned()],
        });
        setting.contestants.push(again);
        summarize(setting, &[test_data::scenario("echo-64b-w1-c1000")], &runs)
    }

    #[test]
    fn a_contestant_that_beats_itself_marks_the_result_as_noisy() {
        let quiet = twice(1.0);
        let pairs = &quiet.bouts[0].pairs;
        assert_eq!(pairs.len(), 2, "nobody meets the second name but the first");
        assert!(pairs[1].duplicate && pairs[1].second == "server-uring-again");
        let noise = quiet.noise.unwrap();
        let verdict = noise.bouts[0].verdict.as_ref().unwrap();
        assert!(!noise.noisy && verdict.claim && verdict.winner.is_none());

        let noisy = twice(1.1);
        assert!(noisy.noise.unwrap().noisy);
        assert_eq!(summary_of(&suite(10)).noise, None);
    }

    #[test]
    fn the_widest_interval_needs_runs_for_a_claim() {
        let scenario = test_data::scenario("echo-64b-w1-c1000");
        let of = |blocks| widest_interval(&test_data::setting(), &scenario, &suite(12), blocks);
        assert_eq!(of(9), None);
        assert!(of(10).unwrap() < 1e-9);
    }

    #[test]
    fn the_json_reads_back() {
        let summary = summary_of(&suite(3));
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
}
