//! Before the bouts: does each contestant start, and does it keep the rules?

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::config::Contestant;
use crate::machine::CpuSet;
use crate::run::Ring;
use crate::run::process::run_to_end;
use crate::run::server::Server;
use crate::store::{self, Unwritable};

/// The smoke cases take seconds; one that hangs must not hang the suite.
const CONFORMANCE_WITHIN: Duration = Duration::from_secs(120);

/// A trial start: the `ready` line, or why the contestant cannot take part.
pub fn try_start(
    ring: &Ring,
    contestant: &Contestant,
    program: &Path,
) -> Result<Result<Value, String>> {
    let stem = format!("trial/{}", contestant.name);
    let command = Server::command(contestant, program, &ring.server_cpus);
    let started = Server::start(
        &ring.launcher,
        &command,
        &ring.server_cpus,
        &ring.folder,
        &stem,
        &ring.interrupt,
    );
    let server = match started {
        Ok(server) => server,
        Err(error) if error.is::<Unwritable>() => return Err(error),
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let ready = server.ready.clone();
    let ended = server.stop();
    Ok(match ended.failure {
        Some(failure) => Err(failure),
        None => {
            store::remove(&ring.folder.path().join(format!("{stem}.server.stderr")));
            let _ = std::fs::remove_dir(ring.folder.path().join("trial"));
            Ok(ready)
        }
    })
}

/// The conformance smoke: nothing, or why the contestant cannot take part.
pub fn conform(
    ring: &Ring,
    conformance: &Path,
    contestant: &Contestant,
    program: &Path,
) -> Result<Option<String>> {
    let (log, stdout) = ring
        .folder
        .log(format!("conformance/{}.log", contestant.name))?;
    let (stderr_log, stderr) = ring
        .folder
        .log(format!("conformance/{}.stderr", contestant.name))?;
    let mut args = vec![
        "--smoke".to_owned(),
        "--".to_owned(),
        program.display().to_string(),
    ];
    args.extend(contestant.args.iter().cloned());
    let process = ring
        .launcher
        .start(conformance, &args, &CpuSet::allowed()?, stdout, stderr)?;
    let status = run_to_end(
        process,
        Instant::now() + CONFORMANCE_WITHIN,
        &ring.interrupt,
    );
    store::remove_if_empty(&stderr_log);
    if ring.interrupt.is_set() {
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
        store::tail(stderr_log)
    } else {
        failed.join(" / ")
    }
}
