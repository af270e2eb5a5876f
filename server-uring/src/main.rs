//! Ringside's WebSocket server on io_uring.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use server_core::lifecycle::Ready;
use server_core::options::{ServerOptions, Settings, UNITS_HELP};
use server_core::program::{Program, Serving, Sockets, name_of};
use server_core::{system, unix, workers};

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
    #[arg(long, value_name = "N", hide = true,
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
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
    if let Some(option) = cli.misplaced() {
        eprintln!("error: {option} works with --engine raw only");
        return ExitCode::from(2);
    }
    let program = Program {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        runtime: match cli.engine {
            Engine::Monoio => concat!("monoio ", env!("MONOIO_VERSION")),
            Engine::Raw => concat!("io-uring ", env!("IO_URING_VERSION")),
        },
        flavor: None,
        engine: name_of(&cli.engine),
        shares_sockets: false,
        check: probe,
    };
    program.run(&cli.server, |settings, sockets, ready| match cli.engine {
        Engine::Monoio => serve_on_monoio(settings, sockets),
        Engine::Raw => serve_raw(settings, sockets, &cli, ready),
    })
}

/// Asks the kernel itself: this server never serves on anything but io_uring.
fn probe() -> anyhow::Result<()> {
    // The error names its source itself.
    uring_net::probe()
        .map_err(|error| anyhow!("this server needs io_uring, and there is no substitute: {error}"))
}

fn serve_on_monoio(settings: Settings, sockets: Sockets<'_>) -> anyhow::Result<Serving> {
    let listeners = sockets.of_workers;
    let server = monoio::worker::Server::new(settings, &listeners);
    let server = Arc::new(server.context("cannot start the workers")?);
    workers::start(&server, listeners, monoio::start::run)?;
    let of_thread = Arc::clone(&server);
    unix::accept(&server, sockets.unix, move |worker, stream| {
        of_thread.hand_over(worker, stream);
        Ok(())
    })?;
    Ok(Serving {
        alive: server.alive.clone(),
        counters: Arc::clone(&server.counters),
        // monoio keeps its ring to itself.
        counts_enters: false,
        begin_drain: Box::new(move || server.begin_drain()),
        stop: Box::new(|| {}),
    })
}

fn serve_raw(
    settings: Settings,
    sockets: Sockets<'_>,
    cli: &Cli,
    ready: &mut Ready,
) -> anyhow::Result<Serving> {
    let direct = cli.direct.unwrap_or(Direct::Auto);
    let slots = direct.slots(&settings, ready.options.open_files);
    let workers = settings.workers * settings.processes;
    let mut sizes = Sizes::new(workers, ready.cpus.len(), cli.cq_entries, slots);
    sizes.direct_adopted = settings.listen.is_empty();
    ready.options.spin_us = Some(cli.spin_us);
    ready.options.direct_descriptors = Some(slots > 0);
    ready.options.cq_entries = Some(sizes.cq_entries);
    ready.options.read_buffer_bytes = sizes.pool_bytes();
    let spin = Duration::from_micros(cli.spin_us);
    let listeners = sockets.of_workers;
    let server = raw::worker::Server::new(settings, &listeners, sizes, spin);
    let server = Arc::new(server.context("cannot start the workers")?);
    let mut reports = workers::start(&server, listeners, raw::event_loop::run)?;
    // They come as the workers begin.
    reports.sort_by_key(|(index, _)| *index);
    let wakers: Vec<_> = reports.into_iter().map(|(_, waker)| waker).collect();
    let (of_thread, of_workers) = (Arc::clone(&server), wakers.clone());
    unix::accept(&server, sockets.unix, move |worker, stream| {
        of_thread.handover.put(worker, stream);
        of_workers[worker].wake();
        Ok(())
    })?;
    Ok(Serving {
        alive: server.alive.clone(),
        counters: Arc::clone(&server.counters),
        counts_enters: true,
        begin_drain: Box::new(move || server.begin_drain(&wakers)),
        stop: Box::new(|| {}),
    })
}
