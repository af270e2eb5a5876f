//! Calls that are banned: everywhere, in tests, or in paths that peers reach.

use crate::{
    Fault, Tree,
    source::{Source, is_test},
};

/// Banned in every line of code.
const NOWHERE: &[(&str, &str)] = &[
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("dbg!(", "remove what was put in to look"),
];

/// Banned in every comment.
const NO_COMMENT: &[&str] = &["FIXME", "TODO", "XXX"];

/// What a peer sends is handled in these folders.
const PEERS_REACH: &[&str] = &[
    "ws-proto/src/",
    "server-core/src/",
    "server-tokio/src/",
    "server-uring/src/",
    "loadgen/src/engine/",
];

/// Banned where peers reach.
const NO_PANIC: &[&str] = &[".unwrap()", ".expect(", "panic!(", "unreachable!("];

/// The marker of a sleep that a test may have: a poll with a deadline, or a peer that is slow on
/// purpose. It stands in a comment directly before, and goes on with the reason.
const MAY_SLEEP: &str = "tidy: may sleep, ";

/// Calls that are banned everywhere, and comments that promise to finish later.
#[must_use]
pub fn unfinished(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, _, source) in tree.rust().filter(|(file, ..)| !is_ours(file)) {
        for (at, code) in source.code.iter().enumerate() {
            for (call, advice) in NOWHERE.iter().filter(|(call, _)| calls(code, call)) {
                faults.push(Fault::new(file, at + 1, format!("`{call}`: {advice}")));
            }
        }
        for (at, comment) in source.comments.iter().enumerate() {
            for word in NO_COMMENT.iter().filter(|word| comment.contains(*word)) {
                let what = format!("`{word}`: do it, or open an issue");
                faults.push(Fault::new(file, at + 1, what));
            }
        }
    }
    faults
}

/// Calls that panic, in code that what a peer sends can reach.
#[must_use]
pub fn panics(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, _, source) in tree.rust() {
        if !PEERS_REACH.iter().any(|folder| file.starts_with(folder)) || is_test(file) {
            continue;
        }
        for (at, code) in source.code.iter().enumerate() {
            for call in NO_PANIC.iter().filter(|call| calls(code, call)) {
                if !source.test[at] {
                    let what = format!("`{call}` where a peer can reach it: return an error");
                    faults.push(Fault::new(file, at + 1, what));
                }
            }
        }
    }
    faults
}

/// Reads of the wall clock in `src/` of the programs that measure, but in the files given: a clock
/// that may be set back gives names to moments, and no durations.
#[must_use]
pub fn wall_clocks(tree: &Tree, allowed: &[&str]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut needed = Vec::new();
    for (file, _, source) in tree.rust() {
        let measures = ["bench/src/", "loadgen/src/", "server-core/src/"];
        if !measures.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        for (at, code) in source.code.iter().enumerate() {
            if !calls(code, "SystemTime::now(") || source.test[at] {
                continue;
            }
            if allowed.contains(&file) {
                needed.push(file);
            } else {
                let what = "`SystemTime::now()`: it may be set back; take the monotonic clock";
                faults.push(Fault::new(file, at + 1, what));
            }
        }
    }
    for file in allowed.iter().filter(|file| !needed.contains(*file)) {
        faults.push(Fault::new(
            file,
            1,
            "reads no wall clock; end the exemption",
        ));
    }
    faults
}

/// Tests that sleep instead of waiting for a condition, and markers that allow no sleep.
#[must_use]
pub fn sleeps(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, _, source) in tree.rust().filter(|(file, ..)| !is_ours(file)) {
        for at in 0..source.code.len() {
            let sleeps = calls(&source.code[at], "sleep(");
            if sleeps && (source.test[at] || is_test(file)) && marker_before(source, at).is_none() {
                let what = format!(
                    "a test that sleeps: wait for a condition; a poll with a deadline and a peer \
                     that is slow on purpose say so before it: `// {MAY_SLEEP}REASON`"
                );
                faults.push(Fault::new(file, at + 1, what));
            }
            if source.comments[at].contains(MAY_SLEEP)
                && !(at..source.code.len()).any(|call| {
                    calls(&source.code[call], "sleep(") && marker_before(source, call) == Some(at)
                })
            {
                let what = "no sleep follows; remove the marker";
                faults.push(Fault::new(file, at + 1, what));
            }
        }
    }
    faults
}

/// The line of the marker in the comment that ends directly before line `call`.
fn marker_before(source: &Source, call: usize) -> Option<usize> {
    (0..call)
        .rev()
        .take_while(|at| source.code[*at].trim().is_empty() && !source.comments[*at].is_empty())
        .find(|at| source.comments[*at].contains(MAY_SLEEP))
}

/// Whether the file is of this crate, which names what it bans.
fn is_ours(file: &str) -> bool {
    file.starts_with("tidy/")
}

/// Whether `code` has `call` as a call: not as the end of a longer name.
fn calls(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        // A method `expect` of our own takes no message.
        let is_ours = call == ".expect(" && code[at + call.len()..].starts_with(')');
        let in_a_longer_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_ours && (call.starts_with('.') || !in_a_longer_name)
    })
}
