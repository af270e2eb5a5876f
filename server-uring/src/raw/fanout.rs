//! A worker's fan-out: drains its mailbox in batches and gives every member one send for each
//! batch.

use std::cell::RefCell;
use std::task::{Context, Poll};

use server_core::rooms::{Batch, Delivery, RoomTable};
use uring_net::SocketId;

use crate::raw::bell;
use crate::raw::connections::Connections;
use crate::raw::worker::Worker;

/// Members served in one turn. What their sockets take at once has completed in the next, so that
/// only slow members still have something to send when the next batch comes; and nobody waits
/// longer than this for a turn.
const STRIDE: usize = 1024;

thread_local! {
    /// Members of this thread's worker that the fan-out has forgotten in this turn.
    static LEFT: RefCell<Vec<SocketId>> = const { RefCell::new(Vec::new()) };
}

/// A member's entry in the room tables. The fan-out drops it at the place of the leave in the order
/// of messages, and so tells the member that everything published before has reached its outbox.
#[derive(Debug)]
pub(crate) struct Seat(pub(crate) SocketId);

impl Drop for Seat {
    fn drop(&mut self) {
        LEFT.with_borrow_mut(|left| left.push(self.0));
    }
}

/// The members of all rooms on one worker, and what is on its way to them.
#[derive(Default)]
pub(crate) struct FanOut {
    table: RoomTable<Seat>,
    batch: Batch<Seat>,
    /// A delivery, and how many members have it.
    current: Option<(Delivery, usize)>,
    /// The mailbox was empty and will ring.
    listening: bool,
}

impl FanOut {
    /// Somebody has rung.
    pub(crate) fn wake(&mut self) {
        self.listening = false;
    }

    /// Whether there is something to deliver or to look at.
    pub(crate) fn is_busy(&self) -> bool {
        !self.listening || bell::is_rung()
    }

    /// Delivers for one turn.
    pub(crate) fn run(&mut self, worker: &mut Worker, connections: &mut Connections) {
        if bell::take() {
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
        for socket in LEFT.take() {
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
        let mut cx = Context::from_waker(&worker.bell);
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
        for (_, seat) in now {
            if let Some(connection) = connections.find(seat.0) {
                connection.deliver(worker, &delivery.frames);
            }
        }
        let (served, all) = (now.len(), now.len() == members.len());
        if !all {
            self.current = Some((delivery, from + served));
        }
        served
    }
}
