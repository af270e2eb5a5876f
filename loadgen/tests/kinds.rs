//! Broadcast, connect and idle runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

use support::{echo, echo_server, invalid_because, raw_server, record, room, server};
use tungstenite::Message;

#[test]
fn an_open_room_delivers_every_message_to_every_member() {
    for threads in [1, 2] {
        let args =
            format!("broadcast -c 7 --publishers 2 -t {threads} -r 200 -d 500ms --warmup 100ms");
        let record = record(&args, room(|_, _| false));
        let section = record.broadcast.as_ref().unwrap();
        assert_eq!(section.published, 100, "{:?}", record.validity);
        assert_eq!(section.deliveries_expected, 700);
        assert_eq!(section.deliveries, 700);
        assert_eq!(section.out_of_order, 0);
        assert_eq!(section.complete_messages, 100);
        let [first, median, last] = [
            &section.first_receiver,
            &section.median_receiver,
            &section.last_receiver,
        ]
        .map(|latency| latency.as_ref().unwrap());
        assert_eq!((first.count, median.count, last.count), (100, 100, 100));
        assert!(first.mean_ns <= median.mean_ns && median.mean_ns <= last.mean_ns);
        assert_eq!(record.latency_intended.as_ref().unwrap().count, 700);
        assert_eq!((record.messages.lost, record.messages.unsent), (0, 0));
    }
}

#[test]
fn a_closed_room_publishes_when_everybody_has_the_last_message() {
    for threads in [1, 2] {
        let args = format!(
            "broadcast -c 5 --publishers 2 --window 2 -t {threads} -d 500ms --warmup 100ms"
        );
        let record = record(&args, room(|_, _| false));
        let section = record.broadcast.as_ref().unwrap();
        assert!(section.published > 10, "{:?}", record.validity);
        assert_eq!(section.deliveries, 5 * section.published);
        assert_eq!(section.complete_messages, section.published);
        assert_eq!(record.littles_law.is_some(), threads == 1);
    }
}

#[test]
fn a_delivery_that_is_left_out_is_lost() {
    let record = record(
        "broadcast -c 4 -r 100 -d 300ms --warmup 0 --drain-timeout 200ms",
        room(|member, message| member == 2 && message == 10),
    );
    invalid_because(&record, "1 of 120 expected messages never came");
    assert_eq!(record.messages.lost, 1);
    assert_eq!(record.broadcast.unwrap().complete_messages, 29);
}

#[test]
fn members_that_swap_messages_are_noticed() {
    let held: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let numbers = AtomicU64::new(0);
    let address = server(move |_, socket| {
        echo(socket, |_, socket, message| {
            let mut held = held.lock().unwrap();
            match numbers.fetch_add(1, SeqCst) {
                10 => *held = Some(message.clone().into_data().to_vec()),
                _ => {
                    socket.send(message.clone()).unwrap();
                    if let Some(earlier) = held.take() {
                        socket.send(Message::binary(earlier)).unwrap();
                    }
                }
            }
            true
        });
    });
    let record = record("broadcast -c 1 -r 100 -d 300ms --warmup 0", address);
    invalid_because(&record, "reordered");
    assert_eq!(record.broadcast.unwrap().out_of_order, 1);
    assert_eq!(record.messages.lost, 0);
}

#[test]
fn an_invented_sequence_number_is_corruption() {
    let address = server(|_, socket| {
        echo(socket, |number, socket, message| {
            let mut bytes = message.clone().into_data().to_vec();
            if number == 10 {
                bytes[7] ^= 0x40;
            }
            socket.send(Message::binary(bytes)).unwrap();
            true
        });
    });
    let args = "broadcast -c 1 -r 100 -d 300ms --warmup 0 --drain-timeout 100ms";
    let record = record(args, address);
    invalid_because(&record, "corrupted");
    assert_eq!(record.messages.corrupted, 1);
}

#[test]
fn handshakes_are_counted_and_timed() {
    let record = record("connect -c 4 -t 2 -d 500ms --warmup 100ms", echo_server());
    assert!(record.is_valid(), "{:?}", record.validity);
    let connect = &record.connect;
    assert!(connect.completed > 20, "{connect:?}");
    assert_eq!(connect.failed, 0);
    let latency = connect.handshake_latency.as_ref().unwrap();
    assert!(latency.count.abs_diff(connect.completed) <= 8);
    assert!(connect.handshakes_per_s > 40.0);
    assert!(record.totals.handshakes > connect.completed);
}

/// Connection 0 gets its answer when others have come and gone: by then whatever the generator sent
/// too early would be there.
// RFC 6455 section 4.1: sends-handshake, waits-for-the-answer
#[test]
fn nothing_is_sent_before_the_answer() {
    let (others, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let early = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = early.clone();
    let address = raw_server("127.0.0.1:0", move |connection, stream| {
        if connection == 0 {
            let mut head = vec![0; 16 * 1024];
            let whole = loop {
                let len = stream.peek(&mut head).unwrap();
                let end = head[..len].windows(4).position(|four| four == b"\r\n\r\n");
                if let Some(end) = end {
                    break end + 4;
                }
            };
            gone.lock().unwrap().recv().unwrap();
            let len = stream.peek(&mut head).unwrap();
            seen.store(len - whole, SeqCst);
        }
        if let Ok(socket) = tungstenite::accept(stream) {
            echo(socket, |_, _, _| false);
        }
        if connection == 20 {
            let _ = others.send(());
        }
    })
    .unwrap();
    let record = record("connect -c 2 -t 1 -d 500ms --warmup 0", address);
    assert!(record.totals.handshakes > 20, "{:?}", record.validity);
    assert_eq!(early.load(SeqCst), 0, "bytes behind the request");
}

#[test]
fn a_connect_rate_is_kept() {
    let record = record(
        "connect -c 4 -d 500ms --warmup 0 --connect-rate 100",
        echo_server(),
    );
    let completed = record.connect.completed;
    assert!(
        (45..=51).contains(&completed),
        "{completed}: {:?}",
        record.validity
    );
}

/// Pings at once, and echoes.
fn pinging() -> SocketAddr {
    server(|_, mut socket| {
        socket.send(Message::Ping("here?".into())).unwrap();
        echo(socket, |_, _, _| false);
    })
}

// RFC 6455 section 5.5.2: ping-is-answered
#[test]
fn idle_connections_answer_pings_and_stay_up() {
    let record = record("idle -c 20 -t 2 -d 300ms --warmup 0", pinging());
    assert!(record.is_valid(), "{:?}", record.validity);
    let idle = record.idle.unwrap();
    assert_eq!((idle.held, idle.still_up, idle.active), (20, 20, 0));
    assert_eq!(idle.pings_answered, 20);
    assert_eq!(record.totals.sent, 0);
}

// RFC 6455 section 6.1: open-to-send
#[test]
fn a_ping_that_crosses_the_close_is_not_answered() {
    let address = server(|_, mut socket| {
        while !socket.read().unwrap().is_close() {}
        // The answer to the Close is still to be flushed.
        socket.get_mut().write_all(&[0x89, 0]).unwrap();
        let _ = socket.flush();
    });
    let record = record("idle -c 5 -d 100ms --warmup 0", address);
    assert!(record.is_valid(), "{:?}", record.validity);
    assert_eq!(record.totals.pings_answered, 0);
}

#[test]
fn a_part_of_the_idle_connections_can_be_active() {
    let record = record(
        "idle -c 20 --active 0.2 -r 200 -t 2 -d 500ms --warmup 0",
        pinging(),
    );
    assert_eq!(record.idle.unwrap().active, 4, "{:?}", record.validity);
    assert_eq!(record.messages.received, 100);
    assert_eq!(record.idle.unwrap().pings_answered, 20);
}

#[test]
fn an_idle_connection_that_is_closed_is_missed() {
    let record = record(
        "idle -c 3 -d 500ms --warmup 0 -t 1",
        server(|connection, mut socket| {
            if connection == 1 {
                // Up long enough for all three to be up: the others were accepted before or will be
                // in no time.
                let _ = socket.send(Message::Ping("last".into()));
                let _ = socket.read();
            } else {
                echo(socket, |_, _, _| false);
            }
        }),
    );
    assert!(!record.is_valid());
    let idle = record.idle.unwrap();
    assert_eq!(idle.still_up, 2, "{:?}", record.validity);
}
