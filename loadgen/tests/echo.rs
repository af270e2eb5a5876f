//! Echo runs against servers that are sound, slow or faulty in a known way.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use loadgen::{
    check::CheckName,
    histogram::Latencies,
    record::{Messages, Record, Verification},
    report::Report,
};
use support::{
    echo, echo_server, invalid_because, load, load_url, raw_server, record, server, server_at,
    tcp_echo_server,
};
use tungstenite::{
    Message,
    handshake::server::{Request, Response},
};

const MS: u64 = 1_000_000;

fn above(latencies: &Latencies, ms: u64) -> u64 {
    latencies.count_between(ms * MS, u64::MAX)
}

#[test]
fn a_closed_loop_is_valid_and_obeys_littles_law() {
    let record = record(
        "echo -c 8 --window 4 -t 2 -d 2s --warmup 200ms",
        echo_server(),
    );
    assert!(record.is_valid(), "{:?}", record.validity);
    assert_eq!(record.connections.up, 8);
    let messages = record.messages;
    assert!(messages.sent > 100);
    assert_eq!(messages.sent, messages.received);
    assert_eq!(
        Messages {
            sent: messages.sent,
            expected: messages.sent,
            received: messages.sent,
            received_payload_bytes: 64 * messages.sent,
            ..Messages::default()
        },
        messages
    );
    let law = record.littles_law.unwrap();
    assert_eq!(law.in_flight_expected, 32.0);
    assert!((law.ratio - 1.0).abs() < 0.02, "{law:?}");
    assert!(record.latency_intended.is_none());
    assert_eq!(record.latency_actual.unwrap().count, messages.sent);
    assert_eq!(record.totals.sent, record.totals.received);
    assert!(record.totals.sent > messages.sent, "the warm-up is extra");
    assert_eq!(record.connect.completed, 8);
    assert_eq!(record.generator.threads.len(), 2);
}

/// The server sees the frames, and what they add up to is what it sends back.
#[test]
fn a_message_in_frames_is_one_message_to_the_server_and_back() {
    let address = server(|_, mut socket| {
        socket.set_config(|config| config.max_frame_size = Some(300));
        echo(socket, |_, _, _| false);
    });
    let load = "echo -c 2 --window 2 -d 300ms --warmup 0 -s 1000";
    let split = record(&format!("{load} --fragments 4"), address);
    assert!(split.is_valid(), "{:?}", split.validity);
    assert_eq!(split.options.fragments, Some(4));
    let report = Report(&split).to_string();
    assert!(report.contains(", 1000 B in 4 frames"), "{report}");
    let whole = record(load, address);
    assert!(!whole.is_valid(), "the server takes no such frame");
}

#[test]
fn an_open_loop_sends_exactly_what_the_schedule_says() {
    let record = record("echo -c 5 -t 2 -r 1k -d 1s --warmup 100ms", echo_server());
    assert_eq!(record.messages.sent, 1_000, "{:?}", record.validity);
    assert_eq!(record.messages.received, 1_000);
    assert_eq!((record.messages.lost, record.messages.unsent), (0, 0));
    assert_eq!(record.latency_intended.as_ref().unwrap().count, 1_000);
    assert_eq!(record.latency_actual.as_ref().unwrap().count, 1_000);
    // Of the same messages, with no edges: however noisy the machine is.
    let law = record.littles_law.unwrap();
    assert!((law.ratio - 1.0).abs() < 0.005, "{law:?}");
    let in_series: u64 = record.series.iter().map(|second| second.sent).sum();
    assert_eq!(in_series, 1_000);
}

/// A server that answers nothing for 200 ms, once. At 500 messages per second 100 messages are due
/// in that time, and the one due `t` after its begin is answered `200 ms - t` late: 75 of them more
/// than 50 ms, 50 more than 100 ms, 25 more than 150 ms.
#[test]
fn a_stall_shows_in_the_intended_latency_as_computed_by_hand() {
    const RATE: u64 = 500;
    const STALL_MS: u64 = 200;
    for window in [1, 1_000] {
        let address = server(|_, socket| {
            echo(socket, |number, _, _| {
                if number == 300 {
                    // tidy: may sleep, a server that stalls.
                    thread::sleep(Duration::from_millis(STALL_MS));
                }
                false
            });
        });
        let run = load(
            &format!("echo -c 1 -r {RATE} --window {window} -d 1500ms --warmup 0"),
            address,
        );
        assert_eq!(
            run.record.messages.received, 750,
            "{:?}",
            run.record.validity
        );
        for threshold_ms in [50, 100, 150] {
            let expected = (STALL_MS - threshold_ms) * RATE / 1_000;
            let counted = above(&run.main, threshold_ms);
            // Never fewer; a few more when the machine stalls too.
            assert!(
                (expected - 1..=expected + 12).contains(&counted),
                "window {window}: {counted} above {threshold_ms} ms, expected {expected}"
            );
        }
        let actual = above(run.actual.as_ref().unwrap(), 100);
        match window {
            // The messages behind the stalled one were not sent before it was answered: that is the
            // omission.
            1 => assert!((1..=5).contains(&actual), "{actual}"),
            _ => assert!(actual >= 49, "{actual}"),
        }
    }
}

#[test]
fn faults_of_the_server_are_named() {
    type Fault = fn(&mut support::Socket, &Message, u64) -> bool;
    let drop_one: Fault = |_, _, number| number == 20;
    let twice: Fault = |socket, message, number| {
        if number == 20 {
            socket.send(message.clone()).unwrap();
        }
        false
    };
    let corrupt: Fault = |socket, message, number| {
        if number != 20 {
            return false;
        }
        let mut bytes = message.clone().into_data().to_vec();
        bytes[40] ^= 1;
        socket.send(Message::binary(bytes)).unwrap();
        true
    };
    let as_text: Fault = |socket, _, number| {
        if number != 20 {
            return false;
        }
        socket.send(Message::text("x".repeat(64))).unwrap();
        true
    };
    type Field = fn(&Messages) -> u64;
    let table: [(&str, Fault, Field); 4] = [
        ("lost", drop_one, |m| m.lost),
        ("duplicated", twice, |m| m.duplicated),
        ("corrupted", corrupt, |m| m.corrupted),
        ("corrupted", as_text, |m| m.corrupted),
    ];
    for (name, fault, field) in table {
        let address = server(move |connection, socket| {
            echo(socket, |number, socket, message| {
                connection == 0 && fault(socket, message, number)
            });
        });
        let record = record(
            "echo -c 2 -r 200 --window 4 -d 500ms --warmup 0 --drain-timeout 200ms",
            address,
        );
        invalid_because(&record, name);
        assert_eq!(field(&record.messages), 1, "{name}: {:?}", record.messages);
        let messages = record.messages;
        let others = messages.lost + messages.duplicated + messages.reordered + messages.corrupted;
        assert_eq!(others, 1, "{name}: {messages:?}");
    }
}

#[test]
fn a_wrong_byte_shows_wherever_a_large_message_was_cut() {
    const SIZE: usize = 300_000;
    for at in [20, 131_073, SIZE - 1] {
        let address = server(move |_, socket| {
            echo(socket, |number, socket, message| {
                let mut bytes = message.clone().into_data().to_vec();
                bytes[at] ^= u8::from(number == 1);
                socket.send(Message::binary(bytes)).unwrap();
                true
            });
        });
        let record = record(
            &format!("echo -c 2 -s {SIZE} -r 50 -d 200ms --warmup 0 --drain-timeout 5s"),
            address,
        );
        let messages = record.messages;
        assert_eq!(messages.corrupted, 2, "{at}: {messages:?}");
        assert_eq!(messages.received, messages.sent - 2, "{at}: {messages:?}");
    }
}

#[test]
fn a_swapped_pair_is_reordered_not_lost() {
    let address = server(|_, socket| {
        let mut held = None;
        echo(socket, move |number, socket, message| {
            if number == 20 {
                held = Some(message.clone());
                return true;
            }
            if let Some(held) = held.take() {
                socket.send(message.clone()).unwrap();
                socket.send(held).unwrap();
                return true;
            }
            false
        });
    });
    let record = record("echo -c 1 --window 4 -r 200 -d 500ms --warmup 0", address);
    invalid_because(&record, "reordered");
    assert_eq!(record.messages.reordered, 1);
    assert_eq!(record.messages.lost, 0);
    assert_eq!(record.messages.received, 100);
}

#[test]
fn a_lost_reply_breaks_littles_law_in_a_closed_loop() {
    let address = server(|connection, socket| {
        echo(socket, |number, _, _| connection == 0 && number == 20);
    });
    let record = record(
        "echo -c 2 -d 600ms --warmup 0 --drain-timeout 100ms",
        address,
    );
    invalid_because(&record, "lost");
    invalid_because(&record, "Little's law");
}

#[test]
fn a_server_that_is_too_slow_leaves_messages_unsent() {
    let address = server(|_, socket| {
        echo(socket, |_, _, _| {
            // tidy: may sleep, a server that answers 50 messages per second.
            thread::sleep(Duration::from_millis(20));
            false
        });
    });
    let record = record(
        "echo -c 1 -r 500 -d 500ms --warmup 0 --drain-timeout 100ms",
        address,
    );
    invalid_because(&record, "never sent");
    assert!(record.messages.unsent > 100);
    assert!(record.messages.delayed_by_window > 100);
}

#[test]
fn a_backlog_that_outlives_the_drain_is_unsent_not_lost() {
    let address = server(|_, socket| {
        echo(socket, |_, _, _| {
            // tidy: may sleep, a server that answers 200 messages per second.
            thread::sleep(Duration::from_millis(5));
            false
        });
    });
    let record = record(
        "echo -c 4 -r 4000 -d 500ms --warmup 0 --drain-timeout 500ms",
        address,
    );
    assert!(record.messages.unsent > 100);
    assert_eq!(record.messages.lost, 0, "{:?}", record.validity);
}

// RFC 6455 section 7.2.1: transport-lost
#[test]
fn a_server_that_dies_leaves_what_was_recorded() {
    let address = server(|_, socket| {
        let stream = socket.get_ref().try_clone().unwrap();
        echo(socket, |number, _, _| {
            if number == 50 {
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            }
            false
        });
    });
    let record = record("echo -c 4 -r 800 -d 20s --warmup 0", address);
    invalid_because(&record, "4 of 4 connections were closed");
    assert_eq!(record.connections.closed_early, 4);
    assert!(record.messages.received >= 200, "{:?}", record.messages);
    assert!(record.window_ns < 10_000 * MS, "the run ended early");
    assert!(record.latency().unwrap().count >= 200);
}

// RFC 6455 section 5.1: masked-closes
// RFC 6455 section 7.1.7: client-fails
#[test]
fn a_server_that_breaks_the_protocol_is_told_and_left() {
    for (frame, section) in [
        (&[0x82, 0x80, 1, 2, 3, 4][..], "5.1"),
        (&[0xC2, 0], "5.2"),
        (&[0x80, 0], "5.4"),
    ] {
        let (told, heard) = mpsc::channel();
        let address = server(move |_, mut socket| {
            let _ = socket.get_mut().write_all(frame);
            let mut closed = None;
            while let Ok(message) = socket.read() {
                if let Message::Close(Some(close)) = message {
                    closed = Some(u16::from(close.code));
                }
            }
            let _ = told.send(closed);
        });
        let record = record("echo -c 1 -d 20s --warmup 0", address);
        invalid_because(&record, &format!("broke RFC 6455 section {section}"));
        assert_eq!(heard.recv().unwrap(), Some(1002), "{section}");
    }
}

#[test]
fn a_server_that_says_goodbye_is_quoted() {
    let address = server(|_, socket| {
        echo(socket, |number, socket, _| {
            if number == 10 {
                let frame = tungstenite::protocol::CloseFrame {
                    code: tungstenite::protocol::frame::coding::CloseCode::Away,
                    reason: "maintenance".into(),
                };
                socket.close(Some(frame)).unwrap();
            }
            number >= 10
        });
    });
    let record = record("echo -c 1 -d 20s --warmup 0", address);
    invalid_because(&record, "code 1001 (maintenance)");
}

#[test]
fn every_size_makes_the_trip() {
    for (size, verification) in [
        (0, Verification::Count),
        (1, Verification::TruncatedSequence),
        (7, Verification::TruncatedSequence),
        (8, Verification::Sequence),
        (16, Verification::Full),
        (126, Verification::Full),
        (70_000, Verification::Full),
        (300_000, Verification::Full),
    ] {
        let record = record(
            &format!("echo -c 2 --window 3 -s {size} -d 150ms --warmup 0 --drain-timeout 5s"),
            echo_server(),
        );
        let messages = record.messages;
        assert!(messages.received > 0, "{size}: {:?}", record.validity);
        let faults = messages.lost + messages.duplicated + messages.reordered + messages.corrupted;
        assert_eq!(faults, 0, "{size}: {messages:?}");
        assert_eq!(record.options.verification, verification);
    }
}

#[test]
fn a_greeting_is_noted_but_not_counted() {
    let address = server(|_, mut socket| {
        socket.send(Message::text("welcome")).unwrap();
        echo(socket, |_, _, _| false);
    });
    let record = record("echo -c 2 -d 200ms --warmup 0", address);
    assert_eq!(record.messages.unsolicited, 2);
    assert_eq!(record.messages.corrupted, 0, "{:?}", record.validity);
}

#[test]
fn ipv6_works_where_there_is_one() {
    match server_at("[::1]:0", |_, socket| echo(socket, |_, _, _| false)) {
        Ok(address) => {
            let record = record("echo -c 2 -d 100ms --warmup 0", address);
            assert!(record.messages.received > 0, "{:?}", record.validity);
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a run to ::1, which is not here"
            );
        }
    }
}

#[test]
fn many_source_addresses_are_used() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let noted = seen.clone();
    let address = server(move |_, socket| {
        let peer = socket.get_ref().peer_addr().unwrap().ip();
        noted.lock().unwrap().insert(peer.to_string());
        echo(socket, |_, _, _| false);
    });
    let record = record(
        "echo -c 6 -d 100ms --warmup 0 --source-ips 127.0.0.5,127.0.0.6",
        address,
    );
    assert_eq!(record.options.source_ips, ["127.0.0.5", "127.0.0.6"]);
    let seen: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
    assert_eq!(seen, ["127.0.0.5", "127.0.0.6"]);
}

#[test]
fn raw_tcp_is_verified_like_a_websocket() {
    let address = tcp_echo_server(|_| {});
    for args in [
        "echo -c 4 --window 8 -t 2 -d 500ms --warmup 100ms",
        "echo -c 4 -s 9k -r 1k -d 500ms --warmup 100ms",
    ] {
        let on_time = Instant::now() + Duration::from_secs(60);
        loop {
            let record = load_url(args, &format!("tcp://{address}")).record;
            assert_eq!(record.connect.completed, 4);
            assert_eq!(record.messages.received, record.messages.sent);
            // What else runs on the machine may keep the generator from its CPU: then another run
            // shows it.
            if was_kept_from_its_cpu(&record) && Instant::now() < on_time {
                continue;
            }
            assert!(record.is_valid(), "{:?}", record.validity);
            assert!(record.messages.received > 100);
            break;
        }
    }
}

/// The machine, and not the server, made the run invalid.
fn was_kept_from_its_cpu(record: &Record) -> bool {
    record.validity.faults().any(|check| {
        matches!(
            check.name,
            CheckName::GeneratorStall | CheckName::GeneratorLagP50 | CheckName::GeneratorLagP99
        )
    })
}

#[test]
fn raw_tcp_that_changes_bytes_is_found_out() {
    // Payload bytes only: headers of 64-byte messages are two bytes before sequence number, stream
    // and run.
    let address = tcp_echo_server(|bytes| {
        if let Some(byte) = bytes.get_mut(40) {
            *byte ^= 1;
        }
    });
    let args = "echo -c 2 -d 300ms --warmup 0s --drain-timeout 100ms";
    let record = load_url(args, &format!("tcp://{address}")).record;
    assert!(record.messages.corrupted > 0);
    invalid_because(&record, "wrong content");
    // A header that no server would send.
    let address = tcp_echo_server(|bytes| bytes[0] = 0xff);
    let record = load_url(args, &format!("tcp://{address}")).record;
    assert!(!record.is_valid() && record.connections.closed_early > 0);
}

/// Connections that the server works for answer late, the others at once: the run tells them apart,
/// and counts exactly what the shares say.
#[test]
fn connections_that_are_not_hot_are_recorded_apart() {
    let hot_messages = Arc::new(AtomicU64::new(0));
    let counted = hot_messages.clone();
    let address = raw_server("127.0.0.1:0", move |_, stream| {
        let mut is_hot = true;
        #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let read = |request: &Request, response: Response| {
            is_hot = request.uri().query() != Some("work=0");
            Ok(response)
        };
        let Ok(socket) = tungstenite::accept_hdr(stream, read) else {
            return;
        };
        echo(socket, |_, _, _| {
            if is_hot {
                counted.fetch_add(1, SeqCst);
                // tidy: may sleep, a server that works.
                thread::sleep(Duration::from_millis(5));
            }
            false
        });
    })
    .unwrap();
    let run = load(
        "echo -c 10 -t 2 -r 200 --window 1k -d 1s --warmup 0 --hot 0.2 --hot-share 0.75",
        address,
    );
    let record = &run.record;
    let messages = record.messages;
    assert_eq!(
        (messages.received, messages.lost, messages.unsent),
        (200, 0, 0)
    );
    assert_eq!(
        (record.options.hot_connections, record.options.hot_share),
        (Some(2), Some(0.75))
    );
    let others = record.latency_others.as_ref().unwrap();
    // Each of the two threads rounds once.
    let hot = hot_messages.load(SeqCst);
    assert!((149..=151).contains(&hot), "{hot}");
    assert_eq!(others.count, 200 - hot);
    assert_eq!(record.latency_intended.as_ref().unwrap().count, 200);
    // Whatever the machine does, all that took less than the work are messages of the others.
    assert!(others.count >= 200 - above(&run.main, 5), "{others:?}");
    assert_eq!(run.others.as_ref().unwrap().len(), others.count);
    let plain = support::record("echo -c 2 -r 100 -d 100ms --warmup 0", echo_server());
    assert!(plain.latency_others.is_none() && plain.options.hot_connections.is_none());
}

/// Messages of two sizes, each on its connections, over WebSocket and over raw TCP: both are
/// verified, and what the connections ask for is the same.
#[test]
fn hot_connections_may_have_messages_of_their_own_size() {
    let large_messages = Arc::new(AtomicU64::new(0));
    let counted = large_messages.clone();
    let address = raw_server("127.0.0.1:0", move |_, stream| {
        let mut query = None;
        #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let read = |request: &Request, response: Response| {
            query = request.uri().query().map(str::to_owned);
            Ok(response)
        };
        let Ok(socket) = tungstenite::accept_hdr(stream, read) else {
            return;
        };
        assert_eq!(query, None);
        echo(socket, |_, _, message| {
            counted.fetch_add((message.len() == 20_000).into(), SeqCst);
            false
        });
    })
    .unwrap();
    let args = "echo -c 10 -t 2 -r 200 --window 1k -d 1s --warmup 0 --hot 0.2 --hot-share 0.25 \
                --hot-size 20000";
    let tcp = format!("tcp://{}", tcp_echo_server(|_| ()));
    for url in [format!("ws://{address}/"), tcp] {
        let record = load_url(args, &url).record;
        let messages = record.messages;
        let faults = (messages.lost, messages.unsent, messages.corrupted);
        assert_eq!((messages.received, faults), (200, (0, 0, 0)), "{url}");
        assert_eq!(record.options.hot_size_bytes, Some(20_000));
        let others = record.latency_others.as_ref().unwrap().count;
        // Each of the two threads rounds once.
        assert!((149..=151).contains(&others), "{others}");
        let large = 200 - others;
        assert_eq!(
            messages.received_payload_bytes,
            others * 64 + large * 20_000
        );
        if url.starts_with("ws") {
            assert_eq!(large_messages.load(SeqCst), large);
        }
        let report = Report(&record).to_string();
        assert!(
            report.contains("25% of the messages, of 20000 B"),
            "{report}"
        );
    }
}
