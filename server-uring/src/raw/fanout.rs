//! A worker's fan-out: drains its mailbox in batches and gives every member one send for each
//! batch.

use std::task::Context;
use std::time::{Duration, Instant};

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

/// For how long others who publish are waited for, for each member: a twentieth of what its send
/// costs.
const PATIENCE: Duration = Duration::from_nanos(100);

/// The members of all rooms on one worker, and what is on its way to them.
#[derive(Default)]
pub(crate) struct FanOut {
    table: RoomTable<SocketId>,
    batch: Batch<SocketId>,
    /// A delivery, and how many members have it.
    current: Option<(Delivery, usize)>,
    /// The mailbox was empty and will ring.
    listening: bool,
    /// The mailbox has been empty since the last batch.
    rested: bool,
    /// Publications in the last batch, and members that one of its deliveries went to.
    published: usize,
    served: usize,
    /// So many publications are waited for before the next batch is taken, until then.
    gathering: Option<(usize, Instant)>,
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
                None if self.gathers(worker) => break,
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

    /// Whether to wait for those who publish at the same time as others: each message that comes
    /// too late costs as many sends again. They are as many as last time, and those whose messages
    /// came during the last fan-out, too.
    fn gathers(&mut self, worker: &Worker) -> bool {
        let now = worker.server.rooms.mailbox(worker.index).publications();
        let (expected, until) = match self.gathering {
            Some(gathering) => gathering,
            None if self.rested && self.published < 2 || now == 0 => return false,
            None => {
                let others = if self.rested { 0 } else { now };
                (
                    self.published + others,
                    Instant::now() + PATIENCE * self.served as u32,
                )
            }
        };
        let gathers = now < expected && Instant::now() < until;
        self.gathering = gathers.then_some((expected, until));
        gathers
    }

    fn drain(&mut self, worker: &Worker) {
        let mailbox = worker.server.rooms.mailbox(worker.index);
        let published = mailbox.publications();
        let mut cx = Context::from_waker(&worker.waker);
        self.listening = mailbox.poll_drain(&mut cx, &mut self.batch).is_pending();
        self.rested = self.listening;
        if published > 0 {
            self.published = published;
            self.served = 0;
        }
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
        self.served = self.served.max(from + served);
        if !all {
            self.current = Some((delivery, from + served));
        }
        served
    }
}
