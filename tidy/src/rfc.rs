//! Coverage of RFC 6455: requirements as data, tags beside code and tests, and the table of both.
//!
//! A tag is a comment of its own, before an item, in a function or behind a line of it, and names
//! requirements of `tidy/rfc6455.toml` by their ids:
//!
//! ```text
//! // RFC 6455 section 5.1: client-masks, unmasked-closes
//! ```

use std::{collections::BTreeSet, fmt::Write};

use serde::Deserialize;

use crate::{Fault, Tree, source::is_test};

/// The list of requirements.
pub const LIST: &str = "tidy/rfc6455.toml";

/// The table that is made from the list and the tags.
pub const TABLE: &str = "docs/rfc6455.md";

/// What a tag begins with. Written in two parts, so that this line is none.
const TAG: &str = concat!("// RFC 6455", " section ");

/// One requirement of the RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    id: String,
    section: String,
    role: Role,
    level: Level,
    text: String,
    /// Why it is not met, or cannot be tested.
    exempt: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Server,
    Client,
    Both,
    Intermediary,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
}

#[derive(Debug, Deserialize)]
struct List {
    requirement: Vec<Requirement>,
}

/// A tag, for one of the requirements that it names.
#[derive(Debug)]
struct Tag<'a> {
    id: &'a str,
    section: &'a str,
    file: &'a str,
    /// From 1.
    line: usize,
    function: Option<&'a str>,
    is_test: bool,
}

/// The requirements in [`LIST`].
///
/// # Errors
///
/// When the list is missing or not well-formed.
pub fn requirements(tree: &Tree) -> Result<Vec<Requirement>, Fault> {
    let text = tree
        .text(LIST)
        .ok_or_else(|| Fault::new(LIST, 0, "missing"))?;
    let list: List =
        toml::from_str(text).map_err(|error| Fault::new(LIST, 0, error.to_string()))?;
    Ok(list.requirement)
}

fn tags(tree: &Tree) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    for (file, _, source) in tree.rust().filter(|(file, ..)| !file.starts_with("tidy/")) {
        for (at, comment) in source.comments.iter().enumerate() {
            let named = comment.trim().strip_prefix(TAG);
            let Some((section, ids)) = named.and_then(|named| named.split_once(": ")) else {
                continue;
            };
            tags.extend(ids.split(", ").map(|id| Tag {
                id,
                section,
                file,
                line: at + 1,
                function: source.function_at(at),
                is_test: source.test[at] || is_test(file),
            }));
        }
    }
    tags
}

/// Tags that name no requirement or the wrong section; requirements listed twice, without code,
/// without a test, or exempt in vain.
#[must_use]
pub fn gaps(tree: &Tree) -> Vec<Fault> {
    let requirements = match requirements(tree) {
        Ok(requirements) => requirements,
        Err(fault) => return vec![fault],
    };
    let tags = tags(tree);
    let mut faults = Vec::new();
    for tag in &tags {
        let mut named = requirements.iter().filter(|known| known.id == tag.id);
        let what = match named.next() {
            None => format!("`{}` is no requirement in {LIST}", tag.id),
            Some(known) if known.section != tag.section => {
                format!("`{}` is of section {}", tag.id, known.section)
            }
            Some(_) => continue,
        };
        faults.push(Fault::new(tag.file, tag.line, what));
    }
    let mut seen = BTreeSet::new();
    for Requirement { id, exempt, .. } in &requirements {
        let is_tagged = |test| {
            tags.iter().any(|tag| {
                tag.id == *id && tag.is_test == test && (!test || tag.function.is_some())
            })
        };
        let what = match (is_tagged(false), is_tagged(true), exempt) {
            _ if !seen.insert(id) => "is listed twice",
            (true, true, Some(_)) => "is exempt, but there are code and a test: remove `exempt`",
            (false, _, None) => "has no tag beside code",
            (_, false, None) => "has no tag in the function of a test",
            _ => continue,
        };
        faults.push(Fault::new(LIST, 0, format!("`{id}` {what}")));
    }
    faults
}

/// The text of [`TABLE`].
///
/// # Errors
///
/// When the list is missing or not well-formed.
pub fn table(tree: &Tree) -> Result<String, Fault> {
    let requirements = requirements(tree)?;
    let tags = tags(tree);
    let exempt = requirements.iter().filter(|one| one.exempt.is_some());
    let mut text = format!(
        "# RFC 6455, requirement by requirement\n\n\
         Made by `cargo run -p tidy` from [tidy/rfc6455.toml](../tidy/rfc6455.toml) and the tags \
         beside\ncode and tests; `cargo test -p tidy` fails when this page differs from what they \
         give, or when a\nrequirement has no code or no test. {} requirements, {} of them exempt, \
         with the reason.\n",
        requirements.len(),
        exempt.count(),
    );
    let mut section = "";
    for requirement in &requirements {
        if requirement.section != section {
            section = &requirement.section;
            let _ = write!(
                text,
                "\n## Section {section}\n\n\
                 | requirement | level | for | code | tests |\n|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(text, "{}", row(requirement, &tags));
    }
    Ok(text)
}

fn row(requirement: &Requirement, tags: &[Tag<'_>]) -> String {
    let level = match requirement.level {
        Level::Must => "MUST",
        Level::MustNot => "MUST NOT",
    };
    let role = match requirement.role {
        Role::Server => "server",
        Role::Client => "client",
        Role::Both => "both",
        Role::Intermediary => "intermediary",
    };
    let places = |test: bool| {
        let of_this = |tag: &&Tag<'_>| tag.id == requirement.id && tag.is_test == test;
        let places: BTreeSet<String> = tags.iter().filter(of_this).map(place).collect();
        Vec::from_iter(places).join("<br>")
    };
    let (code, mut tests) = (places(false), places(true));
    if let Some(reason) = &requirement.exempt {
        tests = format!("exempt: {reason}");
    }
    let Requirement { id, text, .. } = requirement;
    format!("| {text} `{id}` | {level} | {role} | {code} | {tests} |")
}

/// By function, for line numbers go stale.
fn place(tag: &Tag<'_>) -> String {
    match tag.function {
        Some(function) => format!("`{}` {function}", tag.file),
        None => format!("`{}`", tag.file),
    }
}
