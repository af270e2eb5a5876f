//! What a run needs of the machine: processes, descriptors, memory. Refused before anything is
//! opened, with the arithmetic.

use serde::{Deserialize, Serialize};

use crate::{
    address::Address,
    config::Config,
    limits::{self, SystemLimits},
    plan::{PER_TRIPLE, Plan, Processes},
    record::LoadKind,
};

/// Descriptors a process needs besides its connections: standard streams, files, and per thread a
/// ring and an eventfd.
const RESERVE: u64 = 32;
const PER_THREAD: u64 = 4;
/// More processes than this are a slip of the pen.
const MOST_SHARDS: u64 = 4096;

/// Kernel memory of one end of an idle connection, as slabs have grown at 100,000: 8.3 KiB for both
/// ends. `TCP` 2,368 bytes, socket inode 832, file 192, directory entry 192, the waiting poll
/// (io_uring: 256, epoll: 200), the port's bucket (146, the generator's end), the rest of a
/// half-filled slab.
const KERNEL_BYTES: u64 = 4_200;
/// The generator's own: per connection (115 measured), and per process (up to 3.0 MB with traffic).
const USER_BYTES: u64 = 120;
const SHARD_BYTES: u64 = 3 << 20;

/// Why the kernel refuses io_uring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was tried, and what the kernel said.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Tries the ring that the generator needs, as `server-uring` does too: settings alone do not tell
/// who may have one.
///
/// # Errors
/// What the kernel said.
pub fn io_uring() -> Result<(), Refusal> {
    uring_net::probe().map_err(|error| Refusal {
        problem: format!("{}: {}: {}", error.step, error.source, error.cause),
        remedy: error.cause.remedy().to_owned(),
    })
}

/// The plan on this machine.
///
/// # Errors
/// Without io_uring; when the machine cannot hold the connections, with the arithmetic and what to
/// do; and for CPUs that may not be used.
pub fn plan(config: &Config, targets: &[Address]) -> Result<Plan, String> {
    uring_net::probe().map_err(|error| error.to_string())?;
    limits::check_cpus(&config.cpus)?;
    plan_within(config, targets, &SystemLimits::this())
}

pub(crate) fn plan_within(
    config: &Config,
    targets: &[Address],
    limits: &SystemLimits,
) -> Result<Plan, String> {
    let processes = Processes::needed(config, limits)?;
    let cpus = match config.cpus.len() {
        0 => limits.cpus,
        pinned => pinned,
    };
    let mut plan = Plan::new(config, targets, processes, cpus, limits.ports)?;
    check_system(config, targets, &plan, limits)?;
    if plan.shards > 1 {
        plan.explanation = explain(config, targets, &plan, limits);
    }
    Ok(plan)
}

impl Processes {
    /// As few processes as the descriptors allow, or as many as asked for.
    fn needed(config: &Config, limits: &SystemLimits) -> Result<Self, String> {
        let connections = config.connections;
        let wanted = match (config.threads, config.cpus.len()) {
            (Some(threads), _) => threads,
            (None, 0) => limits.cpus as u64,
            (None, pinned) => pinned as u64,
        };
        let threads_each = |shards: u64| wanted.div_ceil(shards).clamp(1, connections / shards);
        let fits = |shards: u64| {
            connections.div_ceil(shards) + reserve(threads_each(shards)) <= limits.open_files
        };
        let shards = match config.shards {
            Some(shards) if shards > connections.min(MOST_SHARDS) => {
                return Err(format!(
                    "--shards {shards} is more than the connections (-c {connections}) or than {MOST_SHARDS}: lower it, or leave it out"
                ));
            }
            Some(shards) if fits(shards) => shards,
            Some(shards) => return Err(too_few_files(limits, connections, shards)),
            None => (1..=MOST_SHARDS.min(connections))
                .find(|shards| fits(*shards))
                .ok_or_else(|| too_few_files(limits, connections, MOST_SHARDS))?,
        };
        if shards > 1 && config.kind == LoadKind::Broadcast && config.traffic.rate_per_s.is_none() {
            return Err(format!(
                "a closed-loop broadcast publishes when every member has the message before, which {shards} processes cannot know in \
                 time: use --rate (open loop), or -c {} at most, which one process holds",
                limits.open_files.saturating_sub(reserve(wanted))
            ));
        }
        if shards > 1 && config.slices {
            return Err(format!(
                "--slices starts and pauses the threads of one process, and this needs {shards}: use -c {} at most, without --shards",
                limits.open_files.saturating_sub(reserve(wanted))
            ));
        }
        Ok(Self {
            shards: shards as usize,
            threads_each: threads_each(shards) as usize,
        })
    }
}

fn reserve(threads: u64) -> u64 {
    RESERVE + PER_THREAD * threads
}

fn too_few_files(limits: &SystemLimits, connections: u64, shards: u64) -> String {
    let (each, reserve) = (connections.div_ceil(shards), reserve(1));
    let (needed, open_files) = (each + reserve, limits.open_files);
    format!(
        "{connections} connections in {shards} process(es) need {needed} open files each ({each} + {reserve} for the process itself), but \
         the limit (RLIMIT_NOFILE, hard) is {open_files}: leave out --shards, use at most -c {}, or raise the limit (`ulimit -Hn \
         {needed}` as root, LimitNOFILE= in systemd, --ulimit nofile= in docker)",
        open_files.saturating_sub(reserve) * shards
    )
}

/// Refuses more than the system as a whole can hold.
fn check_system(
    config: &Config,
    targets: &[Address],
    plan: &Plan,
    limits: &SystemLimits,
) -> Result<(), String> {
    let connections = config.connections;
    let ends = ends(targets);
    if let Some((used, most)) = limits.system_files
        && used + connections * ends > most
    {
        return Err(format!(
            "{connections} connections x {ends} end(s) on this machine + {used} files in use = {} open files, more than fs.file-max \
             ({most}): use at most -c {}, or raise it (`sysctl fs.file-max=...` as root)",
            used + connections * ends,
            most.saturating_sub(used) / ends
        ));
    }
    let needed = memory(connections, plan.shards as u64, ends);
    if let Some(available) = limits.available_bytes
        && needed > available
    {
        return Err(format!(
            "{connections} connections need about {:.1} GB: {ends} end(s) on this machine x {KERNEL_BYTES} bytes of the kernel's + {USER_BYTES} \
             of this generator's each, + {:.1} MB for each of {} process(es), and the server's own memory on top; {:.1} GB are available: \
             use at most -c {}",
            gigabytes(needed),
            SHARD_BYTES as f64 / 1e6,
            plan.shards,
            gigabytes(available),
            available / (ends * KERNEL_BYTES + USER_BYTES)
        ));
    }
    Ok(())
}

/// How many ends of a connection this machine holds.
fn ends(targets: &[Address]) -> u64 {
    if targets.iter().any(Address::is_local) {
        2
    } else {
        1
    }
}

fn memory(connections: u64, shards: u64, ends: u64) -> u64 {
    connections * (ends * KERNEL_BYTES + USER_BYTES) + shards * SHARD_BYTES
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// The plan for several processes, for people.
fn explain(
    config: &Config,
    targets: &[Address],
    plan: &Plan,
    limits: &SystemLimits,
) -> Vec<String> {
    let connections = config.connections;
    let most = plan.count_of_shard(0);
    let (shards, threads, cpus) = (plan.shards, plan.threads, plan.cpus);
    let reserve = reserve((threads / shards) as u64);
    let limit = limits.open_files;
    let why = match config.shards {
        Some(_) => "--shards",
        None => "RLIMIT_NOFILE",
    };
    let mut lines = vec![format!(
        "{connections} connections / {shards} processes = {most} each + {reserve} files of its own <= {limit} ({why}); {threads} threads on {cpus} CPU(s)"
    )];
    let sources = plan.source_ips();
    lines.push(match (sources.first(), sources.last()) {
        (Some(first), Some(last)) => format!(
            "{} source addresses, {first} to {last}, so that none has more than {PER_TRIPLE} connections to a target; {} target(s) of {} connections each",
            sources.len(),
            targets.len(),
            connections.div_ceil(targets.len() as u64)
        ),
        _ if targets.iter().all(|target| target.ip().is_none()) => format!(
            "Unix sockets have no source addresses; {} target(s) of {} connections each",
            targets.len(),
            connections.div_ceil(targets.len() as u64)
        ),
        _ => format!(
            "the kernel chooses source addresses; {} target(s) of {} connections each",
            targets.len(),
            connections.div_ceil(targets.len() as u64)
        ),
    });
    let ends = ends(targets);
    let mut system = Vec::new();
    if let Some((used, most)) = limits.system_files {
        system.push(format!(
            "{ends} end(s) x {connections} = {} files + {used} in use <= {most} (fs.file-max)",
            ends * connections
        ));
    }
    if let Some(available) = limits.available_bytes {
        system.push(format!(
            "about {:.1} GB without the server's own, of {:.1} GB available",
            gigabytes(memory(connections, shards as u64, ends)),
            gigabytes(available)
        ));
    }
    lines.push(system.join("; "));
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::net::SocketAddr;

    const THIS: SystemLimits = SystemLimits {
        cpus: 2,
        ports: 28_232,
        open_files: 20_000,
        system_files: Some((1_500, 2_466_193)),
        available_bytes: Some(23 << 30),
    };

    fn plan(flags: &str, machine: &SystemLimits, target: &str) -> Result<Plan, String> {
        let line = format!("loadgen {flags} ws://a");
        let cli = crate::cli::Cli::try_parse_from(line.split_whitespace()).unwrap();
        let config = cli.check().unwrap().0;
        let address: SocketAddr = target.parse().unwrap();
        plan_within(&config, &[address.into()], machine)
    }

    #[test]
    fn the_kernel_gives_the_ring_that_the_generator_needs() {
        assert_eq!(io_uring(), Ok(()));
    }

    fn processes(flags: &str, machine: &SystemLimits) -> (usize, usize) {
        let plan = plan(flags, machine, "127.0.0.1:80").unwrap();
        (plan.shards, plan.threads)
    }

    #[test]
    fn as_few_processes_as_the_limit_allows() {
        let with = |cpus, open_files| SystemLimits {
            cpus,
            open_files,
            available_bytes: Some(1 << 40),
            ..THIS
        };
        for (flags, machine, expected) in [
            ("echo -c 1", THIS, (1, 1)),
            ("echo -c 10k", THIS, (1, 2)),
            ("echo -c 19960", THIS, (1, 2)),
            ("echo -c 19961", THIS, (2, 2)),
            ("echo -c 100k", THIS, (6, 6)),
            ("echo -c 100k -t 10", THIS, (6, 12)),
            ("echo -c 100k -t 1", THIS, (6, 6)),
            ("echo -c 1m", THIS, (51, 51)),
            ("echo -c 1m", with(2, 1_048_576), (1, 2)),
            ("echo -c 1.1m", with(64, 1_048_576), (2, 64)),
            ("echo -c 5k", with(4, 1_024), (6, 6)),
            ("echo -c 1.5k", with(16, 1_024), (2, 16)),
            ("echo -c 60 --shards 3", THIS, (3, 3)),
            ("echo -c 60 --shards 1", THIS, (1, 2)),
            ("echo -c 3 --shards 3 -t 9", THIS, (3, 3)),
            ("echo -c 19k --shards 0", THIS, (1, 2)),
        ] {
            assert_eq!(processes(flags, &machine), expected, "{flags} {machine:?}");
        }
    }

    #[test]
    fn refusals_show_the_arithmetic() {
        let crowded = SystemLimits {
            system_files: Some((500_000, 2_000_000)),
            ..THIS
        };
        let small = SystemLimits {
            available_bytes: Some(4 << 30),
            ..THIS
        };
        for (flags, machine, target, parts) in [
            (
                "idle -c 900k --shards 1",
                &THIS,
                "127.0.0.1:80",
                vec!["900036", "20000", "-c 19964", "leave out --shards"],
            ),
            (
                "idle -c 3 --shards 4",
                &THIS,
                "127.0.0.1:80",
                vec!["--shards 4"],
            ),
            (
                "idle -c 1m",
                &crowded,
                "127.0.0.1:80",
                vec!["2500000", "2000000", "-c 750000", "fs.file-max"],
            ),
            (
                "idle -c 1m",
                &small,
                "127.0.0.1:80",
                vec!["8.7 GB", "4.3 GB", "available"],
            ),
            (
                "broadcast -c 30k",
                &THIS,
                "127.0.0.1:80",
                vec!["closed-loop", "2 processes", "--rate", "-c 19960"],
            ),
            (
                "echo -c 30k --slices",
                &THIS,
                "127.0.0.1:80",
                vec!["--slices", "needs 2", "-c 19960"],
            ),
        ] {
            let error = plan(flags, machine, target).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{flags}: {part} in {error}");
            }
        }
        // Far from here only one end counts.
        let sources = "--source-ips 10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5";
        let far = plan(&format!("idle -c 100k {sources}"), &small, "10.0.0.1:80");
        assert!(far.unwrap().explanation[2].contains("1 end(s) x 100000"));
        assert!(plan("broadcast -c 30k -r 1", &THIS, "127.0.0.1:80").is_ok());
    }
}
