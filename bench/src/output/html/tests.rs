use super::*;
use crate::record::{Check, CheckName, CheckStatus, Slice, SliceUse, Slices};
use crate::test_data;

/// A committed result with other runs and contestants.
fn result(runs: Vec<RunRecord>) -> Results {
    let mut results = test_data::varied();
    let scenarios: Vec<_> =
        runs.iter()
            .map(|run| run.scenario.clone())
            .fold(Vec::new(), |mut known, scenario| {
                if !known.contains(&scenario) {
                    known.push(scenario);
                }
                known
            });
    results.summary = crate::summary::summarize(test_data::setting(), &scenarios, &runs);
    results.runs = runs;
    results
}

fn ten_blocks() -> Vec<RunRecord> {
    (1..=10)
        .flat_map(|block| {
            let noise = 1.0 + 0.01 * (block % 3) as f64;
            [
                test_data::echo_run("server-uring", block, 120_000.0 * noise),
                test_data::echo_run("server-tokio", block, 100_000.0),
                test_data::open_run("server-uring", block, 50_000.0, 900_000 + block as u64),
                test_data::open_run("server-tokio", block, 50_000.0, 1_000_000),
            ]
        })
        .collect()
}

/// Five rounds, a minute apart, on a machine that is slow in every other one.
fn five_rounds() -> Vec<RunRecord> {
    let slices = |round: usize, place: usize, count: usize, from: u64, per_s: f64| {
        let slice = |cycle: usize| Slice {
            cycle,
            position: place + 1,
            from_ns: round as u64 * 60_000_000_000 + from + (2 * cycle + place) as u64 * 70_000_000,
            window_ns: 50_000_000,
            messages: (per_s * 0.05 * (1.0 + 0.01 * (cycle * 7 % 5 + round % 3) as f64)) as u64,
            server: Some(SliceUse {
                cpu_ns: 45_000_000,
                ..SliceUse::default()
            }),
            ..Slice::default()
        };
        (1..=count).map(slice).collect::<Vec<_>>()
    };
    let run = |round: usize, place: usize| {
        let (name, pace) = [("server-uring", 1.2), ("server-tokio", 1.0)][place];
        let per_s = pace
            * if round.is_multiple_of(2) {
                70_000.0
            } else {
                100_000.0
            };
        let mut run = test_data::echo_run(name, round, per_s);
        run.alternation = Some(Slices {
            warm_up: slices(round, place, 3, 0, per_s * 0.6),
            slices: slices(round, place, 20, 500_000_000, per_s),
        });
        run
    };
    (1..=5)
        .flat_map(|round| [run(round, 0), run(round, 1)])
        .collect()
}

#[test]
fn an_alternating_bout_shows_its_rounds_and_its_slices() {
    let page = page(&[result(five_rounds())], &[]).unwrap();
    assert_eq!(page.matches("round 3: 0.83").count(), 1, "a dot per round");
    assert!(page.contains("class=\"band s1\""));
    let slices = page.split("class=\"slices s0\" d=\"").nth(1).unwrap();
    assert_eq!(slices.split('"').next().unwrap().matches('M').count(), 20);
    assert_eq!(page.matches("class=\"slices faded s1\"").count(), 5);
    assert!(page.contains(">0:00</text>") && page.contains(">4:00</text>"));
    assert!(!page.contains("block 1"), "no dots of runs in sequence");
}

#[test]
fn the_first_view_says_who_by_how_much_and_how_sure() {
    let page = page(&[result(ten_blocks())], &[]).unwrap();
    let reading = page.find("A dot says how many times better").unwrap();
    let sums = "server-tokio: better in 0, worse in 3, no difference shown in 1 of 4 figures";
    let drawing = page.find("<svg").unwrap();
    assert!(
        reading < page.find(sums).unwrap() && page.find(sums).unwrap() < drawing,
        "{page}"
    );
    assert!(drawing < page.find("<h3>Verdicts</h3>").unwrap());
    let slower = &page[page.find("<h4>server-tokio</h4>").unwrap()..];
    let loss = slower.find("echoes&#x2f;s server-uring 1.2").unwrap();
    assert!(loss < slower.find("<h3>").unwrap());
}

#[test]
fn it_needs_no_network_and_no_script() {
    let page = page(&[test_data::varied()], &[]).unwrap();
    let names_only = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http://", "https://", "<script", "@import", "url("] {
        // The command lines and ready lines of a result have addresses in them, none of them a
        // link.
        let linked = names_only.contains(&format!("src=\"{forbidden}"))
            || names_only.contains(&format!("href=\"{forbidden}"));
        assert!(!linked, "{forbidden}");
    }
    assert!(!page.contains("<script") && !page.contains("@import") && !page.contains("url("));
}

#[test]
fn runs_that_do_not_count_are_shown() {
    let mut runs = ten_blocks();
    runs[0] = test_data::failed(runs[0].clone(), "the server <died>");
    let page = page(&[result(runs)], &[]).unwrap();
    assert!(page.contains("the server &lt;died&gt;"));
    assert!(page.contains("9 of 10"));
}

#[test]
fn runs_in_doubt_are_hollow_and_say_why() {
    let mut runs = ten_blocks();
    assert!(
        !page(&[result(runs.clone())], &[])
            .unwrap()
            .contains("run hollow")
    );
    runs[0].status = Status::Doubtful;
    let check = Check::ok(CheckName::OtherLoad, 0.31, 0.05);
    runs[0].checks = vec![check.when(true, CheckStatus::Doubtful)];
    let page = page(&[result(runs)], &[]).unwrap();
    assert!(page.contains("run hollow") && page.contains("used 31.0% of the CPUs"));
    assert!(page.contains("10 of 10"), "it counts");
}

#[test]
fn every_chart_has_a_table_and_a_name() {
    let page = page(&[test_data::varied()], &[]).unwrap();
    let count = |what: &str| page.matches(what).count();
    assert!(count("<svg") > 20);
    assert_eq!(
        count("<svg"),
        count("The same as a table") + count("drawing narrow")
    );
    assert_eq!(count("<svg"), count("role=\"img\" aria-label=\""));
    for drawing in page.split("<svg").skip(1) {
        let drawing = drawing.split("</svg>").next().unwrap();
        assert!(
            !drawing.contains("NaN") && !drawing.contains("inf"),
            "no figure without a value: {drawing}"
        );
    }
}

#[test]
fn the_drawing_for_a_readme_stands_alone() {
    let summary = result(ten_blocks()).summary;
    let svg = plot(&summary, None).unwrap();
    assert!(
        svg.starts_with("<svg xmlns=")
            && svg.contains("<style>")
            && svg.contains("better than server-uring")
    );
    let turned = plot(&summary, Some("server-tokio")).unwrap();
    assert!(turned.contains("better than server-tokio"));
    assert!(plot(&summary, Some("nobody")).is_err());
    assert!(plot(&result(vec![]).summary, None).is_err());
}

#[test]
fn several_results_stand_in_one_page() {
    let page = page(&[test_data::varied(), result(ten_blocks())], &[]).unwrap();
    assert_eq!(page.matches("<section id=").count(), 2);
}

#[test]
fn a_history_is_drawn_per_bout_and_machine() {
    let mut history = Vec::new();
    for (day, revision, per_s) in [("23", "def5678", 110_000.0), ("22", "abc1234", 100_000.0)] {
        let mut summary = result(vec![
            test_data::echo_run("server-uring", 1, per_s),
            test_data::echo_run("server-tokio", 1, 90_000.0),
        ])
        .summary;
        summary.setting.started_utc = format!("2026-11-{day}T03:00:00Z");
        summary.setting.revision = revision.into();
        history.extend(crate::output::history::entries(&summary));
    }
    let mut elsewhere = history[0].clone();
    elsewhere.machine = "yet another".into();
    history.push(elsewhere);
    let page = page(&[], &history).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(page.matches("class=\"curve s").count(), 3);
    let older = page.find("server-uring at abc1234: 100k").unwrap();
    assert!(older < page.find("server-uring at def5678: 110k").unwrap());
    assert!(page.contains("Over time") && page.contains("on yet another"));
}

#[test]
fn a_profile_beside_the_runs_is_shown_with_what_is_wrong_with_it() {
    let mut results = test_data::results("x", "abc1234", ten_blocks());
    assert!(
        !page(&[results.clone()], &[])
            .unwrap()
            .contains("Where the CPU time goes")
    );
    let folded = "w;main 400\nw;main;tcp_ack_[k] 4600\n";
    let stacks = Stacks::of_folded(folded).unwrap();
    let raw = "server-uring-raw".to_owned();
    let mut profile = test_data::profile();
    profile.contestants[0].shares = stacks.shares();
    results.profiles = vec![StoredProfile {
        folder: "profiles/echo".into(),
        stacks: [(raw.clone(), stacks)].into(),
        profile,
    }];
    results
        .environment
        .binaries
        .insert(raw, "another".to_owned());
    let text = page(&[results.clone()], &[]).unwrap();
    for part in [
        "<h3>Where the CPU time goes</h3>",
        "<title>tcp_ack: 92.00%, 4,600 samples (kernel TCP/IP)</title>",
        "<title>server-uring-raw: kernel TCP/IP: 92.0%, 4.60 µs</title>",
        "server-uring-raw: the profile is of another binary than the runs",
        "server-tokio: no profile: the server exited with 3",
    ] {
        assert!(text.contains(part), "no {part}");
    }
    let alone = profile_page(&results.profiles[0]).unwrap();
    assert!(alone.contains("What this does not show") && !alone.contains("another binary"));
}
