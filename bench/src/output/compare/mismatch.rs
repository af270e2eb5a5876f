//! The mismatches, apart from the servers, that make two result folders different measurements.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::store::load::Results;

/// Facts about a machine that are of the moment, not of the machine.
const OF_THE_MOMENT: &[&str] = &[
    "memory_available_bytes",
    "busy_cpus",
    "load_1min",
    "open_files",
];
/// What a scenario says to people, and not to the generator.
const PROSE_OF_A_SCENARIO: &[&str] = &["title", "shows", "does_not_show", "headline"];
/// What of a contestant is its name, its prose or the program itself, which may be what changed.
const NOT_OPTIONS_OF_A_CONTESTANT: &[&str] = &["about", "program", "default", "conformance"];
/// A rate that is this close is the same load.
const SAME_RATE_WITHIN: f64 = 0.01;

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// What, such as `machine.kernel`.
    pub(super) what: String,
    a: String,
    b: String,
    touches: Touches,
}

/// Which lines a difference is about.
#[derive(Debug, Clone, PartialEq)]
enum Touches {
    All,
    Bout(String),
    Contestant(String),
}

impl Mismatch {
    /// Whether it is about this contestant in this bout.
    pub(super) fn touches(&self, bout: &str, contestant: &str) -> bool {
        match &self.touches {
            Touches::All => true,
            Touches::Bout(name) => name == bout,
            Touches::Contestant(name) => name == contestant,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in A, {} in B", self.what, self.a, self.b)
    }
}

/// Machine, kernel, CPUs, and the options of the scenarios and contestants that both folders have.
pub(super) fn all(a: &Results, b: &Results) -> Vec<Mismatch> {
    let (first, second) = (&a.environment, &b.environment);
    let mut found = Vec::new();
    let mut look = |what: &str, touches: Touches, (a, b): (Value, Value), left_out: &[&str]| {
        let (a, b) = (facts(a, left_out), facts(b, left_out));
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let (a, b) = (a.get(name), b.get(name));
            if a != b {
                let known =
                    |fact: Option<&String>| fact.map_or("not known", String::as_str).to_owned();
                found.push(Mismatch {
                    what: format!("{what}{name}"),
                    a: known(a),
                    b: known(b),
                    touches: touches.clone(),
                });
            }
        }
    };
    look(
        "machine",
        Touches::All,
        (json(&first.machine), json(&second.machine)),
        OF_THE_MOMENT,
    );
    let cpus = [
        ("server_cpus", &first.server_cpus, &second.server_cpus),
        (
            "generator_cpus",
            &first.generator_cpus,
            &second.generator_cpus,
        ),
    ];
    for (what, a, b) in cpus {
        look(what, Touches::All, (json(a), json(b)), &[]);
    }
    for one in &first.scenarios {
        let Some(other) = second.scenarios.iter().find(|other| other.name == one.name) else {
            continue;
        };
        let touches = || Touches::Bout(one.name.clone());
        look(
            &one.name,
            touches(),
            (json(one), json(other)),
            PROSE_OF_A_SCENARIO,
        );
        let timing = (
            json(&first.suite.timing_of(&one.name)),
            json(&second.suite.timing_of(&one.name)),
        );
        look(&format!("{}.timing", one.name), touches(), timing, &[]);
    }
    for one in &first.contestants {
        let other = second
            .contestants
            .iter()
            .find(|other| other.name == one.name);
        if let Some(other) = other.filter(|_| one.duplicate.is_none()) {
            let touches = Touches::Contestant(one.name.clone());
            look(
                &one.name,
                touches,
                (json(one), json(other)),
                NOT_OPTIONS_OF_A_CONTESTANT,
            );
        }
    }
    found
}

/// The rates of an open loop at a fraction of the capacity, which every suite measures for itself.
pub(super) fn rates(bout: &str, a: Option<f64>, b: Option<f64>) -> Option<Mismatch> {
    let same = match (a, b) {
        (Some(a), Some(b)) => (a / b).ln().abs() <= SAME_RATE_WITHIN,
        (a, b) => a == b,
    };
    let shown = |rate: Option<f64>| rate.map_or("none".to_owned(), |rate| format!("{rate:.0}/s"));
    (!same).then(|| Mismatch {
        what: format!("{bout}.rate"),
        a: shown(a),
        b: shown(b),
        touches: Touches::Bout(bout.to_owned()),
    })
}

/// A value that serde cannot turn into JSON is no fact; none of ours is like that.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A tree of JSON as lines `.key.key`; `null` is a fact that is not known.
fn facts(value: Value, left_out: &[&str]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut rest = vec![(String::new(), value)];
    while let Some((path, value)) = rest.pop() {
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    if !(path.is_empty() && left_out.contains(&key.as_str())) {
                        rest.push((format!("{path}.{key}"), value));
                    }
                }
            }
            Value::String(text) => {
                facts.insert(path, text);
            }
            other => {
                facts.insert(path, other.to_string());
            }
        }
    }
    facts
}
