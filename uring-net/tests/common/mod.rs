//! Rings, sockets and waiting for the tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use uring_net::{Completion, Event, OpKind, OperationId, Ring, RingBuilder, SocketId, Token};

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn ring() -> Ring {
    Ring::builder().build().unwrap()
}

/// Rings of these sizes: one gives its sockets descriptors, one keeps those that it accepts in a
/// table of its own, one those that it adopts.
pub(crate) fn of_each_kind(builder: &RingBuilder) -> [Ring; 3] {
    let accepted = builder.clone().direct(16);
    let adopted = builder.clone().direct_adopted(16);
    [builder, &accepted, &adopted].map(|builder| builder.build().unwrap())
}

/// Waits for the next completion, whatever it is.
pub(crate) fn next(ring: &mut Ring) -> Completion {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.wait(1, Some(deadline)).unwrap();
        assert!(Instant::now() < deadline, "no completion came in time");
    }
}

/// Everything that comes until nothing has come for a while.
pub(crate) fn settle(ring: &mut Ring) -> Vec<Completion> {
    let mut all = Vec::new();
    loop {
        while let Some(completion) = ring.next_completion() {
            all.push(completion);
        }
        let before = Instant::now();
        let quiet = Duration::from_millis(60);
        ring.wait(1, Some(before + quiet)).unwrap();
        match ring.next_completion() {
            Some(completion) => all.push(completion),
            None if before.elapsed() >= quiet => return all,
            None => {}
        }
    }
}

/// A std listener on a free port of the loopback interface.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connected pair: one end in the ring, one a blocking std stream.
pub(crate) fn pair(ring: &mut Ring) -> (SocketId, TcpStream) {
    let (listener, address) = listener();
    if ring.setup().direct_slots > 0 && !ring.setup().direct_adopted {
        return direct_pair(ring, listener, address);
    }
    let ours = TcpStream::connect(address).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    theirs.set_write_timeout(Some(PATIENCE)).unwrap();
    theirs.set_nodelay(true).unwrap();
    (ring.adopt(ours).unwrap(), theirs)
}

fn direct_pair(
    ring: &mut Ring,
    listener: TcpListener,
    address: SocketAddr,
) -> (SocketId, TcpStream) {
    const ACCEPT: Token = Token(u64::MAX);
    let listener = ring.adopt(listener).unwrap();
    ring.accept(listener, ACCEPT);
    let theirs = TcpStream::connect(address).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    theirs.set_write_timeout(Some(PATIENCE)).unwrap();
    theirs.set_nodelay(true).unwrap();
    let mut ours = None;
    loop {
        let Completion { token, event } = next(ring);
        assert_eq!(token, ACCEPT, "{event:?}");
        match event {
            Event::Accepted(socket) => {
                ours = Some(socket);
                ring.close(listener, ACCEPT);
            }
            // Cancelled by the close, or failed because this took the last slot.
            Event::Cancelled { .. } | Event::Failed { .. } => {}
            Event::Closed => return (ours.unwrap(), theirs),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs the named test of this file again in a process of its own, where nothing else opens
/// descriptors. True in that process.
pub(crate) fn alone(test: &str) -> bool {
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

/// Bytes that differ from place to place, so that a swap or a loss shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Takes received bytes of `token` until there are `len` of them.
pub(crate) fn receive_exactly(ring: &mut Ring, token: Token, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        match next(ring) {
            Completion {
                token: t,
                event: Event::Received(buf),
            } if t == token => bytes.extend_from_slice(&buf),
            other => panic!("{other:?} after {} bytes", bytes.len()),
        }
    }
    bytes
}

/// The peer resets the connection: the receive with this token, which has begun, ends with that
/// error.
pub(crate) fn reset_ends_receive(ring: &mut Ring, peer: TcpStream, receive: Token) {
    ring.submit().unwrap();
    socket2::SockRef::from(&peer)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(peer);
    match next(ring) {
        Completion {
            token,
            event:
                Event::Failed {
                    op: OpKind::Receive,
                    error,
                    ..
                },
        } if token == receive => assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET)),
        other => panic!("{other:?}"),
    }
}

/// More comes than the pool holds, to sockets that receive by `receive`; the caller holds all
/// buffers until nothing more comes, which is the worst it can do.
pub(crate) fn more_than_all_buffers(receive: fn(&mut Ring, SocketId, Token) -> OperationId) {
    for mut ring in of_each_kind(&Ring::builder().buffers(4, 64)) {
        let pairs: Vec<_> = (0..6).map(|_| pair(&mut ring)).collect();
        let sent = pattern(300);
        for (index, (socket, peer)) in pairs.iter().enumerate() {
            receive(&mut ring, *socket, Token(index as u64));
            let mut peer = peer;
            peer.write_all(&sent).unwrap();
        }
        let mut received = vec![Vec::new(); pairs.len()];
        while received.iter().any(|bytes| bytes.len() < sent.len()) {
            let held = settle(&mut ring);
            assert!(!held.is_empty(), "stalled with all buffers free");
            for Completion { token, event } in &held {
                match event {
                    Event::Received(bytes) => received[token.0 as usize].extend_from_slice(bytes),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(received.iter().all(|bytes| *bytes == sent));
        assert!(ring.stats().receives_starved > 0);
    }
}
