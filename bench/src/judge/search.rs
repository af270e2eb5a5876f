//! What the probes of a search say, and what follows from them. Pure.

use loadgen::verdict::faulty_messages;

use super::bisection::{self, Saturation, Step};
use super::ruling::{Surroundings, decide};
use crate::config::{LOWEST_RATE_PER_S, Scenario};
use crate::record::{
    Check, CheckName, CheckStatus, LatencyTarget, Limiter, Outcome, Probe, Role, RunRecord, Search,
    SearchResult, Status,
};
use crate::stats::median_of;

/// First rate where no capacity was measured before.
const START_PER_S: f64 = 10_000.0;
/// Where to begin below the capacity of a closed loop.
const START_SHARE: f64 = 0.8;
/// The highest rate where the scenario names none.
const HIGHEST_RATE_PER_S: f64 = 10_000_000.0;
/// The rate found and the next one that missed the target are no further apart.
const RESOLUTION: f64 = 0.03;

impl Probe {
    /// What a run at this rate said.
    pub fn of(run: &RunRecord, goal: &LatencyTarget, rate_per_s: f64, role: Role) -> Self {
        let record = run.loadgen.as_ref();
        let window = run.server.window;
        let machine = window.and_then(|window| window.machine);
        let latency = record.and_then(|record| record.latency_intended.as_ref());
        let outcome = classify_probe(run, goal);
        let met = outcome == Outcome::Met;
        Self {
            rate_per_s,
            role,
            outcome,
            status: run.status,
            checks: run.failed_checks().filter(|_| !met).cloned().collect(),
            stopped: run.stopped.clone(),
            reason: None,
            messages_per_s: record.map(|record| record.throughput.messages_per_s),
            latency_intended_p50_ns: latency.map(|latency| latency.p50_ns as f64),
            latency_intended_p99_ns: latency.map(|latency| latency.p99_ns as f64),
            faults: record.map(faulty_messages),
            server_cpu_share: window.map(|window| window.cpu_share),
            generator_cpu_share: run.metric("generator_cpu_share"),
            machine_cpu_share: machine
                .map(|machine| machine.busy_ns as f64 / machine.all_ns.max(1) as f64),
            steal_share: machine.map(|machine| machine.steal_share()),
            socket_buffer_bytes: window
                .and_then(|window| window.kernel)
                .map(|kernel| kernel.tcp_buffer_bytes),
        }
    }
}

/// Whether the promise was kept. What is not the server's doing says nothing.
fn classify_probe(run: &RunRecord, goal: &LatencyTarget) -> Outcome {
    let Some(record) = &run.loadgen else {
        return Outcome::Inconclusive;
    };
    let lost_connections =
        record.connections.up < record.connections.requested || record.connections.closed_early > 0;
    if run.status == Status::Failed || lost_connections || faulty_messages(record) > 0 {
        return Outcome::Missed;
    }
    match &record.latency_intended {
        Some(latency) if latency.p99_ns > goal.p99_limit_ns => Outcome::Missed,
        Some(_) if run.status.counts() => Outcome::Met,
        _ => Outcome::Inconclusive,
    }
}

impl Search {
    /// Before the first probe; `known_per_s` is the contestant's capacity in a closed loop, if that
    /// was measured.
    pub fn new(scenario: &Scenario, known_per_s: Option<f64>) -> Self {
        Self {
            goal: LatencyTarget {
                p99_limit_ns: (scenario.p99_limit_ms.unwrap_or_default() * 1e6) as u64,
                start_per_s: known_per_s.map_or(START_PER_S, |per_s| per_s * START_SHARE),
                min_per_s: LOWEST_RATE_PER_S,
                max_per_s: scenario.rate_max_per_s.unwrap_or(HIGHEST_RATE_PER_S),
                resolution: RESOLUTION,
                confirmations: scenario.confirmations,
            },
            probes: Vec::new(),
            found: None,
            limiter: None,
        }
    }

    /// What comes after the probes so far.
    pub fn next(&self) -> Step {
        let outcomes: Vec<(f64, Outcome)> = self
            .probes
            .iter()
            .map(|probe| (probe.rate_per_s, probe.outcome))
            .collect();
        bisection::next(&self.goal, &outcomes)
    }

    /// No probe has confirmed a rate.
    pub fn found_nothing_yet(&self) -> bool {
        !self
            .probes
            .iter()
            .any(|probe| probe.role == Role::Confirm && probe.outcome == Outcome::Met)
    }

    /// Probes at the lowest rate that missed the target above the one found.
    fn saturation(&self, memory_pressure_bytes: Option<u64>) -> Saturation {
        let missed = self.found.and_then(|found| found.missed_per_s);
        let at: Vec<&Probe> = self
            .probes
            .iter()
            .filter(|probe| Some(probe.rate_per_s) == missed && probe.outcome != Outcome::Met)
            .collect();
        let median = |of: &dyn Fn(&Probe) -> Option<f64>| {
            let values: Vec<f64> = at.iter().filter_map(|probe| of(probe)).collect();
            median_of(&values).unwrap_or(0.0)
        };
        let pressure = memory_pressure_bytes.filter(|bytes| *bytes > 0);
        Saturation {
            server_cpu: median(&|probe| probe.server_cpu_share),
            generator_cpu: median(&|probe| probe.generator_cpu_share),
            machine_cpu: median(&|probe| probe.machine_cpu_share),
            steal: median(&|probe| probe.steal_share),
            socket_buffers: median(&|probe| {
                Some(probe.socket_buffer_bytes? as f64 / pressure? as f64)
            }),
        }
    }

    /// Ends the search.
    pub fn end(&mut self, found: SearchResult, memory_pressure_bytes: Option<u64>) {
        self.found = Some(found);
        self.limiter = match (found.rate_per_s, found.missed_per_s) {
            (Some(_), None) => Some(Limiter::Bound),
            (_, None) => None,
            (_, Some(_)) => Some(self.saturation(memory_pressure_bytes).limiter()),
        };
    }

    /// Whether a rate was found, and whether the server was its limit.
    pub(super) fn check(&self) -> Check {
        let majority = self.goal.majority() as f64;
        let confirmed = self.found.map_or(0, |found| found.confirmed) as f64;
        let check = Check::ok(CheckName::CapacityConfirmed, confirmed, majority)
            .beside(self.probes.len() as f64);
        match (self.rate_per_s(), self.limiter) {
            (None, _) => check.when(true, CheckStatus::Invalid),
            (Some(_), Some(limiter @ (Limiter::GeneratorCpu | Limiter::Bound))) => check
                .when(true, CheckStatus::Doubtful)
                .detail(limiter.code()),
            (Some(_), _) => check,
        }
    }

    /// What is said and does not follow from the probes.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut so_far = Self {
            probes: Vec::new(),
            ..self.clone()
        };
        for probe in &self.probes {
            let expected = so_far.next();
            let (rate_per_s, role) = (probe.rate_per_s, probe.role);
            if expected != (Step::Probe { rate_per_s, role }) {
                found.push(format!(
                    "probe {} at {}/s does not follow from those before it",
                    so_far.probes.len() + 1,
                    probe.rate_per_s
                ));
                return found;
            }
            let too_slow = |ns: f64| ns > self.goal.p99_limit_ns as f64;
            if probe.outcome == Outcome::Met
                && (probe.faults != Some(0) || probe.latency_intended_p99_ns.is_none_or(too_slow))
            {
                found.push(format!(
                    "the probe at {}/s is said to have met the target, and its figures say it did not",
                    probe.rate_per_s
                ));
            }
            so_far.probes.push(probe.clone());
        }
        if let Some(said) = self.found
            && so_far.next() != Step::Done(said)
        {
            found.push(format!(
                "{:?}/s is said to be the highest rate, and the probes do not say so",
                said.rate_per_s
            ));
        }
        found
    }
}

/// Makes the record of a probe that of the search, and judges it.
pub fn conclude(record: &mut RunRecord, search: Search, around: Surroundings) {
    record.capacity = Some(search);
    record.metrics = record.extract_metrics();
    (record.status, record.checks) = decide(record, around);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Ending, Stopped};
    use crate::test_data;

    /// A search over made-up runs of a server that holds up to 50,000/s.
    fn searched(change: impl Fn(&mut RunRecord, f64)) -> RunRecord {
        let scenario = test_data::capacity_scenario();
        let mut search = Search::new(&scenario, Some(60_000.0));
        let mut shown = None;
        while let Step::Probe { rate_per_s, role } = search.next() {
            let p99_ns = if rate_per_s > 50_000.0 {
                40_000_000
            } else {
                900_000
            };
            let mut run = test_data::open_run("server-uring", 1, rate_per_s, p99_ns);
            change(&mut run, rate_per_s);
            test_data::fill(&mut run);
            (run.status, run.checks) = decide(&run, Surroundings::default());
            search
                .probes
                .push(Probe::of(&run, &search.goal, rate_per_s, role));
            shown = Some(run);
        }
        let Step::Done(found) = search.next() else {
            panic!("it ends")
        };
        search.end(found, Some(1 << 30));
        let mut run = shown.unwrap();
        run.scenario = scenario;
        conclude(&mut run, search, Surroundings::default());
        run
    }

    fn confirmed(run: &RunRecord) -> &Check {
        let mut checks = run.checks.iter();
        let of_search = |check: &&Check| check.name == CheckName::CapacityConfirmed;
        checks.find(of_search).unwrap()
    }

    #[test]
    fn a_search_is_a_run_with_its_probes_as_rows() {
        let run = searched(|_, _| {});
        assert_eq!(run.status, Status::Valid, "{:?}", run.checks);
        assert_eq!(confirmed(&run).status, CheckStatus::Ok);
        let rate = run.metric("capacity_per_s").unwrap();
        assert!(rate <= 50_000.0 && rate > 48_500.0, "{rate}");
        assert_eq!(run.metric("latency_intended_p99_ns"), Some(900_000.0));
        let search = run.capacity.unwrap();
        assert_eq!(search.goal.start_per_s, 48_000.0);
        assert_eq!(search.limiter, Some(Limiter::ServerCpu));
        let missed = search.probes.iter().find(|p| p.outcome == Outcome::Missed);
        let missed = missed.unwrap();
        assert_eq!(missed.latency_intended_p99_ns, Some(40e6));
        assert_eq!(missed.checks, [], "nothing but its latency");
        assert_eq!(search.contradictions(), [""; 0]);
    }

    #[test]
    fn a_full_generator_makes_the_rate_a_doubt_and_a_dead_server_breaks_it() {
        let run = searched(|run, rate| {
            run.server.window.as_mut().unwrap().cpu_share = 0.5;
            if rate > 50_000.0 {
                let record = run.loadgen.as_mut().unwrap();
                record.generator.threads[0].busy_share = 0.99;
                record.messages.unsent = 10;
            }
        });
        assert_eq!(run.status, Status::Doubtful);
        let check = confirmed(&run);
        assert_eq!(check.status, CheckStatus::Doubtful);
        assert_eq!(check.detail.as_deref(), Some("generator_cpu"));
        let search = run.capacity.unwrap();
        let missed = search.probes.iter().find(|p| p.outcome == Outcome::Missed);
        let unsent = CheckName::Generator(loadgen::check::CheckName::Unsent);
        assert!(missed.unwrap().checks.iter().any(|one| one.name == unsent));
        for recorded in [true, false] {
            let run = searched(|run, _| {
                run.stopped = Some(Stopped {
                    how: Ending::Failed,
                    causes: vec!["the server was killed by signal 9".into()],
                });
                if !recorded {
                    run.loadgen = None;
                }
            });
            assert_eq!(run.status, Status::Invalid);
            assert_eq!(confirmed(&run).status, CheckStatus::Invalid);
            assert_eq!(run.metric("capacity_per_s"), None);
        }
    }

    #[test]
    fn what_is_not_the_servers_doing_says_nothing() {
        let scenario = test_data::capacity_scenario();
        let goal = Search::new(&scenario, None).goal;
        let mut run = test_data::open_run("server-uring", 1, 10_000.0, 900_000);
        run.loadgen.as_mut().unwrap().generator.threads[0].longest_stall_ns = 300_000_000;
        (run.status, run.checks) = decide(&run, Surroundings::default());
        assert_eq!(classify_probe(&run, &goal), Outcome::Inconclusive);
        let probe = Probe::of(&run, &goal, 10_000.0, Role::Search);
        assert_eq!(probe.checks.len(), 1);
        assert_eq!(probe.checks[0].observed, Some(300e6));
    }

    #[test]
    fn a_search_that_was_edited_contradicts_itself() {
        let search = searched(|_, _| {}).capacity.unwrap();
        type Change = fn(&mut Search);
        let cases: [(Change, &str); 4] = [
            (
                |s| s.found.as_mut().unwrap().rate_per_s = Some(90_000.0),
                "is said to be the highest rate",
            ),
            (|s| s.probes[1].rate_per_s += 500.0, "probe 2 at"),
            (
                |s| s.probes[0].latency_intended_p99_ns = Some(9e9),
                "is said to have met the target",
            ),
            (|s| drop(s.probes.pop()), "is said to be the highest rate"),
        ];
        for (change, expected) in cases {
            let mut edited = search.clone();
            change(&mut edited);
            let found = edited.contradictions();
            assert!(
                found.iter().any(|finding| finding.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }
}
