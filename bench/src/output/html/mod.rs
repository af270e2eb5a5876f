//! `bench report`: results as one HTML file that needs no network and no script.

mod axis;
mod bout;
mod chart;
mod flame;
mod forest;
mod history;
mod loads;
mod panels;
mod percentiles;
pub(crate) mod power;
mod probes;
mod profile;
mod rounds;
mod strip;
mod svg;
mod verdicts;
mod work;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

use crate::config::ScenarioKind;
use crate::judge::metrics;
use crate::judge::profile::Stacks;
use crate::output::history::Entry;
use crate::output::notes::notes;
use crate::output::table::Table;
use crate::output::text;
use crate::output::where_slower::{WhereSlower, where_slower};
use crate::output::words;
use crate::record::{RunRecord, Status};
use crate::store::load::Results;
use crate::store::profiles::StoredProfile;
use crate::summary::{Bout, ContestantResult, Summary};
use chart::{Chart, Legend, metric_title};
use forest::Forest;
use power::{Curve, Observed};

const PAGE: &str = include_str!("page.html");
/// The page of a profile that stands alone.
const PROFILE: &str = include_str!("profile.html");
/// What pages have in common.
const MACROS: &str = include_str!("macros.html");
const STYLE: &str = include_str!("style.css");
/// Colours and strokes of drawings, also in a drawing that stands alone.
const MARKS: &str = include_str!("marks.css");
/// Colours of shares, and what flame graphs need besides.
const FLAME: &str = include_str!("flame.css");
/// Styles that such a drawing otherwise gets from the page.
const ALONE: &str = include_str!("alone.css");

/// The page; `history` is drawn behind the results, if there is any.
///
/// # Errors
/// When the template and what is put into it do not fit: a bug.
pub fn page(results: &[Results], history: &[Entry]) -> Result<String> {
    let environment = templates()?;
    let sections: Vec<Section> = results.iter().map(Section::of).collect();
    let names = history::names(history);
    let legend = Legend(&names);
    let contestants: Vec<(&String, String)> = names
        .iter()
        .map(|name| (name, legend.style(name)))
        .collect();
    let page = environment.get_template("page")?;
    page.render(context! {
        style => style(),
        sections,
        history => history::charts(history, &legend),
        historic => contestants,
        version => env!("CARGO_PKG_VERSION"),
    })
    .context("the report cannot be written")
}

fn templates() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, source) in [("page", PAGE), ("profile", PROFILE), ("macros", MACROS)] {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

fn style() -> Value {
    Value::from_safe_string(format!("{STYLE}{MARKS}{FLAME}"))
}

/// The page of one profile.
///
/// # Errors
/// As [`page`].
pub fn profile_page(stored: &StoredProfile) -> Result<String> {
    let environment = templates()?;
    let page = environment.get_template("profile")?;
    page.render(context! {
        style => style(),
        view => profile::view(stored, &BTreeMap::new()),
        version => env!("CARGO_PKG_VERSION"),
    })
    .context("the page of a profile cannot be written")
}

/// The stacks of a contestant as a drawing that stands alone.
pub fn flame_graph(stacks: &Stacks, contestant: &str, scenario: &str) -> String {
    let svg = flame::draw(stacks, &format!("{contestant} in {scenario}"));
    styled(&svg, &format!("{MARKS}{ALONE}{FLAME}"))
}

/// All contestants against one of them (the first, if none is named) as a drawing that stands
/// alone, for a README.
///
/// # Errors
/// When nothing is compared with that one.
pub fn plot(summary: &Summary, against: Option<&str>) -> Result<String> {
    let first = summary.setting.contestants.first();
    let reference = against
        .or(first.map(|entrant| entrant.name.as_str()))
        .context("there is nothing to draw: no contestants")?;
    let forest = Forest::of(summary, reference).with_context(|| {
        format!("there is nothing to draw: no bout compares a contestant with {reference}")
    })?;
    Ok(alone(&forest.alone(&Legend(&names(summary)))))
}

/// How often a difference is called, against its size, as a drawing that stands alone.
pub(crate) fn power_plot(curves: &[Curve], dots: &[Observed]) -> String {
    alone(&power::draw(curves, dots))
}

/// Contestants against one, by how much a handler works, as a drawing that stands alone; `None`
/// where no two bouts differ in that.
pub(crate) fn work_plot(summary: &Summary, reference: &str) -> Option<String> {
    let svg = work::draw(summary, reference, &Legend(&names(summary)))?;
    Some(alone(&svg))
}

/// With the styles that it gets from the page otherwise.
fn alone(svg: &str) -> String {
    styled(svg, &format!("{MARKS}{ALONE}"))
}

fn styled(svg: &str, style: &str) -> String {
    // Behind the start tag of the root element.
    svg.replacen('>', &format!("><style>\n{style}</style>\n"), 1) + "\n"
}

/// One result folder.
#[derive(Debug, Serialize)]
struct Section {
    id: String,
    suite: String,
    notes: Vec<String>,
    facts: Vec<(String, String)>,
    contestants: Vec<EntrantView>,
    verdicts: Table,
    noise: Vec<String>,
    where_slower: Vec<WhereSlower>,
    profiles: Vec<profile::ProfileView>,
    first_view: Option<FirstView>,
    by_load: Vec<Chart>,
    bouts: Vec<BoutView>,
    invalid: Table,
    settings: Vec<(String, String)>,
}

/// Who, by how much, how sure: all contestants against the first.
#[derive(Debug, Serialize)]
struct FirstView {
    reading: String,
    reference: (String, String),
    sums: Vec<(String, String)>,
    chart: Chart,
}

#[derive(Debug, Serialize)]
struct EntrantView {
    name: String,
    about: String,
    runtime: String,
    excluded: Option<String>,
    style: String,
}

#[derive(Debug, Serialize)]
struct BoutView {
    id: String,
    name: String,
    title: String,
    shows: String,
    does_not_show: String,
    charts: Vec<Chart>,
    figures: Table,
    comparisons: Table,
}

impl Section {
    fn of(results: &Results) -> Self {
        let summary = &results.summary;
        let names = names(summary);
        let legend = Legend(&names);
        let id = results
            .root
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self {
            suite: summary.setting.suite.clone(),
            notes: notes(summary, &results.findings),
            facts: facts(summary),
            contestants: entrants(summary, &legend),
            verdicts: verdicts::verdicts(summary),
            noise: noise(summary),
            where_slower: where_slower(summary),
            first_view: first_view(summary, names.first().map_or("", String::as_str), &legend),
            profiles: profiles(results),
            by_load: by_load(results, &legend),
            bouts: summary
                .bouts
                .iter()
                .map(|bout| bout_view(&id, bout, results, &legend))
                .collect(),
            invalid: invalid(&results.runs),
            settings: settings(results),
            id,
        }
    }
}

fn profiles(results: &Results) -> Vec<profile::ProfileView> {
    let binaries = &results.environment.binaries;
    let stored = results.profiles.iter();
    stored.map(|one| profile::view(one, binaries)).collect()
}

fn first_view(summary: &Summary, reference: &str, legend: &Legend<'_>) -> Option<FirstView> {
    let forest = Forest::of(summary, reference)?;
    Some(FirstView {
        reading: forest.reading(),
        reference: (legend.style(reference), reference.to_owned()),
        sums: forest.sums(legend),
        chart: forest.chart(legend),
    })
}

fn names(summary: &Summary) -> Vec<String> {
    summary
        .setting
        .contestants
        .iter()
        .map(|entrant| entrant.name.clone())
        .collect()
}

/// What was found where there is nothing to find.
fn noise(summary: &Summary) -> Vec<String> {
    let bouts = summary.noise.iter().flat_map(|noise| &noise.bouts);
    bouts
        .map(|one| format!("{}: {}: {}", one.bout, one.contestant, words::noise(one)))
        .collect()
}

fn facts(summary: &Summary) -> Vec<(String, String)> {
    let setting = &summary.setting;
    [
        ("Suite", setting.suite.clone()),
        ("Begun", setting.started_utc.clone()),
        ("Revision", setting.revision.clone()),
        ("Machine", setting.machine.clone()),
        ("Server CPUs", setting.server_cpus.clone()),
        ("Generator CPUs", setting.generator_cpus.clone()),
        ("Blocks planned", setting.repeats.to_string()),
        ("Seed", setting.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn entrants(summary: &Summary, legend: &Legend<'_>) -> Vec<EntrantView> {
    let entrant = |entrant: &crate::summary::Entrant| EntrantView {
        name: entrant.name.clone(),
        about: entrant.about.clone(),
        runtime: entrant.runtime.clone().unwrap_or_default(),
        excluded: entrant.excluded.clone(),
        style: legend.style(&entrant.name),
    };
    summary.setting.contestants.iter().map(entrant).collect()
}

fn by_load(results: &Results, legend: &Legend<'_>) -> Vec<Chart> {
    let summary = &results.summary;
    [
        "messages_per_s",
        "deliveries_per_s",
        "server_cpu_ns_per_message",
        "server_bytes_per_connection",
    ]
    .iter()
    .flat_map(|key| loads::by_connections(summary, key, legend))
    .chain(loads::by_rate(summary, legend))
    .chain(probes::by_probes(summary, &results.runs, legend))
    .collect()
}

fn bout_view(section: &str, bout: &Bout, results: &Results, legend: &Legend<'_>) -> BoutView {
    let runs: Vec<&RunRecord> = results.runs_of(&bout.scenario.name).collect();
    let headline = metrics::find(bout.scenario.kind, &bout.headline);
    let dots = headline.and_then(|metric| {
        let rounds = rounds::rounds(bout, &runs, metric, legend);
        rounds.or_else(|| bout::dots(bout, &runs, metric, legend))
    });
    let charts = [
        dots,
        strip::strip(bout, &results.runs, &runs, legend),
        percentiles::percentiles(
            bout,
            &runs,
            "intended",
            |record| record.latency_intended.as_ref(),
            legend,
        ),
        percentiles::percentiles(
            bout,
            &runs,
            "actual",
            |record| record.latency_actual.as_ref(),
            legend,
        ),
        (bout.scenario.kind == ScenarioKind::Broadcast)
            .then(|| bout::fan_out(bout, legend))
            .flatten(),
    ];
    BoutView {
        id: format!("{section}-{}", bout.scenario.name),
        name: bout.scenario.name.clone(),
        title: bout.scenario.title.clone(),
        shows: bout.scenario.shows.clone(),
        does_not_show: bout.scenario.does_not_show.clone(),
        charts: charts.into_iter().flatten().collect(),
        figures: figures(bout),
        comparisons: comparisons(bout),
    }
}

/// A row per metric, a column per contestant.
fn figures(bout: &Bout) -> Table {
    let headings = ["metric".to_owned()].into_iter();
    let headings = headings.chain(
        bout.contestants
            .iter()
            .map(|result| result.contestant.clone()),
    );
    let mut table = Table::new(headings.collect(), (1..=bout.contestants.len()).collect());
    let valid = |result: &ContestantResult| format!("{} of {}", result.valid_runs, result.runs);
    table.row(
        ["valid runs".to_owned()]
            .into_iter()
            .chain(bout.contestants.iter().map(valid))
            .collect(),
    );
    for metric in metrics::of_kind(bout.scenario.kind) {
        let cells: Vec<String> = bout
            .contestants
            .iter()
            .map(|result| text::cell(metric.unit, text::spread(result, metric.key)))
            .collect();
        if cells.iter().any(|cell| *cell != text::missing()) {
            table.row([metric.title.to_owned()].into_iter().chain(cells).collect());
        }
    }
    table
}

/// Everything that was compared.
fn comparisons(bout: &Bout) -> Table {
    let headings = ["metric", "pair", "verdict", "n"].map(str::to_owned);
    let mut table = Table::new(headings.into(), vec![3]);
    for pair in &bout.pairs {
        for (comparison, verdict) in pair.comparisons.iter().zip(words::of_pair(pair)) {
            table.row(vec![
                metric_title(bout.scenario.kind, &comparison.metric),
                format!("{} / {}", pair.first, pair.second),
                verdict,
                words::size(comparison),
            ]);
        }
    }
    table
}

fn invalid(runs: &[RunRecord]) -> Table {
    let headings = ["bout", "contestant", "block", "status", "why"].map(str::to_owned);
    let mut table = Table::new(headings.into(), vec![2]);
    for run in runs.iter().filter(|run| run.status != Status::Valid) {
        table.row(vec![
            run.bout.clone(),
            run.contestant.clone(),
            run.block.to_string(),
            run.status.name().to_owned(),
            words::of_run(run),
        ]);
    }
    table
}

/// Everything that made the result: versions, command lines, the machine.
fn settings(results: &Results) -> Vec<(String, String)> {
    let environment = &results.environment;
    let mut settings = vec![
        ("command".to_owned(), environment.command.join(" ")),
        ("bench".to_owned(), environment.bench_version.clone()),
        (
            "rustc".to_owned(),
            environment.rustc.clone().unwrap_or_default(),
        ),
    ];
    for (name, ready) in &environment.ready {
        settings.push((format!("ready line of {name}"), ready.to_string()));
    }
    if let Ok(serde_json::Value::Object(machine)) = serde_json::to_value(&environment.machine) {
        for (key, value) in machine {
            match value {
                serde_json::Value::Object(inner) => {
                    let inner = inner
                        .into_iter()
                        .map(|(name, value)| (format!("{key}: {name}"), plain(&value)));
                    settings.extend(inner);
                }
                value => settings.push((key, plain(&value))),
            }
        }
    }
    settings
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
