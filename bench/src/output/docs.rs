//! `bench docs`: a page of tables and a plot from the committed results, so that no figure in the
//! documentation is typed by hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::html;
use super::table::Table;
use super::text::figures::{SCALE_LEGEND, figures_of};
use super::text::{cell, missing, spread};
use super::where_slower::where_slower;
use crate::config::ScenarioKind;
use crate::judge::metrics::{self, Metric};
use crate::store::load::load_summary;
use crate::summary::{Advantage, Bout, ContestantResult, Summary};

const HEAD: &str = "\
# Results

Made by `bench docs` from the folders that [results.toml](results.toml) lists; a test fails when
this page differs from what they give. Do not edit it.

How to read it: *median* is that of n runs, ± their median absolute deviation. *x REF* is how many
times better than the contestant REF, with its 95% interval: the median ratio of paired runs, above
1 is better, in every metric. **Bold**: a difference is shown (interval and signed-rank test agree,
n is 10 or more); otherwise no difference is detectable at this n. `10 ?3` are ten runs that count,
three of them marked doubtful. [method.md](method.md) says how a result is made, [bias.md](bias.md)
what may bend it. Each folder has every comparison of every pair, and every run.
";

/// What the page shows: `docs/results.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// In the order of the page.
    #[serde(rename = "result")]
    pub results: Vec<Entry>,
}

/// A committed result.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its folder, relative to the list.
    pub folder: String,
    /// Heading of its section.
    pub title: String,
    /// Markdown under it.
    pub about: String,
    /// The contestant that the others are compared with.
    pub against: String,
}

/// A file with what it should say.
pub type Page = (PathBuf, String);

/// The files that the list at this path asks for.
///
/// # Errors
/// When the list or a summary cannot be read, or a result has no contestant of the name given.
pub fn pages(list: &Path) -> Result<Vec<Page>> {
    let text =
        fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let entries: List = toml::from_str(&text)
        .with_context(|| format!("{} cannot be understood", list.display()))?;
    let folder = list.parent().unwrap_or(Path::new("."));
    let mut results = Vec::new();
    for entry in entries.results {
        let summary = load_summary(&folder.join(&entry.folder))?;
        let mut names = summary.setting.contestants.iter().map(|one| &one.name);
        ensure!(
            names.any(|name| *name == entry.against),
            "{}: {} has no contestant `{}`",
            list.display(),
            entry.folder,
            entry.against
        );
        results.push((entry, summary));
    }
    let (first, summary) = results
        .first()
        .with_context(|| format!("{} lists no result", list.display()))?;
    let plot = html::plot(summary, Some(&first.against))?;
    Ok(vec![
        (folder.join("results.md"), page(&results)),
        (folder.join("plot.svg"), plot),
    ])
}

fn page(results: &[(Entry, Summary)]) -> String {
    let mut text = HEAD.to_owned();
    for (entry, summary) in results {
        text.push_str(&section(entry, summary));
    }
    text.push_str("\n## What these bouts do not show\n\n");
    for (names, words) in not_shown(results.iter().flat_map(|(_, summary)| &summary.bouts)) {
        text.push_str(&wrapped(
            "- ",
            &format!("**{}**: {words}", names.join(", ")),
        ));
    }
    text
}

/// What is said of each bout once, with the names of all bouts that it is said of.
fn not_shown<'a>(bouts: impl Iterator<Item = &'a Bout>) -> Vec<(Vec<&'a str>, &'a str)> {
    let mut said: Vec<(Vec<&str>, &str)> = Vec::new();
    for scenario in bouts.map(|bout| &bout.scenario) {
        let words = scenario.does_not_show.as_str();
        match said.iter_mut().find(|(_, known)| *known == words) {
            Some((names, _)) if names.contains(&scenario.name.as_str()) => {}
            Some((names, _)) => names.push(&scenario.name),
            None => said.push((vec![&scenario.name], words)),
        }
    }
    said
}

fn section(entry: &Entry, summary: &Summary) -> String {
    let setting = &summary.setting;
    let folder = &entry.folder;
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let mut text = format!("\n## {}\n\n", entry.title);
    for paragraph in entry.about.trim().split("\n\n") {
        text.push_str(&wrapped("", paragraph));
        text.push('\n');
    }
    text.push_str(&format!("[{name}]({folder}/summary.md)\n\n"));
    for (what, value) in [
        (
            "suite",
            format!("`{}`, blocks: {}", setting.suite, setting.repeats),
        ),
        ("when", setting.started_utc.clone()),
        ("revision", setting.revision.clone()),
        ("machine", setting.machine.clone()),
        (
            "CPUs",
            format!(
                "servers {}, generator {}",
                setting.server_cpus, setting.generator_cpus
            ),
        ),
    ] {
        text.push_str(&wrapped("- ", &format!("{what}: {value}")));
    }
    for line in noise(summary) {
        text.push_str(&wrapped(
            "- ",
            &format!("one contestant against itself: {line}"),
        ));
    }
    text.push_str(&uncounted(summary));
    text.push('\n');
    let (scale, others): (Vec<&Bout>, Vec<&Bout>) = summary
        .bouts
        .iter()
        .partition(|bout| bout.scenario.kind == ScenarioKind::Scale);
    if !others.is_empty() {
        text.push_str(&table(&others, &entry.against).render());
    }
    if !scale.is_empty() {
        text.push_str(&figures_of(ScenarioKind::Scale, &scale));
        text.push('\n');
        text.push_str(&wrapped("", SCALE_LEGEND));
    }
    let behind = behind(summary);
    if !behind.is_empty() {
        text.push_str("\n### Where each is behind\n\n");
        text.push_str(&behind);
    }
    text
}

fn behind(summary: &Summary) -> String {
    let mut text = String::new();
    for entrant in where_slower(summary) {
        if !entrant.bouts.is_empty() {
            text.push_str(&format!("- **{}**\n", entrant.contestant));
        }
        for (bout, words) in entrant.bouts {
            text.push_str(&wrapped("  - ", &format!("{bout}: {words}")));
        }
    }
    text
}

/// A row per bout and contestant.
fn table(bouts: &[&Bout], against: &str) -> Table {
    let factor = format!("x {against}");
    let headings = [
        "bout",
        "contestant",
        "n",
        "by",
        "median",
        &factor,
        "CPU each",
        &factor,
        "memory/connection",
    ];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![2, 4, 5, 6, 7, 8]);
    for bout in bouts {
        let kind = bout.scenario.kind;
        let headline = metrics::find(kind, &bout.headline);
        let cpu = metrics::server_cpu(kind);
        let memory = metrics::find(kind, "server_bytes_per_connection");
        let rivals = bout.contestants.iter();
        for result in rivals.filter(|result| !is_again(bout, &result.contestant)) {
            let median = |metric: Option<&Metric>| {
                metric.map_or_else(missing, |metric| {
                    cell(metric.unit, spread(result, metric.key))
                })
            };
            let better = |metric: Option<&Metric>| {
                let advantage = metric
                    .and_then(|metric| bout.advantage(&result.contestant, against, metric.key));
                advantage.map_or_else(String::new, factor_of)
            };
            table.row(vec![
                bout.scenario.name.clone(),
                result.contestant.clone(),
                runs(result),
                headline.map_or("", |metric| metric.title).to_owned(),
                median(headline),
                better(headline),
                median(cpu),
                better(cpu),
                median(memory),
            ]);
        }
    }
    table
}

fn factor_of(advantage: Advantage) -> String {
    let Advantage {
        ratio, low, high, ..
    } = advantage;
    let words = format!("{ratio:.2} [{low:.2}, {high:.2}]");
    if advantage.shown {
        format!("**{words}**")
    } else {
        words
    }
}

fn runs(result: &ContestantResult) -> String {
    match result.doubtful_runs {
        0 => result.valid_runs.to_string(),
        doubtful => format!("{} ?{doubtful}", result.valid_runs),
    }
}

/// It is another contestant of this bout under a second name.
fn is_again(bout: &Bout, name: &str) -> bool {
    bout.pairs
        .iter()
        .any(|pair| pair.duplicate && pair.second == name)
}

/// What was found between a contestant and itself.
fn noise(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    for bout in &summary.bouts {
        for pair in bout.pairs.iter().filter(|pair| pair.duplicate) {
            if let Some(found) = bout.advantage(&pair.first, &pair.second, &bout.headline) {
                let factor = factor_of(found);
                lines.push(format!(
                    "{} in {}: {factor}",
                    pair.first, bout.scenario.name
                ));
            }
        }
    }
    lines
}

fn uncounted(summary: &Summary) -> String {
    let all = summary.bouts.iter().flat_map(|bout| &bout.contestants);
    let (runs, counted) = all.fold((0, 0), |(runs, counted), result| {
        (runs + result.runs, counted + result.valid_runs)
    });
    wrapped("- ", &format!("runs: {runs}, of which {counted} count"))
}

/// A paragraph or an item of a list within 100 columns.
fn wrapped(mark: &str, text: &str) -> String {
    const WIDTH: usize = 100;
    let mut wrapped = mark.to_owned();
    let mut column = mark.len();
    for (place, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if place > 0 && column + 1 + length > WIDTH {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(mark.len()));
            column = mark.len();
        } else if place > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::summarize;
    use crate::test_data;

    #[test]
    fn differences_are_bold_and_only_differences() {
        let runs: Vec<RunRecord> = (1..=10)
            .flat_map(|block| {
                let noise = if block % 2 == 0 { 1.01 } else { 0.99 };
                [
                    test_data::echo_run("server-uring", block, 100_000.0),
                    test_data::echo_run("server-tokio", block, 125_000.0),
                    test_data::echo_run("third", block, 125_000.0 * noise),
                ]
            })
            .collect();
        let mut setting = test_data::setting();
        let mut third = setting.contestants[0].clone();
        third.name = "third".into();
        setting.contestants.push(third);
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let summary = summarize(setting, &scenarios, &runs);
        let rendered = table(&[&summary.bouts[0]], "server-tokio").render();
        let row = |name: &str| rendered.lines().find(|line| line.contains(name)).unwrap();
        assert!(
            row("| server-uring ").contains("**0.80 [0.80, 0.80]**"),
            "{rendered}"
        );
        assert!(
            row("| third ").contains(" 1.00 [0.99, 1.01] "),
            "{rendered}"
        );
        assert!(
            row("| server-tokio ").contains("| 125k ±0.0% |"),
            "{rendered}"
        );
    }

    #[test]
    fn text_is_wrapped_under_its_mark() {
        let text = format!("{} end", "word ".repeat(20));
        assert_eq!(wrapped("- ", "one  two\nthree"), "- one two three\n");
        let lines = wrapped("- ", &text);
        let (first, second) = lines.split_once('\n').unwrap();
        assert_eq!(first.len(), 2 + 19 * 5 - 1);
        assert_eq!(second, "  word end\n");
    }
}
