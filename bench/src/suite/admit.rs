//! Admits contestants before the bouts: each must start, and pass the conformance cases.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::machine::CpuSet;
use crate::plan::Candidate;
use crate::run::Testbed;
use crate::run::process::run_to_end;
use crate::run::server::Server;
use crate::store;

/// The smoke cases take seconds; one that hangs must not hang the suite.
const CONFORMANCE_WITHIN: Duration = Duration::from_secs(120);

/// The result of an admission.
pub struct Admission {
    /// Its `ready` line, if it started.
    pub ready: Option<Value>,
    /// Why it cannot take part.
    pub excluded: Option<String>,
}

/// A trial start, then the conformance cases, if their binary is given.
///
/// # Errors
/// When the result folder cannot be written.
pub fn admit(
    testbed: &Testbed,
    candidate: &Candidate,
    conformance: Option<&Path>,
) -> Result<Admission> {
    Ok(match try_start(testbed, candidate)? {
        Err(reason) => Admission {
            ready: None,
            excluded: Some(reason),
        },
        Ok(ready) => Admission {
            ready: Some(ready),
            excluded: match conformance {
                Some(conformance) => conform(testbed, candidate, conformance)?,
                None => None,
            },
        },
    })
}

/// A trial start: the `ready` line, or why the contestant cannot take part.
fn try_start(testbed: &Testbed, candidate: &Candidate) -> Result<Result<Value, String>> {
    let Candidate {
        contestant,
        program,
        ..
    } = candidate;
    let stem = format!("trial/{}", contestant.name);
    let command = Server::command(contestant, program, &testbed.server_cpus, None);
    let server = match testbed.start(&command, &testbed.server_cpus, &stem)? {
        Ok(server) => server,
        Err(reason) => return Ok(Err(reason)),
    };
    let ready = server.ready.clone();
    let ended = server.stop();
    Ok(match ended.failure {
        Some(failure) => Err(failure),
        None => {
            store::remove(&testbed.folder.path().join(format!("{stem}.server.stderr")));
            let _ = std::fs::remove_dir(testbed.folder.path().join("trial"));
            Ok(ready)
        }
    })
}

/// The conformance smoke: nothing, or why the contestant cannot take part.
fn conform(testbed: &Testbed, candidate: &Candidate, conformance: &Path) -> Result<Option<String>> {
    let Candidate {
        contestant,
        program,
        ..
    } = candidate;
    let (log, stdout) = testbed
        .folder
        .log(format!("conformance/{}.log", contestant.name))?;
    let (stderr_log, stderr) = testbed
        .folder
        .log(format!("conformance/{}.stderr", contestant.name))?;
    let mut args = vec![
        "--smoke".to_owned(),
        "--".to_owned(),
        program.display().to_string(),
    ];
    args.extend(contestant.args.iter().cloned());
    let process =
        testbed
            .launcher
            .start(conformance, &args, &CpuSet::allowed()?, stdout, stderr)?;
    let status = run_to_end(
        process,
        Instant::now() + CONFORMANCE_WITHIN,
        &testbed.interrupt,
    );
    store::remove_if_empty(&stderr_log);
    if testbed.interrupt.is_set() {
        return Ok(None);
    }
    let log_name = format!("conformance/{}.log", contestant.name);
    Ok(match status {
        Some(status) if status.success() => None,
        Some(_) => Some(format!(
            "conformance: {} ({log_name})",
            failed_cases(&log, &stderr_log)
        )),
        None => Some(format!(
            "conformance: not over within {CONFORMANCE_WITHIN:?} ({log_name})"
        )),
    })
}

/// The first lines that are not `ok`.
fn failed_cases(log: &Path, stderr_log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("ok ") && !line.trim().is_empty())
        .take(3)
        .collect();
    if failed.is_empty() {
        match store::tail(stderr_log) {
            tail if tail.is_empty() => "it failed and printed no reason".to_owned(),
            tail => tail,
        }
    } else {
        failed.join(" / ")
    }
}
