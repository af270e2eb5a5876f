//! Runs the conformance suite against one server binary, one line per case: `conformance [--smoke]
//! [--unix] [--filter TEXT] -- BINARY [ARGS...]`.
//!
//! The last line is `N passed, N failed`. Exit code: 0 when all passed, 1 when a case failed, 2 for
//! wrong usage (no such binary, no such case). `--smoke` takes a few seconds, the whole suite about
//! half a minute.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use conformance::{CASES, Case, Target};

/// Judge a WebSocket server binary by the rules every Ringside server must keep
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Cli {
    /// Only the cases that take no more than a few seconds in all
    #[arg(long)]
    smoke: bool,
    /// Over a Unix socket, without the cases that are about TCP
    #[arg(long)]
    unix: bool,
    /// Only cases whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// List the cases and end
    #[arg(long)]
    list: bool,
    /// The server binary and the options every case starts it with
    #[arg(
        last = true,
        value_name = "BINARY [ARGS]",
        required_unless_present = "list"
    )]
    server: Vec<String>,
}

/// Where the last panic was raised.
static PLACE: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cases: Vec<&Case> = CASES.iter().filter(|case| cli.wants(case)).collect();
    if cli.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    let Some((binary, args)) = cli.server.split_first() else {
        return ExitCode::from(2);
    };
    let binary = PathBuf::from(binary);
    if !binary.is_file() {
        eprintln!("conformance: there is no binary {}", binary.display());
        return ExitCode::from(2);
    }
    if cases.is_empty() {
        eprintln!("conformance: no case matches; --list shows all");
        return ExitCode::from(2);
    }
    // The reason of a failure is printed with its case, not a second time by the panic hook: that
    // only keeps the place.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()));
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place.unwrap_or_default();
    }));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let target = if cli.unix {
        Target::over_unix(binary, &args)
    } else {
        Target::new(binary, &args)
    };
    let failed = run(&cases, &target);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Cli {
    fn wants(&self, case: &Case) -> bool {
        (case.smoke || !self.smoke)
            && !(case.needs_tcp && self.unix)
            && self
                .filter
                .as_ref()
                .is_none_or(|text| case.name.contains(text.as_str()))
    }
}

/// Runs the cases one after the other; how many failed.
fn run(cases: &[&Case], target: &Target) -> usize {
    let mut failed = 0;
    for case in cases {
        let start = Instant::now();
        let verdict = case.judge(target);
        let millis = start.elapsed().as_millis();
        match verdict {
            Ok(()) => println!("ok      {} ({millis} ms)", case.name),
            Err(reason) => {
                failed += 1;
                let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
                println!("FAILED  {} ({millis} ms): {reason} [{place}]", case.name);
            }
        }
    }
    println!("{} passed, {failed} failed", cases.len() - failed);
    failed
}
