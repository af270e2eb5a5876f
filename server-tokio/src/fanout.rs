//! A worker's fan-out: drains its mailbox in batches and gives every member one write for each
//! batch.

use std::future::poll_fn;
use std::sync::Arc;

use server_core::rooms::{Batch, Frames, RoomTable};

use crate::link::{Link, Order};
use crate::worker::Worker;

/// A member's entry in the room tables. The fan-out drops it at the place of the leave in the order
/// of messages, and so tells the member that everything published before has reached its outbox.
pub(crate) struct Seat(pub(crate) Arc<Link>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.order(Order::LEFT);
    }
}

/// Members served before other tasks get their turn.
const STRIDE: usize = 256;

/// Delivers forever.
pub(crate) async fn run(worker: Arc<Worker>) {
    let mailbox = worker.server.rooms.mailbox(worker.index);
    let mut table = RoomTable::default();
    let mut batch = Batch::new();
    loop {
        poll_fn(|cx| mailbox.poll_drain(cx, &mut batch)).await;
        while let Some(delivery) = table.next(&mut batch) {
            for members in table.members(delivery.room).chunks(STRIDE) {
                let mut sent = Sent::default();
                for (_, seat) in members {
                    deliver(&worker, &seat.0, &delivery.frames, &mut sent);
                }
                worker.counters().messages_sent.add(sent.messages);
                worker.counters().bytes_sent.add(sent.bytes);
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
fn deliver(worker: &Worker, link: &Link, frames: &Frames, sent: &mut Sent) {
    let mut outbox = link.outbox();
    if outbox.has_ended() {
        return;
    }
    let idle = outbox.is_empty();
    let mut written = 0;
    if idle {
        // On an error the member's own task will find the connection broken, too.
        let Ok(n) = link.try_write(&frames.bytes) else {
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
        link.order(Order::TOO_SLOW);
    } else if idle {
        link.order(Order::FLUSH);
    }
}
