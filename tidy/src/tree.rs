//! The files of the repository, and the faults found in them.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::source::Source;

/// Files of thousands of runs, whose text no rule is about.
const MEASURED: &[&str] = &[".hgrm", ".hlog", ".stdout", ".stderr"];

/// Files of a repository by their path from its root, with `/` between folders.
#[derive(Debug, Default)]
pub struct Tree {
    /// `None`: not UTF-8, or of [`MEASURED`].
    files: BTreeMap<String, Option<String>>,
    rust: OnceLock<BTreeMap<String, Source>>,
}

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Path from the root of the repository.
    pub file: String,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl Fault {
    /// A fault in a line, counted from 1.
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Fault {
        Fault {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// The root of this repository.
#[must_use]
pub fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder).to_owned()
}

impl Tree {
    /// Every file of this repository that git tracks, or would track if it were added.
    ///
    /// # Errors
    ///
    /// When git cannot list the files, or one of them cannot be read.
    pub fn of_the_repository() -> io::Result<Tree> {
        let root = root();
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
                // A result belongs to the tree once it is committed; before, it is the user's.
                "--exclude=/bench-results/*/",
            ])
            .current_dir(&root)
            .output()?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr);
            return Err(io::Error::other(format!(
                "git cannot list the files of {}: {}",
                root.display(),
                said.trim()
            )));
        }
        let mut tree = Tree::default();
        for name in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            if MEASURED.iter().any(|ending| name.ends_with(ending)) {
                tree.files.insert(name.to_owned(), None);
                continue;
            }
            match fs::read(root.join(name)) {
                Ok(bytes) => {
                    let text = String::from_utf8(bytes).ok();
                    tree.files.insert(name.to_owned(), text);
                }
                // Deleted, but still in the index.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::other(format!("{name}: {error}"))),
            }
        }
        Ok(tree)
    }

    /// A tree of the given paths and texts, for tests of the rules.
    #[must_use]
    pub fn planted(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned())))
                .collect(),
            ..Tree::default()
        }
    }

    /// Every path, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether `path` is a file, or a folder with a file in it.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains_key(path)
            || self.paths().any(|file| file.starts_with(&folder))
    }

    /// The text of the file at `path`; `None` where there is none, or it is not UTF-8.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// The texts of all files whose path ends in one of `endings`.
    pub fn texts(&self, endings: &[&str]) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)))
            .filter_map(|(name, text)| Some((name.as_str(), text.as_deref()?)))
    }

    /// All Rust files, with their text, taken apart.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str, &Source)> {
        let rust = self.rust.get_or_init(|| {
            let texts = self.texts(&[".rs"]);
            texts
                .map(|(name, text)| (name.to_owned(), Source::parse(text)))
                .collect()
        });
        rust.iter().filter_map(|(name, source)| {
            let text = self.text(name)?;
            Some((name.as_str(), text, source))
        })
    }
}

/// Fails with all faults, one per line.
///
/// # Panics
///
/// When there is a fault: it is the assertion of a test.
pub fn assert_none(faults: &[Fault]) {
    let said: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        said.join("\n")
    );
}
