//! `bench`: see [`bench::referee`].

use std::process::ExitCode;

use bench::options::{Cli, Command};
use bench::{process, referee};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => ExitCode::from(referee::run(&cli.options)),
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
