//! `bench docs`: a page of tables and a plot from the committed results, so that no figure in the
//! documentation is typed by hand.

mod referee;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::html;
use super::html::power::Curve;
use super::text::figures::{SCALE_LEGEND, figures_of};
use super::where_slower::where_slower;
use crate::config::ScenarioKind;
use crate::stats::ROUNDS_FOR_A_CLAIM;
use crate::store::load::{Results, load_summary};
use crate::summary::{Bout, Summary};
use referee::{Tested, curves, observed, table_of};
use tables::{factor_of, paid, single, unpaid};

const HEAD: &str = "\
# Results

Made by `bench docs` from the folders that [results.toml](results.toml) lists; a test fails when
this page differs from what they give. Do not edit it.

How to read it: *median* is that of the runs, ± their median absolute deviation. *x REF* is how many
times better than the contestant REF, with its 95% interval; above 1 is better, in every metric.
**Bold**: a difference is shown; otherwise no difference is detectable at this n.

- n = `10 x 20`, rounds x cycles: all contestants lived at once and took turns. The ratio is that of
  slices of one cycle, averaged over the rounds, and the interval rests on rounds and slices. A
  difference is shown when the interval does not hold 1, from 4 rounds on. Where n has two sizes,
  the second is that of the bout at an equal rate, `NAME-at-50`.
- n = `10`, runs in sequence: the ratio is the median of those of paired runs. A difference is shown
  when interval and signed-rank test agree, from 10 runs on.
- *throughput* is at saturation. *CPU each* is the server's CPU time for each message (broadcast:
  delivery). *Equal rate*: all contestants get the same messages per second. A p99 is one of several
  percentiles that are looked at, and its test is corrected for their number.
- `10 ?3`: three of the runs that count are marked doubtful.

[method.md](method.md) says how a result is made, [bias.md](bias.md) what may bend it. Each folder
has every comparison of every pair, and every run.
";

const PAGE: &str = "results.md";
/// All contestants of the first result against one.
const PLOT: &str = "plot.svg";
/// Against one, by how much a handler works.
const WORK: &str = "work.svg";
/// How often a difference is called, against its size.
const POWER: &str = "power.svg";

/// What the page shows: `docs/results.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// In the order of the page.
    #[serde(rename = "result")]
    pub results: Vec<Entry>,
}

/// A committed result, or some of its bouts.
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
    /// The bouts to show, each with its companion at an equal rate; empty: all of the folder.
    #[serde(default)]
    pub bouts: Vec<String>,
    /// Markdown under the tables: where what they show does not hold.
    #[serde(default)]
    pub limits: Option<String>,
    /// It is a test of the referee: copies of one program, and the same with delays.
    #[serde(default)]
    pub referee: Option<OfReferee>,
}

/// Suites that a power curve is about.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfReferee {
    /// Rounds of a closed loop.
    pub rounds: usize,
    /// Rounds of a companion at an equal rate.
    pub rounds_at_rate: usize,
}

/// An entry with what its folder says.
#[derive(Debug)]
struct Shown {
    entry: Entry,
    /// With the bouts that the entry asks for.
    summary: Summary,
    /// All of the folder, if the entry is a test of the referee.
    results: Option<Results>,
}

/// A file with what it should say.
pub type Page = (PathBuf, String);

/// The files that the list at this path asks for.
///
/// # Errors
/// When the list or a folder cannot be read, or a folder has not what its entry asks for.
pub fn pages(list: &Path) -> Result<Vec<Page>> {
    let text =
        fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let entries: List = toml::from_str(&text)
        .with_context(|| format!("{} cannot be understood", list.display()))?;
    let folder = list.parent().unwrap_or(Path::new("."));
    let mut results = Vec::new();
    for entry in entries.results {
        let shown = Shown::read(entry, folder);
        results.push(shown.with_context(|| list.display().to_string())?);
    }
    let files = files(&results).with_context(|| list.display().to_string())?;
    let files = files.into_iter();
    Ok(files
        .map(|(name, text)| (folder.join(name), text))
        .collect())
}

impl Shown {
    fn read(entry: Entry, beside: &Path) -> Result<Self> {
        let root = beside.join(&entry.folder);
        if entry.referee.is_none() {
            return Self::of(entry, load_summary(&root)?, None);
        }
        let results = Results::load(&root)?;
        results.require_consistent()?;
        Self::of(entry, results.summary.clone(), Some(results))
    }

    fn of(entry: Entry, mut summary: Summary, results: Option<Results>) -> Result<Self> {
        let Entry {
            folder,
            against,
            bouts,
            ..
        } = &entry;
        let mut names = summary.setting.contestants.iter().map(|one| &one.name);
        ensure!(
            names.any(|name| name == against),
            "{folder} has no contestant `{against}`"
        );
        for name in bouts {
            let bout = summary
                .bouts
                .iter()
                .find(|bout| bout.scenario.name == *name);
            let bout = bout.with_context(|| format!("{folder} has no bout `{name}`"))?;
            ensure!(
                bout.result_of(against).is_some(),
                "{folder}: `{against}` takes no part in bout `{name}`"
            );
        }
        if let Some(OfReferee {
            rounds,
            rounds_at_rate,
        }) = entry.referee
        {
            ensure!(
                bouts.is_empty(),
                "{folder}: `referee` is about all of a folder, without `bouts`"
            );
            ensure!(
                rounds.min(rounds_at_rate) >= ROUNDS_FOR_A_CLAIM,
                "{folder}: below {ROUNDS_FOR_A_CLAIM} rounds nothing is claimed, so there is no \
                 power curve"
            );
        }
        if !bouts.is_empty() {
            summary.bouts.retain(|bout| {
                let scenario = &bout.scenario;
                let of = scenario.at_rate_of.as_ref();
                bouts.contains(&scenario.name) || of.is_some_and(|name| bouts.contains(name))
            });
        }
        Ok(Self {
            entry,
            summary,
            results,
        })
    }
}

/// The files, by name.
fn files(results: &[Shown]) -> Result<Vec<(&'static str, String)>> {
    let first = results.first().context("no result is listed")?;
    let mut drawings = vec![(
        PLOT,
        html::plot(&first.summary, Some(&first.entry.against))?,
    )];
    let drawn = results.iter().enumerate().find_map(|(place, shown)| {
        let svg = html::work_plot(&shown.summary, &shown.entry.against)?;
        Some((place, svg))
    });
    let of_work = drawn.map(|(place, svg)| {
        drawings.push((WORK, svg));
        place
    });
    let tests = results.iter().filter_map(|shown| shown.results.as_ref());
    let tested: Vec<Tested<'_>> = tests.map(Tested::of).collect::<Result<_>>()?;
    let asked = results.iter().find_map(|shown| shown.entry.referee);
    let mut power = Vec::new();
    if let Some(OfReferee {
        rounds,
        rounds_at_rate,
    }) = asked
    {
        power = curves(&tested, rounds, rounds_at_rate);
        ensure!(
            !power.is_empty(),
            "no power curve: copies have too few rounds for suites of {rounds}, and of \
             {rounds_at_rate} at an equal rate"
        );
        drawings.push((POWER, html::power_plot(&power, &observed(&tested))));
    }
    let mut text = HEAD.to_owned();
    let mut tested = tested.iter();
    // The curves are of all tests of the referee together.
    let mut power = Some(power).filter(|power| !power.is_empty());
    for (place, shown) in results.iter().enumerate() {
        text.push_str(&heading(shown));
        match shown.results.as_ref().and_then(|_| tested.next()) {
            Some(test) => {
                text.push_str(&test.tables());
                text.push_str(
                    &power
                        .take()
                        .map_or_else(String::new, |power| of_power(&power)),
                );
            }
            None => text.push_str(&body(shown)),
        }
        if of_work == Some(place) {
            text.push_str(&format!("\n![Ratios by work in the handler]({WORK})\n"));
        }
        if let Some(limits) = &shown.entry.limits {
            text.push_str("\n### Where this does not hold\n");
            text.push_str(&paragraphs(limits));
        }
    }
    text.push_str("\n## What these bouts do not show\n\n");
    for (names, words) in not_shown(results.iter().flat_map(|shown| &shown.summary.bouts)) {
        text.push_str(&wrapped(
            "- ",
            &format!("**{}**: {words}", names.join(", ")),
        ));
    }
    drawings.insert(0, (PAGE, text));
    Ok(drawings)
}

/// Each with an empty line before it.
fn paragraphs(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n");
    paragraphs
        .map(|paragraph| format!("\n{}", wrapped("", paragraph)))
        .collect()
}

fn of_power(curves: &[Curve]) -> String {
    let words = "Share of suites that call an effect. The suites are put together from rounds of \
                 the copies, with the effect planted in the numbers \
                 ([method](method.md#from-equals-to-a-power-curve)); in the column 0% a false \
                 winner is named. A bout with too few rounds has no row. The dots in the plot are \
                 the planted delays of the table above, with as many rounds as ran; what is beyond \
                 10% is in the table only.";
    format!(
        "\n### Power\n\n{}\n{}\n![Power curve]({POWER})\n",
        wrapped("", words),
        table_of(curves).render()
    )
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

/// Title, words and setting of an entry.
fn heading(shown: &Shown) -> String {
    let Shown { entry, summary, .. } = shown;
    let setting = &summary.setting;
    let folder = &entry.folder;
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let mut text = format!("\n## {}\n", entry.title);
    text.push_str(&paragraphs(&entry.about));
    text.push_str(&format!("\n[{name}]({folder}/summary.md)\n\n"));
    for (what, value) in [
        ("suite", suite(summary)),
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
    text + &uncounted(summary) + "\n"
}

/// With its number of blocks, of the bouts that have blocks.
fn suite(summary: &Summary) -> String {
    let setting = &summary.setting;
    let name = &setting.suite;
    let mut bouts = summary.bouts.iter();
    if bouts.all(|bout| setting.rounds.contains_key(&bout.scenario.name)) {
        return format!("`{name}`");
    }
    format!("`{name}`, blocks: {}", setting.repeats)
}

/// The tables of an ordinary result.
fn body(shown: &Shown) -> String {
    let Shown { entry, summary, .. } = shown;
    let (scale, others): (Vec<&Bout>, Vec<&Bout>) = summary
        .bouts
        .iter()
        .partition(|bout| bout.scenario.kind == ScenarioKind::Scale);
    let mut parts = Vec::new();
    let paid = paid(summary, &entry.against);
    if !paid.is_empty() {
        parts.push(paid.render());
    }
    let others = unpaid(summary, &others);
    if !others.is_empty() {
        parts.push(single(&others, &entry.against).render());
    }
    if !scale.is_empty() {
        let figures = figures_of(ScenarioKind::Scale, &scale);
        parts.push(format!("{figures}\n{}", wrapped("", SCALE_LEGEND)));
    }
    // Some bouts of a folder answer one question; what else is in it is in its other sections.
    let behind = if entry.bouts.is_empty() {
        behind(summary)
    } else {
        String::new()
    };
    if !behind.is_empty() {
        parts.push(format!("### Where each is behind\n\n{behind}"));
    }
    parts.join("\n")
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
        let rendered = single(&[&summary.bouts[0]], "server-tokio").render();
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

    fn entry(more: &str) -> Entry {
        let text = format!("folder = '../x/f'\ntitle = 'T'\nabout = 'A'\nagainst = 'a'\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn shown(more: &str) -> Result<Shown> {
        let results = referee::tests::tested(8);
        let entry = entry(more);
        let summary = results.summary.clone();
        let results = entry.referee.is_some().then_some(results);
        Shown::of(entry, summary, results)
    }

    fn page(results: &[Shown]) -> String {
        let files = files(results).unwrap();
        let mut all = files.into_iter();
        all.find(|(name, _)| *name == PAGE).unwrap().1
    }

    #[test]
    fn what_a_user_pays_stands_side_by_side() {
        let page = page(&[shown("").unwrap()]);
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 2 + 4, "no row of the companion: {page}");
        let heads = "| bout | contestant | n | throughput | x a | CPU each, equal rate | x a | p99, equal rate | x a |";
        let squeezed = |row: &str| row.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(rows[0]), heads);
        let late = squeezed(rows[5]);
        assert!(
            late.starts_with("| echo-64b-w1-c1000 | late | 8 x 20 |"),
            "{late}"
        );
        assert_eq!(late.matches("**0.9").count(), 2, "{late}");
        assert!(late.ends_with("| 1.00 [1.00, 1.00] |"), "{late}");
        assert!(page.contains("- suite: `quick`\n"), "no blocks ran: {page}");
        assert!(page.contains("### Where each is behind"));
    }

    #[test]
    fn an_entry_shows_the_bouts_that_it_names_with_their_companions() {
        let of = |bouts: &str| shown(&format!("bouts = ['{bouts}']\nlimits = 'L'"));
        let page = page(&[of("echo-64b-w1-c1000").unwrap()]);
        assert!(page.contains("p99, equal rate"), "{page}");
        assert!(
            page.contains("\n### Where this does not hold\n\nL\n"),
            "{page}"
        );
        assert!(!page.contains("### Where each is behind"), "{page}");
        let alone = of("echo-64b-w1-c1000-at-50").unwrap();
        assert_eq!(alone.summary.bouts.len(), 1);
        let message = of("work-0").unwrap_err().to_string();
        assert_eq!(message, "../x/f has no bout `work-0`");
    }

    #[test]
    fn a_test_of_the_referee_has_its_own_tables_and_a_plot() {
        let asked = "[referee]\nrounds = 4\nrounds_at_rate = 4";
        let results = [shown(asked).unwrap()];
        let page = page(&results);
        for head in [
            "### Copies: nothing to find",
            "### Planted delays",
            "### Power",
        ] {
            assert!(page.contains(head), "{page}");
        }
        assert!(page.contains("](power.svg)") && !page.contains("memory/connection"));
        let names: Vec<&str> = files(&results)
            .unwrap()
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(names, [PAGE, PLOT, POWER]);
        let many = shown("[referee]\nrounds = 50\nrounds_at_rate = 50").unwrap();
        let message = files(&[many]).unwrap_err().to_string();
        assert!(
            message.contains("too few rounds for suites of 50"),
            "{message}"
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
