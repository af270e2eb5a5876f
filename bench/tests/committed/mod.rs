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

/// The one with every kind of bout: the first of suite `quick`.
pub(crate) fn varied_result() -> PathBuf {
    let of_quick = |folder: &PathBuf| {
        let summary = fs::read_to_string(folder.join("summary.json")).unwrap();
        summary.contains("\"suite\": \"quick\"")
    };
    results().into_iter().find(of_quick).unwrap()
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
