//! Memory that connections take goes back when they have left. Not in the list of cases: what is
//! judged is resident memory, of a server that has the machine's descriptors to itself.

use std::sync::{Mutex, PoisonError};

use super::Target;
use super::client::{Raw, eventually, upgrade_request};
use super::harness::Server;
use super::wire::{self, FIN, PING, PONG};

/// Several tests at once would need more descriptors than a process may have. Held while there are
/// connections, not while their memory goes back, which takes seconds.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Enough to have used once what all connections share: buffers, queues, code.
const FIRST: usize = 1000;
const MANY: usize = 8000;
/// Handshakes under way at a time: fewer than wait to be accepted.
const AT_ONCE: usize = 64;

/// Opens `count` connections that ask something which only they get an answer to, and closes them;
/// the resident memory with all of them open.
fn come_and_go(server: &Server, path: &str, count: usize) -> u64 {
    let mut clients: Vec<Raw> = Vec::with_capacity(count);
    // Many at a time: waiting for each answer took most of the time.
    while clients.len() < count {
        let first = clients.len();
        clients.extend((first..count.min(first + AT_ONCE)).map(|_| server.raw()));
        for client in &mut clients[first..] {
            client.send(upgrade_request(path, "").as_bytes());
        }
        for client in &mut clients[first..] {
            client.expect_101();
        }
    }
    for clients in clients.chunks_mut(AT_ONCE) {
        for client in &mut *clients {
            client.send(&wire::masked(FIN | PING, b"now"));
        }
        for client in clients {
            client.expect(PONG, b"now");
        }
    }
    let resident = server.resident_bytes();
    drop(clients);
    eventually(server.patience, "all sockets are closed", || {
        (server.open_sockets() == 0).then_some(())
    });
    resident
}

/// Three quarters of what thousands of connections at `path` took are back soon after they have
/// left.
pub fn memory_goes_back(target: &Target, path: &str) {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = target.start(&["--workers", "2"]);
    come_and_go(&server, path, FIRST);
    let before = server.resident_bytes();
    let most = come_and_go(&server, path, MANY);
    drop(turn);
    assert!(most > before, "{MANY} connections took no memory");
    let bound = before + (most - before) / 4;
    let what = format!("no more than {bound} bytes are resident ({before} before, {most} at most)");
    eventually(server.patience, &what, || {
        (server.resident_bytes() <= bound).then_some(())
    });
    server.terminate().expect_clean();
}

/// A connection that has carried megabytes costs no more than before, soon after.
pub fn long_messages_leave_nothing_behind(target: &Target) {
    const CLIENTS: usize = 32;
    const LONG: usize = 1 << 20;
    let server = target.start(&["--workers", "2"]);
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| server.upgraded("/ws")).collect();
    clients.iter_mut().for_each(Raw::expect_alive);
    let before = server.resident_bytes();
    let message = super::frames::pattern(LONG);
    let frame = wire::binary(&message);
    let (most, last) = frame.split_at(LONG - 1000);
    clients.iter_mut().for_each(|client| client.send(most));
    let received = format!("{} bytes have been received", most.len() * CLIENTS);
    eventually(server.patience, &received, || {
        (server.metrics().get("bytes_received") as usize >= most.len() * CLIENTS).then_some(())
    });
    let held = server.resident_bytes();
    assert!(held > before + (LONG * CLIENTS / 2) as u64, "{held} bytes");
    for client in &mut clients {
        client.send(last);
        client.expect(wire::BINARY, &message);
    }
    let bound = before + (1 << 20) + before / 10;
    let what = format!("no more than {bound} bytes are resident ({before} before)");
    eventually(server.patience, &what, || {
        (server.resident_bytes() <= bound).then_some(())
    });
    clients.iter_mut().for_each(Raw::expect_alive);
}
