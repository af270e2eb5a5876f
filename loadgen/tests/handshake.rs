//! The opening handshake: what is sent is the user's, and what a server says is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use loadgen::report::Report;
use tungstenite::handshake::derive_accept_key;

use crate::support::*;

mod support;

#[test]
fn a_refusal_is_told_with_what_it_says() {
    for (answer, parts) in [
        (
            "HTTP/1.1 301 Moved Permanently\r\nLocation: ws://other/ws\r\nContent-Length: 0\r\n\r\n",
            ["Location: ws://other/ws", "the URL that it names"],
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\n\r\nlogin first\n",
            ["Basic realm=\"a\", body: login first", "Authorization"],
        ),
        (
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            ["Retry-After: 7", "--connect-rate"],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!doctype html>\n<html>",
            ["200 OK, body: <!doctype html>", "does not upgrade here"],
        ),
    ] {
        let record = record("echo -c 2 -d 5s", answering(answer));
        for part in parts {
            invalid_because(&record, part);
        }
    }
}

/// Waits until the client has read all that was written: its queue in `/proc/net/tcp` is empty.
fn wait_until_read(stream: &TcpStream) {
    let ports = [stream.peer_addr(), stream.local_addr()].map(|end| end.unwrap().port());
    let [client, server] = ports.map(|port| format!(":{port:04X}"));
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_read = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, local, remote, _, queues, ..] => {
            local.ends_with(&client) && remote.ends_with(&server) && queues.ends_with(":00000000")
        }
        _ => false,
    };
    while !fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .any(is_read)
    {
        assert!(Instant::now() < deadline, "the client does not read");
        // tidy: may sleep, a poll with a deadline.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_first_line_of_a_refusal_is_waited_for() {
    for keeps_open in [false, true] {
        let address = raw_server("127.0.0.1:0", move |_, mut stream| {
            read_head(&mut stream);
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
            wait_until_read(&stream);
            let _ = stream.write_all(b"no such thing");
            if keeps_open {
                // Without an end of the line or of the stream: told all the same.
                read_head(&mut stream);
            }
        });
        let record = record("echo -c 1 -d 5s", address.unwrap());
        invalid_because(&record, "400 Bad Request, body: no such thing");
    }
}

#[test]
fn host_is_the_users_and_the_record_says_so() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    let address = raw_server("127.0.0.1:0", move |_, mut stream| {
        let head = String::from_utf8(read_head(&mut stream)).unwrap();
        noted.lock().unwrap().push(head);
    });
    let record = record(
        "echo -c 1 -d 1s -H Host:chat.example -H Origin:http://a -H X-Secret:s",
        address.unwrap(),
    );
    let heads = heads.lock().unwrap();
    assert!(heads[0].contains("\r\nHost: chat.example\r\n"), "{heads:?}");
    assert!(heads[0].contains("\r\nX-Secret: s\r\n"), "{heads:?}");
    let options = record.options;
    assert_eq!(options.header_names, ["Host", "Origin", "X-Secret"]);
    let values: Vec<_> = options.header_values.into_iter().collect();
    let public = [("Host", "chat.example"), ("Origin", "http://a")];
    assert_eq!(
        values,
        public.map(|(name, value)| (name.into(), value.into()))
    );
}

/// An echo server whose connection `number` chooses what `choose` says.
fn choosing(choose: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    raw_server("127.0.0.1:0", move |number, mut stream| {
        let head = String::from_utf8(read_head(&mut stream)).unwrap();
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.unwrap().as_bytes());
        let chosen = choose(number)
            .map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"))
            .unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        let role = tungstenite::protocol::Role::Server;
        echo(Socket::from_raw_socket(stream, role, None), |_, _, _| false);
    })
    .unwrap()
}

#[test]
fn a_subprotocol_that_was_not_chosen_is_told_once_with_its_count() {
    let offered = "echo -c 6 -t 2 -d 100ms --warmup 0 --subprotocol chat --subprotocol soap";
    let record = record(
        offered,
        choosing(|number| (number % 3 == 0).then_some("soap")),
    );
    assert_eq!(record.connections.up, 6, "{:?}", record.validity);
    let told = record.connect.subprotocols.clone().unwrap();
    assert_eq!(
        (told.none, told.chosen["soap"], told.chosen.len()),
        (4, 2, 1)
    );
    let text = Report(&record).to_string();
    let line = "none of those offered (chat, soap) was chosen in 4 of 6 handshakes";
    assert_eq!(text.matches(line).count(), 1, "{text}");
}

#[test]
fn where_all_chose_or_none_was_offered_there_is_nothing_to_tell() {
    let all = record(
        "echo -c 2 -d 100ms --warmup 0 --subprotocol chat",
        choosing(|_| Some("chat")),
    );
    assert_eq!(all.connect.subprotocols.as_ref().unwrap().chosen["chat"], 2);
    assert!(!Report(&all).to_string().contains("subprotocol"));
    let none = record("echo -c 2 -d 100ms --warmup 0", choosing(|_| None));
    assert_eq!(none.connect.subprotocols, None);
}

// RFC 6455 section 4.1: answer-subprotocol
#[test]
fn a_subprotocol_that_was_not_offered_is_a_violation() {
    let record = record(
        "echo -c 2 -d 5s --subprotocol chat",
        choosing(|_| Some("soap")),
    );
    invalid_because(&record, "not offered (RFC 6455 section 4.1): soap");
}
