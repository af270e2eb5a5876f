//! Ringside's WebSocket server on tokio.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use server_core::lifecycle::{Final, Ready, Shutdown, init_logging, print_line};
use server_core::options::{ServerOptions, Settings, UNITS_HELP};
use server_core::{processes, system};

use crate::worker::Server;

mod connection;
mod fanout;
mod link;
mod listener;
mod member;
mod worker;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// WebSocket server on tokio: /ws echoes, /broadcast/{room} tells everybody in the room
#[derive(Debug, Parser)]
#[command(version, after_help = UNITS_HELP)]
struct Cli {
    #[command(flatten)]
    server: ServerOptions,
    /// How the workers run
    #[arg(long, value_enum, default_value_t = Flavor::Multi)]
    flavor: Flavor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavor {
    /// One work-stealing runtime with a thread per worker
    Multi,
    /// One single-threaded runtime per worker, each with its own SO_REUSEPORT listeners
    PerCore,
}

fn main() -> ExitCode {
    system::use_small_pages();
    let cli = Cli::parse();
    if let Err(error) = init_logging() {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let settings = match cli.server.resolve() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match processes::run(settings, |settings| run(settings, cli.flavor)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings, flavor: Flavor) -> anyhow::Result<()> {
    let open_files = system::raise_file_limit();
    if let Some(cpus) = &settings.cpus {
        system::confine_thread(cpus)?;
    }
    let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
    let listeners = match flavor {
        Flavor::Multi => settings.listeners(1)?,
        Flavor::PerCore => settings.listeners(settings.workers)?,
    };
    let cpus = match &settings.cpus {
        Some(cpus) => cpus.clone(),
        None => system::available_cpus()?,
    };
    let ready = Ready {
        server: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        runtime: concat!("tokio ", env!("TOKIO_VERSION")).into(),
        flavor: flavor.to_possible_value().map(|v| v.get_name().into()),
        engine: None,
        address: listeners.addresses[0],
        addresses: listeners.addresses,
        processes: 1,
        pids: Vec::new(),
        workers: settings.workers,
        cpus,
        pid: std::process::id(),
        options: settings.in_force(open_files),
    };
    let drain_timeout = settings.drain_timeout;
    let server = Arc::new(Server::new(settings));
    let running = match flavor {
        Flavor::Multi => worker::start_multi(&server, listeners.of_workers)?,
        Flavor::PerCore => worker::start_per_core(&server, listeners.of_workers)?,
    };
    print_line(&ready).context("cannot print the ready line")?;

    shutdown.wait();
    server.begin_drain();
    let drained_in_time = server.alive.wait_for_none(drain_timeout);
    let totals = server.counters.totals();
    running.stop();
    print_line(&Final {
        drained_in_time,
        enters: None,
        totals,
    })
    .context("cannot print the final line")
}
