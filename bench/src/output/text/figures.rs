//! Everybody's figures: a table per kind of bout.

use super::{missing, spread};
use crate::config::{Load, ScenarioKind};
use crate::judge::metrics;
use crate::output::table::Table;
use crate::summary::{Bout, ContestantResult, Summary};
use crate::units::{Unit, format};

/// What the columns of a scale table are.
pub(crate) const SCALE_LEGEND: &str = "
server/conn, gen./conn: user memory of all its processes, shared pages counted once, with all connections up minus before the first one, per
connection. kernel/conn: slab, TCP buffers, page tables and stacks of both ends. in all: the most memory the machine used at any moment of the run,
minus before it. by `free`: how much less memory was available with all connections up, as the kernel guesses it; it takes the inodes of open sockets
for memory that it could have back, so this is too little. closed in: from the end of the load until both sides had closed every connection. kept:
what of it all was still in use after the server's end (all other programs included: more than 5% is a warning). A run is valid only if kernel and
server gave their memory back when all connections were closed.
";

/// One table per kind: one row per bout and contestant.
pub(super) fn figures(summary: &Summary) -> String {
    let mut text = String::new();
    for kind in ScenarioKind::ALL {
        let bouts: Vec<&Bout> = summary
            .bouts
            .iter()
            .filter(|bout| bout.scenario.kind == kind)
            .collect();
        if bouts.is_empty() {
            continue;
        }
        let (open, closed): (Vec<&Bout>, Vec<&Bout>) = bouts
            .into_iter()
            .partition(|bout| bout.rate_per_s.is_some());
        for (bouts, how) in [(open, "open loop"), (closed, "closed loop")] {
            if bouts.is_empty() {
                continue;
            }
            let how = if matches!(kind, ScenarioKind::Echo | ScenarioKind::Broadcast) {
                format!(", {how}")
            } else {
                String::new()
            };
            text.push_str(&format!("\n### {}{how}\n\n", title(kind)));
            text.push_str(&figures_of(kind, &bouts));
            if kind == ScenarioKind::Scale {
                text.push_str(SCALE_LEGEND);
            }
            for bout in bouts {
                text.push_str(&searches(bout));
                text.push_str(&rate_line(summary, bout));
            }
        }
    }
    text
}

fn title(kind: ScenarioKind) -> &'static str {
    match kind {
        ScenarioKind::Echo => "Echo",
        ScenarioKind::Broadcast => "Broadcast",
        ScenarioKind::Connect => "Opening handshakes",
        ScenarioKind::Idle => "Idle connections",
        ScenarioKind::Scale => "Scale",
        ScenarioKind::Capacity => "Highest rate",
    }
}

/// A row per bout and contestant, a column per metric.
pub(crate) fn figures_of(kind: ScenarioKind, bouts: &[&Bout]) -> String {
    // A column that no contestant has a figure for says nothing.
    let has_figures = |key: &str| {
        bouts.iter().any(|bout| {
            bout.contestants
                .iter()
                .any(|result| spread(result, key).is_some())
        })
    };
    let columns: Vec<_> = metrics::of_kind(kind)
        .filter(|metric| !metric.column.is_empty() && has_figures(metric.key))
        .collect();
    let mut headings = vec![
        "bout".to_owned(),
        "contestant".to_owned(),
        "valid".to_owned(),
    ];
    headings.extend(columns.iter().map(|metric| metric.column.to_owned()));
    let mut table = Table::new(headings, (2..3 + columns.len()).collect());
    for bout in bouts {
        for result in &bout.contestants {
            let mut row = vec![
                bout.scenario.name.clone(),
                result.contestant.clone(),
                valid(result),
            ];
            row.extend(columns.iter().map(|metric| {
                spread(result, metric.key)
                    .map_or_else(missing, |spread| format(metric.unit, spread.median))
            }));
            table.row(row);
        }
    }
    table.render()
}

/// `10/10`; `9/10 ?1 !2` when one of the nine is in doubt and two carry notes.
fn valid(result: &ContestantResult) -> String {
    if result.refused_runs > 0 && result.refused_runs == result.runs {
        return "refused".to_owned();
    }
    let warned = match result.noted_runs {
        0 => String::new(),
        runs => format!(" !{runs}"),
    };
    let doubtful = match result.doubtful_runs {
        0 => String::new(),
        runs => format!(" ?{runs}"),
    };
    format!("{}/{}{doubtful}{warned}", result.valid_runs, result.runs)
}

/// How each search ended; every probe is a row of the HTML report, and of the run's record.
fn searches(bout: &Bout) -> String {
    if bout.searches.is_empty() {
        return String::new();
    }
    let headings = [
        "contestant",
        "block",
        "met",
        "missed",
        "confirmed",
        "probes",
        "limited by",
    ];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![1, 2, 3, 4, 5]);
    for search in &bout.searches {
        let rate = |rate: Option<f64>| {
            rate.map_or_else(missing, |rate| {
                format!("{}/s", format(Unit::PerSecond, rate))
            })
        };
        table.row(vec![
            search.contestant.clone(),
            search.block.to_string(),
            rate(search.rate_per_s),
            rate(search.missed_per_s),
            format!("{} of {}", search.confirmed.0, search.confirmed.1),
            search.probes.to_string(),
            search
                .limiter
                .map_or_else(missing, |limiter| limiter.words().to_owned()),
        ]);
    }
    format!(
        "\n{}: p99 from the intended send at most {} ms, nothing lost; every probe is in the run's record and in report.html.\n\n{}",
        bout.scenario.name,
        bout.scenario.p99_limit_ms.unwrap_or_default(),
        table.render()
    )
}

fn rate_line(summary: &Summary, bout: &Bout) -> String {
    let (Some(rate), Some(Load::FractionOfCapacity(fraction))) =
        (bout.rate_per_s, bout.scenario.load)
    else {
        return String::new();
    };
    let key = bout.scenario.capacity_key().unwrap_or_default();
    let Some(capacity) = summary.setting.capacities.get(&key) else {
        return String::new();
    };
    let of_each: Vec<String> = capacity
        .messages_per_s
        .iter()
        .map(|(name, per_s)| format!("{name} {}/s", format(Unit::PerSecond, *per_s)))
        .collect();
    format!(
        "\n{}: {}/s for everyone, {:.0}% of the smallest capacity measured before ({}).\n",
        bout.scenario.name,
        format(Unit::PerSecond, rate),
        fraction * 100.0,
        of_each.join(", ")
    )
}
