//! What is generated in docs/ is what the committed results give; README shows that plot.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn check(list: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args([Path::new("docs"), list, Path::new("--check")])
        .output()
        .unwrap()
}

#[test]
fn the_page_of_results_and_the_plot_follow_from_the_committed_folders() {
    let output = check(&docs().join("results.toml"));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn every_committed_folder_is_in_the_list() {
    let list = fs::read_to_string(docs().join("results.toml")).unwrap();
    for folder in committed::results() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(list.contains(name), "docs/results.toml leaves {name} out");
    }
}

#[test]
fn a_figure_that_was_typed_by_hand_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("results.toml");
    let results = fs::canonicalize(docs().join("../bench-results")).unwrap();
    let text = fs::read_to_string(docs().join("results.toml")).unwrap();
    let text = text.replace("../bench-results", results.to_str().unwrap());
    fs::write(&list, text).unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("docs")
        .arg(&list)
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    assert!(check(&list).status.success());

    let page = dir.path().join("results.md");
    let text = fs::read_to_string(&page).unwrap();
    fs::write(&page, text.replacen("10, ", "11, ", 1)).unwrap();
    assert_ne!(text, fs::read_to_string(&page).unwrap());
    let output = check(&list);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("results.md is not what"), "{message}");
    assert!(!message.contains("plot.svg"), "{message}");
}

#[test]
fn what_a_folder_does_not_have_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("results.toml");
    let is_of_referee = |folder: &PathBuf| {
        let summary = fs::read_to_string(folder.join("summary.json")).unwrap();
        summary.contains("\"suite\": \"referee\"")
    };
    let mut folders = committed::results().into_iter();
    let folder = folders.find(is_of_referee).unwrap();
    let folder = fs::canonicalize(folder).unwrap();
    let too_few = "[result.referee]\nrounds = 3\nrounds_at_rate = 5";
    for (against, more, says) in [
        ("nobody", "", "has no contestant `nobody`"),
        ("floor-tcp", "bouts = ['work-0']", "has no bout `work-0`"),
        ("floor-tcp", too_few, "below 4 rounds nothing is claimed"),
    ] {
        let text = format!(
            "[[result]]\nfolder = '{}'\ntitle = 't'\nabout = 'a'\nagainst = '{against}'\n{more}\n",
            folder.display()
        );
        fs::write(&list, text).unwrap();
        let output = check(&list);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(says), "{message}");
        assert!(message.contains(list.to_str().unwrap()) && output.stdout.is_empty());
    }
}

#[test]
fn the_readme_shows_the_plot_and_names_its_folder_first() {
    let readme = fs::read_to_string(docs().join("../README.md")).unwrap();
    assert!(readme.contains("](docs/plot.svg)"));
    let list = fs::read_to_string(docs().join("results.toml")).unwrap();
    let place = |folder: &PathBuf, text: &str| {
        let name = folder.file_name().unwrap().to_str().unwrap();
        text.find(name)
    };
    let first_in = |text: &str| {
        let named = committed::results().into_iter();
        let named = named.filter_map(|folder| Some((place(&folder, text)?, folder)));
        named.min().unwrap().1
    };
    let first = first_in(&list);
    assert_eq!(first_in(&readme), first);
    let name = first.file_name().unwrap().to_str().unwrap();
    assert!(!name.ends_with("-dirty"), "{name} headlines README");
}
