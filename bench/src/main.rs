//! `bench`: see [`bench::referee`].

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bench::gate::{BREACH, Gate};
use bench::options::{Cli, Command};
use bench::results::Results;
use bench::{process, referee};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => ExitCode::from(referee::run(&cli.options)),
        Some(Command::Gate { dir, config }) => exit(gate(&dir, &config)),
        Some(Command::Exec {
            parent,
            cpus,
            command,
        }) => match process::exec(parent, &cpus, &command) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("bench exec: {error:#}");
                ExitCode::from(127)
            }
        },
    }
}

fn gate(dir: &Path, config: &Path) -> Result<ExitCode> {
    let rules = Gate::load(config)?;
    let results = Results::load(dir)?;
    let (text, all_hold) = rules.judge(&results.summary, &results.runs)?;
    print!("{text}");
    Ok(if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BREACH)
    })
}

/// A result that cannot be read or a rule about nothing is a matter of usage.
fn exit(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
