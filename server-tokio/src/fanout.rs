//! A worker's fan-out: drains its mailbox in batches and gives every member one write for each
//! batch.

use std::future::poll_fn;
use std::sync::Arc;

use server_core::rooms::{Batch, Frames, RoomTable};
use server_core::task::Signals;

use crate::handle::ConnectionHandle;
use crate::worker::Worker;

/// Members served before other tasks get their turn.
const STRIDE: usize = 256;

/// Delivers forever.
pub(crate) async fn run(worker: Arc<Worker>) {
    let mailbox = worker.server.rooms.mailbox(worker.index);
    let mut table = RoomTable::<Arc<ConnectionHandle>>::default();
    let mut batch = Batch::new();
    loop {
        poll_fn(|cx| mailbox.poll_drain(cx, &mut batch)).await;
        loop {
            let next = table.next(&mut batch);
            for handle in table.left() {
                handle.signal(Signals::LEFT);
            }
            let Some(delivery) = next else {
                break;
            };
            for members in table.members(delivery.room).chunks(STRIDE) {
                let mut sent = Sent::default();
                for (_, handle) in members {
                    deliver(&worker, handle, &delivery.frames, &mut sent);
                }
                worker.counters().messages_sent.add_alone(sent.messages);
                worker.counters().bytes_sent.add_alone(sent.bytes);
                if members.len() == STRIDE {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// What has been sent, counted once for many members.
#[derive(Default)]
struct Sent {
    messages: u64,
    bytes: u64,
}

/// Writes to a member that has nothing queued; queues what its socket does not take. Never waits.
fn deliver(worker: &Worker, handle: &ConnectionHandle, frames: &Frames, sent: &mut Sent) {
    let mut outbox = handle.outbox();
    if outbox.has_ended() {
        return;
    }
    let idle = outbox.is_empty();
    let mut written = 0;
    if idle {
        // On an error the member's own task will find the connection broken, too.
        let Ok(n) = handle.try_write(&frames.bytes) else {
            return;
        };
        written = n;
        sent.bytes += n as u64;
        sent.messages += u64::from(frames.messages_within(n));
        if n == frames.bytes.len() {
            return;
        }
    }
    let bound = worker.server.settings.send_queue;
    if outbox.push_counted(frames.clone(), written, bound, worker.counters()) {
        handle.signal(Signals::SLOW_CONSUMER);
    } else if idle {
        handle.signal(Signals::FLUSH);
    }
}
