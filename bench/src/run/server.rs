//! A server under test as a process: from its start to its line of final counters.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loadgen::address::Address;
use rustix::process::Signal;
use serde_json::Value;

use super::interrupt::Interrupt;
use super::process::{Guarded, Launcher, POLL, describe};
use crate::config::{ANY_PORT, Contestant, Scenario, Transport};
use crate::machine::listener::{self, Listener};
use crate::machine::{CpuSet, proc};
use crate::record::Layout;
use crate::store::{self, ResultFolder};

/// Messages for which a server is prepared in a trial start, which sends it none.
const TRIAL_MESSAGE_BYTES: u64 = 64;
/// How long a server may take to print its `ready` line.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM: its drain timeout is 5 s.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// How a path is told from an address, in arguments and in `ready` lines.
const UNIX: &str = "unix:";

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Guarded,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Its `ready` line.
    pub ready: Value,
    /// Where it listens.
    pub address: Address,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub exit: String,
    /// Its last line, if that was one of final counters.
    pub final_line: Option<Value>,
    /// Why its end was a failure, if it was.
    pub failure: Option<String>,
}

impl Server {
    /// Program and arguments of a contestant on these CPUs, in a scenario or for a trial start.
    pub fn command(
        contestant: &Contestant,
        program: &std::path::Path,
        cpus: &CpuSet,
        scenario: Option<&Scenario>,
    ) -> Vec<String> {
        let mut command = vec![program.display().to_string()];
        let listen = match scenario.map(|one| one.transport) {
            Some(Transport::Unix) => new_unix_address(),
            Some(Transport::Tcp) | None => ANY_PORT.to_owned(),
        };
        let message_bytes = scenario.map_or(TRIAL_MESSAGE_BYTES, Scenario::largest_message_bytes);
        let (list, workers) = (cpus.to_string(), cpus.len() as u64);
        command.extend(contestant.arguments(&listen, &list, workers, message_bytes));
        command.extend(scenario.into_iter().flat_map(|one| one.server_args.clone()));
        command
    }

    /// The same in a scale step, laid out for its connections.
    pub fn scale_command(
        contestant: &Contestant,
        program: &std::path::Path,
        cpus: &CpuSet,
        layout: Layout,
        scenario: &Scenario,
    ) -> Vec<String> {
        let Layout { processes, workers } = layout;
        let mut command = vec![program.display().to_string()];
        let list = cpus.to_string();
        command.extend(contestant.scale_arguments(
            &list,
            processes,
            workers,
            scenario.largest_message_bytes(),
        ));
        command.extend(scenario.server_args.iter().cloned());
        command
    }

    /// Why it does not do what the scenario asks for, if so: listen on a Unix socket, or the work
    /// for each message.
    pub fn shirks(&self, scenario: &Scenario) -> Option<String> {
        if scenario.transport == Transport::Unix && self.address.ip().is_some() {
            return Some(format!(
                "its ready line says address {}, asked for was a Unix socket (`{{listen}}` in its \
                 arguments)",
                self.ready["address"]
            ));
        }
        let asked = scenario.handler_work_us()?;
        let declared = &self.ready["options"]["handler_work_us"];
        (declared.as_u64() != Some(asked.into())).then(|| {
            format!(
                "its ready line declares options.handler_work_us {declared}, asked for was {asked}"
            )
        })
    }

    /// Starts it and waits for its `ready` line. Its output goes to `STEM.server.stdout` and
    /// `STEM.server.stderr`.
    pub fn start(
        launcher: &Launcher,
        command: &[String],
        cpus: &CpuSet,
        folder: &ResultFolder,
        stem: &str,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (stdout, stdout_file) = folder.log(format!("{stem}.server.stdout"))?;
        let (stderr, stderr_file) = folder.log(format!("{stem}.server.stderr"))?;
        let (program, args) = command.split_first().context("a server needs a program")?;
        let mut process = launcher.start(program.as_ref(), args, cpus, stdout_file, stderr_file)?;
        let deadline = Instant::now() + READY_WITHIN;
        let line = loop {
            if let Some(line) = lines(&stdout).into_iter().next() {
                break line;
            }
            if let Some(status) = process.try_wait() {
                bail!(
                    "the server {} before it was ready{}",
                    describe(status),
                    store::said(&stderr)
                );
            }
            ensure!(!interrupt.is_set(), "interrupted");
            ensure!(
                Instant::now() < deadline,
                "the server was not ready within {READY_WITHIN:?}"
            );
            std::thread::sleep(POLL);
        };
        let (ready, address) = parse_ready(&line)?;
        process.look_at_family();
        // Nobody else listens at a path that has just been made up.
        let listener = address.ip().map(|address| {
            let listener = listener::of(address, &proc::tree(process.pid()));
            (address, listener)
        });
        match listener {
            None | Some((_, Listener::Own)) => {}
            Some((address, Listener::Other(who))) => bail!(
                "{who} listens at {address}, which is no process of the contestant: end it, or \
                 give the contestant another port"
            ),
            Some((address, Listener::Unseen)) => {
                eprintln!("{program}: this user may not see whose socket listens at {address}")
            }
        }
        Ok(Self {
            process,
            stdout,
            stderr,
            ready,
            address,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// Ends it with SIGTERM and collects its last line. Logs that hold nothing new are removed.
    pub fn stop(mut self) -> Ended {
        let by_itself = self.process.try_wait();
        let (status, killed) = self.process.end(Signal::TERM, ENDS_WITHIN);
        if let Address::Unix(path) = &self.address {
            // A server that was killed, or does not do so itself.
            let _ = fs::remove_file(path);
        }
        let exit = status.map_or_else(|| "ended".to_owned(), describe);
        let lines = lines(&self.stdout);
        let final_line: Option<Value> = lines
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .filter(|value: &Value| value["event"] == "final");
        let failure = if by_itself.is_some() {
            Some(format!(
                "the server {exit} during the run{}",
                store::said(&self.stderr)
            ))
        } else if killed {
            Some(format!(
                "the server did not end within {ENDS_WITHIN:?} of SIGTERM and was killed"
            ))
        } else if !status.is_some_and(|status| status.success()) {
            Some(format!(
                "the server {exit} after SIGTERM{}",
                store::said(&self.stderr)
            ))
        } else {
            None
        };
        if lines.len() == 1 + usize::from(final_line.is_some()) {
            // `ready` and the final line, where there is one, are in the record, word for word.
            let _ = fs::remove_file(&self.stdout);
        }
        store::remove_if_empty(&self.stdout);
        store::remove_if_empty(&self.stderr);
        Ended {
            exit,
            final_line,
            failure,
        }
    }
}

/// Complete lines of a file so far.
fn lines(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(str::to_owned)
        .collect()
}

/// `unix:PATH`, where nothing has been before. Not in the result folder, whose path may be longer
/// than the kernel takes for a socket.
fn new_unix_address() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringside-{}-{number}.sock", std::process::id());
    format!("{UNIX}{}", std::env::temp_dir().join(name).display())
}

/// Only the address is required, so that servers of other stacks can enter.
fn parse_ready(line: &str) -> Result<(Value, Address)> {
    let wrong = || format!("the server's first line is no `ready` line: {line}");
    let ready: Value = serde_json::from_str(line).with_context(wrong)?;
    let event = ready.get("event");
    ensure!(event.is_none_or(|event| event == "ready"), wrong());
    let text = ready["address"].as_str().with_context(wrong)?;
    let address = match text.strip_prefix(UNIX) {
        Some(path) => Address::Unix(path.into()),
        None => Address::Ip(text.parse().with_context(wrong)?),
    };
    ensure!(address.ip().is_none_or(|ip| ip.port() != 0), wrong());
    Ok((ready, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_needs_an_address() {
        let (ready, address) =
            parse_ready(r#"{"event":"ready","server":"x","address":"127.0.0.1:4000","more":1}"#)
                .unwrap();
        assert_eq!(ready["server"], "x");
        assert_eq!(address.ip().unwrap().port(), 4000);
        let (_, address) = parse_ready(r#"{"address":"unix:/a b"}"#).unwrap();
        assert_eq!(address, Address::Unix("/a b".into()));
        assert!(parse_ready(r#"{"address":"127.0.0.1:4000"}"#).is_ok());
        for bad in [
            "listening on 4000",
            r#"{"event":"final","address":"127.0.0.1:1"}"#,
            r#"{"event":"ready"}"#,
            r#"{"event":"ready","address":"127.0.0.1:0"}"#,
            r#"{"event":"ready","address":7}"#,
        ] {
            let message = format!("{:#}", parse_ready(bad).unwrap_err());
            assert!(
                message.contains("no `ready` line") && message.contains(bad),
                "{message}"
            );
        }
    }

    #[test]
    fn only_complete_lines_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        fs::write(&file, "one\ntwo\nthr").unwrap();
        assert_eq!(lines(&file), ["one", "two"]);
        assert!(lines(&dir.path().join("missing")).is_empty());
    }
}
