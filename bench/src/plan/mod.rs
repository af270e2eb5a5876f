//! The plan of a suite: what the options name, loaded and checked before anything starts.

pub mod dry_run;
pub mod estimate;
pub mod layout;
pub mod order;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::config::{
    Alternation, Contestant, Options, Protocol, Scenario, Suite, Timing, load_contestants,
    load_scenario, load_suite,
};
use crate::judge::metrics;
use crate::machine::{CpuSet, Topology, proc};
use crate::units::{self, Unit};

/// Memory of one connection, both ends, kernel and user, with some to spare (measured: 7 to 9 KB).
const BYTES_PER_CONNECTION: u64 = 12 << 10;

/// A suite ready to run.
#[derive(Debug, Clone)]
pub struct SuitePlan {
    /// The suite.
    pub suite: Suite,
    /// Blocks per bout that runs in sequence.
    pub repeats: usize,
    /// Rounds per alternating bout, where the user said how many.
    rounds: Option<usize>,
    /// Memory that the bouts may use, where that can be told.
    available_bytes: Option<u64>,
    /// When more blocks than `repeats` are run.
    pub until: Option<Until>,
    /// When the last round must be over; `None` when the user said when to stop.
    pub budget: Option<Duration>,
    /// The scenarios, in the order of the report.
    pub scenarios: Vec<Scenario>,
    /// Contestants with their binaries, in the order of tables.
    pub candidates: Vec<Candidate>,
    /// The generator's binary.
    pub loadgen: PathBuf,
    /// The conformance suite's binary, unless it is to be skipped.
    pub conformance: Option<PathBuf>,
    /// CPUs of the servers.
    pub server_cpus: CpuSet,
    /// CPUs of the generator.
    pub generator_cpus: CpuSet,
    /// Seed of every random order and interval.
    pub seed: u64,
}

/// A contestant with its binary, and what came of its admission.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The contestant.
    pub contestant: Contestant,
    /// Its binary.
    pub program: PathBuf,
    /// Runtime and version, from its `ready` line.
    pub runtime: Option<String>,
    /// Why it takes no part.
    pub excluded: Option<String>,
}

impl Candidate {
    /// Whether it has runs in this bout.
    pub fn takes_part_in(&self, scenario: &Scenario) -> bool {
        self.excluded.is_none() && self.contestant.plays(scenario)
    }
}

/// When a bout has blocks enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Until {
    /// All headline intervals are at most this wide to each side, as a share.
    pub half_width: f64,
    /// Or this many blocks were run.
    pub max_repeats: usize,
}

impl SuitePlan {
    /// Loads and checks everything that `options` name; binaries are looked for in `bin_dir`.
    pub fn new(options: &Options, bin_dir: &Path) -> Result<Self> {
        let suite = load_suite(&options.setup.config_dir, &options.suite)?;
        Self::of_suite(suite, options, bin_dir)
    }

    /// The same of a suite that is not the one which `options` name.
    pub fn of_suite(suite: Suite, options: &Options, bin_dir: &Path) -> Result<Self> {
        let setup = &options.setup;
        let names = if options.scenarios.is_empty() {
            &suite.scenarios
        } else {
            &options.scenarios
        };
        let mut scenarios: Vec<Scenario> = Vec::new();
        for name in names {
            let scenario = load_scenario(&setup.config_dir, name)?;
            let companion = suite.companion_of(&scenario);
            scenarios.push(scenario);
            scenarios.extend(companion);
        }
        scenarios.iter().try_for_each(check_headline)?;
        unique(
            "scenario",
            scenarios.iter().map(|scenario| scenario.name.as_str()),
        )?;

        let names = if options.contestants.is_empty() {
            &suite.contestants
        } else {
            &options.contestants
        };
        let file = setup.contestants_file.clone();
        let file = file.unwrap_or_else(|| setup.config_dir.join("contestants.toml"));
        let mut contestants = choose(load_contestants(&file)?, names, &file)?;
        let repeats = options.repeats.map_or(suite.repeats, usize::from);
        if repeats > 1 {
            // Two single runs show nothing, not even noise.
            contestants.extend(duplicate(&contestants, &suite.duplicate, &scenarios));
        }
        unique(
            "contestant",
            contestants
                .iter()
                .map(|contestant| contestant.name.as_str()),
        )?;
        let mut candidates = Vec::new();
        for contestant in contestants {
            candidates.push(Candidate {
                program: binary(bin_dir, &contestant.program)?,
                contestant,
                runtime: None,
                excluded: None,
            });
        }
        let wants_conformance =
            !options.skip_conformance && candidates.iter().any(|one| one.contestant.conformance);
        let conformance = wants_conformance
            .then(|| binary(bin_dir, Path::new("conformance")))
            .transpose()?;

        let allowed = CpuSet::allowed()?;
        let (server_cpus, generator_cpus) = match (&setup.server_cpus, &setup.generator_cpus) {
            (Some(server), Some(generator)) => {
                if let Some(cpu) = server
                    .cpus()
                    .iter()
                    .find(|cpu| generator.cpus().contains(cpu))
                {
                    bail!(
                        "CPU {cpu} is in --server-cpus and in --generator-cpus: they would measure each other"
                    );
                }
                (server.clone(), generator.clone())
            }
            _ => Topology::read(Path::new("/"), &allowed).halves(),
        };
        for cpu in server_cpus.cpus().iter().chain(generator_cpus.cpus()) {
            ensure!(
                allowed.cpus().contains(cpu),
                "CPU {cpu} is not among those this process may use: {allowed}"
            );
        }
        for scenario in &scenarios {
            if let Some(count) = scenario.shared_cpus {
                ensure!(
                    server_cpus.of_both(&generator_cpus, count).is_some(),
                    "scenario `{}` needs {count} CPUs for server and generator together, and there \
                     are only {server_cpus} and {generator_cpus}",
                    scenario.name
                );
            }
        }
        Ok(Self {
            repeats,
            rounds: options.repeats.map(usize::from),
            available_bytes: proc::read_kernel_memory().and_then(|memory| memory.available_bytes),
            until: options.until_ci.map(|half_width| Until {
                half_width,
                max_repeats: usize::from(options.max_repeats),
            }),
            budget: (options.repeats.is_none() && options.until_ci.is_none())
                .then_some(suite.budget),
            loadgen: binary(bin_dir, Path::new("loadgen"))?,
            seed: u64::from(options.seed.unwrap_or_else(seed_of_the_moment)),
            suite,
            scenarios,
            candidates,
            conformance,
            server_cpus,
            generator_cpus,
        })
    }

    /// Warm-up and window of a scenario.
    pub fn timing(&self, scenario: &Scenario) -> Timing {
        self.suite.timing_of(&scenario.name)
    }

    /// How this bout alternates; `None` if it runs in sequence: its kind cannot alternate, or its
    /// contestants cannot live side by side ([`Self::in_sequence`]).
    pub fn alternation(&self, scenario: &Scenario) -> Option<Alternation> {
        let alternation = self.suite.alternation_of(scenario)?;
        self.in_sequence(scenario).is_none().then(|| Alternation {
            rounds: self.rounds.unwrap_or(alternation.rounds),
            ..alternation
        })
    }

    /// Why the contestants of a bout that could alternate do not live side by side.
    pub fn in_sequence(&self, scenario: &Scenario) -> Option<String> {
        let contestants = self.contestants_of(scenario);
        if let Some(one) = contestants.iter().find(|one| one.spins) {
            return Some(format!("{} polls while it is not its turn", one.name));
        }
        let connections = scenario.connections * contestants.len() as u64;
        let needed_bytes =
            connections * (BYTES_PER_CONNECTION + 4 * scenario.largest_message_bytes());
        let available_bytes = self.available_bytes?;
        (needed_bytes > available_bytes / 2).then(|| {
            format!(
                "{connections} connections of {} contestants need about {}, and {} are available",
                contestants.len(),
                units::format(Unit::Bytes, needed_bytes as f64),
                units::format(Unit::Bytes, available_bytes as f64)
            )
        })
    }

    fn contestants_of(&self, scenario: &Scenario) -> Vec<&Contestant> {
        let contestants = self.candidates.iter().map(|one| &one.contestant);
        contestants.filter(|one| one.plays(scenario)).collect()
    }

    /// Blocks or rounds of a bout.
    pub fn blocks(&self, scenario: &Scenario) -> usize {
        self.alternation(scenario)
            .map_or(self.repeats, |alternation| alternation.rounds)
    }

    /// The most blocks or rounds of a bout: so often the suite goes round.
    pub fn most_blocks(&self) -> usize {
        let blocks = self.scenarios.iter().map(|scenario| self.blocks(scenario));
        blocks.max().unwrap_or(0)
    }

    /// One scenario for each capacity that has to be measured.
    pub fn calibrations(&self) -> Vec<&Scenario> {
        let mut keys = Vec::new();
        self.scenarios
            .iter()
            .filter(|scenario| {
                let of_its_own = scenario.at_rate_of.is_none();
                let key = scenario.capacity_key().filter(|_| of_its_own);
                let new = key.is_some() && !keys.contains(&key);
                keys.push(key);
                new
            })
            .collect()
    }

    /// How long one block of a bout takes, about.
    pub fn estimate_block(&self, scenario: &Scenario) -> Duration {
        let contestants = self.contestants_of(scenario).len() as u32;
        match self.alternation(scenario) {
            Some(alternation) => estimate::round(scenario, alternation) * contestants,
            None => estimate::run(scenario, self.timing(scenario)) * contestants,
        }
    }

    /// The last block that a bout may get: to make up for runs that do not count, or until its
    /// interval is narrow.
    pub fn last_block(&self, scenario: &Scenario) -> usize {
        match self.until {
            Some(until) => until.max_repeats.max(self.blocks(scenario)),
            None => self.blocks(scenario) + self.suite.extra_blocks,
        }
    }

    /// How long the bouts take with the blocks that are planned, about, calibration included, trial
    /// starts and conformance not.
    pub fn estimate(&self) -> Duration {
        self.estimate_with(|scenario| self.blocks(scenario))
    }

    /// The same with the most blocks that bouts may get.
    pub fn estimate_at_most(&self) -> Duration {
        self.estimate_with(|scenario| self.last_block(scenario))
    }

    fn estimate_with(&self, blocks: impl Fn(&Scenario) -> usize) -> Duration {
        let of_bout = |scenario| self.estimate_block(scenario) * blocks(scenario) as u32;
        let bouts: Duration = self.scenarios.iter().map(of_bout).sum();
        bouts + self.estimate_calibrations()
    }

    /// How long the calibrations take in all, about.
    pub fn estimate_calibrations(&self) -> Duration {
        let of_one: Duration = self
            .calibrations()
            .into_iter()
            .map(|scenario| estimate::calibration(scenario, self.suite.calibration))
            .sum();
        let originals = self
            .candidates
            .iter()
            .filter(|one| one.contestant.duplicate.is_none())
            .count();
        of_one * originals as u32
    }
}

fn check_headline(scenario: &Scenario) -> Result<()> {
    let Some(headline) = &scenario.headline else {
        return Ok(());
    };
    ensure!(
        metrics::find(scenario.kind, headline).is_some(),
        "scenario `{}`: `headline`: no metric `{headline}` for this kind; known: {}",
        scenario.name,
        metrics::of_kind(scenario.kind)
            .map(|metric| metric.key)
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}

fn choose(all: Vec<Contestant>, names: &[String], file: &Path) -> Result<Vec<Contestant>> {
    if names.is_empty() {
        let default: Vec<Contestant> = all
            .into_iter()
            .filter(|contestant| contestant.default)
            .collect();
        ensure!(
            !default.is_empty(),
            "{}: no contestant has `default = true`; name some with --contestants",
            file.display()
        );
        return Ok(default);
    }
    unique("contestant", names.iter().map(String::as_str))?;
    let find = |name: &String| {
        all.iter()
            .find(|contestant| contestant.name == *name)
            .cloned()
            .with_context(|| {
                let known: Vec<&str> = all
                    .iter()
                    .map(|contestant| contestant.name.as_str())
                    .collect();
                format!(
                    "no contestant `{name}` in {}; known: {}",
                    file.display(),
                    known.join(", ")
                )
            })
    };
    names.iter().map(find).collect()
}

/// The first contestant that plays everywhere once more, in the A/A bouts among `scenarios`, or in
/// the first scenario if none of them is one; none if the suite has no A/A bout.
fn duplicate(
    contestants: &[Contestant],
    bouts: &[String],
    scenarios: &[Scenario],
) -> Option<Contestant> {
    let first = contestants
        .iter()
        .find(|contestant| contestant.protocol == Protocol::Ws)
        .or(contestants.first())?;
    let chosen = scenarios.iter().map(|scenario| scenario.name.clone());
    let is_listed = |scenario: &&Scenario| {
        let of = scenario.at_rate_of.as_ref();
        bouts.contains(&scenario.name) || of.is_some_and(|of| bouts.contains(of))
    };
    let listed = scenarios.iter().filter(is_listed);
    let listed: Vec<String> = listed.map(|scenario| scenario.name.clone()).collect();
    if bouts.is_empty() {
        None
    } else if listed.is_empty() {
        Some(first.duplicate(chosen.take(1).collect()))
    } else {
        Some(first.duplicate(listed))
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            bail!("{what} `{name}` is named twice");
        }
    }
    Ok(())
}

/// A bare name lies in `bin_dir`, or with the examples in there; anything else is a path already.
fn binary(bin_dir: &Path, program: &Path) -> Result<PathBuf> {
    let path = if program.components().count() > 1 {
        program.to_path_buf()
    } else {
        let example = bin_dir.join("examples").join(program);
        if example.is_file() {
            example
        } else {
            bin_dir.join(program)
        }
    };
    ensure!(
        path.is_file(),
        "{} does not exist; scripts/bench.sh builds all binaries, or name their folder with --bin-dir",
        path.display()
    );
    Ok(path)
}

fn seed_of_the_moment() -> u32 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as u32 ^ since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;
    use clap::Parser;

    fn options(args: &[&str]) -> Options {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        Line::try_parse_from([&["bench"], args].concat())
            .unwrap()
            .options
    }

    fn bin_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["server-uring", "server-tokio", "loadgen", "conformance"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    #[test]
    fn quick_fits_its_budget_on_two_cpus_and_so_do_the_others() {
        let bins = bin_dir();
        for (suite, preliminaries) in [("smoke", 12), ("quick", 15), ("standard", 15)] {
            let plan = SuitePlan::new(&options(&["--suite", suite]), bins.path()).unwrap();
            let estimate = plan.estimate() + Duration::from_secs(preliminaries);
            assert!(
                estimate < plan.budget.unwrap(),
                "{suite} takes {estimate:?}"
            );
        }
    }

    #[test]
    fn server_and_generator_do_not_share_a_cpu_by_command() {
        let bins = bin_dir();
        let args = ["--server-cpus", "0", "--generator-cpus", "0"];
        let error = SuitePlan::new(&options(&args), bins.path()).unwrap_err();
        assert!(error.to_string().contains("CPU 0 is in"), "{error}");
    }

    #[test]
    fn cpus_that_are_shared_must_be_there() {
        let bins = bin_dir();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wide.toml");
        let new = |cpus: usize| {
            let text = format!(
                "title = 't'\nshows = 's'\ndoes_not_show = 'n'\nkind = 'echo'\nconnections = 1\n\
                 load = {{ window = 1 }}\nshared_cpus = {cpus}\n"
            );
            std::fs::write(&file, text).unwrap();
            let args = ["--scenarios", file.to_str().unwrap()];
            SuitePlan::new(&options(&args), bins.path())
        };
        assert!(new(1).is_ok());
        let error = new(5_000).unwrap_err().to_string();
        assert!(error.contains("`wide` needs 5000 CPUs"), "{error}");
    }

    #[test]
    fn repeats_lift_the_budget_and_scenarios_narrow_the_suite() {
        let bins = bin_dir();
        let args = [
            "--repeats",
            "40",
            "--scenarios",
            "idle-1000,echo-64b-open-80",
            "--contestants",
            "server-tokio-percore",
        ];
        let plan = SuitePlan::new(&options(&args), bins.path()).unwrap();
        assert_eq!((plan.repeats, plan.budget), (40, None));
        assert_eq!(plan.scenarios.len(), 2);
        assert_eq!(plan.candidates[0].contestant.name, "server-tokio-percore");
        assert_eq!(plan.calibrations().len(), 1);
    }

    #[test]
    fn a_suite_may_bring_its_own_contestants() {
        let bins = bin_dir();
        for name in ["peer-fastwebsockets", "peer-tokio-tungstenite"] {
            std::fs::write(bins.path().join(name), "").unwrap();
        }
        let new = |args: &[&str]| SuitePlan::new(&options(args), bins.path());
        let error = new(&["--suite", "peers"]).unwrap_err().to_string();
        assert!(error.contains("floor_tcp"), "{error}");
        std::fs::create_dir(bins.path().join("examples")).unwrap();
        std::fs::write(bins.path().join("examples/floor_tcp"), "").unwrap();
        std::fs::write(bins.path().join("peer-uwebsockets"), "").unwrap();
        let plan = new(&["--suite", "peers"]).unwrap();
        let mut candidates = plan.candidates.iter();
        let floor = candidates.find(|one| one.contestant.name == "floor-tcp");
        assert!(floor.unwrap().program.ends_with("examples/floor_tcp"));
        assert_eq!(plan.candidates.len(), 8, "the first one twice");
        assert!(plan.estimate() + Duration::from_secs(15) < plan.budget.unwrap());
        let plan = new(&["--suite", "peers", "--contestants", "server-tokio"]).unwrap();
        assert_eq!(plan.candidates[0].contestant.name, "server-tokio");
    }

    #[test]
    fn a_headline_is_a_metric_of_its_kind() {
        let mut scenario = test_data::scenario("mine");
        scenario.headline = Some("messages_per_s".into());
        assert!(check_headline(&scenario).is_ok());
        scenario.headline = Some("luck".into());
        let message = check_headline(&scenario).unwrap_err().to_string();
        assert!(
            message.contains("`mine`") && message.contains("no metric `luck`"),
            "{message}"
        );
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        let bins = bin_dir();
        let fails = |args: &[&str]| {
            format!(
                "{:#}",
                SuitePlan::new(&options(args), bins.path()).unwrap_err()
            )
        };
        assert!(fails(&["--contestants", "nginx"]).contains("no contestant `nginx`"));
        assert!(fails(&["--contestants", "nginx"]).contains("known: server-uring, "));
        assert!(fails(&["--scenarios", "echo"]).contains("no scenario `echo`"));
        assert!(fails(&["--contestants", "server-uring,server-uring"]).contains("named twice"));
        assert!(fails(&["--server-cpus", "4095", "--generator-cpus", "0"]).contains("CPU 4095"));
        std::fs::remove_file(bins.path().join("loadgen")).unwrap();
        assert!(fails(&[]).contains("scripts/bench.sh"));
    }
}
