//! Decides a run's status (valid, doubtful, invalid, failed) from its record. Pure, and one for
//! all: the run is judged by it when it ends, and the audit judges it by it again.

use loadgen::check::{self, worst};
use loadgen::record::Record;

use super::checks::{self, or_ok};
use super::memory::CONNECTIONS_FOR_MEMORY;
use crate::record::environment::Environment;
use crate::record::{Check, CheckName, CheckStatus, Ending, Footprint, RunRecord, Status};

/// What the record of a run does not say, and its checks need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The server is not one of ours and keeps no counters that could be compared.
    pub foreign: bool,
    /// As [`MachineUse::other_share`](crate::record::MachineUse::other_share) takes it.
    pub interrupts_apart: Option<bool>,
}

impl Surroundings {
    /// Those of a contestant's runs.
    pub fn of(environment: &Environment, contestant: &str) -> Self {
        let mut all = environment.contestants.iter();
        Self {
            foreign: all.any(|one| one.name == contestant && one.foreign),
            interrupts_apart: environment.machine.interrupts_accounted_apart,
        }
    }
}

/// A run's status, and the checks that it rests on: none where there was no run.
pub fn decide(run: &RunRecord, around: Surroundings) -> (Status, Vec<Check>) {
    let stopped = run.stopped.as_ref().map(|stopped| stopped.how);
    match (stopped, &run.loadgen) {
        (Some(Ending::Refused), _) => (Status::Refused, Vec::new()),
        (Some(Ending::Interrupted), _) => (Status::Interrupted, Vec::new()),
        (_, None) => match &run.capacity {
            // Why the last probe of a search failed is in its row; the search did not.
            Some(search) => (Status::Invalid, vec![search.check()]),
            None => (Status::Failed, Vec::new()),
        },
        (stopped, Some(record)) => {
            let checks = all_checks(run, record, around);
            let status = match worst(&checks) {
                _ if stopped.is_some() && run.capacity.is_none() => Status::Failed,
                CheckStatus::Invalid => Status::Invalid,
                CheckStatus::Doubtful => Status::Doubtful,
                CheckStatus::Note | CheckStatus::Ok => Status::Valid,
            };
            (status, checks)
        }
    }
}

/// Those that the generator can make, and those that it cannot.
fn all_checks(run: &RunRecord, record: &Record, around: Surroundings) -> Vec<Check> {
    let mut limit = checks::generator_limit(record, &run.server);
    if run.alternation.is_some() {
        // Its other figures say what they seem to say.
        limit = limit.map(|check| {
            let failed = check.status == CheckStatus::Invalid;
            check.when(failed, CheckStatus::Doubtful)
        });
    }
    let of_generator = loadgen::verdict::checks(record).into_iter();
    let mut all: Vec<Check> = of_generator
        // Whether it was the limit is better seen with the server beside it.
        .filter(|check| limit.is_none() || check.name != check::CheckName::GeneratorCpu)
        .map(|check| check.rename(CheckName::Generator))
        .collect();
    all.extend(limit);
    all.push(checks::server_cpu(record, &run.server));
    all.extend(checks::server_cpu_floor(record, &run.server));
    if !around.foreign {
        let emptied = run.footprint.is_some();
        let pinged = run.scenario.pinged_fraction;
        all.extend(checks::server_counters(
            record,
            &run.server,
            emptied,
            pinged,
        ));
    }
    if let Some(footprint) = &run.footprint {
        all.extend(memory(footprint, record));
    }
    all.extend(steal_share(run).map(checks::steal));
    let machine = run.server.window.and_then(|window| window.machine);
    let throttled = machine.and_then(|machine| machine.throttled_periods);
    all.extend(throttled.map(checks::throttled));
    all.extend(other_load(run, record, around.interrupts_apart));
    if let Some(alternation) = &run.alternation {
        all.push(checks::warm_up(alternation));
        all.extend(checks::away(alternation));
    }
    all.extend(run.capacity.as_ref().map(|search| search.check()));
    all
}

fn memory(footprint: &Footprint, record: &Record) -> Vec<Check> {
    let tells = footprint.connections >= CONNECTIONS_FOR_MEMORY;
    let unseen = footprint.up.is_none() && tells && record.is_valid();
    let mut all = if unseen {
        let check = Check::ok(CheckName::MemoryGivenBack, 0.0, 0.0).detail("unseen");
        let check = check.when(true, CheckStatus::Invalid);
        vec![Check {
            observed: None,
            limit: None,
            ..check
        }]
    } else {
        or_ok(footprint.given_back(), CheckName::MemoryGivenBack)
    };
    all.push(footprint.of_the_machine());
    all
}

/// The hypervisor's share of all CPUs: in the window, if that was seen; else over the whole run.
fn steal_share(run: &RunRecord) -> Option<f64> {
    if let Some(machine) = run.server.window.and_then(|window| window.machine) {
        return Some(machine.steal_share());
    }
    let shared = run.server.cpus.intersection(&run.generator.cpus);
    let cpus = run.server.cpus.len() + run.generator.cpus.len() - shared.len();
    Some(run.machine_steal_ns? as f64 / run.elapsed_ns.max(1) as f64 / cpus.max(1) as f64)
}

/// What others used of the CPUs in the window: `None` if that was not seen.
fn other_load(run: &RunRecord, record: &Record, apart: Option<bool>) -> Option<Check> {
    let window = run.server.window?;
    let machine = window.machine?;
    let generator_ns = record.generator.cpu_user_ns + record.generator.cpu_sys_ns;
    if run.scenario.shared_cpus.is_some() {
        let ours_ns = window.cpu_ns + generator_ns;
        let (cpus, window_ns) = (run.server.cpus.len() as u64, record.window_ns.max(1) as f64);
        // Strangers anywhere on the machine, as CPUs: the CPUs that are shared are no side.
        let others = machine.other_share(ours_ns, apart) * machine.all_ns as f64 / window_ns;
        let busy = ours_ns as f64 / (window_ns * cpus.max(1) as f64);
        return Some(checks::other_load_of_shared((cpus, others), busy));
    }
    let Some((server, generator)) = machine.server.zip(machine.generator) else {
        let share = machine.other_share(window.cpu_ns + generator_ns, apart);
        return Some(checks::other_load(share));
    };
    let softirqd_ns = machine.softirqd_ns.saturating_sub(window.softirqd_ns);
    // The referee works on the generator's side.
    let generator_ns = generator_ns + machine.referee_ns + softirqd_ns;
    Some(checks::other_load_of_sides(
        (server.cpus, server.other_cpus(window.cost_ns(), apart)),
        (generator.cpus, generator.other_cpus(generator_ns, apart)),
        window.cpu_share,
    ))
}

#[cfg(test)]
mod tests {
    use loadgen::check::{CheckName as Of, RunStatus};

    use super::*;
    use crate::record::Slices;
    use crate::record::{MachineUse, SideUse, Stopped};
    use crate::test_data;

    fn changed(change: impl FnOnce(&mut RunRecord)) -> (Status, Vec<Check>) {
        let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
        change(&mut run);
        decide(&run, Surroundings::default())
    }

    fn record(run: &mut RunRecord) -> &mut Record {
        run.loadgen.as_mut().unwrap()
    }

    /// Those that are not ok.
    fn names(checks: &[Check]) -> Vec<CheckName> {
        let checks = checks.iter();
        let failed = checks.filter(|check| check.status != CheckStatus::Ok);
        failed.map(|check| check.name).collect()
    }

    #[test]
    fn a_sound_run_is_valid_by_the_checks_of_both() {
        let (status, checks) = changed(|_| {});
        assert_eq!(status, Status::Valid);
        assert_eq!(worst(&checks), CheckStatus::Ok);
        let of = |name: CheckName| checks.iter().filter(|check| check.name == name).count();
        for name in [
            CheckName::Generator(Of::Connections),
            CheckName::Generator(Of::Lost),
            CheckName::Generator(Of::GeneratorStall),
            CheckName::GeneratorLimit,
            CheckName::ServerCpu,
            CheckName::ServerCounters,
            CheckName::Steal,
        ] {
            assert_eq!(of(name), 1, "{name:?}");
        }
        assert_eq!(of(CheckName::Generator(Of::GeneratorCpu)), 0, "said once");
    }

    #[test]
    fn a_generator_that_calls_a_loss_valid_is_not_believed() {
        let (status, checks) = changed(|run| record(run).messages.lost = 3);
        assert_eq!(status, Status::Invalid);
        assert_eq!(names(&checks), [CheckName::Generator(Of::Lost)]);
    }

    #[test]
    fn a_full_generator_voids_a_closed_loop_unless_the_server_is_full_too() {
        let full = |server_share: f64, rate: Option<f64>| {
            changed(|run| {
                record(run).options.rate_per_s = rate;
                record(run).generator.threads[0].busy_share = 0.99;
                run.server.window.as_mut().unwrap().cpu_share = server_share;
            })
        };
        let (status, checks) = full(0.6, None);
        assert_eq!(status, Status::Invalid);
        assert_eq!(names(&checks), [CheckName::GeneratorLimit]);
        assert_eq!(full(0.95, None).0, Status::Valid);
        let (status, checks) = full(0.6, Some(1000.0));
        assert_eq!(status, Status::Doubtful, "its schedule is told by its lag");
        assert_eq!(names(&checks), [CheckName::Generator(Of::GeneratorCpu)]);
    }

    #[test]
    fn in_an_alternating_bout_a_full_generator_voids_the_throughput_only() {
        let (status, checks) = changed(|run| {
            record(run).generator.threads[0].busy_share = 0.99;
            run.server.window.as_mut().unwrap().cpu_share = 0.6;
            run.alternation = Some(Slices::default());
        });
        assert_eq!(status, Status::Doubtful);
        assert!(names(&checks).contains(&CheckName::GeneratorLimit));
    }

    #[test]
    fn the_generators_verdict_counts() {
        let (status, checks) = changed(|run| {
            record(run).validity.verdict = RunStatus::Invalid;
            record(run).validity.reasons = vec!["3 messages lost".into()];
            record(run).messages.unsolicited = 2;
        });
        assert_eq!(status, Status::Invalid);
        let notes = Of::Unsolicited;
        assert_eq!(
            names(&checks),
            [notes, Of::Failure].map(CheckName::Generator)
        );
        let (status, _) = changed(|run| record(run).messages.unsolicited = 2);
        assert_eq!(status, Status::Valid, "a note is no doubt");
    }

    #[test]
    fn counters_that_contradict_each_other_void_the_run() {
        let (status, checks) = changed(|run| record(run).totals.received += 1);
        assert_eq!(status, Status::Invalid);
        assert_eq!(names(&checks), [CheckName::ServerCounters]);
    }

    #[test]
    fn a_scale_step_is_held_to_equal_counts_and_memory() {
        type Change = fn(&mut RunRecord);
        let ruling = |change: Change| {
            let mut run = test_data::scale_run("server-tokio", 100_000);
            change(&mut run);
            decide(&run, Surroundings::default())
        };
        assert_eq!(names(&ruling(|_| {}).1), []);
        let cases: [(Change, CheckName); 3] = [
            (
                |run| record(run).totals.pings_answered += 1,
                CheckName::ServerCounters,
            ),
            (
                |run| {
                    let footprint = run.footprint.as_mut().unwrap();
                    footprint.emptied.as_mut().unwrap().kernel.tcp_sockets = 999;
                },
                CheckName::MemoryGivenBack,
            ),
            (
                |run| run.footprint.as_mut().unwrap().up = None,
                CheckName::MemoryGivenBack,
            ),
        ];
        for (change, expected) in cases {
            let (status, checks) = ruling(change);
            assert_eq!(status, Status::Invalid);
            assert_eq!(names(&checks), [expected]);
        }
    }

    #[test]
    fn a_foreign_server_owes_no_counters() {
        let mut run = test_data::echo_run("peer", 1, 100_000.0);
        run.server.final_line = None;
        let foreign = Surroundings {
            foreign: true,
            ..Surroundings::default()
        };
        assert_eq!(decide(&run, foreign).0, Status::Valid);
        assert_eq!(decide(&run, Surroundings::default()).0, Status::Invalid);
    }

    #[test]
    fn no_record_or_a_dead_server_is_a_failure_and_an_interrupt_is_its_own_thing() {
        let ended = |how: Option<Ending>, recorded: bool| {
            changed(|run| {
                run.stopped = how.map(|how| Stopped {
                    how,
                    causes: vec!["the server was killed by signal 9".into()],
                });
                if !recorded {
                    run.loadgen = None;
                }
            })
            .0
        };
        assert_eq!(ended(None, false), Status::Failed);
        for recorded in [false, true] {
            let status = |how| ended(Some(how), recorded);
            assert_eq!(status(Ending::Failed), Status::Failed);
            assert_eq!(status(Ending::Interrupted), Status::Interrupted);
            assert_eq!(status(Ending::Refused), Status::Refused);
        }
    }

    #[test]
    fn on_shared_cpus_the_generator_is_no_stranger() {
        let ruling = |strangers_ns: u64| {
            changed(|run| {
                run.scenario.shared_cpus = Some(2);
                run.server.cpus = "0-1".parse().unwrap();
                run.generator.cpus = "0-1".parse().unwrap();
                let generator = &mut record(run).generator;
                generator.cpu_user_ns = 200_000_000;
                generator.cpu_sys_ns = 0;
                let window = run.server.window.as_mut().unwrap();
                window.machine = Some(MachineUse {
                    all_ns: 2_000_000_000,
                    busy_ns: window.cpu_ns + 200_000_000 + strangers_ns,
                    ..MachineUse::default()
                });
            })
        };
        assert_eq!(ruling(50_000_000).0, Status::Valid);
        let (status, checks) = ruling(400_000_000);
        assert_eq!(status, Status::Doubtful);
        assert_eq!(names(&checks), [CheckName::OtherLoad]);
        let check = checks
            .iter()
            .find(|check| check.name == CheckName::OtherLoad);
        assert_eq!(check.unwrap().observed, Some(0.4));
    }

    #[test]
    fn what_the_machine_did_beside_is_a_doubt() {
        let (status, checks) = changed(|run| {
            // Of two CPUs.
            run.machine_steal_ns = Some(run.elapsed_ns / 10);
        });
        assert_eq!(status, Status::Doubtful);
        assert!(status.counts());
        assert_eq!(names(&checks), [CheckName::Steal]);
        let steal = checks.iter().find(|check| check.name == CheckName::Steal);
        assert_eq!(steal.unwrap().observed, Some(0.05));

        // A busy loop beside the server on a machine of four CPUs: 2.7% of all.
        let side = |busy_ns| SideUse {
            cpus: 2,
            all_ns: 2_000_000_000,
            busy_ns,
            ..SideUse::default()
        };
        let (status, checks) = changed(|run| {
            let window = run.server.window.as_mut().unwrap();
            window.machine = Some(MachineUse {
                all_ns: 4_000_000_000,
                server: Some(side(window.cpu_ns + 108_000_000)),
                generator: Some(side(0)),
                ..MachineUse::default()
            });
        });
        assert_eq!(status, Status::Doubtful);
        assert_eq!(names(&checks), [CheckName::OtherLoad]);
        // Of the two CPUs in use, on a machine of 64.
        let (status, checks) = changed(|run| {
            let stolen = SideUse {
                cpus: 1,
                all_ns: 1_000_000_000,
                steal_ns: 30_000_000,
                ..SideUse::default()
            };
            run.server.window.as_mut().unwrap().machine = Some(MachineUse {
                all_ns: 64_000_000_000,
                steal_ns: 60_000_000,
                server: Some(stolen),
                generator: Some(stolen),
                ..MachineUse::default()
            });
        });
        assert_eq!(status, Status::Doubtful);
        assert_eq!(names(&checks), [CheckName::Steal]);

        let throttled = |periods| {
            changed(|run| {
                run.server.window.as_mut().unwrap().machine = Some(MachineUse {
                    throttled_periods: periods,
                    ..MachineUse::default()
                });
            })
        };
        assert_eq!(throttled(None).0, Status::Valid);
        assert_eq!(throttled(Some(0)).0, Status::Valid);
        let (status, checks) = throttled(Some(3));
        assert_eq!(status, Status::Doubtful);
        assert_eq!(names(&checks), [CheckName::Throttled]);
    }
}
