//! `--listen unix:PATH`: the file at the path, and who is served there. What a connection gets is
//! the matter of all other cases, which run over Unix sockets too.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::client::{Address, Raw, eventually};
use super::harness::{Exit, Server, Target, new_socket_path};
use super::lifecycle::{in_use, upgraded};
use super::wire;

/// A path of the test's own, which is empty in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        Place(new_socket_path())
    }

    fn listen(&self) -> String {
        self.address().to_string()
    }

    fn address(&self) -> Address {
        Address::Unix(self.0.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Beside TCP: both are on the `ready` line, serve, have rooms in common, and are closed by a
/// drain.
pub fn serves_over_a_unix_socket_too(target: &Target) {
    let place = Place::new();
    let unix = place.listen();
    let options = ["--listen", &unix, "--drain-timeout", "60s"];
    let server = target.start_on("127.0.0.1:0", &options);
    let addresses = [server.tcp().into(), place.address()];
    assert_eq!(server.addresses(), addresses, "{}", server.ready);
    let mut members = addresses.clone().map(|address| {
        let mut member = Raw::connect(&address, server.patience);
        member.upgrade("/broadcast/both");
        member
    });
    for sender in 0..2 {
        members[sender].send(&wire::text("to all"));
        for member in &mut members {
            member.expect(wire::TEXT, b"to all");
        }
    }
    server.signal(Signal::TERM);
    for member in &mut members {
        let frame = member.frame();
        assert_eq!(frame.close_code(), Some(1001), "{frame:?}");
    }
    for address in &addresses {
        eventually(server.patience, "no address takes connections", || {
            Raw::try_connect(address, server.patience).err()
        });
    }
    for member in &mut members {
        member.send(&wire::close(1001, b""));
        member.expect_closed();
    }
    drop(members);
    let last = server.wait().expect_clean();
    assert_eq!(last["accept_errors"], 0, "{last}");
}

/// Each of the workers gets an equal share of the connections, which are made in a burst: all of
/// them work when all connections do.
pub fn workers_take_turns_on_a_unix_socket(target: &Target) {
    const WORKERS: usize = 4;
    /// Half of it is far more than a worker without a connection needs.
    const WORK_NS: u64 = 20_000_000;
    let place = Place::new();
    let number = WORKERS.to_string();
    let work = (WORK_NS / 1000).to_string();
    let options = ["--workers", &number, "--handler-work-us", &work];
    let server = target.start_on(&place.listen(), &options);
    let before = server.thread_cpu_times();
    let mut clients: Vec<_> = (0..WORKERS)
        .map(|_| upgraded(place.address(), target))
        .collect();
    for client in &mut clients {
        client.expect_alive();
    }
    let worked = server.thread_cpu_times().into_iter().filter(|(id, after)| {
        let spent = after.saturating_sub(before.get(id).copied().unwrap_or(0));
        spent >= WORK_NS / 2
    });
    let worked = worked.count();
    // The threads of a work-stealing runtime are not its workers.
    if server.ready["flavor"] != "multi" {
        assert_eq!(worked, WORKERS, "{}", server.ready);
    }
}

/// The file has the permissions that the umask leaves, a second server is refused while the first
/// one lives, and at the end the file is gone.
pub fn a_unix_socket_goes_with_its_server(target: &Target) {
    let place = Place::new();
    let server = start_with_umask(target, &place);
    let file = fs::symlink_metadata(&place.0).unwrap_or_else(|e| panic!("no file: {e}"));
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o750);
    in_use(
        target.run_to_end(&["--listen", &place.listen()]),
        place.address(),
    );
    server.upgraded("/ws").expect_alive();
    server.stop();
    assert!(!exists(&place.0), "the file is still there");
}

/// What a killed server leaves is in nobody's way.
pub fn a_dead_servers_socket_is_replaced(target: &Target) {
    let place = Place::new();
    let server = target.start_on(&place.listen(), &[]);
    server.signal(Signal::KILL);
    server.wait();
    assert!(exists(&place.0), "a killed server has removed its file");
    let successor = target.start_on(&place.listen(), &[]);
    successor.upgraded("/ws").expect_alive();
    // One that is bound, and does not listen yet or any more, is not ours to remove when it goes.
    let _ = fs::remove_file(&place.0);
    let other = UnixListener::bind(&place.0).unwrap_or_else(|e| panic!("cannot bind: {e}"));
    successor.stop();
    assert!(exists(&place.0), "the file of another server was removed");
    drop(other);
}

/// A file that is no socket stays, and so does one whose folder is missing or whose path is too
/// long for the kernel; the message names it.
pub fn what_is_no_socket_is_left_alone(target: &Target) {
    let place = Place::new();
    fs::write(&place.0, "mine").unwrap_or_else(|e| panic!("cannot write: {e}"));
    refused(&place.0, "no socket", target);
    assert_eq!(fs::read_to_string(&place.0).ok().as_deref(), Some("mine"));
    refused(&place.0.join("a.sock"), "where its folder would be", target);
    refused(&new_socket_path().join("a.sock"), "folder", target);
    refused(Path::new(&"x".repeat(108)), "107", target);
}

#[track_caller]
fn refused(path: &Path, hint: &str, target: &Target) {
    let exit: Exit = target.run_to_end(&["--listen", &format!("unix:{}", path.display())]);
    assert_eq!(exit.status.code(), Some(1), "{exit:?}");
    let named = exit.stderr.contains(&path.display().to_string());
    assert!(named && exit.stderr.contains(hint), "{hint}: {exit:?}");
    assert!(exit.stdout.is_empty(), "{exit:?}");
}

fn start_with_umask(target: &Target, place: &Place) -> Server {
    target.start_in_shell_on(&place.listen(), "umask 027", &[])
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
