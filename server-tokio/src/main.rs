//! Ringside's WebSocket server on tokio.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;
use server_core::options::{ServerOptions, UNITS_HELP};
use server_core::program::{Program, Serving, name_of};
use server_core::system;

use crate::worker::Server;

mod connection;
mod fanout;
mod handle;
mod listener;
mod member;
mod scratch;
mod start;
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
    let program = Program {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        runtime: concat!("tokio ", env!("TOKIO_VERSION")),
        flavor: name_of(&cli.flavor),
        engine: None,
        shares_sockets: cli.flavor == Flavor::Multi,
        check: || Ok(()),
    };
    program.run(&cli.server, |settings, sockets, _ready| {
        let server = Arc::new(Server::new(settings)?);
        let runtime = match cli.flavor {
            Flavor::Multi => Some(start::multi(&server, sockets)?),
            Flavor::PerCore => start::per_core(&server, sockets).map(|()| None)?,
        };
        Ok(Serving {
            alive: server.alive.clone(),
            counters: Arc::clone(&server.counters),
            counts_enters: false,
            begin_drain: Box::new(move || server.begin_drain()),
            // Without waiting for what its threads still do.
            stop: Box::new(|| {
                if let Some(runtime) = runtime {
                    runtime.shutdown_background();
                }
            }),
        })
    })
}
