//! A worker's fan-out: drains its mailbox in batches and gives every member one write for each batch.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use server_core::outbox::Pushed;
use server_core::rooms::{Batch, Frames, RoomTable};

use crate::monoio::link::{Link, Order};
use crate::monoio::wake::wake_on_bell;
use crate::monoio::worker::{MemberKey, Worker};

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
            for members in table.members(delivery.room).chunks(STRIDE) {
                for &(_, member) in members {
                    deliver(&worker, member, &delivery.frames);
                }
                // What a socket takes at once is sent after this, so that only slow members still have something to send
                // when the next batch comes.
                worker.turn().await;
            }
        }
    }
}

/// Sends to a member that has nothing queued; queues for one that has. Never waits.
fn deliver(worker: &Worker, member: MemberKey, frames: &Frames) {
    let Some(link) = worker.link(member) else {
        return;
    };
    if link.outbox().has_ended() || link.send_now(frames) {
        return;
    }
    queue(worker, &link, frames);
}

/// Queues for a member whose writer is at work.
fn queue(worker: &Worker, link: &Link, frames: &Frames) {
    let bound = worker.server.settings.send_queue;
    let pushed = link.outbox().push(frames.clone(), 0, bound);
    match pushed {
        Pushed::Queued | Pushed::Ended => {}
        Pushed::Dropped(messages) => worker.counters().dropped.add(messages.into()),
        Pushed::Overflow => {
            worker.counters().slow_consumers_closed.add(1);
            link.order(Order::TOO_SLOW);
        }
    }
}
