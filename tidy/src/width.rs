//! Width of lines and length of files.

use crate::{Fault, Tree, links::prose};

/// Columns of code and of comments.
pub const COLUMNS: usize = 100;

/// Lines of a file.
pub const LINES: usize = 600;

/// What is written by hand and not prose.
const CODE: &[&str] = &[".rs", ".sh", ".py", ".mjs", ".cpp", ".css"];

/// Lines of Rust that are wider than [`COLUMNS`].
///
/// A line that is wider only because of one string literal may stand: rustfmt leaves it, and a
/// message that is cut in two is not found by a search. So may a row of a table in a comment.
#[must_use]
pub fn wide_lines(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, text, source) in tree.rust() {
        for (at, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            let may_stand = columns - source.literal_columns[at] <= COLUMNS
                || ["/// |", "//! |"]
                    .iter()
                    .any(|row| line.trim().starts_with(row));
            if columns > COLUMNS && !may_stand {
                let what = format!("{columns} columns; wrap at {COLUMNS}");
                faults.push(Fault::new(file, at + 1, what));
            }
        }
    }
    faults
}

/// Lines of Markdown that are wider than [`COLUMNS`]: not those of tables and of code blocks, and
/// not those that hold a link, which cannot be cut.
#[must_use]
pub fn wide_prose(tree: &Tree) -> Vec<Fault> {
    let pages = tree.texts(&[".md"]);
    // The summaries of results are made by bench, for a renderer.
    let pages = pages.filter(|(file, _)| !file.ends_with("/summary.md"));
    let lines = pages.flat_map(|(file, text)| prose(text).map(move |line| (file, line)));
    lines
        .filter(|(_, (_, line))| {
            let may_stand = line.trim_start().starts_with('|') || line.contains("](");
            line.chars().count() > COLUMNS && !may_stand
        })
        .map(|(file, (at, _))| Fault::new(file, at, format!("wrap at {COLUMNS} columns")))
        .collect()
}

/// Files longer than [`LINES`], but for those in `exempt`; and entries of `exempt` that are not
/// needed. An entry is a path and the reason why the file is one.
#[must_use]
pub fn long_files(tree: &Tree, exempt: &[(&str, &str)]) -> Vec<Fault> {
    let too_long = |text: &str| text.lines().count() > LINES;
    let is_exempt = |file: &str| exempt.iter().any(|(path, _)| *path == file);
    let mut faults: Vec<Fault> = tree
        .texts(CODE)
        .filter(|(file, text)| too_long(text) && !is_exempt(file))
        .map(|(file, text)| {
            let lines = text.lines().count();
            Fault::new(file, 0, format!("{lines} lines; split it at {LINES}"))
        })
        .collect();
    for (file, _) in exempt {
        if !tree.text(file).is_some_and(too_long) {
            let what = format!("exempt from {LINES} lines without need; remove the exemption");
            faults.push(Fault::new(file, 0, what));
        }
    }
    faults
}
