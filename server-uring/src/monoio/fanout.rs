//! A worker's fan-out: drains its mailbox in batches and gives every member one write for each
//! batch.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use server_core::rooms::{Batch, Frames, RoomTable};

use crate::monoio::link::Order;
use crate::monoio::wake::wake_on_bell;
use crate::monoio::worker::{MemberKey, Worker};

/// A member's entry in the room tables. The fan-out drops it at the place of the leave in the order
/// of messages, and so tells the member that everything published before has reached its outbox.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) member: MemberKey,
    pub(crate) left: Arc<AtomicBool>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

/// Members served before other tasks get their turn.
const STRIDE: usize = 256;

/// Delivers forever.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mailbox = worker.server.rooms.mailbox(worker.index);
    let bell = Waker::from(Arc::clone(worker.bell()));
    let mut table = RoomTable::default();
    let mut batch = Batch::new();
    loop {
        poll_fn(|cx| {
            let drained = mailbox.poll_drain(&mut Context::from_waker(&bell), &mut batch);
            if drained.is_pending() {
                wake_on_bell(cx);
            }
            drained
        })
        .await;
        while let Some(delivery) = table.next(&mut batch) {
            let mut busy = Vec::new();
            for members in table.members(delivery.room).chunks(STRIDE) {
                for (_, seat) in members {
                    if !deliver(&worker, seat.member, &delivery.frames) {
                        busy.push(seat.member);
                    }
                }
                // What sockets take at once is gone after this.
                worker.turn().await;
            }
            // Who was only busy with a pong is not slow: it is by now like the others.
            for member in busy {
                if !deliver(&worker, member, &delivery.frames) {
                    queue(&worker, member, &delivery.frames);
                }
            }
        }
        worker.left.raise();
    }
}

/// Sends to a member, unless its writer is at work. Never waits.
fn deliver(worker: &Worker, member: MemberKey, frames: &Frames) -> bool {
    let Some(link) = worker.link(member) else {
        return true;
    };
    link.outbox().has_ended() || link.send_now(frames)
}

/// Queues for a member whose writer is at work.
fn queue(worker: &Worker, member: MemberKey, frames: &Frames) {
    let Some(link) = worker.link(member) else {
        return;
    };
    let bound = worker.server.settings.send_queue;
    let too_slow = link
        .outbox()
        .push_counted(frames.clone(), 0, bound, worker.counters());
    if too_slow {
        link.order(Order::TOO_SLOW);
    }
}
