//! Targets that are Unix sockets.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::Command,
    thread,
};

use loadgen::record::Record;
use support::{echo, invalid_because, load_url};

/// Gives every connection to `serve`, in the type for TCP that the other servers have.
fn server(path: &Path, serve: impl Fn(TcpStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(OwnedFd::from(stream).into()));
        }
    });
}

/// What was counted, not the verdict: on a busy machine the generator may be late.
#[track_caller]
fn all_came_back(record: &Record, connections: u64) {
    let messages = &record.messages;
    assert_eq!(record.connections.up, connections, "{:?}", record.validity);
    assert!(messages.received > 0, "{:?}", record.validity);
    let (lost, corrupted) = (messages.lost, messages.corrupted);
    assert_eq!((lost, corrupted), (0, 0), "{:?}", record.validity);
}

#[test]
fn websockets_and_bytes_are_echoed_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (ws, raw) = (folder.path().join("ws"), folder.path().join("raw"));
    server(&ws, |stream| {
        echo(tungstenite::accept(stream).unwrap(), |_, _, _| false)
    });
    server(&raw, |mut stream| {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..len]).is_err() {
                return;
            }
        }
    });
    for url in [
        format!("ws+unix:{}:/ws", ws.display()),
        format!("tcp+unix:{}", raw.display()),
    ] {
        let args = "echo -c 4 -d 200ms --warmup 0s --window 4 -q";
        let record = load_url(args, &url).record;
        all_came_back(&record, 4);
        assert!(record.options.source_ips.is_empty(), "{url}");
    }
}

/// Each process connects to the path by itself.
#[test]
fn processes_share_the_connections_to_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    server(&folder.path().join("ws"), |stream| {
        echo(tungstenite::accept(stream).unwrap(), |_, _, _| false)
    });
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .current_dir(&folder)
        .args("echo -c 6 --shards 2 -d 200ms --warmup 0s -q --format json".split(' '))
        .arg("ws+unix:ws:/ws")
        .output()
        .unwrap();
    let record: Record = serde_json::from_slice(&output.stdout).unwrap();
    all_came_back(&record, 6);
}

#[test]
fn a_path_without_a_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let url = format!("ws+unix:{}:/ws", path.display());
    let args = "echo -c 1 -d 100ms --warmup 0s -q";
    invalid_because(&load_url(args, &url).record, "is the path right");
    drop(UnixListener::bind(&path).unwrap());
    invalid_because(&load_url(args, &url).record, "no server listens there");
    let url = format!("ws+unix:{}:/ws", folder.path().display());
    invalid_because(&load_url(args, &url).record, "no server listens there");
}
