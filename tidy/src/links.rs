//! Links in Markdown that lead nowhere: to a file of the repository, or to a heading.

use std::collections::BTreeMap;

use crate::{Fault, Tree};

/// Links to files that do not exist, and to headings that no page has.
#[must_use]
pub fn dead(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, text) in tree.texts(&[".md"]) {
        for (line, target) in links(text) {
            if let Err(what) = follow(tree, file, target) {
                faults.push(Fault::new(file, line, what));
            }
        }
    }
    faults
}

fn follow(tree: &Tree, file: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() {
        file.to_owned()
    } else {
        resolve(file, path).ok_or_else(|| format!("{target} leads out of the repository"))?
    };
    if !tree.has(&path) {
        return Err(format!("{target} leads nowhere: there is no {path}"));
    }
    let page = tree.text(&path).filter(|_| path.ends_with(".md"));
    match page {
        Some(page) if !anchor.is_empty() && !anchors(page).contains_key(anchor) => Err(format!(
            "{target} leads nowhere: {path} has no such heading"
        )),
        _ => Ok(()),
    }
}

/// `path` as seen from `file`, from the root of the repository.
fn resolve(file: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Lines of a page that are no code block, from 1.
pub(crate) fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((at + 1, line))
    })
}

/// The targets of `[text](target)` and `[name]: target`, with their lines.
fn links(page: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(page).flat_map(|(line, text)| {
        // Every second part stands between backquotes.
        let quoted = text.split('`').enumerate();
        let plain = quoted.filter(|(at, _)| at % 2 == 0).map(|(_, part)| part);
        let inline = plain.flat_map(|part| {
            let targets = part.split("](").skip(1);
            targets.filter_map(|rest| rest.split([')', ' ']).next())
        });
        let defined = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, target)| target.trim());
        inline.chain(defined).map(move |target| (line, target))
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeMap<String, ()> {
    let mut anchors = BTreeMap::new();
    for (_, line) in prose(page) {
        let title = line.trim_start_matches('#');
        let Some(title) = title.strip_prefix(' ').filter(|_| title != line) else {
            continue;
        };
        let kept = title.trim().chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        let anchor: String = kept.flat_map(char::to_lowercase).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone())
            .chain(again)
            .find(|name| !anchors.contains_key(name));
        anchors.extend(free.map(|name| (name, ())));
    }
    anchors
}
