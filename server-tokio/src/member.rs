//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes through its outbox.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use server_core::endpoints::RoomName;
use server_core::rooms::{FrameBuilder, MemberId, Publication, Room};
use ws_proto::{CloseCode, Event, Input, Role, Session, State};

use crate::connection::{Ending, GOING_AWAY, IDLE, PING, Turn, pong, with_scratch};
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
    session: Session,
    /// Received and not yet in every mailbox. While there is one, nothing is read.
    publication: Option<Publication>,
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
        session: Session::new(Role::Server, worker.server.settings.limits),
        publication: None,
    };
    let mut turn = if early.is_empty() {
        Turn::GoOn
    } else {
        member.take(&mut early)
    };
    drop(early);
    loop {
        let parting = match turn {
            Turn::GoOn => false,
            Turn::Eof => return Ending::Gone,
            Turn::Over => true,
        };
        if parting && member.publication.is_none() {
            return Ending::Part;
        }
        match member.wait(&membership.room, parting).await {
            Wake::Ordered(order) => {
                if !parting && member.obey(order) {
                    turn = Turn::Over;
                }
            }
            Wake::Published => member.publication = None,
            Wake::Writable => {
                if member.flush().is_err() {
                    return Ending::Gone;
                }
            }
            Wake::Readable => turn = member.read(),
        }
    }
}

impl Member<'_> {
    /// Waits for whatever can be done next. What is queued goes out before anything is read: a member that does not read
    /// is not read from.
    async fn wait(&mut self, room: &Arc<Room>, parting: bool) -> Wake {
        poll_fn(|cx| {
            if let Poll::Ready(order) = self.link.poll_orders() {
                return Poll::Ready(Wake::Ordered(order));
            }
            let queued = !self.link.outbox().is_empty();
            if queued && self.link.poll_writable(cx).is_ready() {
                return Poll::Ready(Wake::Writable);
            }
            if let Some(publication) = &mut self.publication {
                let rooms = &self.worker.server.rooms;
                return rooms
                    .poll_publish(cx, room, publication)
                    .map(|()| Wake::Published);
            }
            if queued || parting {
                return Poll::Pending;
            }
            self.link.poll_readable(cx).map(|()| Wake::Readable)
        })
        .await
    }

    fn flush(&self) -> io::Result<()> {
        let (messages, bytes) = self.link.flush()?;
        if bytes > 0 {
            self.link.activity.touch(self.worker.tick());
            self.worker.counters().messages_sent.add(messages);
            self.worker.counters().bytes_sent.add(bytes);
        }
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
        counters.bytes_received.add(received.len() as u64);
        let mut built = FrameBuilder::with_capacity(received.len());
        let mut replies = Vec::new();
        let mut input = Input::new(received);
        let turn = loop {
            match self.session.receive(&mut input) {
                Ok(None) => break Turn::GoOn,
                Ok(Some(Event::Message { kind, payload })) => built.push(kind, payload),
                Ok(Some(Event::Ping(payload))) => {
                    counters.pings_received.add(1);
                    pong(payload, &mut replies);
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { .. })) => {
                    self.session.answer_close(&mut replies);
                    self.link.outbox().close(replies);
                    replies = Vec::new();
                    break Turn::Over;
                }
                Err(violation) => {
                    counters.violations.add(1);
                    tracing::debug!(%violation, section = violation.section(), "closing");
                    self.session
                        .close(violation.code(), violation.reason(), &mut replies);
                    self.last_words(std::mem::take(&mut replies));
                    break Turn::Over;
                }
            }
        };
        if self.session.state() == State::CloseSent {
            return turn;
        }
        self.link.outbox().push_control(replies);
        if let Some(frames) = built.take() {
            counters.messages_received.add(frames.messages.into());
            self.publication = Some(Publication::new(frames));
        }
        turn
    }

    /// Does what others ask for; `true` when that ends the connection.
    fn obey(&mut self, order: Order) -> bool {
        let mut frame = Vec::new();
        if order.includes(Order::TOO_SLOW) {
            self.session
                .close(CloseCode::Policy, "reads too slowly", &mut frame);
            self.last_words(frame);
            return true;
        }
        if order.includes(Order::IDLE_TIMEOUT) {
            self.worker.counters().idle_timeouts.add(1);
            self.session.close(CloseCode::Away, IDLE, &mut frame);
            self.last_words(frame);
            return true;
        }
        if order.includes(Order::DRAIN) {
            self.session.close(CloseCode::Away, GOING_AWAY, &mut frame);
            self.link.outbox().close(frame);
        } else if order.includes(Order::PING) && self.session.state() == State::Open {
            let mut outbox = self.link.outbox();
            if outbox.is_empty() {
                outbox.push_control(PING);
            }
        }
        false
    }

    /// Sends nothing any more but what has begun, and `frame`.
    fn last_words(&self, frame: Vec<u8>) {
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
        let room = rooms.join(room, worker.index, id, Arc::clone(link));
        Self { worker, room, id }
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let rooms = &self.worker.server.rooms;
        rooms.leave(Arc::clone(&self.room), self.worker.index, self.id);
    }
}
