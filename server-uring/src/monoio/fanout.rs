//! A worker's fan-out: drains its mailbox in batches and gives every member one write for each
//! batch.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use server_core::rooms::{Batch, Frames, RoomTable};
use server_core::task::Signals;

use crate::monoio::handle::MemberKey;
use crate::monoio::wake::wake_with_worker;
use crate::monoio::worker::Worker;

/// Members served before other tasks get their turn.
const STRIDE: usize = 256;

/// Delivers forever.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mailbox = worker.server.rooms.mailbox(worker.index);
    let waker = Waker::from(Arc::clone(worker.waker()));
    let mut table = RoomTable::<MemberKey>::default();
    let mut batch = Batch::new();
    loop {
        poll_fn(|cx| {
            let drained = mailbox.poll_drain(&mut Context::from_waker(&waker), &mut batch);
            if drained.is_pending() {
                wake_with_worker(cx);
            }
            drained
        })
        .await;
        loop {
            let next = table.next(&mut batch);
            for member in table.left() {
                let Some(handle) = worker.handle(member) else {
                    continue;
                };
                handle.signal(Signals::LEFT);
            }
            let Some(delivery) = next else {
                break;
            };
            let mut busy = Vec::new();
            for members in table.members(delivery.room).chunks(STRIDE) {
                for &(_, member) in members {
                    if !deliver(&worker, member, &delivery.frames) {
                        busy.push(member);
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
    }
}

/// Sends to a member, unless its writer is at work. Never waits.
fn deliver(worker: &Worker, member: MemberKey, frames: &Frames) -> bool {
    let Some(handle) = worker.handle(member) else {
        return true;
    };
    handle.outbox().has_ended() || handle.send_now(frames)
}

/// Queues for a member whose writer is at work.
fn queue(worker: &Worker, member: MemberKey, frames: &Frames) {
    let Some(handle) = worker.handle(member) else {
        return;
    };
    let bound = worker.server.settings.send_queue;
    let too_slow = handle
        .outbox()
        .push_counted(frames.clone(), 0, bound, worker.counters());
    if too_slow {
        handle.signal(Signals::SLOW_CONSUMER);
    }
}
