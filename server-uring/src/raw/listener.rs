//! Accepting connections.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use server_core::system::is_out_of_descriptors;
use uring_net::{Ring, SocketId, Token};

use crate::raw::connection::Connection;
use crate::raw::connections::Connections;
use crate::raw::worker::Worker;

/// A listening socket of a worker and its multishot accept.
pub(crate) struct Listener {
    socket: SocketId,
    /// The ring has the accept. Otherwise it is out of descriptors: nothing is accepted until a
    /// connection closes, or for a moment.
    accepting: bool,
}

impl Listener {
    /// Begins to accept.
    ///
    /// # Errors
    /// When the socket cannot be put into blocking mode.
    pub(crate) fn start(ring: &mut Ring, listener: TcpListener) -> io::Result<Self> {
        let socket = ring.adopt(listener)?;
        ring.accept(socket, token(socket));
        Ok(Self {
            socket,
            accepting: true,
        })
    }

    pub(crate) fn is_at(&self, slot: usize) -> bool {
        self.socket.index() == slot
    }

    /// Serves a connection.
    pub(crate) fn accepted(
        &mut self,
        worker: &mut Worker,
        connections: &mut Connections,
        socket: SocketId,
    ) {
        worker.server.shortage.accepted();
        worker.counters().connections_accepted.add(1);
        serve(worker, connections, socket);
    }

    /// The accept is over.
    pub(crate) fn failed(&mut self, worker: &mut Worker, error: &io::Error) {
        self.accepting = false;
        if worker.server.is_draining() {
            return;
        }
        worker.counters().accept_errors.add(1);
        if !is_out_of_descriptors(error) {
            tracing::debug!(%error, "a connection was lost before it was accepted");
            self.retry(worker);
            return;
        }
        worker.server.shortage.failed(error);
        worker.start_clock();
    }

    /// A connection has closed: there is a descriptor.
    pub(crate) fn retry(&mut self, worker: &mut Worker) {
        if !self.accepting && !worker.server.is_draining() {
            self.accepting = true;
            worker.ring.accept(self.socket, token(self.socket));
        }
    }

    /// A moment has passed: descriptors may also have come free elsewhere. Tries only when a
    /// connection is pending: the kernel reserves the descriptor first, so accept would fail even
    /// with nothing to accept.
    pub(crate) fn retry_if_pending(&mut self, worker: &mut Worker) {
        if self.accepting {
            return;
        }
        let Some(fd) = worker.ring.fd(self.socket) else {
            return;
        };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let waiting = poll(&mut fds, Some(&Timespec::default()));
        if waiting.is_ok_and(|ready| ready == 0) {
            worker.start_clock();
        } else {
            self.retry(worker);
        }
    }

    /// Stops accepting. Connections from now on are refused.
    pub(crate) fn close(&mut self, worker: &mut Worker) {
        worker.ring.close(self.socket, token(self.socket));
    }
}

/// Serves connections that another thread has accepted. Where the ring's table is full they wait
/// for one to close.
pub(crate) fn take_over(
    worker: &mut Worker,
    connections: &mut Connections,
    handed_over: &mut VecDeque<UnixStream>,
) {
    while worker.ring.can_adopt()
        && let Some(stream) = handed_over.pop_front()
    {
        match worker.ring.adopt(stream) {
            Ok(socket) => {
                worker.server.shortage.accepted();
                serve(worker, connections, socket);
            }
            Err(error) => {
                worker.counters().accept_errors.add(1);
                tracing::debug!(%error, "a connection was lost when it was accepted");
            }
        }
    }
    if !handed_over.is_empty() {
        worker.counters().accept_errors.add(1);
        worker.server.shortage.failed(&Errno::NFILE.into());
    }
}

fn serve(worker: &mut Worker, connections: &mut Connections, socket: SocketId) {
    let mut connection = Connection::new(worker, socket);
    if worker.server.is_draining() {
        connection.close(worker);
    }
    connections.insert(connection);
}

fn token(socket: SocketId) -> Token {
    Token(socket.index() as u64)
}
