//! `loadgen`: check what was asked, plan, run, report.

use std::{
    io::{BufReader, Write},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use loadgen::{
    assemble::RunOutput,
    cli::{Cli, Command, Format, Output},
    config::Config,
    engine::usage,
    files::{self, OpenFiles},
    plan::Plan,
    preflight,
    progress::Progress,
    record::LoadKind,
    report::Report,
    run::run,
    shard, slices, target,
};
use signal_hook::consts::{SIGINT, SIGTERM};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const INVALID: u8 = 1;
const USAGE: u8 = 2;
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    usage::use_small_pages();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Shard) {
        return shard::main();
    }
    let (config, output) = match cli.check() {
        Ok(checked) => checked,
        Err(cause) => Cli::command()
            .error(ErrorKind::ArgumentConflict, cause)
            .exit(),
    };
    match measure(&config, &output) {
        Ok(code) => ExitCode::from(code),
        Err(cause) => {
            eprintln!("error: {cause}");
            ExitCode::from(USAGE)
        }
    }
}

fn measure(config: &Config, output: &Output) -> Result<u8, String> {
    let interrupted = catch_signals().map_err(|error| format!("cannot catch signals: {error}"))?;
    let files = OpenFiles::open(&output.files)?;
    let targets = target::resolve_all(config)?;
    let addresses: Vec<_> = targets
        .iter()
        .map(|target| target.address.clone())
        .collect();
    let plan = preflight::plan(config, &addresses)?;
    if config.slices {
        let stdin = BufReader::new(std::io::stdin());
        let (finished, refused) = slices::run(
            config,
            targets,
            &plan,
            &interrupted,
            stdin,
            std::io::stdout(),
        );
        let code = conclude(&finished, output, files);
        return refused.map_or(Ok(code), Err);
    }
    let progress = progress(config, output);
    let finished = if plan.shards == 1 {
        run(config, targets, plan, &interrupted, progress)
    } else {
        if !output.quiet {
            explain(&plan);
        }
        shard::run(config, &targets, &plan, &interrupted, progress)
    };
    Ok(conclude(&finished, output, files))
}

/// Prints and writes what was asked for; the exit code.
fn conclude(finished: &RunOutput, output: &Output, files: OpenFiles) -> u8 {
    report(finished, output);
    if let Err(cause) = files.write(finished) {
        eprintln!("error: {cause}");
        return INVALID;
    }
    exit_code(finished)
}

/// Why there are several processes, before they are started.
fn explain(plan: &Plan) {
    for (index, line) in plan.explanation.iter().enumerate() {
        let name = if index == 0 { "plan" } else { "" };
        eprintln!("{name:<13}{line}");
    }
}

/// The first Ctrl-C ends the run, the second the process.
fn catch_signals() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(INTERRUPTED),
            interrupted.clone(),
        )?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

fn progress(config: &Config, output: &Output) -> Progress {
    if output.quiet {
        return Progress::default();
    }
    Progress::on_terminal(match config.kind {
        LoadKind::Connect => "handshakes",
        LoadKind::Broadcast => "deliveries",
        LoadKind::Echo | LoadKind::Idle => "messages",
    })
}

/// The summary or the record on stdout; what makes a run invalid also on stderr, where it is seen
/// beside a redirected stdout.
fn report(finished: &RunOutput, output: &Output) {
    let record = &finished.record;
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone away does not make the run invalid.
    let _ = match output.format {
        Format::Json => files::json(finished).and_then(|json| stdout.write_all(&json)),
        Format::Text if !output.quiet => write!(stdout, "{}", Report(record)),
        Format::Text => Ok(()),
    };
    let _ = stdout.flush();
    if output.quiet || output.format == Format::Json {
        for fault in record.validity.faults() {
            eprintln!("invalid run: {fault}");
        }
    }
}

fn exit_code(finished: &RunOutput) -> u8 {
    match &finished.record {
        record if record.interrupted => INTERRUPTED,
        record if record.is_valid() => 0,
        _ => INVALID,
    }
}
