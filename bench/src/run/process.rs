//! Child processes that never outlive the referee.
//!
//! A child is started through a shim, `bench exec`, which asks the kernel to kill it when the
//! referee dies, pins it to its CPUs, takes its [`priority`] and then becomes the program. Each
//! child leads its own session, so that Ctrl-C on the terminal reaches the referee only, which then
//! ends its children in order: each with its whole [`Family`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::interrupt::Interrupt;
use crate::machine::family::Family;
use crate::machine::{CpuSet, priority};

/// How often a wait looks again.
pub const POLL: Duration = Duration::from_millis(5);
/// How long the kernel may take to end what a child left behind.
const REST_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Starts children.
#[derive(Debug, Clone)]
pub struct Launcher {
    shim: PathBuf,
    nice: Option<i32>,
}

/// A child that is killed when this is dropped, and all that it started.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    family: Family,
    ended: Option<ExitStatus>,
}

impl Launcher {
    /// With `shim`, the path of the `bench` binary, and the nice value of children if they get
    /// another than the referee's.
    pub fn new(shim: PathBuf, nice: Option<i32>) -> Self {
        Self { shim, nice }
    }

    /// Starts `program` on `cpus`, its output going to the two files.
    pub fn start(
        &self,
        program: &Path,
        args: &[String],
        cpus: &CpuSet,
        stdout: File,
        stderr: File,
    ) -> Result<Guarded> {
        self.spawn(program, args, cpus, (Stdio::null(), stdout.into()), stderr)
    }

    /// The same for a program that is talked to: its input and output are pipes.
    pub fn start_piped(
        &self,
        program: &Path,
        args: &[String],
        cpus: &CpuSet,
        stderr: File,
    ) -> Result<(Guarded, ChildStdin, ChildStdout)> {
        let pipes = (Stdio::piped(), Stdio::piped());
        let mut process = self.spawn(program, args, cpus, pipes, stderr)?;
        let pipes = process.child.stdin.take().zip(process.child.stdout.take());
        let (stdin, stdout) = pipes.context("a child has no pipes")?;
        Ok((process, stdin, stdout))
    }

    fn spawn(
        &self,
        program: &Path,
        args: &[String],
        cpus: &CpuSet,
        (stdin, stdout): (Stdio, Stdio),
        stderr: File,
    ) -> Result<Guarded> {
        let child = shim(&self.shim, cpus, self.nice)
            .arg(program)
            .args(args)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Guarded {
            family: Family::of(child.id()),
            child,
            ended: None,
        })
    }
}

impl Guarded {
    /// Its process id; the shim keeps it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Notes what it has started, to be ended with it.
    pub fn look_at_family(&mut self) {
        self.family.look();
    }

    /// Sends a signal unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id() as i32)
        {
            // It may end between the two calls, but nobody else reaps it, so the id is still its
            // own.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for its end until `deadline`.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            let status = self.try_wait();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks with `signal`, waits for `patience`, then kills; what it started and left behind ends
    /// with it. The status and whether it had to be killed.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> (Option<ExitStatus>, bool) {
        self.family.look();
        self.signal(signal);
        let in_time = self.wait_until(Instant::now() + patience);
        if in_time.is_none() {
            self.kill();
        }
        self.end_the_rest();
        (self.ended, in_time.is_none())
    }

    fn kill(&mut self) {
        self.family.look();
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Their sockets are closed when this returns, so the next run finds the port free.
    fn end_the_rest(&mut self) {
        let deadline = Instant::now() + REST_ENDS_WITHIN;
        while self.family.kill_the_rest() > 0 && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            self.kill();
        }
        self.end_the_rest();
    }
}

/// Runs a command to its end, its output in two files, unless an interrupt or the deadline comes
/// first: then `None`.
pub fn run_to_end(
    mut process: Guarded,
    deadline: Instant,
    interrupt: &Interrupt,
) -> Option<ExitStatus> {
    loop {
        if let Some(status) = process.try_wait() {
            return Some(status);
        }
        if interrupt.is_set() || Instant::now() >= deadline {
            process.end(Signal::TERM, Duration::from_secs(2));
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Runs this program, at `own`, once more with the same arguments and this nice value, and passes
/// signals on to it. Its exit code.
pub fn run_again(own: &Path, nice: i32) -> Result<u8> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])
        .context("cannot install the signal handlers")?;
    let mut again = shim(own, &CpuSet::allowed()?, Some(nice))
        .arg(own)
        .args(std::env::args_os().skip(1))
        .spawn()
        .with_context(|| format!("cannot start {}", own.display()))?;
    for signal in &mut signals {
        if let Some(status) = again.try_wait().context("cannot wait for the referee")? {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        if let (Some(signal), Some(pid)) = (
            Signal::from_named_raw(signal).filter(|signal| *signal != Signal::CHILD),
            Pid::from_raw(again.id() as i32),
        ) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    bail!("signals have ended")
}

/// The shim at `own`, before the program and its arguments.
fn shim(own: &Path, cpus: &CpuSet, nice: Option<i32>) -> Command {
    let mut shim = Command::new(own);
    shim.args(["exec", "--parent", &std::process::id().to_string()])
        .args(["--cpus", &cpus.to_string()])
        .args(nice.map(|nice| format!("--nice={nice}")))
        .arg("--");
    shim
}

/// `exited with 3`, `was killed by signal 11`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The shim: becomes `command` on `cpus` with this `nice` value, to be killed when `parent` dies.
pub fn exec(
    parent: u32,
    cpus: &CpuSet,
    nice: Option<i32>,
    command: &[OsString],
) -> Result<Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot bind to the referee's life")?;
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    ensure!(actual == Some(parent), "the referee has gone");
    // The program keeps it: what it starts in the background stays below it in the tree.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot keep what the program starts below it")?;
    cpus.pin_current_thread()?;
    priority::take(nice).context("cannot take precedence over other programs")?;
    let (program, args) = command.split_first().context("no command")?;
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(program).display()))
}
