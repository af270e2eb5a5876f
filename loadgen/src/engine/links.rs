//! Sockets and what is waiting to be written to them: one send in flight per socket, everything
//! else in one buffer behind it.

use std::net::Shutdown;

use uring_net::{Ring, SendBuf, SocketId, Token};

use crate::engine::pongs::Pongs;

/// Buffers kept for the next message, and the largest worth keeping.
const POOLED_BUFFERS: usize = 4096;
const POOLED_CAPACITY: usize = 64 << 10;

/// One connection's socket.
#[derive(Debug, Default)]
struct Link {
    socket: Option<SocketId>,
    /// Bytes behind the send in flight.
    out: Vec<u8>,
    sending: bool,
    dirty: bool,
    /// Pongs wait or are being sent: [`Pongs`] knows how many.
    has_pongs: bool,
}

/// Each of hundreds of thousands of idle connections has one.
const _: () = assert!(size_of::<Link>() <= 40);

/// The sockets of a thread, by connection.
#[derive(Debug)]
pub struct Links {
    ring: Ring,
    links: Vec<Link>,
    dirty: Vec<u32>,
    pool: Vec<Vec<u8>>,
    pongs: Pongs,
    /// The most bytes that may wait behind a send in flight, and connections that have more.
    most_unsent: usize,
    overfull: Vec<u32>,
    /// Sends in flight, and those of them that were started since the last [`Links::begin_wait`].
    in_flight: usize,
    fresh: usize,
}

impl Links {
    /// No sockets yet. More than `most_unsent` bytes never wait for a server that reads.
    pub fn new(ring: Ring, connections: usize, most_unsent: usize) -> Self {
        let mut links = Vec::new();
        links.resize_with(connections, Link::default);
        Self {
            ring,
            links,
            dirty: Vec::new(),
            pool: Vec::new(),
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
        self.links[conn].socket = Some(socket);
    }

    /// The socket of `conn`.
    pub fn socket(&self, conn: usize) -> Option<SocketId> {
        self.links[conn].socket
    }

    /// Where the next bytes for `conn` go; they leave at the next [`flush`](Self::flush).
    // RFC 6455 section 6.1: data-is-sent
    #[inline]
    pub fn outgoing(&mut self, conn: usize) -> &mut Vec<u8> {
        let link = &mut self.links[conn];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(conn as u32);
        }
        if link.out.capacity() == 0
            && let Some(buffer) = self.pool.pop()
        {
            link.out = buffer;
        }
        &mut link.out
    }

    /// Answers a ping of `conn`. How many pings, 1 or 0, get no pong of their own by that: when too
    /// many pongs wait, only the last ping will be answered.
    pub fn pong(&mut self, conn: usize, payload: &[u8]) -> u64 {
        self.outgoing(conn);
        let link = &mut self.links[conn];
        link.has_pongs = true;
        self.pongs.answer(conn, payload, &mut link.out)
    }

    /// Whether `conn` may be given more to send.
    pub fn has_room(&self, conn: usize) -> bool {
        self.links[conn].out.len() <= self.most_unsent
    }

    /// A connection for which more bytes wait than may wait.
    pub fn take_overfull(&mut self) -> Option<usize> {
        self.overfull.pop().map(|conn| conn as usize)
    }

    /// Starts a send for every connection that has bytes to send and no send in flight.
    pub fn flush(&mut self) {
        while let Some(conn) = self.dirty.pop() {
            self.links[conn as usize].dirty = false;
            self.start_send(conn as usize);
        }
    }

    fn start_send(&mut self, conn: usize) {
        let link = &mut self.links[conn];
        if link.sending {
            if link.out.len() > self.most_unsent {
                self.overfull.push(conn as u32);
            }
            return;
        }
        if link.out.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut link.out);
        if link.has_pongs {
            self.pongs.sending(conn);
        }
        match link.socket {
            Some(socket) => {
                link.sending = true;
                self.in_flight += 1;
                self.fresh += 1;
                self.ring.send(socket, buffer, Token(conn as u64));
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
        let link = &mut self.links[conn];
        link.sending = false;
        let mut pongs = 0;
        if link.has_pongs {
            pongs = self.pongs.sent(conn, &mut link.out);
            link.has_pongs = self.pongs.has(conn);
        }
        self.in_flight -= 1;
        self.start_send(conn);
        pongs
    }

    /// Hands sends that were started to the kernel, without waiting.
    pub fn submit_sends(&mut self) {
        // A failure shows at the next wait.
        let _ = self.ring.submit();
    }

    /// How many sends were started since the last wait: the kernel finishes them as it takes them,
    /// so that the wait that comes next can look past so many completions. `None` when a socket was
    /// full: then its send may be finished at any time.
    pub fn begin_wait(&mut self) -> Option<usize> {
        let fresh = std::mem::take(&mut self.fresh);
        (self.in_flight == fresh).then_some(fresh)
    }

    /// Nothing in flight and nothing waiting.
    pub fn is_quiet(&self, conn: usize) -> bool {
        !self.links[conn].sending && self.links[conn].out.is_empty()
    }

    #[inline]
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.pool.len() < POOLED_BUFFERS && buffer.capacity() <= POOLED_CAPACITY {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// No more bytes will be written.
    pub fn shutdown_write(&mut self, conn: usize) {
        if let Some(socket) = self.links[conn].socket {
            self.ring
                .shutdown(socket, Shutdown::Write, Token(conn as u64));
        }
    }

    /// Closes the socket; `Closed` comes when it is gone.
    pub fn close(&mut self, conn: usize) {
        let link = &mut self.links[conn];
        link.out = Vec::new();
        if let Some(socket) = link.socket.take() {
            self.ring.close(socket, Token(conn as u64));
        }
    }

    /// The socket is gone: the place may be used again.
    pub fn reset(&mut self, conn: usize) {
        let Link {
            dirty,
            sending,
            has_pongs,
            ..
        } = self.links[conn];
        if has_pongs {
            self.pongs.forget(conn);
        }
        // Cancelled together with the socket.
        self.in_flight -= usize::from(sending);
        self.links[conn] = Link {
            dirty,
            ..Link::default()
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
        let mut links = Links::new(Ring::builder().build().unwrap(), 1, 100);
        let socket = links.ring().adopt(ours).unwrap();
        links.attach(0, socket);
        assert_eq!(links.begin_wait(), Some(0));
        links.outgoing(0).extend_from_slice(b"hello");
        links.flush();
        assert_eq!(links.begin_wait(), Some(1));
        // The send is finished within the wait, which goes on for the completion that does not
        // come.
        let deadline = Instant::now() + Duration::from_millis(20);
        links.ring().wait(2, Some(deadline)).unwrap();
        assert!(Instant::now() >= deadline);
        take_sent(&mut links);
        assert!(links.is_quiet(0));
        assert_eq!(links.begin_wait(), Some(0));
        // More than the socket takes: its completion is news, whenever it comes.
        links.outgoing(0).resize(8 << 20, 1);
        links.flush();
        assert_eq!(links.begin_wait(), Some(1));
        links.ring().wait(0, None).unwrap();
        assert!(links.ring().next_completion().is_none());
        assert_eq!(links.begin_wait(), None);
        drop(theirs);
    }

    fn take_sent(links: &mut Links) {
        let completion = links.ring().next_completion().unwrap();
        let Event::Sent { buf, .. } = completion.event else {
            panic!("{completion:?}");
        };
        links.sent(0, Some(buf));
    }

    #[test]
    fn what_a_server_does_not_read_is_bounded() {
        const ROOM: usize = 100;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut links = Links::new(Ring::builder().build().unwrap(), 1, ROOM);
        let socket = links.ring().adopt(ours).unwrap();
        links.attach(0, socket);
        links.outgoing(0).resize(8 << 20, 1);
        links.flush();
        links.ring().wait(0, None).unwrap();
        // Behind what is being sent.
        links.outgoing(0).resize(ROOM, 1);
        links.flush();
        assert!(links.has_room(0));
        assert_eq!(links.take_overfull(), None);
        links.outgoing(0).push(1);
        links.flush();
        assert!(!links.has_room(0));
        assert_eq!(links.take_overfull(), Some(0));
        drop(theirs);
    }

    #[test]
    fn a_pong_counts_when_it_has_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut links = Links::new(Ring::builder().build().unwrap(), 1, usize::MAX);
        let socket = links.ring().adopt(ours).unwrap();
        links.attach(0, socket);
        links.outgoing(0).resize(8 << 20, 1);
        links.flush();
        for ping in 0..10_000_u32 {
            links.pong(0, &ping.to_be_bytes());
        }
        links.flush();
        assert!(links.links[0].out.len() < 2 * MOST_WAITING_BYTES);
        let reader = std::thread::spawn(move || std::io::copy(&mut theirs, &mut std::io::sink()));
        let mut left = Vec::new();
        while !links.is_quiet(0) {
            links.ring().wait(1, None).unwrap();
            while let Some(completion) = links.ring().next_completion() {
                let Event::Sent { buf, .. } = completion.event else {
                    panic!("{completion:?}");
                };
                left.push(links.sent(0, Some(buf)));
            }
        }
        let waited = MOST_WAITING_BYTES.div_ceil(2 + 4 + 4) as u64;
        assert_eq!(
            left,
            [0, waited + 1],
            "none before its own send, and the last ping's"
        );
        drop(links);
        reader.join().unwrap().unwrap();
    }
}
