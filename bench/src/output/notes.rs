//! What a reader must know before the figures, from what a summary says.

use super::words;
use crate::store::load::inconsistent;
use crate::summary::{Bout, Setting, Summary};

/// As sentences; `findings` are what an audit found.
pub fn notes(summary: &Summary, findings: &[String]) -> Vec<String> {
    let setting = &summary.setting;
    let mut notes: Vec<String> = inconsistent(findings).into_iter().collect();
    let noise = summary.noise.iter().flat_map(|noise| &noise.bouts);
    for one in noise.filter(|one| one.found) {
        notes.push(format!(
            "NOISY: {} against itself in {}: {}. There is no such difference, so do not trust the others of this suite either.",
            one.contestant,
            one.bout,
            words::noise(one)
        ));
    }
    if setting.interrupted {
        notes.push(
            "INTERRUPTED: the suite was ended early; what had been run is below. `bench --resume DIR` runs the rest."
                .to_owned(),
        );
    }
    notes.extend(
        setting
            .aborted
            .iter()
            .map(|error| format!("ABORTED: {error}")),
    );
    if !setting.changed.is_empty() {
        notes.push(format!(
            "RESUMED BY FORCE, so that runs of unlike things are compared: {}.",
            setting.changed.join("; ")
        ));
    }
    notes.extend(
        setting
            .cut
            .iter()
            .map(|cut| format!("FEWER BLOCKS THAN PLANNED: {cut}.")),
    );
    for entrant in setting
        .contestants
        .iter()
        .filter(|one| one.duplicate.is_none())
    {
        if let Some(reason) = &entrant.excluded {
            notes.push(format!("EXCLUDED: {}: {reason}", entrant.name));
        }
    }
    for (key, capacity) in &setting.capacities {
        if !capacity.in_doubt.is_empty() {
            let names: Vec<&str> = capacity.in_doubt.iter().map(String::as_str).collect();
            notes.push(format!(
                "CAPACITY IN DOUBT: rates are shares of {key}, and the runs of {} that it was measured in are doubtful or invalid.",
                names.join(", ")
            ));
        }
    }
    let shared = summary.bouts.iter().map(|bout| &bout.scenario);
    notes.extend(shared.filter_map(|scenario| {
        let cpus = scenario.shared_cpus?;
        Some(format!(
            "SHARED CPUS: in {} server and generator run on the same {cpus} CPUs. What the generator used of them is in \
             the column gen. CPU, and no server can have it.",
            scenario.name
        ))
    }));
    // A suite that ended early has too few runs everywhere, which needs no list.
    if !setting.interrupted && setting.aborted.is_none() {
        notes.extend(too_few(setting, &summary.bouts));
    }
    notes
}

fn too_few(setting: &Setting, bouts: &[Bout]) -> Option<String> {
    let lacking: Vec<String> = bouts
        .iter()
        .flat_map(|bout| bout.contestants.iter().map(move |result| (bout, result)))
        .filter(|(_, result)| !result.enough)
        .map(|(bout, result)| {
            format!(
                "{} of {} in {} ({} needed)",
                result.valid_runs,
                result.contestant,
                bout.scenario.name,
                setting.runs_needed(&bout.scenario.name)
            )
        })
        .collect();
    (!lacking.is_empty()).then(|| format!("TOO FEW VALID RUNS: {}.", lacking.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::summarize;
    use crate::test_data;

    fn suite(blocks: usize) -> Vec<RunRecord> {
        (1..=blocks)
            .flat_map(|block| {
                [
                    test_data::echo_run("server-uring", block, 112_000.0),
                    test_data::echo_run("server-tokio", block, 100_000.0),
                ]
            })
            .collect()
    }

    #[test]
    fn a_capacity_in_doubt_is_said_with_the_contestants() {
        let set = |setting: &mut Setting| {
            for capacity in setting.capacities.values_mut() {
                capacity.in_doubt.insert("server-tokio".to_owned());
            }
        };
        let notes = noted(&suite(10), set, |_| {});
        let found = notes
            .iter()
            .find(|note| note.starts_with("CAPACITY IN DOUBT"));
        assert!(found.unwrap().contains("runs of server-tokio"), "{notes:?}");
        assert!(
            !noted(&suite(10), |_| {}, |_| {})
                .iter()
                .any(|note| note.contains("IN DOUBT"))
        );
    }

    /// The notes on a suite of these runs, its setting and its summary changed.
    fn noted(
        runs: &[RunRecord],
        set: impl FnOnce(&mut Setting),
        change: impl FnOnce(&mut Summary),
    ) -> Vec<String> {
        let mut setting = test_data::setting();
        set(&mut setting);
        let scenarios = [test_data::scenario("echo-64b-w1-c1000")];
        let mut summary = summarize(setting, &scenarios, runs);
        change(&mut summary);
        notes(&summary, &[])
    }

    #[test]
    fn a_whole_suite_needs_no_note() {
        assert_eq!(noted(&suite(10), |_| {}, |_| {}), [""; 0]);
    }

    #[test]
    fn shared_cpus_are_said() {
        let share = |summary: &mut Summary| summary.bouts[0].scenario.shared_cpus = Some(2);
        let all = noted(&suite(10), |_| {}, share);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            all[0].starts_with("SHARED CPUS: in echo-64b-w1-c1000 "),
            "{all:?}"
        );
    }

    #[test]
    fn what_is_lacking_is_named_unless_the_suite_was_ended() {
        let mut runs = suite(10);
        for place in [0, 2, 4] {
            runs[place] = test_data::failed(runs[place].clone(), "x");
        }
        let all = noted(&runs, |_| {}, |_| {});
        assert_eq!(
            all,
            ["TOO FEW VALID RUNS: 7 of server-uring in echo-64b-w1-c1000 (8 needed)."]
        );
        let all = noted(&suite(3), |setting| setting.interrupted = true, |_| {});
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].starts_with("INTERRUPTED"));
    }

    #[test]
    fn a_contestant_that_beats_itself_comes_first() {
        use crate::summary::{Noise, SelfBout};
        let all = noted(
            &suite(10),
            |setting| setting.cut = Some("5 of 10".into()),
            |summary| {
                let one = &summary.bouts[0].pairs[0].comparisons[0];
                summary.noise = Some(Noise {
                    noisy: true,
                    bouts: vec![SelfBout {
                        bout: "echo-64b-w1-c1000".into(),
                        contestant: "server-uring".into(),
                        metric: one.metric.clone(),
                        p_adjusted: 0.01,
                        found: true,
                        ratio: Some(one.ratio),
                        verdict: Some(one.verdict.clone()),
                    }],
                });
            },
        );
        let first = "NOISY: server-uring against itself in echo-64b-w1-c1000: server-uring 1.120x";
        assert!(all[0].starts_with(first), "{all:?}");
        assert_eq!(all[1], "FEWER BLOCKS THAN PLANNED: 5 of 10.");
    }
}
