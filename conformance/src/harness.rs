//! The server under test as a process: started on port 0, judged by what it prints, never left
//! behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::{Address, Raw, Response, eventually};
use super::metrics::Metrics;
use super::usage;
use super::ws::Ws;

/// How long anything that must happen may take. Generous: it only costs time where a server is
/// wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The server binary to judge, with the arguments every case starts it with.
#[derive(Debug, Clone)]
pub struct Target {
    /// Path of the binary.
    pub binary: PathBuf,
    /// Arguments that choose the flavour; each case adds its own.
    pub args: Vec<String>,
    /// How long a case waits for anything that must happen.
    pub patience: Duration,
    /// Cases that do not choose an address listen on a Unix socket.
    over_unix: bool,
}

/// Unix sockets made by this process so far.
static UNIX_SOCKETS: AtomicU32 = AtomicU32::new(0);

impl Target {
    /// A target with the usual [`PATIENCE`].
    pub fn new(binary: impl Into<PathBuf>, args: &[&str]) -> Target {
        Target {
            binary: binary.into(),
            args: args.iter().map(|arg| arg.to_string()).collect(),
            patience: PATIENCE,
            over_unix: false,
        }
    }

    /// The same over a Unix socket.
    pub fn over_unix(binary: impl Into<PathBuf>, args: &[&str]) -> Target {
        Target {
            over_unix: true,
            ..Target::new(binary, args)
        }
    }

    /// What a case listens on that does not choose.
    fn listen(&self) -> String {
        if self.over_unix {
            format!("unix:{}", new_socket_path().display())
        } else {
            "127.0.0.1:0".into()
        }
    }

    /// Starts the server on a free loopback port, or a Unix socket, with these extra options and
    /// waits for its `ready` line.
    #[track_caller]
    pub fn start(&self, extra: &[&str]) -> Server {
        self.start_on(&self.listen(), extra)
    }

    /// Starts the server on this address.
    #[track_caller]
    pub fn start_on(&self, listen: &str, extra: &[&str]) -> Server {
        let mut command = Command::new(&self.binary);
        command
            .args(&self.args)
            .args(["--listen", listen])
            .args(extra);
        self.launch(command)
    }

    /// Starts the server from a shell that has run `prelude` (a `ulimit`) first.
    #[track_caller]
    pub fn start_in_shell(&self, prelude: &str, extra: &[&str]) -> Server {
        self.start_in_shell_on(&self.listen(), prelude, extra)
    }

    /// The same on this address.
    #[track_caller]
    pub fn start_in_shell_on(&self, listen: &str, prelude: &str, extra: &[&str]) -> Server {
        let mut command = Command::new("sh");
        // `exec` keeps the pid, so that signals reach the server itself.
        command.args(["-c", &format!("{prelude} && exec \"$0\" \"$@\"")]);
        command
            .arg(&self.binary)
            .args(&self.args)
            .args(["--listen", listen])
            .args(extra);
        self.launch(command)
    }

    /// Runs the server with exactly these options (after the flavour's), expecting it to end by
    /// itself.
    #[track_caller]
    pub fn run_to_end(&self, options: &[&str]) -> Exit {
        let mut command = Command::new(&self.binary);
        command.args(&self.args).args(options);
        Process::spawn(command, self.patience).wait()
    }

    #[track_caller]
    fn launch(&self, command: Command) -> Server {
        let process = Process::spawn(command, self.patience);
        let line = match process.stdout.recv_timeout(self.patience) {
            Ok(line) => line,
            Err(_) => {
                let exit = process.interrupt_and_wait();
                panic!("no ready line; {:?}, stderr:\n{}", exit.status, exit.stderr);
            }
        };
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("the first line of stdout is not JSON ({e}): {line}"));
        let address = ready["address"]
            .as_str()
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("the ready line has no address: {line}"));
        Server {
            process: Some(process),
            ready,
            address,
            patience: self.patience,
        }
    }
}

/// Where no socket has been yet.
pub fn new_socket_path() -> PathBuf {
    let number = UNIX_SOCKETS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ringside-{}-{number}.sock", std::process::id()))
}

/// A running server.
pub struct Server {
    process: Option<Process>,
    /// The `ready` line.
    pub ready: Value,
    /// Where it listens, first of all.
    pub address: Address,
    /// How long to wait for anything.
    pub patience: Duration,
}

impl Server {
    /// The processes that serve: the server's own, or its children.
    pub fn serving_pids(&self) -> Vec<u32> {
        let children = self.ready["pids"].as_array().into_iter().flatten();
        let mut pids: Vec<u32> = children
            .filter_map(|pid| u32::try_from(pid.as_u64()?).ok())
            .collect();
        if pids.is_empty() {
            pids.push(self.pid());
        }
        pids
    }

    /// The process id of the child, from the operating system.
    pub fn pid(&self) -> u32 {
        self.process
            .as_ref()
            .map_or(0, |process| process.child.id())
    }

    /// Where it listens, in a case that is about TCP.
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        match self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("a case of TCP: {}", self.ready),
        }
    }

    /// Where the `ready` line says that clients reach it.
    #[track_caller]
    pub fn addresses(&self) -> Vec<Address> {
        let addresses = self.ready["addresses"].as_array().into_iter().flatten();
        addresses
            .map(|address| {
                let address = address.as_str().and_then(|text| text.parse().ok());
                address.unwrap_or_else(|| panic!("not an address: {}", self.ready))
            })
            .collect()
    }

    /// A raw connection.
    #[track_caller]
    pub fn raw(&self) -> Raw {
        Raw::connect(&self.address, self.patience)
    }

    /// A raw connection on which the upgrade is done.
    #[track_caller]
    pub fn upgraded(&self, path: &str) -> Raw {
        let mut raw = self.raw();
        raw.upgrade(path);
        raw
    }

    /// Like [`Server::upgraded`], with a receive buffer that is soon full.
    #[track_caller]
    pub fn upgraded_with_small_buffer(&self, path: &str) -> Raw {
        let mut raw = Raw::connect_with_receive_buffer(&self.address, self.patience, 8 * 1024);
        raw.upgrade(path);
        raw
    }

    /// A well-behaved WebSocket client.
    #[track_caller]
    pub fn ws(&self, path: &str) -> Ws {
        Ws::connect(&self.address, path, self.patience)
    }

    /// A plain GET request on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request(&format!(
            "GET {path} HTTP/1.1\r\nHost: conformance.test\r\n\r\n"
        ))
    }

    /// Any request on a connection of its own.
    #[track_caller]
    pub fn request(&self, request: &str) -> Response {
        let mut raw = self.raw();
        raw.send(request.as_bytes());
        raw.response()
    }

    /// The counters of `/metrics`, added up over the server's processes: which of them answers is a
    /// matter of luck, so all are asked until each has answered.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let processes = self.serving_pids().len();
        let mut answers = BTreeMap::new();
        eventually(self.patience, "every process shows its metrics", || {
            let response = self.get("/metrics");
            assert_eq!(response.status, 200, "{response:?}");
            let answer = Metrics::parse(&response.body);
            answers.insert(answer.process.clone(), answer);
            (answers.len() == processes).then_some(())
        });
        answers
            .into_values()
            .reduce(Metrics::plus)
            .unwrap_or_default()
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn await_metric(&self, name: &str, wanted: u64) {
        let deadline = Instant::now() + self.patience;
        loop {
            let value = self.metrics().get(name);
            if value == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is still {value}, not {wanted}"
            );
            // tidy: may sleep, a poll with a deadline.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the server.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Waits for the server to end.
    #[track_caller]
    pub fn wait(mut self) -> Exit {
        match self.process.take() {
            Some(process) => process.wait(),
            None => panic!("the server was waited for already"),
        }
    }

    /// SIGTERM, then waits for the end.
    #[track_caller]
    pub fn terminate(self) -> Exit {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGTERM, then checks that it ended well: exit 0 and a `final` line, which it returns.
    #[track_caller]
    pub fn stop(self) -> Value {
        self.terminate().expect_clean()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        let process = self.process.as_ref();
        process.map(Process::stderr_so_far).unwrap_or_default()
    }

    /// CPU time used so far, user and system, of all processes that serve.
    #[track_caller]
    pub fn cpu_time(&self) -> Duration {
        self.serving_pids().into_iter().map(usage::cpu_time).sum()
    }

    /// CPU time used so far by each thread that serves, by thread id, in nanoseconds.
    #[track_caller]
    pub fn thread_cpu_times(&self) -> BTreeMap<String, u64> {
        let pids = self.serving_pids().into_iter();
        pids.flat_map(usage::thread_cpu_times).collect()
    }

    /// Number of open file descriptors of all processes that serve.
    #[track_caller]
    pub fn open_files(&self) -> usize {
        self.serving_pids().into_iter().map(usage::open_files).sum()
    }

    /// Connections of which the server still holds its end, with a descriptor or without one.
    #[track_caller]
    pub fn open_sockets(&self) -> usize {
        usage::open_sockets(&self.address)
    }

    /// Resident memory in bytes of all processes that serve.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let pids = self.serving_pids().into_iter();
        pids.map(usage::resident_bytes).sum()
    }
}

impl Drop for Server {
    /// A server that its case did not stop must still end well, unless the case has failed already.
    fn drop(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        if std::thread::panicking() {
            return; // Process::drop ends it.
        }
        process.signal(Signal::TERM);
        process.wait().expect_clean();
    }
}

/// How a server ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit status.
    pub status: ExitStatus,
    /// Lines on stdout that nobody has read yet.
    pub stdout: Vec<String>,
    /// Everything on stderr.
    pub stderr: String,
}

impl Exit {
    /// Checks exit 0, no panic in the log and one `final` line; returns that line.
    #[track_caller]
    pub fn expect_clean(self) -> Value {
        assert!(
            !self.stderr.contains("panicked at"),
            "the server panicked:\n{}",
            self.stderr
        );
        assert_eq!(
            self.status.code(),
            Some(0),
            "{:?}, stderr:\n{}",
            self.status,
            self.stderr
        );
        assert_eq!(
            self.stdout.len(),
            1,
            "one final line is due, got {:?}",
            self.stdout
        );
        let line = &self.stdout[0];
        let last: Value = serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("the final line is not JSON ({e}): {line}"));
        assert_eq!(last["event"], "final", "{line}");
        last
    }
}

/// A child with its output collected and a watchdog beside it.
struct Process {
    child: Child,
    watchdog: Option<Child>,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Process {
    #[track_caller]
    fn spawn(mut command: Command, patience: Duration) -> Process {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let watchdog = Process::watch(child.id());
        let (sender, stdout) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stderr = Arc::new(Mutex::new(String::new()));
        let stderr_reader = child.stderr.take().map(|pipe| {
            let stderr = Arc::clone(&stderr);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let mut so_far = stderr.lock().unwrap_or_else(PoisonError::into_inner);
                    so_far.push_str(&String::from_utf8_lossy(&line));
                    so_far.push('\n');
                }
            })
        });
        Process {
            child,
            watchdog: Some(watchdog),
            stdout,
            stderr,
            stderr_reader,
            patience,
        }
    }

    /// A shell that kills the server when this process dies in a way that runs no destructor: it
    /// waits for the end of a pipe that only this process holds. (A parent-death signal would need
    /// `unsafe`.)
    #[track_caller]
    fn watch(pid: u32) -> Child {
        Command::new("sh")
            .args([
                "-c",
                "read -r line; kill -s KILL \"$0\" 2>/dev/null",
                &pid.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start sh: {e}"))
    }

    fn signal(&self, signal: Signal) {
        // An error means that it has ended already, which whoever waits will see.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    #[track_caller]
    fn wait(mut self) -> Exit {
        let patience = self.patience;
        let status = eventually(patience, "the server ends", || {
            self.child.try_wait().ok().flatten()
        });
        self.collect(status)
    }

    fn interrupt_and_wait(mut self) -> Exit {
        let status = self.end();
        self.collect(status)
    }

    fn collect(&mut self, status: ExitStatus) -> Exit {
        let stdout = self.stdout.iter().collect();
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        Exit {
            status,
            stdout,
            stderr: self.stderr_so_far(),
        }
    }

    fn stderr_so_far(&self) -> String {
        let stderr = self.stderr.lock();
        stderr.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the child, politely first.
    fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + self.patience.min(Duration::from_secs(8));
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            // tidy: may sleep, a poll with a deadline.
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        self.child.wait().unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog goes before the pid it watches can be used again.
        if let Some(mut watchdog) = self.watchdog.take() {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}
