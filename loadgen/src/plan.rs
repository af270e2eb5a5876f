//! Who opens what: connections over threads, over targets, over source addresses.
//!
//! Connection `g` of all belongs to thread `g mod threads` and target `g mod targets`. Why source addresses: a connect without
//! a bound port searches ports of one parity first (`__inet_hash_connect`), and once half of the range is taken for a (source,
//! destination, port) triple every connect scans thousands of entries; measured, the rate falls from over 10,000/s to 150/s at
//! 14,600 connections. [`PER_TRIPLE`] stays below that.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{config::Config, limits, record::Kind};

/// Most connections per (source, destination, port) that still connect at full speed.
pub const PER_TRIPLE: u64 = 12_000;
/// Source addresses of a `connect` run on loopback: ports come back only after a while.
const CHURN_SOURCES: u64 = 8;

/// Who opens what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Threads.
    pub threads: usize,
    /// Connections in all.
    pub connections: usize,
    /// Per target, addresses to bind before connecting, in turn; empty: the kernel chooses.
    sources: Vec<Vec<IpAddr>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// When the connections cannot fit, with the arithmetic and what to do.
    pub fn new(
        config: &Config,
        targets: &[SocketAddr],
        cpus: usize,
        ports: u64,
    ) -> Result<Self, String> {
        let wanted = match (config.threads, config.cpus.len()) {
            (Some(threads), _) => threads,
            (None, 0) => cpus as u64,
            (None, pinned) => pinned as u64,
        };
        let mut plan = Self {
            threads: wanted.clamp(1, config.connections) as usize,
            connections: config.connections as usize,
            sources: Vec::new(),
            warnings: Vec::new(),
        };
        // Targets with the same address share its ports.
        let mut per_address: HashMap<SocketAddr, u64> = HashMap::new();
        for (index, target) in targets.iter().enumerate() {
            let count = share(config.connections, index as u64, targets.len() as u64);
            *per_address.entry(*target).or_default() += count;
        }
        for target in targets {
            let sources = sources(config, *target, per_address[target])?;
            plan.check_ports(*target, per_address[target], sources.len() as u64, ports)?;
            plan.sources.push(sources);
        }
        plan.warnings.dedup();
        Ok(plan)
    }

    fn check_ports(
        &mut self,
        target: SocketAddr,
        connections: u64,
        sources: u64,
        ports: u64,
    ) -> Result<(), String> {
        let sources = sources.max(1);
        let most = sources * ports;
        if connections > most {
            return Err(format!(
                "{connections} connections to {target} from {sources} source address(es) need more than the {ports} ports each has \
                 (net.ipv4.ip_local_port_range): {sources} x {ports} = {most}. Give at least {} addresses of this host with \
                 --source-ips, or several targets",
                connections.div_ceil(PER_TRIPLE)
            ));
        }
        if connections > sources * PER_TRIPLE {
            self.warnings.push(format!(
                "{connections} connections to {target} from {sources} source address(es): beyond {PER_TRIPLE} each the kernel's search for a \
                 free port makes connecting slow; give {} addresses with --source-ips",
                connections.div_ceil(PER_TRIPLE)
            ));
        }
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

    /// Number among all connections of connection `local` of `thread`.
    pub fn global(&self, thread: usize, local: usize) -> usize {
        local * self.threads + thread
    }

    /// The target of a connection, and the address to bind before.
    pub fn route(&self, global: usize, attempt: usize) -> (usize, Option<IpAddr>) {
        let target = global % self.sources.len();
        let sources = &self.sources[target];
        let source = (!sources.is_empty())
            .then(|| sources[(global / self.sources.len() + attempt) % sources.len()]);
        (target, source)
    }

    /// All source addresses in use.
    pub fn source_ips(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.sources.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// How many of `total` things dealt out in turn go to `index` of `count`.
fn share(total: u64, index: u64, count: u64) -> u64 {
    total.saturating_sub(index).div_ceil(count)
}

fn sources(config: &Config, target: SocketAddr, connections: u64) -> Result<Vec<IpAddr>, String> {
    if !config.source_ips.is_empty() {
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
        return Ok(fitting);
    }
    let mut needed = connections.div_ceil(PER_TRIPLE);
    if config.kind == Kind::Connect {
        needed = needed.max(CHURN_SOURCES);
    }
    // Only 127.0.0.0/8 is all ours; ::1 is a single address.
    if needed < 2 || !target.ip().to_canonical().is_loopback() || target.is_ipv6() {
        return Ok(Vec::new());
    }
    let first = Ipv4Addr::LOCALHOST.to_bits();
    Ok((0..needed as u32)
        .map(|n| IpAddr::V4(Ipv4Addr::from_bits(first + n)))
        .collect())
}

/// The plan on this machine.
///
/// # Errors
/// As [`Plan::new`] and [`limits::check_open_files`].
pub fn on_this_machine(config: &Config, targets: &[SocketAddr]) -> Result<Plan, String> {
    limits::check_cpus(&config.cpus)?;
    let plan = Plan::new(
        config,
        targets,
        limits::available_cpus(),
        limits::ephemeral_ports(),
    )?;
    limits::check_open_files(
        limits::raise_open_files(),
        config.connections,
        plan.threads as u64,
    )?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    const LOCAL: &str = "127.0.0.1:80";

    fn plan(flags: &str, targets: &[&str]) -> Result<Plan, String> {
        let line = format!("loadgen {flags} ws://a");
        let cli = crate::cli::Cli::try_parse_from(line.split_whitespace()).unwrap();
        let targets: Vec<SocketAddr> = targets.iter().map(|t| t.parse().unwrap()).collect();
        Plan::new(&cli.check().unwrap().0, &targets, 2, 28_232)
    }

    #[test]
    fn few_connections_leave_the_source_to_the_kernel() {
        let plan = plan("echo -c 12k", &[LOCAL]).unwrap();
        assert_eq!(plan.threads, 2);
        assert_eq!(plan.route(7, 0), (0, None));
    }

    #[test]
    fn many_connections_spread_over_loopback() {
        let plan = plan("echo -c 50k", &[LOCAL]).unwrap();
        assert_eq!(plan.source_ips().len(), 5);
        assert_eq!(plan.route(0, 0).1, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(plan.route(6, 0).1, Some("127.0.0.2".parse().unwrap()));
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn same_address_twice_shares_its_ports() {
        let two = plan("echo -c 20k", &[LOCAL, LOCAL]).unwrap();
        assert_eq!(two.source_ips().len(), 2);
        let apart = plan("echo -c 20k", &[LOCAL, "127.0.0.1:81"]).unwrap();
        assert!(apart.source_ips().is_empty());
    }

    #[test]
    fn beyond_loopback_it_warns_then_refuses() {
        let slow = plan("echo -c 20k", &["10.0.0.1:80"]).unwrap();
        assert!(slow.warnings[0].contains("--source-ips"));
        let error = plan("echo -c 30k", &["10.0.0.1:80"]).unwrap_err();
        assert!(
            error.contains("28232") && error.contains("at least 3"),
            "{error}"
        );
        assert!(plan("echo -c 30k", &["[::1]:80"]).is_err());
    }

    #[test]
    fn given_addresses_win() {
        let given = plan("echo -c 4 --source-ips 127.9.0.1,127.9.0.2,::1", &[LOCAL]).unwrap();
        assert_eq!(given.source_ips().len(), 2);
        let error = plan("echo --source-ips 127.0.0.1", &["[::1]:80"]).unwrap_err();
        assert!(error.contains("IPv6"));
    }

    #[test]
    fn threads() {
        assert_eq!(plan("echo -c 1", &[LOCAL]).unwrap().threads, 1);
        assert_eq!(plan("echo -t 4", &[LOCAL]).unwrap().threads, 4);
        assert_eq!(plan("echo --cpus 1", &[LOCAL]).unwrap().threads, 1);
    }

    proptest! {
        #[test]
        fn every_connection_has_one_owner(connections in 1_usize..500, threads in 1_usize..9) {
            let plan = Plan { threads, connections, sources: vec![vec![]], warnings: vec![] };
            let mut owned: Vec<usize> = (0..threads)
                .flat_map(|thread| (0..plan.count(thread)).map(move |local| (thread, local)))
                .map(|(thread, local)| plan.global(thread, local))
                .collect();
            owned.sort_unstable();
            prop_assert_eq!(owned, (0..connections).collect::<Vec<_>>());
        }
    }
}
