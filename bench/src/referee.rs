//! A suite from its first check to its last line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::choice::Choice;
use crate::config::{Contestant, Kind, Load, Scenario, Timing};
use crate::dry_run;
use crate::entry;
use crate::environment::{Environment, Resumed, Revision, utc};
use crate::folder::ResultFolder;
use crate::interrupt::Interrupt;
use crate::machine::{Machine, output};
use crate::options::Options;
use crate::plan;
use crate::preflight::{self, Demand, Finding};
use crate::process::Launcher;
use crate::progress::{Progress, minutes};
use crate::record::{RunRecord, SCHEMA_VERSION, Status};
use crate::report;
use crate::resume::{self, Left};
use crate::run::{Ring, Run};
use crate::scale::{self, Layout};
use crate::stats::median_of;
use crate::summary::{Capacity, Entrant, Setting, standing, summarize, widest_interval};

/// Every bout has enough valid runs.
pub const EXIT_COMPLETE: u8 = 0;
/// It has not, or the suite could not be run or recorded.
pub const EXIT_INCOMPLETE: u8 = 1;
/// The command line cannot work.
pub const EXIT_USAGE: u8 = 2;
/// A signal ended the suite.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Runs the suite that `options` describe; the program's exit code. The last line on stdout is the result folder, if one was made.
pub fn run(options: &Options) -> u8 {
    let own = std::env::current_exe().context("cannot find this program's own path");
    let prepared = own.and_then(|own| {
        let left = options.resume.as_deref().map(Left::read).transpose()?;
        let options = match &left {
            Some(left) => left.options(options)?,
            None => options.clone(),
        };
        let bin_dir = options
            .bin_dir
            .clone()
            .or_else(|| own.parent().map(PathBuf::from));
        let choice = Choice::new(&options, &bin_dir.unwrap_or_default())?;
        Ok((options, left, choice, own))
    });
    let (options, left, choice, own) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if options.dry_run {
        print!("{}", dry_run::text(&choice));
        return EXIT_COMPLETE;
    }
    match Referee::enter(options, left, choice, own) {
        Ok(referee) => referee.run_suite(),
        Err(error) => fail(&error, EXIT_INCOMPLETE),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> u8 {
    eprintln!("bench: {error:#}");
    code
}

/// A suite under way.
struct Referee {
    choice: Choice,
    ring: Ring,
    environment: Environment,
    entrants: Vec<Entrant>,
    capacities: BTreeMap<String, Capacity>,
    runs: Vec<RunRecord>,
    begun: Instant,
    /// Why not all planned blocks were run, if so.
    cut: Option<String>,
}

impl Referee {
    /// Checks the machine and makes the result folder, or takes up the one that was left.
    fn enter(options: Options, left: Option<Left>, choice: Choice, own: PathBuf) -> Result<Self> {
        let (begun, started) = (Instant::now(), SystemTime::now());
        let interrupt = Interrupt::on_signals()?;
        let machine = Machine::read(options.machine.as_deref());
        let findings = check_machine(&machine, &choice)?;
        let revision = Revision::read(&options.config_dir);
        let started_utc = utc(started);
        let mut environment = Environment {
            schema_version: SCHEMA_VERSION,
            started_utc,
            command: std::env::args().collect(),
            seed: choice.seed,
            revision,
            rustc: output("rustc", &["--version"]),
            bench_version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            findings,
            server_cpus: choice.server_cpus.clone(),
            generator_cpus: choice.generator_cpus.clone(),
            suite: choice.suite.clone(),
            scenarios: choice.scenarios.clone(),
            contestants: choice.contestants.clone(),
            options: Some(options.clone()),
            binaries: resume::digests(&choice)?,
            resumed: Vec::new(),
            ready: BTreeMap::new(),
        };
        let (mut capacities, mut runs) = (BTreeMap::new(), Vec::new());
        let folder = match left {
            None => ResultFolder::create(
                &options.out,
                &environment.started_utc.replace(':', "-"),
                &environment.machine.name,
                &environment.revision.short(),
            )?,
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
        let entrants = choice
            .contestants
            .iter()
            .map(|contestant| Entrant {
                name: contestant.name.clone(),
                about: contestant.about.clone(),
                protocol: contestant.protocol,
                runtime: None,
                excluded: None,
                again: contestant.again.clone(),
            })
            .collect();
        let ring = Ring {
            launcher: Launcher::new(own),
            folder,
            loadgen: choice.loadgen.clone(),
            server_cpus: choice.server_cpus.clone(),
            generator_cpus: choice.generator_cpus.clone(),
            machine: environment.machine.clone(),
            interrupt,
        };
        Ok(Self {
            choice,
            ring,
            environment,
            entrants,
            capacities,
            runs,
            begun,
            cut: None,
        })
    }

    /// All phases; whatever ends them, what was recorded is summed up.
    fn run_suite(mut self) -> u8 {
        let carried_out = self.carry_out();
        let aborted = carried_out.as_ref().err().map(|error| format!("{error:#}"));
        let code = match self.sum_up(aborted) {
            Ok(true) => EXIT_COMPLETE,
            Ok(false) => EXIT_INCOMPLETE,
            Err(error) => fail(&error, EXIT_INCOMPLETE),
        };
        let code = match carried_out {
            _ if self.ring.interrupt.is_set() => EXIT_INTERRUPTED,
            Ok(()) => code,
            Err(error) => fail(&error, EXIT_INCOMPLETE),
        };
        println!("{}", self.ring.folder.path().display());
        code
    }

    fn carry_out(&mut self) -> Result<()> {
        self.announce();
        self.announce_steps();
        self.admit()?;
        // The referee's own work goes to the generator's side; the server's CPUs stay the server's.
        self.choice.generator_cpus.pin_current_thread()?;
        self.calibrate()?;
        self.keep_whole_blocks();
        self.run_bouts()
    }

    /// Trial start and conformance of every contestant.
    fn admit(&mut self) -> Result<()> {
        for index in 0..self.choice.contestants.len() {
            if self.ring.interrupt.is_set() {
                return Ok(());
            }
            let (contestant, program) = (
                &self.choice.contestants[index],
                &self.choice.programs[index],
            );
            if let Some(again) = &contestant.again {
                // The same program: it starts and conforms as it did under its first name.
                let first = self
                    .entrants
                    .iter()
                    .find(|one| one.name == again.of)
                    .cloned();
                self.entrants[index].runtime = first.as_ref().and_then(|one| one.runtime.clone());
                self.entrants[index].excluded = first.and_then(|one| one.excluded);
                continue;
            }
            let refused = match entry::try_start(&self.ring, contestant, program)? {
                Err(reason) => Some(reason),
                Ok(ready) => {
                    self.entrants[index].runtime = ready["runtime"].as_str().map(str::to_owned);
                    self.environment
                        .ready
                        .insert(contestant.name.clone(), ready);
                    match &self.choice.conformance {
                        Some(conformance) if contestant.conformance => {
                            entry::conform(&self.ring, conformance, contestant, program)?
                        }
                        _ => None,
                    }
                }
            };
            match &refused {
                Some(reason) => eprintln!("{}: EXCLUDED: {reason}", contestant.name),
                None => eprintln!(
                    "{}: starts{}",
                    contestant.name,
                    if contestant.conformance && self.choice.conformance.is_some() {
                        " and conforms"
                    } else {
                        ""
                    }
                ),
            }
            self.entrants[index].excluded = refused;
        }
        self.ring
            .folder
            .write_json("environment.json", &self.environment)
    }

    fn announce(&self) {
        let choice = &self.choice;
        eprintln!(
            "suite `{}`: {} bouts x {} blocks x {} contestants, about {} min{}; seed {}; servers on CPUs {}, generator on CPUs {}",
            choice.suite.name,
            choice.scenarios.len(),
            choice.repeats,
            choice.contestants.len(),
            minutes(self.estimate()),
            choice.budget.map_or(String::new(), |budget| format!(
                ", {} min at most",
                minutes(budget)
            )),
            choice.seed,
            choice.server_cpus,
            choice.generator_cpus
        );
    }

    /// A scale suite takes long: who is laid out how, how long each step takes, and what this machine cannot hold.
    fn announce_steps(&self) {
        let steps = self.choice.scenarios.iter();
        for scenario in steps.filter(|one| one.kind == Kind::Scale) {
            let contestants = self.choice.contestants.iter();
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
                minutes(self.estimate_block(scenario) * self.choice.repeats as u32),
                plans.collect::<Vec<_>>().join("; ")
            );
        }
    }

    fn plan_of_step(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
    ) -> Result<Layout, Vec<String>> {
        let cpus = self.choice.server_cpus.len();
        scale::plan(&self.environment.machine, scenario, contestant, cpus)
    }

    /// How long one block of a bout takes, about: a refused run takes no time.
    fn estimate_block(&self, scenario: &Scenario) -> Duration {
        if scenario.kind != Kind::Scale {
            return self.choice.estimate_block(scenario);
        }
        let contestants = self.choice.contestants.iter();
        let held = contestants
            .filter(|contestant| contestant.plays(scenario))
            .filter(|contestant| self.plan_of_step(scenario, contestant).is_ok())
            .count();
        plan::estimate_run(scenario, self.choice.timing(scenario)) * held as u32
    }

    /// How long the suite takes in all, about.
    fn estimate(&self) -> Duration {
        let scenarios = self.choice.scenarios.iter();
        let refused: Duration = scenarios
            .map(|one| self.choice.estimate_block(one) - self.estimate_block(one))
            .sum();
        self.choice.estimate(self.choice.repeats) - refused * self.choice.repeats as u32
    }

    /// Indices of the contestants that take part in this bout.
    fn admitted(&self, scenario: &Scenario) -> Vec<usize> {
        (0..self.entrants.len())
            .filter(|index| self.entrants[*index].takes_part_in(scenario))
            .collect()
    }

    /// Closed-loop echoes for every capacity that a rate is a fraction of.
    fn calibrate(&mut self) -> Result<()> {
        let calibration = self.choice.suite.calibration;
        let timing = Timing {
            warmup: calibration.warmup,
            duration: calibration.duration,
        };
        for scenario in self
            .choice
            .calibrations()
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
        {
            let Some(key) = scenario.capacity_key() else {
                continue;
            };
            if self.capacities.contains_key(&key) {
                continue;
            }
            let shape = Scenario {
                name: key.clone(),
                load: Some(Load::Window(1)),
                headline: None,
                ..scenario
            };
            let mut measured: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for block in 1..=calibration.runs {
                for run in self.block(&shape, timing, None, block, &mut |_| {})? {
                    if let Some(per_s) = usable_capacity(&run) {
                        measured.entry(run.contestant).or_default().push(per_s);
                    }
                }
                if self.ring.interrupt.is_set() {
                    return Ok(());
                }
            }
            let messages_per_s: BTreeMap<String, f64> = measured
                .into_iter()
                .filter_map(|(name, rates)| Some((name, median_of(&rates)?)))
                .collect();
            let Some(smallest_per_s) = messages_per_s.values().copied().reduce(f64::min) else {
                eprintln!("{key}: no capacity could be measured; its bouts are left out");
                continue;
            };
            eprintln!("{key}: smallest {smallest_per_s:.0}/s");
            self.capacities.insert(
                key,
                Capacity {
                    messages_per_s,
                    smallest_per_s,
                },
            );
        }
        self.ring
            .folder
            .write_json("capacities.json", &self.capacities)
    }

    /// Drops the runs of blocks that an interruption cut: the runs of a block belong side by side, so it is run again as a whole.
    fn keep_whole_blocks(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        for scenario in &self.choice.scenarios {
            let contestants = self.admitted(scenario).len();
            let mut of_block: BTreeMap<usize, usize> = BTreeMap::new();
            for run in runs.iter().filter(|run| run.bout == scenario.name) {
                *of_block.entry(run.block).or_default() += 1;
            }
            runs.retain(|run| run.bout != scenario.name || of_block[&run.block] == contestants);
        }
        let names: Vec<&str> = self
            .choice
            .scenarios
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        runs.retain(|run| names.contains(&run.bout.as_str()));
        if !self.environment.resumed.is_empty() {
            eprintln!("resumed: {} runs are there already", runs.len());
        }
        self.runs = runs;
    }

    /// Rounds of blocks: those planned, then those that make up for runs that do not count or narrow an interval.
    fn run_bouts(&mut self) -> Result<()> {
        let scenarios = self.choice.scenarios.clone();
        let planned: usize = (1..=self.choice.repeats)
            .flat_map(|block| scenarios.iter().map(move |scenario| (block, scenario)))
            .filter(|(block, scenario)| self.wants(scenario, *block))
            .map(|(_, scenario)| self.admitted(scenario).len())
            .sum();
        let mut progress = Progress::new(planned);
        let mut pace = Pace::default();
        for block in 1..=self.choice.last_block() {
            let order = self.order_of_bouts(block);
            for (place, bout) in order.into_iter().enumerate() {
                let scenario = &scenarios[bout];
                if !self.wants(scenario, block) {
                    continue;
                }
                if block > self.choice.repeats {
                    progress.add(self.admitted(scenario).len());
                }
                progress.at(format!(
                    "round {block} of {}, bout {} of {}",
                    self.choice.repeats.max(block),
                    place + 1,
                    scenarios.len()
                ));
                if !self.bout_block(scenario, block, &mut pace, &mut progress)? {
                    return Ok(());
                }
            }
            progress.round_is_over();
        }
        Ok(())
    }

    /// Bouts in random order; steps of a scale, which do not compete for a quiet minute, from the lowest up.
    fn order_of_bouts(&self, round: usize) -> Vec<usize> {
        let scenarios = &self.choice.scenarios;
        let mut order = plan::order_of_bouts(self.choice.seed, round, scenarios.len());
        if scenarios.iter().all(|one| one.kind == Kind::Scale) {
            order.sort_by_key(|bout| scenarios[*bout].connections);
        }
        order
    }

    /// Whether a bout is to have this block. Beyond the planned ones it is asked how many runs count and how wide the intervals are, never
    /// what the figures say: blocks that are added until a result looks good make any result look good.
    fn wants(&self, scenario: &Scenario, block: usize) -> bool {
        let is_block = |run: &RunRecord| run.bout == scenario.name && run.block == block;
        if self.runs.iter().any(is_block) {
            return false;
        }
        if block <= self.choice.repeats {
            return true;
        }
        let whole = self.whole_blocks(scenario);
        // A bout without one whole block is not unlucky, it is broken.
        let makes_up = whole > 0 && whole < self.choice.repeats;
        match self.choice.until {
            None => makes_up,
            Some(until) => {
                let width = widest_interval(&self.setting(None), scenario, &self.runs);
                whole > 0 && width.is_none_or(|width| width > until.half_width)
            }
        }
    }

    /// One block of a bout, unless time is up or somebody wants to end: then false.
    fn bout_block(
        &mut self,
        scenario: &Scenario,
        block: usize,
        pace: &mut Pace,
        progress: &mut Progress,
    ) -> Result<bool> {
        let rate_per_s = match (scenario.load, scenario.capacity_key()) {
            (Some(Load::FractionOfCapacity(fraction)), Some(key)) => {
                match self.capacities.get(&key) {
                    Some(capacity) => Some((capacity.smallest_per_s * fraction).round()),
                    None => return Ok(true),
                }
            }
            (Some(Load::Rate(rate)), _) => Some(rate),
            _ => None,
        };
        let estimate = self.estimate_block(scenario);
        if let Some(budget) = self.choice.budget
            && self.begun.elapsed() + pace.expect(estimate) > budget
        {
            let cut = format!(
                "the budget of {} min was used up in round {block}",
                minutes(budget)
            );
            progress.say(&cut);
            self.cut.get_or_insert(cut);
            return Ok(false);
        }
        let begun = Instant::now();
        let timing = self.choice.timing(scenario);
        let mut say = |said: Said<'_>| match said {
            Said::Begin(contestant) => progress.begin(&scenario.name, contestant),
            Said::End(run) => progress.end(run),
        };
        let runs = self.block(scenario, timing, rate_per_s, block, &mut say)?;
        pace.add(estimate, begun.elapsed());
        self.runs.extend(runs);
        progress.block(standing(&self.setting(None), scenario, &self.runs));
        Ok(!self.ring.interrupt.is_set())
    }

    /// One run of every contestant, in random order. Ends early when somebody wants to end.
    fn block(
        &self,
        scenario: &Scenario,
        timing: Timing,
        rate_per_s: Option<f64>,
        block: usize,
        say: &mut dyn FnMut(Said<'_>),
    ) -> Result<Vec<RunRecord>> {
        let admitted = self.admitted(scenario);
        let order = plan::order_in_block(self.choice.seed, &scenario.name, block, admitted.len());
        let mut runs = Vec::new();
        for (place, index) in order.into_iter().map(|place| admitted[place]).enumerate() {
            if self.ring.interrupt.is_set() {
                break;
            }
            let contestant = &self.choice.contestants[index];
            say(Said::Begin(&contestant.name));
            let run = Run {
                contestant,
                program: &self.choice.programs[index],
                scenario,
                timing,
                rate_per_s,
                block,
                position: place + 1,
                number: (block - 1) * admitted.len() + place + 1,
                probe: None,
            };
            let record = match scenario.kind {
                Kind::Capacity => self.ring.search(run, self.known_capacity(run))?,
                _ => self.ring.run(run)?,
            };
            say(Said::End(&record));
            runs.push(record);
        }
        Ok(runs)
    }

    /// What a closed loop of this shape gave for this contestant, if that was measured: where a search begins.
    fn known_capacity(&self, run: Run<'_>) -> Option<f64> {
        let capacity = self.capacities.get(&run.scenario.shape_key())?;
        let own = capacity.messages_per_s.get(&run.contestant.name);
        Some(own.copied().unwrap_or(capacity.smallest_per_s))
    }

    /// Blocks of a bout in which every contestant has a valid run.
    fn whole_blocks(&self, bout: &Scenario) -> usize {
        let mut valid: BTreeMap<usize, usize> = BTreeMap::new();
        for run in self
            .runs
            .iter()
            .filter(|run| run.bout == bout.name && run.status.counts())
        {
            *valid.entry(run.block).or_default() += 1;
        }
        let contestants = self.admitted(bout).len();
        valid.values().filter(|runs| **runs == contestants).count()
    }

    fn setting(&self, aborted: Option<String>) -> Setting {
        Setting {
            suite: self.choice.suite.name.clone(),
            seed: self.choice.seed,
            started_utc: self.environment.started_utc.clone(),
            revision: self.environment.revision.short(),
            machine: self.environment.machine_line(),
            server_cpus: self.choice.server_cpus.to_string(),
            generator_cpus: self.choice.generator_cpus.to_string(),
            repeats: self.choice.repeats,
            runs_needed: plan::runs_needed(self.choice.repeats),
            interrupted: self.ring.interrupt.is_set(),
            aborted,
            cut: self.cut.clone(),
            changed: self
                .environment
                .resumed
                .iter()
                .flat_map(|resumed| resumed.changed.clone())
                .collect(),
            contestants: self.entrants.clone(),
            capacities: self.capacities.clone(),
        }
    }

    /// Writes and prints the summary; whether the suite is complete.
    fn sum_up(&self, aborted: Option<String>) -> Result<bool> {
        let summary = summarize(self.setting(aborted), &self.choice.scenarios, &self.runs);
        print!("{}\n\n", report::terminal(&summary));
        self.ring.folder.write_json("summary.json", &summary)?;
        self.ring
            .folder
            .write("summary.md", report::markdown(&summary).as_bytes())?;
        Ok(summary.complete)
    }
}

/// What a block reports while it runs.
enum Said<'a> {
    Begin(&'a str),
    End(&'a RunRecord),
}

/// How the estimates of blocks compare to the facts so far.
#[derive(Debug, Default)]
struct Pace {
    estimated: Duration,
    taken: Duration,
}

impl Pace {
    fn add(&mut self, estimated: Duration, taken: Duration) {
        self.estimated += estimated;
        self.taken += taken;
    }

    /// What an estimate has come to so far.
    fn expect(&self, estimate: Duration) -> Duration {
        if self.estimated.is_zero() {
            return estimate;
        }
        estimate.mul_f64(self.taken.as_secs_f64() / self.estimated.as_secs_f64())
    }
}

/// Findings on stderr; an error if one is fatal.
fn check_machine(machine: &Machine, choice: &Choice) -> Result<Vec<Finding>> {
    let connections = choice
        .scenarios
        .iter()
        .filter(|scenario| scenario.kind != Kind::Scale)
        .map(|scenario| scenario.connections)
        .max()
        .unwrap_or(0);
    let findings = preflight::check(machine, Demand { connections });
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

/// Throughput of a calibration run that lost nothing. Whether server or generator was the limit does not matter here: the rate
/// is one that both can do.
fn usable_capacity(run: &RunRecord) -> Option<f64> {
    let record = run.loadgen.as_ref()?;
    let whole = record.connections.up == record.connections.requested && record.messages.lost == 0;
    let usable = whole && (run.status.counts() || run.status == Status::Invalid);
    run.metric("messages_per_s")
        .filter(|per_s| usable && *per_s > 0.0)
}
