//! Contestants against one, by how much a handler works for each message.

use super::axis::{Scale, reach};
use super::chart::Legend;
use super::forest::times;
use super::panels::{PANEL, Panels};
use super::svg::Svg;
use crate::config::Scenario;
use crate::judge::metrics::{self, Metric};
use crate::summary::{Advantage, Bout, Summary};

const PANELS: [&str; 2] = ["throughput", "server CPU per message"];
/// A ratio beyond is cut.
const FARTHEST: f64 = 2.5;

/// The bouts that differ in their work alone, in its order; empty if there are not two of them.
fn by_work(summary: &Summary) -> Vec<(u32, &Bout)> {
    let mut bouts: Vec<(u32, &Bout)> = summary
        .bouts
        .iter()
        .filter_map(|bout| Some((bout.scenario.handler_work_us()?, bout)))
        .collect();
    let like = bouts.first().map(|(_, bout)| load_of(&bout.scenario));
    bouts.retain(|(_, bout)| Some(load_of(&bout.scenario)) == like);
    bouts.sort_by_key(|(us, _)| *us);
    if bouts.len() < 2 {
        bouts.clear();
    }
    bouts
}

fn load_of(scenario: &Scenario) -> impl PartialEq + use<> {
    (
        scenario.kind,
        scenario.connections,
        scenario.size_bytes,
        scenario.load,
    )
}

/// A panel for each of two metrics, a place on its axis for each amount of work; `None` where there
/// are not two of them.
pub(super) fn draw(summary: &Summary, reference: &str, legend: &Legend<'_>) -> Option<String> {
    let bouts = by_work(summary);
    let (_, first) = bouts.first()?;
    let kind = first.scenario.kind;
    let panels = [
        metrics::find(kind, &first.headline),
        metrics::server_cpu(&first.scenario),
    ];
    let others = others(summary, &bouts, reference);
    let title = format!("How many times better than {reference}, by work in the handler");
    let reading = "● a winner is named · ○ no difference is shown · above the dashed line: better";
    let names: Vec<(String, &str)> = others
        .iter()
        .map(|name| (legend.style(name), *name))
        .collect();
    let (places, mut svg) = Panels::under(&title, reading, &names);
    let found = |metric: Option<&Metric>| -> Vec<Mark<'_>> {
        let mut marks = Vec::new();
        for (place, (us, bout)) in bouts.iter().enumerate() {
            for (number, name) in others.iter().enumerate() {
                let advantage = metric.and_then(|one| bout.advantage(name, reference, one.key));
                marks.extend(advantage.map(|advantage| Mark {
                    place,
                    us: *us,
                    number,
                    name,
                    advantage,
                }));
            }
        }
        marks
    };
    let marks = panels.map(found);
    let ends = marks.iter().flatten();
    let reach = reach(
        ends.flat_map(|mark| [mark.advantage.low, mark.advantage.high]),
        FARTHEST,
    );
    for (panel, marks) in marks.iter().enumerate() {
        let here = places.go_on_in(&mut svg, panel, PANELS[panel]);
        let column = PANEL / bouts.len() as f64;
        let ticks = bouts.iter().enumerate().map(|(place, (us, _))| {
            (
                here.left + (place as f64 + 0.5) * column,
                format!("{us} µs"),
            )
        });
        svg.x_axis(ticks, "work for each message");
        let y = Scale::about_one(reach, svg.upward());
        // Over both panels.
        let times_better = if panel == 0 { "times better" } else { "" };
        svg.y_axis(y.ticks_about_one(), times_better);
        svg.mark_y(y.at(1.0));
        for mark in marks {
            // Side by side, so that intervals do not hide each other.
            let step = column * 0.8 / others.len() as f64;
            let aside = (mark.number as f64 + 0.5) * step - column * 0.4;
            let x = here.left + (mark.place as f64 + 0.5) * column + aside;
            draw_mark(&mut svg, x, y, mark, &legend.style(mark.name));
        }
    }
    let words = format!(
        "A dot says how many times better a contestant is than {reference}: above the dashed line \
         it is better, below it worse. The line is the 95% interval. The dot is filled where a \
         winner is named."
    );
    Some(svg.finish(&title, &words))
}

/// Who is compared with `reference` in one of these bouts; not one that is another under a second
/// name.
fn others<'a>(summary: &'a Summary, bouts: &[(u32, &Bout)], reference: &str) -> Vec<&'a str> {
    let entrants = summary.setting.contestants.iter();
    let names = entrants
        .filter(|entrant| entrant.duplicate.is_none() && entrant.name != reference)
        .map(|entrant| entrant.name.as_str());
    let takes_part = |name: &&str| bouts.iter().any(|(_, bout)| bout.result_of(name).is_some());
    names.filter(takes_part).collect()
}

/// A contestant at one amount of work.
struct Mark<'a> {
    place: usize,
    us: u32,
    number: usize,
    name: &'a str,
    advantage: Advantage,
}

fn draw_mark(svg: &mut Svg, x: f64, y: Scale, mark: &Mark<'_>, style: &str) {
    let Advantage {
        ratio,
        low,
        high,
        shown,
        ..
    } = mark.advantage;
    svg.line(
        &format!("interval {style}"),
        (x, y.at(low)),
        (x, y.at(high)),
    );
    let [ratio_words, low, high] = [ratio, low, high].map(times);
    let words = format!(
        "{} µs, {}: {ratio_words} [{low}, {high}]",
        mark.us, mark.name
    );
    let hollow = if shown { "" } else { "hollow " };
    svg.dot(
        &format!("estimate {hollow}{style}"),
        (x, y.at(ratio)),
        4.5,
        &words,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::summary::summarize;
    use crate::test_data;

    #[test]
    fn each_amount_of_work_has_its_place_and_one_alone_is_no_plot() {
        let mut scenarios = ["10", "1", "100"].map(|us| {
            let mut scenario = test_data::scenario(&format!("work-{us}"));
            scenario.server_args = vec!["--handler-work-us".to_owned(), us.to_owned()];
            scenario
        });
        scenarios[2].connections = 10;
        let run = |name: &str, block, place: usize, per_s| {
            let mut run = test_data::echo_run(name, block, per_s);
            run.bout = scenarios[place].name.clone();
            run.scenario = scenarios[place].clone();
            run
        };
        let runs: Vec<RunRecord> = (1..=10)
            .flat_map(|block| {
                [
                    run("server-uring", block, 0, 80_000.0),
                    run("server-tokio", block, 0, 80_000.0),
                    run("server-uring", block, 1, 120_000.0),
                    run("server-tokio", block, 1, 100_000.0),
                    run("server-uring", block, 2, 120_000.0),
                    run("server-tokio", block, 2, 100_000.0),
                ]
            })
            .collect();
        let names = ["server-uring", "server-tokio"].map(str::to_owned);
        let drawn = |scenarios: &[_]| {
            let summary = summarize(test_data::setting(), scenarios, &runs);
            draw(&summary, "server-tokio", &Legend(&names))
        };
        let svg = drawn(&scenarios).unwrap();
        let at = |words: &str| svg.find(words);
        assert!(
            at(">1 µs<") < at(">10 µs<") && at(">1 µs<").is_some(),
            "{svg}"
        );
        assert_eq!(at("100 µs"), None, "another load");
        assert!(
            svg.contains("1 µs, server-uring: 1.20x [1.20x, 1.20x]"),
            "{svg}"
        );
        assert!(svg.contains("class=\"estimate hollow s0\""), "{svg}");
        assert_eq!(drawn(&scenarios[1..]), None);
    }
}
