//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes
//! through its outbox.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use ::monoio::BufResult;
use ::monoio::io::AsyncReadRent;
use ::monoio::net::tcp::TcpOwnedReadHalf;
use server_core::control::{GOING_AWAY, IDLE, PING, SLOW_CONSUMER};
use server_core::endpoints::RoomName;
use server_core::member::MemberSession;
use server_core::rooms::Room;
use ws_proto::CloseCode;

use crate::monoio::buffers::Intake;
use crate::monoio::connection::{Ending, Turn, filled};
use crate::monoio::fanout::Seat;
use crate::monoio::link::{self, Link, Order};
use crate::monoio::wake::wake_on_bell;
use crate::monoio::worker::{MemberKey, Worker};

/// Why a waiting member goes on.
enum Wake {
    Ordered(Order),
    Published,
    Read(BufResult<usize, Vec<u8>>),
    Expired,
}

struct Member<'a> {
    worker: &'a Worker,
    link: &'a Rc<Link>,
    session: MemberSession,
}

/// Serves a member until it ends or is ended. It is in the room from before its 101 leaves.
pub(crate) async fn serve(
    worker: &Worker,
    link: &Rc<Link>,
    incoming: &mut TcpOwnedReadHalf,
    key: MemberKey,
    room: RoomName,
    response: Vec<u8>,
    mut early: Vec<u8>,
) -> Ending {
    link.outbox().push_control(response);
    let membership = Membership::new(worker, key, room);
    link.flush();
    let mut member = Member {
        worker,
        link,
        session: MemberSession::new(worker.server.settings.limits),
    };
    let mut intake = Intake::new();
    let mut turn = if early.is_empty() {
        Turn::GoOn
    } else {
        member.take(&mut early)
    };
    drop(early);
    loop {
        let mut read = pin!(incoming.read(intake.take(&worker.spares)));
        let outcome = loop {
            match turn {
                Turn::GoOn => {}
                Turn::Eof => return Ending::Gone,
                Turn::Over if member.session.publication.is_none() => break None,
                Turn::Over => {}
            }
            let over = turn == Turn::Over;
            match member.wait(&membership.room, over, read.as_mut()).await {
                Wake::Ordered(_) if over => {}
                Wake::Ordered(order) => {
                    if member.obey(order) {
                        return Ending::Part;
                    }
                }
                Wake::Published => member.session.publication = None,
                Wake::Read(outcome) => break Some(outcome),
                Wake::Expired => return Ending::Gone,
            }
        };
        let Some(outcome) = outcome else {
            break;
        };
        let Ok(mut buf) = filled(outcome) else {
            break;
        };
        link.activity.touch(worker.tick());
        let received = buf.len();
        turn = member.take(&mut buf);
        intake.put(buf, received, &worker.spares);
    }
    // What it published last is to reach itself, too, before its Close.
    let left = Arc::clone(&membership.left);
    drop(membership);
    if !member.wait_until(&left).await {
        return Ending::Gone;
    }
    link.outbox().close(member.session.close_frame());
    Ending::Part
}

impl Member<'_> {
    /// Waits for whatever can be done next. What is queued goes out before anything is taken in: a
    /// member that does not read is not read from.
    async fn wait<R>(&mut self, room: &Arc<Room>, over: bool, mut read: Pin<&mut R>) -> Wake
    where
        R: Future<Output = BufResult<usize, Vec<u8>>>,
    {
        poll_fn(|cx| {
            match self.link.poll_orders::<()>() {
                Poll::Ready(link::Wake::Ordered(order)) => {
                    return Poll::Ready(Wake::Ordered(order));
                }
                Poll::Ready(_) => return Poll::Ready(Wake::Expired),
                Poll::Pending => {}
            }
            if let Some(publication) = &mut self.session.publication {
                let rooms = &self.worker.server.rooms;
                let bell = Waker::from(Arc::clone(self.worker.bell()));
                let published =
                    rooms.poll_publish(&mut Context::from_waker(&bell), room, publication);
                if published.is_pending() {
                    wake_on_bell(cx);
                }
                return published.map(|()| Wake::Published);
            }
            if self.link.is_writing() || over {
                return Poll::Pending;
            }
            read.as_mut().poll(cx).map(Wake::Read)
        })
        .await
    }

    /// Waits until the fan-out has forgotten this member; `false` when the connection expires
    /// first.
    async fn wait_until(&self, left: &AtomicBool) -> bool {
        poll_fn(|cx| {
            if left.load(Ordering::Relaxed) || self.link.has_expired() {
                return Poll::Ready(!self.link.has_expired());
            }
            self.worker.left.wake_later(cx);
            Poll::Pending
        })
        .await
    }

    /// Takes in what was received: all its messages become one publication.
    fn take(&mut self, received: &mut [u8]) -> Turn {
        let counters = self.worker.counters();
        let mut taken = self.session.take_in(received, counters);
        taken.counts.hand_over(counters);
        self.link.outbox().push_control(taken.pongs);
        self.link.flush();
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
            self.link.flush();
        } else if order.includes(Order::PING) && self.session.is_open() && !self.link.is_writing() {
            self.link.outbox().push_control(PING);
            self.worker.counters().pings_sent.add(1);
            self.link.flush();
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
    key: MemberKey,
    left: Arc<AtomicBool>,
}

impl<'a> Membership<'a> {
    fn new(worker: &'a Worker, key: MemberKey, room: RoomName) -> Self {
        let left = Arc::new(AtomicBool::new(false));
        let seat = Seat {
            member: key,
            left: Arc::clone(&left),
        };
        let rooms = &worker.server.rooms;
        Self {
            worker,
            room: rooms.join(room, worker.index, key.place, seat),
            key,
            left,
        }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let rooms = &self.worker.server.rooms;
        rooms.leave(Arc::clone(&self.room), self.worker.index, self.key.place);
    }
}
