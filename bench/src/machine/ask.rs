//! What other programs say, within a time limit: one that hangs must not hang the suite.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// They answer within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a program that has closed its output.
const POLL: Duration = Duration::from_millis(5);

/// What a program prints.
///
/// # Errors
/// Why there is no answer: it is not there, it failed, or it was ended at the time limit, which is
/// said on stderr too.
pub fn ask(program: &str, args: &[&str]) -> Result<String, String> {
    ask_within(LIMIT, program, args)
}

/// First line of what a program prints, if it is there and succeeds.
pub fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let answer = ask(program, args).ok()?;
    Some(answer.lines().next().unwrap_or_default().to_owned())
}

fn ask_within(limit: Duration, program: &str, args: &[&str]) -> Result<String, String> {
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it started ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (said, complained) = (read(child.stdout.take()), read(child.stderr.take()));
    let left = || deadline.saturating_duration_since(Instant::now());
    let answer = said.recv_timeout(left());
    let mut status = child.try_wait();
    while let (Ok(_), Ok(None)) = (&answer, &status) {
        if left().is_zero() {
            break;
        }
        thread::sleep(POLL);
        status = child.try_wait();
    }
    let (Ok(answer), Ok(Some(status))) = (answer, status) else {
        if let Some(group) = Pid::from_raw(child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        let late = format!("{program} did not answer within {limit:?} and was ended");
        eprintln!("{late}");
        return Err(late);
    };
    if status.success() {
        return Ok(answer);
    }
    let complaint = complained.recv_timeout(left()).unwrap_or_default();
    // `Error:` on a line of its own says nothing yet.
    let mut lines = complaint.lines();
    Err(match lines.find(|line| !line.ends_with(':')) {
        Some(line) => format!("{program}: {line}"),
        None => format!("{program} failed"),
    })
}

/// All that comes out of a pipe, once it is closed.
fn read(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        // Nobody waits for a program that was ended.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(limit_ms: u64, script: &str) -> Result<String, String> {
        ask_within(Duration::from_millis(limit_ms), "sh", &["-c", script])
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let begun = Instant::now();
        for script in ["sleep 60", "sleep 60 & wait", "exec >&- 2>&-; sleep 60"] {
            let late = shell(200, script).unwrap_err();
            assert_eq!(late, "sh did not answer within 200ms and was ended");
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn answers_are_whole_and_failures_say_why() {
        let whole = shell(20_000, "head -c 300000 /dev/zero | tr '\\0' x").unwrap();
        assert_eq!(whole.len(), 300_000);
        let failed = shell(20_000, "echo out; echo why >&2; exit 3").unwrap_err();
        assert_eq!(failed, "sh: why");
        let failed = shell(20_000, "echo Error: >&2; echo why >&2; exit 3").unwrap_err();
        assert_eq!(failed, "sh: why");
        assert_eq!(shell(20_000, "exit 3").unwrap_err(), "sh failed");
        let missing = ask("no-such-program", &[]).unwrap_err();
        assert!(
            missing.starts_with("no-such-program: No such file"),
            "{missing}"
        );
        assert_eq!(first_line("echo", &["a\nb"]).as_deref(), Some("a"));
    }
}
