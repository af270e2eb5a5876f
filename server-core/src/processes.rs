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
use std::process::{self, ChildStdout, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::child::Child;
use crate::counters::Totals;
use crate::lifecycle::{Final, Ready, Shutdown, print_line};
use crate::listen::{self, ListenError};
use crate::options::Settings;
use crate::system::{self, SystemError};

/// Why several processes could not begin, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// The ports could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The CPUs could not be had.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A process could not be started.
    #[error("cannot start process {index} of the server: {cause}")]
    Start {
        /// Which one.
        index: usize,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A process ended that should not have.
    #[error(
        "process {index} of the server (pid {pid}) ended early, with {status}: all others were stopped"
    )]
    Ended {
        /// Which one.
        index: usize,
        /// Its process id.
        pid: u32,
        /// How it ended; what it had to say is on stderr.
        status: ExitStatus,
    },
    /// The parent ended before its child could begin.
    #[error("the server that started this process is gone")]
    Orphaned,
    /// Anything else, between the processes.
    #[error("cannot supervise the processes of the server: {0}")]
    Supervise(#[from] io::Error),
}

/// Serves in this process by `serve`; as the parent of `--processes`, has the children do it.
///
/// # Errors
/// Those of `serve`, and [`ProcessesError`].
pub fn run<E: From<ProcessesError>>(
    settings: Settings,
    serve: impl FnOnce(Settings) -> Result<(), E>,
) -> Result<(), E> {
    let Some(child) = &settings.child else {
        return match settings.processes {
            1 => serve(settings),
            _ => Ok(supervise(&settings)?),
        };
    };
    if !child.share_fate().map_err(ProcessesError::from)? {
        return Err(ProcessesError::Orphaned.into());
    }
    serve(settings)
}

fn supervise(settings: &Settings) -> Result<(), ProcessesError> {
    if let Some(cpus) = &settings.cpus {
        system::confine_thread(cpus)?;
    }
    let shutdown = Shutdown::on_signals()?;
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
    print_line(&ready)?;

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
    Ok(print_line(&all)?)
}

/// Waits until the server is to end. A child has nothing to say meanwhile: one that does, or that
/// falls silent for good, ends.
fn until_shutdown(shutdown: &Shutdown, processes: &mut [Process]) -> Result<(), ProcessesError> {
    let (begun, open_until_then) = io::pipe()?;
    shutdown.on_begin(move || drop(open_until_then));
    let mut events = vec![PollFd::new(&begun, PollFlags::IN)];
    let pipes = processes.iter().map(|process| process.stdout.get_ref());
    events.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    rustix::io::retry_on_intr(|| poll(&mut events, None)).map_err(io::Error::from)?;
    let ended = events[1..]
        .iter()
        .position(|event| !event.revents().is_empty());
    match ended {
        Some(index) if !shutdown.has_begun() => Err(processes[index].has_ended()),
        _ => Ok(()),
    }
}

/// A child as its parent sees it. Dropping it ends it.
struct Process {
    index: usize,
    child: process::Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(index: usize, addresses: &[SocketAddr]) -> Result<Self, ProcessesError> {
        let started = Self::spawn(index, addresses);
        started.map_err(|cause| ProcessesError::Start { index, cause })
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
    fn say<T: DeserializeOwned>(&mut self) -> Result<T, ProcessesError> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err(self.has_ended()),
            _ => Ok(serde_json::from_str(&line).map_err(io::Error::from)?),
        }
    }

    /// Has it drain.
    fn end(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// It is ending, and nobody has told it to.
    fn has_ended(&mut self) -> ProcessesError {
        match self.child.wait() {
            Ok(status) => ProcessesError::Ended {
                index: self.index,
                pid: self.child.id(),
                status,
            },
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
