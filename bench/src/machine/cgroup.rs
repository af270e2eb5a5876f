//! The CPU quota of our control group and its parents, and how often it stopped us: versions 1 and
//! 2. A quota below the CPUs in use stops all threads for the rest of a period (100 ms by default),
//! which looks like a server with time to spare and a slow tail.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::proc::{parse_field, read_value};

/// The tightest CPU quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// CPU time per time.
    pub cpus: f64,
    /// The folder of the group that sets it.
    pub group: PathBuf,
}

/// Counts since the groups were made: the difference of two tells whether time between them was
/// lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which a quota stopped threads (`nr_throttled`), added up over our group and its
    /// parents.
    pub periods: u64,
}

impl Throttling {
    /// Until now; `None` where no group of ours counts.
    pub fn read() -> Option<Self> {
        static OURS: OnceLock<Groups> = OnceLock::new();
        OURS.get_or_init(|| Groups::find(Path::new("/")))
            .throttling()
    }
}

/// Our group and its parents, in each hierarchy that may limit CPU time.
#[derive(Debug, Default)]
pub struct Groups(Vec<PathBuf>);

impl Groups {
    /// Looks for them below `root` (`/`).
    pub fn find(root: &Path) -> Self {
        let file = |name| read_value(root.join(name)).unwrap_or_default();
        let (memberships, mounts) = (file("proc/self/cgroup"), file("proc/self/mountinfo"));
        let mut folders = Vec::new();
        for membership in memberships.lines() {
            let mut parts = membership.splitn(3, ':');
            let (Some(_), Some(controllers), Some(group)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let is_2 = controllers.is_empty();
            if !is_2 && !controllers.split(',').any(|one| one == "cpu") {
                continue;
            }
            let Some(mount) = mounts.lines().find_map(|line| Mount::of_cpu(line, is_2)) else {
                continue;
            };
            // A container may see a part of the tree only, and a group outside of it not at all.
            let below = Path::new(group).strip_prefix(mount.root);
            let below = below.unwrap_or(Path::new(group.trim_start_matches('/')));
            let point = root.join(mount.point.trim_start_matches('/'));
            let folder = point.join(below);
            let folder = if folder.is_dir() {
                folder
            } else {
                point.clone()
            };
            let up = folder.ancestors().take_while(|one| one.starts_with(&point));
            folders.extend(up.map(Path::to_owned));
        }
        Self(folders)
    }

    /// The tightest quota, if there is one.
    pub fn quota(&self) -> Option<Quota> {
        let quotas = self.0.iter().filter_map(|folder| {
            let value = |file| read_value(folder.join(file));
            let (quota, period) = match value("cpu.max") {
                Some(both) => {
                    let (quota, period) = both.split_once(' ')?;
                    (quota.to_owned(), period.to_owned())
                }
                None => (value("cpu.cfs_quota_us")?, value("cpu.cfs_period_us")?),
            };
            // `max`, or -1: none.
            let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
            Some(Quota {
                cpus: quota as f64 / period.max(1) as f64,
                group: folder.clone(),
            })
        });
        quotas.min_by(|a, b| a.cpus.total_cmp(&b.cpus))
    }

    fn throttling(&self) -> Option<Throttling> {
        let counts = self.0.iter().filter_map(|folder| {
            let stat = read_value(folder.join("cpu.stat"))?;
            parse_field(&stat, "nr_throttled ")
        });
        let periods = counts.reduce(|a, b| a + b)?;
        Some(Throttling { periods })
    }
}

/// A line of `mountinfo`.
struct Mount<'a> {
    /// What of the tree is mounted.
    root: &'a str,
    /// Where.
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// If it is the hierarchy with CPU quotas.
    fn of_cpu(line: &'a str, is_2: bool) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let wanted = match is_2 {
            true => name == "cgroup2",
            false => name == "cgroup" && options.split(',').any(|one| one == "cpu"),
        };
        let mut words = mount.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        wanted.then_some(Self { root, point })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{content}\n")).unwrap();
        }
        root
    }

    const MOUNTS_1: &str = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    const MOUNTS_2: &str = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";

    /// CPUs and group of the quota, and periods.
    fn found(root: &tempfile::TempDir) -> (Option<(f64, String)>, Option<u64>) {
        let groups = Groups::find(root.path());
        let quota = groups.quota().map(|quota| {
            let group = quota.group.strip_prefix(root.path()).unwrap();
            (quota.cpus, group.display().to_string())
        });
        (quota, groups.throttling().map(|one| one.periods))
    }

    #[test]
    fn the_tightest_quota_of_our_group_and_its_parents_counts() {
        let two = machine(&[
            ("proc/self/cgroup", "0::/ci.slice/job.scope"),
            ("proc/self/mountinfo", MOUNTS_2),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9"),
            ("sys/fs/cgroup/ci.slice/cpu.max", "60000 100000"),
            (
                "sys/fs/cgroup/ci.slice/cpu.stat",
                "nr_periods 50\nnr_throttled 7\nthrottled_usec 9",
            ),
            ("sys/fs/cgroup/ci.slice/job.scope/cpu.max", "max 100000"),
            (
                "sys/fs/cgroup/ci.slice/job.scope/cpu.stat",
                "nr_periods 0\nnr_throttled 0",
            ),
            ("sys/fs/cgroup/other/cpu.max", "1000 100000"),
        ]);
        let quota = Some((0.6, "sys/fs/cgroup/ci.slice".to_owned()));
        assert_eq!(found(&two), (quota, Some(7)));

        let one = machine(&[
            (
                "proc/self/cgroup",
                "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc",
            ),
            ("proc/self/mountinfo", MOUNTS_1),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            (
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us",
                "150000",
            ),
            (
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us",
                "100000",
            ),
            (
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.stat",
                "nr_periods 5\nnr_throttled 3",
            ),
        ]);
        let quota = Some((1.5, "sys/fs/cgroup/cpu,cpuacct/docker/abc".to_owned()));
        assert_eq!(found(&one), (quota, Some(3)));
    }

    #[test]
    fn a_container_sees_its_part_of_the_tree() {
        let mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup ro,cpu";
        let inside = |membership| {
            machine(&[
                ("proc/self/cgroup", membership),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ])
        };
        let quota = Some((0.5, "sys/fs/cgroup/cpu".to_owned()));
        for membership in ["3:cpu:/docker/abc", "3:cpu:/", "3:cpu:/../other"] {
            assert_eq!(found(&inside(membership)), (quota.clone(), None));
        }
    }

    #[test]
    fn without_control_groups_there_is_no_quota_and_no_count() {
        assert_eq!(found(&machine(&[])), (None, None));
        let odd = [
            ("proc/self/cgroup", "x\n0::/a"),
            ("proc/self/mountinfo", "y - \n - cgroup2 a b"),
        ];
        assert_eq!(found(&machine(&odd)), (None, None));
        // This machine's are read, whatever they say.
        let _ = Throttling::read();
    }
}
