//! The mismatches, apart from the servers, that make two result folders different measurements.

use std::fmt;

use crate::config::Suite;
use crate::machine::same::{Difference, differences, machines};
use crate::output::words;
use crate::store::load::Results;

/// What a scenario says to people, and not to the generator.
const PROSE_OF_A_SCENARIO: &[&str] = &["title", "shows", "does_not_show", "headline"];
/// What of a contestant is its name, its prose or the program itself, which may be what changed.
const NOT_OPTIONS_OF_A_CONTESTANT: &[&str] = &["about", "program", "default", "conformance"];
/// A rate that is this close is the same load.
const SAME_RATE_WITHIN: f64 = 0.01;

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// What, such as `kernel`.
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
    let mut add = |of: &str, touches: Touches, differences: Vec<Difference>| {
        found.extend(differences.iter().map(|one| {
            let (a, b) = words::values(one);
            Mismatch {
                what: format!("{of}{}", words::fact(&one.fact)),
                a,
                b,
                touches: touches.clone(),
            }
        }));
    };
    add("", Touches::All, machines(&first.machine, &second.machine));
    for (whose, a, b) in [
        ("servers", &first.server_cpus, &second.server_cpus),
        ("generator", &first.generator_cpus, &second.generator_cpus),
    ] {
        let of = format!("CPUs of the {whose}");
        add(&of, Touches::All, differences(a, b, &[]));
    }
    for one in &first.scenarios {
        let Some(other) = second.scenarios.iter().find(|other| other.name == one.name) else {
            continue;
        };
        let (of, touches) = (format!("{}, ", one.name), Touches::Bout(one.name.clone()));
        add(
            &of,
            touches.clone(),
            differences(one, other, PROSE_OF_A_SCENARIO),
        );
        let timing = |suite: &Suite| suite.timing_of(&one.name);
        let timing = differences(&timing(&first.suite), &timing(&second.suite), &[]);
        add(&of, touches, timing);
    }
    for one in &first.contestants {
        let mut others = second.contestants.iter();
        let other = others.find(|other| other.name == one.name);
        if let Some(other) = other.filter(|_| one.duplicate.is_none()) {
            let (of, touches) = (
                format!("{}, ", one.name),
                Touches::Contestant(one.name.clone()),
            );
            let options = differences(one, other, NOT_OPTIONS_OF_A_CONTESTANT);
            add(&of, touches, options);
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
        what: format!("{bout}, rate"),
        a: shown(a),
        b: shown(b),
        touches: Touches::Bout(bout.to_owned()),
    })
}
