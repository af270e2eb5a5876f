//! A result folder, read back: what `gate`, `report`, `compare` and `show` work on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::audit::{audit_runs, audit_summary};
use super::profiles::{self, StoredProfile};
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
    /// version wrote it; or what is missing.
    pub findings: Vec<String>,
    /// What no suite wrote.
    pub strangers: Vec<PathBuf>,
    /// `profiles/`.
    pub profiles: Vec<StoredProfile>,
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
        let stored = load_runs(root)?;
        let mut findings = lost(&bouts, &stored);
        let is_whole = findings.is_empty();
        let Stored {
            mut runs,
            strangers,
            ..
        } = stored;
        findings.extend(audit_runs(&runs, &environment));
        bring_up_to_date(&mut runs, &environment);
        let scenarios: Vec<Scenario> = bouts.into_iter().map(|bout| bout.scenario).collect();
        let summary = summarize(setting, &scenarios, &runs);
        if is_whole {
            // Else all that differs would be said of every figure of the lost run's bout.
            findings.extend(audit_summary(&said, &summary));
        }
        let (profiles, wrong) = profiles::load(root)?;
        findings.extend(wrong);
        Ok(Self {
            profiles,
            environment,
            runs,
            findings,
            strangers,
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

/// Reads everything, works nothing out again: the summary, and what is lost.
///
/// # Errors
/// As [`Results::load`].
pub fn look(root: &Path) -> Result<(Summary, Vec<String>)> {
    let summary = load_summary(root)?;
    let said: Said = read_json(&summary_of(root)?)?;
    let _: Environment = read_json(&root.join("environment.json"))?;
    Ok((summary, lost(&said.bouts, &load_runs(root)?)))
}

fn summary_of(root: &Path) -> Result<PathBuf> {
    let path = root.join("summary.json");
    let has_profiles = root.join(profiles::FOLDER).is_dir();
    ensure!(
        path.is_file() || !has_profiles,
        "{} has profiles and no bouts: open {}/SCENARIO/{} in it; `bench profile --into` adds a profile to a result",
        root.display(),
        profiles::FOLDER,
        profiles::PAGE
    );
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
    contestants: Vec<SaidResult>,
}

#[derive(Deserialize)]
struct SaidResult {
    contestant: String,
    runs: usize,
}

/// The runs that `summary.json` was made of and that cannot be read any more.
fn lost(bouts: &[SaidBout], stored: &Stored) -> Vec<String> {
    let torn = stored.torn.iter();
    let mut lost: Vec<String> = torn
        .map(|path| format!("{} {TORN}", path.display()))
        .collect();
    for bout in bouts {
        let name = &bout.scenario.name;
        let of_bout = || stored.runs.iter().filter(|run| run.bout == *name);
        let there = |number: &usize| stored.numbers.contains(&(name.clone(), *number));
        let said: usize = bout.contestants.iter().map(|one| one.runs).sum();
        for number in (1..=said).filter(|number| !there(number)) {
            let block = (number - 1) / bout.contestants.len() + 1;
            let ran = |one: &&SaidResult| {
                of_bout().any(|run| run.block == block && run.contestant == one.contestant)
            };
            let absent = bout.contestants.iter().filter(|one| !ran(one));
            let names: Vec<&str> = absent.map(|one| one.contestant.as_str()).collect();
            lost.push(format!(
                "runs/{name}/{number:03}-{}.json is missing",
                names.join("|")
            ));
        }
    }
    lost
}

/// Of a record that a power cut left behind.
pub const TORN: &str = "is empty or ends early";

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
    let first = first_of(findings, String::clone, ["; ", "; and"])?;
    Some(format!(
        "DOES NOT FOLLOW FROM ITS RUNS: files were lost or edited, or written by another version of bench: {first}."
    ))
}

/// What was found in a folder and is not looked at, in a sentence.
pub fn ignored(strangers: &[PathBuf]) -> Option<String> {
    let first = first_of(strangers, |path| path.display().to_string(), [", ", " and"])?;
    Some(format!(
        "ignored, because no suite writes such files: {first}"
    ))
}

/// The first ones in words, with `comma` between them, and how many more there are behind `and`;
/// `None` where there are none.
fn first_of<T>(all: &[T], words: fn(&T) -> String, [comma, and]: [&str; 2]) -> Option<String> {
    const SHOWN: usize = 3;
    let shown: Vec<String> = all.iter().take(SHOWN).map(words).collect();
    let shown = shown.join(comma);
    match all.len() {
        0 => None,
        few if few <= SHOWN => Some(shown),
        many => Some(format!("{shown}{and} {} more", many - SHOWN)),
    }
}

/// What is in `runs/`; paths are those below the result folder.
#[derive(Debug, Default)]
pub struct Stored {
    /// By bout, block and position.
    pub runs: Vec<RunRecord>,
    /// Records that are no JSON any more.
    pub torn: Vec<PathBuf>,
    /// Bouts and numbers of both.
    numbers: BTreeSet<(String, usize)>,
    /// What no suite writes.
    pub strangers: Vec<PathBuf>,
}

/// All run records under `root`.
///
/// # Errors
/// When one cannot be read, or is JSON of another kind.
pub fn load_runs(root: &Path) -> Result<Stored> {
    let mut stored = Stored::default();
    let folder = root.join("runs");
    if !folder.is_dir() {
        return Ok(stored);
    }
    for bout in entries(&folder)? {
        let name = bout.file_name().unwrap_or_default();
        let below = Path::new("runs").join(name);
        if !bout.is_dir() {
            stored.strangers.push(below);
            continue;
        }
        for file in entries(&bout)? {
            let below = below.join(file.file_name().unwrap_or_default());
            let Some((number, of_run)) = number_and_name(&file) else {
                stored.strangers.push(below);
                continue;
            };
            // Logs, histograms and probes lie beside their record.
            let Some(contestant) = of_run
                .strip_suffix(".json")
                .filter(|one| !one.contains('.'))
            else {
                continue;
            };
            let Some(run) = read_record(&file)? else {
                stored.torn.push(below);
                stored
                    .numbers
                    .insert((name.to_string_lossy().into_owned(), number));
                continue;
            };
            // A copy is the record of a run that is there already.
            if name == run.bout.as_str() && contestant == run.contestant {
                stored.numbers.insert((run.bout.clone(), number));
                stored.runs.push(run);
            } else {
                stored.strangers.push(below);
            }
        }
    }
    let order = |run: &RunRecord| (run.bout.clone(), run.block, run.position);
    stored.runs.sort_by_cached_key(order);
    Ok(stored)
}

/// `(3, "x.json")` of `.../003-x.json`.
fn number_and_name(path: &Path) -> Option<(usize, &str)> {
    let (number, name) = path.file_name()?.to_str()?.split_once('-')?;
    Some((number.parse().ok()?, name))
}

/// `None` if it is torn.
fn read_record(path: &Path) -> Result<Option<RunRecord>> {
    match read_json::<RunRecord>(path) {
        Ok(run) => {
            check_version(path, run.schema_version)?;
            Ok(Some(run))
        }
        Err(error) if is_torn(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file is no JSON, as opposed to JSON of another kind.
pub(crate) fn is_torn(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<serde_json::Error>();
    error.is_some_and(|error| error.is_eof() || error.is_syntax())
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut paths = fs::read_dir(folder)
        .with_context(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(unreadable)?;
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
        assert!(load_runs(dir.path()).unwrap().runs.is_empty());
        fs::create_dir_all(dir.path().join("runs/echo")).unwrap();
        fs::write(dir.path().join("runs/echo/001-a.json"), "{}").unwrap();
        let message = format!("{:#}", load_runs(dir.path()).unwrap_err());
        assert!(message.contains("001-a.json"), "{message}");
    }

    /// A copy of the committed result with every kind of bout, and the first record in it.
    fn copied() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        committed::copy(&committed::varied_result(), dir.path());
        let record = load_runs(dir.path()).unwrap().runs.swap_remove(0);
        let name = format!("{:03}-{}.json", record.position, record.contestant);
        let file = Path::new("runs").join(record.bout).join(name);
        (dir, file)
    }

    #[test]
    fn what_no_suite_wrote_is_named_and_changes_nothing() {
        let (dir, record) = copied();
        let before = Results::load(dir.path()).unwrap();
        assert_eq!(ignored(&before.strangers), None);
        let bout = record.parent().unwrap();
        let name = record.file_stem().unwrap().to_str().unwrap();
        let strangers = [
            PathBuf::from("runs/.DS_Store"),
            bout.join(format!("._{name}.json")),
            bout.join(format!("{name} copy.json")),
            bout.join("notes.json"),
        ];
        fs::copy(dir.path().join(&record), dir.path().join(&strangers[2])).unwrap();
        for other in [0, 1, 3] {
            fs::write(dir.path().join(&strangers[other]), "\0\x05\x16\x07").unwrap();
        }
        // Of the generator, when the referee was killed.
        let left = dir.path().join(bout).join(format!("{name}.loadgen.json"));
        fs::write(left, "{").unwrap();
        let results = Results::load(dir.path()).unwrap();
        assert_eq!(results.findings, [""; 0]);
        assert_eq!(results.summary, before.summary);
        let named: BTreeSet<PathBuf> = results.strangers.iter().cloned().collect();
        assert_eq!(named, strangers.into());
        let said = ignored(&results.strangers).unwrap();
        assert!(
            said.contains("runs/.DS_Store") && said.ends_with(" and 1 more"),
            "{said}"
        );
    }

    #[test]
    fn a_lost_record_is_one_finding_and_not_its_consequences() {
        for (content, expected) in [
            (None, "is missing"),
            (Some(&b""[..]), TORN),
            (Some(b"{\"schema_version\": 2, \"bo"), TORN),
            (Some(&[0; 512]), TORN),
        ] {
            let (dir, record) = copied();
            match content {
                None => fs::remove_file(dir.path().join(&record)).unwrap(),
                Some(content) => fs::write(dir.path().join(&record), content).unwrap(),
            }
            let expected = format!("{} {expected}", record.display());
            let results = Results::load(dir.path()).unwrap();
            assert_eq!(results.findings, [expected.as_str()]);
            assert_eq!(look(dir.path()).unwrap().1, [expected]);
        }
    }
}
