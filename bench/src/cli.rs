//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Options, ProfileOptions};
use crate::machine::CpuSet;
use crate::store::schema::Document;

const AFTER: &str = "\
Exit codes:
  0    every bout has enough valid runs of every contestant
  1    a bout has too few, a contestant was excluded, the machine is unfit, or the results could not be written
  2    usage: a flag, a suite, a scenario or a contestant that does not exist or cannot work
  130  interrupted: what had been run is kept and summed up

The last line on stdout is the result folder.";

/// Starts contestants, interleaves their runs, checks that the runs are valid, and says which
/// contestant was better by how much.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about, after_help = AFTER, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run a suite.
    #[command(flatten)]
    pub options: Options,
}

/// The subcommands of the referee.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists the result folders in a folder
    List {
        /// Where they are.
        #[arg(default_value = "bench-results")]
        dir: PathBuf,
    },
    /// Prints the tables of a result again
    Show {
        /// Result folder.
        dir: PathBuf,
    },
    /// Compares two results of the same scenarios, run against run; exit code 2 when they are
    /// different measurements
    Compare {
        /// Result folder, such as that of before a change.
        a: PathBuf,
        /// Result folder.
        b: PathBuf,
        /// Compare although machine, kernel or options differ; every line then says what does
        #[arg(long)]
        force: bool,
    },
    /// Writes results as one HTML page that needs no network
    Report {
        /// Result folders.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Where to write it [default: report.html in the last of the folders]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Also draw a history file over time
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
    },
    /// Shows where the CPU time of servers goes under a scenario's load: samples their stacks with
    /// perf, prints a table of shares, and writes a flame graph (SVG) for each contestant; the last
    /// line on stdout is the folder
    Profile(ProfileOptions),
    /// Prints a plot of a result as an SVG, for a README: all contestants against one
    Plot {
        /// Result folder.
        dir: PathBuf,
        /// The contestant that the others are compared with [default: the first]
        #[arg(long, value_name = "NAME")]
        against: Option<String>,
    },
    /// Writes the page and the plot that a list of committed results asks for, beside the list
    Docs {
        /// The list.
        #[arg(default_value = "docs/results.toml")]
        list: PathBuf,
        /// Write nothing; exit code 1 when a file differs from what it should be
        #[arg(long)]
        check: bool,
    },
    /// Adds the headline figures of a result to a file that `report --history` draws: JSON lines.
    /// Results already in the file are skipped
    History {
        /// History file; made if it is missing.
        file: PathBuf,
        /// Result folder.
        dir: PathBuf,
    },
    /// Writes a result for github-action-benchmark, Bencher and spreadsheets
    Export {
        /// Result folder.
        dir: PathBuf,
        /// Where to write [default: export/ in the result folder]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Judges a result by the rules of a file, for CI: exit code 0 when all hold, 99 when one is
    /// broken
    Gate {
        /// Result folder.
        dir: PathBuf,
        /// Rules, TOML; bench/gate.toml shows how
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints the JSON Schema of a file that a suite leaves behind
    Schema {
        /// Of which.
        document: Document,
    },
    /// Notes that the binaries beside this one were built from a tree (used by the scripts that
    /// build them)
    #[command(hide = true)]
    BuiltFrom {
        /// The tree.
        root: PathBuf,
        /// How, where that is not the release profile alone: a word or two.
        #[arg(long)]
        build: Option<String>,
    },
    /// Becomes a command that dies with its parent (used by the referee itself)
    #[command(hide = true)]
    Exec {
        /// Process id of the referee.
        #[arg(long)]
        parent: u32,
        /// Where to run.
        #[arg(long)]
        cpus: CpuSet,
        /// Nice value of it and its session.
        #[arg(long, allow_negative_numbers = true)]
        nice: Option<i32>,
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_and_ranges() {
        let cli = Cli::try_parse_from([
            "bench",
            "--contestants",
            "a,b",
            "--repeats",
            "3",
            "--seed",
            "9",
        ])
        .unwrap();
        assert_eq!(cli.options.contestants, ["a", "b"]);
        assert_eq!((cli.options.repeats, cli.options.seed), (Some(3), Some(9)));
        assert_eq!(cli.options.suite, "quick");
        let cli = Cli::try_parse_from(["bench", "--until-ci", "3%"]).unwrap();
        assert_eq!(
            (cli.options.until_ci, cli.options.max_repeats),
            (Some(0.03), 40)
        );
        for bad in [
            &["bench", "--repeats", "0"][..],
            &["bench", "--server-cpus", "0"],
            &["bench", "--server-cpus", "x", "--generator-cpus", "1"],
            &["bench", "--sweet", "smoke"],
            &["bench", "--resume", "x", "--repeats", "3"],
            &["bench", "--force"],
            &["bench", "--until-ci", "0%"],
            &["bench", "--until-ci", "narrow"],
            &["bench", "--max-repeats", "20"],
        ] {
            assert_eq!(
                Cli::try_parse_from(bad).unwrap_err().exit_code(),
                2,
                "{bad:?}"
            );
        }
    }
}
