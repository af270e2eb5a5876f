//! `suites/*.toml`: a list of scenarios with the time each may take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Scenario, ScenarioKind, duration, is_name, load_toml};

/// Shorter slices would be compared by steps of the kernel's CPU time.
const SHORTEST_SLICE: Duration = Duration::from_millis(20);

/// A list of scenarios and how long and how often each runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The file's stem.
    #[serde(default)]
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Blocks per bout that runs in sequence: each holds one run of every contestant.
    pub repeats: usize,
    /// Further blocks a bout may get when runs of it were invalid.
    #[serde(default)]
    pub extra_blocks: usize,
    /// No round starts that would not end within this, counted from the start of the program.
    #[serde(with = "duration")]
    pub budget: Duration,
    /// Load that is not counted, unless `[timing.SCENARIO]` says otherwise.
    #[serde(with = "duration")]
    pub warmup: Duration,
    /// The measured window, unless `[timing.SCENARIO]` says otherwise.
    #[serde(with = "duration")]
    pub duration: Duration,
    /// Names of scenarios, in the order of the report.
    pub scenarios: Vec<String>,
    /// Scenarios of it in which the first contestant also runs under a second name (A/A bouts).
    #[serde(rename = "again", default, skip_serializing_if = "Vec::is_empty")]
    pub duplicate: Vec<String>,
    /// Exceptions by scenario name.
    #[serde(default)]
    pub timing: BTreeMap<String, Timing>,
    /// Who enters when --contestants is not given; empty: those marked `default` in the
    /// contestants' file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contestants: Vec<String>,
    /// How capacity is measured for rates that are fractions of it.
    #[serde(default)]
    pub calibration: Calibration,
    /// How bouts are run whose contestants can live side by side; without it all bouts are run in
    /// sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternation: Option<Alternation>,
    /// Exceptions by scenario name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alternation_of: BTreeMap<String, Alternation>,
    /// Each closed loop gets a companion at a rate that is the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_rate: Option<EqualRate>,
}

/// The companions of the closed loops of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EqualRate {
    /// The rate, as a share of what the slowest contestant did in the first round of the closed
    /// loop.
    pub fraction: f64,
    /// How they are run.
    pub alternation: Alternation,
    /// Scenarios without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// An alternating bout: in a round fresh processes of all contestants live at once; a cycle wakes
/// each once, for a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternation {
    /// Rounds.
    pub rounds: usize,
    /// Cycles of a round.
    pub cycles: usize,
    /// Load before a slice that is not counted.
    #[serde(with = "duration")]
    pub settle: Duration,
    /// Load that is counted, of one contestant in one cycle.
    #[serde(with = "duration")]
    pub slice: Duration,
}

/// Time of one run after all connections are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Load that is not counted.
    #[serde(with = "duration")]
    pub warmup: Duration,
    /// The measured window.
    #[serde(with = "duration")]
    pub duration: Duration,
}

/// How capacity is measured: closed-loop echoes with window 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Runs per contestant; the median counts.
    pub runs: usize,
    /// Load that is not counted.
    #[serde(with = "duration")]
    pub warmup: Duration,
    /// The measured window.
    #[serde(with = "duration")]
    pub duration: Duration,
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            runs: 1,
            warmup: Duration::from_millis(200),
            duration: Duration::from_millis(500),
        }
    }
}

impl Alternation {
    fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0, "`rounds` must be at least 1");
        ensure!(self.cycles > 0, "`cycles` must be at least 1");
        ensure!(
            self.slice >= SHORTEST_SLICE,
            "`slice` must be at least {SHORTEST_SLICE:?}: CPU time is counted in steps of up to 4 ms"
        );
        Ok(())
    }
}

impl Suite {
    /// How this bout alternates, if the suite lets bouts alternate and this kind of load can.
    pub fn alternation_of(&self, scenario: &Scenario) -> Option<Alternation> {
        let alternates = matches!(scenario.kind, ScenarioKind::Echo | ScenarioKind::Broadcast);
        let exception = self.alternation_of.get(&scenario.name).copied();
        let usual = match scenario.at_rate_of {
            Some(_) => self.equal_rate.as_ref().map(|equal| equal.alternation),
            None => self.alternation,
        };
        exception.or(usual).filter(|_| alternates)
    }

    /// The companion of a scenario at an equal rate, if the suite gives it one.
    pub fn companion_of(&self, scenario: &Scenario) -> Option<Scenario> {
        let equal = self.equal_rate.as_ref()?;
        let has =
            self.alternation_of(scenario).is_some() && !equal.without.contains(&scenario.name);
        has.then(|| scenario.at_rate(equal.fraction)).flatten()
    }

    /// Warm-up and window of a scenario.
    pub fn timing_of(&self, scenario: &str) -> Timing {
        self.timing.get(scenario).copied().unwrap_or(Timing {
            warmup: self.warmup,
            duration: self.duration,
        })
    }
}

/// A suite by name (`suites/NAME.toml` under `config_dir`) or by path (ends in `.toml`).
pub fn load_suite(config_dir: &Path, name_or_path: &str) -> Result<Suite> {
    let (path, name) = locate(config_dir, "suites", name_or_path)?;
    ensure!(is_name(&name), "`{name}` cannot be a suite's name");
    let mut suite: Suite = load_toml(&path)?;
    suite.name = name;
    let check = || -> Result<()> {
        ensure!(suite.repeats > 0, "`repeats` must be at least 1");
        ensure!(
            suite.calibration.runs > 0,
            "`calibration.runs` must be at least 1"
        );
        ensure!(!suite.scenarios.is_empty(), "`scenarios` is empty");
        ensure!(!suite.duration.is_zero(), "`duration` must not be zero");
        let exceptions = suite.timing.keys().map(|name| ("timing", name));
        let alternations = suite.alternation_of.keys();
        for (table, name) in exceptions.chain(alternations.map(|name| ("alternation_of", name))) {
            ensure!(
                suite.scenarios.contains(name),
                "[{table}.{name}] is for a scenario that is not in the suite"
            );
        }
        let alternations = suite
            .alternation
            .iter()
            .chain(suite.alternation_of.values());
        for alternation in alternations {
            alternation.check()?;
        }
        if let Some(equal) = &suite.equal_rate {
            ensure!(
                equal.fraction > 0.0 && equal.fraction <= 1.0,
                "`equal_rate.fraction` must be above 0 and at most 1"
            );
        }
        for name in &suite.duplicate {
            ensure!(
                suite.scenarios.contains(name),
                "`again` names `{name}`, a scenario that is not in the suite"
            );
        }
        Ok(())
    };
    check()
        .map_err(|error| error.context(format!("{} is not what it should be", path.display())))?;
    Ok(suite)
}

/// File and stem of `name_or_path`: a path if it ends in `.toml`, else
/// `config_dir/folder/NAME.toml`.
pub(super) fn locate(
    config_dir: &Path,
    folder: &str,
    name_or_path: &str,
) -> Result<(PathBuf, String)> {
    let path = if name_or_path.ends_with(".toml") {
        PathBuf::from(name_or_path)
    } else {
        config_dir.join(folder).join(format!("{name_or_path}.toml"))
    };
    if !path.is_file() {
        let known = names_in(&config_dir.join(folder));
        anyhow::bail!(
            "no {} `{name_or_path}` ({} does not exist); known: {}",
            folder.trim_end_matches('s'),
            path.display(),
            known.join(", ")
        );
    }
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .context("file name is not UTF-8")?;
    let stem = stem.to_owned();
    Ok((path, stem))
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".toml")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let config_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let message = load_suite(config_dir, "endless").unwrap_err().to_string();
        assert!(
            message.contains("no suite `endless`")
                && message.contains(
                    "broadcast, large, peers, pull-request, questions, quick, referee, scale, \
                     smoke, standard"
                ),
            "{message}"
        );
    }

    #[test]
    fn exceptions_apply_by_scenario() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        let body = "about = 'a'\nrepeats = 1\nbudget = '1m'\nwarmup = '100ms'\nduration = '1s'\nscenarios = ['a', 'b']\n\
                    [calibration]\nruns = 1\nwarmup = '0s'\nduration = '1s'\n\
                    [timing.b]\nwarmup = '1s'\nduration = '5s'\n";
        std::fs::write(&file, body).unwrap();
        let suite = load_suite(dir.path(), file.to_str().unwrap()).unwrap();
        assert_eq!(suite.timing_of("a").duration, Duration::from_secs(1));
        assert_eq!(suite.timing_of("b").duration, Duration::from_secs(5));
        std::fs::write(&file, body.replace("timing.b", "timing.c")).unwrap();
        let message = format!(
            "{:#}",
            load_suite(dir.path(), file.to_str().unwrap()).unwrap_err()
        );
        assert!(message.contains("[timing.c]"), "{message}");
    }
}
