//! `--resume DIR`: reads the folder of an interrupted suite, and checks that the rest of the suite
//! would be comparable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::revision::digest;
use crate::config::{Options, Setup};
use crate::machine::same::machines;
use crate::output::words;
use crate::plan::SuitePlan;
use crate::record::environment::Environment;
use crate::record::{RunRecord, Status};
use crate::store::load::{self, TORN, bring_up_to_date, load_runs, read_json};
use crate::summary::MeasuredCapacity;

/// The content of the folder of an interrupted suite.
#[derive(Debug, Clone)]
pub struct Left {
    /// The folder.
    pub root: PathBuf,
    /// The environment of its runs.
    pub environment: Environment,
    /// Measured before the bouts; empty if that was not finished.
    pub capacities: BTreeMap<String, MeasuredCapacity>,
    /// All runs but those that the interruption ended.
    pub runs: Vec<RunRecord>,
}

impl Left {
    /// Reads the folder.
    pub fn read(root: &Path) -> Result<Self> {
        ensure!(
            root.join("environment.json").is_file(),
            "{} is no result folder: it has no environment.json",
            root.display()
        );
        let capacities = root.join("capacities.json");
        let environment = read_json(&root.join("environment.json"))?;
        let mut stored = load_runs(root)?;
        for torn in &stored.torn {
            eprintln!("{} {TORN}: its block is run again", torn.display());
        }
        if let Some(ignored) = load::ignored(&stored.strangers) {
            eprintln!("{ignored}");
        }
        bring_up_to_date(&mut stored.runs, &environment);
        stored.runs.retain(|run| run.status != Status::Interrupted);
        let capacities = match capacities.is_file().then(|| read_json(&capacities)) {
            None => BTreeMap::new(),
            Some(Ok(capacities)) => capacities,
            Some(Err(error)) if load::is_torn(&error) => {
                eprintln!(
                    "capacities.json {TORN}: capacities are measured again, and the bouts at a part of them are run again"
                );
                stored
                    .runs
                    .retain(|run| run.scenario.capacity_key().is_none());
                BTreeMap::new()
            }
            Some(Err(error)) => return Err(error),
        };
        Ok(Self {
            environment,
            capacities,
            runs: stored.runs,
            root: root.to_owned(),
        })
    }

    /// The options of the interrupted suite; only where binaries and configuration lie, and how to
    /// resume, is as given now.
    pub fn options(&self, given: &Options) -> Result<Options> {
        let Some(recorded) = self.environment.options.clone() else {
            bail!(
                "{} was made by a bench that could not be resumed: it does not say with which options",
                self.root.display()
            );
        };
        Ok(Options {
            seed: u32::try_from(self.environment.seed).ok(),
            setup: Setup {
                machine: Some(self.environment.machine.name.clone()),
                bin_dir: given.setup.bin_dir.clone(),
                config_dir: given.setup.config_dir.clone(),
                out: given.setup.out.clone(),
                ..recorded.setup
            },
            resume: given.resume.clone(),
            force: given.force,
            dry_run: given.dry_run,
            ..recorded
        })
    }

    /// The changes since the interruption; an error that names them unless `force` accepts them.
    pub fn check(&self, now: &Environment, force: bool) -> Result<Vec<String>> {
        let changed = changes(&self.environment, now);
        ensure!(
            changed.is_empty() || force,
            "{} cannot be resumed, because its runs would not be comparable: {}. Start anew, or mix them with --force (the summary will say so)",
            self.root.display(),
            changed.join("; ")
        );
        Ok(changed)
    }
}

fn changes(before: &Environment, now: &Environment) -> Vec<String> {
    let mut changed: Vec<String> = [
        ("revision", before.revision.short(), now.revision.short()),
        (
            "bench",
            before.bench_version.clone(),
            now.bench_version.clone(),
        ),
        (
            "CPUs of the servers",
            before.server_cpus.to_string(),
            now.server_cpus.to_string(),
        ),
        (
            "CPUs of the generator",
            before.generator_cpus.to_string(),
            now.generator_cpus.to_string(),
        ),
    ]
    .into_iter()
    .filter(|(_, then, now)| then != now)
    .map(|(what, then, now)| format!("{what}: {then} then, {now} now"))
    .collect();
    let machines = machines(&before.machine, &now.machine);
    changed.extend(machines.iter().map(|one| {
        let (then, now) = words::values(one);
        format!("{}: {then} then, {now} now", words::fact(&one.fact))
    }));
    let same = [
        ("the suite", before.suite == now.suite),
        ("a scenario", before.scenarios == now.scenarios),
        ("a contestant", before.contestants == now.contestants),
    ];
    changed.extend(
        same.iter()
            .filter(|(_, same)| !same)
            .map(|(what, _)| format!("{what} is described differently")),
    );
    let binaries = before.binaries.iter();
    changed.extend(
        binaries
            .filter(|(name, digest)| now.binaries.get(*name) != Some(*digest))
            .map(|(name, _)| format!("the binary of {name} is another")),
    );
    changed
}

/// SHA-1 of every binary that `plan` will start, as `sha1sum` prints it.
pub fn digests(plan: &SuitePlan) -> Result<BTreeMap<String, String>> {
    let contestants = plan
        .candidates
        .iter()
        .filter(|one| one.contestant.duplicate.is_none())
        .map(|one| (one.contestant.name.as_str(), &one.program));
    contestants
        .chain([("loadgen", &plan.loadgen)])
        .chain(plan.conformance.iter().map(|path| ("conformance", path)))
        .map(|(name, path)| Ok((name.to_owned(), digest(path)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn what_changed_about_the_machine_is_said_in_words() {
        let mut before = test_data::results("x", "abc1234", vec![]).environment;
        before.machine.memory_bytes = Some(24 << 30);
        assert_eq!(changes(&before, &before), [""; 0]);
        let mut now = before.clone();
        now.machine.memory_bytes = Some((24 << 30) - 4096);
        assert_eq!(changes(&before, &now), [""; 0]);
        now.machine.memory_bytes = Some(16 << 30);
        now.machine.cpu_model = Some("Another CPU".into());
        now.machine.governor = Some("powersave".into());
        now.machine.clocksource = Some("hpet".into());
        let control = "net.ipv4.tcp_congestion_control".to_owned();
        now.machine.sysctls.insert(control, "cubic".into());
        let control = "net.ipv4.tcp_congestion_control: not known then, cubic now";
        let expected = [
            "clocksource: not known then, hpet now",
            "CPU model: not known then, Another CPU now",
            "governor: not known then, powersave now",
            "memory: 24.0 GiB then, 16.0 GiB now",
            control,
        ];
        assert_eq!(changes(&before, &now), expected);
    }
}
