//! Cores, their threads, their caches and their memory nodes, from `/sys`; and how server and
//! generator share them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CpuSet;
use super::proc::read_value;

/// Cores of which the slowest has less than this share of the fastest one's speed are of two kinds.
/// The favoured cores of one kind are up to a tenth faster than its others; Intel's E-cores have 65
/// to 84% of a P-core's clock.
const ONE_KIND: f64 = 0.85;

/// What this process may use, by what its cores share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topology {
    /// The fastest kind first, then by node and cache.
    pub groups: Vec<Group>,
}

/// Cores of one kind that share node and cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// 0 is the fastest.
    pub kind: usize,
    /// `cpu_capacity` or `cpuinfo_max_freq` (kHz) of its fastest core.
    pub speed: Option<u64>,
    /// Socket.
    pub package: Option<u64>,
    /// NUMA node.
    pub node: Option<u64>,
    /// The CPUs that share the last level of cache, whether or not this process may use them.
    pub cache: Option<CpuSet>,
    /// The threads of each core that this process may use.
    pub cores: Vec<CpuSet>,
}

impl Topology {
    /// Of the CPUs in `allowed`, as far as the files below `root` (`/`) say.
    pub fn read(root: &Path, allowed: &CpuSet) -> Self {
        let folder = root.join("sys/devices/system");
        let cpu = |cpu: usize, file: &str| read_value(folder.join(format!("cpu/cpu{cpu}/{file}")));
        let number = |of: usize, file: &str| cpu(of, file)?.parse::<u64>().ok();
        let speed = |file: &str| -> Vec<Option<u64>> {
            allowed
                .cpus()
                .iter()
                .map(|cpu| number(*cpu, file))
                .collect()
        };
        let mut speeds = speed("cpu_capacity");
        // x86 says 1024 of every core while it has threads.
        if speeds.windows(2).all(|two| two[0] == two[1]) {
            speeds = speed("cpufreq/cpuinfo_max_freq");
        }
        let kinds = kinds(&speeds);
        let nodes = nodes(&folder.join("node"));
        let mut groups: BTreeMap<_, Group> = BTreeMap::new();
        let mut placed: BTreeSet<usize> = BTreeSet::new();
        for (place, one) in allowed.cpus().iter().copied().enumerate() {
            if placed.contains(&one) {
                continue;
            }
            let siblings = cpu(one, "topology/thread_siblings_list");
            let siblings: Option<CpuSet> = siblings.and_then(|list| list.parse().ok());
            let siblings =
                siblings.map_or(Vec::new(), |all| all.intersection(allowed).cpus().to_vec());
            // A CPU is in one core, whatever a hypervisor made up.
            let free = siblings.into_iter().filter(|cpu| !placed.contains(cpu));
            let core = CpuSet::new(free.chain([one]).collect());
            placed.extend(core.cpus());
            let node = nodes.iter().find(|(_, cpus)| cpus.cpus().contains(&one));
            let node = node.map(|(number, _)| *number);
            let cache = last_cache(&folder.join(format!("cpu/cpu{one}/cache")));
            let first = cache.as_ref().and_then(|cpus| cpus.cpus().first().copied());
            let group = groups.entry((kinds[place], node, first)).or_insert(Group {
                kind: kinds[place],
                speed: None,
                package: number(one, "topology/physical_package_id"),
                node,
                cache,
                cores: Vec::new(),
            });
            group.speed = group.speed.max(speeds[place]);
            group.cores.push(core);
        }
        Self {
            groups: groups.into_values().collect(),
        }
    }

    /// Server's and generator's half.
    ///
    /// - The threads of a core stay on one side: two programs on one core slow each other down.
    /// - Both sides are of one kind of core, the fastest that has two of them. On a mixed side a
    ///   connection's speed would depend on the core that it fell to, which runtimes even out or do
    ///   not: that is a property of the machine. Slower cores are left to the system.
    /// - A side has whole nodes and whole caches where that leaves the server a third of the cores
    ///   or more; else the server's cores share one, if one is large enough.
    /// - The generator gets the larger half, because a run it limits is inconclusive.
    ///
    /// With one core its threads are shared out, with one CPU both share it.
    pub fn halves(&self) -> (CpuSet, CpuSet) {
        let groups = self.fastest_pair();
        let all: usize = groups.iter().map(|group| group.cores.len()).sum();
        let (smallest_first, boundaries) = by_size(groups.clone(), false);
        let fits = |cut: &usize| cut * 3 >= all && cut * 2 <= all;
        let of_nodes = boundaries.iter().filter(|one| one.of_node);
        let cut = of_nodes.map(|one| one.cores).rfind(fits);
        let cut = cut.or_else(|| boundaries.iter().map(|one| one.cores).rfind(fits));
        let (ordered, cut) = match cut {
            Some(cut) => (smallest_first, cut),
            None => (by_size(groups, true).0, all / 2),
        };
        let cores: Vec<&CpuSet> = ordered.iter().flat_map(|group| &group.cores).collect();
        let union = |cores: &[&CpuSet]| {
            let cpus = cores.iter().flat_map(|core| core.cpus());
            CpuSet::new(cpus.copied().collect())
        };
        if let [core] = cores[..] {
            let (server, generator) = core.cpus().split_at(core.len() / 2);
            let set = |half: &[usize]| CpuSet::new(half.to_vec());
            return match server {
                [] => (core.clone(), core.clone()),
                _ => (set(server), set(generator)),
            };
        }
        let (first, rest) = cores.split_at(cut);
        let (server, generator) = (union(first), union(rest));
        // Of two cores one may have a thread more.
        if first.len() == rest.len() && server.len() > generator.len() {
            return (generator, server);
        }
        (server, generator)
    }

    /// The groups of the fastest kind that has two cores; where none has, all of them, the slowest
    /// first, so that the generator gets the fastest.
    fn fastest_pair(&self) -> Vec<&Group> {
        let of_kind = |kind: usize| self.groups.iter().filter(move |group| group.kind == kind);
        let cores = |kind: &usize| of_kind(*kind).map(|group| group.cores.len()).sum::<usize>();
        let mut kinds = self.groups.iter().map(|group| group.kind);
        match kinds.find(|kind| cores(kind) >= 2) {
            Some(kind) => of_kind(kind).collect(),
            None => self.groups.iter().rev().collect(),
        }
    }

    /// A core with CPUs on both sides.
    pub fn shared_core(&self, server: &CpuSet, generator: &CpuSet) -> Option<&CpuSet> {
        let mut cores = self.groups.iter().flat_map(|group| &group.cores);
        cores.find(|core| !core.is_apart(server) && !core.is_apart(generator))
    }

    /// Cores of several kinds are among these CPUs.
    pub fn is_mixed(&self, side: &CpuSet) -> bool {
        let on_it = |group: &&Group| group.cores.iter().any(|core| !core.is_apart(side));
        let mut kinds = self.groups.iter().filter(on_it).map(|group| group.kind);
        let first = kinds.next();
        kinds.any(|kind| Some(kind) != first)
    }
}

/// `12 cores of 2 kinds (4 x 2 threads, 8 x 1), 2 sockets`.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = &self.groups;
        if groups
            .iter()
            .all(|one| one.package.is_none() && one.cache.is_none())
        {
            return f.write_str("cores not known");
        }
        // Cores and threads of each core, by kind.
        let mut kinds: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for group in groups {
            let (cores, threads) = kinds.entry(group.kind).or_default();
            *cores += group.cores.len();
            *threads = group
                .cores
                .iter()
                .map(CpuSet::len)
                .fold(*threads, usize::max);
        }
        let all: usize = kinds.values().map(|(cores, _)| cores).sum();
        let plural = |number: usize| if number == 1 { "" } else { "s" };
        write!(f, "{all} core{}", plural(all))?;
        let of_kind = kinds.values();
        match kinds.len() {
            1 => {
                let threads = of_kind.map(|(_, threads)| *threads).max().unwrap_or(1);
                if threads > 1 {
                    write!(f, " x {threads} threads")?;
                }
            }
            several => {
                let of_kind = of_kind.map(|(cores, threads)| {
                    format!("{cores} x {threads} thread{}", plural(*threads))
                });
                let of_kind: Vec<String> = of_kind.collect();
                write!(f, " of {several} kinds ({})", of_kind.join(", "))?;
            }
        }
        let different = |what: fn(&Group) -> Option<u64>| {
            let found: BTreeSet<u64> = groups.iter().filter_map(what).collect();
            found.len()
        };
        let cache = |group: &Group| Some(*group.cache.as_ref()?.cpus().first()? as u64);
        for (what, number) in [
            ("sockets", different(|group| group.package)),
            ("NUMA nodes", different(|group| group.node)),
            ("last-level caches", different(cache)),
        ] {
            // One for each core says nothing.
            if number > 1 && number < all {
                write!(f, ", {number} {what}")?;
            }
        }
        Ok(())
    }
}

/// A place between two groups, so many cores from the first.
struct Boundary {
    cores: usize,
    of_node: bool,
}

/// By the size of their nodes and then their own, and where one ends; nodes stay together.
fn by_size(mut groups: Vec<&Group>, largest_first: bool) -> (Vec<&Group>, Vec<Boundary>) {
    let mut nodes: BTreeMap<Option<u64>, usize> = BTreeMap::new();
    for group in &groups {
        *nodes.entry(group.node).or_default() += group.cores.len();
    }
    let order = |size: usize| match largest_first {
        true => usize::MAX - size,
        false => size,
    };
    groups.sort_by_key(|one| (order(nodes[&one.node]), one.node, order(one.cores.len())));
    let mut boundaries = Vec::new();
    let mut cores = 0;
    for two in groups.windows(2) {
        cores += two[0].cores.len();
        boundaries.push(Boundary {
            cores,
            of_node: two[0].node != two[1].node,
        });
    }
    (groups, boundaries)
}

/// Of each speed, which kind it is of.
fn kinds(speeds: &[Option<u64>]) -> Vec<usize> {
    let mut known: Vec<u64> = speeds.iter().flatten().copied().collect();
    known.sort_unstable_by_key(|speed| Reverse(*speed));
    let mut fastest: Vec<u64> = Vec::new();
    for speed in known {
        let of_last = |last: &u64| speed as f64 >= *last as f64 * ONE_KIND;
        if !fastest.last().is_some_and(of_last) {
            fastest.push(speed);
        }
    }
    let kind = |speed: u64| {
        fastest
            .iter()
            .rposition(|first| *first >= speed)
            .unwrap_or(0)
    };
    speeds.iter().map(|speed| speed.map_or(0, kind)).collect()
}

/// Number and CPUs of each NUMA node.
fn nodes(folder: &Path) -> Vec<(u64, CpuSet)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((
            number,
            read_value(entry.path().join("cpulist"))?.parse().ok()?,
        ))
    };
    entries.filter_map(node).collect()
}

/// The CPUs that share the last level.
fn last_cache(folder: &Path) -> Option<CpuSet> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let level = |entry: fs::DirEntry| {
        let level: u64 = read_value(entry.path().join("level"))?.parse().ok()?;
        Some((level, entry.path()))
    };
    let (_, last) = entries.filter_map(level).max()?;
    read_value(last.join("shared_cpu_list"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU as `/sys` describes it.
    #[derive(Clone)]
    struct Cpu {
        siblings: &'static str,
        package: u64,
        node: u64,
        cache: &'static str,
        /// `cpuinfo_max_freq`.
        khz: Option<u64>,
    }

    fn machine(cpus: &[Cpu]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system");
        let write = |file: String, content: &str| {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{content}\n")).unwrap();
        };
        let mut nodes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, cpu) in cpus.iter().enumerate() {
            let of_cpu = |file: &str| format!("cpu/cpu{number}/{file}");
            write(of_cpu("topology/thread_siblings_list"), cpu.siblings);
            let package = cpu.package.to_string();
            write(of_cpu("topology/physical_package_id"), &package);
            write(of_cpu("cpu_capacity"), "1024");
            for (index, level, shared) in [(0, "1", cpu.siblings), (3, "3", cpu.cache)] {
                write(of_cpu(&format!("cache/index{index}/level")), level);
                write(
                    of_cpu(&format!("cache/index{index}/shared_cpu_list")),
                    shared,
                );
            }
            if let Some(khz) = cpu.khz {
                write(of_cpu("cpufreq/cpuinfo_max_freq"), &khz.to_string());
            }
            nodes.entry(cpu.node).or_default().push(number);
        }
        for (node, cpus) in nodes {
            let list = CpuSet::new(cpus).to_string();
            write(format!("node/node{node}/cpulist"), &list);
        }
        root
    }

    /// `"3,19"` of CPUs 3 and 19.
    fn siblings(cores: usize, cpu: usize) -> &'static str {
        format!("{},{}", cpu % cores, cpu % cores + cores).leak()
    }

    fn intel() -> tempfile::TempDir {
        let cpu = |cpu: usize| Cpu {
            siblings: siblings(16, cpu),
            package: (cpu % 16 / 8) as u64,
            node: (cpu % 16 / 8) as u64,
            cache: ["0-7,16-23", "8-15,24-31"][cpu % 16 / 8],
            khz: Some(3_500_000),
        };
        machine(&(0..32).map(cpu).collect::<Vec<_>>())
    }

    fn amd() -> tempfile::TempDir {
        let cpu = |cpu: usize| Cpu {
            siblings: siblings(16, cpu),
            package: 0,
            node: 0,
            cache: ["0-7,16-23", "8-15,24-31"][cpu % 16 / 8],
            // Favoured cores.
            khz: Some(5_700_000 - 30_000 * (cpu % 16) as u64),
        };
        machine(&(0..32).map(cpu).collect::<Vec<_>>())
    }

    fn laptop() -> tempfile::TempDir {
        const P: [&str; 4] = ["0-1", "2-3", "4-5", "6-7"];
        const E: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
        let cpu = |cpu: usize| Cpu {
            siblings: if cpu < 8 { P[cpu / 2] } else { E[cpu - 8] },
            package: 0,
            node: 0,
            cache: "0-15",
            khz: Some(if cpu < 8 { 4_600_000 } else { 3_400_000 }),
        };
        machine(&(0..16).map(cpu).collect::<Vec<_>>())
    }

    fn two_core_vm() -> tempfile::TempDir {
        let cpu = |siblings| Cpu {
            siblings,
            package: 0,
            node: 0,
            cache: "0-1",
            khz: None,
        };
        machine(&["0", "1"].map(cpu))
    }

    /// In words, and both sides.
    fn halves(root: &tempfile::TempDir, allowed: &str) -> (String, String, String) {
        let topology = Topology::read(root.path(), &allowed.parse().unwrap());
        let (server, generator) = topology.halves();
        assert!(!topology.is_mixed(&server) && !topology.is_mixed(&generator));
        (
            topology.to_string(),
            server.to_string(),
            generator.to_string(),
        )
    }

    #[test]
    fn sides_are_whole_cores_of_one_kind_with_their_own_cache_and_node() {
        let unknown = tempfile::tempdir().unwrap();
        let two_kinds = "12 cores of 2 kinds (4 x 2 threads, 8 x 1 thread)";
        for (root, allowed, words, server, generator) in [
            (
                intel(),
                "0-31",
                "16 cores x 2 threads, 2 sockets, 2 NUMA nodes, 2 last-level caches",
                "0-7,16-23",
                "8-15,24-31",
            ),
            (
                amd(),
                "0-31",
                "16 cores x 2 threads, 2 last-level caches",
                "0-7,16-23",
                "8-15,24-31",
            ),
            (laptop(), "0-15", two_kinds, "0-3", "4-7"),
            (two_core_vm(), "0-1", "2 cores", "0", "1"),
            (unknown, "0-4", "cores not known", "0-1", "2-4"),
        ] {
            let found = halves(&root, allowed);
            assert_eq!(found, (words.into(), server.into(), generator.into()));
        }
    }

    #[test]
    fn a_machine_of_which_a_part_may_be_used() {
        let (intel, amd, laptop) = (intel(), amd(), laptop());
        for (root, allowed, server, generator) in [
            // One socket.
            (&intel, "8-15,24-31", "8-11,24-27", "12-15,28-31"),
            // No second threads.
            (&intel, "0-15", "0-7", "8-15"),
            // A third of the cores is enough for a whole cache, a fifth is not: then the server's
            // cores share the larger one.
            (&amd, "0-3,8-15", "0-3", "8-15"),
            (&amd, "0-1,8-15", "8-12", "0-1,13-15"),
            (&laptop, "8-15", "8-11", "12-15"),
            // A P-core alone is no side.
            (&laptop, "0-1,8-10", "8", "9-10"),
            // One of each kind.
            (&laptop, "0,8", "8", "0"),
            // One core: its threads.
            (&laptop, "0-1", "0", "1"),
            (&laptop, "3", "3", "3"),
            (&laptop, "0-2", "2", "0-1"),
        ] {
            let found = halves(root, allowed);
            assert_eq!((&*found.1, &*found.2), (server, generator), "{allowed}");
        }
    }

    #[test]
    fn every_cpu_is_on_one_side_whatever_sys_says() {
        let cpu = |siblings| Cpu {
            siblings,
            package: 0,
            node: 0,
            cache: "0-3",
            khz: None,
        };
        for siblings in [
            ["0-1", "1", "1-2", "3"],
            ["3", "2", "1", "0"],
            ["0-3", "9", "x", ""],
        ] {
            let root = machine(&siblings.map(cpu));
            let allowed = "0-3".parse().unwrap();
            let (server, generator) = Topology::read(root.path(), &allowed).halves();
            assert!(
                server.is_apart(&generator) && !server.is_empty(),
                "{siblings:?}"
            );
            let both = [server.cpus(), generator.cpus()].concat();
            assert_eq!(CpuSet::new(both), allowed, "{siblings:?}");
        }
    }

    #[test]
    fn sides_that_a_user_chose_may_share_a_core_or_be_mixed() {
        let laptop = Topology::read(laptop().path(), &"0-15".parse().unwrap());
        let shared = |server: &str, generator: &str| {
            let (server, generator) = (server.parse().unwrap(), generator.parse().unwrap());
            let core = laptop.shared_core(&server, &generator);
            core.map(ToString::to_string)
        };
        assert_eq!(shared("0-2", "3-4").as_deref(), Some("2-3"));
        assert_eq!(shared("0-3", "4-7,12"), None);
        for (side, mixed) in [("0-7", false), ("8-15", false), ("7-8", true)] {
            assert_eq!(laptop.is_mixed(&side.parse().unwrap()), mixed, "{side}");
        }
    }

    #[test]
    fn kinds_are_told_from_favoured_cores() {
        let of = |speeds: &[u64]| kinds(&speeds.iter().map(|one| Some(*one)).collect::<Vec<_>>());
        assert_eq!(of(&[60, 56, 44, 58]), [0, 0, 1, 0]);
        assert_eq!(of(&[400, 1024, 870, 870]), [2, 0, 1, 1]);
        assert_eq!(of(&[100, 90, 80, 70]), [0, 0, 1, 1]);
        assert_eq!(kinds(&[None, Some(5)]), [0, 0]);
    }
}
