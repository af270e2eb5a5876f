//! Ringside's WebSocket server on io_uring.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use server_core::counters::Counters;
use server_core::lifecycle::{Alive, Final, Ready, Shutdown, init_logging, print_line};
use server_core::options::{ServerOptions, Settings, UNITS_HELP};
use server_core::{processes, system};

use crate::raw::direct::Direct;
use crate::raw::ring::Sizes;

mod monoio;
mod raw;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// WebSocket server on io_uring: /ws echoes, /broadcast/{room} tells everybody in the room
#[derive(Debug, Parser)]
#[command(version, after_help = UNITS_HELP)]
struct Cli {
    #[command(flatten)]
    server: ServerOptions,
    /// What drives the ring
    #[arg(long, value_enum, default_value_t = Engine::Monoio)]
    engine: Engine,
    /// Busy-poll this many microseconds before sleeping (raw engine). Lowest latency, uses a full
    /// CPU. 0 disables
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin_us: u64,
    /// Whether connections live in the rings' own tables, without descriptors (raw engine);
    /// --direct alone is on [default: auto]
    #[arg(long, value_name = "WHEN", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "on")]
    direct: Option<Direct>,
    /// Completions of a worker's ring that fit without overflowing into the kernel's memory (raw
    /// engine) [default: 16384; less when workers share CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    cq_entries: Option<u32>,
}

impl Cli {
    /// An option that was given although the engine does not have it.
    fn misplaced(&self) -> Option<&'static str> {
        let given = [
            (self.spin_us > 0, "--spin-us"),
            (matches!(self.direct, Some(Direct::On)), "--direct"),
            (self.cq_entries.is_some(), "--cq-entries"),
        ];
        let (_, name) = given.into_iter().find(|(given, _)| *given)?;
        (self.engine != Engine::Raw).then_some(name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The runtime monoio: one thread and one ring per worker, with SO_REUSEPORT listeners
    Monoio,
    /// A plain loop around a ring: multishot accept and receive, replies sent from the receive
    /// buffers
    Raw,
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
    if let Some(option) = cli.misplaced() {
        eprintln!("error: {option} works with --engine raw only");
        return ExitCode::from(2);
    }
    match processes::run(settings, |settings| run(settings, &cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings, cli: &Cli) -> anyhow::Result<()> {
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
    let listeners = settings.listeners(settings.workers)?;
    let cpus = match &settings.cpus {
        Some(cpus) => cpus.clone(),
        None => system::available_cpus()?,
    };
    let mut ready = Ready {
        server: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        runtime: concat!("monoio ", env!("MONOIO_VERSION")).into(),
        flavor: None,
        engine: cli.engine.to_possible_value().map(|v| v.get_name().into()),
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
    let serving = match cli.engine {
        Engine::Monoio => serve_on_monoio(settings, listeners.of_workers)?,
        Engine::Raw => {
            ready.runtime = concat!("io-uring ", env!("IO_URING_VERSION")).into();
            ready.options.spin_us = Some(cli.spin_us);
            let direct = cli.direct.unwrap_or(Direct::Auto);
            let slots = direct.slots(&settings, open_files);
            let workers = settings.workers * settings.processes;
            let sizes = Sizes::new(workers, ready.cpus.len(), cli.cq_entries, slots);
            ready.options.direct_descriptors = Some(slots > 0);
            ready.options.cq_entries = Some(sizes.cq_entries);
            ready.options.read_buffer_bytes = sizes.pool_bytes();
            serve_raw(
                settings,
                listeners.of_workers,
                sizes,
                Duration::from_micros(cli.spin_us),
            )?
        }
    };
    print_line(&ready).context("cannot print the ready line")?;

    shutdown.wait();
    (serving.begin_drain)();
    let drained_in_time = serving.alive.wait_for_none(drain_timeout);
    let totals = serving.counters.totals();
    print_line(&Final {
        drained_in_time,
        // monoio keeps its ring to itself.
        enters: (cli.engine == Engine::Raw).then(|| serving.counters.enters()),
        totals,
    })
    .context("cannot print the final line")
}

/// An engine at work.
struct Serving {
    alive: Alive,
    counters: Arc<Counters>,
    begin_drain: Box<dyn FnOnce()>,
}

fn serve_on_monoio(
    settings: Settings,
    listeners: Vec<Vec<TcpListener>>,
) -> anyhow::Result<Serving> {
    use monoio::worker::{Server, start};

    let server = Arc::new(Server::new(settings).context("cannot make eventfds")?);
    start(&server, listeners)?;
    Ok(Serving {
        alive: server.alive.clone(),
        counters: Arc::clone(&server.counters),
        begin_drain: Box::new(move || server.begin_drain()),
    })
}

fn serve_raw(
    settings: Settings,
    listeners: Vec<Vec<TcpListener>>,
    sizes: Sizes,
    spin: Duration,
) -> anyhow::Result<Serving> {
    use raw::worker::{Server, start};

    let server = Arc::new(Server::new(settings, sizes, spin));
    let workers = start(&server, listeners)?;
    Ok(Serving {
        alive: server.alive.clone(),
        counters: Arc::clone(&server.counters),
        begin_drain: Box::new(move || server.begin_drain(&workers)),
    })
}
