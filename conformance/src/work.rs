//! `--handler-work-us`: what a handler would burn for each message. Bounds on time are lower ones,
//! which a slow machine cannot miss; upper ones are on CPU time.

use std::time::{Duration, Instant};

use tungstenite::Message;

use super::Target;
use super::harness::Server;
use super::wire::{self, CONTINUATION, FIN, PING, PONG, TEXT};

/// For each message.
const WORK: Duration = Duration::from_millis(20);
const MESSAGES: u32 = 10;

fn start(target: &Target) -> Server {
    let server = target.start(&["--handler-work-us", "20000"]);
    let declared = &server.ready["options"]["handler_work_us"];
    assert_eq!(declared, 20_000, "{}", server.ready);
    server
}

/// Ten messages take the time of ten, however they arrive; a message in fragments is one, and a
/// ping none.
pub fn every_message_costs_the_handler_work(target: &Target) {
    let server = start(target);
    take_their_time(&server, "/ws");

    let before = server.cpu_time();
    let mut raw = server.upgraded("/ws");
    let mut bytes = wire::masked(TEXT, b"");
    for _ in 0..40 {
        bytes.extend(wire::masked(FIN | PING, b""));
        bytes.extend(wire::masked(CONTINUATION, b""));
    }
    bytes.extend(wire::masked(FIN | CONTINUATION, b"whole"));
    raw.send(&bytes);
    for _ in 0..40 {
        raw.expect(PONG, b"");
    }
    raw.expect(TEXT, b"whole");
    let used = server.cpu_time() - before;
    assert!(used < WORK * 20, "one message used {used:?}");
}

/// The same in a room, for its publisher.
pub fn every_publication_costs_the_handler_work(target: &Target) {
    take_their_time(&start(target), "/broadcast/work");
}

/// At least half of it: the calibration may have met a CPU that was slow for once.
#[track_caller]
fn take_their_time(server: &Server, path: &str) {
    let mut client = server.ws(path);
    let begin = Instant::now();
    for n in 0..MESSAGES {
        client.send(Message::text(n.to_string()));
    }
    for n in 0..MESSAGES {
        client.expect(Message::text(n.to_string()));
    }
    let took = begin.elapsed();
    assert!(
        took >= WORK * MESSAGES / 2,
        "{MESSAGES} messages took {took:?}"
    );
}
