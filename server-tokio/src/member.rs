//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes
//! through its outbox.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use server_core::control::{GOING_AWAY, IDLE, PING, SLOW_CONSUMER};
use server_core::endpoints::RoomName;
use server_core::member::MemberSession;
use server_core::rooms::{MemberId, Room};
use ws_proto::CloseCode;

use crate::connection::{Ending, Turn, with_scratch};
use crate::fanout::Seat;
use crate::link::{Link, Order};
use crate::worker::Worker;

/// Why a waiting member goes on.
enum Wake {
    Ordered(Order),
    Writable,
    Published,
    Readable,
}

struct Member<'a> {
    worker: &'a Worker,
    link: &'a Arc<Link>,
    session: MemberSession,
}

/// Serves a member until it ends or is ended. It is in the room from before its 101 leaves.
pub(crate) async fn serve(
    worker: &Worker,
    link: &Arc<Link>,
    id: MemberId,
    room: RoomName,
    response: Vec<u8>,
    mut early: Vec<u8>,
) -> Ending {
    link.outbox().push_control(response);
    let membership = Membership::new(worker, link, id, room);
    let mut member = Member {
        worker,
        link,
        session: MemberSession::new(worker.server.settings.limits),
    };
    let mut turn = if early.is_empty() {
        Turn::GoOn
    } else {
        member.take(&mut early)
    };
    drop(early);
    loop {
        if !member.session.is_open() {
            member.deliver_on_close();
        }
        match turn {
            Turn::GoOn => {}
            Turn::Eof | Turn::Over if member.session.publication.is_none() => break,
            Turn::Eof | Turn::Over => {}
        }
        let over = turn != Turn::GoOn;
        match member.wait(&membership.room, over).await {
            Wake::Ordered(_) if over => {}
            Wake::Ordered(order) => {
                if member.obey(order) {
                    return Ending::Part;
                }
            }
            Wake::Published => member.session.publication = None,
            Wake::Writable => {
                link.activity.touch(worker.tick());
                if member.flush().is_err() {
                    return Ending::Gone;
                }
            }
            Wake::Readable => turn = member.read(),
        }
    }
    // What it published last is to reach itself, too, before its Close.
    drop(membership);
    while !poll_fn(|_| link.poll_orders()).await.includes(Order::LEFT) {}
    link.outbox().close(member.session.close_frame());
    Ending::Part
}

impl Member<'_> {
    /// Waits for whatever can be done next. What is queued goes out before anything is read: a
    /// member that does not read is not read from.
    async fn wait(&mut self, room: &Arc<Room>, over: bool) -> Wake {
        poll_fn(|cx| {
            if let Poll::Ready(order) = self.link.poll_orders() {
                return Poll::Ready(Wake::Ordered(order));
            }
            let queued = !self.link.outbox().is_empty();
            if queued && self.link.poll_writable(cx).is_ready() {
                return Poll::Ready(Wake::Writable);
            }
            if let Some(publication) = &mut self.session.publication {
                let rooms = &self.worker.server.rooms;
                return rooms
                    .poll_publish(cx, room, publication)
                    .map(|()| Wake::Published);
            }
            if queued || over {
                return Poll::Pending;
            }
            self.link.poll_readable(cx).map(|()| Wake::Readable)
        })
        .await
    }

    /// Where nothing is left to be sent, and nothing will be, the peer is to get what is sent.
    fn deliver_on_close(&self) {
        let outbox = self.link.outbox();
        if outbox.has_ended() && outbox.is_empty() {
            self.link.deliver_on_close();
        }
    }

    fn flush(&self) -> io::Result<()> {
        let (messages, bytes) = self.link.flush()?;
        self.worker.counters().messages_sent.add(messages);
        self.worker.counters().bytes_sent.add(bytes);
        Ok(())
    }

    fn read(&mut self) -> Turn {
        with_scratch(|scratch| match self.link.try_read(&mut scratch.buf) {
            Ok(0) => Turn::Eof,
            Ok(n) => {
                self.link.activity.touch(self.worker.tick());
                self.take(&mut scratch.buf[..n])
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::GoOn,
            Err(_) => Turn::Eof,
        })
    }

    /// Takes in what was received: all its messages become one publication.
    fn take(&mut self, received: &mut [u8]) -> Turn {
        let counters = self.worker.counters();
        let mut taken = self.session.take_in(received, counters);
        taken.counts.hand_over(counters);
        self.link.outbox().push_control(taken.pongs);
        if taken.over { Turn::Over } else { Turn::GoOn }
    }

    /// Does what others ask for; `true` when that ends the connection.
    fn obey(&mut self, order: Order) -> bool {
        if order.includes(Order::TOO_SLOW) {
            self.last_words(CloseCode::Policy, SLOW_CONSUMER);
            return true;
        }
        if order.includes(Order::IDLE_TIMEOUT) {
            self.worker.counters().idle_timeouts.add(1);
            self.last_words(CloseCode::Away, IDLE);
            return true;
        }
        if order.includes(Order::DRAIN) {
            let frame = self.session.close(CloseCode::Away, GOING_AWAY);
            self.link.outbox().close(frame);
        } else if order.includes(Order::PING)
            && self.session.is_open()
            && self.link.outbox().is_empty()
        {
            self.link.outbox().push_control(PING);
            self.worker.counters().pings_sent.add(1);
            // At once: sent later, it would look like a peer that makes room. An error shows at the
            // next read.
            let _ = self.flush();
        }
        false
    }

    /// Sends nothing any more but what has begun, and a Close frame.
    fn last_words(&mut self, code: CloseCode, reason: &str) {
        let frame = self.session.close(code, reason);
        let mut outbox = self.link.outbox();
        outbox.end();
        outbox.close(frame);
    }
}

/// Being in a room.
struct Membership<'a> {
    worker: &'a Worker,
    room: Arc<Room>,
    id: MemberId,
}

impl<'a> Membership<'a> {
    fn new(worker: &'a Worker, link: &Arc<Link>, id: MemberId, room: RoomName) -> Self {
        let rooms = &worker.server.rooms;
        let room = rooms.join(room, worker.index, id, Seat(Arc::clone(link)));
        Self { worker, room, id }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let rooms = &self.worker.server.rooms;
        rooms.leave(Arc::clone(&self.room), self.worker.index, self.id);
    }
}
