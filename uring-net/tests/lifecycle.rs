//! Cancelling, closing, timeouts, waking.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, listener, next, of_each_kind, pair, pattern, receive_exactly, ring, settle,
};
use uring_net::{Completion, Event, OpKind, Ring, Token};

const RECEIVE: Token = Token(3);
const SEND: Token = Token(4);
const CLOSE: Token = Token(5);
const TIMER: Token = Token(6);
const WAKE: Token = Token(7);

#[test]
fn a_cancelled_operation_completes_exactly_once() {
    for mut ring in of_each_kind(&Ring::builder()) {
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
}

#[test]
fn a_cancelled_receive_can_be_started_again_and_loses_nothing() {
    for mut ring in of_each_kind(&Ring::builder().buffers(2, 16)) {
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
}

#[test]
fn close_ends_everything_and_comes_last() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive(socket, RECEIVE);
        ring.send(socket, vec![7; 64 << 20], SEND);
        ring.submit().unwrap();
        peer.write_all(b"never seen").unwrap();
        let deadline = Instant::now() + PATIENCE;
        ring.wait(1, Some(deadline)).unwrap();
        assert!(Instant::now() < deadline);
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
}

#[test]
fn close_of_an_idle_connection_ends_the_stream() {
    for mut ring in of_each_kind(&Ring::builder()) {
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
    for mut ring in of_each_kind(&Ring::builder().buffers(1, 16)) {
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
fn a_place_is_given_away_when_closed_has_been_told() {
    for mut ring in of_each_kind(&Ring::builder()) {
        // Kept: dropped, they would close the sockets.
        let (spare, _spare_peer) = {
            let (listener, address) = listener();
            let ours = std::net::TcpStream::connect(address).unwrap();
            (ours, listener.accept().unwrap())
        };
        let (socket, _peer) = pair(&mut ring);
        ring.send(socket, vec![0; 64 << 20], Token(1));
        // The socket is full: what is left of the send ends after the close.
        assert!(settle(&mut ring).is_empty());
        ring.close(socket, Token(2));
        let completion = next(&mut ring);
        assert_eq!(completion.token, Token(1), "{completion:?}");
        // `Closed` is not taken yet.
        let other = ring.adopt(spare).unwrap();
        assert_ne!(other.index(), socket.index());
        let completion = next(&mut ring);
        assert!(matches!(
            completion,
            Completion {
                token: Token(2),
                event: Event::Closed
            }
        ));
    }
}

#[test]
fn a_send_of_nothing_fails_like_any_other() {
    let mut ring = ring();
    let (socket, _peer) = pair(&mut ring);
    ring.send(socket, Vec::new(), Token(1));
    let event = next(&mut ring).event;
    assert!(matches!(event, Event::Sent { bytes: 0, .. }), "{event:?}");
    ring.shutdown(socket, std::net::Shutdown::Write, Token(2));
    assert!(matches!(next(&mut ring).event, Event::ShutDown));
    ring.send(socket, Vec::new(), Token(1));
    match next(&mut ring).event {
        Event::Failed { error, buf, .. } => {
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
            assert!(buf.is_some());
        }
        other => panic!("{other:?}"),
    }
}
