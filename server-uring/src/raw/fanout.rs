//! A worker's fan-out: drains its mailbox in batches and gives every member one send for each
//! batch.

use std::task::{Context, Poll};

use server_core::rooms::{Batch, Delivery, RoomTable};
use uring_net::SocketId;

use crate::raw::connections::Connections;
use crate::raw::waker;
use crate::raw::worker::Worker;

/// Members served in one turn. What their sockets take at once has completed in the next, so that
/// only slow members still have something to send when the next batch comes; and nobody waits
/// longer than this for a turn.
const STRIDE: usize = 1024;

/// Members that are sent to with one system call: the first are to have a message while the others
/// are still being looked at.
const AT_A_TIME: usize = 64;

/// The members of all rooms on one worker, and what is on its way to them.
#[derive(Default)]
pub(crate) struct FanOut {
    table: RoomTable<SocketId>,
    batch: Batch<SocketId>,
    /// A delivery, and how many members have it.
    current: Option<(Delivery, usize)>,
    /// The mailbox was empty and will ring.
    listening: bool,
}

impl FanOut {
    /// The worker was woken.
    pub(crate) fn wake(&mut self) {
        self.listening = false;
    }

    /// Whether there is something to deliver or to look at.
    pub(crate) fn is_busy(&self) -> bool {
        !self.listening || waker::is_woken()
    }

    /// Delivers for one turn.
    pub(crate) fn run(&mut self, worker: &mut Worker, connections: &mut Connections) {
        if waker::take() {
            self.listening = false;
        }
        let mut left = STRIDE;
        while left > 0 && !self.listening {
            match self.current.take().or_else(|| self.next()) {
                Some((delivery, from)) => {
                    left -= self.deliver(worker, connections, delivery, from, left);
                }
                None => self.drain(worker),
            }
        }
        for socket in self.table.left() {
            if let Some(connection) = connections.find(socket) {
                connection.left(worker);
            }
        }
    }

    fn next(&mut self) -> Option<(Delivery, usize)> {
        Some((self.table.next(&mut self.batch)?, 0))
    }

    fn drain(&mut self, worker: &Worker) {
        let mailbox = worker.server.rooms.mailbox(worker.index);
        let mut cx = Context::from_waker(&worker.waker);
        self.listening = match mailbox.poll_drain(&mut cx, &mut self.batch) {
            Poll::Ready(()) => false,
            Poll::Pending => true,
        };
    }

    /// Serves at most `limit` members, beginning with the one at `from`; how many that were.
    fn deliver(
        &mut self,
        worker: &mut Worker,
        connections: &mut Connections,
        delivery: Delivery,
        from: usize,
        limit: usize,
    ) -> usize {
        let members = &self.table.members(delivery.room)[from..];
        let now = &members[..limit.min(members.len())];
        worker.quiet_sends.begin(&delivery.frames);
        for some in now.chunks(AT_A_TIME) {
            for &(_, socket) in some {
                if let Some(connection) = connections.find(socket) {
                    connection.deliver(worker, &delivery.frames);
                }
            }
            // An error shows at the next wait.
            let _ = worker.ring.submit();
        }
        let (served, all) = (now.len(), now.len() == members.len());
        if !all {
            self.current = Some((delivery, from + served));
        }
        served
    }
}
