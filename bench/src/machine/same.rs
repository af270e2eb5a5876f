//! When two machines, or one at two times, are the same for a measurement. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::Machine;

/// Of the moment, of a login, or looked at in another way.
const NOT_OF_THE_MACHINE: [&str; 6] = [
    "memory_available_bytes",
    "busy_cpus",
    "load_1min",
    "open_files",
    "cpu_quota.group",
    "topology",
];
/// Which older results do not have: no difference where one of two does not know.
const OF_LATE: [&str; 2] = ["conntrack_in_force", "interrupts_accounted_apart"];
/// The kernel works limits out from the memory that it finds, which differs by a page or by a few
/// MiB from boot to boot.
const NUMBERS_WITHIN: f64 = 0.01;

/// A fact that two have, and not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its path, such as `sysctls.net.ipv4.tcp_mem`.
    pub fact: String,
    /// `None`: not known.
    pub a: Option<String>,
    /// The same of the other.
    pub b: Option<String>,
}

/// Where two machines are not the same.
pub fn machines(a: &Machine, b: &Machine) -> Vec<Difference> {
    let mut found = differences(a, b, &NOT_OF_THE_MACHINE);
    let known = |one: &Difference| one.a.is_some() && one.b.is_some();
    found.retain(|one| known(one) || !OF_LATE.contains(&one.fact.as_str()));
    found.retain(|one| !one.a.as_deref().zip(one.b.as_deref()).is_some_and(is_close));
    if !a.topology.groups.is_empty() && !b.topology.groups.is_empty() {
        found.extend(
            differences(&a.topology, &b.topology, &[])
                .into_iter()
                .map(|one| {
                    let fact = format!("topology.{}", one.fact);
                    Difference { fact, ..one }
                }),
        );
    }
    found
}

/// Where two values of a kind are not the same, apart from some of their facts.
pub fn differences(a: &impl Serialize, b: &impl Serialize, left_out: &[&str]) -> Vec<Difference> {
    let (a, b) = (facts(a), facts(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let is_left_out = |name: &str| {
        let is = |one: &str| name == one || name.starts_with(&format!("{one}."));
        left_out.iter().any(|one| is(one))
    };
    let names = names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name));
    let difference = |name: &String| Difference {
        fact: name.clone(),
        a: a.get(name).cloned(),
        b: b.get(name).cloned(),
    };
    names
        .filter(|name| !is_left_out(name))
        .map(difference)
        .collect()
}

/// Whether both are as many numbers, each close to the other's.
fn is_close((a, b): (&str, &str)) -> bool {
    let numbers = |text: &str| -> Option<Vec<f64>> {
        let words = text.split_ascii_whitespace();
        words.map(|word| word.parse().ok()).collect()
    };
    let (Some(a), Some(b)) = (numbers(a), numbers(b)) else {
        return false;
    };
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= NUMBERS_WITHIN * a.abs().max(b.abs());
    a.len() == b.len() && a.iter().zip(&b).all(close)
}

/// A value as lines `key.key`; `null` is a fact that is not known, and so is what serde cannot turn
/// into JSON (none of ours is like that).
fn facts(value: &impl Serialize) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut rest = vec![(
        String::new(),
        serde_json::to_value(value).unwrap_or_default(),
    )];
    while let Some((path, value)) = rest.pop() {
        let below = |key: &str| match path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        match value {
            Value::Null => {}
            Value::Object(map) => rest.extend(map.into_iter().map(|(key, one)| (below(&key), one))),
            Value::Array(all) if all.iter().any(Value::is_object) => {
                let numbered = all.into_iter().enumerate();
                rest.extend(numbered.map(|(place, one)| (below(&place.to_string()), one)));
            }
            other => _ = facts.insert(path, words(&other)),
        }
    }
    facts
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) => all.iter().map(words).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cgroup::Quota;
    use crate::machine::topology::{Group, Topology};

    fn machine(change: impl FnOnce(&mut Machine)) -> Machine {
        let sysctls = [
            ("fs.file-max", "2466170"),
            ("net.ipv4.tcp_mem", "288969 385293 577938"),
            ("net.ipv4.tcp_congestion_control", "bbr"),
            ("kernel.io_uring_disabled", "0"),
        ];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut machine = Machine {
            name: "vm".into(),
            kernel: "Linux 6.18.0 x86_64".into(),
            memory_bytes: Some(25_265_123_328),
            governor: Some("performance".into()),
            sysctls: sysctls.map(owned).into(),
            ..Machine::default()
        };
        change(&mut machine);
        machine
    }

    fn set(machine: &mut Machine, key: &str, value: &str) {
        machine.sysctls.insert(key.into(), value.into());
    }

    #[test]
    fn two_boots_of_a_machine_are_the_same() {
        let quota = |group: &str| {
            Some(Quota {
                cpus: 4.0,
                group: group.into(),
            })
        };
        let first = machine(|m| m.cpu_quota = quota("/sys/fs/cgroup/session-1.scope"));
        let second = machine(|m| {
            m.cpu_quota = quota("/sys/fs/cgroup/session-2.scope");
            m.memory_bytes = Some(25_265_123_328 - 4096);
            set(m, "fs.file-max", "2466169");
            set(m, "net.ipv4.tcp_mem", "288969 385292 577938");
            m.open_files = Some(1500);
            m.load_1min = Some(3.0);
            m.busy_cpus = Some(0.5);
        });
        assert_eq!(machines(&first, &second), []);
    }

    #[test]
    fn what_shapes_a_result_is_a_difference() {
        type Change = fn(&mut Machine);
        let cases: [(Change, &str); 9] = [
            (|m| m.kernel = "Linux 6.19.0 x86_64".into(), "kernel"),
            (|m| m.memory_bytes = Some(24 << 30), "memory_bytes"),
            (|m| m.governor = Some("powersave".into()), "governor"),
            (|m| m.governor = None, "governor"),
            (|m| m.clocksource = Some("hpet".into()), "clocksource"),
            (
                |m| set(m, "kernel.io_uring_disabled", "1"),
                "sysctls.kernel.io_uring_disabled",
            ),
            (
                |m| set(m, "net.ipv4.tcp_mem", "288969 385293"),
                "sysctls.net.ipv4.tcp_mem",
            ),
            (
                |m| set(m, "net.ipv4.tcp_congestion_control", "cubic"),
                "sysctls.net.ipv4.tcp_congestion_control",
            ),
            (|m| m.name = "other".into(), "name"),
        ];
        for (change, fact) in cases {
            let found = machines(&machine(|_| {}), &machine(change));
            let facts: Vec<&str> = found.iter().map(|one| one.fact.as_str()).collect();
            assert_eq!(facts, [fact]);
        }
    }

    #[test]
    fn what_an_older_result_does_not_have_is_no_difference() {
        let cores = |cores: &[&str]| Topology {
            groups: vec![Group {
                kind: 0,
                speed: None,
                package: None,
                node: None,
                cache: None,
                cores: cores.iter().map(|one| one.parse().unwrap()).collect(),
            }],
        };
        let old = machine(|_| {});
        let new = machine(|m| {
            m.topology = cores(&["0-1", "2-3"]);
            m.conntrack_in_force = Some(false);
            m.interrupts_accounted_apart = Some(true);
        });
        assert_eq!(machines(&old, &new), []);
        let without_threads = machine(|m| {
            m.topology = cores(&["0", "1", "2", "3"]);
            m.conntrack_in_force = Some(true);
        });
        let difference = |fact: &str, a: &str, b: &str| Difference {
            fact: fact.into(),
            a: Some(a.into()),
            b: Some(b.into()),
        };
        assert_eq!(
            machines(&new, &without_threads),
            [
                difference("conntrack_in_force", "no", "yes"),
                difference("topology.0.cores", "0-1 2-3", "0 1 2 3"),
            ]
        );
    }
}
