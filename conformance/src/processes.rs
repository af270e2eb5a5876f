//! `--processes`: to the outside several processes are one server, from the first line to the last,
//! however they end.

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Raw, eventually, upgrade_request};
use super::harness::{Exit, Server, Target};
use super::lifecycle::second_signal_ends;
use super::metrics::Metrics;
use super::usage::is_running;
use super::ws::Ws;

/// One `ready` line with everybody's pid, one address for all, connections for each, and one
/// `final` line with the sums.
pub fn several_processes_are_one_server(target: &Target) {
    // A hash spreads them: that one of three gets none of sixty happens once in ten thousand
    // million runs.
    const CLIENTS: usize = 60;
    let server = start(target, &["--drain-timeout", "60s"], 3);
    assert_eq!(server.ready["pid"], server.pid(), "{}", server.ready);
    assert_ne!(server.tcp().port(), 0);
    let mut clients: Vec<Ws> = (0..CLIENTS).map(|_| server.ws("/ws")).collect();
    for client in &mut clients {
        client.echo("1234567890");
    }
    let mut open = 0;
    for process in 0..3 {
        let own = eventually(server.patience, "every process answers", || {
            let metrics = Metrics::parse(&server.get("/metrics").body);
            (metrics.process == Some(process.to_string())).then_some(metrics)
        });
        let own = own.get("connections_open");
        assert!(own > 0, "process {process} got no connection");
        open += own;
    }
    assert_eq!(open, CLIENTS as u64);
    assert_eq!(server.get("/healthz").status, 200);
    server.signal(Signal::TERM);
    clients
        .into_iter()
        .for_each(|client| client.expect_close(1001));
    let pids = server.serving_pids();
    let last = server.wait().expect_clean();
    assert_eq!(last["drained_in_time"], true, "{last}");
    for key in [
        "handshakes",
        "messages_received",
        "messages_sent",
        "drained",
    ] {
        assert_eq!(last[key], CLIENTS, "{key}: {last}");
    }
    none_is_left(target, &pids);
}

/// Rooms do not span processes, so that nobody is put into half of one: 501, and the reason.
pub fn there_are_no_rooms_over_several_processes(target: &Target) {
    let server = start(target, &[], 2);
    let mut raw = server.raw();
    raw.send(upgrade_request("/broadcast/half", "").as_bytes());
    let refusal = raw.expect_error(501);
    assert!(refusal.body.contains("--processes"), "{refusal:?}");
}

/// `--max-connections` counts those of all processes: each has its share.
pub fn max_connections_is_shared_out(target: &Target) {
    const MOST: usize = 5;
    let server = start(target, &["--max-connections", "5"], 2);
    assert_eq!(server.ready["options"]["max_connections"], MOST);
    let mut open = Vec::new();
    eventually(server.patience, "all shares are taken", || {
        let mut raw = server.raw();
        raw.send(upgrade_request("/ws", "").as_bytes());
        let response = raw.response();
        assert!([101, 503].contains(&response.status), "{response:?}");
        if response.status == 101 {
            open.push(raw);
        }
        (open.len() == MOST).then_some(())
    });
    for _ in 0..20 {
        let mut raw = server.raw();
        raw.send(upgrade_request("/ws", "").as_bytes());
        raw.expect_error(503);
    }
    open.iter_mut().for_each(Raw::expect_alive);
}

/// A process that is killed ends the whole server: exit 1, a message that says which and how, and
/// nobody is left.
pub fn a_killed_process_ends_the_server(target: &Target) {
    let server = start(target, &[], 3);
    let pids = server.serving_pids();
    let mut clients: Vec<Raw> = (0..10).map(|_| server.upgraded("/ws")).collect();
    kill(pids[1], Signal::KILL);
    let exit = server.wait();
    expect_failure(&exit);
    assert!(exit.stderr.contains(&pids[1].to_string()), "{exit:?}");
    assert!(exit.stderr.contains("SIGKILL"), "{exit:?}");
    clients.iter_mut().for_each(|client| {
        client.hears_something_within(target.patience);
    });
    none_is_left(target, &pids);
}

/// So does one that is told to end behind its parent's back, though it ends well.
pub fn a_process_that_ends_by_itself_ends_the_server(target: &Target) {
    let server = start(target, &[], 2);
    let pids = server.serving_pids();
    kill(pids[0], Signal::TERM);
    let exit = server.wait();
    expect_failure(&exit);
    assert!(exit.stderr.contains(&pids[0].to_string()), "{exit:?}");
    none_is_left(target, &pids);
}

/// A child whose parent is gone before it begins does not serve.
pub fn a_child_without_its_parent_does_not_begin(target: &Target) {
    let told = format!("0,{},127.0.0.1:9", u32::MAX / 2);
    let exit = target.run_to_end(&["--processes", "2", "--child", &told]);
    expect_failure(&exit);
    assert!(exit.stdout.is_empty(), "{exit:?}");
}

/// A parent that is killed, and can do nothing about it, takes all along.
pub fn a_killed_parent_takes_all_along(target: &Target) {
    let server = start(target, &[], 3);
    let (pids, address) = (server.serving_pids(), server.tcp());
    let _client = server.upgraded("/ws");
    server.signal(Signal::KILL);
    assert_eq!(server.wait().status.code(), None);
    none_is_left(target, &pids);
    // The kernel takes a ring apart, and with it a socket that it accepts on, shortly after its
    // process.
    eventually(target.patience, "nobody listens any more", || {
        Raw::try_connect(address, target.patience).err()
    });
}

/// The second signal ends all processes at once, whatever they are still waiting for.
pub fn a_second_signal_ends_all_processes(target: &Target) {
    let server = start(target, &["--drain-timeout", "60s"], 2);
    let pids = server.serving_pids();
    second_signal_ends(server);
    none_is_left(target, &pids);
}

/// Nobody else gets in on the shared port, though `SO_REUSEPORT` would let them.
pub fn processes_do_not_share_with_a_second_server(target: &Target) {
    let server = start(target, &[], 2);
    let address = server.tcp().to_string();
    for processes in ["1", "2"] {
        let exit = target.run_to_end(&["--listen", &address, "--processes", processes]);
        expect_failure(&exit);
        assert!(exit.stderr.contains("in use"), "{exit:?}");
    }
    server.upgraded("/ws").expect_alive();
}

#[track_caller]
fn start(target: &Target, extra: &[&str], processes: usize) -> Server {
    let number = processes.to_string();
    let mut args = vec!["--processes", &number, "--workers", "1"];
    args.extend(extra);
    let server = target.start(&args);
    assert_eq!(server.ready["processes"], processes, "{}", server.ready);
    let mut pids = server.serving_pids();
    assert!(pids.iter().all(|&pid| is_running(pid)), "{}", server.ready);
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), processes, "{}", server.ready);
    assert!(!pids.contains(&server.pid()), "{}", server.ready);
    server
}

#[track_caller]
fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.unwrap_or_else(|| panic!("no process id"));
    kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal {pid:?}: {e}"));
}

#[track_caller]
fn expect_failure(exit: &Exit) {
    assert_eq!(exit.status.code(), Some(1), "{exit:?}");
    assert!(exit.stderr.contains("error: "), "{exit:?}");
    assert!(!exit.stderr.contains("panicked at"), "{exit:?}");
}

#[track_caller]
fn none_is_left(target: &Target, pids: &[u32]) {
    eventually(target.patience, "all processes have ended", || {
        (!pids.iter().any(|&pid| is_running(pid))).then_some(())
    });
}
