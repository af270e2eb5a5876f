//! Plans a step of the suite `scale`: processes and workers that hold the connections within the
//! limits in force, or why this machine cannot hold the step. Pure.

use crate::config::{Contestant, ScaleBy, Scenario};
use crate::machine::Machine;
use crate::machine::limits::{
    BYTES_PER_CONNECTION, SPARE_BYTES, SPARE_FILES, SPARE_FILES_OF_MACHINE,
};
use crate::record::Layout;
use crate::units::grouped;

/// Sockets that share a port by SO_REUSEPORT get their connections by a hash: each a binomial
/// share. This many standard deviations above the mean, one listener in a billion has more than was
/// planned for it.
const SIGMAS: f64 = 6.0;
/// Socket buffers: an idle connection has none; an active one may hold a page for each direction at
/// each end.
const PAGES_PER_ACTIVE_CONNECTION: u64 = 4;
/// A connection that was just accepted holds its request; so many are in that state at once (the
/// accept queues are full).
const CONNECTIONS_BEING_OPENED: u64 = 16 * 1024;

/// How a contestant holds `connections` on `cpus` CPUs when a process (or a ring) may have `nofile`
/// files.
///
/// # Errors
/// The arithmetic, when it cannot.
fn layout(
    scale_by: Option<ScaleBy>,
    connections: u64,
    nofile: Option<u64>,
    cpus: u64,
) -> Result<Layout, String> {
    let cpus = cpus.max(1);
    let limit = nofile.unwrap_or(u64::MAX);
    let room = limit.saturating_sub(SPARE_FILES);
    let sharers = sharers(connections, room).ok_or(format!(
        "RLIMIT_NOFILE is {limit}, and a server needs {SPARE_FILES} files for itself"
    ))?;
    match scale_by {
        None if sharers > 1 => Err(format!(
            "{} connections + {SPARE_FILES} other files = {} open files in one process, and RLIMIT_NOFILE is {limit}",
            grouped(connections),
            grouped(connections + SPARE_FILES)
        )),
        None => Ok(Layout {
            processes: 1,
            workers: cpus,
        }),
        Some(ScaleBy::Processes) => Ok(Layout {
            processes: sharers,
            workers: cpus,
        }),
        Some(ScaleBy::Workers) => Ok(Layout {
            processes: 1,
            workers: sharers.next_multiple_of(cpus),
        }),
    }
}

/// The fewest listeners on one port whose fullest holds no more than `room` of `connections`;
/// `None` if there is no room at all.
fn sharers(connections: u64, room: u64) -> Option<u64> {
    if room == 0 {
        return None;
    }
    if connections <= room {
        return Some(1);
    }
    // mean + SIGMAS x sqrt(mean) = room, solved for the root of the mean.
    let half = SIGMAS / 2.0;
    let root = (half * half + room as f64).sqrt() - half;
    Some((connections as f64 / (root * root)).ceil() as u64)
}

/// How a contestant holds a step on this machine, with the server on `server_cpus` CPUs.
///
/// # Errors
/// Why it cannot: each reason with its arithmetic, and where one setting would change it, the
/// command.
pub fn plan(
    machine: &Machine,
    scenario: &Scenario,
    contestant: &Contestant,
    server_cpus: usize,
) -> Result<Layout, Vec<String>> {
    let connections = scenario.connections;
    let layout = layout(
        contestant.scale_by,
        connections,
        machine.nofile_hard,
        server_cpus as u64,
    );
    let refusals: Vec<String> = [
        layout.as_ref().err().cloned(),
        files(machine, connections),
        memory(machine, connections),
        socket_buffers(machine, scenario),
        tracking(machine, connections),
    ]
    .into_iter()
    .flatten()
    .collect();
    layout.ok().filter(|_| refusals.is_empty()).ok_or(refusals)
}

/// Both ends are sockets of this machine; a direct descriptor is an open file too, though not in a
/// process's table.
fn files(machine: &Machine, connections: u64) -> Option<String> {
    let most = machine.sysctl_number("fs.file-max")?;
    let open = machine.open_files.unwrap_or(0);
    let needed = 2 * connections + open + SPARE_FILES_OF_MACHINE;
    (needed > most).then(|| {
        format!(
            "2 x {} sockets + {} files open now + {} spare = {} open files, and fs.file-max is {} \
             (sudo sysctl -w fs.file-max={needed})",
            grouped(connections),
            grouped(open),
            grouped(SPARE_FILES_OF_MACHINE),
            grouped(needed),
            grouped(most)
        )
    })
}

fn memory(machine: &Machine, connections: u64) -> Option<String> {
    let available = machine.memory_available_bytes?;
    let of_group = machine
        .cgroup
        .get("memory.max")
        .and_then(|limit| limit.parse::<u64>().ok());
    let limit = of_group.map_or(available, |group| group.min(available));
    let needed = connections * BYTES_PER_CONNECTION + SPARE_BYTES;
    (needed > limit).then(|| {
        format!(
            "{} connections x {} KiB (both ends, kernel and user, with room to spare) + {} MiB = {} MiB, and {} MiB of memory are {}",
            grouped(connections),
            BYTES_PER_CONNECTION >> 10,
            SPARE_BYTES >> 20,
            grouped(needed >> 20),
            grouped(limit >> 20),
            if limit < available {
                "allowed to this control group"
            } else {
                "available"
            }
        )
    })
}

fn socket_buffers(machine: &Machine, scenario: &Scenario) -> Option<String> {
    let most: u64 = machine
        .sysctls
        .get("net.ipv4.tcp_mem")?
        .split_ascii_whitespace()
        .nth(2)?
        .parse()
        .ok()?;
    let busy = scenario
        .active_connections()
        .max(scenario.connections.min(CONNECTIONS_BEING_OPENED));
    let needed = busy * PAGES_PER_ACTIVE_CONNECTION;
    (needed > most).then(|| {
        format!(
            "{} connections that send at once x {PAGES_PER_ACTIVE_CONNECTION} pages of socket buffers = {} pages, and the third \
             number of net.ipv4.tcp_mem is {}",
            grouped(busy),
            grouped(needed),
            grouped(most)
        )
    })
}

/// Only where connection tracking really sees loopback connections.
fn tracking(machine: &Machine, connections: u64) -> Option<String> {
    if machine.conntrack_in_force != Some(true) {
        return None;
    }
    let most = machine.sysctl_number("net.netfilter.nf_conntrack_max")?;
    (connections > most).then(|| {
        format!(
            "connection tracking is in force on loopback and holds {} connections at most, not {} \
             (sudo sysctl -w net.netfilter.nf_conntrack_max={}, or exempt lo from it)",
            grouped(most),
            grouped(connections),
            connections * 2
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    const PROCESSES: Option<ScaleBy> = Some(ScaleBy::Processes);
    const WORKERS: Option<ScaleBy> = Some(ScaleBy::Workers);

    /// The 2-core, 24 GiB machine of the project.
    fn small_vm() -> Machine {
        Machine {
            memory_available_bytes: Some(23 << 30),
            nofile_hard: Some(20_000),
            open_files: Some(600),
            conntrack_in_force: Some(false),
            sysctls: [
                ("fs.file-max", "2466193"),
                ("net.ipv4.tcp_mem", "287901 383869 575802"),
                ("net.netfilter.nf_conntrack_max", "262144"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            ..Machine::default()
        }
    }

    fn refused(machine: &Machine, scale_by: Option<ScaleBy>, connections: u64) -> Vec<String> {
        let mut contestant = test_data::contestant("x");
        contestant.scale_by = scale_by;
        plan(
            machine,
            &test_data::scale_scenario(connections),
            &contestant,
            1,
        )
        .err()
        .unwrap_or_default()
    }

    fn fullest(connections: u64, sharers: u64) -> f64 {
        let mean = connections as f64 / sharers as f64;
        mean + SIGMAS * mean.sqrt()
    }

    #[test]
    fn layouts_keep_six_sigma_below_the_limit_with_not_one_sharer_too_many() {
        let layout = |by, connections, nofile, cpus| {
            let layout = layout(by, connections, nofile, cpus).unwrap();
            (layout.processes, layout.workers)
        };
        assert_eq!(layout(PROCESSES, 1_000_000, Some(20_000), 1), (53, 1));
        assert_eq!(layout(WORKERS, 1_000_000, Some(20_000), 1), (1, 53));
        assert_eq!(layout(WORKERS, 1_000_000, Some(20_000), 4), (1, 56));
        assert_eq!(layout(PROCESSES, 10_000, Some(20_000), 1), (1, 1));
        assert_eq!(layout(PROCESSES, 19_800, Some(20_000), 2), (1, 2));
        assert_eq!(layout(PROCESSES, 19_801, Some(20_000), 2), (2, 2));
        assert_eq!(layout(PROCESSES, 1_000_000, Some(1_048_576), 8), (1, 8));
        assert_eq!(layout(WORKERS, 1_000_000, None, 8), (1, 8));
        assert_eq!(layout(None, 10_000, Some(20_000), 2), (1, 2));
        for (connections, limit) in [(100_000, 20_000), (250_000, 4096), (1_000_000, 20_000)] {
            let room = limit - SPARE_FILES;
            let sharers = sharers(connections, room).unwrap();
            assert!(fullest(connections, sharers) <= room as f64 + 1e-6);
            assert!(fullest(connections, sharers - 1) > room as f64);
        }
    }

    #[test]
    fn a_server_of_one_process_is_told_its_limit() {
        let reason = layout(None, 100_000, Some(20_000), 2).unwrap_err();
        assert_eq!(
            reason,
            "100,000 connections + 200 other files = 100,200 open files in one process, and RLIMIT_NOFILE is 20000"
        );
        assert!(layout(PROCESSES, 10, Some(100), 1).is_err());
    }

    #[test]
    fn this_machine_holds_a_million() {
        for connections in [10_000, 100_000, 250_000, 500_000, 1_000_000] {
            assert_eq!(refused(&small_vm(), PROCESSES, connections), [""; 0]);
            assert_eq!(refused(&small_vm(), WORKERS, connections), [""; 0]);
        }
        assert_eq!(refused(&small_vm(), None, 100_000).len(), 1);
    }

    #[test]
    fn each_want_is_refused_with_its_arithmetic() {
        type Change = fn(&mut Machine);
        let cases: [(Change, &str); 5] = [
            (
                |m| _ = m.sysctls.insert("fs.file-max".into(), "2000000".into()),
                "2 x 1,000,000 sockets + 600 files open now + 10,000 spare = 2,010,600 open files, and fs.file-max is 2,000,000",
            ),
            (
                |m| m.memory_available_bytes = Some(7 << 30),
                "1,000,000 connections x 16 KiB (both ends, kernel and user, with room to spare) + 512 MiB = 16,137 MiB, and 7,168 MiB \
                 of memory are available",
            ),
            (
                |m| _ = m.cgroup.insert("memory.max".into(), "2147483648".into()),
                "2,048 MiB of memory are allowed to this control group",
            ),
            (
                |m| {
                    _ = m
                        .sysctls
                        .insert("net.ipv4.tcp_mem".into(), "1 2 60000".into())
                },
                "16,384 connections that send at once x 4 pages of socket buffers = 65,536 pages",
            ),
            (
                |m| m.conntrack_in_force = Some(true),
                "holds 262,144 connections at most, not 1,000,000",
            ),
        ];
        for (change, expected) in cases {
            let mut machine = small_vm();
            change(&mut machine);
            let reasons = refused(&machine, PROCESSES, 1_000_000);
            assert_eq!(reasons.len(), 1, "{reasons:?}");
            assert!(reasons[0].contains(expected), "{reasons:?}");
            assert_eq!(refused(&machine, PROCESSES, 10_000), [""; 0]);
        }
    }

    #[test]
    fn what_cannot_be_read_refuses_nothing() {
        assert_eq!(refused(&Machine::default(), PROCESSES, 1_000_000), [""; 0]);
    }
}
