//! Everybody's figures: a table per kind of bout.

use super::{is_refused, missing, spread};
use crate::config::{Load, ScenarioKind};
use crate::judge::metrics::{self, Metric};
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
            text.push_str(&legend(kind, &bouts));
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
    let columns = columns(kind, bouts);
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
                figure(result, metric).map_or_else(missing, |value| format(metric.unit, value))
            }));
            table.row(row);
        }
    }
    table.render()
}

/// The metrics that a contestant has a figure of; a column without any says nothing.
fn columns(kind: ScenarioKind, bouts: &[&Bout]) -> Vec<&'static Metric> {
    let results = || bouts.iter().flat_map(|bout| &bout.contestants);
    metrics::of_kind(kind)
        .filter(|metric| !metric.column.is_empty())
        .filter(|metric| results().any(|result| spread(result, metric.key).is_some()))
        .collect()
}

/// The median. Those of the two parts of a CPU time are scaled to add up to its own: each is of
/// another run.
fn figure(result: &ContestantResult, metric: &Metric) -> Option<f64> {
    let median = |key: &str| Some(spread(result, key)?.median);
    let own = median(metric.key)?;
    for (part, other) in [("_cpu_user_", "_cpu_sys_"), ("_cpu_sys_", "_cpu_user_")] {
        if metric.key.contains(part) {
            let of_both = own + median(&metric.key.replace(part, other))?;
            return Some(median(&metric.key.replace(part, "_cpu_"))? * own / of_both);
        }
    }
    Some(own)
}

/// What the short heads and marks of a table stand for, those that are in it.
fn legend(kind: ScenarioKind, bouts: &[&Bout]) -> String {
    let results = || bouts.iter().flat_map(|bout| &bout.contestants);
    let mut lines = vec!["valid: runs that count / all".to_owned()];
    if results().any(|result| result.doubtful_runs > 0) {
        lines.push("?2: two of those that count are in doubt".to_owned());
    }
    if results().any(|result| result.noted_runs > 0) {
        lines.push("!2: two carry a note of the generator in their records".to_owned());
    }
    let columns = columns(kind, bouts);
    lines.extend(columns.iter().filter_map(|metric| {
        let what = match metric.column {
            "p50 int." | "p99 int." if kind == ScenarioKind::Connect => {
                "int.: from the begin that the schedule intended, what a user on schedule waits"
            }
            "p50 int." | "p99 int." => {
                "int.: latency from the intended send, what a client on schedule waits"
            }
            "p50 others" | "p99 others" => {
                "others: int. of the messages to connections that are not hot"
            }
            "p50 act." => "act.: latency from the actual send",
            "CPU/msg" => "CPU/msg: the server's CPU time for each message",
            "CPU/life" => "CPU/life: the server's CPU time for each connection with its messages",
            "CPU/dlv" => "CPU/dlv: the server's CPU time for each delivery",
            "user" => "user, kernel: of it in user mode and in the kernel, by clock ticks",
            "enters/msg" => "enters/msg: calls of io_uring_enter for each message",
            "first" => "first, median, last: mean time until that member of the room has a message",
            "mem/conn" => "mem/conn: the server's memory for each connection",
            "CPU" => "CPU: share of its CPUs that the server used",
            "gen. CPU" => "gen. CPU: share of its own that the generator used",
            "PSS/conn" => "PSS: resident memory, shared pages divided among those who share them",
            "RSS after" => "RSS after: the server's resident memory when all connections had left",
            _ => return None,
        };
        Some(what.to_owned())
    }));
    lines.dedup();
    wrapped(&lines)
}

/// Clauses in lines of at most 120 characters.
fn wrapped(clauses: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for clause in clauses {
        match lines
            .last_mut()
            .filter(|line| line.chars().count() + clause.chars().count() < 117)
        {
            Some(line) => line.push_str(&format!("; {clause}")),
            None => lines.push(clause.clone()),
        }
    }
    format!("\n{}.\n", lines.join(";\n"))
}

/// `10/10`; `9/10 ?1 !2` when one of the nine is in doubt and two carry notes.
fn valid(result: &ContestantResult) -> String {
    if is_refused(result) {
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
