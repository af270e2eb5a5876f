//! A result folder, read back: what `gate`, `report`, `compare` and `show` work on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::audit::audit;
use crate::record::environment::Environment;
use crate::record::{RunRecord, SCHEMA_VERSION};
use crate::summary::Summary;

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
    /// Reads a result folder and works everything in it out again. What does not follow becomes the
    /// first note of the summary.
    ///
    /// # Errors
    /// When it is none, when a file is missing or does not say what it should, or when it was
    /// written by a newer version.
    pub fn load(root: &Path) -> Result<Self> {
        let mut summary = load_summary(root)?;
        let environment = read_json(&root.join("environment.json"))?;
        let runs = load_runs(root)?;
        let findings = audit(&summary, &environment, &runs);
        summary.notes.splice(0..0, note(&findings));
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
    pub fn must_follow(&self) -> Result<()> {
        match note(&self.findings) {
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
    ensure!(
        root.join("summary.json").is_file(),
        "{} is no result folder: it has no summary.json (an interrupted suite can be finished with --resume)",
        root.display()
    );
    let summary: Summary = read_json(&root.join("summary.json"))?;
    check_version(root, summary.schema_version)?;
    Ok(summary)
}

/// The first findings in a sentence.
fn note(findings: &[String]) -> Option<String> {
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
                let runs: usize = bout.contestants.iter().map(|showing| showing.runs).sum();
                assert_eq!(results.runs_of(&bout.scenario.name).count(), runs);
            }
        }
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
