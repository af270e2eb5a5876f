//! A suite's configuration with fake servers, a fake generator and a fake conformance suite, and
//! what it leaves behind.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bench::record::RunRecord;
use bench::summary::Summary;

const CONTESTANTS: &str = r#"
fast = { about = "1.2 times as fast", program = "./server", run_args = ["--port", "1001"], default = true }
slow = { about = "the other", program = "./server", run_args = ["--port", "1002"], default = true }
dying = { about = "dies in every run", program = "./server", run_args = ["--port", "1003", "--dies"] }
patient = { about = "its runs last", program = "./server", run_args = ["--port", "1004"] }
unrecordable = { about = "its record cannot be written", program = "./server", run_args = ["--port", "1005"] }
rude = { about = "does not conform", program = "./server", args = ["--rude"], run_args = ["--port", "1002"] }
floor = { about = "raw TCP of another stack", program = "./server", run_args = ["--port", "1002", "--foreign"], foreign = true, protocol = "tcp" }
wide = { about = "spreads over processes", program = "./server", run_args = ["--port", "1001"], scale_by = "processes", scale_args = ["--processes", "{processes}"] }
missing = { about = "cannot start", program = "./no-server" }
"#;

pub(crate) const SUITE: &str = r#"
about = "two small bouts"
repeats = 2
extra_blocks = 1
budget = "1m"
warmup = "0s"
duration = "100ms"
scenarios = ["closed", "open"]
[calibration]
runs = 1
warmup = "0s"
duration = "100ms"
"#;

/// A folder with configuration and fake binaries.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let root = stage.dir.path();
        for folder in ["scenarios", "suites"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        fs::write(root.join("contestants.toml"), CONTESTANTS).unwrap();
        fs::write(root.join("suites/mini.toml"), SUITE).unwrap();
        for (name, load) in [
            ("closed", "window = 1"),
            ("open", "fraction_of_capacity = 0.5"),
        ] {
            let text = format!(
                "title = 'Echo'\nshows = 'this'\ndoes_not_show = 'that'\nkind = 'echo'\nconnections = 10\nload = {{ {load} }}\n"
            );
            fs::write(root.join(format!("scenarios/{name}.toml")), text).unwrap();
        }
        // fakes/server.sh, fakes/loadgen.sh and fakes/conformance.sh.
        for name in ["server", "loadgen", "conformance"] {
            let source =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fakes/{name}.sh"));
            fs::copy(source, root.join(name)).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let slices = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/loadgen_slices.py");
        fs::copy(slices, root.join("loadgen_slices.py")).unwrap();
        fs::write(root.join("record.json"), record_template()).unwrap();
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn bench(&self, out: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command
            .args(["--seed", "7", "--machine", "test"])
            .arg("--config-dir")
            .arg(self.dir.path())
            .arg("--bin-dir")
            .arg(self.dir.path())
            .arg("--out")
            .arg(self.path(out))
            .args(args)
            .args(
                (!args.contains(&"--suite"))
                    .then_some(["--suite", "mini"])
                    .into_iter()
                    .flatten(),
            )
            .env("RINGSIDE_LOCK", self.path("lock"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.bench("out", args).output().unwrap()
    }

    /// `--resume`.
    pub(crate) fn resume(&self, folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.env("RINGSIDE_LOCK", self.path("lock"));
        command.arg("--resume").arg(folder).args(args);
        command.arg("--config-dir").arg(self.dir.path());
        command.arg("--bin-dir").arg(self.dir.path());
        command.output().unwrap()
    }

    /// Waits until `condition` gives something.
    pub(crate) fn wait_for<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            // tidy: may sleep, a poll with a deadline.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn server_pid(&self) -> Option<u32> {
        fs::read_to_string(self.path("server.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Starts a suite whose first run lasts, and waits until it is under way.
    pub(crate) fn start_and_wait(&self) -> (Child, u32) {
        let child = self
            .bench(
                "out",
                &["--contestants", "patient", "--scenarios", "closed"],
            )
            .spawn()
            .unwrap();
        self.wait_for("the run", || self.path("started").exists().then_some(()));
        (child, self.server_pid().unwrap())
    }
}

/// So much in flight that a server need not use a CPU to answer.
fn record_template() -> String {
    serde_json::json!({
        "schema_version": 1, "loadgen_version": "fake", "kind": "echo",
        "options": {"urls": [], "connections": 10, "duration_ns": 0, "warmup_ns": 0,
                    "drain_timeout_ns": 0, "threads": 1, "window": 10_000, "size_bytes": 64, "rate_per_s": "RATE"},
        "validity": {"verdict": "valid"},
        "started_unix_ns": "START", "window_start_unix_ns": "START",
        "window_end_unix_ns": "END", "window_ns": "LENGTH",
        "window_start_monotonic_ns": "FROM", "window_end_monotonic_ns": "TO",
        "connections": {"requested": 10, "up": 10, "closed_early": 0, "failed": 0},
        "connect": {"completed": 10, "failed": 0, "elapsed_ns": 1, "handshakes_per_s": 1.0},
        "messages": {"sent": "COUNT", "expected": "COUNT", "received": "COUNT", "lost": 0, "unsent": 0,
                     "duplicated": 0, "reordered": 0, "corrupted": 0, "received_payload_bytes": 64_000},
        "idle": {"held": 10, "still_up": 10, "active": 1, "pings_answered": 0, "pings_answered_in_window": 9},
        "totals": {"sent": 1000, "received": 1000, "pings_answered": 0, "handshakes": 10},
        "throughput": {"messages_per_s": "PER_S", "payload_bytes_per_s": 1.0},
        "latency_intended": latency(), "latency_actual": latency(),
        "generator": {"cpu_user_ns": 1, "cpu_sys_ns": 1}
    })
    .to_string()
}

fn latency() -> serde_json::Value {
    serde_json::json!({"count": "COUNT", "min_ns": 1, "mean_ns": 10.0, "p50_ns": 10, "p90_ns": 20,
                       "p99_ns": 3_000_000_000_u64, "p99_9_ns": 4_000_000_000_u64,
                       "p99_99_ns": 5_000_000_000_u64, "max_ns": 6_000_000_000_u64})
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line of stdout.
pub(crate) fn folder(output: &Output) -> PathBuf {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .last()
        .unwrap_or_else(|| panic!("nothing on stdout: {}", stderr(output)));
    assert!(
        Path::new(line).is_dir(),
        "last line is no folder: {line}\n{}",
        stderr(output)
    );
    PathBuf::from(line)
}

pub(crate) fn summary(folder: &Path) -> Summary {
    serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap()
}

pub(crate) fn runs_of(folder: &Path, bout: &str) -> Vec<RunRecord> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder.join("runs").join(bout))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

/// What one of the recipes in `bench-results/README.md` does in `folder`, with other names than
/// those written there.
pub(crate) fn recipe(place: usize, [written, ours]: [&str; 2], folder: &Path) -> Output {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let recipe = readme.split("```python\n").nth(place).unwrap();
    let recipe = recipe.split("```").next().unwrap();
    assert!(recipe.contains(written));
    Command::new("python3")
        .args(["-c", &recipe.replace(written, ours)])
        .current_dir(folder)
        .output()
        .expect("python3 is needed")
}

pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
