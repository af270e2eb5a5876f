//! Beginnings and ends: cancel, close, timeouts, wakers, full queues, dropping.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, listener, next, pair, pattern, receive_exactly, ring, settle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uring_net::{Completion, Event, OpKind, Ring, SocketId, Token};

const RECEIVE: Token = Token(3);
const SEND: Token = Token(4);
const CLOSE: Token = Token(5);
const TIMER: Token = Token(6);
const WAKE: Token = Token(7);

#[test]
fn a_cancelled_operation_completes_exactly_once() {
    let mut ring = ring();
    let (socket, mut peer) = pair(&mut ring);
    let receive = ring.receive(socket, RECEIVE);
    let timer = ring.timeout(Instant::now() + Duration::from_secs(3600), TIMER);
    let send = ring.send(socket, vec![7; 64 << 20], SEND);
    ring.submit().unwrap();
    peer.write_all(b"before").unwrap();
    for operation in [receive, timer, send, receive, timer, send] {
        ring.cancel(operation);
    }
    let mut ends = Vec::new();
    for Completion { token, event } in settle(&mut ring) {
        match event {
            Event::Received(bytes) => {
                assert!(ends.is_empty(), "bytes come before the end");
                assert_eq!(&*bytes, b"before");
            }
            Event::Cancelled { op, buf } => {
                assert_eq!(buf.is_some(), op == OpKind::Send);
                ends.push((token, op));
            }
            other => panic!("{other:?}"),
        }
    }
    ends.sort_by_key(|(token, _)| token.0);
    assert_eq!(
        ends,
        [
            (RECEIVE, OpKind::Receive),
            (SEND, OpKind::Send),
            (TIMER, OpKind::Timeout)
        ]
    );
    for operation in [receive, timer, send] {
        ring.cancel(operation);
    }
    assert!(settle(&mut ring).is_empty(), "a stale id is ignored");
}

#[test]
fn a_cancelled_receive_can_be_started_again_and_loses_nothing() {
    let mut ring = Ring::builder().buffers(2, 16).build().unwrap();
    let (socket, mut peer) = pair(&mut ring);
    let sent = pattern(4000);
    let mut got = Vec::new();
    for piece in sent.chunks(200) {
        let receive = ring.receive(socket, RECEIVE);
        ring.submit().unwrap();
        peer.write_all(piece).unwrap();
        ring.wait(1, Some(Instant::now() + Duration::from_millis(5)))
            .unwrap();
        ring.cancel(receive);
        loop {
            match next(&mut ring).event {
                Event::Received(bytes) => got.extend_from_slice(&bytes),
                Event::Cancelled {
                    op: OpKind::Receive,
                    ..
                } => break,
                other => panic!("{other:?}"),
            }
        }
    }
    ring.receive(socket, RECEIVE);
    let rest = sent.len() - got.len();
    got.extend(receive_exactly(&mut ring, RECEIVE, rest));
    assert!(got == sent);
}

#[test]
fn close_ends_everything_and_comes_last() {
    let mut ring = ring();
    let (socket, mut peer) = pair(&mut ring);
    ring.receive(socket, RECEIVE);
    ring.send(socket, vec![7; 64 << 20], SEND);
    ring.submit().unwrap();
    peer.write_all(b"never seen").unwrap();
    ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
    ring.close(socket, CLOSE);
    assert!(ring.fd(socket).is_none());
    let events = settle(&mut ring);
    assert!(
        matches!(
            &events[..],
            [
                Completion {
                    token: SEND,
                    event: Event::Cancelled {
                        op: OpKind::Send,
                        buf: Some(_)
                    }
                },
                Completion {
                    token: CLOSE,
                    event: Event::Closed
                },
            ]
        ),
        "{events:?}"
    );
    // The peer sees the end of the stream, or the reset that unread bytes bring.
    let mut sink = vec![0; 1 << 20];
    while matches!(peer.read(&mut sink), Ok(1..)) {}
}

#[test]
fn close_of_an_idle_connection_ends_the_stream() {
    let mut ring = ring();
    let (socket, mut peer) = pair(&mut ring);
    ring.receive(socket, RECEIVE);
    ring.submit().unwrap();
    ring.close(socket, CLOSE);
    assert!(matches!(
        next(&mut ring),
        Completion {
            token: CLOSE,
            event: Event::Closed
        }
    ));
    assert_eq!(
        peer.read(&mut [0; 8]).unwrap(),
        0,
        "the kernel holds no reference any more"
    );
}

#[test]
fn a_stale_id_never_reaches_the_next_owner() {
    let mut ring = ring();
    let (old, _old_peer) = pair(&mut ring);
    let old_receive = ring.receive(old, RECEIVE);
    ring.close(old, CLOSE);
    assert!(matches!(next(&mut ring).event, Event::Closed));
    let (new, mut peer) = pair(&mut ring);
    assert_eq!(new.index(), old.index(), "the place is used again");
    assert_ne!(new, old);
    ring.receive(new, Token(100));
    ring.send(old, b"misdirected".to_vec(), SEND);
    ring.receive(old, RECEIVE);
    ring.close(old, CLOSE);
    ring.cancel(old_receive);
    let events = settle(&mut ring);
    assert_eq!(events.len(), 3, "{events:?}");
    for Completion { event, .. } in events {
        match event {
            Event::Failed { error, .. } => assert_eq!(error.raw_os_error(), Some(libc::EBADF)),
            other => panic!("{other:?}"),
        }
    }
    peer.write_all(b"for the new one").unwrap();
    assert_eq!(
        receive_exactly(&mut ring, Token(100), 15),
        b"for the new one"
    );
}

#[test]
fn a_starved_receive_is_cancelled_and_closed_like_any_other() {
    let mut ring = Ring::builder().buffers(1, 16).build().unwrap();
    let (first, mut first_peer) = pair(&mut ring);
    let (second, mut second_peer) = pair(&mut ring);
    let receive = ring.receive(first, RECEIVE);
    ring.receive(second, Token(33));
    first_peer.write_all(&pattern(100)).unwrap();
    second_peer.write_all(&pattern(100)).unwrap();
    let held = settle(&mut ring);
    assert_eq!(held.len(), 1, "{held:?}");
    ring.cancel(receive);
    let cancelled = next(&mut ring);
    assert!(
        matches!(
            cancelled,
            Completion {
                token: RECEIVE,
                event: Event::Cancelled { .. }
            }
        ),
        "{cancelled:?}"
    );
    ring.close(second, CLOSE);
    let closed = next(&mut ring);
    assert!(
        matches!(
            closed,
            Completion {
                token: CLOSE,
                event: Event::Closed
            }
        ),
        "{closed:?}"
    );
    drop(held);
    assert!(settle(&mut ring).is_empty());
}

#[test]
fn timeouts_come_in_order_and_never_early() {
    let mut ring = ring();
    let start = Instant::now();
    let deadlines = [40, 10, 0, 30, 20].map(|ms| start + Duration::from_millis(ms));
    for (index, deadline) in deadlines.iter().enumerate() {
        ring.timeout(*deadline, Token(index as u64));
    }
    ring.timeout(
        start.checked_sub(Duration::from_secs(1)).unwrap_or(start),
        Token(9),
    );
    let mut order = Vec::new();
    while order.len() < 6 {
        let Completion { token, event } = next(&mut ring);
        assert!(matches!(event, Event::TimedOut), "{event:?}");
        if let Some(deadline) = deadlines.get(token.0 as usize) {
            assert!(Instant::now() >= *deadline);
        }
        order.push(token.0);
    }
    let mut first = order[..2].to_vec();
    first.sort_unstable();
    assert_eq!(first, [2, 9], "both were due at once");
    assert_eq!(order[2..], [1, 4, 3, 0]);
}

#[test]
fn wait_returns_at_its_deadline() {
    let mut ring = ring();
    for patience in [Duration::ZERO, Duration::from_millis(2)] {
        let start = Instant::now();
        let deadline = start + Duration::from_millis(25);
        ring.wait_batch(8, patience, Some(deadline)).unwrap();
        assert!(ring.next_completion().is_none());
        assert!(Instant::now() >= deadline, "after {:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE);
    }
    ring.wait(1, Some(Instant::now())).unwrap();
    ring.wait(1, Instant::now().checked_sub(Duration::from_secs(5)))
        .unwrap();
    ring.wait(0, None).unwrap();
}

#[test]
fn a_batch_waits_for_more_but_not_for_long() {
    let mut ring = ring();
    let start = Instant::now();
    ring.timeout(start + Duration::from_millis(5), TIMER);
    ring.wait_batch(2, Duration::from_millis(20), Some(start + PATIENCE))
        .unwrap();
    assert!(start.elapsed() < PATIENCE, "one completion was enough");
    assert!(matches!(next(&mut ring).event, Event::TimedOut));
}

#[test]
fn wakes_from_other_threads_are_seen_and_what_they_wrote_with_them() {
    let mut ring = ring();
    let waker = ring.waker(WAKE).unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (waker, written) = (waker.clone(), Arc::clone(&written));
            thread::spawn(move || {
                for _ in 0..1000 {
                    written.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            })
        })
        .collect();
    let mut wakes = 0;
    while written.load(Ordering::Relaxed) < 3000 {
        let woken = next(&mut ring);
        assert!(
            matches!(
                woken,
                Completion {
                    token: WAKE,
                    event: Event::Woken
                }
            ),
            "{woken:?}"
        );
        wakes += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
    wakes += settle(&mut ring).len();
    assert!((1..=3000).contains(&wakes), "{wakes}");
    waker.wake();
    waker.wake();
    assert_eq!(
        settle(&mut ring).len(),
        1,
        "wakes that were not looked at yet are one"
    );
    drop(ring);
    waker.wake();
}

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
    let mut ring = Ring::builder()
        .entries(4)
        .cq_entries(4)
        .buffers(256, 64)
        .build()
        .unwrap();
    let mut pairs: Vec<(SocketId, TcpStream)> = (0..20).map(|_| pair(&mut ring)).collect();
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

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs the named test of this file again in a process of its own, where nothing else opens descriptors. True in that process.
fn alone(test: &str) -> bool {
    if std::env::var_os("URING_NET_ALONE").is_some() {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("URING_NET_ALONE", "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    false
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
fn closing_frees_descriptors_and_the_address() {
    let mut ring = ring();
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    ring.accept(listener, Token(1));
    ring.submit().unwrap();
    ring.close(listener, CLOSE);
    let events = settle(&mut ring);
    assert!(
        matches!(
            &events[..],
            [
                Completion {
                    event: Event::Cancelled {
                        op: OpKind::Accept,
                        ..
                    },
                    ..
                },
                Completion {
                    event: Event::Closed,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
    TcpListener::bind(address).unwrap();
}

#[test]
fn the_report_says_what_is_in_force() {
    let setup = uring_net::probe().unwrap();
    assert!(setup.cq_entries >= 16);
    let text = setup.to_string();
    assert!(
        text.contains("DEFER_TASKRUN") && text.contains("buffers 8 x 4096 B"),
        "{text}"
    );
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
