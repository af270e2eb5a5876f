//! A generator that works in slices: it holds its connections, and sends when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loadgen::record::slice::{Line, Slice};
use rustix::process::Signal;

use super::generator::milliseconds;
use super::interrupt::Interrupt;
use super::process::{Guarded, describe};

/// How long a slice may take beyond its time: what is outstanding is waited for.
const SLICE_GRACE: Duration = Duration::from_secs(15);
/// Between two looks at whether the suite is interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// A generator of an alternating bout.
#[derive(Debug)]
pub(super) struct SlicedGenerator {
    process: Guarded,
    commands: ChildStdin,
    lines: Receiver<String>,
    /// Its log.
    pub(super) stderr: PathBuf,
}

impl SlicedGenerator {
    /// Takes over a generator that was just started.
    pub(super) fn new(
        (process, commands, stdout): (Guarded, ChildStdin, ChildStdout),
        stderr: PathBuf,
    ) -> Self {
        let (sender, lines) = mpsc::channel();
        // It ends with the generator, which holds the other end of the pipe.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).find(Result::is_err)
        });
        Self {
            process,
            commands,
            lines,
            stderr,
        }
    }

    /// Waits until all its connections are up.
    pub(super) fn wait_until_up(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<()> {
        match self.next_line(limit, interrupt)? {
            Line::Up(_) => Ok(()),
            Line::Slice(_) => bail!("the generator's first line is of a slice"),
        }
    }

    /// Begins a slice.
    pub(super) fn begin(&mut self, settle: Duration, slice: Duration) -> Result<()> {
        let command = format!("slice {} {}\n", milliseconds(settle), milliseconds(slice));
        let written = self.commands.write_all(command.as_bytes());
        written.context("the generator takes no commands any more")
    }

    /// The slice that was begun, when nothing of it is in flight any more.
    pub(super) fn finish(&mut self, interrupt: &Interrupt) -> Result<Slice> {
        match self.next_line(SLICE_GRACE, interrupt)? {
            Line::Slice(slice) => Ok(*slice),
            Line::Up(_) => bail!("the generator said twice that its connections are up"),
        }
    }

    fn next_line(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Line> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    return serde_json::from_str(&line).with_context(|| {
                        format!("the generator printed what is no event: {line:.200}")
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let deadline = Instant::now() + Duration::from_secs(2);
                    let status = self.process.wait_until(deadline);
                    let exit = status.map_or_else(|| "closed its output".to_owned(), describe);
                    bail!("the generator {exit} before its time");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            ensure!(!interrupt.is_set(), "interrupted");
            ensure!(
                Instant::now() < deadline,
                "the generator did not answer within {limit:?}"
            );
        }
    }

    /// Has it close its connections and write its record; how it ended.
    pub(super) fn stop(mut self, patience: Duration) -> Option<String> {
        // One that takes no commands has ended.
        let _ = self.commands.write_all(b"stop\n");
        if let Some(status) = self.process.wait_until(Instant::now() + patience) {
            return Some(describe(status));
        }
        let (status, _) = self.process.end(Signal::INT, Duration::from_secs(3));
        status.map(describe)
    }
}
