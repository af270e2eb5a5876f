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

/// `?work=N` on the request: N microseconds, if that is less than the server was started with. All
/// is judged by the server's CPU time, in whole amounts of work.
pub fn a_client_may_lower_the_work_and_not_raise_it(target: &Target) {
    let server = start(target);
    let none = messages_use(&server, "/ws?work=0");
    assert!(
        none < WORK,
        "{MESSAGES} messages without work used {none:?}"
    );
    let quarter = messages_use(&server, "/ws?x&work=5000");
    assert!(
        quarter >= WORK * MESSAGES / 8 && quarter < WORK * MESSAGES,
        "{MESSAGES} messages at a quarter of the work used {quarter:?}"
    );
    // More, and what is no number, is the server's own work: a tenth of a second in all, where what
    // was asked for would be ten.
    for query in ["work=1000000", "work=99999999999", "work=-1", "work="] {
        let used = messages_use(&server, &format!("/ws?{query}"));
        assert!(
            used >= WORK * MESSAGES / 2 && used < WORK * MESSAGES * 5,
            "{query}: {MESSAGES} messages used {used:?}"
        );
    }
}

/// The same in a room: the member's own, whatever others have.
pub fn a_member_may_lower_the_work(target: &Target) {
    let server = start(target);
    let none = messages_use(&server, "/broadcast/work?work=0");
    assert!(
        none < WORK,
        "{MESSAGES} messages without work used {none:?}"
    );
    let all = messages_use(&server, "/broadcast/work?work=20000");
    assert!(
        all >= WORK * MESSAGES / 2,
        "{MESSAGES} messages used {all:?}"
    );
}

/// CPU time of the server for a client's messages.
fn messages_use(server: &Server, path: &str) -> Duration {
    let mut client = server.ws(path);
    let before = server.cpu_time();
    for n in 0..MESSAGES {
        client.send(Message::text(n.to_string()));
        client.expect(Message::text(n.to_string()));
    }
    server.cpu_time() - before
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
