//! `bench list`: the result folders in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::table::Table;
use crate::store::load::look;
use crate::store::profiles;
use crate::summary::Summary;

/// A row per result folder under `dir`, the oldest first; a folder that cannot be read is a row
/// that says why.
///
/// # Errors
/// When `dir` cannot be read.
pub fn text(dir: &Path) -> Result<String> {
    let headings = [
        "folder",
        "begun (UTC)",
        "suite",
        "revision",
        "machine",
        "bouts",
        "valid runs",
        "state",
    ];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![5, 6]);
    for folder in folders(dir)? {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let cells = if folder.join("summary.json").is_file() {
            match look(&folder) {
                Ok((summary, lost)) => of_summary(&summary, &lost),
                Err(error) => state_only(format!("unreadable: {error:#}")),
            }
        } else if folder.join("environment.json").is_file() {
            state_only("unfinished: bench --resume runs the rest".to_owned())
        } else {
            state_only(format!("profiles only: {}", profiles(&folder).join(", ")))
        };
        table.row([vec![name], cells].concat());
    }
    if table.is_empty() {
        return Ok(format!("no result folder in {}\n", dir.display()));
    }
    Ok(table.render())
}

/// Folders with what a suite writes first.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", dir.display());
    let mut folders = fs::read_dir(dir)
        .with_context(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(unreadable)?;
    folders.retain(|path| {
        let is_file = |name: &str| path.join(name).is_file();
        is_file("environment.json") || is_file("summary.json") || !profiles(path).is_empty()
    });
    // Names begin with the time.
    folders.sort();
    Ok(folders)
}

/// Names of the profiles in a result folder.
fn profiles(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join(profiles::FOLDER));
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let whole = paths.filter(|path| path.join(profiles::RECORD).is_file());
    let names = whole.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn state_only(state: String) -> Vec<String> {
    let mut cells = vec![String::new(); 6];
    cells.push(state);
    cells
}

fn of_summary(summary: &Summary, lost: &[String]) -> Vec<String> {
    let setting = &summary.setting;
    let results = || summary.bouts.iter().flat_map(|bout| &bout.contestants);
    let (valid, all) = results().fold((0, 0), |(valid, all), result| {
        (valid + result.valid_runs, all + result.runs)
    });
    let state = [
        (summary.is_noisy(), "NOISY"),
        (setting.interrupted, "interrupted"),
        (setting.aborted.is_some(), "aborted"),
        (!summary.complete, "incomplete"),
        (summary.complete, "complete"),
    ];
    let state = state.iter().filter(|(is, _)| *is).map(|(_, word)| *word);
    let lost = lost.iter().map(String::as_str);
    let state: Vec<&str> = state.chain(lost).collect();
    let machine = setting.machine.split_once(": ");
    vec![
        setting
            .started_utc
            .replace('T', " ")
            .trim_end_matches('Z')
            .to_owned(),
        setting.suite.clone(),
        setting.revision.clone(),
        machine
            .map_or(setting.machine.as_str(), |(name, _)| name)
            .to_owned(),
        summary.bouts.len().to_string(),
        format!("{valid}/{all}"),
        state.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn every_folder_is_a_row_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            text(dir.path())
                .unwrap()
                .starts_with("no result folder in ")
        );
        let write = |folder: &str, file: &str, content: &str| {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(file), content).unwrap();
        };
        let runs = vec![
            test_data::echo_run("server-uring", 1, 120_000.0),
            test_data::failed(test_data::echo_run("server-tokio", 1, 1.0), "it died"),
        ];
        let results = test_data::results("x", "abc1234", runs);
        let (whole, lost) = ("2026-11-22T10-00-00Z-vm-abc1234", "2026-11-22T11-lost");
        for folder in [whole, lost] {
            let results = results.clone();
            let json = serde_json::to_string(&results.summary).unwrap();
            write(folder, "summary.json", &json);
            let json = serde_json::to_string(&results.environment).unwrap();
            write(folder, "environment.json", &json);
            for (run, number) in results.runs.iter().zip(1..) {
                let name = format!("runs/{}", run.bout);
                fs::create_dir_all(dir.path().join(folder).join(&name)).unwrap();
                let name = format!("{name}/{number:03}-{}.json", run.contestant);
                write(folder, &name, &serde_json::to_string(run).unwrap());
            }
        }
        let bout = dir
            .path()
            .join(lost)
            .join("runs")
            .join(&results.runs[0].bout);
        fs::remove_file(bout.join("002-server-tokio.json")).unwrap();
        write("2026-11-23-broken", "summary.json", "{}");
        write("2026-11-24-going-on", "environment.json", "{}");
        write("no-result", "README.md", "");
        let text = text(dir.path()).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert_eq!(
            rows[2][1..9],
            [
                "2026-11-22T10-00-00Z-vm-abc1234",
                "2026-11-22 10:00:00",
                "quick",
                "abc1234",
                "vm",
                "1",
                "1/2",
                "incomplete"
            ]
        );
        let state = "incomplete, runs/echo-64b-w1-c1000/002-server-tokio.json is missing";
        assert_eq!(rows[3][8], state);
        assert!(rows[4][8].starts_with("unreadable: "), "{text}");
        assert!(rows[5][8].starts_with("unfinished"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let message = format!("{:#}", text(Path::new("/nonexistent/results")).unwrap_err());
        assert!(message.contains("/nonexistent/results"), "{message}");
    }
}
