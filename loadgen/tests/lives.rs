//! Kind `connect` with messages, and on a schedule.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use support::{echo, echo_server, invalid_because, raw_server, record, server};
use tungstenite::Message;

#[test]
fn each_life_has_its_messages_and_no_more() {
    let counts: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = counts.clone();
    let address = server(move |_, socket| {
        let mut messages = 0;
        echo(socket, |_, _, _| {
            messages += 1;
            false
        });
        seen.lock().unwrap().push(messages);
    });
    for (size, threads) in [(64, 1), (16, 2), (3, 1), (0, 1)] {
        counts.lock().unwrap().clear();
        let args = format!("connect -c 4 -t {threads} --messages 3 -s {size} -d 300ms --warmup 0");
        let record = record(&args, address);
        assert!(record.is_valid(), "{:?}", record.validity);
        let lives = record.connect.lives.unwrap();
        assert_eq!(lives.messages, 3);
        assert!(lives.completed > 3, "{lives:?}");
        let messages = &record.messages;
        assert!(messages.received >= 3 * lives.completed, "{messages:?}");
        assert!(messages.sent <= 3 * record.totals.handshakes);
        assert_eq!((messages.lost, messages.duplicated), (0, 0));
        assert_eq!(record.latency_actual.unwrap().count, messages.received);
        assert_eq!(record.options.messages_per_connection, Some(3));
        assert_eq!(record.connect.schedule, None);
        let counts = counts.lock().unwrap();
        assert!(counts.iter().all(|messages| *messages <= 3), "{counts:?}");
        // The end of the run cuts the lives of those that are up.
        let cut = counts.iter().filter(|messages| **messages < 3).count();
        assert!(cut <= 4, "{counts:?}");
    }
}

#[test]
fn a_life_that_the_server_ends_is_lost_and_no_life() {
    let address = server(|connection, socket| {
        let mut left = if connection == 10 { 2 } else { u64::MAX };
        echo(socket, |_, socket, _| {
            left -= 1;
            if left == 0 {
                let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
            }
            false
        });
    });
    let args = "connect -c 2 -t 1 --messages 3 -d 500ms --warmup 0";
    let record = record(args, address);
    invalid_because(&record, "1 of 2 connections were closed before the end");
    assert_eq!(record.messages.lost, 1, "the one that was in flight");
    let lives = record.connect.lives.unwrap().completed;
    assert!(lives > 10 && lives < record.connect.completed, "{lives}");
}

#[test]
fn a_close_without_an_answer_is_no_end_of_a_life() {
    let address = server(|_, mut socket| {
        while let Ok(message) = socket.read() {
            if message.is_close() || socket.send(message).is_err() {
                let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    });
    let record = record("connect -c 2 --messages 1 -d 200ms --warmup 0", address);
    invalid_because(&record, "without an answer to the Close frame");
    assert_eq!(record.connect.lives.unwrap().completed, 0);
    assert!(record.connect.completed > 2, "{:?}", record.connect);
}

#[test]
fn wrong_content_and_second_replies_are_found_in_lives_too() {
    let address = server(|connection, socket| {
        echo(socket, |number, socket, message| {
            let mut bytes = message.clone().into_data().to_vec();
            match (connection, number) {
                (3, 1) => bytes[40] ^= 1,
                (5, 0) => socket.send(message.clone()).unwrap(),
                _ => {}
            }
            socket.send(Message::binary(bytes)).is_ok()
        });
    });
    let args = "connect -c 1 --messages 2 -d 500ms --warmup 0";
    let record = record(args, address);
    invalid_because(&record, "1 messages had wrong content");
    invalid_because(&record, "1 messages came twice");
    assert!(record.connect.lives.unwrap().completed > 5);
}

#[test]
fn a_schedule_begins_connections_and_counts_from_when_it_meant_to() {
    for messages in [0, 2] {
        let args =
            format!("connect -c 8 -t 2 -r 200 --messages {messages} -d 500ms --warmup 100ms");
        let record = record(&args, echo_server());
        let schedule = record.connect.schedule.unwrap();
        assert_eq!((schedule.due, schedule.missing), (100, 0), "{schedule:?}");
        let intended = record.connect.handshake_latency_intended.unwrap();
        let actual = record.connect.handshake_latency.unwrap();
        assert_eq!((intended.count, actual.count), (100, 100));
        assert!(intended.mean_ns >= actual.mean_ns);
        assert!(intended.max_ns >= actual.max_ns);
        assert!(record.generator.schedule_lag.is_some());
        assert_eq!(record.connect.lives.is_some(), messages > 0);
        assert_eq!((record.messages.lost, record.messages.unsent), (0, 0));
    }
}

/// Answers no handshake for `stall` after the first connection was accepted.
fn stalling(stall: Duration) -> SocketAddr {
    raw_server("127.0.0.1:0", move |connection, stream| {
        if connection == 0 {
            // tidy: may sleep, the stall is what is measured; nothing waits for its length.
            thread::sleep(stall);
        }
        if let Ok(socket) = tungstenite::accept(stream) {
            echo(socket, |_, _, _| false);
        }
    })
    .unwrap()
}

/// With one place a stall of the first handshake keeps all others waiting. Of 20 that are due
/// meanwhile, one every 10 ms, each waits for what is left of it: all bounds below are lower ones,
/// true on a machine of any speed.
#[test]
fn a_stall_is_charged_to_all_that_came_meanwhile() {
    let address = stalling(Duration::from_millis(200));
    let record = record(
        "connect -c 1 -r 100 --messages 1 -d 400ms --warmup 0",
        address,
    );
    let schedule = record.connect.schedule.unwrap();
    assert_eq!((schedule.due, schedule.missing), (40, 0), "{schedule:?}");
    assert!(schedule.delayed >= 19, "{schedule:?}");
    let intended = record.connect.handshake_latency_intended.unwrap();
    let actual = record.connect.handshake_latency.unwrap();
    assert_eq!((intended.count, actual.count), (40, 40));
    assert!(intended.max_ns >= 200_000_000, "{intended:?}");
    // 190 + 180 + ... + 10 ms, over 40.
    let waited_ns = intended.mean_ns - actual.mean_ns;
    assert!(waited_ns >= 45e6, "{waited_ns}");
}

#[test]
fn one_that_is_never_answered_is_missing() {
    let (end, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let address = raw_server("127.0.0.1:0", move |connection, stream| {
        if connection == 3 {
            let _ = held.lock().unwrap().recv();
        } else if let Ok(socket) = tungstenite::accept(stream) {
            echo(socket, |_, _, _| false);
        }
    })
    .unwrap();
    let args = "connect -c 2 -t 1 -r 100 -d 200ms --warmup 0 --drain-timeout 300ms";
    let record = record(args, address);
    drop(end);
    invalid_because(&record, "1 of 20 connections were due but did not come up");
    assert_eq!(record.connect.handshake_latency.unwrap().count, 19);
}
