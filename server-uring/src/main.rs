//! Ringside's WebSocket server on io_uring.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use server_core::lifecycle::{Final, Ready, Shutdown, init_logging, print_line};
use server_core::options::{ServerOptions, Settings};
use server_core::system;

use crate::monoio::worker::{self, Server};

mod monoio;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// WebSocket server on io_uring: /ws echoes, /broadcast/{room} tells everybody in the room
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    server: ServerOptions,
    /// What drives the ring
    #[arg(long, value_enum, default_value_t = Engine::Monoio)]
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The runtime monoio: one thread, one ring and one SO_REUSEPORT listener per worker
    Monoio,
}

fn main() -> ExitCode {
    system::use_small_pages();
    let cli = Cli::parse();
    init_logging();
    let settings = match cli.server.resolve() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match run(settings, cli.engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings, engine: Engine) -> anyhow::Result<()> {
    // Asked of the kernel itself, and first: this server never serves on anything but io_uring.
    if let Err(error) = uring_net::probe() {
        // The error names its source itself.
        bail!("this server needs io_uring, and there is no substitute: {error}");
    }
    let open_files = system::raise_file_limit();
    if let Some(cpus) = &settings.cpus {
        system::confine_thread(cpus)?;
    }
    let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
    let listeners = system::listen(settings.listen, settings.workers)?;
    let cpus = match &settings.cpus {
        Some(cpus) => cpus.clone(),
        None => system::available_cpus()?,
    };
    let ready = Ready {
        server: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        runtime: concat!("monoio ", env!("MONOIO_VERSION")).into(),
        flavor: None,
        engine: engine.to_possible_value().map(|v| v.get_name().into()),
        address: listeners[0].local_addr()?,
        workers: settings.workers,
        cpus,
        pid: std::process::id(),
        options: settings.in_force(open_files),
    };
    let drain_timeout = settings.drain_timeout;
    let server = Arc::new(Server::new(settings).context("cannot make eventfds")?);
    match engine {
        Engine::Monoio => worker::start(&server, listeners)?,
    }
    print_line(&ready).context("cannot print the ready line")?;

    shutdown.wait();
    server.begin_drain();
    let drained_in_time = server.alive.wait_for_none(drain_timeout);
    let totals = server.counters.totals();
    print_line(&Final {
        drained_in_time,
        totals,
    })
    .context("cannot print the final line")
}
