//! Who opens what: connections over shards and threads, over targets, over source addresses.
//!
//! Connection `g` of all belongs to thread `g mod threads` and target `g mod targets`; shard `s`
//! has the threads from `s x threads per shard` on. Why source addresses: a connect without a bound
//! port searches ports of one parity first (`__inet_hash_connect`), and once half of the range is
//! taken for a (source, destination, port) triple every connect scans thousands of entries;
//! measured, the rate falls from over 10,000/s to 150/s at 14,600 connections. [`PER_TRIPLE`] stays
//! below that. Shards search at the same time, so on loopback each gets addresses of its own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use serde::{Deserialize, Serialize};

use crate::{address::Address, config::Config, record::LoadKind};

/// Most connections per (source, destination, port) that still connect at full speed.
pub const PER_TRIPLE: u64 = 12_000;
/// Source addresses of a `connect` run on loopback: ports come back only after a while.
const CHURN_SOURCES: u64 = 8;
/// Connects and handshakes in flight of all threads together: few enough for a listener's backlog,
/// and for the queue through which a CPU passes packets over loopback
/// (`net.core.netdev_max_backlog`, 1,000): what does not fit is dropped, and a SYN is sent again
/// after a second, then after two, four, eight (measured with 2,048 in flight of 51 threads: tens
/// of thousands dropped on the way to a million) ...
const IN_FLIGHT: usize = 512;
/// ... and per thread: enough to be fast.
const IN_FLIGHT_PER_THREAD: usize = 128;

/// Who opens what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Processes.
    pub shards: usize,
    /// Threads of all of them; each has the same number.
    pub threads: usize,
    /// CPUs that these share.
    pub cpus: usize,
    /// Connections in all.
    pub connections: usize,
    /// Per target.
    sources: Vec<Sources>,
    /// Most connections from one source address to one target.
    pub most_per_source: u64,
    /// How the number of processes and addresses came about, for a run of several processes: lines
    /// of text.
    pub explanation: Vec<String>,
}

/// Processes and threads of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) shards: usize,
    pub(crate) threads_each: usize,
}

/// Addresses to bind before connecting to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Sources {
    /// The kernel chooses.
    Kernel,
    /// These, in turn.
    Given(Vec<IpAddr>),
    /// Each shard `each` of its own, in turn: of loopback, counted from 127.0.0.1.
    Own { each: u32 },
}

impl Plan {
    /// Deals the connections out: over `processes` that share `cpus` CPUs, with `ports` for a pair
    /// of addresses.
    ///
    /// # Errors
    /// When there are too few ports, with the arithmetic and what to do.
    pub(crate) fn new(
        config: &Config,
        targets: &[Address],
        processes: Processes,
        cpus: usize,
        ports: u64,
    ) -> Result<Self, String> {
        let mut plan = Self {
            shards: processes.shards,
            threads: processes.shards * processes.threads_each,
            cpus,
            connections: config.connections as usize,
            sources: Vec::new(),
            most_per_source: 0,
            explanation: Vec::new(),
        };
        let counts = plan.counts(targets);
        for target in targets {
            let of_target = || {
                let same = targets.iter().zip(&counts);
                same.filter(|(other, _)| *other == target)
                    .map(|(_, shards)| shards)
            };
            // Targets with the same address share its ports.
            let shards: Vec<u64> = (0..plan.shards)
                .map(|shard| of_target().map(|shards| shards[shard]).sum())
                .collect();
            let sources = match target {
                Address::Ip(address) => {
                    let sources = plan.sources_for(config, *address, &shards)?;
                    plan.check_ports(*address, &shards, &sources, ports)?;
                    sources
                }
                Address::Unix(_) if !config.source_ips.is_empty() => {
                    return Err(format!(
                        "{target} is a Unix socket, to which nothing connects from an address: leave out \
                         --source-ips"
                    ));
                }
                Address::Unix(_) => Sources::Kernel,
            };
            plan.sources.push(sources);
        }
        Ok(plan)
    }

    /// Connections per target and shard.
    fn counts(&self, targets: &[Address]) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.shards]; targets.len()];
        for connection in 0..self.connections {
            counts[connection % targets.len()][self.shard_of(connection % self.threads)] += 1;
        }
        counts
    }

    fn sources_for(
        &self,
        config: &Config,
        target: SocketAddr,
        shards: &[u64],
    ) -> Result<Sources, String> {
        if !config.source_ips.is_empty() {
            return given_sources(config, target).map(Sources::Given);
        }
        // Only 127.0.0.0/8 is all ours; ::1 is a single address.
        if !Address::Ip(target).is_local() || target.is_ipv6() {
            return Ok(Sources::Kernel);
        }
        // Each thread takes its shard's addresses in turn, so a triple has at most one connection
        // per thread more than the others.
        let fullest = shards.iter().copied().max().unwrap_or(0);
        let mut each = if fullest <= PER_TRIPLE {
            1
        } else {
            let spare = (self.threads / self.shards) as u64;
            fullest.div_ceil(PER_TRIPLE.saturating_sub(spare).max(1))
        };
        if config.kind == LoadKind::Connect {
            each = each.max(CHURN_SOURCES.div_ceil(self.shards as u64));
        }
        if each == 1 && self.shards == 1 {
            return Ok(Sources::Kernel);
        }
        Ok(Sources::Own { each: each as u32 })
    }

    fn check_ports(
        &mut self,
        target: SocketAddr,
        shards: &[u64],
        sources: &Sources,
        ports: u64,
    ) -> Result<(), String> {
        let (connections, sources) = match sources {
            Sources::Kernel => (shards.iter().sum(), 1),
            Sources::Given(sources) => (shards.iter().sum::<u64>(), sources.len() as u64),
            Sources::Own { each } => (shards.iter().copied().max().unwrap_or(0), u64::from(*each)),
        };
        let most = sources * ports;
        let needed = connections.div_ceil(PER_TRIPLE);
        if connections > most {
            return Err(format!(
                "{connections} connections to {target} from {sources} source address(es) need more than the {ports} ports each has \
                 (net.ipv4.ip_local_port_range): {sources} x {ports} = {most}. Give at least {} targets, or at least {needed} addresses \
                 of this host with --source-ips{}",
                needed.div_ceil(sources),
                ipv6_sources(target, needed)
            ));
        }
        self.most_per_source = self.most_per_source.max(connections.div_ceil(sources));
        Ok(())
    }

    /// Connections of a thread.
    pub fn count(&self, thread: usize) -> usize {
        self.count_of(self.connections, thread)
    }

    /// How many of the first `total` connections a thread owns; they are its first ones.
    pub fn count_of(&self, total: usize, thread: usize) -> usize {
        share(total as u64, thread as u64, self.threads as u64) as usize
    }

    /// The threads of a shard.
    pub fn threads_of(&self, shard: usize) -> Range<usize> {
        let each = self.threads / self.shards;
        shard * each..(shard + 1) * each
    }

    fn shard_of(&self, thread: usize) -> usize {
        thread / (self.threads / self.shards)
    }

    /// Connections of a shard.
    pub fn count_of_shard(&self, shard: usize) -> usize {
        self.threads_of(shard)
            .map(|thread| self.count(thread))
            .sum()
    }

    /// Number among all connections of connection `local` of `thread`.
    pub fn global(&self, thread: usize, local: usize) -> usize {
        local * self.threads + thread
    }

    /// Most connections of one thread on their way up, or down, at a time.
    pub fn most_in_flight(&self) -> usize {
        (IN_FLIGHT / self.threads).clamp(8, IN_FLIGHT_PER_THREAD)
    }

    /// The target of a connection, and the address to bind before.
    pub fn route(&self, global: usize, attempt: usize) -> (usize, Option<IpAddr>) {
        let targets = self.sources.len();
        let target = global % targets;
        let (thread, local) = (global % self.threads, global / self.threads);
        // A thread meets a target again after `cycle` of its connections.
        let cycle = targets / common_divisor(targets, self.threads);
        let turn = local / cycle + thread + attempt;
        let source = match &self.sources[target] {
            Sources::Kernel => None,
            Sources::Given(ips) => Some(ips[turn % ips.len()]),
            Sources::Own { each } => Some(own_source(self.shard_of(thread), *each, turn)),
        };
        (target, source)
    }

    /// All source addresses in use.
    pub fn source_ips(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self
            .sources
            .iter()
            .flat_map(|sources| self.ips(sources))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn ips(&self, sources: &Sources) -> Vec<IpAddr> {
        match sources {
            Sources::Kernel => Vec::new(),
            Sources::Given(ips) => ips.clone(),
            Sources::Own { each } => (0..self.shards)
                .flat_map(|shard| {
                    (0..*each as usize).map(move |turn| own_source(shard, *each, turn))
                })
                .collect(),
        }
    }
}

/// How many of `total` things dealt out in turn go to `index` of `count`.
fn share(total: u64, index: u64, count: u64) -> u64 {
    total.saturating_sub(index).div_ceil(count)
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

fn own_source(shard: usize, each: u32, turn: usize) -> IpAddr {
    let number = shard as u32 * each + (turn % each as usize) as u32;
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number))
}

/// How to come by more source addresses for a target on IPv6 loopback, which has one of its own.
fn ipv6_sources(target: SocketAddr, needed: u64) -> String {
    if target.ip() != Ipv6Addr::LOCALHOST {
        return String::new();
    }
    format!(
        ": as root run `for i in $(seq {needed}); do ip -6 addr add fd00::$i/128 dev lo; done` and give \
         `--source-ips $(seq -s, -f fd00::%g {needed})`"
    )
}

fn given_sources(config: &Config, target: SocketAddr) -> Result<Vec<IpAddr>, String> {
    let fitting: Vec<IpAddr> = config
        .source_ips
        .iter()
        .copied()
        .filter(|ip| ip.is_ipv4() == target.is_ipv4())
        .collect();
    if fitting.is_empty() {
        return Err(format!(
            "none of --source-ips is of the same family as {target}: give an {} address of this host",
            if target.is_ipv4() { "IPv4" } else { "IPv6" }
        ));
    }
    Ok(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::SystemLimits, preflight};
    use clap::Parser;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    const LOCAL: &str = "127.0.0.1:80";

    fn plan(flags: &str, targets: &[&str]) -> Result<Plan, String> {
        let line = format!("loadgen {flags} ws://a");
        let cli = crate::cli::Cli::try_parse_from(line.split_whitespace()).unwrap();
        let address = |text: &&str| match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => text.parse::<SocketAddr>().unwrap().into(),
        };
        let targets: Vec<Address> = targets.iter().map(address).collect();
        preflight::plan_within(&cli.check().unwrap().0, &targets, &machine())
    }

    /// 20,000 descriptors per process, two CPUs, 24 GiB.
    fn machine() -> SystemLimits {
        SystemLimits {
            cpus: 2,
            ports: 28_232,
            open_files: 20_000,
            system_files: Some((1_500, 2_466_193)),
            available_bytes: Some(23 << 30),
        }
    }

    /// Connections per source and target.
    fn triples(plan: &Plan) -> HashMap<(usize, Option<IpAddr>), u64> {
        let mut triples = HashMap::new();
        for connection in 0..plan.connections {
            *triples.entry(plan.route(connection, 0)).or_default() += 1;
        }
        triples
    }

    #[test]
    fn few_connections_leave_the_source_to_the_kernel() {
        let plan = plan("echo -c 12k", &[LOCAL]).unwrap();
        assert_eq!(plan.threads, 2);
        assert_eq!(plan.route(7, 0), (0, None));
    }

    #[test]
    fn many_connections_spread_over_loopback() {
        let plan = plan("echo -c 19k", &[LOCAL]).unwrap();
        assert_eq!((plan.shards, plan.source_ips().len()), (1, 2));
        assert_eq!(plan.route(0, 0).1, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(plan.route(0, 1).1, Some("127.0.0.2".parse().unwrap()));
        assert!(plan.most_per_source <= PER_TRIPLE && plan.explanation.is_empty());
    }

    #[test]
    fn a_million_connections_fit_into_processes_of_this_machine() {
        for targets in [1_u16, 2, 3, 17, 51, 52] {
            let targets: Vec<String> = (0..targets)
                .map(|port| format!("127.0.0.1:{}", 2_000 + port))
                .collect();
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            let plan = plan("idle -c 1m", &targets).unwrap();
            assert_eq!((plan.shards, plan.threads), (51, 51));
            let triples = triples(&plan);
            assert!(triples.values().all(|count| *count <= PER_TRIPLE));
            // No two shards bind the same address.
            let mut owners: HashMap<IpAddr, HashSet<usize>> = HashMap::new();
            for connection in 0..plan.connections {
                let source = plan.route(connection, 0).1.unwrap();
                let shard = plan.shard_of(connection % plan.threads);
                owners.entry(source).or_default().insert(shard);
            }
            assert!(owners.values().all(|shards| shards.len() == 1));
            assert_eq!(plan.source_ips().len(), owners.len());
            assert!(plan.most_per_source <= PER_TRIPLE);
            let text = plan.explanation.join("\n");
            for part in ["51 processes", "19608", "20000", "2466193", "2000000"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn same_address_twice_shares_its_ports() {
        let two = plan("echo -c 19k", &[LOCAL, LOCAL]).unwrap();
        assert_eq!(two.source_ips().len(), 2);
        let apart = plan("echo -c 19k", &[LOCAL, "127.0.0.1:81"]).unwrap();
        assert!(apart.source_ips().is_empty());
    }

    #[test]
    fn beyond_loopback_it_warns_then_refuses() {
        let slow = plan("echo -c 19k", &["10.0.0.1:80"]).unwrap();
        assert_eq!(slow.most_per_source, 19_000);
        let error = plan("echo -c 30k", &["10.0.0.1:80"]).unwrap_err();
        assert!(
            error.contains("28232") && error.contains("at least 3"),
            "{error}"
        );
        let error = plan("echo -c 30k", &["[::1]:80"]).unwrap_err();
        assert!(error.contains("seq 3"), "{error}");
        let slow = plan("echo -c 19k", &["[::1]:80"]).unwrap();
        assert!(slow.most_per_source > PER_TRIPLE);
    }

    #[test]
    fn given_addresses_win() {
        let given = plan("echo -c 4 --source-ips 127.9.0.1,127.9.0.2,::1", &[LOCAL]).unwrap();
        assert_eq!(given.source_ips().len(), 2);
        let error = plan("echo --source-ips 127.0.0.1", &["[::1]:80"]).unwrap_err();
        assert!(error.contains("IPv6"));
    }

    #[test]
    fn unix_sockets_have_no_ports_and_no_source_addresses() {
        for flags in ["echo -c 19k", "idle -c 100k", "connect -c 8"] {
            let plan = plan(flags, &["unix:/a"]).unwrap();
            assert_eq!((plan.route(0, 1), plan.most_per_source), ((0, None), 0));
            assert!(plan.shards == 1 || plan.explanation[1].contains("Unix"));
        }
        // 100,000 are more than the ports of one source address: of TCP they need several.
        let both = plan("idle -c 100k", &[LOCAL, "unix:/a"]).unwrap();
        assert!(both.route(0, 0).1.is_some() && both.route(1, 0).1.is_none());
        for targets in [&["unix:/a"][..], &[LOCAL, "unix:/a"]] {
            let error = plan("echo --source-ips 127.0.0.2", targets).unwrap_err();
            assert!(error.contains("/a is a Unix socket"), "{error}");
        }
    }

    #[test]
    fn threads() {
        assert_eq!(plan("echo -c 1", &[LOCAL]).unwrap().threads, 1);
        assert_eq!(plan("echo -t 4", &[LOCAL]).unwrap().threads, 4);
        assert_eq!(plan("echo --cpus 1", &[LOCAL]).unwrap().threads, 1);
    }

    #[test]
    fn given_addresses_are_shared_by_the_shards() {
        let flags = "idle -c 100k --source-ips 10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6,10.0.0.7,10.0.0.8,10.0.0.9,10.0.0.10";
        let plan = plan(flags, &["10.0.0.1:80"]).unwrap();
        assert_eq!(plan.source_ips().len(), 9);
        let triples = triples(&plan);
        let (least, most) = (triples.values().min(), triples.values().max());
        assert!(most.unwrap() - least.unwrap() <= plan.threads as u64);
    }

    #[test]
    fn few_openings_at_a_time_when_there_are_many_threads() {
        assert_eq!(plan("echo -c 10k", &[LOCAL]).unwrap().most_in_flight(), 128);
        let million = plan("idle -c 1m", &[LOCAL]).unwrap();
        assert!(million.most_in_flight() * million.threads <= 512);
    }

    proptest! {
        #[test]
        fn every_connection_has_one_owner(
            connections in 1_usize..500,
            threads in 1_usize..9,
            shards in 1_usize..9,
        ) {
            let plan = Plan {
                shards,
                threads: shards * threads,
                cpus: 1,
                connections,
                sources: vec![Sources::Kernel],
                most_per_source: 0,
                explanation: vec![],
            };
            let counted: usize = (0..shards).map(|shard| plan.count_of_shard(shard)).sum();
            prop_assert_eq!(counted, connections);
            let mut owned: Vec<usize> = (0..shards)
                .flat_map(|shard| plan.threads_of(shard))
                .flat_map(|thread| (0..plan.count(thread)).map(move |local| (thread, local)))
                .map(|(thread, local)| plan.global(thread, local))
                .collect();
            owned.sort_unstable();
            prop_assert_eq!(owned, (0..connections).collect::<Vec<_>>());
        }
    }
}
