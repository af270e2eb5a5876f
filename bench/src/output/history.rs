//! `bench history`: the headline figures of many suites in one file, which `bench report --history`
//! draws over time.
//!
//! One line of JSON per bout and contestant, so that a file grows by appending, merges in git, and
//! reads with jq or pandas.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::ScenarioKind;
use crate::record::SCHEMA_VERSION;
use crate::summary::Summary;

/// A contestant's headline in one bout of one suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// When the suite began, UTC.
    pub started_utc: String,
    /// What was measured.
    pub revision: String,
    /// The machine in one line.
    pub machine: String,
    /// Name of the suite.
    pub suite: String,
    /// The suite found a difference between a contestant and itself.
    pub noisy: bool,
    /// Name of the scenario.
    pub bout: String,
    /// Its kind.
    pub kind: ScenarioKind,
    /// Name of the contestant.
    pub contestant: String,
    /// Key of the headline metric.
    pub metric: String,
    /// Number of valid runs with this figure.
    pub n: usize,
    /// Their median.
    pub median: f64,
    /// First quartile.
    pub q1: f64,
    /// Third quartile.
    pub q3: f64,
}

impl Entry {
    /// What a line is about: a second one about the same says nothing new.
    fn key(&self) -> (&str, &str, &str, &str, &str) {
        (
            &self.started_utc,
            &self.machine,
            &self.suite,
            &self.bout,
            &self.contestant,
        )
    }
}

/// The lines of one suite. Second names of a contestant (A/A bouts) are left out.
pub fn entries(summary: &Summary) -> Vec<Entry> {
    let setting = &summary.setting;
    let twice: BTreeSet<&str> = setting
        .contestants
        .iter()
        .filter(|entrant| entrant.duplicate.is_some())
        .map(|entrant| entrant.name.as_str())
        .collect();
    let mut entries = Vec::new();
    for bout in &summary.bouts {
        for result in &bout.contestants {
            let spread = result.metrics.get(&bout.headline).copied().flatten();
            let Some(spread) = spread.filter(|_| !twice.contains(result.contestant.as_str()))
            else {
                continue;
            };
            entries.push(Entry {
                schema_version: SCHEMA_VERSION,
                started_utc: setting.started_utc.clone(),
                revision: setting.revision.clone(),
                machine: setting.machine.clone(),
                suite: setting.suite.clone(),
                noisy: summary.is_noisy(),
                bout: bout.scenario.name.clone(),
                kind: bout.scenario.kind,
                contestant: result.contestant.clone(),
                metric: bout.headline.clone(),
                n: spread.n,
                median: spread.median,
                q1: spread.q1,
                q3: spread.q3,
            });
        }
    }
    entries
}

/// Reads a history file.
///
/// # Errors
/// When it cannot be read, or a line is not what [`append`] writes.
pub fn load(file: &Path) -> Result<Vec<Entry>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let place = || format!("{}, line {}", file.display(), number + 1);
            let entry: Entry = serde_json::from_str(line)
                .with_context(|| format!("{} is not what bench writes", place()))?;
            ensure!(
                entry.schema_version <= SCHEMA_VERSION,
                "{} was written by a newer bench (schema {})",
                place(),
                entry.schema_version
            );
            Ok(entry)
        })
        .collect()
}

/// Adds what the file does not have yet; makes the file. Returns the number of lines added.
///
/// # Errors
/// When the file cannot be read or written, or is not a history.
pub fn append(file: &Path, new: &[Entry]) -> Result<usize> {
    let known = match fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        _ => load(file)?,
    };
    let known: BTreeSet<_> = known.iter().map(Entry::key).collect();
    let mut text = String::new();
    let mut added = 0;
    for entry in new.iter().filter(|entry| !known.contains(&entry.key())) {
        text.push_str(&serde_json::to_string(entry).context("a figure cannot be written as JSON")?);
        text.push('\n');
        added += 1;
    }
    let mut open = OpenOptions::new();
    // In one write, so that a line is there whole or not at all.
    let written = open
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", file.display()))?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Duplicate;
    use crate::test_data;

    fn summary() -> Summary {
        let runs = vec![
            test_data::echo_run("server-uring", 1, 120_000.0),
            test_data::echo_run("server-uring", 2, 124_000.0),
            test_data::failed(test_data::echo_run("server-tokio", 1, 1.0), "it died"),
        ];
        test_data::results("x", "abc1234", runs).summary
    }

    #[test]
    fn a_line_per_contestant_with_a_headline() {
        let mut summary = summary();
        let entries = entries(&summary);
        assert_eq!(entries.len(), 1, "who has no valid run has no figure");
        assert_eq!((entries[0].n, entries[0].median), (2, 122_000.0));
        assert_eq!(entries[0].metric, "messages_per_s");
        summary.setting.contestants[0].duplicate = Some(Duplicate {
            of: "server-tokio".into(),
            bouts: vec![],
        });
        assert!(super::entries(&summary).is_empty());
    }

    #[test]
    fn a_file_grows_by_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        let mut summary = summary();
        assert_eq!(append(&file, &entries(&summary)).unwrap(), 1);
        assert_eq!(append(&file, &entries(&summary)).unwrap(), 0);
        let first = entries(&summary);
        summary.setting.started_utc = "2026-11-23T10:00:00Z".into();
        assert_eq!(append(&file, &entries(&summary)).unwrap(), 1);
        assert_eq!(load(&file).unwrap(), [first, entries(&summary)].concat());
    }

    #[test]
    fn a_file_that_is_no_history_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        fs::write(&file, "\nnotes\n").unwrap();
        let message = format!("{:#}", append(&file, &entries(&summary())).unwrap_err());
        assert!(message.contains("notes.txt, line 2"), "{message}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "\nnotes\n");
    }
}
