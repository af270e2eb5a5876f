//! A suite from its first check to its last line.

pub mod admit;
mod bouts;
mod calibration;
pub mod live;
pub mod profile;
pub mod progress;
pub mod resume;
pub mod revision;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::config::{Contestant, Options, Scenario, ScenarioKind, Transport};
use crate::machine::ask::first_line;
use crate::machine::lock::Lock;
use crate::machine::preflight::{self, Demand, Finding};
use crate::machine::{Machine, priority};
use crate::output::text;
use crate::plan::{Candidate, SuitePlan, dry_run, estimate, layout};
use crate::record::environment::{Environment, Resumed};
use crate::record::{Layout, RunRecord, SCHEMA_VERSION};
use crate::run::Testbed;
use crate::run::interrupt::Interrupt;
use crate::run::process::{self, Launcher};
use crate::run::sampler::MachineWatch;
use crate::store::ResultFolder;
use crate::summary::{Entrant, MeasuredCapacity, Setting, runs_needed, summarize};
use crate::units::minutes;
use resume::Left;

/// Every bout has enough valid runs.
pub const EXIT_COMPLETE: u8 = 0;
/// It has not, or the suite could not be run or recorded.
pub const EXIT_INCOMPLETE: u8 = 1;
/// The command line cannot work.
pub const EXIT_USAGE: u8 = 2;
/// A signal ended the suite.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Runs the suite that `options` describe; the program's exit code. The last line on stdout is the
/// result folder, if one was made.
pub fn run(options: &Options) -> u8 {
    let own = own_path();
    if !options.dry_run
        && let Some(code) = run_with_precedence(&own)
    {
        return code;
    }
    let prepared = own.and_then(|own| {
        let left = options.resume.as_deref().map(Left::read).transpose()?;
        let options = match &left {
            Some(left) => left.options(options)?,
            None => options.clone(),
        };
        let plan = SuitePlan::new(&options, &options.setup.bin_dir(&own))?;
        Ok((options, left, plan, own))
    });
    let (options, left, plan, own) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if options.dry_run {
        print!("{}", dry_run::text(&plan));
        return EXIT_COMPLETE;
    }
    match Referee::enter(options, left, plan, own, new_folder) {
        Ok(referee) => referee.run_suite(),
        Err(error) => fail(&error, EXIT_INCOMPLETE),
    }
}

fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own path")
}

/// Runs this program once more with precedence over others, where the user may have that and it has
/// none yet: then its exit code.
fn run_with_precedence(own: &Result<PathBuf>) -> Option<u8> {
    let own = own.as_ref().ok().filter(|_| !priority::is_taken())?;
    let rerun = process::run_again(own, priority::available()?);
    Some(rerun.unwrap_or_else(|error| fail(&error, EXIT_INCOMPLETE)))
}

/// The folder of a suite that begins.
fn new_folder(options: &Options, environment: &Environment) -> Result<ResultFolder> {
    ResultFolder::create(
        &options.setup.out,
        &environment.started_utc.replace(':', "-"),
        &environment.machine.name,
        &environment.revision.short(),
    )
}

fn fail(error: &anyhow::Error, code: u8) -> u8 {
    eprintln!("bench: {error:#}");
    code
}

/// A suite under way.
struct Referee {
    plan: SuitePlan,
    testbed: Testbed,
    environment: Environment,
    capacities: BTreeMap<String, MeasuredCapacity>,
    runs: Vec<RunRecord>,
    begun: Instant,
    /// Why not all planned blocks were run, if so.
    cut: Option<String>,
    /// Nobody else measures here meanwhile.
    _lock: Lock,
}

impl Referee {
    /// Checks the machine and makes the result folder, or takes up the one that was left.
    fn enter(
        options: Options,
        left: Option<Left>,
        plan: SuitePlan,
        own: PathBuf,
        new_folder: impl FnOnce(&Options, &Environment) -> Result<ResultFolder>,
    ) -> Result<Self> {
        let (begun, started) = (Instant::now(), SystemTime::now());
        let interrupt = Interrupt::on_signals()?;
        let lock = Lock::take()?;
        let machine = Machine::read(options.setup.machine.as_deref());
        let findings = check_machine(&machine, &plan)?;
        let revision = revision::read(&plan);
        if let Some(why) = &revision.why {
            eprintln!("revision unknown: {why}");
        }
        let started_utc = utc(started);
        let mut environment = Environment {
            schema_version: SCHEMA_VERSION,
            started_utc,
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            seed: plan.seed,
            revision,
            rustc: first_line("rustc", &["--version"]),
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            findings,
            server_cpus: plan.server_cpus.clone(),
            generator_cpus: plan.generator_cpus.clone(),
            suite: plan.suite.clone(),
            scenarios: plan.scenarios.clone(),
            contestants: plan
                .candidates
                .iter()
                .map(|one| one.contestant.clone())
                .collect(),
            options: Some(options.clone()),
            binaries: resume::digests(&plan)?,
            resumed: Vec::new(),
            ready: BTreeMap::new(),
        };
        let (mut capacities, mut runs) = (BTreeMap::new(), Vec::new());
        let folder = match left {
            None => new_folder(&options, &environment)?,
            Some(left) => {
                let changed = left.check(&environment, options.force)?;
                let utc =
                    std::mem::replace(&mut environment.started_utc, left.environment.started_utc);
                environment.resumed = left.environment.resumed;
                environment.resumed.push(Resumed { utc, changed });
                (capacities, runs) = (left.capacities, left.runs);
                ResultFolder::open(&left.root)
            }
        };
        folder.write_json("environment.json", &environment)?;
        let testbed = Testbed {
            launcher: Launcher::new(own, environment.machine.run_nice),
            folder,
            loadgen: plan.loadgen.clone(),
            server_cpus: plan.server_cpus.clone(),
            generator_cpus: plan.generator_cpus.clone(),
            watch: MachineWatch::new(&plan.server_cpus, &plan.generator_cpus),
            machine: environment.machine.clone(),
            interrupt,
        };
        Ok(Self {
            plan,
            testbed,
            environment,
            capacities,
            runs,
            begun,
            cut: None,
            _lock: lock,
        })
    }

    /// All phases; the runs that were recorded are summed up, however the phases end.
    fn run_suite(mut self) -> u8 {
        let carried_out = self.carry_out();
        let aborted = carried_out.as_ref().err().map(|error| format!("{error:#}"));
        let code = match self.sum_up(aborted) {
            Ok(true) => EXIT_COMPLETE,
            Ok(false) => EXIT_INCOMPLETE,
            Err(error) => fail(&error, EXIT_INCOMPLETE),
        };
        let code = match carried_out {
            _ if self.testbed.interrupt.is_set() => EXIT_INTERRUPTED,
            Ok(()) => code,
            Err(error) => fail(&error, EXIT_INCOMPLETE),
        };
        println!("{}", self.testbed.folder.path().display());
        code
    }

    fn carry_out(&mut self) -> Result<()> {
        self.announce();
        self.announce_sequences();
        self.announce_absent();
        self.announce_steps();
        self.admit()?;
        // The referee's own work goes to the generator's side; the server's CPUs stay the server's.
        self.plan.generator_cpus.pin_current_thread()?;
        self.calibrate()?;
        self.keep_whole_blocks();
        self.run_bouts()
    }

    /// Trial start and conformance of every contestant.
    fn admit(&mut self) -> Result<()> {
        for index in 0..self.plan.candidates.len() {
            if self.testbed.interrupt.is_set() {
                return Ok(());
            }
            let candidate = &self.plan.candidates[index];
            let contestant = &candidate.contestant;
            let (runtime, excluded) = if let Some(duplicate) = &contestant.duplicate {
                // The same program: it starts and conforms as it did under its first name.
                let mut all = self.plan.candidates.iter();
                let first = all.find(|one| one.contestant.name == duplicate.of);
                first.map_or((None, None), |one| {
                    (one.runtime.clone(), one.excluded.clone())
                })
            } else {
                let conformance = self.plan.conformance.as_deref();
                let conformance = conformance.filter(|_| contestant.conformance);
                let admission = admit::admit(&self.testbed, candidate, conformance)?;
                let excluded = admission.excluded;
                match (&excluded, conformance) {
                    (Some(reason), _) => eprintln!("{}: EXCLUDED: {reason}", contestant.name),
                    (None, Some(_)) => eprintln!("{}: starts and conforms", contestant.name),
                    (None, None) => eprintln!("{}: starts", contestant.name),
                }
                let ready = admission.ready;
                let runtime = ready.as_ref().and_then(|ready| ready["runtime"].as_str());
                let runtime = runtime.map(str::to_owned);
                self.environment
                    .ready
                    .extend(ready.map(|ready| (contestant.name.clone(), ready)));
                (runtime, excluded)
            };
            let candidate = &mut self.plan.candidates[index];
            (candidate.runtime, candidate.excluded) = (runtime, excluded);
        }
        self.testbed
            .folder
            .write_json("environment.json", &self.environment)
    }

    fn announce(&self) {
        let plan = &self.plan;
        eprintln!(
            "suite `{}`: {} bouts, {} contestants, about {} min{}; seed {}; {}, servers on CPUs {}, generator on CPUs {}",
            plan.suite.name,
            plan.scenarios.len(),
            plan.candidates.len(),
            minutes(self.estimate()),
            plan.budget.map_or(String::new(), |budget| format!(
                ", {} min at most",
                minutes(budget)
            )),
            plan.seed,
            self.environment.machine.topology,
            plan.server_cpus,
            plan.generator_cpus
        );
    }

    /// Says which bouts could alternate and do not, and why.
    fn announce_sequences(&self) {
        for scenario in &self.plan.scenarios {
            let could = self.plan.suite.alternation_of(scenario).is_some();
            let why = could.then(|| self.plan.in_sequence(scenario)).flatten();
            if let Some(why) = why {
                eprintln!("{}: runs in sequence: {why}", scenario.name);
            }
        }
    }

    /// Says which contestants cannot do what a scenario wants of them.
    fn announce_absent(&self) {
        let unix = self.plan.scenarios.iter();
        for scenario in unix.filter(|one| one.transport == Transport::Unix) {
            let candidates = self.plan.candidates.iter().map(|one| &one.contestant);
            let absent: Vec<_> = candidates
                .filter(|one| !one.can_unix())
                .map(|one| one.name.as_str())
                .collect();
            if !absent.is_empty() {
                let (bout, names) = (&scenario.name, absent.join(", "));
                eprintln!("{bout}: without {names}: no --listen unix:PATH (key `unix`)");
            }
        }
        let scenarios = self.plan.scenarios.iter();
        for scenario in scenarios.filter(|one| one.handler_work_us().is_some()) {
            let candidates = self.plan.candidates.iter().map(|one| &one.contestant);
            let absent: Vec<_> = candidates
                .filter(|one| !one.can_work())
                .map(|one| one.name.as_str())
                .collect();
            let bout = &scenario.name;
            if !absent.is_empty() {
                let names = absent.join(", ");
                eprintln!("{bout}: without {names}: no --handler-work-us (key `handler_work`)");
            }
            let candidates = self.plan.candidates.iter().map(|one| &one.contestant);
            let absent: Vec<_> = candidates
                .filter(|one| one.can_work() && !one.can_lower_work() && scenario.hot.is_some())
                .map(|one| one.name.as_str())
                .collect();
            if !absent.is_empty() {
                let names = absent.join(", ");
                eprintln!("{bout}: without {names}: no ?work=N (key `lowers_work`)");
            }
        }
    }

    /// A scale suite takes long: says how each contestant is laid out, how long each step takes,
    /// and what this machine cannot hold.
    fn announce_steps(&self) {
        let steps = self.plan.scenarios.iter();
        for scenario in steps.filter(|one| one.kind == ScenarioKind::Scale) {
            let contestants = self.plan.candidates.iter().map(|one| &one.contestant);
            let plans = contestants
                .filter(|one| one.plays(scenario))
                .map(|contestant| {
                    let plan = match self.plan_of_step(scenario, contestant) {
                        Ok(layout) => layout.to_string(),
                        Err(reasons) => format!("REFUSED: {}", reasons.join("; ")),
                    };
                    format!("{}: {plan}", contestant.name)
                });
            eprintln!(
                "{}: about {} min; {}",
                scenario.name,
                minutes(self.estimate_block(scenario) * self.plan.repeats as u32),
                plans.collect::<Vec<_>>().join("; ")
            );
        }
    }

    fn plan_of_step(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
    ) -> Result<Layout, Vec<String>> {
        let cpus = self.plan.server_cpus.len();
        layout::plan(&self.environment.machine, scenario, contestant, cpus)
    }

    /// How long one block of a bout takes, about: a refused run takes no time.
    fn estimate_block(&self, scenario: &Scenario) -> Duration {
        if scenario.kind != ScenarioKind::Scale {
            return self.plan.estimate_block(scenario);
        }
        let contestants = self.plan.candidates.iter().map(|one| &one.contestant);
        let held = contestants
            .filter(|contestant| contestant.plays(scenario))
            .filter(|contestant| self.plan_of_step(scenario, contestant).is_ok())
            .count();
        estimate::run(scenario, self.plan.timing(scenario)) * held as u32
    }

    /// How long the suite takes in all, about.
    fn estimate(&self) -> Duration {
        let scenarios = self.plan.scenarios.iter();
        let refused: Duration = scenarios
            .map(|one| self.plan.estimate_block(one) - self.estimate_block(one))
            .sum();
        self.plan.estimate() - refused * self.plan.repeats as u32
    }

    /// The contestants that take part in this bout.
    fn admitted(&self, scenario: &Scenario) -> Vec<&Candidate> {
        let candidates = self.plan.candidates.iter();
        candidates
            .filter(|one| one.takes_part_in(scenario))
            .collect()
    }

    fn setting(&self, aborted: Option<String>) -> Setting {
        Setting {
            suite: self.plan.suite.name.clone(),
            seed: self.plan.seed,
            started_utc: self.environment.started_utc.clone(),
            revision: self.environment.revision.short(),
            machine: self.environment.machine_line(),
            server_cpus: self.plan.server_cpus.to_string(),
            generator_cpus: self.plan.generator_cpus.to_string(),
            repeats: self.plan.repeats,
            runs_needed: runs_needed(self.plan.repeats),
            rounds: self
                .plan
                .scenarios
                .iter()
                .filter_map(|one| Some((one.name.clone(), self.plan.alternation(one)?.rounds)))
                .collect(),
            interrupted: self.testbed.interrupt.is_set(),
            aborted,
            cut: self.cut.clone(),
            changed: self
                .environment
                .resumed
                .iter()
                .flat_map(|resumed| resumed.changed.clone())
                .collect(),
            contestants: self.plan.candidates.iter().map(entrant).collect(),
            capacities: self.capacities.clone(),
        }
    }

    /// Writes and prints the summary; whether the suite is complete.
    fn sum_up(&self, aborted: Option<String>) -> Result<bool> {
        let summary = summarize(self.setting(aborted), &self.plan.scenarios, &self.runs);
        print!("{}\n\n", text::terminal(&summary, &[]));
        self.testbed.folder.write_json("summary.json", &summary)?;
        self.testbed
            .folder
            .write("summary.md", text::markdown(&summary, &[]).as_bytes())?;
        Ok(summary.complete)
    }
}

/// The entry of a contestant in the summary.
fn entrant(candidate: &Candidate) -> Entrant {
    let contestant = &candidate.contestant;
    Entrant {
        name: contestant.name.clone(),
        about: contestant.about.clone(),
        protocol: contestant.protocol,
        can_work: contestant.can_work(),
        can_lower_work: contestant.can_lower_work(),
        can_unix: contestant.can_unix(),
        runtime: candidate.runtime.clone(),
        excluded: candidate.excluded.clone(),
        duplicate: contestant.duplicate.clone(),
    }
}

/// Findings on stderr; an error if one is fatal.
fn check_machine(machine: &Machine, plan: &SuitePlan) -> Result<Vec<Finding>> {
    let connections = plan
        .scenarios
        .iter()
        .filter(|scenario| scenario.kind != ScenarioKind::Scale)
        .map(|scenario| scenario.connections)
        .max()
        .unwrap_or(0);
    let findings = preflight::check(
        machine,
        Demand {
            connections,
            server_cpus: &plan.server_cpus,
            generator_cpus: &plan.generator_cpus,
        },
    );
    for finding in &findings {
        let severity = if finding.fatal { "error" } else { "warning" };
        eprintln!("{severity}: {}\n   fix: {}", finding.problem, finding.fix);
    }
    ensure!(
        !findings.iter().any(|finding| finding.fatal),
        "this machine is not fit for the suite (see above)"
    );
    Ok(findings)
}

/// `2026-11-22T10:00:00Z`.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_utc() {
        assert_eq!(
            utc(UNIX_EPOCH + Duration::from_millis(1_790_000_000_999)),
            "2026-09-21T14:13:20Z"
        );
    }
}
