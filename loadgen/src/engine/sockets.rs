//! Sockets and what is waiting to be written to them: one send in flight per socket, everything
//! else in one buffer behind it.

use std::net::Shutdown;

use uring_net::{Ring, SendBuf, SocketId, Token};

use crate::engine::pongs::Pongs;

/// Buffers kept for the next messages, in bytes, all together.
const POOLED_BYTES: usize = 8 << 20;
/// So much is written before the kernel copies it, out of the cache, and the server sees it. At 64
/// bytes a message a wait comes sooner.
const SUBMITTED_BYTES: usize = 256 << 10;

/// One connection's socket.
#[derive(Debug, Default)]
struct Socket {
    id: Option<SocketId>,
    /// Bytes behind the send in flight.
    out: Vec<u8>,
    sending: bool,
    dirty: bool,
    /// Pongs wait or are being sent: [`Pongs`] knows how many.
    has_pongs: bool,
}

/// Each of hundreds of thousands of idle connections has one.
const _: () = assert!(size_of::<Socket>() <= 40);

/// The sockets of a thread, by connection.
#[derive(Debug)]
pub struct Sockets {
    ring: Ring,
    sockets: Vec<Socket>,
    dirty: Vec<u32>,
    pool: Vec<Vec<u8>>,
    pooled_bytes: usize,
    /// Bytes given to the ring that the kernel has not seen.
    unsubmitted: usize,
    pongs: Pongs,
    /// The most bytes that may wait behind a send in flight, and connections that have more.
    most_unsent: usize,
    overfull: Vec<u32>,
    /// Sends in flight, and those of them that were started since the last [`Sockets::begin_wait`].
    in_flight: usize,
    fresh: usize,
}

impl Sockets {
    /// No sockets yet. More than `most_unsent` bytes never wait for a server that reads.
    pub fn new(ring: Ring, connections: usize, most_unsent: usize) -> Self {
        let mut sockets = Vec::new();
        sockets.resize_with(connections, Socket::default);
        Self {
            ring,
            sockets,
            dirty: Vec::new(),
            pool: Vec::new(),
            pooled_bytes: 0,
            unsubmitted: 0,
            pongs: Pongs::default(),
            most_unsent,
            overfull: Vec::new(),
            in_flight: 0,
            fresh: 0,
        }
    }

    /// The ring, to wait and to take completions.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// `conn` has a socket from now on.
    pub fn attach(&mut self, conn: usize, socket: SocketId) {
        self.sockets[conn].id = Some(socket);
    }

    /// The socket of `conn`.
    pub fn socket(&self, conn: usize) -> Option<SocketId> {
        self.sockets[conn].id
    }

    /// Where the next bytes for `conn` go; they leave at the next [`flush`](Self::flush).
    // RFC 6455 section 6.1: data-is-sent
    #[inline]
    pub fn outgoing(&mut self, conn: usize) -> &mut Vec<u8> {
        let socket = &mut self.sockets[conn];
        if !socket.dirty {
            socket.dirty = true;
            self.dirty.push(conn as u32);
        }
        if socket.out.capacity() == 0
            && let Some(buffer) = self.pool.pop()
        {
            self.pooled_bytes -= buffer.capacity();
            socket.out = buffer;
        }
        &mut socket.out
    }

    /// Answers a ping of `conn`. How many pings, 1 or 0, get no pong of their own by that: when too
    /// many pongs wait, only the last ping will be answered.
    pub fn pong(&mut self, conn: usize, payload: &[u8]) -> u64 {
        self.outgoing(conn);
        let socket = &mut self.sockets[conn];
        socket.has_pongs = true;
        self.pongs.answer(conn, payload, &mut socket.out)
    }

    /// Whether `conn` may be given more to send.
    pub fn has_room(&self, conn: usize) -> bool {
        self.sockets[conn].out.len() <= self.most_unsent
    }

    /// A connection for which more bytes wait than may wait.
    pub fn take_overfull(&mut self) -> Option<usize> {
        self.overfull.pop().map(|conn| conn as usize)
    }

    /// How many messages of `size` bytes may be written before a [`flush`](Self::flush), at most
    /// `most`.
    pub fn batch(size: usize, most: usize) -> usize {
        (SUBMITTED_BYTES / size.max(1)).clamp(1, most)
    }

    /// Starts a send for every connection that has bytes to send and no send in flight.
    pub fn flush(&mut self) {
        while let Some(conn) = self.dirty.pop() {
            self.sockets[conn as usize].dirty = false;
            self.start_send(conn as usize);
        }
        if self.unsubmitted >= SUBMITTED_BYTES {
            self.submit_sends();
        }
    }

    fn start_send(&mut self, conn: usize) {
        let socket = &mut self.sockets[conn];
        if socket.sending {
            if socket.out.len() > self.most_unsent {
                self.overfull.push(conn as u32);
            }
            return;
        }
        if socket.out.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut socket.out);
        if socket.has_pongs {
            self.pongs.sending(conn);
        }
        match socket.id {
            Some(id) => {
                socket.sending = true;
                self.in_flight += 1;
                self.fresh += 1;
                self.unsubmitted += buffer.len();
                self.ring.send(id, buffer, Token(conn as u64));
            }
            None => self.recycle(buffer),
        }
    }

    /// The send in flight of `conn` is over, whether it left or failed; the next one starts, if
    /// there is something to send. How many pongs were in it.
    #[inline]
    pub fn sent(&mut self, conn: usize, buffer: Option<SendBuf>) -> u64 {
        if let Some(buffer) = buffer.and_then(SendBuf::into_vec) {
            self.recycle(buffer);
        }
        let socket = &mut self.sockets[conn];
        socket.sending = false;
        let mut pongs = 0;
        if socket.has_pongs {
            pongs = self.pongs.sent(conn, &mut socket.out);
            socket.has_pongs = self.pongs.has(conn);
        }
        self.in_flight -= 1;
        self.start_send(conn);
        pongs
    }

    /// Hands sends that were started to the kernel, without waiting.
    pub fn submit_sends(&mut self) {
        self.unsubmitted = 0;
        // A failure shows at the next wait.
        let _ = self.ring.submit();
    }

    /// How many sends were started since the last wait: the kernel finishes them as it takes them,
    /// so that the wait that comes next can look past so many completions. `None` when a socket was
    /// full: then its send may be finished at any time.
    pub fn begin_wait(&mut self) -> Option<usize> {
        self.unsubmitted = 0;
        let fresh = std::mem::take(&mut self.fresh);
        (self.in_flight == fresh).then_some(fresh)
    }

    /// Nothing in flight and nothing waiting.
    pub fn is_quiet(&self, conn: usize) -> bool {
        !self.sockets[conn].sending && self.sockets[conn].out.is_empty()
    }

    #[inline]
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pooled_bytes + buffer.capacity() <= POOLED_BYTES {
            self.pooled_bytes += buffer.capacity();
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// No more bytes will be written.
    pub fn shutdown_write(&mut self, conn: usize) {
        if let Some(id) = self.sockets[conn].id {
            self.ring.shutdown(id, Shutdown::Write, Token(conn as u64));
        }
    }

    /// Closes the socket; `Closed` comes when it is gone.
    pub fn close(&mut self, conn: usize) {
        let socket = &mut self.sockets[conn];
        socket.out = Vec::new();
        if let Some(id) = socket.id.take() {
            self.ring.close(id, Token(conn as u64));
        }
    }

    /// The socket is gone: the place may be used again.
    pub fn reset(&mut self, conn: usize) {
        let Socket {
            dirty,
            sending,
            has_pongs,
            ..
        } = self.sockets[conn];
        if has_pongs {
            self.pongs.forget(conn);
        }
        // Cancelled together with the socket.
        self.in_flight -= usize::from(sending);
        self.sockets[conn] = Socket {
            dirty,
            ..Socket::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    use uring_net::Event;

    use super::*;
    use crate::engine::pongs::MOST_WAITING_BYTES;

    #[test]
    fn a_wait_knows_which_completions_say_nothing_new() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::new(Ring::builder().build().unwrap(), 1, 100);
        let socket = sockets.ring().adopt(ours).unwrap();
        sockets.attach(0, socket);
        assert_eq!(sockets.begin_wait(), Some(0));
        sockets.outgoing(0).extend_from_slice(b"hello");
        sockets.flush();
        assert_eq!(sockets.begin_wait(), Some(1));
        // The send is finished within the wait, which goes on for the completion that does not
        // come.
        let deadline = Instant::now() + Duration::from_millis(20);
        sockets.ring().wait(2, Some(deadline)).unwrap();
        assert!(Instant::now() >= deadline);
        take_sent(&mut sockets);
        assert!(sockets.is_quiet(0));
        assert_eq!(sockets.begin_wait(), Some(0));
        // More than the socket takes: its completion is news, whenever it comes.
        sockets.outgoing(0).resize(8 << 20, 1);
        sockets.flush();
        assert_eq!(sockets.begin_wait(), Some(1));
        sockets.ring().wait(0, None).unwrap();
        assert!(sockets.ring().next_completion().is_none());
        assert_eq!(sockets.begin_wait(), None);
        drop(theirs);
    }

    fn take_sent(sockets: &mut Sockets) {
        let completion = sockets.ring().next_completion().unwrap();
        let Event::Sent { buf, .. } = completion.event else {
            panic!("{completion:?}");
        };
        sockets.sent(0, Some(buf));
    }

    #[test]
    fn what_a_server_does_not_read_is_bounded() {
        const ROOM: usize = 100;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::new(Ring::builder().build().unwrap(), 1, ROOM);
        let socket = sockets.ring().adopt(ours).unwrap();
        sockets.attach(0, socket);
        sockets.outgoing(0).resize(8 << 20, 1);
        sockets.flush();
        sockets.ring().wait(0, None).unwrap();
        // Behind what is being sent.
        sockets.outgoing(0).resize(ROOM, 1);
        sockets.flush();
        assert!(sockets.has_room(0));
        assert_eq!(sockets.take_overfull(), None);
        sockets.outgoing(0).push(1);
        sockets.flush();
        assert!(!sockets.has_room(0));
        assert_eq!(sockets.take_overfull(), Some(0));
        drop(theirs);
    }

    #[test]
    fn a_pong_counts_when_it_has_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut sockets = Sockets::new(Ring::builder().build().unwrap(), 1, usize::MAX);
        let socket = sockets.ring().adopt(ours).unwrap();
        sockets.attach(0, socket);
        sockets.outgoing(0).resize(8 << 20, 1);
        sockets.flush();
        for ping in 0..10_000_u32 {
            sockets.pong(0, &ping.to_be_bytes());
        }
        sockets.flush();
        assert!(sockets.sockets[0].out.len() < 2 * MOST_WAITING_BYTES);
        let reader = std::thread::spawn(move || std::io::copy(&mut theirs, &mut std::io::sink()));
        let mut left = Vec::new();
        while !sockets.is_quiet(0) {
            sockets.ring().wait(1, None).unwrap();
            while let Some(completion) = sockets.ring().next_completion() {
                let Event::Sent { buf, .. } = completion.event else {
                    panic!("{completion:?}");
                };
                left.push(sockets.sent(0, Some(buf)));
            }
        }
        let waited = MOST_WAITING_BYTES.div_ceil(2 + 4 + 4) as u64;
        assert_eq!(
            left,
            [0, waited + 1],
            "none before its own send, and the last ping's"
        );
        drop(sockets);
        reader.join().unwrap().unwrap();
    }
}
