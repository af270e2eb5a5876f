//! Rooms: who gets what, in which order, and what a slow member costs the others.

use std::io::Write;
use std::time::{Duration, Instant};

use tungstenite::Message;

use super::client::{Raw, eventually};
use super::harness::{Server, Target};
use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};
use super::ws::Ws;

/// Longest time one message may take to the other members while one member reads nothing.
const UNDELAYED: Duration = Duration::from_secs(3);

/// Every member gets every message, the sender included, kind and payload kept.
pub fn every_member_gets_every_message(target: &Target) {
    let server = target.start(&[]);
    let mut members: Vec<Ws> = (0..5).map(|_| server.ws("/broadcast/lobby")).collect();
    for sender in 0..members.len() {
        for message in [
            Message::text(format!("from {sender}")),
            Message::binary(vec![sender as u8; 300]),
            Message::text(""),
        ] {
            members[sender].send(message.clone());
            for member in &mut members {
                member.expect(message.clone());
            }
        }
    }
}

/// Messages of all size classes, up to 1 MiB, reach all members.
pub fn messages_of_every_size(target: &Target) {
    let server = target.start(&[]);
    let mut sender = server.ws("/broadcast/sizes");
    let mut other = server.ws("/broadcast/sizes");
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        let message = Message::binary(super::frames::pattern(size));
        sender.send(message.clone());
        sender.expect(message.clone());
        other.expect(message);
    }
}

/// A room hears nothing of another, however similar its name, nor of `/ws`.
pub fn rooms_are_isolated(target: &Target) {
    let server = target.start(&[]);
    let rooms = ["a", "A", "b", "a.", "aa", "-"];
    let mut members: Vec<[Ws; 2]> = rooms
        .iter()
        .map(|room| [0, 1].map(|_| server.ws(&format!("/broadcast/{room}"))))
        .collect();
    let mut echo = server.ws("/ws");
    for (room, [sender, _]) in rooms.iter().zip(&mut members) {
        sender.send(Message::text(*room));
    }
    echo.echo("apart");
    for (room, pair) in rooms.iter().zip(&mut members) {
        for member in pair {
            member.expect(Message::text(*room));
            // Whatever else was on its way would come before this.
            member.send(Message::text(format!("end of {room}")));
        }
    }
    for (room, pair) in rooms.iter().zip(&mut members) {
        for member in pair {
            member.expect(Message::text(format!("end of {room}")));
            member.expect(Message::text(format!("end of {room}")));
        }
    }
}

/// Once a client has its 101 it is a member: it misses no message published from then on.
pub fn a_new_member_misses_nothing(target: &Target) {
    let server = target.start(&["--workers", "3"]);
    let mut sender = server.ws("/broadcast/door");
    for i in 0..100 {
        let mut member = server.ws("/broadcast/door");
        sender.send(Message::text(format!("hello {i}")));
        member.expect(Message::text(format!("hello {i}")));
        sender.expect(Message::text(format!("hello {i}")));
        if i % 2 == 0 {
            member.close();
        }
    }
}

/// Members that left, by a close or by a reset, hold nobody up; an empty room can be entered again.
pub fn members_come_and_go(target: &Target) {
    let server = target.start(&[]);
    let mut stays = server.ws("/broadcast/inn");
    for round in 0..10 {
        let polite = server.ws("/broadcast/inn");
        let rude = server.upgraded("/broadcast/inn");
        stays.send(Message::text(format!("{round}")));
        stays.expect(Message::text(format!("{round}")));
        polite_leave(polite, round);
        rude.reset();
        stays.send(Message::text("alone again"));
        stays.expect(Message::text("alone again"));
    }
    server.await_metric("connections_open", 1);
    stays.close();
    server.await_metric("connections_open", 0);
    server.ws("/broadcast/inn").echo("first in an empty room");
}

/// Four senders at once: every receiver sees each sender's messages complete and in order.
pub fn order_per_sender_for_every_receiver(target: &Target) {
    const SENDERS: usize = 4;
    const EACH: usize = 500;
    let server = target.start(&["--workers", "3"]);
    let members: Vec<Raw> = (0..8)
        .map(|_| server.upgraded("/broadcast/order"))
        .collect();
    let writers: Vec<_> = members.iter().take(SENDERS).map(Raw::writer).collect();
    std::thread::scope(|scope| {
        for (sender, mut writer) in writers.into_iter().enumerate() {
            scope.spawn(move || {
                for burst in 0..EACH / 10 {
                    let frames: Vec<u8> = (0..10)
                        .flat_map(|i| wire::text(&format!("{sender} {}", burst * 10 + i)))
                        .collect();
                    writer
                        .write_all(&frames)
                        .unwrap_or_else(|e| panic!("sender {sender} cannot send: {e}"));
                }
            });
        }
        for mut member in members {
            scope.spawn(move || expect_interleaving(&mut member, SENDERS, EACH));
        }
    });
}

/// Two hundred members spread over four workers, of which each has a part in it: all get all, in
/// order.
pub fn two_hundred_members_over_all_workers(target: &Target) {
    const WORKERS: usize = 4;
    const SENDERS: usize = 4;
    const EACH: usize = 50;
    let server = target.start(&["--workers", &WORKERS.to_string()]);
    assert_eq!(server.ready["workers"], WORKERS, "{}", server.ready);
    let mut members: Vec<Raw> = (0..200)
        .map(|_| server.upgraded("/broadcast/crowd"))
        .collect();
    server.await_metric("connections_open", 200);
    let before = server.thread_cpu_times();
    let mut rounds = 0;
    // A runtime that steals work may leave a worker asleep in a round, but not in all.
    eventually(server.patience, "every worker has a part in it", || {
        for sender in 0..SENDERS {
            let frames: Vec<u8> = (0..EACH)
                .flat_map(|i| wire::text(&format!("{sender} {i}")))
                .collect();
            members[sender * 50].send(&frames);
        }
        for member in &mut members {
            expect_interleaving(member, SENDERS, EACH);
        }
        rounds += 1;
        let now = server.thread_cpu_times();
        let busy = now
            .iter()
            .filter(|(thread, cpu)| before.get(*thread) < Some(*cpu))
            .count();
        (busy >= WORKERS).then_some(())
    });
    assert_eq!(server.metrics().get("dropped"), 0);
    drop(members);
    let last = server.stop();
    let published = rounds * SENDERS * EACH;
    assert_eq!(last["messages_received"], published, "{last}");
    assert_eq!(last["messages_sent"], 200 * published, "{last}");
}

/// A thousand messages in one write reach another member complete and in order.
pub fn thousand_pipelined_publishes(target: &Target) {
    let server = target.start(&["--workers", "2"]);
    let mut sender = server.upgraded("/broadcast/burst");
    let mut others: Vec<Raw> = (0..3)
        .map(|_| server.upgraded("/broadcast/burst"))
        .collect();
    let frames: Vec<u8> = (0..1000)
        .flat_map(|i| wire::text(&format!("0 {i}")))
        .collect();
    sender.send(&frames);
    for member in others.iter_mut().chain([&mut sender]) {
        expect_interleaving(member, 1, 1000);
    }
}

/// A fragmented message is published once it is complete; a ping between its fragments is answered
/// at once.
pub fn fragmented_publish_arrives_whole(target: &Target) {
    let server = target.start(&[]);
    let mut sender = server.upgraded("/broadcast/parts");
    let mut other = server.ws("/broadcast/parts");
    sender.send(&wire::masked(TEXT, b"one "));
    sender.send(&wire::masked(FIN | PING, b"mid"));
    sender.expect(PONG, b"mid");
    other.echo("unfragmented in between");
    sender.expect(TEXT, b"unfragmented in between");
    sender.send(
        &[
            wire::masked(CONTINUATION, b"two "),
            wire::masked(FIN | CONTINUATION, b"three"),
        ]
        .concat(),
    );
    other.expect("one two three");
    sender.expect(TEXT, b"one two three");
}

/// `--slow-consumer close`: a member that reads nothing delays nobody, is closed with 1008 and
/// counted.
pub fn slow_reader_is_closed(target: &Target) {
    let server = target.start(&["--send-queue", "64", "--slow-consumer", "close"]);
    let mut slow = server.upgraded_with_small_buffer("/broadcast/slow");
    let (mut sender, mut other) = (server.ws("/broadcast/slow"), server.ws("/broadcast/slow"));
    flood_until(&server, &mut sender, &mut other, "slow_consumers_closed", 1);
    let mut due = 0;
    let last = loop {
        let frame = slow.frame();
        if frame.opcode() == wire::CLOSE {
            break frame;
        }
        assert_eq!(
            sequence_of(&frame.payload),
            due,
            "a message is missing before the close"
        );
        due += 1;
    };
    assert_eq!(last.close_code(), Some(1008), "{last:?}");
    slow.expect_closed();
    server.await_metric("connections_open", 2);
    sender.echo("still here");
    other.expect("still here");
    drop((sender, other, slow));
    assert_eq!(server.stop()["slow_consumers_closed"], 1);
}

/// A member that never reads and never answers is gone in the end; it cannot stay by doing nothing.
pub fn slow_reader_cannot_linger(target: &Target) {
    let server = target.start(&["--send-queue", "16"]);
    let slow = server.upgraded_with_small_buffer("/broadcast/slow");
    let (mut sender, mut other) = (server.ws("/broadcast/slow"), server.ws("/broadcast/slow"));
    flood_until(&server, &mut sender, &mut other, "slow_consumers_closed", 1);
    server.await_metric("connections_open", 2);
    eventually(
        server.patience,
        "the slow member's socket is closed",
        || (server.open_sockets() == 2).then_some(()),
    );
    drop(slow);
}

/// `--slow-consumer drop`: a member that reads nothing delays nobody, loses messages, and every
/// loss is counted.
pub fn slow_reader_loses_messages(target: &Target) {
    let server = target.start(&["--send-queue", "64", "--slow-consumer", "drop"]);
    let mut slow = server.upgraded_with_small_buffer("/broadcast/slow");
    let (mut sender, mut other) = (server.ws("/broadcast/slow"), server.ws("/broadcast/slow"));
    let published = flood_until(&server, &mut sender, &mut other, "dropped", 100);
    // It catches up: what it gets is in order, its pong comes, and then new messages again.
    slow.send(&wire::masked(FIN | PING, b"caught up?"));
    let (mut received, mut next, mut caught_up) = (0, 0, false);
    loop {
        let frame = slow.frame();
        if frame.opcode() == PONG {
            caught_up = true;
            sender.send("end");
        } else if caught_up && frame.payload == b"end" {
            break;
        } else {
            assert_eq!(frame.opcode(), BINARY, "{frame:?}");
            let sequence = sequence_of(&frame.payload);
            assert!(
                sequence >= next,
                "message {sequence} came after {next} was due"
            );
            next = sequence + 1;
            received += 1;
        }
    }
    other.expect("end");
    drop((sender, other, slow));
    let last = server.stop();
    assert_eq!(
        last["dropped"],
        published - received,
        "published {published}, received {received}: {last}"
    );
    assert_eq!(last["slow_consumers_closed"], 0, "{last}");
}

/// The queue of a member that reads nothing is bounded in bytes, too, however many messages
/// `--send-queue` allows.
pub fn slow_reader_costs_bounded_memory(target: &Target) {
    let server = target.start(&["--send-queue", "1000000", "--slow-consumer", "drop"]);
    let slow = server.upgraded_with_small_buffer("/broadcast/slow");
    let mut sender = server.ws("/broadcast/slow");
    for _ in 0..32 {
        sender.echo(Message::binary(vec![7; 4 << 20]));
    }
    let dropped = server.metrics().get("dropped");
    // 128 MiB less 64 in the queue, and what sockets and writers hold.
    assert!((8..=16).contains(&dropped), "{dropped}");
    drop((sender, slow));
}

/// Publishes until a counter has reached `count`; each message must reach both healthy members
/// soon. How many it took.
#[track_caller]
fn flood_until(server: &Server, sender: &mut Ws, other: &mut Ws, counter: &str, count: u64) -> u64 {
    for sequence in 0..20_000u64 {
        let mut payload = super::frames::pattern(16 * 1024);
        payload[..8].copy_from_slice(&sequence.to_be_bytes());
        let message = Message::binary(payload);
        let start = Instant::now();
        sender.send(message.clone());
        other.expect(message.clone());
        sender.expect(message);
        let took = start.elapsed();
        assert!(
            took < UNDELAYED,
            "message {sequence} took {took:?} to members that do read"
        );
        if sequence % 32 == 31 && server.metrics().get(counter) >= count {
            return sequence + 1;
        }
    }
    panic!("{counter} never reached {count}: {:?}", server.metrics());
}

fn sequence_of(payload: &[u8]) -> u64 {
    payload
        .get(..8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(u64::MAX, u64::from_be_bytes)
}

/// Reads `each` messages "sender number" of each sender: per sender complete and in order.
#[track_caller]
fn expect_interleaving(member: &mut Raw, senders: usize, each: usize) {
    let mut due = vec![0; senders];
    for _ in 0..senders * each {
        let frame = member.frame();
        assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
        let text = String::from_utf8_lossy(&frame.payload);
        let (sender, number) = text
            .split_once(' ')
            .and_then(|(sender, number)| {
                Some((sender.parse::<usize>().ok()?, number.parse::<usize>().ok()?))
            })
            .unwrap_or_else(|| panic!("not a message of this case: {frame:?}"));
        assert_eq!(number, due[sender], "sender {sender} out of order");
        due[sender] += 1;
    }
}

/// Reads the round's message, then leaves by the closing handshake.
#[track_caller]
fn polite_leave(mut member: Ws, round: usize) {
    member.expect(Message::text(format!("{round}")));
    member.close();
}
