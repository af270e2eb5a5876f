//! Several processes on the same addresses (`--processes`), each with its own limit of open files,
//! and the parent that speaks for them.
//!
//! The parent serves nobody. It reserves the port, starts this program once more for each process,
//! and is to the outside what a server of one process is: one `ready` line, one `final` line, the
//! same signals. The children are ordinary servers which share its fate: they are killed when it
//! ends, however it ends, and when one of them ends early, so does everything.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{self, ChildStdout, Command, Stdio};

use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::child::Child;
use crate::counters::Totals;
use crate::lifecycle::{Final, Ready, Shutdown, print_line};
use crate::listen;
use crate::options::Settings;
use crate::system;

/// Serves in this process by `serve`; as the parent of `--processes`, has the children do it.
///
/// # Errors
/// Those of `serve`; or a process could not be started, or ended that should not have.
pub fn run(
    settings: Settings,
    serve: impl FnOnce(Settings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match &settings.child {
        None if settings.processes > 1 => supervise(&settings),
        Some(child) if !child.share_fate()? => {
            bail!("the server that started this process is gone")
        }
        _ => serve(settings),
    }
}

fn supervise(settings: &Settings) -> anyhow::Result<()> {
    if let Some(cpus) = &settings.cpus {
        system::confine_thread(cpus)?;
    }
    let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
    let ports = listen::reserve(&settings.listen)?;
    let mut processes = Vec::with_capacity(settings.processes);
    // The first one alone: what keeps it from serving keeps all of them, and is to be said once.
    let mut first = Process::start(0, &ports.addresses)?;
    let mut ready: Ready = first.say()?;
    processes.push(first);
    for index in 1..settings.processes {
        processes.push(Process::start(index, &ports.addresses)?);
    }
    for process in &mut processes[1..] {
        process.say::<Ready>()?;
    }
    ready.pid = process::id();
    ready.processes = settings.processes;
    ready.pids = processes.iter().map(|process| process.child.id()).collect();
    ready.options.max_connections = settings.max_connections.unwrap_or(0);
    print_line(&ready).context("cannot print the ready line")?;

    until_shutdown(&shutdown, &mut processes)?;
    for process in &processes {
        process.end()?;
    }
    let mut all = Final {
        drained_in_time: true,
        enters: None,
        totals: Totals::default(),
    };
    for process in &mut processes {
        let one: Final = process.say()?;
        all.drained_in_time &= one.drained_in_time;
        all.enters = one
            .enters
            .map(|enters| enters + all.enters.unwrap_or(0))
            .or(all.enters);
        all.totals.add(&one.totals);
    }
    print_line(&all).context("cannot print the final line")
}

/// Waits until the server is to end. A child has nothing to say meanwhile: one that does, or that
/// falls silent for good, ends.
fn until_shutdown(shutdown: &Shutdown, processes: &mut [Process]) -> anyhow::Result<()> {
    let mut events = vec![PollFd::new(&shutdown.0, PollFlags::IN)];
    let pipes = processes.iter().map(|process| process.stdout.get_ref());
    events.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    rustix::io::retry_on_intr(|| poll(&mut events, None)).context("cannot wait for a signal")?;
    match events.iter().position(|event| !event.revents().is_empty()) {
        None | Some(0) => Ok(()),
        Some(event) => Err(processes[event - 1].has_ended()),
    }
}

/// A child as its parent sees it. Dropping it ends it.
struct Process {
    index: usize,
    child: process::Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(index: usize, addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let started = Self::spawn(index, addresses);
        started.with_context(|| format!("cannot start process {index} of the server"))
    }

    fn spawn(index: usize, addresses: &[SocketAddr]) -> io::Result<Self> {
        let told = Child {
            index,
            addresses: addresses.to_vec(),
            parent: rustix::process::getpid().as_raw_pid(),
        };
        let mut command = Command::new(env::current_exe()?);
        command
            .args(env::args_os().skip(1))
            .args([OsString::from("--child"), told.to_string().into()])
            // A terminal's Ctrl-C is for the parent, which passes it on.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if env::var_os("RUST_LOG").is_none() {
            // That all goes well is said once, by the parent.
            command.env("RUST_LOG", "warn");
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            index,
            child,
            stdout: BufReader::new(stdout),
        })
    }

    /// The next line that it prints.
    fn say<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(self.has_ended());
        }
        let index = self.index;
        serde_json::from_str(&line).with_context(|| format!("process {index} printed `{line}`"))
    }

    /// Has it drain.
    fn end(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// It is ending, and nobody has told it to.
    fn has_ended(&mut self) -> anyhow::Error {
        let (index, pid) = (self.index, self.child.id());
        match self.child.wait() {
            // What it had to say is on stderr.
            Ok(status) => anyhow!(
                "process {index} of the server (pid {pid}) ended early, with {status}: all others \
                 were stopped"
            ),
            Err(error) => error.into(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
