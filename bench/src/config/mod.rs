//! The user's input: TOML files of contestants, scenarios and suites, and the options of a suite.

mod contestant;
mod options;
mod scenario;
mod suite;

pub use contestant::{
    ANY_PORT, Contestant, Duplicate, Protocol, ScaleBy, Skills, load_contestants, plays,
};
pub use options::{Options, ProfileOptions, Setup};
pub use scenario::{
    Hot, LOWEST_RATE_PER_S, Load, Scenario, ScenarioKind, Transport, load_scenario,
};
pub use suite::{Alternation, Calibration, EqualRate, Suite, Timing, load_suite};

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serializer};

/// Reads a TOML file; errors name the file, and the line when the content is at fault.
pub(crate) fn load_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not what it should be", path.display()))
}

/// Names become folders and file names: letters, digits, `_`, `.`, `-`; not starting with a dot.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= 80
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `"1s"`, `"300ms"` in TOML and JSON.
mod duration {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&units::show_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        units::parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [&str; 8] = [
        "smoke",
        "quick",
        "standard",
        "scale",
        "peers",
        "large",
        "broadcast",
        "questions",
    ];

    fn config_dir() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn every_suite_scenario_and_contestant_of_the_repository_loads() {
        let contestants = load_contestants(&config_dir().join("contestants.toml")).unwrap();
        let default: Vec<&str> = contestants
            .iter()
            .filter(|c| c.default)
            .map(|c| c.name.as_str())
            .collect();
        assert_eq!(default, ["server-uring", "server-tokio"]);
        for name in SUITES {
            let suite = load_suite(config_dir(), name).unwrap();
            assert_eq!(suite.name, name);
            assert_eq!(
                suite.duplicate.is_empty(),
                name == "smoke",
                "{name}: A/A bout"
            );
            for scenario in &suite.scenarios {
                load_scenario(config_dir(), scenario).unwrap();
            }
        }
    }

    #[test]
    fn the_referees_own_test_has_its_contestants() {
        let suite = load_suite(config_dir(), "referee").unwrap();
        let contestants = load_contestants(&config_dir().join("contestants-referee.toml")).unwrap();
        let names: Vec<&str> = contestants.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, suite.contestants);
        let delays: Vec<&str> = contestants
            .iter()
            .map(|one| one.args.last().map_or("0", String::as_str))
            .collect();
        assert_eq!(delays[6..], ["160", "240", "400", "800"]);
        let copies = contestants
            .iter()
            .filter(|one| one.is_copy_of(&contestants[0]));
        assert_eq!(copies.count(), 6);
        for scenario in &suite.scenarios {
            load_scenario(config_dir(), scenario).unwrap();
        }
    }

    #[test]
    fn every_scenario_file_is_in_a_suite_and_says_what_it_does_not_show() {
        let standard = load_suite(config_dir(), "standard").unwrap();
        for entry in fs::read_dir(config_dir().join("scenarios")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let scenario = load_scenario(config_dir(), &name).unwrap();
            assert!(
                scenario.shows.len() > 40 && scenario.does_not_show.len() > 40,
                "{name}"
            );
            let used = SUITES.iter().any(|suite| {
                load_suite(config_dir(), suite)
                    .unwrap()
                    .scenarios
                    .contains(&name)
            });
            assert!(used, "{name} is in no suite");
        }
        assert!(standard.repeats >= crate::stats::RUNS_FOR_A_CLAIM);
    }

    #[test]
    fn names_are_safe_as_folders() {
        assert!(is_name("echo-64b_w1.c100"));
        for bad in ["", "..", ".hidden", "a/b", "a b", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
