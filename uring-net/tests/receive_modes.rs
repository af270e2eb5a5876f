//! Receives by polls: the same events in the same order as from a multishot, and the way from one
//! to the other without a word.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, more_than_all_buffers, next, of_each_kind, open_descriptors, pair, pattern,
    receive_exactly, reset_ends_receive, settle,
};
use uring_net::{Completion, Event, OpKind, OperationId, Ring, SocketId, Token};

const RECEIVE: Token = Token(3);
const OTHER: Token = Token(4);
const CLOSE: Token = Token(5);

fn assert_eof(completion: &Completion, expected: Token) {
    assert!(
        matches!(completion, Completion { token, event: Event::Eof } if *token == expected),
        "{completion:?}"
    );
}

fn assert_closed(events: &[Completion]) {
    assert!(
        matches!(
            events,
            [Completion {
                token: CLOSE,
                event: Event::Closed
            }]
        ),
        "{events:?}"
    );
}

fn assert_cancelled(events: &[Completion]) {
    assert!(
        matches!(
            events,
            [Completion {
                token: RECEIVE,
                event: Event::Cancelled {
                    op: OpKind::Receive,
                    buf: None
                }
            }]
        ),
        "{events:?}"
    );
}

#[test]
fn bytes_arrive_in_order_through_many_small_buffers_and_then_the_end() {
    for mut ring in of_each_kind(&Ring::builder().buffers(8, 512)) {
        let (socket, mut peer) = pair(&mut ring);
        let sent = pattern(1 << 20);
        let copy = sent.clone();
        let writer = thread::spawn(move || {
            peer.write_all(&copy).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            peer
        });
        ring.receive_by_poll(socket, RECEIVE);
        assert!(receive_exactly(&mut ring, RECEIVE, sent.len()) == sent);
        assert_eof(&next(&mut ring), RECEIVE);
        drop(writer.join().unwrap());
        assert!(settle(&mut ring).is_empty(), "the receive is over");
        assert_eq!(ring.stats().rearmed, 0, "nothing was a multishot");
    }
}

#[test]
fn a_piece_that_comes_after_a_long_silence_is_received_as_well() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive_by_poll(socket, RECEIVE);
        for piece in [&b"one"[..], b"two", b"three"] {
            assert!(settle(&mut ring).is_empty());
            peer.write_all(piece).unwrap();
            assert_eq!(receive_exactly(&mut ring, RECEIVE, piece.len()), piece);
        }
        drop(peer);
        assert_eof(&next(&mut ring), RECEIVE);
    }
}

#[test]
fn a_reset_ends_it_with_its_error() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, peer) = pair(&mut ring);
        ring.receive_by_poll(socket, RECEIVE);
        reset_ends_receive(&mut ring, peer, RECEIVE);
    }
}

#[test]
fn close_ends_it_silently_whether_it_watches_or_takes() {
    for mut ring in of_each_kind(&Ring::builder()) {
        for unread in [false, true] {
            let (socket, mut peer) = pair(&mut ring);
            ring.receive_by_poll(socket, RECEIVE);
            ring.submit().unwrap();
            if unread {
                peer.write_all(b"never seen").unwrap();
                // The poll has fired when this returns; nobody has taken its completion.
                ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
                assert!(ring.has_completions());
            }
            ring.close(socket, CLOSE);
            let events = settle(&mut ring);
            assert_closed(&events);
            // With unread bytes a reset, otherwise an orderly end: either way the kernel holds no
            // reference any more.
            let end = peer.read(&mut [0; 8]);
            assert_eq!(end.ok(), (!unread).then_some(0));
        }
    }
}

#[test]
fn cancel_ends_it_with_one_event_and_it_can_be_started_again() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        // Not yet handed to the kernel, watching, and with a poll that has fired.
        for (submitted, arrived) in [(false, false), (true, false), (true, true)] {
            let receive = ring.receive_by_poll(socket, RECEIVE);
            if submitted {
                ring.submit().unwrap();
            }
            if arrived {
                peer.write_all(b"later").unwrap();
                ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
                assert!(ring.has_completions());
            }
            ring.cancel(receive);
            ring.cancel(receive);
            refuses_to_start(&mut ring, socket);
            assert_cancelled(&settle(&mut ring));
        }
        ring.cancel(OperationId::receive_of(socket));
        assert!(settle(&mut ring).is_empty());
        ring.receive_by_poll(socket, OTHER);
        assert_eq!(receive_exactly(&mut ring, OTHER, 5), b"later");
    }
}

/// Neither kind starts while a cancellation is under way.
fn refuses_to_start(ring: &mut Ring, socket: SocketId) {
    ring.receive(socket, OTHER);
    ring.receive_by_poll(socket, OTHER);
    for _ in 0..2 {
        assert_busy(&next(ring));
    }
}

fn assert_busy(completion: &Completion) {
    match completion {
        Completion {
            token: OTHER,
            event: Event::Failed { error, .. },
        } => assert_eq!(error.raw_os_error(), Some(libc::EBUSY)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stale_socket_is_refused() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, _peer) = pair(&mut ring);
        ring.close(socket, CLOSE);
        ring.receive_by_multishot(socket);
        ring.receive_by_poll(socket, RECEIVE);
        match next(&mut ring) {
            Completion {
                token: RECEIVE,
                event: Event::Failed { error, .. },
            } => assert_eq!(error.raw_os_error(), Some(libc::EBADF)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_receive_that_is_over_is_not_begun_again_by_asking_for_a_multishot() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive_by_multishot(socket);
        peer.write_all(b"nobody receives").unwrap();
        assert!(settle(&mut ring).is_empty());
    }
}

#[test]
fn running_out_of_buffers_loses_nothing() {
    more_than_all_buffers(Ring::receive_by_poll);
}

#[test]
fn a_starved_one_is_cancelled_and_closed_like_any_other() {
    for mut ring in of_each_kind(&Ring::builder().buffers(1, 16)) {
        let (first, mut first_peer) = pair(&mut ring);
        let (second, mut second_peer) = pair(&mut ring);
        let receive = ring.receive_by_poll(first, RECEIVE);
        ring.receive_by_poll(second, OTHER);
        first_peer.write_all(&pattern(100)).unwrap();
        second_peer.write_all(&pattern(100)).unwrap();
        let held = settle(&mut ring);
        assert_eq!(held.len(), 1, "{held:?}");
        assert!(ring.stats().receives_starved >= 2);
        ring.cancel(receive);
        assert_cancelled(&settle(&mut ring));
        ring.close(second, CLOSE);
        assert!(matches!(next(&mut ring).event, Event::Closed));
        drop(held);
        assert!(settle(&mut ring).is_empty());
    }
}

#[test]
fn a_multishot_goes_on_by_polls_under_the_new_token_and_back() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive(socket, RECEIVE);
        peer.write_all(b"eager").unwrap();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 5), b"eager");
        ring.receive_by_poll(socket, OTHER);
        assert!(settle(&mut ring).is_empty(), "no event says so");
        peer.write_all(b"sparing").unwrap();
        assert_eq!(receive_exactly(&mut ring, OTHER, 7), b"sparing");
        ring.receive_by_multishot(socket);
        for _ in 0..3 {
            peer.write_all(b"again").unwrap();
            assert_eq!(receive_exactly(&mut ring, OTHER, 5), b"again");
        }
        // Both at once, in either order: the last one counts, and the receive goes on.
        ring.receive_by_poll(socket, RECEIVE);
        ring.receive_by_multishot(socket);
        assert!(settle(&mut ring).is_empty());
        peer.write_all(b"more").unwrap();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 4), b"more");
        ring.receive_by_poll(socket, RECEIVE);
        ring.cancel(OperationId::receive_of(socket));
        assert_cancelled(&settle(&mut ring));
        assert_eq!(ring.stats().rearmed, 0);
    }
}

#[test]
fn a_multishot_needs_no_polls() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        let enters = |ring: &mut Ring, peer: &mut TcpStream| {
            let before = ring.stats().enters;
            for _ in 0..50 {
                peer.write_all(b"ping").unwrap();
                receive_exactly(ring, RECEIVE, 4);
            }
            ring.stats().enters - before
        };
        ring.receive_by_poll(socket, RECEIVE);
        let polled = enters(&mut ring, &mut peer);
        ring.receive_by_multishot(socket);
        let multishot = enters(&mut ring, &mut peer);
        assert!(polled >= 100, "a poll and a receive for each: {polled}");
        assert!(
            multishot < 60,
            "only the first has a poll before it: {multishot}"
        );
    }
}

/// Numbers without rhyme, the same in each run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

struct Stream {
    socket: SocketId,
    received: Vec<u8>,
    cancelling: bool,
    ended: bool,
}

/// Several streams at once whose manner of receiving changes at random, with buffers so few that
/// they starve, too; now and then a receive is cancelled and started again. Every byte arrives, in
/// order.
#[test]
fn switching_at_random_under_traffic_loses_nothing() {
    for (round, mut ring) in (0..4)
        .flat_map(|round| of_each_kind(&Ring::builder().buffers(8, 256)).map(|ring| (round, ring)))
    {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15 ^ (round + 1));
        let sent = pattern(200_000);
        let mut streams = Vec::new();
        let mut writers = Vec::new();
        let pairs: Vec<_> = (0..4).map(|_| pair(&mut ring)).collect();
        for (index, (socket, mut peer)) in (0..).zip(pairs) {
            let (copy, mut chance) = (sent.clone(), Chance(index + 77 * (round + 1)));
            writers.push(thread::spawn(move || {
                let mut rest = &copy[..];
                while !rest.is_empty() {
                    let (piece, behind) =
                        rest.split_at(rest.len().min(1 + chance.below(3000) as usize));
                    peer.write_all(piece).unwrap();
                    rest = behind;
                    if chance.below(4) == 0 {
                        thread::yield_now();
                    }
                }
            }));
            ring.receive_by_poll(socket, Token(index));
            streams.push(Stream {
                socket,
                received: Vec::new(),
                cancelling: false,
                ended: false,
            });
        }
        let mut held = Vec::new();
        while streams.iter().any(|stream| !stream.ended) {
            let Completion { token, event } = next(&mut ring);
            let stream = &mut streams[token.0 as usize];
            let socket = stream.socket;
            match event {
                Event::Received(bytes) => {
                    stream.received.extend_from_slice(&bytes);
                    held.push(bytes);
                }
                Event::Eof => stream.ended = true,
                Event::Cancelled { .. } => {
                    assert!(stream.cancelling, "no event says so");
                    stream.cancelling = false;
                    if chance.below(2) == 0 {
                        ring.receive(socket, token);
                    } else {
                        ring.receive_by_poll(socket, token);
                    }
                }
                other => panic!("{other:?}"),
            }
            if held.len() > chance.below(8) as usize {
                held.clear();
            }
            if stream.ended || stream.cancelling {
                continue;
            }
            match chance.below(8) {
                0 | 1 => ring.receive_by_multishot(socket),
                2..4 => {
                    ring.receive_by_poll(socket, token);
                }
                4 if chance.below(4) == 0 => {
                    stream.cancelling = true;
                    ring.cancel(OperationId::receive_of(socket));
                }
                _ => {}
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(streams.iter().all(|stream| stream.received == sent));
        drop(held);
        assert!(settle(&mut ring).is_empty());
    }
}

#[test]
fn a_ring_that_is_dropped_with_armed_polls_leaves_nothing_behind() {
    if !common::alone("a_ring_that_is_dropped_with_armed_polls_leaves_nothing_behind") {
        return;
    }
    let before = open_descriptors();
    for take in [false, true] {
        for mut ring in of_each_kind(&Ring::builder().buffers(2, 64)) {
            let pairs: Vec<_> = (0..8).map(|_| pair(&mut ring)).collect();
            for (socket, mut peer) in pairs.iter().map(|(socket, peer)| (*socket, peer)) {
                ring.receive_by_poll(socket, RECEIVE);
                if socket.index() % 2 == 0 {
                    peer.write_all(&pattern(1000)).unwrap();
                }
            }
            ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
            let lease = take.then(|| next(&mut ring));
            let start = Instant::now();
            drop(ring);
            assert!(start.elapsed() < Duration::from_secs(2));
            drop(lease);
            for (_, mut peer) in pairs {
                assert!(matches!(peer.read(&mut [0; 8]), Ok(0) | Err(_)));
            }
        }
    }
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_receive_goes_on_into_large_buffers_and_back_without_a_loss() {
    let sizes = Ring::builder().buffers(8, 512).large_buffers(4, 100_000);
    for mut ring in of_each_kind(&sizes) {
        let (socket, mut peer) = pair(&mut ring);
        let sent = pattern(1 << 20);
        let copy = sent.clone();
        let writer = thread::spawn(move || {
            peer.write_all(&copy).unwrap();
            peer
        });
        ring.receive(socket, RECEIVE);
        let mut all = Vec::new();
        let (mut pieces, mut largest) = (0, 0);
        while all.len() < sent.len() {
            let Event::Received(bytes) = next(&mut ring).event else {
                panic!("only bytes come");
            };
            all.extend_from_slice(&bytes);
            largest = largest.max(bytes.len());
            pieces += 1;
            match pieces % 10 {
                3 => drop(ring.receive_large(socket, RECEIVE)),
                9 => ring.receive_by_multishot(socket),
                _ => {}
            }
        }
        assert!(all == sent);
        assert!(largest > 512, "{largest}: no large buffer was used");
        drop(writer.join().unwrap());
    }
}

#[test]
fn large_buffers_that_are_all_leased_are_waited_for() {
    let sizes = Ring::builder().large_buffers(2, 1000);
    for mut ring in of_each_kind(&sizes) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive_large(socket, RECEIVE);
        peer.write_all(&pattern(5000)).unwrap();
        let mut leases = Vec::new();
        for completion in settle(&mut ring) {
            let Event::Received(bytes) = completion.event else {
                panic!("only bytes come");
            };
            leases.push(bytes);
        }
        assert_eq!(leases.len(), 2, "as many as there are buffers");
        let first: Vec<u8> = leases.drain(..).flat_map(|lease| lease.to_vec()).collect();
        let rest = receive_exactly(&mut ring, RECEIVE, 3000);
        assert!([first, rest].concat() == pattern(5000));
        // In use by a receive: they stay, and what has not been taken is kept.
        peer.write_all(b"kept").unwrap();
        ring.wait(1, Some(Instant::now() + PATIENCE)).unwrap();
        ring.release_buffers();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 4), b"kept");
        ring.release_buffers();
        peer.write_all(b"more").unwrap();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 4), b"more");
        ring.receive_by_poll(socket, RECEIVE);
        settle(&mut ring);
        ring.release_buffers();
        ring.receive_large(socket, OTHER);
        peer.write_all(b"again").unwrap();
        assert_eq!(receive_exactly(&mut ring, OTHER, 5), b"again");
    }
}

#[test]
fn without_large_buffers_ordinary_ones_are_used() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive_large(socket, RECEIVE);
        peer.write_all(b"hello").unwrap();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 5), b"hello");
    }
}

#[test]
fn a_receive_of_one_piece_is_over_after_it() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        for piece in [&b"one"[..], b"two"] {
            ring.receive_once(socket, RECEIVE);
            ring.receive_once(socket, OTHER);
            assert_busy(&next(&mut ring));
            peer.write_all(piece).unwrap();
            assert_eq!(receive_exactly(&mut ring, RECEIVE, piece.len()), piece);
        }
        peer.write_all(b"unread").unwrap();
        assert!(settle(&mut ring).is_empty(), "nothing is asked for");
        ring.receive_once(socket, RECEIVE);
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 6), b"unread");
        let receive = ring.receive_once(socket, RECEIVE);
        ring.submit().unwrap();
        ring.cancel(receive);
        assert_cancelled(&settle(&mut ring));
        // One that goes on by polls is not over after a piece.
        ring.receive_once(socket, RECEIVE);
        ring.submit().unwrap();
        ring.receive_by_poll(socket, RECEIVE);
        for piece in [&b"four"[..], b"five"] {
            peer.write_all(piece).unwrap();
            assert_eq!(receive_exactly(&mut ring, RECEIVE, 4), piece);
        }
        drop(peer);
        assert_eof(&next(&mut ring), RECEIVE);
    }
}

#[test]
fn bytes_are_received_behind_what_a_vector_holds() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"begin ");
        ring.receive_into(socket, bytes, 50, RECEIVE);
        refuses_to_start(&mut ring, socket);
        peer.write_all(&[b'x'; 70]).unwrap();
        let Completion { token, event } = next(&mut ring);
        let Event::ReceivedInto { bytes, received } = event else {
            panic!("{event:?}");
        };
        assert_eq!((token, received, bytes.len()), (RECEIVE, 50, 56));
        assert_eq!(bytes, [b"begin ".to_vec(), vec![b'x'; 50]].concat());
        // As far as there is room: a vector does not grow.
        let full = Vec::with_capacity(15);
        let room = full.capacity();
        ring.receive_into(socket, full, usize::MAX, RECEIVE);
        let Event::ReceivedInto { bytes, received } = next(&mut ring).event else {
            panic!("no bytes");
        };
        assert_eq!((received, bytes.capacity()), (room.min(20), room));
        ring.receive_into(socket, Vec::new(), 10, RECEIVE);
        let event = next(&mut ring).event;
        assert!(matches!(&event, Event::Failed { .. }), "{event:?}");
    }
}

#[test]
fn a_receive_into_memory_ends_as_others_do() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let room = || Vec::with_capacity(1 << 16);
        let (socket, mut peer) = pair(&mut ring);
        let receive = ring.receive_into(socket, room(), 100, RECEIVE);
        ring.submit().unwrap();
        ring.cancel(receive);
        assert_cancelled(&settle(&mut ring));
        peer.write_all(b"later").unwrap();
        assert_eq!(receive_exactly_into(&mut ring, socket), b"later");
        ring.receive_into(socket, room(), 100, RECEIVE);
        ring.submit().unwrap();
        ring.close(socket, CLOSE);
        let events = settle(&mut ring);
        assert_closed(&events);
        let (socket, peer) = pair(&mut ring);
        ring.receive_into(socket, room(), 100, RECEIVE);
        drop(peer);
        assert_eof(&next(&mut ring), RECEIVE);
        let (socket, _peer) = pair(&mut ring);
        ring.receive_into(socket, room(), 100, RECEIVE);
        // Dropped with the ring, when the kernel has let go of it.
        ring.submit().unwrap();
    }
}

fn receive_exactly_into(ring: &mut Ring, socket: SocketId) -> Vec<u8> {
    ring.receive_into(socket, Vec::with_capacity(100), 100, RECEIVE);
    match next(ring).event {
        Event::ReceivedInto { bytes, .. } => bytes,
        event => panic!("{event:?}"),
    }
}
