//! From the command line to the last line: what a server says, how it starts, how it drains, how it
//! ends.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Instant;

use rustix::process::Signal;

use super::client::{Address, Raw, eventually, upgrade_request};
use super::harness::{Exit, Server, Target};
use super::wire::{self, CLOSE, FIN, TEXT};
use super::ws::Ws;

/// Options every server has, as `--help` lists them.
const FLAGS: [&str; 14] = [
    "--listen",
    "--processes",
    "--workers",
    "--cpus",
    "--send-queue",
    "--slow-consumer",
    "--max-message",
    "--max-fragments",
    "--handshake-timeout",
    "--idle-timeout",
    "--max-connections",
    "--drain-timeout",
    "--handler-work-us",
    "--help",
];

/// The `ready` line says who serves where with what, and is true.
pub fn ready_line_is_complete_and_true(target: &Target) {
    let server = target.start(&["--workers", "3"]);
    let ready = &server.ready;
    assert_eq!(ready["event"], "ready", "{ready}");
    for key in ["server", "version", "runtime"] {
        assert!(
            ready[key].as_str().is_some_and(|value| !value.is_empty()),
            "{key}: {ready}"
        );
    }
    let binary = target
        .binary
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    assert_eq!(ready["server"], *binary, "{ready}");
    assert!(
        ready["runtime"]
            .as_str()
            .is_some_and(|r| r.contains(char::is_numeric)),
        "no runtime version: {ready}"
    );
    assert!(
        ready["flavor"].is_string() || ready["engine"].is_string(),
        "{ready}"
    );
    assert_eq!(ready["pid"], server.pid(), "{ready}");
    assert_eq!(ready["workers"], 3, "{ready}");
    assert!(ready["cpus"].is_array(), "{ready}");
    assert!(
        match &server.address {
            Address::Tcp(address) => address.ip().is_loopback() && address.port() != 0,
            Address::Unix(path) => path.exists(),
        },
        "{ready}"
    );
    for key in ["read_buffer_bytes", "mailbox_bytes", "open_files"] {
        assert!(
            ready["options"][key].as_u64() > Some(0),
            "options.{key}: {ready}"
        );
    }
    server.upgraded("/ws").expect_alive();
}

/// The `ready` line records the limits in force: the documented defaults, or what was asked for.
pub fn ready_line_records_the_options(target: &Target) {
    type Rows = [(&'static str, u64)];
    let check = |args: &[&str], policy: &str, rows: &Rows| {
        let server = target.start(args);
        let options = &server.ready["options"];
        assert_eq!(options["slow_consumer"], policy, "{options}");
        for (key, value) in rows {
            assert_eq!(options[key], *value, "{key}: {options}");
        }
    };
    let defaults: &Rows = &[
        ("send_queue_messages", 1024),
        ("send_queue_bytes", 64 << 20),
        ("max_message_bytes", 16 << 20),
        ("max_fragments", 65_536),
        ("handshake_timeout_ms", 10_000),
        ("idle_timeout_ms", 60_000),
        ("max_connections", 0),
        ("drain_timeout_ms", 5_000),
        ("handler_work_us", 0),
    ];
    check(&[], "close", defaults);
    let args = "--send-queue 7 --slow-consumer drop --max-message 128KiB --max-fragments 70000 --handshake-timeout 1500ms \
                --idle-timeout 2m --max-connections 11 --drain-timeout 3";
    let asked: &Rows = &[
        ("send_queue_messages", 7),
        ("max_message_bytes", 128 << 10),
        ("max_fragments", 70_000),
        ("handshake_timeout_ms", 1_500),
        ("idle_timeout_ms", 120_000),
        ("max_connections", 11),
        ("drain_timeout_ms", 3_000),
    ];
    check(&args.split_whitespace().collect::<Vec<_>>(), "drop", asked);
    for (size, bytes) in [("64k", 64_000), ("64kB", 64_000), ("64KiB", 65_536)] {
        let asked = [("max_message_bytes", bytes)];
        check(&["--max-message", size], "close", &asked);
    }
}

/// `--cpus` gives one worker per CPU named, and no thread leaves them.
pub fn cpus_confine_the_server(target: &Target) {
    let cpu = first_allowed_cpu("/proc/self/status");
    let server = target.start(&["--cpus", &cpu]);
    assert_eq!(server.ready["workers"], 1, "{}", server.ready);
    assert_eq!(server.ready["cpus"].to_string(), format!("[{cpu}]"));
    server.upgraded("/ws").expect_alive();
    for thread in server.thread_cpu_times().keys() {
        let path = format!("/proc/{thread}/status");
        assert_eq!(allowed_cpus(&path), cpu, "{path}");
    }
}

/// SIGTERM: exit 0 with one `final` line whose counters are what happened.
pub fn sigterm_ends_with_the_final_line(target: &Target) {
    ends_well_after(target, Signal::TERM);
}

/// SIGINT does the same.
pub fn sigint_ends_with_the_final_line(target: &Target) {
    ends_well_after(target, Signal::INT);
}

fn ends_well_after(target: &Target, signal: Signal) {
    let server = target.start(&[]);
    let mut client = server.ws("/ws");
    for _ in 0..3 {
        client.echo("1234567890");
    }
    client.close();
    server.signal(signal);
    let last = server.wait().expect_clean();
    for (key, value) in [
        ("messages_received", 3),
        ("messages_sent", 3),
        ("connections_accepted", 1),
    ] {
        assert_eq!(last[key], value, "{key}: {last}");
    }
    for key in ["bytes_received", "bytes_sent"] {
        assert!(last[key].as_u64() >= Some(30), "{key}: {last}");
    }
    for key in [
        "dropped",
        "slow_consumers_closed",
        "violations",
        "accept_errors",
        "refused",
    ] {
        assert_eq!(last[key], 0, "{key}: {last}");
    }
}

/// Drain: every connection gets 1001, and the server ends as soon as all have answered.
// RFC 6455 section 7.1.2: close-has-code
pub fn drain_closes_everyone_with_1001(target: &Target) {
    let server = target.start(&["--drain-timeout", "60s"]);
    let path = |i| {
        if i % 2 == 0 {
            "/ws".to_string()
        } else {
            format!("/broadcast/{}", i % 3)
        }
    };
    let mut clients: Vec<Ws> = (0..40).map(|i| server.ws(&path(i))).collect();
    clients[0].echo("before the end");
    server.signal(Signal::TERM);
    for client in clients {
        client.expect_close(1001);
    }
    let last = server.wait().expect_clean();
    assert_eq!(last["connections_accepted"], 40, "{last}");
}

/// Drain ends within `--drain-timeout` though a client never answers.
pub fn drain_does_not_wait_for_the_silent(target: &Target) {
    let server = target.start(&["--drain-timeout", "300ms"]);
    let mut silent = server.upgraded("/ws");
    let mut member = server.upgraded("/broadcast/silent");
    let start = Instant::now();
    server.signal(Signal::TERM);
    server.wait().expect_clean();
    assert!(
        start.elapsed().as_secs() < 5,
        "a drain of 300 ms took {:?}",
        start.elapsed()
    );
    silent.expect_close(1001);
    member.expect_close(1001);
}

/// Drain ends within `--drain-timeout` though clients read nothing and the server has much to send
/// them.
pub fn drain_does_not_wait_for_the_stuck(target: &Target) {
    let server = target.start(&[
        "--drain-timeout",
        "300ms",
        "--slow-consumer",
        "drop",
        "--send-queue",
        "100",
    ]);
    let mut stuck = server.upgraded_with_small_buffer("/ws");
    let member = server.upgraded_with_small_buffer("/broadcast/stuck");
    let mut sender = server.ws("/broadcast/stuck");
    let bytes = wire::binary(&vec![7; 1 << 20]);
    while stuck.send_until_stuck(&bytes, std::time::Duration::from_millis(200)) == bytes.len() {}
    for _ in 0..40 {
        sender.echo(tungstenite::Message::binary(vec![7; 1 << 20]));
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    server.wait().expect_clean();
    assert!(
        start.elapsed().as_secs() < 5,
        "a drain of 300 ms took {:?}",
        start.elapsed()
    );
    drop((stuck, member, sender));
}

/// Signals right behind each other are one request to end, as `timeout` sends them: they do not cut
/// the drain short.
pub fn signals_in_quick_succession_are_one(target: &Target) {
    let server = target.start(&["--drain-timeout", "60s"]);
    let mut client = server.upgraded("/ws");
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    let frame = client.frame();
    assert_eq!(frame.close_code(), Some(1001), "{frame:?}");
    client.send(&wire::masked(FIN | CLOSE, &1001u16.to_be_bytes()));
    client.expect_closed();
    drop(client);
    let last = server.wait().expect_clean();
    assert_eq!(last["drained_in_time"], true, "{last}");
}

/// A later signal does: the server ends at once, with 128 + the signal.
pub fn a_second_signal_ends_at_once(target: &Target) {
    second_signal_ends(target.start(&["--drain-timeout", "60s"]));
}

/// Signals a server that waits for its client to leave until it ends.
pub(super) fn second_signal_ends(server: Server) {
    let mut client = server.upgraded("/ws");
    server.signal(Signal::TERM);
    let frame = client.frame();
    assert_eq!(frame.close_code(), Some(1001), "{frame:?}");
    eventually(server.patience, "the server ends", || {
        server.signal(Signal::TERM);
        let wait = std::time::Duration::from_millis(50);
        client.hears_something_within(wait).then_some(())
    });
    let exit = server.wait();
    assert_eq!(exit.status.code(), Some(128 + 15), "{exit:?}");
}

/// Drain is not held up by a connection that has not finished its request.
pub fn drain_does_not_wait_for_handshakes(target: &Target) {
    let server = target.start(&["--drain-timeout", "60s", "--handshake-timeout", "60s"]);
    let mut silent = server.raw();
    let mut partial = server.raw();
    partial.send(b"GET /ws HTTP/1.1\r\nHost: conf");
    server.upgraded("/ws").expect_alive();
    server.signal(Signal::TERM);
    server.wait().expect_clean();
    for raw in [&mut silent, &mut partial] {
        raw.response_or_close();
    }
}

/// From the signal on nobody new is served, while those who are still closing may finish.
pub fn drain_accepts_nobody_new(target: &Target) {
    let server = target.start(&["--drain-timeout", "60s"]);
    let mut closing = server.upgraded("/ws");
    server.signal(Signal::TERM);
    let frame = closing.frame();
    assert_eq!(
        (frame.opcode(), frame.close_code()),
        (wire::CLOSE, Some(1001)),
        "{frame:?}"
    );
    eventually(server.patience, "new connections are turned away", || {
        let Ok(mut raw) = Raw::try_connect(&server.address, server.patience) else {
            return Some(());
        };
        raw.try_send(upgrade_request("/ws", "").as_bytes());
        match raw.response_or_close() {
            Some(response) if response.status == 101 => None,
            _ => Some(()),
        }
    });
    closing.send(&wire::close(1001, b""));
    closing.expect_closed();
    drop(closing);
    server.wait().expect_clean();
}

/// Replies to what was read before the signal leave before the 1001, none torn or out of order.
pub fn drain_sends_what_is_due_first(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let frames: Vec<u8> = (0..200)
        .flat_map(|i| wire::text(&format!("due {i}")))
        .collect();
    raw.send(&frames);
    raw.expect(TEXT, b"due 0");
    server.signal(Signal::TERM);
    let mut due = 1;
    loop {
        match raw.next_frame() {
            Some(frame) if frame.opcode() == TEXT => {
                assert_eq!(frame.payload, format!("due {due}").as_bytes());
                due += 1;
            }
            Some(frame) => {
                assert_eq!(
                    (frame.opcode(), frame.close_code()),
                    (wire::CLOSE, Some(1001)),
                    "{frame:?}"
                );
                break;
            }
            None => panic!("closed without 1001 after {due} replies"),
        }
    }
    raw.send(&wire::close(1001, b""));
    raw.expect_closed();
    drop(raw);
    server.wait().expect_clean();
}

/// An address that another program listens on: a clear message, exit code not 0, nothing on stdout.
pub fn address_in_use_is_a_clear_error(target: &Target) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("cannot bind: {e}"));
    let address = taken
        .local_addr()
        .unwrap_or_else(|e| panic!("no address: {e}"));
    in_use(
        target.run_to_end(&["--listen", &address.to_string()]),
        address.into(),
    );
}

/// A second server on the address of a first one is refused as well: they would share the
/// connections.
pub fn second_server_on_an_address_is_refused(target: &Target) {
    let server = target.start(&["--workers", "2"]);
    in_use(
        target.run_to_end(&["--workers", "2", "--listen", &server.address.to_string()]),
        server.address.clone(),
    );
    server.upgraded("/ws").expect_alive();
}

/// A server can be started again at once on the address it has just left with connections open.
pub fn restart_on_the_same_address(target: &Target) {
    let server = target.start(&[]);
    let clients: Vec<Ws> = (0..5).map(|_| server.ws("/ws")).collect();
    let address = server.address.clone();
    server.signal(Signal::TERM);
    for client in clients {
        client.expect_close(1001);
    }
    server.wait().expect_clean();
    let again = target.start_on(&address.to_string(), &[]);
    assert_eq!(again.address, address);
    again.upgraded("/ws").expect_alive();
}

/// Whether the kernel has an IPv6 loopback, `::1`; says on stderr that a case is skipped where it
/// has none, which a container may not have.
fn has_ipv6() -> bool {
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let has = addresses
        .lines()
        .any(|line| line.starts_with("00000000000000000000000000000001 "));
    if !has {
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: a case of IPv6: /proc/net/if_inet6 has no ::1"
        );
    }
    has
}

/// IPv6 addresses work like IPv4 ones (where the machine has IPv6).
pub fn listens_on_ipv6(target: &Target) {
    if !has_ipv6() {
        return;
    }
    let server = target.start_on("[::1]:0", &[]);
    assert!(server.tcp().is_ipv6(), "{}", server.ready);
    server.upgraded("/ws").expect_alive();
}

/// `--listen` twice: one port for both addresses where it was 0, every worker on each of them, both
/// on the `ready` line, and both closed by a drain.
pub fn listens_on_several_addresses(target: &Target) {
    let server = target.start_on(
        "127.0.0.1:0",
        &["--listen", "127.0.0.2:0", "--drain-timeout", "60s"],
    );
    let addresses = server.addresses();
    let port = server.tcp().port();
    assert_ne!(port, 0);
    let expected = [1, 2].map(|last| Address::Tcp(([127, 0, 0, last], port).into()));
    assert_eq!(addresses, expected, "{}", server.ready);
    assert_eq!(server.address, addresses[0], "{}", server.ready);
    // More than there are workers: on some machine each would meet a worker that does not listen.
    for address in addresses.iter().flat_map(|address| [address; 16]) {
        upgraded(address, target).expect_alive();
    }
    let mut closing = upgraded(&addresses[1], target);
    server.signal(Signal::TERM);
    let frame = closing.frame();
    assert_eq!(frame.close_code(), Some(1001), "{frame:?}");
    for address in addresses {
        eventually(server.patience, "no address takes connections", || {
            Raw::try_connect(&address, server.patience).err()
        });
    }
    closing.send(&wire::close(1001, b""));
    closing.expect_closed();
    server.wait().expect_clean();
}

/// `[::]` is both families, whatever the system's `bindv6only` says, and the `ready` line says so;
/// beside an IPv4 address it is IPv6 alone.
pub fn listens_on_both_families(target: &Target) {
    if !has_ipv6() {
        return;
    }
    let server = target.start_on("[::]:0", &[]);
    let port = server.tcp().port();
    let said: Vec<String> = server.addresses().iter().map(|a| a.to_string()).collect();
    assert_eq!(said, [format!("[::]:{port}"), format!("0.0.0.0:{port}")]);
    for ip in ["::1", "127.0.0.1", "127.0.0.2"] {
        let ip: IpAddr = ip.parse().unwrap_or_else(|e| panic!("{ip}: {e}"));
        upgraded(SocketAddr::new(ip, port), target).expect_alive();
    }
    let server = target.start_on("[::]:0", &["--listen", "127.0.0.1:0"]);
    let port = server.tcp().port();
    let said: Vec<String> = server.addresses().iter().map(|a| a.to_string()).collect();
    assert_eq!(said, [format!("[::]:{port}"), format!("127.0.0.1:{port}")]);
    upgraded(SocketAddr::from(([127, 0, 0, 1], port)), target).expect_alive();
    let elsewhere = Raw::try_connect(SocketAddr::from(([127, 0, 0, 2], port)), target.patience);
    assert!(elsewhere.is_err(), "{}", server.ready);
}

/// A port alone is 127.0.0.1; a name is all addresses that it has here.
pub fn listens_on_what_people_write(target: &Target) {
    for text in ["0", ":0"] {
        let server = target.start_on(text, &[]);
        assert_eq!(server.tcp().ip(), IpAddr::from([127, 0, 0, 1]));
        server.upgraded("/ws").expect_alive();
    }
    let server = target.start_on("localhost:0", &[]);
    let port = server.tcp().port();
    let resolved = ("localhost", port)
        .to_socket_addrs()
        .unwrap_or_else(|e| panic!("localhost has no address: {e}"));
    let is_here = |address: &SocketAddr| TcpListener::bind((address.ip(), 0)).is_ok();
    for address in resolved.filter(is_here) {
        assert!(
            server.addresses().contains(&address.into()),
            "{}",
            server.ready
        );
        upgraded(address, target).expect_alive();
    }
}

#[track_caller]
pub(super) fn upgraded(address: impl Into<Address>, target: &Target) -> Raw {
    let mut raw = Raw::connect(address, target.patience);
    raw.upgrade("/ws");
    raw
}

/// Unknown flags and impossible values: exit 2, the flag named on stderr, nothing on stdout.
pub fn bad_usage_exits_2(target: &Target) {
    for (line, named) in [
        ("--frobnicate", "--frobnicate"),
        ("stray", "stray"),
        ("--listen nowhere", "--listen"),
        ("--listen ::1:80", "[::1:80]"),
        ("--listen 127.0.0.1:99999", "65535"),
        ("--listen name.invalid:80", "name.invalid"),
        ("--workers many", "--workers"),
        ("--workers 0", "--workers"),
        ("--processes 0", "--processes"),
        ("--slow-consumer wait", "--slow-consumer"),
        ("--max-message 12q", "--max-message"),
        ("--idle-timeout soon", "--idle-timeout"),
        ("--drain-timeout 18446744073709549568", "--drain-timeout"),
        ("--send-queue 0", "--send-queue"),
        ("--cpus 100000", "--cpus"),
        ("--cpus 3-1", "--cpus"),
        ("--handler-work-us 1000001", "1000000"),
    ] {
        let exit = target.run_to_end(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(exit.status.code(), Some(2), "{line}: {exit:?}");
        assert!(exit.stderr.contains(named), "{line}: {exit:?}");
        assert!(exit.stdout.is_empty(), "{line}: {exit:?}");
    }
}

/// `--help` lists every option and exits 0; so does `--version`.
pub fn help_lists_every_option(target: &Target) {
    let exit = target.run_to_end(&["--help"]);
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
    let help = exit.stdout.join("\n");
    for flag in FLAGS {
        assert!(help.contains(flag), "{flag} is missing:\n{help}");
    }
    let exit = target.run_to_end(&["--version"]);
    assert_eq!(exit.status.code(), Some(0), "{exit:?}");
}

#[track_caller]
pub(super) fn in_use(exit: Exit, address: Address) {
    assert!(
        matches!(exit.status.code(), Some(code) if code != 0),
        "{exit:?}"
    );
    assert!(
        exit.stderr.contains(&address.to_string()),
        "the message does not name {address}: {exit:?}"
    );
    assert!(exit.stderr.to_lowercase().contains("in use"), "{exit:?}");
    assert!(!exit.stderr.contains("panicked at"), "{exit:?}");
    assert!(exit.stdout.is_empty(), "{exit:?}");
}

fn first_allowed_cpu(path: &str) -> String {
    let list = allowed_cpus(path);
    list.split([',', '-']).next().unwrap_or("0").to_string()
}

#[track_caller]
fn allowed_cpus(path: &str) -> String {
    let status =
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_string()
}
