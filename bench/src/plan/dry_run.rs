//! `--dry-run`: what a suite would run, and how long it would take. Pure.

use super::Choice;
use crate::config::Scenario;
use crate::output::table::Table;
use crate::units::minutes;

/// The plan for people.
pub fn text(choice: &Choice) -> String {
    let headings = ["bout", "contestants", "blocks", "a block", "all blocks"];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![2, 3, 4]);
    for scenario in &choice.scenarios {
        let block = choice.estimate_block(scenario);
        table.row(vec![
            scenario.name.clone(),
            contestants(choice, scenario),
            choice.repeats.to_string(),
            format!("{:.1} s", block.as_secs_f64()),
            minutes(block * choice.repeats as u32),
        ]);
    }
    let mut text = format!(
        "suite `{}`: {}\nseed {}, servers on CPUs {}, generator on CPUs {}\n\n{}\n",
        choice.suite.name,
        choice.suite.about,
        choice.seed,
        choice.server_cpus,
        choice.generator_cpus,
        table.render()
    );
    if !choice.calibrations().is_empty() {
        text.push_str(&format!(
            "capacities are measured first: {} min\n",
            minutes(choice.estimate_calibrations())
        ));
    }
    text.push_str(&match choice.until {
        Some(until) => format!(
            "in all about {} min, up to {} min if {} blocks do not make every headline interval as narrow as {}%\n",
            minutes(choice.estimate(choice.repeats)),
            minutes(choice.estimate(until.max_repeats)),
            until.max_repeats,
            until.half_width * 100.0
        ),
        None => format!(
            "in all about {} min, and up to {} blocks more per bout to make up for runs that do not count\n",
            minutes(choice.estimate(choice.repeats)),
            choice.suite.extra_blocks
        ),
    });
    if let Some(budget) = choice.budget {
        text.push_str(&format!(
            "no block begins that would end after {} min\n",
            minutes(budget)
        ));
    }
    text.push_str(
        "trial starts and conformance cases of the contestants come on top, some seconds each\n",
    );
    text
}

fn contestants(choice: &Choice, scenario: &Scenario) -> String {
    let names = choice.contestants.iter().filter(|one| one.plays(scenario));
    names
        .map(|one| one.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
