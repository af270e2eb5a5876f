//! Direct sockets: accepted, or adopted, into the ring's own table, without a descriptor. What they
//! share with others is tested with those.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use common::{
    PATIENCE, alone, listener, next, open_descriptors, pair, pattern, receive_exactly, settle,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uring_net::{Cause, Completion, Event, OpKind, Ring, SocketId, Step, Token};

const ACCEPT: Token = Token(1);
const RECEIVE: Token = Token(3);
const SEND: Token = Token(4);
const CLOSE: Token = Token(5);
const SHUTDOWN: Token = Token(6);

fn direct(slots: u32) -> Ring {
    Ring::builder().direct(slots).build().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn assert_no_slot(event: &Event) {
    match event {
        Event::Failed {
            op: OpKind::Accept,
            error,
            ..
        } => assert_eq!(error.raw_os_error(), Some(libc::ENFILE)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_direct_socket_lives_and_ends_without_a_descriptor() {
    if !alone("a_direct_socket_lives_and_ends_without_a_descriptor") {
        return;
    }
    let mut ring = direct(8);
    let before = open_descriptors();
    let (socket, mut peer) = pair(&mut ring);
    assert_eq!(open_descriptors(), before + 1, "the peer's alone");
    assert!(ring.fd(socket).is_none());
    ring.receive(socket, RECEIVE);
    peer.write_all(b"hello").unwrap();
    let Event::Received(mut bytes) = next(&mut ring).event else {
        panic!("nothing received")
    };
    bytes.make_ascii_uppercase();
    ring.send_now(socket, bytes, SEND);
    assert!(matches!(
        next(&mut ring).event,
        Event::Sent { bytes: 5, .. }
    ));
    let mut back = [0; 5];
    peer.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"HELLO");

    ring.shutdown(socket, Shutdown::Write, SHUTDOWN);
    ring.shutdown(socket, Shutdown::Write, Token(7));
    let refused = next(&mut ring);
    assert!(
        matches!(
            &refused,
            Completion { token: Token(7), event: Event::Failed { error, .. } }
                if error.raw_os_error() == Some(libc::EBUSY)
        ),
        "{refused:?}"
    );
    let done = next(&mut ring);
    assert!(
        matches!(
            done,
            Completion {
                token: SHUTDOWN,
                event: Event::ShutDown
            }
        ),
        "{done:?}"
    );
    assert_eq!(
        open_descriptors(),
        before + 1,
        "its descriptor was borrowed"
    );
    assert_eq!(peer.read(&mut back).unwrap(), 0);
    peer.write_all(b"still open").unwrap();
    assert_eq!(receive_exactly(&mut ring, RECEIVE, 10), b"still open");
    drop(peer);
    assert!(matches!(next(&mut ring).event, Event::Eof));
    ring.close(socket, CLOSE);
    assert!(matches!(next(&mut ring).event, Event::Closed));
    assert!(settle(&mut ring).is_empty());
    assert_eq!(open_descriptors(), before);
}

#[test]
fn an_adopted_socket_leaves_its_descriptor_behind() {
    if !alone("an_adopted_socket_leaves_its_descriptor_behind") {
        return;
    }
    let mut ring = Ring::builder().direct_adopted(2).build().unwrap();
    let before = open_descriptors();
    let (first, mut peer) = pair(&mut ring);
    let (second, _kept) = pair(&mut ring);
    assert_eq!(open_descriptors(), before + 2, "the peers' alone");
    assert!(ring.fd(first).is_none());
    peer.write_all(b"hello").unwrap();
    ring.receive(first, RECEIVE);
    assert_eq!(receive_exactly(&mut ring, RECEIVE, 5), b"hello");

    let (listener, address) = listener();
    let full = ring.adopt(connect(address)).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENFILE));
    // Its slot is free once it is closed, and not before.
    ring.close(first, CLOSE);
    ring.adopt(connect(address)).unwrap_err();
    assert!(matches!(next(&mut ring).event, Event::Closed));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    let third = ring.adopt(connect(address)).unwrap();
    assert_ne!(third, first);
    ring.send(third, b"here".to_vec(), SEND);
    ring.send(second, b"there".to_vec(), SEND);
    for _ in 0..2 {
        let sent = next(&mut ring).event;
        assert!(matches!(sent, Event::Sent { .. }), "{sent:?}");
    }
    // The two that were turned away end at once; the third is the one that speaks.
    let mut heard = [0; 4];
    for turned_away in [true, true, false] {
        let (mut theirs, _) = listener.accept().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = theirs.read(&mut heard).unwrap();
        assert_eq!(bytes, if turned_away { 0 } else { 4 });
    }
    assert_eq!(&heard, b"here");
}

#[test]
fn a_ring_that_adopts_directly_gives_accepted_sockets_descriptors() {
    let mut ring = Ring::builder().direct_adopted(1).build().unwrap();
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    ring.accept(listener, ACCEPT);
    let clients = [connect(address), connect(address)];
    for _ in &clients {
        let Event::Accepted(socket) = next(&mut ring).event else {
            panic!("nothing accepted")
        };
        assert!(ring.fd(socket).is_some());
    }
}

#[test]
fn a_process_without_descriptors_accepts_all_the_same() {
    if !alone("a_process_without_descriptors_accepts_all_the_same") {
        return;
    }
    let mut ring = direct(20);
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    let clients: Vec<_> = (0..20).map(|_| connect(address)).collect();
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, none).unwrap();
    ring.accept(listener, ACCEPT);
    let mut accepted = Vec::new();
    loop {
        match next(&mut ring).event {
            Event::Accepted(socket) => accepted.push(socket),
            event => break assert_no_slot(&event),
        }
    }
    assert_eq!(accepted.len(), clients.len());
    for (socket, mut client) in accepted.into_iter().zip(&clients) {
        ring.receive(socket, RECEIVE);
        client.write_all(b"x").unwrap();
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 1), b"x");
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Serves whoever is accepted until all `clients` have had their one byte back. No more than
/// `slots` at a time.
fn serve_in_turns(ring: &mut Ring, listener: SocketId, slots: usize, clients: &mut [TcpStream]) {
    for (index, client) in clients.iter_mut().enumerate() {
        client.write_all(&[index as u8]).unwrap();
    }
    let mut open = HashMap::new();
    let mut refusals = 0;
    let mut served = 0;
    ring.accept(listener, ACCEPT);
    while served < clients.len() {
        let Completion { token, event } = next(ring);
        match event {
            Event::Accepted(socket) => {
                open.insert(socket.index() as u64 + 100, socket);
                assert!(open.len() <= slots);
            }
            Event::Sent { .. } => {
                ring.close(open[&token.0], token);
            }
            Event::Received(bytes) => {
                ring.send_now(open[&token.0], bytes, token);
            }
            Event::Closed => {
                open.remove(&token.0);
                served += 1;
                if open.len() + 1 == slots {
                    ring.accept(listener, ACCEPT);
                }
            }
            event => {
                assert_no_slot(&event);
                refusals += 1;
                assert_eq!(open.len(), slots);
                assert!(settle(ring).is_empty(), "no spinning");
                // Only now, so that the table stays full until nothing more can come.
                for (token, socket) in &open {
                    ring.receive(*socket, Token(*token));
                }
            }
        }
    }
    assert!(refusals >= clients.len() / slots, "{refusals}");
    for (index, client) in clients.iter_mut().enumerate() {
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back, [index as u8]);
    }
}

#[test]
fn who_finds_the_table_full_waits_and_is_served() {
    let mut ring = direct(3);
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    let mut clients: Vec<_> = (0..30).map(|_| connect(address)).collect();
    serve_in_turns(&mut ring, listener, 3, &mut clients);
}

/// A table so large that the accept is multishot until slots become scarce.
#[test]
fn a_multishot_accept_stops_before_the_table_is_full() {
    const SLOTS: usize = 4096 + 50;
    let mut ring = direct(SLOTS as u32);
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    ring.accept(listener, ACCEPT);
    let mut clients = Vec::new();
    let mut accepted = Vec::new();
    let mut full = false;
    while !full {
        // Fewer at a time than the listener's queue holds.
        clients.extend((0..60).map(|_| connect(address)));
        while accepted.len() < clients.len() && !full {
            match next(&mut ring).event {
                Event::Accepted(socket) => accepted.push(socket),
                event => {
                    assert_no_slot(&event);
                    full = true;
                }
            }
        }
    }
    assert_eq!(accepted.len(), SLOTS);
    assert!(clients.len() > SLOTS);
    for socket in accepted.drain(..) {
        ring.close(socket, CLOSE);
    }
    let mut closed = 0;
    while closed < SLOTS {
        match next(&mut ring).event {
            Event::Closed => closed += 1,
            other => panic!("{other:?}"),
        }
    }
    ring.accept(listener, ACCEPT);
    for client in &mut clients[SLOTS..] {
        client.write_all(b"x").unwrap();
        let Event::Accepted(socket) = next(&mut ring).event else {
            panic!("not accepted")
        };
        accepted.push(socket);
    }
    for (socket, client) in accepted.iter().zip(&mut clients[SLOTS..]) {
        ring.receive(*socket, RECEIVE);
        assert_eq!(receive_exactly(&mut ring, RECEIVE, 1), b"x");
        ring.send(*socket, b"y".to_vec(), SEND);
        assert!(matches!(next(&mut ring).event, Event::Sent { .. }));
        client.read_exact(&mut [0]).unwrap();
    }
}

/// Kernels before 6.13 kept the closed socket until every older operation of the ring had ended.
#[test]
fn a_close_does_not_wait_for_other_sockets() {
    let mut ring = direct(8);
    let (idle, _idle_peer) = pair(&mut ring);
    ring.receive(idle, RECEIVE);
    let (socket, mut peer) = pair(&mut ring);
    ring.receive(socket, RECEIVE);
    ring.submit().unwrap();
    ring.close(socket, CLOSE);
    assert!(matches!(next(&mut ring).event, Event::Closed));
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
}

/// The slot of a closed socket goes to the next one at once: a shutdown that came late would reach
/// that one.
#[test]
fn a_shutdown_never_reaches_the_next_owner_of_a_slot() {
    let mut ring = direct(1);
    let (std_listener, address) = listener();
    let listener = ring.adopt(std_listener).unwrap();
    let mut owner: Option<(SocketId, TcpStream)> = None;
    for _ in 0..200 {
        let mut next_peer = connect(address);
        if let Some((socket, mut peer)) = owner.take() {
            ring.shutdown(socket, Shutdown::Both, SHUTDOWN);
            ring.close(socket, CLOSE);
            assert!(matches!(next(&mut ring).event, Event::ShutDown));
            assert!(matches!(next(&mut ring).event, Event::Closed));
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        }
        ring.accept(listener, ACCEPT);
        let Event::Accepted(socket) = next(&mut ring).event else {
            panic!("not accepted")
        };
        assert_no_slot(&next(&mut ring).event);
        ring.send(socket, b"alive".to_vec(), SEND);
        assert!(matches!(
            next(&mut ring).event,
            Event::Sent { bytes: 5, .. }
        ));
        let mut alive = [0; 5];
        next_peer.read_exact(&mut alive).unwrap();
        owner = Some((socket, next_peer));
    }
}

#[test]
fn a_dropped_ring_ends_the_streams_of_its_direct_sockets() {
    let mut ring = direct(8);
    let mut peers: Vec<_> = (0..8)
        .map(|_| {
            let (socket, peer) = pair(&mut ring);
            ring.receive(socket, RECEIVE);
            peer
        })
        .collect();
    ring.submit().unwrap();
    drop(ring);
    for peer in &mut peers {
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn accepted_sockets_inherit_nodelay_from_their_listener() {
    // What a direct socket has, shows where it can be asked: in a ring that gives it a descriptor.
    let mut ring = common::ring();
    let (std_listener, address) = listener();
    socket2::SockRef::from(&std_listener)
        .set_tcp_nodelay(true)
        .unwrap();
    let listener = ring.adopt(std_listener).unwrap();
    ring.accept(listener, ACCEPT);
    let _client = connect(address);
    let Event::Accepted(socket) = next(&mut ring).event else {
        panic!("not accepted")
    };
    let fd = ring.fd(socket).unwrap();
    assert!(socket2::SockRef::from(&fd).tcp_nodelay().unwrap());
}

#[test]
fn a_table_beyond_the_limit_on_open_files_is_refused_with_a_remedy() {
    let error = Ring::builder().direct(u32::MAX).build().unwrap_err();
    assert_eq!(error.step, Step::Table);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if let Ok(limit) = u32::try_from(limit)
        && limit < uring_net::MAX_DIRECT_SLOTS
    {
        let error = Ring::builder().direct(limit + 1).build().unwrap_err();
        assert_eq!(error.cause, Cause::Descriptors);
        assert!(
            error.to_string().contains("raise the limit on open files"),
            "{error}"
        );
        let ring = direct(limit);
        assert_eq!(ring.setup().direct_slots, limit);
    }
}

#[test]
fn pieces_larger_than_a_socket_buffer_arrive_whole() {
    let mut ring = direct(4);
    let (socket, mut peer) = pair(&mut ring);
    let bytes = pattern(3 << 20);
    ring.send(socket, bytes.clone(), SEND);
    ring.submit().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 3 << 20];
        peer.read_exact(&mut all).map(|()| all)
    });
    assert!(matches!(next(&mut ring).event, Event::Sent { .. }));
    assert!(reader.join().unwrap().unwrap() == bytes);
}

/// Each takes a descriptor for a moment.
#[test]
fn many_shutdowns_at_a_time_need_few_descriptors() {
    const SOCKETS: usize = 64;
    if !alone("many_shutdowns_at_a_time_need_few_descriptors") {
        return;
    }
    let mut ring = Ring::builder()
        .direct_adopted(SOCKETS as u32)
        .build()
        .unwrap();
    let (sockets, mut peers): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| pair(&mut ring)).unzip();
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(open_descriptors() as u64 + 10),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, few).unwrap();
    for socket in &sockets {
        ring.shutdown(*socket, Shutdown::Write, SHUTDOWN);
    }
    // The last is closed before its turn has come.
    ring.close(sockets[SOCKETS - 1], CLOSE);
    let mut done = 0;
    let mut last = Vec::new();
    while done < SOCKETS - 1 || last.len() < 2 {
        let completion = next(&mut ring);
        match completion.event {
            Event::ShutDown => done += 1,
            _ => last.push(completion),
        }
    }
    assert!(
        matches!(
            &last[..],
            [
                Completion {
                    token: SHUTDOWN,
                    event: Event::Cancelled {
                        op: OpKind::Shutdown,
                        ..
                    }
                },
                Completion {
                    token: CLOSE,
                    event: Event::Closed
                },
            ]
        ),
        "{last:?}"
    );
    for peer in &mut peers {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
    // What waits when a ring is dropped was never the kernel's.
    for socket in &sockets[..SOCKETS - 1] {
        ring.shutdown(*socket, Shutdown::Read, SHUTDOWN);
    }
    drop(ring);
}
