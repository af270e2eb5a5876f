//! The stages of `bench/src` import one way, from the top of [`LAYERS`] to its bottom, and the pure
//! ones do no I/O. Read from the text of the sources: comments and strings are left out; grouped
//! imports, paths inside expressions and `super::` are followed.

#![expect(
    clippy::unwrap_used,
    reason = "a source that cannot be read fails the test"
)]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// From bottom to top. A file may import its own layer and those below.
const LAYERS: [&str; 14] = [
    "units", "stats", "machine", "config", "record", "judge", "summary", "store", "output", "plan",
    "run", "suite", "cli", "main",
];
/// Layers that are functions of their arguments.
const PURE: [&str; 5] = ["units", "stats", "record", "judge", "summary"];
/// What a function of its arguments has no use for. Of `machine` there are the types.
const IMPURE: [&str; 10] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "rustix",
    "signal_hook",
];
/// Modules of tests, which tests of every layer may import and nothing else.
const FOR_TESTS: [&str; 2] = ["committed", "test_data"];

struct Token {
    text: String,
    line: usize,
}

/// Identifiers, `::` and single characters; no comment, string, character or lifetime.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut found, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            ('"', _) => i = end_of_string(&chars, i + 1),
            ('\'', '\\') => {
                i += 3;
                i += chars[i..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            // A lifetime.
            ('\'', _) => i += 1,
            (':', ':') => {
                i += 2;
                let text = "::".to_owned();
                found.push(Token { text, line });
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let word = |c: &&char| c.is_alphanumeric() || **c == '_';
                i += chars[i..].iter().take_while(word).count();
                let text: String = chars[start..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                if matches!(text.as_str(), "r" | "br") && at(i + hashes) == '"' {
                    let end: String = ["\"", &"#".repeat(hashes)].concat();
                    let rest: String = chars[i + hashes + 1..].iter().collect();
                    let length = rest
                        .find(&end)
                        .map_or(rest.len(), |bytes| bytes + end.len());
                    i += hashes + 1 + rest[..length.min(rest.len())].chars().count();
                } else if text == "b" && at(i) == '"' {
                    i = end_of_string(&chars, i + 1);
                } else {
                    found.push(Token { text, line });
                }
            }
            (c, _) => {
                i += 1;
                if !c.is_whitespace() {
                    let text = c.to_string();
                    found.push(Token { text, line });
                }
            }
        }
        line += chars[start..i.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    found
}

fn end_of_string(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// A path as it was written, in full.
#[derive(Debug, PartialEq)]
struct Import {
    segments: Vec<String>,
    line: usize,
    in_test: bool,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.segments.join("::"))
    }
}

/// All paths of a file whose module is `module`, with `crate`, `bench` and `super` resolved: those
/// of the crate begin with `crate`.
fn imports(source: &str, module: &[&str]) -> Vec<Import> {
    let tokens = tokens(source);
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let is_cfg_test =
        |i: usize| (0..7).all(|k| text(i + k) == ["#", "[", "cfg", "(", "test", ")", "]"][k]);
    // What each open brace belongs to: the name of a module inside the file, and whether it is of
    // a test.
    let mut open: Vec<(Option<String>, bool)> = Vec::new();
    let (mut found, mut i, mut name, mut next_is_test) = (Vec::new(), 0, None, false);
    while i < tokens.len() {
        let in_test = next_is_test || open.iter().any(|(_, test)| *test);
        match text(i) {
            "#" if is_cfg_test(i) => (next_is_test, i) = (true, i + 6),
            "mod" => name = Some(text(i + 1).to_owned()),
            "{" => {
                open.push((name.take(), next_is_test));
                next_is_test = false;
            }
            "}" => _ = open.pop(),
            ";" => (name, next_is_test) = (None, false),
            word if starts_path(word) && text(i + 1) == "::" => {
                let inside = open.iter().filter_map(|(name, _)| name.as_deref());
                let here: Vec<&str> = module.iter().copied().chain(inside).collect();
                let first = found.len();
                i = leaves(&tokens, i, &mut Vec::new(), &mut found);
                for import in &mut found[first..] {
                    import.in_test = in_test;
                    import.segments = absolute(&import.segments, &here);
                }
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

fn starts_path(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Appends every path of the tree that begins at token `i`; the place behind it.
fn leaves(
    tokens: &[Token],
    mut i: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Import>,
) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let length = prefix.len();
    let line = tokens[i].line;
    loop {
        if text(i) == "{" {
            i += 1;
            while text(i) != "}" && i < tokens.len() {
                i = leaves(tokens, i, prefix, found);
                while text(i) == "," || text(i) == "as" {
                    i += if text(i) == "as" { 2 } else { 1 };
                }
            }
            prefix.truncate(length);
            return i + 1;
        }
        prefix.push(text(i).to_owned());
        // `::<` begins arguments, not a segment.
        let goes_on =
            text(i + 1) == "::" && (starts_path(text(i + 2)) || "{*".contains(text(i + 2)));
        i += if goes_on { 2 } else { 1 };
        if !goes_on {
            break;
        }
    }
    found.push(Import {
        segments: prefix.clone(),
        line,
        in_test: false,
    });
    prefix.truncate(length);
    i
}

fn absolute(path: &[String], module: &[&str]) -> Vec<String> {
    let ups = path.iter().take_while(|one| *one == "super").count();
    let own = |depth: usize| ["crate"].into_iter().chain(module[..depth].iter().copied());
    let (base, rest): (Vec<&str>, &[String]) = match path[0].as_str() {
        "super" => (
            own(module.len().saturating_sub(ups)).collect(),
            &path[ups..],
        ),
        "self" => (own(module.len()).collect(), &path[1..]),
        "bench" => (vec!["crate"], &path[1..]),
        _ => (Vec::new(), path),
    };
    let rest = rest.iter().map(String::as_str).filter(|one| *one != "self");
    base.into_iter().chain(rest).map(str::to_owned).collect()
}

/// What is wrong with the imports of `file`, a path below `bench/src`: `file:line: what`.
fn faults(file: &str, source: &str) -> Vec<String> {
    let module: Vec<&str> = file
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| *part != "mod")
        .collect();
    let of_tests = module.last() == Some(&"tests");
    let rank = |layer: &str| LAYERS.iter().position(|one| *one == layer);
    let Some(own) = rank(module[0]) else {
        return vec![format!(
            "{file}:1: `{}` is no layer of {LAYERS:?}",
            module[0]
        )];
    };
    let judge = |import: &Import| -> Option<String> {
        let layer = import.segments.get(1).map_or("", String::as_str);
        let in_test = import.in_test || of_tests;
        if import.segments[0] != "crate" {
            let path = import.to_string();
            let is = |what: &&str| path == **what || path.starts_with(&format!("{what}::"));
            let io = !in_test && PURE.contains(&module[0]) && IMPURE.iter().any(is);
            return io.then(|| format!("`{}` is pure, `{import}` is not", module[0]));
        }
        if FOR_TESTS.contains(&layer) {
            return (!in_test).then(|| format!("`{import}` is for tests"));
        }
        match rank(layer) {
            None => Some(format!("`{import}` is in no layer")),
            Some(other) if other > own => Some(format!(
                "`{}` must not import `{import}`, a layer above it",
                module[0]
            )),
            Some(_) if layer == "machine" && PURE.contains(&module[0]) && !in_test => {
                let is_type = import
                    .segments
                    .iter()
                    .any(|one| one.starts_with(char::is_uppercase));
                (!is_type).then(|| format!("`{}` is pure, `{import}` is not", module[0]))
            }
            Some(_) => None,
        }
    };
    let found = imports(source, &module);
    found
        .iter()
        .filter_map(|import| Some(format!("{file}:{}: {}", import.line, judge(import)?)))
        .collect()
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
        .iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap().to_str().unwrap();
            (below.to_owned(), fs::read_to_string(path).unwrap())
        })
        // The root declares the layers; test data knows all of them.
        .filter(|(file, _)| !["lib.rs", "test_data.rs"].contains(&file.as_str()))
        .collect()
}

#[test]
fn imports_run_one_way() {
    let sources = sources();
    assert!(sources.len() > 60, "{} files", sources.len());
    let found: Vec<String> = sources
        .iter()
        .flat_map(|(file, source)| faults(file, source))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_import_is_found_with_its_line() {
    let (file, source) = sources()
        .into_iter()
        .find(|(file, _)| file == "judge/metrics.rs")
        .unwrap();
    assert_eq!(faults(&file, &source), [""; 0]);
    let line = source.lines().count() + 1;
    for planted in [
        "use crate::output::table::Table;",
        "use crate::{config::Kind, summary::{Bout, verdict::Verdict}};",
        "use super::super::suite::resume;",
        "fn f() -> u8 { crate::run::server::Server::stop() }",
        "mod inside { fn f() { super::super::super::plan::order::order_of_bouts(1, 1, 1); } }",
        "use crate::test_data;",
        "use crate::nowhere::Thing;",
        "use std::{collections::BTreeMap, fs};",
        "use std::time::{Duration, Instant};",
        "fn f() -> u64 { crate::machine::proc::unix_ns() }",
    ] {
        let found = faults(&file, &format!("{source}{planted}\n"));
        assert!(!found.is_empty(), "{planted}");
        let place = format!("judge/metrics.rs:{line}: ");
        assert!(found.iter().all(|one| one.starts_with(&place)), "{found:?}");
    }
    for harmless in [
        "// use crate::output::table::Table;",
        "/* crate::suite::run /* nested */ crate::suite::run */",
        "const A: &str = \"crate::suite::run\"; const B: char = '\"';",
        "const C: &str = r#\"\"crate::suite::run\"#;",
        "fn f<'a>(x: &'a str) -> &'a str { x }",
        "use crate::{stats::{self, Direction}, record::*};",
        "use crate::machine::proc::{CpuTicks, KernelMemory as Memory};",
        "mod inside { use super::super::checks; }",
        "#[cfg(test)] mod more { use crate::test_data; use std::fs; }",
    ] {
        let found = faults(&file, &format!("{source}{harmless}\n"));
        assert!(found.is_empty(), "{harmless}: {found:?}");
    }
    let above = faults(
        "main.rs",
        "use bench::suite;\nuse bench::{cli::Cli, run};\n",
    );
    assert_eq!(above, [""; 0]);
    let unknown = faults("misc/mod.rs", "");
    assert!(unknown[0].contains("is no layer"), "{unknown:?}");
}
