//! `environment.json`: everything that made the result, apart from the runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Contestant, Options, Scenario, Suite};
use crate::machine::preflight::Finding;
use crate::machine::{CpuSet, Machine};

/// Content of `environment.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// [`crate::record::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// When the suite began, UTC.
    pub started_utc: String,
    /// The command line of the referee.
    pub command: Vec<String>,
    /// Seed of every order and interval.
    pub seed: u64,
    /// Source the binaries were built from.
    pub revision: Revision,
    /// `rustc --version`.
    pub rustc: Option<String>,
    /// Version of the referee.
    pub bench_version: String,
    /// The machine.
    pub machine: Machine,
    /// What the preflight found.
    pub findings: Vec<Finding>,
    /// CPUs of the servers.
    pub server_cpus: CpuSet,
    /// CPUs of the generator.
    pub generator_cpus: CpuSet,
    /// The suite in force.
    pub suite: Suite,
    /// The scenarios in force.
    pub scenarios: Vec<Scenario>,
    /// The contestants in force.
    pub contestants: Vec<Contestant>,
    /// The options in force, which `--resume` goes on with (older results have none).
    #[serde(default)]
    pub options: Option<Options>,
    /// SHA-1 of every binary, by the name of its contestant; `loadgen` and `conformance` besides.
    #[serde(default)]
    pub binaries: BTreeMap<String, String>,
    /// When the suite was resumed.
    #[serde(default)]
    pub resumed: Vec<Resumed>,
    /// Each contestant's `ready` line of a trial start: versions and limits in force.
    pub ready: BTreeMap<String, Value>,
}

/// A suite went on after an interruption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// When, UTC.
    pub utc: String,
    /// What had changed by then, accepted with `--force`.
    pub changed: Vec<String>,
}

/// A git revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Full hash of the commit; `None`: it is not known.
    pub commit: Option<String>,
    /// Tracked files differ from it.
    pub dirty: bool,
    /// How the binaries were built, where that is not the release profile alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Why there is no commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Revision {
    /// `abc1234`, `abc1234-dirty`, `abc1234-profile-guided`; `unversioned` without a commit.
    pub fn short(&self) -> String {
        let mut short = match &self.commit {
            Some(commit) => commit.chars().take(7).collect(),
            None => "unversioned".to_owned(),
        };
        if self.dirty {
            short += "-dirty";
        }
        if let Some(build) = &self.build {
            short += &format!("-{build}");
        }
        short
    }
}

impl Environment {
    /// The machine in one line.
    pub fn machine_line(&self) -> String {
        let machine = &self.machine;
        let cpus = machine.cpus.as_ref().map_or(0, CpuSet::len);
        let mut parts = vec![
            machine
                .cpu_model
                .clone()
                .unwrap_or_else(|| "unknown CPU".to_owned()),
            format!("{cpus} CPUs"),
        ];
        if let Some(bytes) = machine.memory_bytes {
            parts.push(format!("{:.0} GiB", bytes as f64 / (1u64 << 30) as f64));
        }
        if machine.virtual_machine == Some(true) {
            parts.push("virtual machine".to_owned());
        }
        parts.push(machine.kernel.clone());
        if let Some(control) = machine.sysctls.get("net.ipv4.tcp_congestion_control") {
            parts.push(format!("TCP {control}"));
        }
        if let Some(nice) = machine.run_nice {
            parts.push(format!("runs at nice {nice}"));
        }
        format!("{}: {}", machine.name, parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_in_short() {
        let short = |commit: Option<&str>, dirty, build: Option<&str>| {
            let (commit, build) = (commit.map(str::to_owned), build.map(str::to_owned));
            let why = None;
            Revision {
                commit,
                dirty,
                build,
                why,
            }
            .short()
        };
        assert_eq!(short(Some("abc1234def"), false, None), "abc1234");
        assert_eq!(short(Some("abc1234def"), true, None), "abc1234-dirty");
        let guided = short(Some("abc1234def"), false, Some("profile-guided"));
        assert_eq!(guided, "abc1234-profile-guided");
        assert_eq!(short(None, false, None), "unversioned");
    }
}
