//! The summary for people: the same words on the terminal and in `summary.md`.

use crate::config::{Kind, Load, Protocol};
use crate::metrics::{self, Unit, format};
use crate::stats::{RUNS_FOR_A_CLAIM, Spread};
use crate::summary::{Bout, Comparison, Pair, Problem, Showing, Summary};
use crate::table::Table;

/// What no bout of this referee shows, whatever its figures.
const NOT_SHOWN: &str = "\
- A network: everything here ran over loopback on one machine, where the kernel's TCP path is most of the cost and part of the
  generator's receive work is charged to the server that sends to it.
- Many cores: the servers had the CPUs named above, no more; a runtime's scaling is another question.
- Your machine, your kernel, your load. Absolute figures are this machine's on this day; the ratios travel better, and not far.
- TLS, compression, slow or far-away clients, handlers that do something.
- Impartial contestants: the servers were written by the people who wrote this referee (bench-results/README.md says more).
";

/// In place of a verdict.
const ONE_RUN: &str = "one run: no interval, no claim about differences";

/// What the columns of a scale table are.
const SCALE_LEGEND: &str = "
server/conn, gen./conn: user memory of all its processes, shared pages counted once, with all connections up minus before the first
one, per connection. kernel/conn: slab, TCP buffers, page tables and stacks of both ends. in all: the most memory the machine used at
any moment of the run, minus before it. closed in: from the end of the load until both sides had closed every connection. kept: what of it
all was still in use after the server's end (all other programs included: more than 5% is a warning). A run is valid only if kernel
and server gave their memory back when all connections were closed.
";

/// `summary.md`.
pub fn markdown(summary: &Summary) -> String {
    let mut text = heading(summary);
    text.push_str("\n## Who won\n\n");
    text.push_str(&headlines(summary));
    text.push_str(&noise(summary));
    text.push_str("\n## Figures\n");
    text.push_str(&figures(summary));
    text.push_str("\n## Every comparison\n");
    text.push_str(&comparisons(summary));
    if summary.setting.repeats == 1 {
        text.push_str(&format!("\nNone: {ONE_RUN}.\n"));
    }
    text.push_str("\n## What each bout shows, and does not\n");
    text.push_str(&prose(summary));
    text.push_str(&problems(summary, "\n## Runs that do not count\n\n"));
    text.push_str(&doubts(summary, "\n## Runs in doubt, which count\n\n"));
    text.push_str("\n## What none of this shows\n\n");
    text.push_str(NOT_SHOWN);
    text
}

/// For the terminal: figures first, who won last, where the eye is.
pub fn terminal(summary: &Summary) -> String {
    let mut text = heading(summary);
    text.push_str(&figures(summary));
    text.push_str(&problems(summary, "\nRuns that do not count:\n\n"));
    text.push_str(&doubts(summary, "\nRuns in doubt, which count:\n\n"));
    text.push_str("\nWhat none of this shows:\n\n");
    text.push_str(NOT_SHOWN);
    text.push_str("\nWho won:\n\n");
    text.push_str(&headlines(summary));
    text.push_str(&noise(summary));
    text
}

fn heading(summary: &Summary) -> String {
    let setting = &summary.setting;
    let names: Vec<&str> = setting
        .contestants
        .iter()
        .filter(|entrant| entrant.again.is_none())
        .map(|entrant| entrant.name.as_str())
        .collect();
    let noisy = summary.noise.as_ref().is_some_and(|noise| noise.noisy);
    let mut text = format!(
        "# {}Ringside `{}`: {}\n\n",
        if noisy { "NOISY, do not trust: " } else { "" },
        setting.suite,
        names.join(" against ")
    );
    for note in &summary.notes {
        text.push_str(&format!("**{note}**\n\n"));
    }
    text.push_str(&format!(
        "{} · {}\nrevision {} · seed {} · {} blocks per bout · servers on CPUs {}, generator on CPUs {}\n\n",
        setting.started_utc,
        setting.machine,
        setting.revision,
        setting.seed,
        setting.repeats,
        setting.server_cpus,
        setting.generator_cpus
    ));
    for entrant in &setting.contestants {
        let runtime = entrant.runtime.as_deref().unwrap_or("did not start");
        let bouts = match entrant.protocol {
            Protocol::Ws => "",
            Protocol::Tcp => "; speaks no WebSocket, so it is in echo bouts only",
        };
        text.push_str(&format!(
            "- **{}**: {} ({runtime}){bouts}\n",
            entrant.name, entrant.about
        ));
    }
    text
}

/// One row per bout: the metric that decides it, each contestant's median, the verdict.
fn headlines(summary: &Summary) -> String {
    let mut headings = vec!["bout".to_owned(), "by".to_owned()];
    let entrants: Vec<&str> = summary
        .setting
        .contestants
        .iter()
        .filter(|entrant| entrant.excluded.is_none() && entrant.again.is_none())
        .map(|entrant| entrant.name.as_str())
        .collect();
    headings.extend(entrants.iter().map(|name| (*name).to_owned()));
    headings.extend([
        "better, by how much [95% interval]".to_owned(),
        "n".to_owned(),
    ]);
    let mut table = Table::new(
        headings,
        (2..2 + entrants.len())
            .chain([3 + entrants.len()])
            .collect(),
    );
    for bout in &summary.bouts {
        let Some(metric) = metrics::find(bout.scenario.kind, &bout.headline) else {
            continue;
        };
        let mut row = vec![bout.scenario.name.clone(), metric.title.to_owned()];
        row.extend(entrants.iter().map(|name| {
            let showing = bout
                .contestants
                .iter()
                .find(|showing| showing.contestant == *name);
            showing.map_or_else(missing, |showing| {
                cell(metric.unit, spread(showing, metric.key))
            })
        }));
        let of_headline = |pair: &Pair| -> Option<Comparison> {
            pair.comparisons
                .iter()
                .find(|comparison| comparison.metric == bout.headline)
                .cloned()
        };
        let found: Vec<(&Pair, Option<Comparison>)> = bout
            .pairs
            .iter()
            .filter(|pair| !pair.again)
            .map(|pair| (pair, of_headline(pair)))
            .collect();
        let words = found.iter().map(|(pair, comparison)| {
            let words = comparison
                .as_ref()
                .map_or("no pair of valid runs", |found| &found.verdict.words);
            if found.len() == 1 {
                words.to_owned()
            } else {
                format!("{} v {}: {words}", pair.first, pair.second)
            }
        });
        row.push(match summary.setting.repeats {
            1 => ONE_RUN.to_owned(),
            _ => words.collect::<Vec<_>>().join("; "),
        });
        let pairs = found
            .iter()
            .map(|(_, comparison)| comparison.as_ref().map_or(0, |found| found.ratio.pairs));
        row.push(pairs.min().map_or_else(missing, |pairs| pairs.to_string()));
        table.row(row);
    }
    format!(
        "{}\nFigures are medians of runs, ± their median absolute deviation. The factor is the median ratio of n paired runs, its interval a\n\
         bootstrap over them. A winner is named if the interval excludes 1 and a signed-rank test, corrected for the percentiles of a\n\
         latency, finds p <= 0.05; else the factor from which on a difference would be found four times in five stands beside. Below\n\
         n = {RUNS_FOR_A_CLAIM} nothing is claimed. Of the valid runs, those in doubt are counted behind a ?, those with warnings (in their\n\
         records) behind a !, as in `10/10 ?1 !2`.\n",
        table.render()
    )
}

/// What was found where there is nothing to find.
fn noise(summary: &Summary) -> String {
    let Some(noise) = &summary.noise else {
        return "\nNo contestant ran against itself, so nothing here shows how much is noise.\n"
            .to_owned();
    };
    let mut text = String::from(
        "\nOne contestant against itself, the floor below which nothing can be seen here:\n\n",
    );
    for one in &noise.bouts {
        text.push_str(&format!(
            "- {}: {}: {}\n",
            one.bout, one.contestant, one.words
        ));
    }
    text
}

/// One table per kind: one row per bout and contestant.
fn figures(summary: &Summary) -> String {
    let mut text = String::new();
    for kind in [
        Kind::Echo,
        Kind::Broadcast,
        Kind::Connect,
        Kind::Idle,
        Kind::Scale,
        Kind::Capacity,
    ] {
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
            let how = if matches!(kind, Kind::Echo | Kind::Broadcast) {
                format!(", {how}")
            } else {
                String::new()
            };
            text.push_str(&format!("\n### {}{how}\n\n", title(kind)));
            text.push_str(&figures_of(kind, &bouts));
            if kind == Kind::Scale {
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

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Echo => "Echo",
        Kind::Broadcast => "Broadcast",
        Kind::Connect => "Opening handshakes",
        Kind::Idle => "Idle connections",
        Kind::Scale => "Scale",
        Kind::Capacity => "Highest rate",
    }
}

fn figures_of(kind: Kind, bouts: &[&Bout]) -> String {
    // A column that no contestant has a figure for says nothing.
    let has_figures = |key: &str| {
        bouts.iter().any(|bout| {
            bout.contestants
                .iter()
                .any(|showing| spread(showing, key).is_some())
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
        for showing in &bout.contestants {
            let mut row = vec![
                bout.scenario.name.clone(),
                showing.contestant.clone(),
                valid(showing),
            ];
            row.extend(columns.iter().map(|metric| {
                spread(showing, metric.key)
                    .map_or_else(missing, |spread| format(metric.unit, spread.median))
            }));
            table.row(row);
        }
    }
    table.render()
}

/// `10/10`; `9/10 ?1 !2` when one of the nine is in doubt and two carry warnings.
fn valid(showing: &Showing) -> String {
    if showing.refused_runs > 0 && showing.refused_runs == showing.runs {
        return "refused".to_owned();
    }
    let warned = match showing.valid_runs_with_warnings {
        0 => String::new(),
        runs => format!(" !{runs}"),
    };
    let doubtful = match showing.doubtful_runs {
        0 => String::new(),
        runs => format!(" ?{runs}"),
    };
    format!("{}/{}{doubtful}{warned}", showing.valid_runs, showing.runs)
}

/// How each search ended; every probe is a row of the HTML report, and of the run's record.
fn searches(bout: &Bout) -> String {
    if bout.searches.is_empty() {
        return String::new();
    }
    let headings = [
        "contestant",
        "block",
        "held",
        "broke",
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
            rate(search.broke_per_s),
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

/// All compared metrics of all pairs.
fn comparisons(summary: &Summary) -> String {
    let mut text = String::new();
    for bout in &summary.bouts {
        for pair in &bout.pairs {
            let headings = [
                "metric",
                &pair.first,
                &pair.second,
                "better, by how much [95% interval]",
                "p (Holm)",
                "Cliff's delta",
            ]
            .map(str::to_owned)
            .to_vec();
            let mut table = Table::new(headings, vec![1, 2, 4, 5]);
            for comparison in &pair.comparisons {
                let Some(metric) = metrics::find(bout.scenario.kind, &comparison.metric) else {
                    continue;
                };
                let of = |name: &str| {
                    let showing = bout
                        .contestants
                        .iter()
                        .find(|showing| showing.contestant == name);
                    showing.map_or_else(missing, |showing| {
                        cell(metric.unit, spread(showing, metric.key))
                    })
                };
                table.row(vec![
                    metric.title.to_owned(),
                    of(&pair.first),
                    of(&pair.second),
                    comparison.verdict.words.clone(),
                    comparison
                        .significance
                        .map_or_else(missing, |sure| p_value(sure.p_adjusted)),
                    comparison
                        .cliffs_delta
                        .map_or_else(missing, |delta| format!("{delta:+.2}")),
                ]);
            }
            if !table.is_empty() {
                text.push_str(&format!(
                    "\n### {}\n\n{}",
                    bout.scenario.name,
                    table.render()
                ));
            }
        }
    }
    text
}

fn prose(summary: &Summary) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    summary
        .bouts
        .iter()
        .map(|bout| {
            format!(
                "\n**{}** ({}). Shows: {} Does not show: {}\n",
                bout.scenario.name,
                bout.scenario.title,
                one_line(&bout.scenario.shows),
                one_line(&bout.scenario.does_not_show)
            )
        })
        .collect()
}

fn problems(summary: &Summary, heading: &str) -> String {
    list(summary, heading, |bout| &bout.problems)
}

fn doubts(summary: &Summary, heading: &str) -> String {
    list(summary, heading, |bout| &bout.doubts)
}

fn list(summary: &Summary, heading: &str, of: fn(&Bout) -> &[Problem]) -> String {
    let lines: Vec<String> = summary
        .bouts
        .iter()
        .flat_map(|bout| of(bout).iter().map(move |problem| (bout, problem)))
        .map(|(bout, problem)| {
            format!(
                "- {} block {} {}: {}: {}\n",
                bout.scenario.name,
                problem.block,
                problem.contestant,
                problem.status.name(),
                problem.reasons.join("; ")
            )
        })
        .collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("{heading}{}", lines.concat())
    }
}

fn spread(showing: &Showing, key: &str) -> Option<Spread> {
    showing.metrics.get(key).copied().flatten()
}

/// A median with its spread.
pub(crate) fn cell(unit: Unit, spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return missing();
    };
    if spread.n == 1 {
        return format(unit, spread.median);
    }
    let deviation = if spread.median == 0.0 {
        0.0
    } else {
        spread.mad / spread.median.abs() * 100.0
    };
    format!("{} ±{deviation:.1}%", format(unit, spread.median))
}

/// Two significant digits are all that n runs carry.
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.0001 {
        "<0.0001".to_owned()
    } else if p < 0.01 {
        format!("{p:.4}")
    } else {
        format!("{p:.2}")
    }
}

fn missing() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;
    use crate::record::RunRecord;
    use crate::summary::summarize;

    /// Ten blocks of a closed and an open bout: uring 12% faster, tokio with the better tail; one run died.
    fn summary() -> Summary {
        let mut runs: Vec<RunRecord> = Vec::new();
        for block in 1..=10_usize {
            let noise = 1.0 + 0.01 * ((block * 7) % 5) as f64;
            runs.push(canned::echo_run("server-uring", block, 112_000.0 * noise));
            runs.push(canned::echo_run("server-tokio", block, 100_000.0));
            runs.push(canned::open_run(
                "server-uring",
                block,
                50_000.0,
                900_000 + 1_000 * block as u64,
            ));
            runs.push(canned::open_run("server-tokio", block, 50_000.0, 700_000));
        }
        runs[8] = canned::failed(
            runs[8].clone(),
            "the server was killed by signal 9 during the run",
        );
        let scenarios = [
            canned::scenario("echo-64b-w1-c1000"),
            canned::open_run("server-uring", 1, 50_000.0, 1).scenario,
        ];
        summarize(canned::setting(), &scenarios, &runs)
    }

    #[test]
    fn markdown_of_a_canned_suite() {
        insta::assert_snapshot!(markdown(&summary()));
    }

    #[test]
    fn terminal_of_a_canned_suite() {
        insta::assert_snapshot!(terminal(&summary()));
    }

    #[test]
    fn markdown_of_a_scale_suite_has_a_row_for_what_was_refused() {
        let mut setting = canned::setting();
        setting.suite = "scale".into();
        (setting.repeats, setting.runs_needed) = (1, 1);
        setting.capacities.clear();
        let mut runs = Vec::new();
        for (connections, others_us) in [(10_000, 90), (100_000, 700)] {
            runs.push(canned::scale_run("server-uring", connections));
            let mut other = canned::scale_run("server-tokio", connections);
            if let Some(latency) = &mut other.loadgen.as_mut().unwrap().latency_intended {
                latency.p99_ns = others_us * 1000;
            }
            canned::fill(&mut other);
            runs.push(other);
        }
        let reason = "2 x 1,000,000 sockets + 600 files open now + 10,000 spare = 2,010,600 open files, and fs.file-max is 500,000";
        for name in ["server-uring", "server-tokio"] {
            runs.push(canned::refused(canned::scale_run(name, 1_000_000), reason));
        }
        let scenarios: Vec<_> = [10_000, 100_000, 1_000_000]
            .map(canned::scale_scenario)
            .to_vec();
        let summary = summarize(setting, &scenarios, &runs);
        assert!(summary.complete, "a refused step is not a failed one");
        insta::assert_snapshot!(markdown(&summary));
    }

    #[test]
    fn a_run_in_doubt_counts_and_is_marked() {
        let mut runs: Vec<RunRecord> = (1..=10)
            .map(|block| canned::echo_run("server-uring", block, 100_000.0))
            .collect();
        runs[3].status = crate::record::Status::Doubtful;
        runs[3].reasons = vec!["the hypervisor took 9.0% of the CPUs".to_owned()];
        let scenarios = [canned::scenario("echo-64b-w1-c1000")];
        let text = markdown(&summarize(canned::setting(), &scenarios, &runs));
        assert!(text.contains("| 10/10 ?1 |"), "{text}");
        let doubts = text.find("## Runs in doubt, which count").unwrap();
        assert!(
            text[doubts..].contains("block 4 server-uring: doubtful: the hypervisor took 9.0%"),
            "{text}"
        );
        assert!(!text.contains("Runs that do not count"));
    }

    #[test]
    fn nothing_at_all_still_renders() {
        let mut setting = canned::setting();
        setting.interrupted = true;
        let text = terminal(&summarize(
            setting,
            &[canned::scenario("echo-64b-w1-c1000")],
            &[],
        ));
        assert!(
            text.contains("INTERRUPTED") && text.contains("no pair of valid runs"),
            "{text}"
        );
    }
}
