//! Latency against the rate, up to the knee and over it: the probes of all searches for a capacity.

use super::axis::Scale;
use super::chart::{Chart, Legend, strings};
use super::svg::Svg;
use crate::config::ScenarioKind;
use crate::output::table::Table;
use crate::output::text::missing;
use crate::output::words;
use crate::record::{LatencyTarget, Outcome, Probe, Role, RunRecord, Search};
use crate::summary::{Bout, Summary};
use crate::units::{self, Unit};

/// One chart per scenario of kind capacity.
pub(super) fn by_probes(summary: &Summary, runs: &[RunRecord], legend: &Legend<'_>) -> Vec<Chart> {
    summary
        .bouts
        .iter()
        .filter(|bout| bout.scenario.kind == ScenarioKind::Capacity)
        .filter_map(|bout| of_bout(bout, runs, legend))
        .collect()
}

fn of_bout(bout: &Bout, runs: &[RunRecord], legend: &Legend<'_>) -> Option<Chart> {
    let searches: Vec<(&RunRecord, &Search)> = runs
        .iter()
        .filter(|run| run.bout == bout.scenario.name)
        .filter_map(|run| Some((run, run.capacity.as_ref()?)))
        .collect();
    let measured = searches
        .iter()
        .flat_map(|(_, search)| &search.probes)
        .filter_map(|probe| Some((probe.rate_per_s, probe.latency_intended_p99_ns?)));
    let (rates, latencies): (Vec<f64>, Vec<f64>) = measured.unzip();
    let limit_ns = searches.first()?.1.goal.p99_limit_ns as f64;
    if rates.is_empty() {
        return None;
    }
    let mut svg = Svg::of_curves(260.0);
    let x = Scale::logarithmic(rates, svg.across());
    let y = Scale::logarithmic(latencies.into_iter().chain([limit_ns]), svg.upward());
    svg.x_axis(x.ticks_in(Unit::PerSecond), "messages per second");
    svg.y_axis(y.ticks_in(Unit::Nanoseconds), "p99 from the intended send");
    svg.mark_y(y.at(limit_ns));
    let headings = [
        "contestant",
        "block",
        "probe",
        "to",
        "messages/s",
        "outcome",
        "p50",
        "p99",
        "server CPU",
        "generator CPU",
        "why",
    ];
    let mut table = Table::new(strings(&headings), vec![1, 2, 4, 6, 7, 8, 9]);
    for (run, search) in searches {
        let style = legend.style(&run.contestant);
        let mut line: Vec<(f64, f64)> = Vec::new();
        for (number, probe) in search.probes.iter().enumerate() {
            table.row(row(run, number + 1, probe, &search.goal));
            let Some(p99_ns) = probe.latency_intended_p99_ns else {
                continue;
            };
            let place = (x.at(probe.rate_per_s), y.at(p99_ns));
            line.push(place);
            let class = match probe.outcome {
                Outcome::Met => format!("run {style}"),
                Outcome::Missed | Outcome::Inconclusive => format!("run hollow {style}"),
            };
            let title = format!(
                "{}, block {}: {}/s, p99 {}, {}",
                run.contestant,
                run.block,
                units::format(Unit::PerSecond, probe.rate_per_s),
                units::format(Unit::Nanoseconds, p99_ns),
                outcome(probe),
            );
            svg.dot(&class, place, 3.5, &title);
        }
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        svg.path(&format!("thin {style}"), &line, &run.contestant);
    }
    let caption = format!(
        "{}: latency against the rate, every probe a dot (hollow: missed or inconclusive), the limit dashed",
        bout.scenario.name
    );
    Some(Chart::new(caption, svg, table))
}

fn row(run: &RunRecord, number: usize, probe: &Probe, goal: &LatencyTarget) -> Vec<String> {
    let shown =
        |unit, value: Option<f64>| value.map_or_else(missing, |value| units::format(unit, value));
    vec![
        run.contestant.clone(),
        run.block.to_string(),
        number.to_string(),
        match probe.role {
            Role::Search => "search",
            Role::Confirm => "confirm",
        }
        .to_owned(),
        units::format(Unit::PerSecond, probe.rate_per_s),
        outcome(probe).to_owned(),
        shown(Unit::Nanoseconds, probe.latency_intended_p50_ns),
        shown(Unit::Nanoseconds, probe.latency_intended_p99_ns),
        shown(Unit::Share, probe.server_cpu_share),
        shown(Unit::Share, probe.generator_cpu_share),
        words::probe(probe, goal),
    ]
}

fn outcome(probe: &Probe) -> &'static str {
    match probe.outcome {
        Outcome::Met => "met",
        Outcome::Missed => "missed",
        Outcome::Inconclusive => "inconclusive",
    }
}
