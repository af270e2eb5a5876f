//! A server's program from its command line to its end, whatever drives its connections.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;

use crate::address::Address;
use crate::counters::Counters;
use crate::lifecycle::{Alive, Final, Ready, Shutdown, init_logging, print_line};
use crate::options::{ServerOptions, Settings};
use crate::unix::{self, UnixSocket};
use crate::{processes, system};

/// What makes a server's program its own.
#[derive(Debug)]
pub struct Program {
    /// Name of the program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Runtime and its version, such as `tokio 1.54.1`.
    pub runtime: &'static str,
    /// `--flavor`, where it has one.
    pub flavor: Option<String>,
    /// `--engine`, where it has one.
    pub engine: Option<String>,
    /// All workers accept from the same sockets, instead of each from its own.
    pub shares_sockets: bool,
    /// Whether this machine can run it: asked first of all.
    pub check: fn() -> anyhow::Result<()>,
}

/// A server at work.
pub struct Serving {
    /// Its connections.
    pub alive: Alive,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// Whether it counts calls of `io_uring_enter`.
    pub counts_enters: bool,
    /// Tells every worker to stop accepting and to close its connections.
    pub begin_drain: Box<dyn FnOnce()>,
    /// Lets go of the threads, when the drain is over.
    pub stop: Box<dyn FnOnce()>,
}

/// What a server accepts from.
#[derive(Debug)]
pub struct Sockets<'a> {
    /// For each worker those of TCP.
    pub of_workers: Vec<Vec<TcpListener>>,
    /// For [`unix::accept`].
    pub unix: &'a [UnixSocket],
}

/// What the user calls a value of an option.
pub fn name_of(value: &impl ValueEnum) -> Option<String> {
    Some(value.to_possible_value()?.get_name().into())
}

impl Program {
    /// Serves until SIGTERM or SIGINT. `start` starts the workers with their sockets, and may add
    /// to the `ready` line.
    pub fn run(
        self,
        options: &ServerOptions,
        start: impl FnOnce(Settings, Sockets<'_>, &mut Ready) -> anyhow::Result<Serving>,
    ) -> ExitCode {
        let settings = match init_logging().and_then(|()| options.resolve()) {
            Ok(settings) => settings,
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(2);
            }
        };
        match processes::run(settings, |settings| self.serve(settings, start)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(
        self,
        settings: Settings,
        start: impl FnOnce(Settings, Sockets<'_>, &mut Ready) -> anyhow::Result<Serving>,
    ) -> anyhow::Result<()> {
        (self.check)()?;
        let open_files = system::raise_file_limit();
        if let Some(cpus) = &settings.cpus {
            system::confine_thread(cpus)?;
        }
        let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
        let sets = if self.shares_sockets {
            1
        } else {
            settings.workers
        };
        let listeners = settings.listeners(sets)?;
        let unix_sockets = settings.unix.iter().map(|path| UnixSocket::listen(path));
        let unix_sockets: Vec<_> = unix_sockets.collect::<Result<_, _>>()?;
        let addresses: Vec<_> = (listeners.addresses.iter().copied().map(Address::Ip))
            .chain(settings.unix.iter().cloned().map(Address::Unix))
            .collect();
        let cpus = match &settings.cpus {
            Some(cpus) => cpus.clone(),
            None => system::available_cpus()?,
        };
        let mut ready = Ready {
            server: self.name.into(),
            version: self.version.into(),
            runtime: self.runtime.into(),
            flavor: self.flavor,
            engine: self.engine,
            address: addresses[0].clone(),
            addresses,
            processes: 1,
            pids: Vec::new(),
            workers: settings.workers,
            cpus,
            pid: std::process::id(),
            options: settings.in_force(open_files),
        };
        let drain_timeout = settings.drain_timeout;
        let sockets = Sockets {
            of_workers: listeners.of_workers,
            unix: &unix_sockets,
        };
        let serving = start(settings, sockets, &mut ready)?;
        print_line(&ready).context("cannot print the ready line")?;

        shutdown.wait().context("cannot wait for a signal")?;
        unix::stop_listening(&unix_sockets);
        // With their files: a successor may listen while this server drains.
        drop(unix_sockets);
        (serving.begin_drain)();
        let drained_in_time = serving.alive.wait_for_none(drain_timeout);
        let totals = serving.counters.totals();
        let enters = serving.counts_enters.then(|| serving.counters.enters());
        (serving.stop)();
        print_line(&Final {
            drained_in_time,
            enters,
            totals,
        })
        .context("cannot print the final line")
    }
}
