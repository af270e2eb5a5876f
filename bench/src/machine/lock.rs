//! One referee per machine: two would measure each other's load. The kernel frees the lock when its
//! holder ends, however it ends. Nothing is written into the file and it is only read, so that all
//! users can share it.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::proc::{NS_PER_TICK, parse_field, stat_fields};

/// The same for all users: not their own folder for temporary files.
const FILE: &str = "/tmp/ringside.lock";
/// A variable that names another file: for tests only, which run side by side.
const FILE_OF_TESTS: &str = "RINGSIDE_LOCK";

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// When another referee has it, with its process id and the time it was started.
    pub fn take() -> Result<Self> {
        let file = std::env::var_os(FILE_OF_TESTS);
        Self::take_at(&file.map_or_else(|| PathBuf::from(FILE), PathBuf::from))
    }

    fn take_at(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot lock {}", path.display());
        let file = open(path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(file.metadata().with_context(cannot)?.ino());
                bail!(
                    "another referee is running on this machine{}: each would measure the other's load. Wait until it has ended, or end it",
                    holder.map_or_else(String::new, |(pid, since)| format!(
                        " (pid {pid}, since {})",
                        humantime::format_rfc3339_seconds(since)
                    ))
                )
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    match File::create_new(path) {
        // Another referee came first.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return File::open(path),
        made => made?,
    };
    fs::set_permissions(path, Permissions::from_mode(0o644))?;
    File::open(path)
}

/// Which process of our name has locked the file `inode`, and since when it lives.
fn holder(inode: u64) -> Option<(u32, SystemTime)> {
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pids = locks.lines().filter_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words[..] else {
            return None;
        };
        (file.rsplit(':').next()? == inode.to_string()).then_some(pid)
    });
    let mut ours = pids.filter(|pid| comm(pid) == comm("self"));
    let pid = ours.next_back()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat_fields(&stat)?.nth(19)?.parse().ok()?;
    let booted = parse_field(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    let since = Duration::from_secs(booted) + Duration::from_nanos(ticks * NS_PER_TICK);
    Some((pid.parse().ok()?, UNIX_EPOCH + since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_referee_is_told_who_the_first_is_and_the_lock_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take_at(&path).unwrap();
        let message = Lock::take_at(&path).unwrap_err().to_string();
        let own = format!(
            "another referee is running on this machine (pid {}, since 2",
            std::process::id()
        );
        assert!(message.starts_with(&own), "{message}");
        drop(first);
        let again = Lock::take_at(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "others may lock it too");
        drop(again);
        let nowhere = Lock::take_at(&dir.path().join("no/lock")).unwrap_err();
        assert!(
            format!("{nowhere:#}").contains("no/lock: No such file"),
            "{nowhere:#}"
        );
    }
}
