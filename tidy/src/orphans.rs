//! Files that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Fault, Tree};

/// Files that tools or people open by these names, wherever they are.
const KNOWN: &[&str] = &[
    ".ci/run",
    ".github/workflows/",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-",
    "README.md",
    "clippy.toml",
    "rustfmt.toml",
];

/// Committed results: each folder is named as a whole.
const RESULTS: &str = "bench-results/";

/// Files that no module, no other file and no tool refers to.
#[must_use]
pub fn unreferenced(tree: &Tree) -> Vec<Fault> {
    let modules = modules(tree);
    let names = names(tree);
    let is_named = |file: &str, name: &str| {
        names
            .get(name)
            .is_some_and(|files| files.iter().any(|other| *other != file))
    };
    let mut orphans = BTreeSet::new();
    for file in tree.paths() {
        let base = file.rsplit('/').next().unwrap_or(file);
        let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        let of_result = file
            .strip_prefix(RESULTS)
            .and_then(|rest| rest.split_once('/'));
        let is_known = KNOWN
            .iter()
            .any(|known| file.starts_with(known) || base == *known);
        // A snapshot bears the name of its test; a scenario, a suite and an example are called by
        // their name alone.
        let short = match base.rsplit_once('.') {
            Some((name, "snap")) => name.rsplit("__").next(),
            Some((_, "toml")) if file.starts_with("bench/") => Some(stem),
            Some((_, "rs")) if file.contains("/examples/") => Some(stem),
            _ => None,
        };
        if let Some((folder, _)) = of_result {
            if !names.contains_key(folder) {
                orphans.insert(format!("{RESULTS}{folder}"));
            }
        } else if !is_known
            && !modules.contains(file)
            && !is_named(file, base)
            && !short.is_some_and(|short| is_named(file, short))
        {
            orphans.insert(file.to_owned());
        }
    }
    let what = "nothing refers to it: name it where it is used, or remove it";
    let orphans = orphans.into_iter();
    orphans.map(|file| Fault::new(&file, 0, what)).collect()
}

/// Every word that could be the name of a file, with the files it stands in. Results name each
/// other's files, and are left out.
fn names(tree: &Tree) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let texts = tree.texts(&[""]);
    let texts = texts.filter(|(file, _)| {
        let is_data = file.starts_with(RESULTS) && !file.ends_with("README.md");
        // The planted trees of our own tests are full of names.
        !is_data && !file.ends_with("Cargo.lock") && !file.starts_with("tidy/tests/")
    });
    for (file, text) in texts {
        let is_name = |c: char| c.is_alphanumeric() || "._-".contains(c);
        for word in text.split(|c: char| !is_name(c)) {
            let word = word.trim_end_matches('.');
            if word.len() > 2 {
                names.entry(word).or_default().insert(file);
            }
        }
    }
    names
}

/// Every Rust file that Cargo builds: the roots of crates, and the modules below them. Examples are
/// roots, but must be named.
fn modules(tree: &Tree) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let sources: BTreeMap<&str, _> = tree
        .rust()
        .map(|(file, _, source)| (file, source))
        .collect();
    let mut open: Vec<String> = tree
        .paths()
        .filter(|file| is_root(file))
        .map(str::to_owned)
        .collect();
    while let Some(file) = open.pop() {
        let Some(source) = sources.get(file.as_str()) else {
            continue;
        };
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let is_top = is_root(&file) || name == "mod.rs";
        let below = match name.strip_suffix(".rs") {
            Some(stem) if !is_top => format!("{folder}/{stem}"),
            _ => folder.to_owned(),
        };
        for module in source.code.iter().filter_map(|line| module_name(line)) {
            open.push(format!("{below}/{module}.rs"));
            open.push(format!("{below}/{module}/mod.rs"));
        }
        if !file.contains("/examples/") {
            found.insert(file);
        }
    }
    found
}

/// Whether Cargo takes the file for the root of a crate.
fn is_root(file: &str) -> bool {
    let parts: Vec<&str> = file.rsplitn(3, '/').collect();
    match parts[..] {
        [name, "tests" | "benches" | "examples" | "bin", _] => name.ends_with(".rs"),
        ["main.rs", folder, rest] => folder == "src" || rest.ends_with("/tests"),
        ["lib.rs", "src", _] | ["build.rs", ..] => true,
        _ => false,
    }
}

/// The name in `mod name;`, with whatever stands before it.
fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
    let is_module = before.is_empty() || before.starts_with("pub") || before.ends_with("] ");
    is_module.then_some(name)
}
