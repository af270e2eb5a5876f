//! The summary for people: the same words on the terminal and in `summary.md`.

mod comparisons;
pub(crate) mod figures;
mod who_won;

use super::notes::notes;
use super::words;
use crate::config::{Protocol, Transport};
use crate::stats::Spread;
use crate::summary::{Bout, ContestantResult, Problem, Summary};
use crate::units::{Unit, format};
use comparisons::comparisons;
use figures::figures;
use who_won::who_won;

/// What no bout of this referee shows, whatever its figures.
const NOT_SHOWN: &str = "\
- A network: everything here ran over loopback on one machine, where the kernel's TCP path is most of the cost and part of the
  generator's receive work is charged to the server that sends to it.
- Many cores: the servers had the CPUs named above, no more; a runtime's scaling is another question.
- Your machine, your kernel, your load. Absolute figures are this machine's on this day; the ratios travel better, and not far.
- TLS, compression, slow or far-away clients, handlers that do something.
- Impartial contestants: the servers were written by the people who wrote this referee (docs/bias.md says more).
";

/// `summary.md`.
pub fn markdown(summary: &Summary, findings: &[String]) -> String {
    let mut text = heading(summary, findings);
    text.push_str("\n## Who won\n\n");
    text.push_str(&who_won(summary));
    text.push_str(&noise(summary));
    text.push_str("\n## Figures\n");
    text.push_str(&figures(summary));
    let comparisons = comparisons(summary);
    if !comparisons.is_empty() {
        text.push_str("\n## Every comparison\n");
        text.push_str(&comparisons);
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
pub fn terminal(summary: &Summary, findings: &[String]) -> String {
    let mut text = heading(summary, findings);
    text.push_str(&figures(summary));
    text.push_str(&problems(summary, "\nRuns that do not count:\n\n"));
    text.push_str(&doubts_in_short(summary));
    text.push_str("\nWhat none of this shows:\n\n");
    text.push_str(NOT_SHOWN);
    text.push_str("\nWho won:\n\n");
    text.push_str(&who_won(summary));
    text.push_str(&noise(summary));
    text
}

fn heading(summary: &Summary, findings: &[String]) -> String {
    let setting = &summary.setting;
    let names: Vec<&str> = setting
        .contestants
        .iter()
        .filter(|entrant| entrant.duplicate.is_none())
        .map(|entrant| entrant.name.as_str())
        .collect();
    let mut text = format!(
        "# {}Ringside `{}`: {}\n\n",
        if summary.is_noisy() {
            "NOISY, do not trust: "
        } else {
            ""
        },
        setting.suite,
        names.join(" against ")
    );
    for note in notes(summary, findings) {
        text.push_str(&format!("**{note}**\n\n"));
    }
    text.push_str(&format!(
        "{} · {}\nrevision {} · seed {} · {} blocks per bout in sequence · servers on CPUs {}, generator on CPUs {}\n\n",
        setting.started_utc,
        setting.machine,
        setting.revision,
        setting.seed,
        setting.repeats,
        setting.server_cpus,
        setting.generator_cpus
    ));
    let bouts = summary.bouts.iter();
    let has_unix = bouts
        .map(|bout| bout.scenario.transport)
        .any(|transport| transport == Transport::Unix);
    for entrant in &setting.contestants {
        let runtime = match (&entrant.runtime, &entrant.excluded) {
            (_, Some(_)) => " (excluded)".to_owned(),
            (Some(runtime), None) => format!(" ({runtime})"),
            (None, None) => String::new(),
        };
        let bouts = match entrant.protocol {
            Protocol::Ws => "",
            Protocol::Tcp => "; speaks no WebSocket, so it is in echo bouts only",
        };
        let without_unix = if has_unix && !entrant.can_unix {
            "; listens on no Unix socket, so it is not in bouts over one"
        } else {
            ""
        };
        text.push_str(&format!(
            "- **{}**: {}{runtime}{bouts}{without_unix}\n",
            entrant.name, entrant.about
        ));
    }
    text
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
            one.bout,
            one.contestant,
            words::noise(one)
        ));
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

/// For the terminal: a line per bout, with how often which doubt was raised. A machine with other
/// work on it raises the same one for every run.
fn doubts_in_short(summary: &Summary) -> String {
    let lines: Vec<String> = summary
        .bouts
        .iter()
        .filter(|bout| !bout.doubts.is_empty())
        .map(|bout| {
            let counting: usize = bout.contestants.iter().map(|one| one.valid_runs).sum();
            format!(
                "- {}: {} of {counting} runs doubtful: {}\n",
                bout.scenario.name,
                bout.doubts.len(),
                words::kinds_of_doubt(&bout.doubts).join("; ")
            )
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "\nRuns in doubt, which count (summary.md names each):\n\n{}",
        lines.concat()
    )
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
                words::of_problem(problem)
            )
        })
        .collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("{heading}{}", lines.concat())
    }
}

pub(crate) fn spread(result: &ContestantResult, key: &str) -> Option<Spread> {
    result.metrics.get(key).copied().flatten()
}

/// This machine could hold none of its runs.
fn is_refused(result: &ContestantResult) -> bool {
    result.refused_runs > 0 && result.refused_runs == result.runs
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

/// In place of a figure that no run has.
pub(crate) fn missing() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Check, CheckName, CheckStatus, RunRecord, Status};
    use crate::summary::summarize;
    use crate::test_data;

    fn markdown(summary: &Summary) -> String {
        super::markdown(summary, &[])
    }

    fn terminal(summary: &Summary) -> String {
        super::terminal(summary, &[])
    }

    /// Ten blocks of a closed and an open bout: uring 12% faster, tokio with the better tail; one
    /// run died.
    fn summary() -> Summary {
        let mut runs: Vec<RunRecord> = Vec::new();
        for block in 1..=10_usize {
            let noise = 1.0 + 0.01 * ((block * 7) % 5) as f64;
            runs.push(test_data::echo_run(
                "server-uring",
                block,
                112_000.0 * noise,
            ));
            runs.push(test_data::echo_run("server-tokio", block, 100_000.0));
            runs.push(test_data::open_run(
                "server-uring",
                block,
                50_000.0,
                900_000 + 1_000 * block as u64,
            ));
            runs.push(test_data::open_run(
                "server-tokio",
                block,
                50_000.0,
                700_000,
            ));
        }
        runs[8] = test_data::failed(
            runs[8].clone(),
            "the server was killed by signal 9 during the run",
        );
        let scenarios = [
            test_data::scenario("echo-64b-w1-c1000"),
            test_data::open_run("server-uring", 1, 50_000.0, 1).scenario,
        ];
        summarize(test_data::setting(), &scenarios, &runs)
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
        let mut setting = test_data::setting();
        setting.suite = "scale".into();
        (setting.repeats, setting.runs_needed) = (1, 1);
        setting.capacities.clear();
        let mut runs = Vec::new();
        for (connections, others_us) in [(10_000, 90), (100_000, 700)] {
            runs.push(test_data::scale_run("server-uring", connections));
            let mut other = test_data::scale_run("server-tokio", connections);
            if let Some(latency) = &mut other.loadgen.as_mut().unwrap().latency_intended {
                latency.p99_ns = others_us * 1000;
            }
            test_data::fill(&mut other);
            runs.push(other);
        }
        let reason = "2 x 1,000,000 sockets + 600 files open now + 10,000 spare = 2,010,600 open files, and fs.file-max is 500,000";
        for name in ["server-uring", "server-tokio"] {
            runs.push(test_data::refused(
                test_data::scale_run(name, 1_000_000),
                reason,
            ));
        }
        let scenarios: Vec<_> = [10_000, 100_000, 1_000_000]
            .map(test_data::scale_scenario)
            .to_vec();
        let summary = summarize(setting, &scenarios, &runs);
        assert!(summary.complete, "a refused step is not a failed one");
        insta::assert_snapshot!(markdown(&summary));
    }

    #[test]
    fn terminal_of_bouts_at_saturation_and_at_an_equal_rate() {
        let names = ["server-uring", "server-tokio", "server-raw"];
        let mut setting = test_data::setting();
        let entrant = setting.contestants[0].clone();
        setting.contestants = names
            .map(|name| crate::summary::Entrant {
                name: name.into(),
                ..entrant.clone()
            })
            .to_vec();
        let closed = ["echo-64b-w1-c200", "echo-64b-w16-c1000", "echo-16k-w1-c500"];
        let mut scenarios = Vec::new();
        let mut runs = Vec::new();
        for (bout, closed) in closed.into_iter().enumerate() {
            let at_rate = format!("{closed}-at-50");
            let open = test_data::open_run("server-uring", 1, 50_000.0, 1).scenario;
            scenarios.push(test_data::scenario(closed));
            scenarios.push(crate::config::Scenario {
                name: at_rate.clone(),
                at_rate_of: Some(closed.to_owned()),
                ..open
            });
            let faster = [1.0, 0.92 - 0.2 * bout as f64, 1.0];
            for block in 1..=10 {
                for (place, name) in names.into_iter().enumerate() {
                    let wave = 1.0 + 0.004 * ((block * (7 + place)) % 5) as f64;
                    let per_s = 112_000.0 * faster[place] * wave;
                    let mut run = test_data::echo_run(name, block, per_s);
                    run.bout = closed.to_owned();
                    runs.push(run);
                    let p99_ns = (900_000.0 / faster[place] * wave.powi(7)) as u64;
                    let mut run = test_data::open_run(name, block, 50_000.0, p99_ns);
                    run.bout.clone_from(&at_rate);
                    if place == 1 {
                        run.metrics.insert(
                            "server_cpu_ns_per_message".to_owned(),
                            Some(20_500.0 * wave),
                        );
                    }
                    runs.push(run);
                }
            }
        }
        // The last one lost runs.
        runs.retain(|run| run.bout != closed[2] || run.contestant != names[2] || run.block < 8);
        scenarios.push(test_data::scenario("echo-64b-w1-c1000"));
        insta::assert_snapshot!(terminal(&summarize(setting, &scenarios, &runs)));
    }

    /// In doubt, because the hypervisor took this share.
    fn stolen(run: &mut RunRecord, share: f64) {
        let check = Check::ok(CheckName::Steal, share, 0.02);
        run.checks = vec![check.when(true, CheckStatus::Doubtful)];
        run.status = Status::Doubtful;
    }

    #[test]
    fn a_run_in_doubt_counts_and_is_marked() {
        let mut runs: Vec<RunRecord> = (1..=10)
            .map(|block| test_data::echo_run("server-uring", block, 100_000.0))
            .collect();
        stolen(&mut runs[3], 0.09);
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let text = markdown(&summarize(test_data::setting(), &scenarios, &runs));
        assert!(text.contains("| 10/10 ?1 |"), "{text}");
        let doubts = text.find("## Runs in doubt, which count").unwrap();
        assert!(
            text[doubts..].contains("block 4 server-uring: doubtful: the hypervisor took 9.0%"),
            "{text}"
        );
        assert!(!text.contains("Runs that do not count"));
    }

    #[test]
    fn the_terminal_has_one_line_for_what_many_runs_are_doubted_for() {
        let mut runs: Vec<RunRecord> = (1..=10)
            .map(|block| test_data::echo_run("server-uring", block, 100_000.0))
            .collect();
        for (run, share) in runs.iter_mut().zip([0.09, 0.125, 0.031]) {
            stolen(run, share);
        }
        let check = Check::ok(CheckName::OtherLoad, 0.113, 0.05);
        runs[1].checks.push(check.when(true, CheckStatus::Doubtful));
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let text = terminal(&summarize(test_data::setting(), &scenarios, &runs));
        assert!(
            text.contains(
                "- echo-64b-w1-c1000: 3 of 10 runs doubtful: steal in 3 runs, the worst: the hypervisor took 12.5% of the CPUs \
                 (limit 2.0%); other_load: processes that are no part of the run used 11.3% of the CPUs in the window (limit 5.0%)\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn nothing_at_all_still_renders() {
        let mut setting = test_data::setting();
        setting.interrupted = true;
        let text = terminal(&summarize(
            setting,
            &[test_data::scenario("echo-64b-w1-c1000")],
            &[],
        ));
        assert!(
            text.contains("INTERRUPTED") && text.contains("server-tokio: no valid run"),
            "{text}"
        );
    }
}
