//! `--dry-run`: what a suite would run, and how long it would take. Pure.

use super::SuitePlan;
use crate::config::{Alternation, Scenario};
use crate::output::table::Table;
use crate::units::minutes;

/// The plan for people.
pub fn text(plan: &SuitePlan) -> String {
    let headings = [
        "bout",
        "contestants",
        "a block or round",
        "number",
        "each",
        "all",
    ];
    let mut table = Table::new(headings.map(str::to_owned).to_vec(), vec![3, 4, 5]);
    for scenario in &plan.scenarios {
        let block = plan.estimate_block(scenario);
        let blocks = plan.blocks(scenario);
        let way = match plan.alternation(scenario) {
            Some(Alternation { cycles, slice, .. }) => {
                format!("{cycles} cycles x {}", units::show_duration(slice))
            }
            None => "in sequence".to_owned(),
        };
        table.row(vec![
            scenario.name.clone(),
            contestants(plan, scenario),
            way,
            blocks.to_string(),
            format!("{:.1} s", block.as_secs_f64()),
            minutes(block * blocks as u32),
        ]);
    }
    let mut text = format!(
        "suite `{}`: {}\nseed {}, servers on CPUs {}, generator on CPUs {}\n\n{}\n",
        plan.suite.name,
        plan.suite.about,
        plan.seed,
        plan.server_cpus,
        plan.generator_cpus,
        table.render()
    );
    if !plan.calibrations().is_empty() {
        text.push_str(&format!(
            "capacities are measured first: {} min\n",
            minutes(plan.estimate_calibrations())
        ));
    }
    text.push_str(&match plan.until {
        Some(until) => format!(
            "in all about {} min, up to {} min if {} blocks do not make every headline interval as narrow as {}%\n",
            minutes(plan.estimate()),
            minutes(plan.estimate_at_most()),
            until.max_repeats,
            until.half_width * 100.0
        ),
        None => format!(
            "in all about {} min, and up to {} blocks more per bout to make up for runs that do not count\n",
            minutes(plan.estimate()),
            plan.suite.extra_blocks
        ),
    });
    if let Some(budget) = plan.budget {
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

fn contestants(plan: &SuitePlan, scenario: &Scenario) -> String {
    let contestants = plan.candidates.iter().map(|one| &one.contestant);
    contestants
        .filter(|one| one.plays(scenario))
        .map(|one| one.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
