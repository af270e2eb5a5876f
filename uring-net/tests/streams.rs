//! Streams: accept, connect, receive, send, shutdown, close.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use std::thread;
use std::time::Instant;

use bytes::Bytes;
use common::{
    PATIENCE, listener, more_than_all_buffers, next, of_each_kind, pair, pattern, receive_exactly,
    reset_ends_receive, ring, settle,
};
use socket2::{Domain, SockAddr, Socket, Type};
use uring_net::{Completion, Event, OpKind, Ring, SendBuf, Token};

const ACCEPT: Token = Token(1);
const CONNECT: Token = Token(2);
const RECEIVE: Token = Token(3);
const SEND: Token = Token(4);
const CLOSE: Token = Token(5);

#[test]
fn both_ends_of_an_echo_live_in_one_ring() {
    let mut ring = ring();
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    ring.accept(listener, ACCEPT);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let client = ring.adopt(client).unwrap();
    ring.connect(client, address, CONNECT);

    let (mut server, mut connected) = (None, false);
    while server.is_none() || !connected {
        match next(&mut ring) {
            Completion {
                token: ACCEPT,
                event: Event::Accepted(socket),
            } => server = Some(socket),
            Completion {
                token: CONNECT,
                event: Event::Connected,
            } => connected = true,
            other => panic!("{other:?}"),
        }
    }
    let server = server.unwrap();
    ring.receive(server, Token(10));
    ring.receive(client, Token(11));
    ring.send(client, b"hello".to_vec(), SEND);
    let mut back = Vec::new();
    let mut sent = 0;
    while back.len() < 5 || sent < 2 {
        let Completion { token, event } = next(&mut ring);
        match event {
            Event::Received(mut bytes) if token == Token(10) => {
                bytes.make_ascii_uppercase();
                ring.send(server, bytes, SEND);
            }
            Event::Received(bytes) => back.extend_from_slice(&bytes),
            Event::Sent { bytes, .. } => {
                assert_eq!(bytes, 5);
                sent += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(back, b"HELLO");
}

#[test]
fn bytes_arrive_in_order_through_many_small_buffers() {
    for mut ring in of_each_kind(&Ring::builder().buffers(8, 512)) {
        let (socket, mut peer) = pair(&mut ring);
        let sent = pattern(2 << 20);
        let copy = sent.clone();
        let writer = thread::spawn(move || peer.write_all(&copy).map(|()| peer));
        ring.receive(socket, RECEIVE);
        assert!(receive_exactly(&mut ring, RECEIVE, sent.len()) == sent);
        drop(writer.join().unwrap());
        let end = next(&mut ring);
        assert!(
            matches!(
                end,
                Completion {
                    token: RECEIVE,
                    event: Event::Eof
                }
            ),
            "{end:?}"
        );
        assert!(settle(&mut ring).is_empty());
    }
}

#[test]
fn running_out_of_buffers_loses_nothing() {
    more_than_all_buffers(Ring::receive);
}

/// Sends `bytes` to a reader that counts on the other end; gives back the ring.
fn send_all(mut ring: Ring, bytes: &[u8], send_buffer: Option<usize>) -> Ring {
    let (socket, mut peer) = pair(&mut ring);
    if let Some(size) = send_buffer {
        socket2::SockRef::from(&ring.fd(socket).unwrap())
            .set_send_buffer_size(size)
            .unwrap();
    }
    ring.send(socket, bytes.to_vec(), SEND);
    ring.submit().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    match next(&mut ring) {
        Completion {
            token: SEND,
            event: Event::Sent { buf, bytes: n },
        } => {
            assert_eq!(n, bytes.len());
            assert!(buf.into_vec().unwrap() == bytes);
        }
        other => panic!("{other:?}"),
    }
    ring.shutdown(socket, Shutdown::Write, CLOSE);
    let end = next(&mut ring);
    assert!(
        matches!(
            end,
            Completion {
                token: CLOSE,
                event: Event::ShutDown
            }
        ),
        "{end:?}"
    );
    assert!(reader.join().unwrap().unwrap() == bytes);
    ring
}

#[test]
fn a_send_completes_when_a_small_socket_buffer_has_taken_all() {
    send_all(ring(), &pattern(1 << 20), Some(4096));
}

#[test]
fn a_send_too_long_for_one_operation_is_continued() {
    for ring in of_each_kind(&Ring::builder()) {
        let ring = send_all(ring, &pattern(40 << 20), None);
        assert!(ring.stats().sends_continued >= 2);
    }
}

#[test]
fn parts_of_every_kind_of_buffer_are_sent() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive(socket, RECEIVE);
        peer.write_all(b"0123456789").unwrap();
        let lease = match next(&mut ring).event {
            Event::Received(lease) => lease,
            other => panic!("{other:?}"),
        };
        assert_eq!(lease.len(), 10);
        let shared = Bytes::from(b"shared".to_vec());
        let sends: [(SendBuf, std::ops::Range<usize>, &[u8]); 5] = [
            (lease.into(), 2..5, b"234"),
            (shared.clone().into(), 0..6, b"shared"),
            (b"vector".to_vec().into(), 3..100, b"tor"),
            (b"empty".to_vec().into(), 2..2, b""),
            (b"mistake".to_vec().into(), 50..60, b""),
        ];
        for (buf, range, expected) in sends {
            ring.send_range(socket, buf, range, SEND);
            match next(&mut ring) {
                Completion {
                    token: SEND,
                    event: Event::Sent { bytes, .. },
                } => assert_eq!(bytes, expected.len()),
                other => panic!("{other:?}"),
            }
            let mut got = vec![0; expected.len()];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, expected);
        }
        assert!(
            shared.is_unique(),
            "the ring keeps nothing after the completion"
        );
    }
}

#[test]
fn a_send_that_does_not_wait_says_how_much_the_socket_took() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        let piece = pattern(100_000);
        fill(&mut peer, &piece, || {
            ring.send_now(socket, piece.clone(), SEND);
            match next(&mut ring).event {
                Event::Sent { buf, bytes } if *buf == *piece => bytes,
                other => panic!("{other:?}"),
            }
        });
        drop(peer);
        let failed = loop {
            ring.send_now(socket, b"anyone?".to_vec(), SEND);
            match next(&mut ring).event {
                Event::Sent { .. } => {}
                other => break other,
            }
        };
        assert!(
            matches!(
                failed,
                Event::Failed {
                    op: OpKind::Send,
                    buf: Some(_),
                    ..
                }
            ),
            "{failed:?}"
        );
    }
}

/// Has `send` send `piece`, and say how much of it the socket took, until that is not all of it.
/// The peer receives what was taken.
fn fill(peer: &mut TcpStream, piece: &[u8], mut send: impl FnMut() -> usize) {
    let mut taken = Vec::new();
    loop {
        let bytes = send();
        taken.extend_from_slice(&piece[..bytes]);
        if bytes < piece.len() {
            break;
        }
        assert!(taken.len() < 1 << 30, "the socket takes everything");
    }
    let mut got = vec![0; taken.len()];
    peer.read_exact(&mut got).unwrap();
    assert!(got == taken);
}

#[test]
fn a_quiet_send_speaks_only_of_what_the_socket_did_not_take() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, mut peer) = pair(&mut ring);
        ring.receive(socket, RECEIVE);
        let piece = Bytes::from(pattern(100_000));
        fill(&mut peer, &piece, || {
            ring.send_quietly(socket, &piece);
            assert!(!ring.has_settled(), "the kernel does not know of it");
            ring.submit().unwrap();
            let bytes = match ring.next_completion() {
                None => piece.len(),
                Some(Completion {
                    token: RECEIVE,
                    event: Event::SentPart { bytes },
                }) => bytes,
                other => panic!("{other:?}"),
            };
            assert!(ring.has_settled());
            bytes
        });
        ring.send(socket, vec![0; 64 << 20], SEND);
        ring.send_quietly(socket, &piece);
        let Event::Failed { error, .. } = next(&mut ring).event else {
            panic!("two sends at a time");
        };
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        ring.close(socket, CLOSE);
        ring.send_quietly(socket, &piece);
        let refused = next(&mut ring);
        assert!(
            matches!(&refused.event, Event::Failed { error, .. }
                if error.raw_os_error() == Some(libc::EBADF)),
            "{refused:?}"
        );
    }
}

#[test]
fn a_quiet_send_to_a_peer_that_has_gone_fails() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, peer) = pair(&mut ring);
        drop(peer);
        let bytes = Bytes::from_static(b"anyone?");
        let deadline = Instant::now() + PATIENCE;
        let event = loop {
            ring.send_quietly(socket, &bytes);
            ring.submit().unwrap();
            if let Some(Completion { event, .. }) = ring.next_completion() {
                break event;
            }
            assert!(Instant::now() < deadline, "no send has failed");
        };
        assert!(
            matches!(
                event,
                Event::Failed {
                    op: OpKind::Send,
                    buf: None,
                    ..
                }
            ),
            "{event:?}"
        );
    }
}

#[test]
fn a_second_send_in_flight_is_refused_with_its_buffer() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, _peer) = pair(&mut ring);
        ring.send(socket, vec![0; 64 << 20], SEND);
        ring.send(socket, b"second".to_vec(), Token(9));
        match next(&mut ring) {
            Completion {
                token: Token(9),
                event:
                    Event::Failed {
                        op: OpKind::Send,
                        error,
                        buf: Some(buf),
                    },
            } => {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
                assert_eq!(&*buf, b"second");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_multishot_accept_takes_every_connection() {
    let mut ring = Ring::builder().entries(8).cq_entries(8).build().unwrap();
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    let accept = ring.accept(listener, ACCEPT);
    ring.submit().unwrap();
    let clients: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut accepted = Vec::new();
    while accepted.len() < clients.len() {
        match next(&mut ring) {
            Completion {
                token: ACCEPT,
                event: Event::Accepted(socket),
            } => accepted.push(socket),
            other => panic!("{other:?}"),
        }
    }
    let mut indices: Vec<_> = accepted.iter().map(|socket| socket.index()).collect();
    indices.dedup();
    assert_eq!(indices.len(), clients.len());
    ring.cancel(accept);
    let last = next(&mut ring);
    assert!(
        matches!(
            last,
            Completion {
                token: ACCEPT,
                event: Event::Cancelled {
                    op: OpKind::Accept,
                    ..
                }
            }
        ),
        "{last:?}"
    );
    let _late = TcpStream::connect(address).unwrap();
    assert!(settle(&mut ring).is_empty());
}

#[test]
fn a_refused_connection_is_reported() {
    let mut ring = ring();
    let (free, address) = listener();
    drop(free);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let socket = ring.adopt(socket).unwrap();
    ring.connect(socket, address, CONNECT);
    match next(&mut ring) {
        Completion {
            token: CONNECT,
            event:
                Event::Failed {
                    op: OpKind::Connect,
                    error,
                    buf: None,
                },
        } => {
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_unix_socket_connects_and_carries_bytes_both_ways() {
    let path = std::env::temp_dir().join(format!("uring-net-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut ring = ring();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let socket = ring.adopt(socket).unwrap();
    ring.connect(socket, SockAddr::unix(&path).unwrap(), CONNECT);
    let connected = next(&mut ring);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(connected.event, Event::Connected), "{connected:?}");
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"to the ring").unwrap();
    ring.receive(socket, RECEIVE);
    let received = next(&mut ring);
    let Event::Received(bytes) = received.event else {
        panic!("{received:?}");
    };
    assert_eq!(&*bytes, b"to the ring");
    ring.send(socket, bytes, SEND);
    let sent = next(&mut ring);
    assert!(
        matches!(sent.event, Event::Sent { bytes: 11, .. }),
        "{sent:?}"
    );
    let mut back = [0; 11];
    peer.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"to the ring");
}

#[test]
fn an_ipv6_address_connects() {
    let mut ring = ring();
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let socket = ring.adopt(socket).unwrap();
    ring.connect(socket, listener.local_addr().unwrap(), CONNECT);
    assert!(matches!(
        next(&mut ring),
        Completion {
            token: CONNECT,
            event: Event::Connected
        }
    ));
}

#[test]
fn a_reset_ends_the_receive_with_its_error() {
    for mut ring in of_each_kind(&Ring::builder()) {
        let (socket, peer) = pair(&mut ring);
        ring.receive(socket, RECEIVE);
        reset_ends_receive(&mut ring, peer, RECEIVE);
        ring.send(socket, b"too late".to_vec(), SEND);
        let late = next(&mut ring);
        assert!(
            matches!(
                late.event,
                Event::Failed {
                    op: OpKind::Send,
                    buf: Some(_),
                    ..
                }
            ),
            "{late:?}"
        );
    }
}

#[test]
fn a_nonblocking_socket_is_adopted_all_the_same() {
    let mut ring = ring();
    let (std_listener, address) = listener();
    let mut peer = TcpStream::connect(address).unwrap();
    let (ours, _) = std_listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let socket = ring.adopt(ours).unwrap();
    ring.receive(socket, RECEIVE);
    ring.submit().unwrap();
    peer.write_all(b"later").unwrap();
    assert_eq!(receive_exactly(&mut ring, RECEIVE, 5), b"later");
}
