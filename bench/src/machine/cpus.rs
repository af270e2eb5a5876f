//! Sets of CPUs, and how server and generator share the machine.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A set of CPU numbers, written as the kernel does: `0,2-3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct CpuSet(Vec<usize>);

impl CpuSet {
    /// Of these numbers, in any order, repeated or not.
    pub fn new(mut cpus: Vec<usize>) -> Self {
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }

    /// Ascending CPU numbers.
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }

    /// How many CPUs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No CPU at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPUs this thread may run on.
    pub fn allowed() -> Result<Self> {
        let set =
            rustix::thread::sched_getaffinity(None).context("cannot read the CPU affinity")?;
        Ok(Self(
            (0..rustix::thread::CpuSet::MAX_CPU)
                .filter(|cpu| set.is_set(*cpu))
                .collect(),
        ))
    }

    /// Pins the calling thread (and what it spawns) to this set.
    pub fn pin_current_thread(&self) -> Result<()> {
        let mut set = rustix::thread::CpuSet::new();
        for cpu in &self.0 {
            ensure!(*cpu < rustix::thread::CpuSet::MAX_CPU, "no CPU {cpu}");
            set.set(*cpu);
        }
        rustix::thread::sched_setaffinity(None, &set)
            .with_context(|| format!("cannot pin to CPUs {self}"))
    }

    /// The CPUs that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let common = self.0.iter().filter(|cpu| other.0.contains(cpu));
        Self(common.copied().collect())
    }

    /// `count` CPUs for two sides together, of each side in turn, so that they are of different
    /// cores where the sides are; `None` if there are not so many.
    pub fn of_both(&self, other: &Self, count: usize) -> Option<Self> {
        let mut chosen = Vec::new();
        let at = |side: &Self, place: usize| side.0.get(place).copied();
        for place in 0..self.len().max(other.len()) {
            for cpu in [at(self, place), at(other, place)].into_iter().flatten() {
                if chosen.len() < count && !chosen.contains(&cpu) {
                    chosen.push(cpu);
                }
            }
        }
        (chosen.len() == count).then(|| Self::new(chosen))
    }

    /// No CPU is in both.
    pub fn is_apart(&self, other: &Self) -> bool {
        self.intersection(other).is_empty()
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::show_cpus(&self.0))
    }
}

impl FromStr for CpuSet {
    type Err = units::UnitError;

    fn from_str(text: &str) -> Result<Self, units::UnitError> {
        Ok(Self::new(text.parse::<units::CpuList>()?.into_vec()))
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for CpuSet {
    type Error = units::UnitError;

    fn try_from(text: String) -> Result<Self, units::UnitError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_print_as_the_kernel_writes_them() {
        for (text, cpus, printed) in [
            ("0", vec![0], "0"),
            ("0,2-3", vec![0, 2, 3], "0,2-3"),
            ("3,1,2", vec![1, 2, 3], "1-3"),
            ("0-1\n", vec![0, 1], "0-1"),
        ] {
            let set: CpuSet = text.parse().unwrap();
            assert_eq!(set.cpus(), cpus);
            assert_eq!(set.to_string(), printed);
        }
        for bad in ["", "a", "2-1", "0,", "-1", "0-99999999", "3,2,2"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shared_cpus_are_of_both_sides() {
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        for (one, other, count, both) in [
            ("0", "1", 2, Some("0-1")),
            ("0-3,8-11", "4-7,12-15", 2, Some("0,4")),
            ("0-1", "2-4", 5, Some("0-4")),
            ("0", "0", 1, Some("0")),
            ("0", "0", 2, None),
            ("0", "1", 3, None),
        ] {
            let found = set(one).of_both(&set(other), count);
            assert_eq!(found, both.map(set), "{count} of {one} and {other}");
        }
    }
}
