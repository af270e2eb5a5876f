//! `perf` beside a server: it samples the stacks of the server's threads, and prints them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Testbed;
use super::process::{Guarded, describe, run_to_end};
use crate::machine::perf::{CLOCK, PERF};
use crate::machine::{CpuSet, proc};
use crate::store;

/// Samples per second of CPU time; no divisor of the ticks of kernels, so that samples do not fall
/// on them.
pub const FREQUENCY_HZ: u32 = 999;
/// It writes what it has and ends within milliseconds of SIGINT.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// It prints a second's samples in a fraction of one.
const PRINTS_WITHIN: Duration = Duration::from_secs(120);

/// `perf record` at work.
#[derive(Debug)]
pub(super) struct Perf {
    process: Guarded,
    cpus: CpuSet,
    data: PathBuf,
    stderr: PathBuf,
}

impl Perf {
    /// Begins to sample process `pid` and its children. It runs on `cpus`, which are not those of
    /// the server.
    pub(super) fn start(testbed: &Testbed, stem: &str, pid: u32, cpus: &CpuSet) -> Result<Self> {
        let data = testbed.folder.file(format!("{stem}.perf.data"))?;
        let (stdout_path, stdout) = testbed.folder.log(format!("{stem}.perf.stdout"))?;
        let (stderr_path, stderr) = testbed.folder.log(format!("{stem}.perf.stderr"))?;
        store::remove(&stdout_path);
        let pids: Vec<String> = proc::tree(pid).iter().map(u32::to_string).collect();
        let mut args: Vec<String> = ["record", "-e", CLOCK, "-F", &FREQUENCY_HZ.to_string()]
            .map(str::to_owned)
            .into();
        // Stacks by frame pointer: the kernel's are whole. No digests of binaries, which would go
        // to the user's home. The clock of the generator's window.
        args.extend(["-g", "-B", "-N", "-k", "CLOCK_MONOTONIC", "-p"].map(str::to_owned));
        args.extend([pids.join(","), "-o".to_owned(), data.display().to_string()]);
        let launcher = &testbed.launcher;
        Ok(Self {
            process: launcher.start(PERF.as_ref(), &args, cpus, stdout, stderr)?,
            cpus: cpus.clone(),
            data,
            stderr: stderr_path,
        })
    }

    /// Ends it; what `perf script` makes of its samples, or why there is nothing. The outer error
    /// is one of the result folder.
    pub(super) fn stop(mut self, testbed: &Testbed, stem: &str) -> Result<Result<String, String>> {
        if let Some(status) = self.process.try_wait() {
            return Ok(Err(format!(
                "perf {} while it sampled the server{}",
                describe(status),
                store::said(&self.stderr)
            )));
        }
        let (_, killed) = self.process.end(Signal::INT, ENDS_WITHIN);
        if killed {
            return Ok(Err(format!(
                "perf did not end within {ENDS_WITHIN:?} of SIGINT and was killed{}",
                store::said(&self.stderr)
            )));
        }
        let (script_path, stdout) = testbed.folder.log(format!("{stem}.perf.script"))?;
        let (stderr_path, stderr) = testbed.folder.log(format!("{stem}.perf.stderr"))?;
        let data = self.data.display().to_string();
        let fields = "comm,tid,time,ip,sym,dso";
        // Inlined functions would be looked up one by one.
        let args = ["script", "-i", &data, "-F", fields, "--ns", "--no-inline"].map(str::to_owned);
        let launcher = &testbed.launcher;
        let process = launcher.start(PERF.as_ref(), &args, &self.cpus, stdout, stderr)?;
        let deadline = Instant::now() + PRINTS_WITHIN;
        let status = run_to_end(process, deadline, &testbed.interrupt);
        if !status.is_some_and(|status| status.success()) {
            let how = status.map_or_else(|| "was ended".to_owned(), describe);
            let said = store::said(&stderr_path);
            return Ok(Err(format!("perf script {how}{said}; its data is {data}")));
        }
        let script = fs::read(&script_path)
            .with_context(|| format!("cannot read {}", script_path.display()))?;
        for path in [&self.data, &script_path, &stderr_path] {
            store::remove(path);
        }
        Ok(Ok(String::from_utf8_lossy(&script).into_owned()))
    }
}
