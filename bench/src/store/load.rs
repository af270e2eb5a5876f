//! A result folder, read back: what `gate`, `report`, `compare` and `show` work on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::audit::{audit_runs, audit_summary};
use crate::config::Scenario;
use crate::judge::ruling::{Surroundings, decide};
use crate::record::environment::Environment;
use crate::record::{Ending, RunRecord, SCHEMA_VERSION, Status, Stopped};
use crate::summary::{Setting, Summary, summarize};

/// Everything a suite left behind.
#[derive(Debug, Clone)]
pub struct Results {
    /// Where it was read from.
    pub root: PathBuf,
    /// `summary.json`.
    pub summary: Summary,
    /// `environment.json`.
    pub environment: Environment,
    /// All of `runs/`, by bout, block and position; calibrations included.
    pub runs: Vec<RunRecord>,
    /// What does not follow from what it should follow from: somebody edited a file, or another
    /// version wrote it.
    pub findings: Vec<String>,
}

impl Results {
    /// Reads a result folder and works everything in it out again: the summary is what follows from
    /// the runs, and where the stored one says otherwise, that is a finding.
    ///
    /// # Errors
    /// When it is none, when a file is missing or does not say what it should, or when it was
    /// written by a newer version.
    pub fn load(root: &Path) -> Result<Self> {
        let path = summary_of(root)?;
        let said: Value = read_json(&path)?;
        let Said {
            schema_version,
            setting,
            bouts,
        } = read_json(&path)?;
        check_version(root, schema_version)?;
        let environment = read_json(&root.join("environment.json"))?;
        let mut runs = load_runs(root)?;
        let mut findings = audit_runs(&runs, &environment);
        bring_up_to_date(&mut runs, &environment);
        let scenarios: Vec<Scenario> = bouts.into_iter().map(|bout| bout.scenario).collect();
        let summary = summarize(setting, &scenarios, &runs);
        findings.extend(audit_summary(&said, &summary));
        Ok(Self {
            environment,
            runs,
            findings,
            summary,
            root: root.to_owned(),
        })
    }

    /// Fails if the result folder is inconsistent.
    ///
    /// # Errors
    /// When something in it does not follow from the rest.
    pub fn require_consistent(&self) -> Result<()> {
        match inconsistent(&self.findings) {
            Some(note) => bail!("{}: {note}", self.root.display()),
            None => Ok(()),
        }
    }

    /// The runs of one bout, in the order of blocks and positions.
    pub fn runs_of<'a>(&'a self, bout: &'a str) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().filter(move |run| run.bout == bout)
    }
}

/// `summary.json` alone.
///
/// # Errors
/// As [`Results::load`].
pub fn load_summary(root: &Path) -> Result<Summary> {
    let summary: Summary = read_json(&summary_of(root)?)?;
    check_version(root, summary.schema_version)?;
    Ok(summary)
}

fn summary_of(root: &Path) -> Result<PathBuf> {
    let path = root.join("summary.json");
    ensure!(
        path.is_file(),
        "{} is no result folder: it has no summary.json (an interrupted suite can be finished with --resume)",
        root.display()
    );
    Ok(path)
}

/// Of `summary.json` what does not follow from the runs.
#[derive(Deserialize)]
struct Said {
    schema_version: u32,
    setting: Setting,
    bouts: Vec<SaidBout>,
}

#[derive(Deserialize)]
struct SaidBout {
    scenario: Scenario,
}

/// Gives runs of version 1 their checks, which had other names, and takes their sentences away.
pub fn bring_up_to_date(runs: &mut [RunRecord], environment: &Environment) {
    for run in runs.iter_mut().filter(|run| run.schema_version == 1) {
        let how = match run.status {
            Status::Failed => Some(Ending::Failed),
            Status::Interrupted => Some(Ending::Interrupted),
            Status::Refused => Some(Ending::Refused),
            Status::Valid | Status::Doubtful | Status::Invalid => None,
        };
        let causes = std::mem::take(&mut run.reasons);
        run.stopped = how.map(|how| Stopped { how, causes });
        run.checks = decide(run, Surroundings::of(environment, &run.contestant)).1;
    }
}

/// The first findings in a sentence.
pub fn inconsistent(findings: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let first = findings.get(..findings.len().min(SHOWN))?.join("; ");
    let more = match findings.len() {
        0 => return None,
        all if all <= SHOWN => String::new(),
        all => format!("; and {} more", all - SHOWN),
    };
    Some(format!(
        "DOES NOT FOLLOW FROM ITS RUNS: it was tampered with, or written by another version of bench: {first}{more}."
    ))
}

/// All run records under `root`, by bout, block and position.
///
/// # Errors
/// When one cannot be read: a result with a missing run is not the result.
pub fn load_runs(root: &Path) -> Result<Vec<RunRecord>> {
    let mut runs: Vec<RunRecord> = Vec::new();
    let folder = root.join("runs");
    if !folder.is_dir() {
        return Ok(runs);
    }
    for bout in entries(&folder)? {
        for file in entries(&bout)? {
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let run: RunRecord = read_json(&file)?;
                check_version(&file, run.schema_version)?;
                runs.push(run);
            }
        }
    }
    runs.sort_by(|a, b| (&a.bout, a.block, a.position).cmp(&(&b.bout, b.block, b.position)));
    Ok(runs)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut paths = fs::read_dir(folder)
        .with_context(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(unreadable)?;
    paths.retain(|path| path.is_dir() || path.is_file());
    paths.sort();
    Ok(paths)
}

fn check_version(path: &Path, version: u32) -> Result<()> {
    if version > SCHEMA_VERSION {
        bail!(
            "{} was written by a newer bench (schema {version}; this one knows {SCHEMA_VERSION}): use that one to read it",
            path.display()
        );
    }
    Ok(())
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what bench writes", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committed;

    #[test]
    fn every_committed_result_can_still_be_read_and_follows_from_itself() {
        for folder in committed::results() {
            let results = Results::load(&folder).unwrap();
            assert_eq!(results.findings, [""; 0], "{}", folder.display());
            for bout in &results.summary.bouts {
                let runs: usize = bout.contestants.iter().map(|result| result.runs).sum();
                assert_eq!(results.runs_of(&bout.scenario.name).count(), runs);
            }
        }
    }

    /// Every value of this key, changed.
    fn change_all(value: &mut Value, key: &str, change: &dyn Fn(&mut Value)) -> usize {
        match value {
            Value::Object(object) => {
                let mut changed = 0;
                for (name, value) in object {
                    if name == key {
                        change(value);
                        changed += 1;
                    } else {
                        changed += change_all(value, key, change);
                    }
                }
                changed
            }
            Value::Array(values) => {
                let each = values.iter_mut();
                each.map(|value| change_all(value, key, change)).sum()
            }
            _ => 0,
        }
    }

    #[test]
    fn other_sentences_in_an_old_folder_are_no_finding_and_other_numbers_are() {
        let quick = |folder: &PathBuf| {
            let summary = load_summary(folder).unwrap();
            (summary.setting.suite == "quick" && summary.schema_version == 1).then_some(())
        };
        let mut folders = committed::results().into_iter();
        let folder = folders.find(|folder| quick(folder).is_some()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        committed::copy(&folder, dir.path());
        let file = dir.path().join("summary.json");
        let mut summary: Value = read_json(&file).unwrap();
        for key in ["words", "reasons", "notes"] {
            let other = |value: &mut Value| {
                *value = match value {
                    Value::Array(_) => serde_json::json!(["said in other words"]),
                    _ => "said in other words".into(),
                };
            };
            assert!(change_all(&mut summary, key, &other) > 0, "{key}");
        }
        fs::write(&file, summary.to_string()).unwrap();
        let results = Results::load(dir.path()).unwrap();
        assert_eq!(results.findings, [""; 0]);

        let more = |value: &mut Value| {
            *value = (value.as_f64().unwrap() * 1.01).into();
        };
        assert!(change_all(&mut summary, "advantage_low", &more) > 0);
        fs::write(&file, summary.to_string()).unwrap();
        let results = Results::load(dir.path()).unwrap();
        assert!(
            results.findings[0].contains("advantage_low: it says"),
            "{:?}",
            results.findings
        );
    }

    #[test]
    fn what_is_no_result_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = format!("{:#}", Results::load(dir.path()).unwrap_err());
        assert!(message.contains("summary.json"), "{message}");
        fs::write(dir.path().join("summary.json"), "{}").unwrap();
        let message = format!("{:#}", Results::load(dir.path()).unwrap_err());
        assert!(message.contains("not what bench writes"), "{message}");
        assert!(load_runs(dir.path()).unwrap().is_empty());
        fs::create_dir_all(dir.path().join("runs/echo")).unwrap();
        fs::write(dir.path().join("runs/echo/001-a.json"), "[").unwrap();
        let message = format!("{:#}", load_runs(dir.path()).unwrap_err());
        assert!(message.contains("001-a.json"), "{message}");
    }
}
