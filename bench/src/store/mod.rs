//! The result folder: made once, never overwritten, everything written at once.

pub mod audit;
pub mod load;
pub mod profiles;
pub mod schema;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// `bench-results/<UTC>-<machine>-<revision>/`.
#[derive(Debug, Clone)]
pub struct ResultFolder {
    root: PathBuf,
}

impl ResultFolder {
    /// Makes a new folder under `out`, which is made too if it is missing. A name that is taken
    /// gets a number.
    pub fn create(out: &Path, utc: &str, machine: &str, revision: &str) -> Result<Self> {
        let name = format!("{utc}-{}-{}", clean(machine), clean(revision));
        Self::create_named(out, &name)
    }

    /// The same under a name that is safe already.
    pub fn create_named(out: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))?;
        for number in 1..1000 {
            let root = out.join(if number == 1 {
                name.to_owned()
            } else {
                format!("{name}-{number}")
            });
            match fs::create_dir(&root) {
                Ok(()) => return Ok(Self { root }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot write results to {}", root.display()));
                }
            }
        }
        anyhow::bail!("{} and 999 more names are taken", out.join(name).display())
    }

    /// An existing one, to go on with an interrupted suite.
    pub fn open(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Path of a file inside; its folder is made.
    pub fn file(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.root.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| Unwritable(parent.to_path_buf()))?;
        }
        Ok(path)
    }

    /// Writes `value` as indented JSON.
    pub fn write_json(&self, relative: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
        let mut text =
            serde_json::to_vec_pretty(value).context("a record cannot be written as JSON")?;
        text.push(b'\n');
        self.write(relative, &text)
    }

    /// Writes a file whole or not at all: beside it first, then renamed.
    pub fn write(&self, relative: impl AsRef<Path>, content: &[u8]) -> Result<()> {
        let path = self.file(relative)?;
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let write = || -> io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(content)?;
            file.sync_data()?;
            fs::rename(&partial, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&partial);
            anyhow::Error::new(error).context(Unwritable(path))
        })
    }

    /// A new file for a child's output.
    pub fn log(&self, relative: impl AsRef<Path>) -> Result<(PathBuf, File)> {
        let path = self.file(relative)?;
        let file = File::create(&path).with_context(|| Unwritable(path.clone()))?;
        Ok((path, file))
    }
}

/// A file of the result folder could not be written: the suite cannot go on.
#[derive(Debug)]
pub struct Unwritable(PathBuf);

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot write {}; what was recorded before it stays",
            self.0.display()
        )
    }
}

impl std::error::Error for Unwritable {}

/// Removes a file that is no longer needed.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Removes a log that says nothing.
pub fn remove_if_empty(path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        let _ = fs::remove_file(path);
    }
}

/// The last lines of a log, for a message: at most 400 bytes, in one line.
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(400)..]).into_owned();
    text.split('\n')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" / ")
}

/// The same as the end of a sentence: `: what the log says`, or nothing where it is empty.
pub fn said(path: &Path) -> String {
    match tail(path) {
        tail if tail.is_empty() => tail,
        tail => format!(": {tail}"),
    }
}

fn clean(name: &str) -> String {
    let cleaned: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let cleaned = cleaned.trim_matches('-');
    if cleaned.is_empty() {
        "unknown".to_owned()
    } else {
        cleaned.chars().take(40).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_is_never_reused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("not/yet/there");
        let first =
            ResultFolder::create(&out, "2026-11-22T10-00-00Z", "My Host.local", "abc1234").unwrap();
        let second =
            ResultFolder::create(&out, "2026-11-22T10-00-00Z", "My Host.local", "abc1234").unwrap();
        assert!(
            first
                .path()
                .ends_with("2026-11-22T10-00-00Z-my-host-local-abc1234")
        );
        assert!(
            second
                .path()
                .ends_with("2026-11-22T10-00-00Z-my-host-local-abc1234-2")
        );
    }

    #[test]
    fn an_empty_log_adds_no_clause() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(said(&log), "", "a log that was removed");
        fs::write(&log, " \n").unwrap();
        assert_eq!(said(&log), "");
        fs::write(&log, "out of luck\nquite\n").unwrap();
        assert_eq!(said(&log), ": out of luck / quite");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let message = format!(
            "{:#}",
            ResultFolder::create(&file, "t", "m", "r").unwrap_err()
        );
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }

    #[test]
    fn a_failed_write_says_so_and_leaves_no_half_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ResultFolder::create(dir.path(), "t", "m", "r").unwrap();
        folder.write_json("runs/a/001-x.json", &1).unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("runs/a/001-x.json")).unwrap(),
            "1\n"
        );
        fs::create_dir(folder.path().join("taken")).unwrap();
        let message = format!("{:#}", folder.write("taken", b"x").unwrap_err());
        assert!(
            message.contains("taken") && message.contains("stays"),
            "{message}"
        );
        assert!(!folder.path().join("taken.partial").exists());
    }

    #[test]
    fn machine_names_cannot_leave_the_folder() {
        assert_eq!(clean("../../etc"), "etc");
        assert_eq!(clean(""), "unknown");
        assert_eq!(clean("GitHub Actions 12"), "github-actions-12");
    }
}
