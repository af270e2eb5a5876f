//! What a gate demands to be there: a contestant that was excluded at its trial start is in no
//! bout, and so breaks no rule about the bouts.

use std::fmt::Write as _;

use serde::Deserialize;

use super::expression::Subject;
use super::{Observed, fits};
use crate::summary::{Bout, Summary};

/// `require = { contestants = ["a"], bouts = ["b"] }` in a gate file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Require {
    /// In each of `bouts` with a run that counts; without `bouts` in at least one.
    #[serde(default)]
    contestants: Vec<String>,
    /// In the result, with a run that counts.
    #[serde(default)]
    bouts: Vec<String>,
}

impl Require {
    /// A line for each thing required, and whether it is there.
    pub(super) fn judge(&self, summary: &Summary) -> Vec<(String, bool)> {
        let bouts = self.bouts.iter().map(|name| {
            let holds = summary.bouts.iter().any(|bout| {
                bout.scenario.name == *name && bout.contestants.iter().any(|one| one.valid_runs > 0)
            });
            line(holds, format!("bout {name}"), "it has no run that counts")
        });
        let contestants = self.contestants.iter().map(|name| {
            let lacking = self.lacks(name, summary);
            let what = format!("contestant {name}");
            line(lacking.is_none(), what, &lacking.unwrap_or_default())
        });
        bouts.chain(contestants).collect()
    }

    /// Where a contestant is missing.
    fn lacks(&self, name: &str, summary: &Summary) -> Option<String> {
        let mut entrants = summary.setting.contestants.iter();
        let entrant = entrants.find(|one| one.name == name);
        let reason = entrant.and_then(|one| one.excluded.as_ref());
        let excluded = reason.map(|reason| format!("excluded: {reason}"));
        let plays = |bout: &Bout| {
            let result = bout.result_of(name);
            result.is_some_and(|result| result.valid_runs > 0)
        };
        let missing = if self.bouts.is_empty() {
            let somewhere = summary.bouts.iter().any(plays);
            (!somewhere).then(|| "no run of it counts".to_owned())
        } else {
            let plays_in = |name: &String| {
                let mut all = summary.bouts.iter();
                all.any(|bout| bout.scenario.name == *name && plays(bout))
            };
            let lacking = self.bouts.iter().filter(|bout| !plays_in(bout));
            let names: Vec<&str> = lacking.map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("no run of it counts in {}", names.join(", ")))
        };
        excluded.or(missing)
    }
}

/// What a rule with a `*` passed over: `, judged 1 of 3 bouts`, `, without a`; mostly nothing.
pub(super) fn judged(subject: &Subject, found: &[Observed], summary: &Summary) -> String {
    let Subject::Bout { place, .. } = subject else {
        return String::new();
    };
    let mut words = String::new();
    let named = |bout: &&Bout| {
        let mut beginnings = place.match_indices('.').map(|(dot, _)| &place[..dot]);
        beginnings.any(|name| fits(name, &bout.scenario.name))
    };
    let bouts: Vec<&Bout> = summary.bouts.iter().filter(named).collect();
    let is_judged = |bout: &&&Bout| {
        let beginning = format!("{}.", bout.scenario.name);
        found.iter().any(|one| one.place.starts_with(&beginning))
    };
    let seen = bouts.iter().filter(is_judged).count();
    if seen < bouts.len() {
        let _ = write!(words, ", judged {seen} of {} bouts", bouts.len());
    }
    let whom = place.rsplit('.').next().unwrap_or_default();
    let entrants = summary.setting.contestants.iter();
    let excluded = entrants.filter(|one| one.excluded.is_some() && fits(whom, &one.name));
    let names: Vec<&str> = excluded.map(|one| one.name.as_str()).collect();
    if !names.is_empty() {
        let _ = write!(words, ", without {} (excluded)", names.join(", "));
    }
    words
}

fn line(holds: bool, what: String, why: &str) -> (String, bool) {
    let line = match holds {
        true => format!("ok    require {what}"),
        false => format!("FAIL  require {what}\n      {why}"),
    };
    (line, holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::summarize;
    use crate::test_data;

    #[test]
    fn who_is_absent_breaks_the_gate() {
        let run = |name: &str| test_data::echo_run(name, 1, 100_000.0);
        let runs = [run("server-uring"), run("server-tokio")];
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let summary = |runs: &[RunRecord]| summarize(test_data::setting(), &scenarios, runs);
        let require = |text: &str| toml::from_str::<Require>(text).unwrap();
        let both = require("contestants = ['server-uring', 'server-tokio']");
        let broken = |require: &Require, summary: &Summary| -> Vec<String> {
            let lines = require.judge(summary).into_iter();
            lines
                .filter(|(_, holds)| !holds)
                .map(|(line, _)| line)
                .collect()
        };
        assert_eq!(broken(&both, &summary(&runs)), [""; 0]);

        let mut without = summary(&runs[..1]);
        let found = broken(&both, &without);
        assert!(found[0].contains("server-tokio") && found[0].contains("no run of it"));
        without.setting.contestants[1].excluded = Some("its port is taken".to_owned());
        assert!(broken(&both, &without)[0].contains("excluded: its port is taken"));

        let stranger = require("contestants = ['nobody']\nbouts = ['echo-7b']");
        assert_eq!(broken(&stranger, &summary(&runs)).len(), 2);
    }
}
