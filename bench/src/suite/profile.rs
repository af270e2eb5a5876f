//! `bench profile`: where the CPU time of servers goes, one contestant after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{
    EXIT_COMPLETE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_USAGE, Referee, fail, new_folder,
    own_path, run_with_precedence,
};
use crate::config::{Calibration, Options, ProfileOptions, Scenario, ScenarioKind, Suite, Timing};
use crate::judge::profile::Stacks;
use crate::machine::perf;
use crate::output::{html, profile as words};
use crate::plan::{Candidate, SuitePlan};
use crate::record::{PROFILE_VERSION, Profile, Profiled, RunRecord};
use crate::run::Run;
use crate::run::perf::FREQUENCY_HZ;
use crate::run::profile::window_of;
use crate::store::ResultFolder;
use crate::store::profiles::{self, StoredProfile};

/// Of the closed loops that a rate is a part of.
const CALIBRATION: Calibration = Calibration {
    runs: 1,
    warmup: Duration::from_millis(500),
    duration: Duration::from_secs(1),
};

/// Profiles the scenario that `options` name; the program's exit code. The last line on stdout is
/// the folder of the profile, if one was made.
pub fn run(options: &ProfileOptions) -> u8 {
    let own = own_path();
    if let Some(code) = run_with_precedence(&own) {
        return code;
    }
    let prepared = own.and_then(|own| {
        let suite_options = suite_options(options);
        let plan = plan(options, &suite_options, &own)?;
        Ok((suite_options, plan, own))
    });
    let (suite_options, plan, own) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    let perf = match perf::check() {
        Ok(perf) => perf,
        Err(why) => return fail(&anyhow::Error::msg(why), EXIT_INCOMPLETE),
    };
    let referee = Referee::enter(suite_options, None, plan, own, |suite, environment| {
        let root = match &options.into {
            Some(root) => root.clone(),
            None => new_folder(suite, environment)?.path().to_owned(),
        };
        let scenario = &environment.scenarios.first().context("no scenario")?.name;
        ResultFolder::create_named(&root.join(profiles::FOLDER), scenario)
    });
    match referee {
        Ok(referee) => referee.run_profile(perf, options.duration),
        Err(error) => fail(&error, EXIT_INCOMPLETE),
    }
}

/// What a suite of this one scenario would be told.
fn suite_options(options: &ProfileOptions) -> Options {
    Options {
        suite: "profile".to_owned(),
        contestants: options.contestants.clone(),
        scenarios: vec![options.scenario.clone()],
        repeats: Some(1),
        until_ci: None,
        max_repeats: 1,
        resume: None,
        force: false,
        dry_run: false,
        setup: options.setup.clone(),
        seed: None,
        skip_conformance: true,
    }
}

fn plan(options: &ProfileOptions, suite_options: &Options, own: &Path) -> Result<SuitePlan> {
    if let Some(root) = &options.into {
        profiles::require_result_folder(root)?;
    }
    let suite = Suite {
        name: "profile".to_owned(),
        about: "one scenario, its servers sampled by perf".to_owned(),
        repeats: 1,
        extra_blocks: 0,
        budget: Duration::from_secs(3600),
        warmup: CALIBRATION.warmup,
        duration: options.duration,
        scenarios: vec![options.scenario.clone()],
        duplicate: Vec::new(),
        timing: BTreeMap::new(),
        contestants: Vec::new(),
        calibration: CALIBRATION,
        alternation: None,
        alternation_of: BTreeMap::new(),
        equal_rate: None,
    };
    let bin_dir = options.setup.bin_dir(own);
    let mut plan = SuitePlan::of_suite(suite, suite_options, &bin_dir)?;
    let scenario = plan.scenarios.first().context("no scenario")?.clone();
    ensure!(
        matches!(scenario.kind, ScenarioKind::Echo | ScenarioKind::Broadcast),
        "`{}` is of kind {}: a profile needs a load that can be held, of kind echo or broadcast",
        scenario.name,
        kind_name(&scenario)
    );
    let (can, cannot): (Vec<Candidate>, Vec<Candidate>) = plan
        .candidates
        .into_iter()
        .partition(|one| one.contestant.plays(&scenario));
    for one in cannot {
        eprintln!(
            "{}: left out: it cannot do `{}`",
            one.contestant.name, scenario.name
        );
    }
    if can.is_empty() {
        bail!("none of the contestants can do `{}`", scenario.name);
    }
    plan.candidates = can;
    Ok(plan)
}

/// As scenario files write it.
fn kind_name(scenario: &Scenario) -> String {
    format!("{:?}", scenario.kind).to_lowercase()
}

impl Referee {
    /// Samples every contestant, prints the shares; the exit code.
    fn run_profile(mut self, perf: String, duration: Duration) -> u8 {
        let outcome = self.profile_all(perf, duration);
        println!("{}", self.testbed.folder.path().display());
        match outcome {
            _ if self.testbed.interrupt.is_set() => EXIT_INTERRUPTED,
            Ok(true) => EXIT_COMPLETE,
            Ok(false) => EXIT_INCOMPLETE,
            Err(error) => fail(&error, EXIT_INCOMPLETE),
        }
    }

    /// Whether every contestant was sampled. What was sampled before an error is written.
    fn profile_all(&mut self, perf: String, duration: Duration) -> Result<bool> {
        // The referee's own work goes to the generator's side; the server's CPUs stay the server's.
        self.plan.generator_cpus.pin_current_thread()?;
        let scenario = self.plan.scenarios.first().context("no scenario")?.clone();
        if scenario.capacity_key().is_some() {
            self.calibrate()?;
        }
        let rate_per_s = self.rate_of(&scenario).map_err(anyhow::Error::msg)?;
        let timing = Timing {
            warmup: CALIBRATION.warmup,
            duration,
        };
        let mut stored = StoredProfile {
            folder: self.testbed.folder.path().to_owned(),
            stacks: BTreeMap::new(),
            profile: Profile {
                schema_version: PROFILE_VERSION,
                started_utc: self.environment.started_utc.clone(),
                revision: self.environment.revision.short(),
                machine: self.environment.machine_line(),
                perf,
                frequency_hz: FREQUENCY_HZ,
                scenario: scenario.clone(),
                rate_per_s,
                contestants: Vec::new(),
            },
        };
        for (place, candidate) in self.plan.candidates.iter().enumerate() {
            if self.testbed.interrupt.is_set() {
                break;
            }
            let run = Run {
                contestant: &candidate.contestant,
                program: &candidate.program,
                scenario: &scenario,
                timing,
                rate_per_s,
                block: 1,
                position: place + 1,
                number: place + 1,
                probe: None,
            };
            let name = &candidate.contestant.name;
            eprintln!("{name}: under load for {duration:?}");
            let (record, stacks) = self.testbed.profile(run, duration)?;
            let binary = self.environment.binaries.get(name).cloned();
            let profiled = profiled(&record, binary, stacks.as_ref());
            stored.profile.contestants.push(profiled);
            stored
                .stacks
                .extend(stacks.ok().map(|stacks| (name.clone(), stacks)));
            self.write_profile(&stored)?;
        }
        println!("{}", words::terminal(&stored.profile));
        let all = self.plan.candidates.len();
        Ok(stored.stacks.len() == all)
    }

    /// All that is known so far.
    fn write_profile(&self, stored: &StoredProfile) -> Result<()> {
        let (folder, profile) = (&self.testbed.folder, &stored.profile);
        for (name, stacks) in &stored.stacks {
            folder.write(profiles::folded(name), stacks.to_string().as_bytes())?;
            let svg = html::flame_graph(stacks, name, &profile.scenario.name);
            folder.write(profiles::svg(name), svg.as_bytes())?;
        }
        folder.write_json(profiles::RECORD, profile)?;
        folder.write(profiles::PAGE, html::profile_page(stored)?.as_bytes())
    }
}

/// What a run and its stacks come to.
fn profiled(
    record: &RunRecord,
    binary: Option<String>,
    stacks: Result<&Stacks, &String>,
) -> Profiled {
    let window = record.server.window.unwrap_or_default();
    let slice = window_of(record);
    Profiled {
        contestant: record.contestant.clone(),
        binary,
        status: record.status,
        causes: stacks.err().into_iter().cloned().collect(),
        doubts: record.failed_checks().cloned().collect(),
        window_ns: slice.map_or(0, |slice| slice.window_ns),
        messages: slice.map_or(0, |slice| slice.messages),
        cpu_ns: window.cpu_ns,
        softirqd_ns: window.softirqd_ns,
        samples: stacks.map_or(0, Stacks::samples),
        shares: stacks.map(Stacks::shares).unwrap_or_default(),
    }
}
