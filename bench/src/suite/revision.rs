//! Which revision the binaries were built from.
//!
//! What builds them notes it beside them, with their digests: git at the time of a run tells of the
//! tree as it is then, and a build script would compile the referee anew with every commit.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::machine::ask::ask;
use crate::plan::SuitePlan;
use crate::record::environment::Revision;
use crate::store::load::read_json;

/// Beside the binaries.
const NOTE: &str = "built-from.json";

#[derive(Serialize, Deserialize)]
struct Note {
    revision: Revision,
    /// By file name.
    binaries: BTreeMap<String, String>,
}

/// Notes that the binaries in `bin_dir` were built from the tree at `root`, just now, and how, if
/// not by the release profile alone.
///
/// # Errors
/// When they cannot be read, or the note cannot be written.
pub fn note(root: &Path, bin_dir: &Path, build: Option<String>) -> Result<()> {
    let mut binaries = BTreeMap::new();
    for folder in [bin_dir.to_owned(), bin_dir.join("examples")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
            if runs && path.extension().is_none() {
                let name = entry.file_name().to_string_lossy().into_owned();
                binaries.insert(name, digest(&path)?);
            }
        }
    }
    let revision = Revision {
        build,
        ..of_tree(root)
    };
    let path = bin_dir.join(NOTE);
    fs::write(&path, serde_json::to_vec(&Note { revision, binaries })?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What was noted, if the binaries are still those.
pub(super) fn read(plan: &SuitePlan) -> Revision {
    let candidates = plan.candidates.iter();
    let candidates = candidates.map(|one| (one.program.as_path(), one.contestant.foreign));
    let others = plan.conformance.iter().chain([&plan.loadgen]);
    let programs = candidates.chain(others.map(|path| (path.as_path(), false)));
    // The generator is always there.
    let bin_dir = plan.loadgen.parent().unwrap_or(Path::new("."));
    built_from(bin_dir, programs)
}

fn built_from<'a>(bin_dir: &Path, programs: impl Iterator<Item = (&'a Path, bool)>) -> Revision {
    let Ok(Note { revision, binaries }) = read_json(&bin_dir.join(NOTE)) else {
        return unversioned(
            "it was not noted when the binaries were built, as scripts/bench.sh does",
        );
    };
    let (folder, examples) = (Some(bin_dir), bin_dir.join("examples"));
    for (path, foreign) in programs {
        if path.parent() != folder && path.parent() != Some(&examples) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match binaries.get(&*name) {
            None if foreign => {}
            noted if noted.is_some() && noted == digest(path).ok().as_ref() => {}
            _ => return unversioned(&format!("{name} was built after it had been noted")),
        }
    }
    revision
}

/// Of the repository at `root` itself, whatever lies around it.
fn of_tree(root: &Path) -> Revision {
    let (root, own) = (root.display().to_string(), root.join(".git"));
    let own = own.display().to_string();
    let git = |args: &[&str]| {
        let here = ["-C", &root, "--git-dir", &own, "--work-tree", &root];
        ask("git", &[&here, args].concat())
    };
    let commit = git(&["rev-parse", "--verify", "HEAD"]);
    // The results of earlier suites are not what binaries are built from.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)bench-results",
    ]);
    match (commit, changed) {
        (Ok(commit), Ok(changed)) => Revision {
            commit: Some(commit.trim().to_owned()),
            dirty: !changed.is_empty(),
            build: None,
            why: None,
        },
        (Err(why), _) | (_, Err(why)) => unversioned(&why),
    }
}

fn unversioned(why: &str) -> Revision {
    Revision {
        commit: None,
        dirty: false,
        build: None,
        why: Some(why.to_owned()),
    }
}

/// SHA-1 of a file, as `sha1sum` prints it.
pub(super) fn digest(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digest = Sha1::digest(&bytes);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A repository with one commit, its hash, and a folder `bin` with a program.
    fn tree() -> (TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("source"), "1").unwrap();
        fs::create_dir(root.join("bin")).unwrap();
        build(root, "1");
        let at = root.display().to_string();
        let git = |args: &[&str]| {
            let name = ["-c", "user.name=x", "-c", "user.email=x@y", "-C", &at];
            ask("git", &[&name, args].concat()).unwrap()
        };
        git(&["init", "--quiet"]);
        git(&["add", "source"]);
        git(&["commit", "--quiet", "--message", "one"]);
        let commit = git(&["rev-parse", "HEAD"]).trim().to_owned();
        (dir, commit)
    }

    fn build(root: &Path, content: &str) {
        let program = root.join("bin/server");
        fs::write(&program, content).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn of_server(root: &Path) -> Revision {
        let bin_dir = root.join("bin");
        built_from(&bin_dir, [(&*bin_dir.join("server"), false)].into_iter())
    }

    #[test]
    fn the_revision_is_that_of_the_build_and_not_of_the_run() {
        let (dir, commit) = tree();
        let root = dir.path();
        let why = of_server(root).why.unwrap();
        assert!(why.contains("not noted"), "{why}");
        note(root, &root.join("bin"), None).unwrap();
        let built = Revision {
            commit: Some(commit),
            dirty: false,
            build: None,
            why: None,
        };
        assert_eq!(of_server(root), built);
        fs::write(root.join("source"), "2").unwrap();
        assert_eq!(of_server(root), built, "edited since, not built");
        build(root, "2");
        let why = of_server(root).why.unwrap();
        assert_eq!(why, "server was built after it had been noted");
        note(root, &root.join("bin"), None).unwrap();
        assert_eq!(
            of_server(root),
            Revision {
                dirty: true,
                ..built.clone()
            }
        );
        note(root, &root.join("bin"), Some("profile-guided".to_owned())).unwrap();
        let guided = of_server(root).short();
        assert!(guided.ends_with("-dirty-profile-guided"), "{guided}");
    }

    #[test]
    fn a_program_that_nobody_noted_counts_if_it_is_ours() {
        let (dir, commit) = tree();
        let bin_dir = dir.path().join("bin");
        note(dir.path(), &bin_dir, None).unwrap();
        let other = bin_dir.join("other");
        fs::write(&other, "").unwrap();
        let with = |path: &Path, foreign| built_from(&bin_dir, [(path, foreign)].into_iter());
        assert_eq!(with(&other, true).commit, Some(commit.clone()));
        assert_eq!(with(&other, false).commit, None);
        assert_eq!(with(Path::new("/else/where"), false).commit, Some(commit));
    }

    #[test]
    fn without_a_repository_of_its_own_there_is_a_reason() {
        let (dir, _) = tree();
        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        let revision = of_tree(&copy);
        assert_eq!(revision.commit, None, "that of the repository around it");
        let why = revision.why.unwrap();
        assert!(why.starts_with("git: fatal: not a git repository"), "{why}");
        fs::write(copy.join(".git"), "torn").unwrap();
        let why = of_tree(&copy).why.unwrap();
        assert!(why.contains("invalid gitfile format"), "{why}");
    }
}
