//! Full queues, no descriptors, odd sizes, and a ring that is dropped in the middle of it all.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, alone, listener, next, of_each_kind, open_descriptors, pair, pattern, ring, settle,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uring_net::{Cause, Completion, Event, OpKind, Ring, SocketId, Step, Token};

const RECEIVE: Token = Token(3);
const SEND: Token = Token(4);
const CLOSE: Token = Token(5);
const TIMER: Token = Token(6);
const WAKE: Token = Token(7);

#[test]
fn more_operations_than_entries_are_submitted_along_the_way() {
    let mut ring = Ring::builder().entries(4).cq_entries(8).build().unwrap();
    let past = Instant::now();
    for index in 0..1000 {
        ring.timeout(past, Token(index));
    }
    let mut seen: Vec<u64> = settle(&mut ring)
        .iter()
        .map(|completion| completion.token.0)
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000));
    assert!(ring.stats().sq_full > 0);
}

#[test]
fn an_overflown_completion_queue_loses_nothing() {
    for mut ring in of_each_kind(&Ring::builder().entries(4).cq_entries(4).buffers(256, 64)) {
        let mut pairs: Vec<(SocketId, TcpStream)> = (0..16).map(|_| pair(&mut ring)).collect();
        let sent = pattern(2000);
        for (index, (socket, peer)) in pairs.iter_mut().enumerate() {
            ring.receive(*socket, Token(index as u64));
            ring.submit().unwrap();
            peer.write_all(&sent).unwrap();
        }
        let mut received = vec![Vec::new(); pairs.len()];
        while received.iter().any(|bytes| bytes.len() < sent.len()) {
            match next(&mut ring) {
                Completion {
                    token,
                    event: Event::Received(bytes),
                } => received[token.0 as usize].extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(received.iter().all(|bytes| *bytes == sent));
        assert!(
            ring.stats().cq_overflows + ring.stats().rearmed > 0,
            "{:?}",
            ring.stats()
        );
    }
}

#[test]
fn an_accept_without_descriptors_fails_and_can_be_started_again() {
    if !alone("an_accept_without_descriptors_fails_and_can_be_started_again") {
        return;
    }
    let mut ring = ring();
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    let _clients: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let limit = getrlimit(Resource::Nofile);
    let lowest_free = fs::File::open("/dev/null").unwrap().as_raw_fd();
    let room_for_one = Rlimit {
        current: Some(lowest_free as u64 + 1),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, room_for_one).unwrap();
    ring.accept(listener, Token(1));
    let mut accepted = 0;
    let error = loop {
        match next(&mut ring).event {
            Event::Accepted(_) => accepted += 1,
            Event::Failed {
                op: OpKind::Accept,
                error,
                ..
            } => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert_eq!(accepted, 1);
    assert!(settle(&mut ring).is_empty(), "no spinning");
    setrlimit(Resource::Nofile, limit).unwrap();
    ring.accept(listener, Token(1));
    while accepted < 3 {
        match next(&mut ring).event {
            Event::Accepted(_) => accepted += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn dropping_a_ring_with_everything_in_flight_leaves_nothing_behind() {
    if !alone("dropping_a_ring_with_everything_in_flight_leaves_nothing_behind") {
        return;
    }
    let before = open_descriptors();
    let mut lease = None;
    for round in 0..20 {
        let mut ring = Ring::builder().buffers(8, 64).build().unwrap();
        let (std_listener, address) = listener();
        let listener = ring.adopt(std_listener).unwrap();
        ring.accept(listener, Token(1));
        let waker = ring.waker(WAKE).unwrap();
        ring.timeout(Instant::now() + Duration::from_secs(3600), TIMER);
        let mut peers = Vec::new();
        for _ in 0..4 {
            let (socket, mut peer) = pair(&mut ring);
            ring.receive(socket, RECEIVE);
            ring.send(socket, vec![0; 16 << 20], SEND);
            peer.write_all(&pattern(1000)).unwrap();
            peers.push((socket, peer));
        }
        peers.push((listener, TcpStream::connect(address).unwrap()));
        if round % 2 == 0 {
            ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
            while let Some(completion) = ring.next_completion() {
                if let Event::Received(bytes) = completion.event {
                    lease = Some(bytes);
                }
            }
            ring.close(peers[0].0, CLOSE);
        }
        let start = Instant::now();
        drop(ring);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "took {:?}",
            start.elapsed()
        );
        waker.wake();
    }
    // A lease may outlive its ring.
    assert!(lease.is_some_and(|bytes| !bytes.is_empty()));
    assert_eq!(open_descriptors(), before);
}

#[test]
fn odd_sizes_are_made_to_fit() {
    let ring = Ring::builder()
        .entries(0)
        .cq_entries(0)
        .buffers(3, 0)
        .build()
        .unwrap();
    assert_eq!(ring.setup().buffer_count, 4);
    assert_eq!(ring.setup().buffer_size, 1);
    let ring = Ring::builder()
        .entries(u32::MAX)
        .cq_entries(u32::MAX)
        .buffers(u16::MAX, 64)
        .build()
        .unwrap();
    assert_eq!(ring.setup().buffer_count, 32_768);
    assert_eq!(ring.setup().sq_entries, 32_768);
}

#[test]
fn buffers_beyond_all_memory_are_refused_with_a_remedy() {
    let error = Ring::builder()
        .buffers(1 << 15, u32::MAX)
        .build()
        .unwrap_err();
    assert_eq!((error.step, &error.cause), (Step::Buffers, &Cause::Memory));
    assert!(
        error.to_string().contains("smaller rings or buffers"),
        "{error}"
    );
}

#[test]
fn a_process_without_descriptors_is_told_so() {
    if !alone("a_process_without_descriptors_is_told_so") {
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, none).unwrap();
    let error = Ring::builder().build().unwrap_err();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(
        (error.step, &error.cause),
        (Step::Setup, &Cause::Descriptors)
    );
}

/// A ring of two buffers, both held by the caller, and five sockets that wait for one: the first
/// four as `spend` leaves them, the last with bytes to receive.
fn starve(spend: fn(&mut Ring, Vec<SocketId>)) {
    let mut ring = Ring::builder().buffers(2, 64).build().unwrap();
    let (first, mut giver) = pair(&mut ring);
    ring.receive(first, RECEIVE);
    giver.write_all(&[1; 128]).unwrap();
    let held = [next(&mut ring), next(&mut ring)];
    let mut peers = Vec::new();
    let mut waiting = Vec::new();
    for index in 0..5 {
        let (socket, peer) = pair(&mut ring);
        ring.receive(socket, Token(10 + index));
        // One after the other: this is the order in which they starve.
        assert!(settle(&mut ring).is_empty());
        waiting.push(socket);
        peers.push(peer);
    }
    peers[4].write_all(b"here").unwrap();
    waiting.pop();
    spend(&mut ring, waiting);
    drop(held);
    // The first wait that could sleep must not sleep for ever.
    let deadline = Instant::now() + PATIENCE;
    let completion = loop {
        ring.wait(1, Some(deadline)).unwrap();
        assert!(Instant::now() < deadline, "asleep with buffers free");
        if let Some(completion) = ring.next_completion() {
            break completion;
        }
    };
    assert_eq!(completion.token, Token(14), "{completion:?}");
    assert!(matches!(completion.event, Event::Received(_)));
}

#[test]
fn bytes_behind_silent_sockets_are_received() {
    starve(|_, silent| assert_eq!(silent.len(), 4));
}

#[test]
fn bytes_behind_closed_sockets_are_received() {
    starve(|ring, silent| {
        for socket in silent {
            ring.close(socket, CLOSE);
        }
        let closed = settle(ring);
        assert_eq!(closed.len(), 4, "{closed:?}");
    });
}
