//! Options of a suite and of a profile, from the command line; a result keeps them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::machine::CpuSet;

/// How to run a suite.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Options {
    /// smoke, quick, standard, scale, peers, large, broadcast, questions, pull-request, referee, or
    /// the path of a TOML file
    #[arg(long, value_name = "SUITE", default_value = "quick")]
    pub suite: String,
    /// Contestants, in the order of tables [default: those marked so in the file]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// Scenarios, by name or path of a TOML file [default: the suite's]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub scenarios: Vec<String>,
    /// Blocks per bout, each one run of every contestant; lifts the suite's time budget [default:
    /// the suite's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub repeats: Option<u16>,
    /// Add blocks to a bout until the 95% interval of every headline ratio is at most this far from
    /// its middle, such as 3%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub until_ci: Option<f64>,
    /// Blocks per bout at most, with --until-ci
    #[arg(long, value_name = "N", default_value_t = 40, requires = "until_ci",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub max_repeats: u16,
    /// Go on with an interrupted suite in its result folder, whose options and seed stay in force:
    /// only what is missing is run
    #[arg(
        long, value_name = "DIR", value_parser = path,
        conflicts_with_all = [
            "suite", "contestants", "scenarios", "repeats", "until_ci", "seed",
            "contestants_file", "server_cpus", "machine", "skip_conformance",
        ]
    )]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
    /// Resume although binaries, revision, machine or configuration have changed; the summary then
    /// says so
    #[arg(long, requires = "resume")]
    #[serde(skip)]
    pub force: bool,
    /// Print what would be run and how long it would take, and run nothing
    #[arg(long)]
    #[serde(skip)]
    pub dry_run: bool,
    /// Where everything is.
    #[command(flatten)]
    #[serde(flatten)]
    pub setup: Setup,
    /// Seed of every random order and interval [default: the time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// Do not run the conformance cases first
    #[arg(long)]
    pub skip_conformance: bool,
}

/// Where everything is, and on which CPUs it runs.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Setup {
    /// Where to make the result folder
    #[arg(long, value_name = "DIR", default_value = "bench-results", value_parser = path)]
    pub out: PathBuf,
    /// Folder of the binaries [default: the one this program is in]
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub bin_dir: Option<PathBuf>,
    /// Folder with contestants.toml, scenarios/ and suites/
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_MANIFEST_DIR"), value_parser = path)]
    pub config_dir: PathBuf,
    /// File that describes the contestants [default: contestants.toml in the config folder]
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub contestants_file: Option<PathBuf>,
    /// CPUs of the servers, such as 0,2-3 [default: half of the cores, whole and of one kind]
    #[arg(long, value_name = "LIST", requires = "generator_cpus")]
    pub server_cpus: Option<CpuSet>,
    /// CPUs of the generator [default: the other half]
    #[arg(long, value_name = "LIST", requires = "server_cpus")]
    pub generator_cpus: Option<CpuSet>,
    /// Name of this machine in the result folder [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
}

impl Setup {
    /// The folder of the binaries, when this program is `own`.
    pub fn bin_dir(&self, own: &Path) -> PathBuf {
        let beside = own.parent().map(PathBuf::from);
        self.bin_dir.clone().or(beside).unwrap_or_default()
    }
}

/// How to profile a scenario.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ProfileOptions {
    /// Scenario of kind echo or broadcast, by name or path of a TOML file
    pub scenario: String,
    /// Contestants, in this order [default: those marked so in the file]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub contestants: Vec<String>,
    /// How long each contestant is sampled, after its warm-up
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = sampled)]
    pub duration: Duration,
    /// Add the profile to this result folder, whose report then shows it [default: a new folder]
    #[arg(long, value_name = "DIR", value_parser = path, conflicts_with = "out")]
    pub into: Option<PathBuf>,
    /// Where everything is.
    #[command(flatten)]
    pub setup: Setup,
}

/// A time in which there are samples enough to speak of shares, and not too many to keep.
fn sampled(text: &str) -> Result<Duration, String> {
    let duration = units::parse_duration(text).map_err(|error| error.to_string())?;
    match duration.as_secs_f64() {
        0.1..=600.0 => Ok(duration),
        _ => Err("from 100ms to 10m".to_owned()),
    }
}

/// A path that is text: results record it, and the generator is told where to write.
fn path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(text))
}

/// `3%` or `3` as 0.03.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(percent / 100.0),
        _ => Err("a percentage above 0 and below 100, such as 3%".to_owned()),
    }
}
