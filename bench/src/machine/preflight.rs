//! Checks whether this machine can run the bouts. Each finding names the command that mends it.
//! Pure.

use serde::{Deserialize, Serialize};

use super::limits::{BYTES_PER_CONNECTION, SPARE_BYTES, SPARE_FILES};
use super::{CpuSet, Machine};

/// Something about the machine that harms a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Fatal: the suite cannot run.
    pub fatal: bool,
    /// The fault and its consequence.
    pub problem: String,
    /// A command, or what else to do.
    pub fix: String,
}

/// The demand of the suite on the machine.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Most connections at once.
    pub connections: u64,
    /// CPUs of the servers.
    pub server_cpus: &'a CpuSet,
    /// CPUs of the generator.
    pub generator_cpus: &'a CpuSet,
}

/// All findings, fatal ones first.
pub fn check(machine: &Machine, demand: Demand<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [
        io_uring(machine),
        files(machine, demand),
        memory(machine, demand),
        cpu_time(machine),
        cpus(machine),
        shared_core(machine, demand),
        mixed_side(machine, demand),
        quota(machine, demand),
        ports(machine),
        backlog(machine),
        conntrack(machine, demand),
        governor(machine),
        load(machine),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.sort_by_key(|finding| !finding.fatal);
    findings
}

fn fatal(problem: String, fix: impl Into<String>) -> Option<Finding> {
    Some(Finding {
        fatal: true,
        problem,
        fix: fix.into(),
    })
}

fn warning(problem: String, fix: impl Into<String>) -> Option<Finding> {
    Some(Finding {
        fatal: false,
        problem,
        fix: fix.into(),
    })
}

fn io_uring(machine: &Machine) -> Option<Finding> {
    let refusal = machine.io_uring_refused.as_ref()?;
    fatal(
        format!("{}: the generator needs it", refusal.problem),
        refusal.remedy.clone(),
    )
}

fn files(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let (limit, needed) = (machine.nofile_hard?, demand.connections + SPARE_FILES);
    if limit >= needed {
        return None;
    }
    fatal(
        format!(
            "a process may open {limit} files at most, and {} connections need {needed}",
            demand.connections
        ),
        format!(
            "as root: ulimit -Hn {needed}; for good: echo '* hard nofile 1048576' | sudo tee -a /etc/security/limits.conf and \
             log in again; in Docker: --ulimit nofile=1048576"
        ),
    )
}

fn memory(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let (available, needed) = (
        machine.memory_available_bytes?,
        SPARE_BYTES + demand.connections * BYTES_PER_CONNECTION,
    );
    if available >= needed {
        return None;
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    fatal(
        format!(
            "{} MiB of memory are available, the suite may need {} MiB",
            mib(available),
            mib(needed)
        ),
        "end other programs, or choose scenarios with fewer connections with --scenarios",
    )
}

fn cpu_time(machine: &Machine) -> Option<Finding> {
    if machine.schedstat {
        return None;
    }
    fatal(
        "/proc/self/schedstat is missing, so CPU time per message cannot be measured".into(),
        "use a kernel built with CONFIG_SCHED_INFO=y (every distribution's is)",
    )
}

fn cpus(machine: &Machine) -> Option<Finding> {
    if machine.cpus.as_ref()?.len() >= 2 {
        return None;
    }
    warning(
        "server and generator share the one CPU there is: closed loops measure both together"
            .into(),
        "use a machine with 2 CPUs or more (in Docker: --cpuset-cpus 0-1)",
    )
}

fn shared_core(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let Demand {
        server_cpus,
        generator_cpus,
        ..
    } = demand;
    if server_cpus == generator_cpus {
        return None;
    }
    let core = machine.topology.shared_core(server_cpus, generator_cpus)?;
    warning(
        format!(
            "server and generator share a core (CPUs {core} are its threads): the one is slower while the other runs"
        ),
        "use a machine with 2 cores or more, or set --server-cpus and --generator-cpus",
    )
}

fn mixed_side(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let sides = [
        ("servers", demand.server_cpus),
        ("generator", demand.generator_cpus),
    ];
    let (side, cpus) = sides
        .into_iter()
        .find(|(_, cpus)| machine.topology.is_mixed(cpus))?;
    warning(
        format!(
            "the CPUs of the {side} ({cpus}) are of several kinds: the speed of a connection depends on the core it falls to"
        ),
        "leave out --server-cpus and --generator-cpus, or name cores of one kind",
    )
}

fn quota(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let quota = machine.cpu_quota.as_ref()?;
    let (server, generator) = (demand.server_cpus, demand.generator_cpus);
    let used = if server == generator {
        server.len()
    } else {
        server.len() + generator.len()
    };
    if quota.cpus >= used as f64 {
        return None;
    }
    warning(
        format!(
            "the quota of control group {} is {:.2} CPUs, and the bouts use {used}: when it is used up, the kernel stops server and \
             generator for the rest of a period, mostly 100 ms",
            quota.group.display(),
            quota.cpus
        ),
        "lift it (docker: --cpuset-cpus in the place of --cpus; Kubernetes: no limit of cpu; systemd: CPUQuota=), or use fewer CPUs with \
         --server-cpus and --generator-cpus",
    )
}

fn ports(machine: &Machine) -> Option<Finding> {
    let range = machine.sysctls.get("net.ipv4.ip_local_port_range")?;
    let (low, high) = range.split_once(' ')?;
    let ports = high
        .trim()
        .parse::<u64>()
        .ok()?
        .saturating_sub(low.trim().parse().ok()?)
        + 1;
    if ports >= 20_000 {
        return None;
    }
    warning(
        format!(
            "only {ports} ephemeral ports ({range}): connecting gets slow when half of them are in use"
        ),
        "sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
    )
}

fn backlog(machine: &Machine) -> Option<Finding> {
    let somaxconn = machine.sysctl_number("net.core.somaxconn")?;
    if somaxconn >= 1024 {
        return None;
    }
    warning(
        format!(
            "net.core.somaxconn is {somaxconn}: connection bursts overflow the accept queue and retry after 1 s"
        ),
        "sudo sysctl -w net.core.somaxconn=4096",
    )
}

fn conntrack(machine: &Machine, demand: Demand<'_>) -> Option<Finding> {
    let most = machine.sysctl_number("net.netfilter.nf_conntrack_max")?;
    if most >= demand.connections * 4 {
        return None;
    }
    warning(
        format!("connection tracking holds {most} connections; closed ones count for minutes"),
        "sudo sysctl -w net.netfilter.nf_conntrack_max=1048576",
    )
}

fn governor(machine: &Machine) -> Option<Finding> {
    let governor = machine.governor.as_deref()?;
    if governor == "performance" {
        return None;
    }
    warning(
        format!("CPU frequency governor is `{governor}`: the clock changes with the load"),
        "sudo cpupower frequency-set -g performance",
    )
}

fn load(machine: &Machine) -> Option<Finding> {
    let busy = machine.busy_cpus?;
    if busy < 0.2 {
        return None;
    }
    warning(
        format!("other programs keep {busy:.1} CPUs busy: runs will be noisy"),
        "end them; to see them: ps -eo pcpu,pid,args --sort=-pcpu | head",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen::preflight::Refusal;

    use crate::machine::cgroup::Quota;
    use crate::machine::topology::{Group, Topology};

    fn good() -> Machine {
        Machine {
            kernel: "Linux 6.18.0-1-amd64 x86_64".into(),
            cpus: Some("0-1".parse().unwrap()),
            memory_available_bytes: Some(8 << 30),
            busy_cpus: Some(0.01),
            nofile_hard: Some(20_000),
            schedstat: true,
            sysctls: [
                ("net.ipv4.ip_local_port_range", "32768 60999"),
                ("net.core.somaxconn", "4096"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            ..Default::default()
        }
    }

    fn findings(change: impl FnOnce(&mut Machine)) -> Vec<Finding> {
        let mut machine = good();
        change(&mut machine);
        check_sides(&machine, "0", "1")
    }

    fn check_sides(machine: &Machine, server: &str, generator: &str) -> Vec<Finding> {
        let demand = Demand {
            connections: 10_000,
            server_cpus: &server.parse().unwrap(),
            generator_cpus: &generator.parse().unwrap(),
        };
        check(machine, demand)
    }

    #[test]
    fn a_good_machine_and_an_unreadable_one_have_no_findings_but_cpu_time() {
        assert_eq!(findings(|_| {}), []);
        let unreadable = Machine {
            schedstat: true,
            ..Default::default()
        };
        assert_eq!(check_sides(&unreadable, "0", "1"), []);
    }

    #[test]
    fn each_problem_has_its_severity_and_its_fix() {
        type Change = fn(&mut Machine);
        let cases: [(Change, bool, &str); 9] = [
            (
                |m| {
                    m.io_uring_refused = Some(Refusal {
                        problem: "cannot set up io_uring: Operation not permitted".into(),
                        remedy: "join kernel.io_uring_group".into(),
                    });
                },
                true,
                "join kernel.io_uring_group",
            ),
            (|m| m.nofile_hard = Some(4096), true, "ulimit -Hn 10200"),
            (
                |m| m.memory_available_bytes = Some(100 << 20),
                true,
                "--scenarios",
            ),
            (|m| m.schedstat = false, true, "CONFIG_SCHED_INFO"),
            (|m| m.cpus = "0".parse().ok(), false, "cpuset"),
            (
                |m| {
                    _ = m
                        .sysctls
                        .insert("net.ipv4.ip_local_port_range".into(), "50000 51000".into())
                },
                false,
                "ip_local_port_range=",
            ),
            (
                |m| _ = m.sysctls.insert("net.core.somaxconn".into(), "128".into()),
                false,
                "somaxconn=4096",
            ),
            (|m| m.governor = Some("powersave".into()), false, "cpupower"),
            (|m| m.busy_cpus = Some(1.5), false, "ps -eo"),
        ];
        for (change, fatal, fix) in cases {
            let found = findings(change);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].fatal, fatal, "{found:?}");
            assert!(found[0].fix.contains(fix), "{found:?}");
        }
    }

    #[test]
    fn sides_that_share_a_core_or_are_mixed_are_found() {
        let machine = Machine {
            topology: Topology {
                groups: vec![group(0, &["0-1", "2-3"]), group(1, &["4", "5"])],
            },
            ..good()
        };
        let found = |server, generator| {
            let found = check_sides(&machine, server, generator);
            assert!(found.len() < 2 && !found.iter().any(|one| one.fatal));
            found.into_iter().next().map(|one| one.problem)
        };
        assert_eq!(found("0-1", "2-3"), None);
        assert_eq!(found("0-1", "4-5"), None);
        let shared = found("0", "1").unwrap();
        assert!(shared.contains("CPUs 0-1 are its threads"), "{shared}");
        let mixed = found("0-1", "2-5").unwrap();
        assert!(mixed.contains("CPUs of the generator (2-5)"), "{mixed}");
    }

    #[test]
    fn a_quota_below_the_cpus_in_use_is_found() {
        let found = |cpus, server, generator| {
            let group = "/sys/fs/cgroup/ci.slice".into();
            let machine = Machine {
                cpu_quota: Some(Quota { cpus, group }),
                ..good()
            };
            let found = check_sides(&machine, server, generator);
            found.into_iter().next().map(|one| one.problem)
        };
        assert_eq!(found(2.0, "0", "1"), None);
        assert_eq!(found(1.0, "0", "0"), None);
        for (cpus, server, generator) in [(0.6, "0", "0"), (1.5, "0", "1"), (3.0, "0-1", "2-3")] {
            let problem = found(cpus, server, generator).unwrap();
            assert!(problem.contains("/sys/fs/cgroup/ci.slice is "), "{problem}");
        }
    }

    fn group(kind: usize, cores: &[&str]) -> Group {
        Group {
            kind,
            speed: None,
            package: None,
            node: None,
            cache: None,
            cores: cores.iter().map(|core| core.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn io_uring_is_judged_by_what_the_kernel_said_and_not_by_a_sysctl() {
        for disabled in ["1", "2"] {
            let found = findings(|m| {
                let key = "kernel.io_uring_disabled".to_owned();
                m.sysctls.insert(key, disabled.into());
            });
            assert_eq!(found, [], "a member of kernel.io_uring_group may use it");
        }
    }

    #[test]
    fn fatal_findings_come_first() {
        let found = findings(|m| {
            m.busy_cpus = Some(2.0);
            m.schedstat = false;
        });
        assert_eq!(
            found.iter().map(|f| f.fatal).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
