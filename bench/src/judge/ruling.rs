//! What the checks on a run come to. Pure: what was seen goes in, a ruling comes out.

use loadgen::record::{Record, Verdict};
use server_core::lifecycle::Final;

use super::checks;
use super::memory::CONNECTIONS_FOR_MEMORY;
use crate::record::{Check, CheckStatus, Footprint, ServerSide, Status};

/// What is known about a run when it is over.
#[derive(Debug, Default)]
pub struct Evidence<'a> {
    /// The generator's record, if it wrote one.
    pub loadgen: Option<&'a Record>,
    /// What was seen of the server.
    pub server: Option<&'a ServerSide>,
    /// Memory from before the server's start until after its end, in a scale step.
    pub footprint: Option<&'a Footprint>,
    /// Why this machine cannot hold it: then it was not run.
    pub refused: Option<Vec<String>>,
    /// It is not one of ours and keeps no counters that could be compared.
    pub foreign: bool,
    /// Why there was no run, or not a whole one: the server did not start, died, or had to be
    /// killed; the generator broke.
    pub failures: Vec<String>,
    /// Somebody ended the suite.
    pub interrupted: bool,
    /// Scale: the part of the silent connections that must have been pinged inside the window; all
    /// of them without it.
    pub pinged_fraction: Option<f64>,
    /// Time the hypervisor took, as a share of all CPUs.
    pub steal_share: Option<f64>,
    /// Time in the window that others used, as a share of all CPUs.
    pub other_load_share: Option<f64>,
}

/// What the referee says.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    /// The status.
    pub status: Status,
    /// Why it is not valid, or in doubt.
    pub reasons: Vec<String>,
    /// What it rests on.
    pub checks: Vec<Check>,
    /// What a reader should know all the same.
    pub warnings: Vec<String>,
}

/// Rules on a run.
pub fn rule(evidence: &Evidence<'_>) -> Ruling {
    let mut reasons = evidence.failures.clone();
    let without_checks = |status, reasons| Ruling {
        status,
        reasons,
        checks: Vec::new(),
        warnings: Vec::new(),
    };
    if let Some(refused) = &evidence.refused {
        return without_checks(Status::Refused, refused.clone());
    }
    if evidence.interrupted {
        reasons.insert(0, "the suite was interrupted during this run".to_owned());
        return without_checks(Status::Interrupted, reasons);
    }
    let Some(record) = evidence.loadgen else {
        if reasons.is_empty() {
            reasons.push("the generator left no record".to_owned());
        }
        return without_checks(Status::Failed, reasons);
    };
    let of_record = checks::of_the_record(record);
    let of_referee = own_checks(evidence, record);
    let said = generator_verdict(record);
    // What the generator has said in its own words is not said again.
    let new = of_record
        .iter()
        .filter(|check| said.is_empty() || check.status == CheckStatus::Doubtful);
    let unsaid: Vec<String> = new
        .chain(&of_referee)
        .filter_map(|check| check.reason.clone())
        .collect();
    let checks: Vec<Check> = of_record.into_iter().chain(of_referee).collect();
    let worst = checks.iter().map(|check| check.status).max();
    let status = match worst {
        _ if !evidence.failures.is_empty() => Status::Failed,
        _ if !said.is_empty() => Status::Invalid,
        Some(CheckStatus::Invalid) => Status::Invalid,
        Some(CheckStatus::Doubtful) => Status::Doubtful,
        Some(CheckStatus::Ok) | None => Status::Valid,
    };
    reasons.extend(said);
    reasons.extend(unsaid);
    let warnings = record.validity.warnings.iter();
    Ruling {
        status,
        reasons,
        warnings: warnings
            .map(|warning| format!("generator: {warning}"))
            .collect(),
        checks,
    }
}

/// The hypervisor's share of all CPUs: in the window, if that was seen; else over the whole run.
pub fn steal_share(
    server: &ServerSide,
    of_run_ns: Option<u64>,
    elapsed_ns: u64,
    cpus: usize,
) -> Option<f64> {
    match server.window.and_then(|window| window.machine) {
        Some(machine) => Some(machine.steal_share()),
        None => Some(of_run_ns? as f64 / elapsed_ns.max(1) as f64 / cpus.max(1) as f64),
    }
}

/// The share of all CPUs that others used in the window: `None` if that was not seen.
/// `interrupts_apart` as in [`MachineUse::other_share`](crate::record::MachineUse::other_share).
pub fn other_load_share(
    server: &ServerSide,
    record: &Record,
    interrupts_apart: Option<bool>,
) -> Option<f64> {
    let window = server.window?;
    let ours_ns = window.cpu_ns + record.generator.cpu_user_ns + record.generator.cpu_sys_ns;
    Some(window.machine?.other_share(ours_ns, interrupts_apart))
}

/// What the generator cannot see.
fn own_checks(evidence: &Evidence<'_>, record: &Record) -> Vec<Check> {
    let mut found = Vec::new();
    if let Some(server) = evidence.server {
        found.extend(checks::generator_cpu(record, server));
        found.push(checks::server_cpu(record, server));
        if !evidence.foreign {
            let faults = match final_counters(server) {
                Ok(counters) => {
                    let mut faults = contradictions(record, &counters);
                    if evidence.footprint.is_some() {
                        faults.extend(lost_track(record, &counters, evidence.pinged_fraction));
                    }
                    faults
                }
                Err(reason) => vec![reason],
            };
            found.push(Check::of_faults("server_counters", faults));
        }
    }
    if let Some(footprint) = evidence.footprint {
        let mut faults = footprint.missing();
        let tells = footprint.connections >= CONNECTIONS_FOR_MEMORY;
        if footprint.up.is_none() && tells && record.is_valid() {
            faults.push("memory was not seen with all connections up".to_owned());
        }
        found.push(Check::of_faults("memory_given_back", faults));
        found.push(Check::of_doubt("memory_of_the_machine", footprint.doubt()));
    }
    found.extend(evidence.steal_share.map(checks::steal));
    found.extend(evidence.other_load_share.map(checks::other_load));
    found
}

fn generator_verdict(record: &Record) -> Vec<String> {
    let mut reasons: Vec<String> = record
        .validity
        .reasons
        .iter()
        .map(|reason| format!("generator: {reason}"))
        .collect();
    if record.validity.verdict == Verdict::Invalid && reasons.is_empty() {
        reasons.push("generator: the run is invalid".to_owned());
    }
    reasons
}

fn final_counters(server: &ServerSide) -> Result<Final, String> {
    let line = server
        .final_line
        .as_ref()
        .ok_or("the server printed no line of final counters")?;
    serde_json::from_value(line.clone())
        .map_err(|error| format!("the server's final line is not in order: {error}"))
}

/// Where the server's counters and the generator's cannot both be true.
fn contradictions(record: &Record, server: &Final) -> Vec<String> {
    let (totals, counted) = (&record.totals, &server.totals);
    let mut found = Vec::new();
    let mut check = |holds: bool, text: String| {
        if !holds {
            found.push(text);
        }
    };
    check(
        counted.messages_sent >= totals.received,
        format!(
            "the generator received {} messages, the server says it sent {}",
            totals.received, counted.messages_sent
        ),
    );
    check(
        counted.messages_received <= totals.sent,
        format!(
            "the generator sent {} messages, the server says it received {}",
            totals.sent, counted.messages_received
        ),
    );
    check(
        counted.connections_accepted >= totals.handshakes,
        format!(
            "the generator completed {} handshakes, the server says it accepted {} connections",
            totals.handshakes, counted.connections_accepted
        ),
    );
    for (count, what) in [
        (counted.violations, "violations of the protocol"),
        (counted.dropped, "dropped messages"),
        (
            counted.slow_consumers_closed,
            "connections closed for slowness",
        ),
        (counted.refused, "refused connections"),
        (counted.accept_errors, "failed accepts"),
    ] {
        check(count == 0, format!("the server counted {count} {what}"));
    }
    found
}

/// After a scale step all connections have been closed in order, so both sides have counted the
/// same; and the silent ones have been pinged inside the window, all or the part that the scenario
/// asks for.
fn lost_track(record: &Record, server: &Final, pinged_fraction: Option<f64>) -> Vec<String> {
    let (totals, counted) = (&record.totals, &server.totals);
    let mut found: Vec<String> = [
        ("messages", totals.sent, counted.messages_received),
        ("pongs", totals.pings_answered, counted.pongs_received),
        ("handshakes", totals.handshakes, counted.handshakes),
    ]
    .into_iter()
    .filter(|(_, sent, received)| sent != received)
    .map(|(what, sent, received)| {
        format!("the generator counted {sent} {what} of its own, the server {received} of them")
    })
    .collect();
    for (count, what) in [
        (
            counted.idle_timeouts,
            "connections closed for their silence",
        ),
        (counted.drained, "connections still open at its end"),
    ] {
        if count > 0 {
            found.push(format!("the server counted {count} {what}"));
        }
    }
    if let Some(idle) = &record.idle {
        let silent = idle.held - idle.active.min(idle.held);
        let expected = (silent as f64 * pinged_fraction.unwrap_or(1.0)) as u64;
        if idle.pings_answered_in_window < expected {
            found.push(format!(
                "{} pings were answered inside the window, fewer than {expected} of the {silent} silent connections",
                idle.pings_answered_in_window
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::test_data;

    fn rule_on(run: &RunRecord) -> Ruling {
        rule(&Evidence {
            loadgen: run.loadgen.as_ref(),
            server: Some(&run.server),
            ..Default::default()
        })
    }

    fn changed(change: impl FnOnce(&mut Record, &mut ServerSide)) -> Ruling {
        let mut run = test_data::echo_run("server-uring", 1, 100_000.0);
        let mut record = run.loadgen.take().unwrap();
        change(&mut record, &mut run.server);
        run.loadgen = Some(record);
        rule_on(&run)
    }

    #[test]
    fn a_sound_run_is_valid() {
        let ruling = changed(|_, _| {});
        assert_eq!(ruling.status, Status::Valid);
        assert_eq!((ruling.reasons.len(), ruling.warnings.len()), (0, 0));
        let names: Vec<&str> = ruling.checks.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "connections",
                "losses",
                "generator_stall",
                "generator_cpu",
                "server_cpu",
                "server_counters"
            ]
        );
    }

    #[test]
    fn a_generator_that_calls_a_loss_valid_is_not_believed() {
        let ruling = changed(|record, _| record.messages.lost = 3);
        assert_eq!(ruling.status, Status::Invalid);
        assert_eq!(ruling.reasons, ["3 messages lost"]);
    }

    #[test]
    fn a_full_generator_voids_a_closed_loop_unless_the_server_is_full_too() {
        let full = |server_share: f64, rate: Option<f64>| {
            changed(|record, server| {
                record.options.rate_per_s = rate;
                record.generator.threads[0].busy_share = 0.99;
                server.window.as_mut().unwrap().cpu_share = server_share;
            })
        };
        let ruling = full(0.6, None);
        assert_eq!(ruling.status, Status::Invalid);
        assert!(
            ruling.reasons[0].contains("the generator was the limit")
                && ruling.reasons[0].contains("99%")
        );
        assert_eq!(full(0.95, None).status, Status::Valid);
        assert_eq!(
            full(0.6, Some(1000.0)).status,
            Status::Doubtful,
            "whether it kept its schedule is told by its lag"
        );
    }

    #[test]
    fn the_generators_verdict_counts() {
        let ruling = changed(|record, _| {
            record.validity.verdict = Verdict::Invalid;
            record.validity.reasons = vec!["3 messages lost".into()];
            record.validity.warnings = vec!["few samples".into()];
        });
        assert_eq!(ruling.status, Status::Invalid);
        assert_eq!(ruling.reasons, ["generator: 3 messages lost"]);
        assert_eq!(ruling.warnings, ["generator: few samples"]);
    }

    #[test]
    fn counters_that_contradict_each_other_void_the_run() {
        type Change = fn(&mut Record, &mut ServerSide);
        let cases: [(Change, &str); 5] = [
            (
                |record, _| record.totals.received += 1,
                "the server says it sent",
            ),
            (
                |record, _| record.totals.sent -= 1,
                "the server says it received",
            ),
            (|record, _| record.totals.handshakes = 5_000, "accepted"),
            (
                |_, server| server.final_line.as_mut().unwrap()["dropped"] = 7.into(),
                "7 dropped messages",
            ),
            (
                |_, server| server.final_line = None,
                "no line of final counters",
            ),
        ];
        for (change, expected) in cases {
            let ruling = changed(change);
            assert_eq!(ruling.status, Status::Invalid);
            assert!(
                ruling
                    .reasons
                    .iter()
                    .any(|reason| reason.contains(expected)),
                "{:?}",
                ruling.reasons
            );
        }
    }

    #[test]
    fn a_scale_step_is_held_to_equal_counts_pings_and_memory() {
        type Change = fn(&mut Record, &mut ServerSide, &mut Footprint);
        let ruling = |change: Change| {
            let mut run = test_data::scale_run("server-tokio", 100_000);
            let (mut record, mut footprint) = (run.loadgen.unwrap(), run.footprint.unwrap());
            change(&mut record, &mut run.server, &mut footprint);
            rule(&Evidence {
                loadgen: Some(&record),
                server: Some(&run.server),
                footprint: Some(&footprint),
                ..Default::default()
            })
        };
        assert_eq!(ruling(|_, _, _| {}).reasons, [""; 0]);
        let cases: [(Change, &str); 6] = [
            (
                |record, _, _| record.totals.pings_answered += 1,
                "200001 pongs of its own, the server 200000",
            ),
            (
                |_, server, _| server.final_line.as_mut().unwrap()["idle_timeouts"] = 3.into(),
                "3 connections closed for their silence",
            ),
            (
                |_, server, _| server.final_line.as_mut().unwrap()["drained"] = 4.into(),
                "4 connections still open",
            ),
            (
                |record, _, _| record.idle.as_mut().unwrap().pings_answered_in_window = 98_999,
                "fewer than 99000 of the 99000 silent connections",
            ),
            (
                |_, _, footprint| footprint.emptied.as_mut().unwrap().kernel.tcp_sockets = 999,
                "999 TCP sockets were left",
            ),
            (|_, _, footprint| footprint.up = None, "was not seen"),
        ];
        for (change, expected) in cases {
            let ruling = ruling(change);
            assert_eq!(ruling.status, Status::Invalid);
            assert_eq!(ruling.reasons.len(), 1, "{:?}", ruling.reasons);
            assert!(ruling.reasons[0].contains(expected), "{:?}", ruling.reasons);
        }
    }

    #[test]
    fn a_step_that_the_machine_cannot_hold_is_refused_and_nothing_else() {
        let ruling = rule(&Evidence {
            refused: Some(vec!["too large".into()]),
            ..Default::default()
        });
        assert_eq!(ruling.status, Status::Refused);
        assert_eq!(ruling.reasons, ["too large"]);
    }

    #[test]
    fn a_foreign_server_owes_no_counters() {
        let mut run = test_data::echo_run("peer", 1, 100_000.0);
        run.server.final_line = None;
        let ruling = rule(&Evidence {
            loadgen: run.loadgen.as_ref(),
            server: Some(&run.server),
            foreign: true,
            ..Default::default()
        });
        assert_eq!(ruling.status, Status::Valid, "{:?}", ruling.reasons);
    }

    #[test]
    fn no_record_or_a_dead_server_is_a_failure_and_an_interrupt_is_its_own_thing() {
        let none = rule(&Evidence::default());
        assert_eq!((none.status, none.reasons.len()), (Status::Failed, 1));
        let run = test_data::echo_run("server-uring", 1, 100_000.0);
        let died = rule(&Evidence {
            loadgen: run.loadgen.as_ref(),
            server: Some(&run.server),
            failures: vec!["the server was killed by signal 9".into()],
            ..Default::default()
        });
        assert_eq!(died.status, Status::Failed);
        let interrupted = rule(&Evidence {
            interrupted: true,
            ..Default::default()
        });
        assert_eq!(interrupted.status, Status::Interrupted);
    }

    #[test]
    fn what_the_machine_did_beside_is_a_doubt() {
        let run = test_data::echo_run("server-uring", 1, 100_000.0);
        let ruling = rule(&Evidence {
            loadgen: run.loadgen.as_ref(),
            server: Some(&run.server),
            steal_share: Some(0.051),
            other_load_share: Some(0.2),
            ..Default::default()
        });
        assert_eq!(ruling.status, Status::Doubtful);
        assert!(ruling.status.counts());
        assert_eq!(
            ruling.reasons,
            [
                "the hypervisor took 5.1% of the CPUs",
                "processes that are no part of the run used 20.0% of the CPUs in the window"
            ]
        );
    }
}
