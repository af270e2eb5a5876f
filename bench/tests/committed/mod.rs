//! The results in the repository, for unit tests and integration tests alike.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// All of them, the oldest first.
pub(crate) fn results() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(REPOSITORY).join("bench-results")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("summary.json").is_file());
    // Names begin with the time.
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// The one whose table the README begins with: the suite with every kind of bout.
pub(crate) fn result_of_readme() -> PathBuf {
    let readme = fs::read_to_string(Path::new(REPOSITORY).join("README.md")).unwrap();
    let named = |folder: &PathBuf| {
        let name = folder.file_name().unwrap().to_string_lossy();
        readme.find(&format!("bench-results/{name}/summary.md"))
    };
    let folders = results().into_iter();
    let (_, first) = folders
        .filter_map(|folder| Some((named(&folder)?, folder)))
        .min()
        .expect("README names a folder in bench-results/");
    first
}

/// Copies a result, to be changed.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
