//! Figures in README.md that no committed result gives.
//!
//! `docs/results.md` is made from the folders, which bench's own test holds it to; a figure of
//! README stands there, or in the `summary.md` of a committed folder.

use std::collections::BTreeSet;

use crate::{Fault, Tree};

/// Where figures are quoted.
const QUOTES: &str = "README.md";

/// A ratio, and its interval where it has one, as written.
type Figure<'a> = (&'a str, Option<(&'a str, &'a str)>);

/// Ratios of README, `1.23x`, alone or with an interval, `[1.10, 1.30]`, that no result gives.
#[must_use]
pub fn unfounded(tree: &Tree) -> Vec<Fault> {
    let Some(quotes) = tree.text(QUOTES) else {
        return Vec::new();
    };
    let given: BTreeSet<Figure<'_>> = tree
        .texts(&["docs/results.md", "/summary.md"])
        .flat_map(|(_, text)| figures(text))
        .map(|(_, figure)| figure)
        .collect();
    let alone: BTreeSet<&str> = given.iter().map(|(ratio, _)| *ratio).collect();
    figures(quotes)
        .into_iter()
        .filter(|(_, figure)| match figure {
            (ratio, None) => !alone.contains(ratio),
            whole => !given.contains(whole),
        })
        .map(|(line, (ratio, interval))| {
            let interval =
                interval.map_or(String::new(), |(low, high)| format!(" [{low}, {high}]"));
            let what = format!("{ratio}{interval} is in no committed result");
            Fault::new(QUOTES, line, what)
        })
        .collect()
}

/// The ratios in `text` with the lines they stand in, from 1. The interval of a ratio follows it
/// within a word or two, on the next line too.
fn figures(text: &str) -> Vec<(usize, Figure<'_>)> {
    let mut figures: Vec<(usize, Figure<'_>)> = Vec::new();
    // Words since the last ratio, which may still get its interval.
    let mut since = 0;
    let words = text.lines().enumerate().flat_map(|(at, line)| {
        let words = line.split([' ', '|', '*', '(', ')']);
        words
            .filter(|word| !word.is_empty())
            .map(move |word| (at + 1, word))
    });
    let mut words = words.peekable();
    while let Some((line, word)) = words.next() {
        since += 1;
        if let Some(low) = word
            .strip_prefix('[')
            .and_then(|word| word.strip_suffix(','))
        {
            let high = words.peek().and_then(|(_, word)| word.split_once(']'));
            if let (Some((high, _)), Some((_, last)), 1..=3) = (high, figures.last_mut(), since)
                && is_number(low)
                && is_number(high)
            {
                last.1 = Some((low, high));
            }
        } else {
            let number = word.trim_end_matches([',', '.', ':', ';']);
            let ratio = number.strip_suffix('x').unwrap_or(number);
            let decimals = ratio
                .split_once('.')
                .map_or(0, |(_, decimals)| decimals.len());
            // A number without an `x` is a ratio only if an interval follows.
            let is_named =
                ratio != number || words.peek().is_some_and(|(_, next)| next.starts_with('['));
            if decimals == 2 && is_number(ratio) && is_named {
                figures.push((line, (ratio, None)));
                since = 0;
            }
        }
    }
    figures
}

fn is_number(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}
