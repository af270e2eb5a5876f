//! `contestants.toml`: the servers that may enter.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{is_name, load_toml};

/// A server under test: a program and its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contestant {
    /// Its name in tables and file names; the key of its table in the file.
    #[serde(default)]
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Binary name in the binary folder, or a path (relative to the file) if it has a slash.
    pub program: PathBuf,
    /// Arguments that make it this contestant; the conformance suite uses them too.
    #[serde(default)]
    pub args: Vec<String>,
    /// Further arguments of a run; `{cpus}` and `{workers}` are filled in.
    #[serde(default = "usual_run_args")]
    pub run_args: Vec<String>,
    /// Must pass the conformance suite before it may enter.
    #[serde(default = "yes")]
    pub conformance: bool,
    /// What the machine must offer.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Enters when no contestants are named.
    #[serde(default)]
    pub default: bool,
}

fn usual_run_args() -> Vec<String> {
    [
        "--listen",
        "127.0.0.1:0",
        "--cpus",
        "{cpus}",
        "--workers",
        "{workers}",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn yes() -> bool {
    true
}

/// A requirement of a contestant on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// The io_uring system calls, allowed for this user.
    #[serde(rename = "io_uring")]
    IoUring,
}

impl Contestant {
    /// All arguments of a run on these CPUs.
    pub fn arguments(&self, cpus: &str, workers: usize) -> Vec<String> {
        let workers = workers.to_string();
        self.args
            .iter()
            .chain(&self.run_args)
            .map(|arg| arg.replace("{cpus}", cpus).replace("{workers}", &workers))
            .collect()
    }
}

/// All contestants of the file, in its order. Relative program paths come back resolved against the file's folder.
pub fn load_contestants(path: &Path) -> Result<Vec<Contestant>> {
    let table: toml::Table = load_toml(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut contestants = Vec::new();
    for (name, value) in table {
        ensure!(
            is_name(&name),
            "{}: `{name}` cannot be a contestant's name",
            path.display()
        );
        let mut contestant: Contestant = match value.try_into() {
            Ok(contestant) => contestant,
            Err(error) => bail!("{}: contestant `{name}`: {error}", path.display()),
        };
        contestant.name = name;
        if contestant.program.components().count() > 1 {
            contestant.program = folder.join(&contestant.program);
        }
        contestants.push(contestant);
    }
    Ok(contestants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn placeholders_are_filled_and_paths_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(&file, "[x]\nabout = 'a'\nprogram = './bin/x'\nargs = ['--fast']\nrun_args = ['--cpus={cpus}', '-w', '{workers}']\n").unwrap();
        let contestants = load_contestants(&file).unwrap();
        assert_eq!(contestants[0].name, "x");
        assert_eq!(contestants[0].program, dir.path().join("./bin/x"));
        assert_eq!(
            contestants[0].arguments("0-1", 2),
            ["--fast", "--cpus=0-1", "-w", "2"]
        );
    }

    #[test]
    fn mistakes_name_file_and_contestant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(
            &file,
            "[x]\nabout = 'a'\nprogram = 'x'\nargs = []\ncolour = 'red'\n",
        )
        .unwrap();
        let message = load_contestants(&file).unwrap_err().to_string();
        assert!(
            message.contains("c.toml") && message.contains("`x`") && message.contains("colour"),
            "{message}"
        );
    }
}
