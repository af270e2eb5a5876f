//! IPv6 beyond `::1`: link-local targets, and sources for more connections than one address has
//! ports. Each test runs itself once more in a network namespace, where it may add addresses.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
};

use clap::Parser;
use loadgen::{cli::Cli, plan, preflight};

use crate::support::*;

/// Says that this process is the one in the namespace.
const INSIDE: &str = "RINGSIDE_TEST_NAMESPACE";

/// Runs the test `name` in a network namespace of its own; true in there. Without the right to make
/// one it fails in CI, and is skipped elsewhere.
fn in_a_namespace(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        return true;
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        assert!(
            env::var_os("CI").is_none(),
            "no network namespace can be made (unshare, as root or with user namespaces)"
        );
        eprintln!("skipped: no network namespace can be made");
        return false;
    };
    let mut inside = Command::new("unshare");
    inside.args(*way).arg(env::current_exe().unwrap());
    inside
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "");
    let output = inside.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    false
}

/// What a shell command prints.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn link_local_targets_name_their_interface() {
    if !in_a_namespace("link_local_targets_name_their_interface") {
        return;
    }
    sh("ip -6 addr add fe80::1/64 dev lo && ip -6 addr add fe80::2/64 dev lo");
    let address = server_at("[fe80::1%1]:0", |_, socket| echo(socket, |_, _, _| false)).unwrap();
    let port = address.port();
    for zone in ["%25lo", "%lo", "%251", "%1"] {
        for source in ["", "--source-ips fe80::2"] {
            let args = format!("echo -c 2 -d 100ms --warmup 0 {source}");
            let record = load_url(&args, &format!("ws://[fe80::1{zone}]:{port}/")).record;
            assert_eq!(record.connections.up, 2, "{zone} {source}: {record:?}");
            assert!(record.messages.received > 0, "{zone} {source}");
        }
    }
}

/// The advice beyond one address's ports, word for word as printed.
#[test]
fn the_advice_on_ipv6_sources_works_when_followed() {
    if !in_a_namespace("the_advice_on_ipv6_sources_works_when_followed") {
        return;
    }
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = seen.clone();
    let address = server_at("[::1]:0", move |_, socket| {
        let peer = socket.get_ref().peer_addr().unwrap().ip();
        noted.lock().unwrap().insert(peer);
        echo(socket, |_, _, _| false);
    });
    let address = address.unwrap();
    let refusal = planned("echo -c 30k", address).unwrap_err();
    let quoted: Vec<&str> = refusal.split('`').collect();
    let [_, command, _, option, _] = quoted[..] else {
        panic!("two commands are quoted: {refusal}")
    };
    sh(command);
    let option = sh(&format!("echo {option}"));
    let most_per_source = planned(&format!("echo -c 30k {option}"), address).unwrap();
    assert!(most_per_source <= plan::PER_TRIPLE, "{most_per_source}");
    let record = record(&format!("echo -c 12 -d 100ms --warmup 0 {option}"), address);
    assert_eq!(record.connections.up, 12, "{:?}", record.validity);
    let expected = ["fd00::1", "fd00::2", "fd00::3"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from(expected));
}

/// Most connections of a plan from one source address.
fn planned(args: &str, address: SocketAddr) -> Result<u64, String> {
    let line = format!("loadgen {args} ws://{address}/");
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    let config = cli.check().unwrap().0;
    Ok(preflight::plan(&config, &[address.into()])?.most_per_source)
}
