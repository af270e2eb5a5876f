//! The profiles of a result folder: `profiles/SCENARIO/`, written by `bench profile`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::load::{entries, read_json};
use crate::judge::profile::Stacks;
use crate::record::{PROFILE_VERSION, Profile};

/// The folder of all profiles in a result folder.
pub const FOLDER: &str = "profiles";
/// The facts of a profile.
pub const RECORD: &str = "profile.json";
/// The same for people.
pub const PAGE: &str = "profile.html";

/// A profile with its stacks.
#[derive(Debug, Clone)]
pub struct StoredProfile {
    /// Its folder, below the result folder.
    pub folder: PathBuf,
    /// `profile.json`, with the shares that follow from the stacks.
    pub profile: Profile,
    /// `CONTESTANT.folded`, by contestant.
    pub stacks: BTreeMap<String, Stacks>,
}

/// Name of the file of a contestant's stacks.
pub fn folded(contestant: &str) -> String {
    format!("{contestant}.folded")
}

/// Name of the file of a contestant's flame graph.
pub fn svg(contestant: &str) -> String {
    format!("{contestant}.svg")
}

/// All profiles in a result folder, and what in them does not fit together.
///
/// # Errors
/// When a record cannot be read, or a newer bench wrote it.
pub fn load(root: &Path) -> Result<(Vec<StoredProfile>, Vec<String>)> {
    let (mut profiles, mut findings) = (Vec::new(), Vec::new());
    let folder = root.join(FOLDER);
    if !folder.is_dir() {
        return Ok((profiles, findings));
    }
    for path in entries(&folder)? {
        if !path.join(RECORD).is_file() {
            continue;
        }
        let below = Path::new(FOLDER).join(path.file_name().unwrap_or_default());
        profiles.push(load_one(&path, below, &mut findings)?);
    }
    profiles.sort_by(|one, other| one.profile.started_utc.cmp(&other.profile.started_utc));
    Ok((profiles, findings))
}

fn load_one(path: &Path, folder: PathBuf, findings: &mut Vec<String>) -> Result<StoredProfile> {
    let file = path.join(RECORD);
    let mut profile: Profile = read_json(&file)?;
    if profile.schema_version > PROFILE_VERSION {
        bail!(
            "{} was written by a newer bench (schema {}; this one knows {PROFILE_VERSION}): use that \
             one to read it",
            file.display(),
            profile.schema_version
        );
    }
    let mut stacks = BTreeMap::new();
    for one in profile.contestants.iter_mut().filter(|one| one.samples > 0) {
        let name = folded(&one.contestant);
        let below = folder.join(&name);
        let text = fs::read_to_string(path.join(&name));
        let read = text.ok().and_then(|text| Stacks::of_folded(&text));
        let Some(read) = read else {
            findings.push(format!(
                "{} is missing, or no folded stacks",
                below.display()
            ));
            continue;
        };
        if read.samples() != one.samples {
            findings.push(format!(
                "{} holds {} samples, {RECORD} says {}",
                below.display(),
                read.samples(),
                one.samples
            ));
            continue;
        }
        // Rules may be better than when it was written.
        one.shares = read.shares();
        stacks.insert(one.contestant.clone(), read);
    }
    Ok(StoredProfile {
        folder,
        profile,
        stacks,
    })
}

/// Whether `root` is a folder that a profile can be added to.
///
/// # Errors
/// When it is none.
pub fn require_result_folder(root: &Path) -> Result<()> {
    let is = |name: &str| root.join(name).exists();
    let is_one = is("environment.json") || is("summary.json") || is(FOLDER);
    is_one.then_some(()).with_context(|| {
        format!(
            "{} is no result folder: it has no summary.json and no {FOLDER}/",
            root.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Share;
    use crate::test_data;

    fn written(stacks: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("profiles/echo");
        fs::create_dir_all(&folder).unwrap();
        let mut profile = test_data::profile();
        profile.contestants.truncate(1);
        profile.contestants[0].samples = 3;
        profile.contestants[0].shares = [(Share::Other, 3)].into();
        let text = serde_json::to_string(&profile).unwrap();
        fs::write(folder.join(RECORD), text).unwrap();
        fs::write(folder.join("server-uring-raw.folded"), stacks).unwrap();
        dir
    }

    #[test]
    fn shares_follow_from_the_stacks() {
        let dir = written("w;main 1\nw;main;tcp_ack_[k] 2\n");
        let (profiles, findings) = load(dir.path()).unwrap();
        assert_eq!(findings, [""; 0]);
        let expected = [(Share::Program, 1), (Share::Tcp, 2)];
        assert_eq!(profiles[0].profile.contestants[0].shares, expected.into());
        assert_eq!(profiles[0].folder, Path::new("profiles/echo"));
        assert_eq!(profiles[0].stacks.len(), 1);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (stacks, expected) in [("w;main 4\n", "holds 4 samples"), ("?", "no folded stacks")] {
            let dir = written(stacks);
            let (profiles, findings) = load(dir.path()).unwrap();
            assert!(findings[0].contains(expected), "{findings:?}");
            let shares = &profiles[0].profile.contestants[0].shares;
            assert_eq!(*shares, [(Share::Other, 3)].into(), "as they were written");
            fs::write(dir.path().join("profiles/echo").join(RECORD), "{}").unwrap();
            let error = format!("{:#}", load(dir.path()).unwrap_err());
            assert!(
                error.contains("profile.json is not what bench writes"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_folder_of_something_else_takes_no_profile() {
        let dir = tempfile::tempdir().unwrap();
        let error = require_result_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is no result folder"), "{error}");
        require_result_folder(written("").path()).unwrap();
    }
}
