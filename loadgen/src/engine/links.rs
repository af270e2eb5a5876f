//! Sockets and what is waiting to be written to them: one send in flight per socket, everything
//! else in one buffer behind it.

use std::net::Shutdown;

use uring_net::{Ring, SendBuf, SocketId, Token};

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
    /// Sends in flight, and those of them that were started since the last [`Links::begin_wait`].
    in_flight: usize,
    fresh: usize,
}

impl Links {
    /// No sockets yet.
    pub fn new(ring: Ring, connections: usize) -> Self {
        let mut links = Vec::new();
        links.resize_with(connections, Link::default);
        Self {
            ring,
            links,
            dirty: Vec::new(),
            pool: Vec::new(),
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

    /// Starts a send for every connection that has bytes to send and no send in flight.
    pub fn flush(&mut self) {
        while let Some(conn) = self.dirty.pop() {
            self.links[conn as usize].dirty = false;
            self.start_send(conn as usize);
        }
    }

    fn start_send(&mut self, conn: usize) {
        let link = &mut self.links[conn];
        if link.sending || link.out.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut link.out);
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

    /// The send in flight of `conn` is over; the next one starts, if there is something to send.
    #[inline]
    pub fn sent(&mut self, conn: usize, buffer: Option<SendBuf>) {
        if let Some(buffer) = buffer.and_then(SendBuf::into_vec) {
            self.recycle(buffer);
        }
        self.links[conn].sending = false;
        self.in_flight -= 1;
        self.start_send(conn);
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
        let Link { dirty, sending, .. } = self.links[conn];
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

    #[test]
    fn a_wait_knows_which_completions_say_nothing_new() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut links = Links::new(Ring::builder().build().unwrap(), 1);
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
}
