//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes
//! through its outbox.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::monoio::BufResult;
use ::monoio::io::AsyncReadRent;
use ::monoio::net::tcp::TcpOwnedReadHalf;
use server_core::endpoints::RoomName;
use server_core::member::MemberSession;
use server_core::rooms::Room;
use server_core::task::{Ending, Signals, Turn};

use crate::monoio::buffers::{ReadBuffer, filled};
use crate::monoio::handle::{self, ConnectionHandle, MemberKey};
use crate::monoio::wake::wake_with_worker;
use crate::monoio::worker::Worker;

/// Why a waiting member goes on.
enum Wake {
    Signalled(Signals),
    Published,
    Read(BufResult<usize, Vec<u8>>),
    Expired,
}

struct Member<'a> {
    worker: &'a Worker,
    handle: &'a Rc<ConnectionHandle>,
    session: MemberSession,
}

/// Serves a member until it ends or is ended. It is in the room from before its 101 leaves.
pub(crate) async fn serve(
    worker: &Worker,
    handle: &Rc<ConnectionHandle>,
    incoming: &mut TcpOwnedReadHalf,
    key: MemberKey,
    room: RoomName,
    session: MemberSession,
    (response, mut early): (Vec<u8>, Vec<u8>),
) -> Ending {
    handle.outbox().push_control(response);
    let rooms = &worker.server.rooms;
    let membership = rooms.enter(room, worker.index, key.slot, key);
    handle.flush();
    let mut member = Member {
        worker,
        handle,
        session,
    };
    let mut read_buffer = ReadBuffer::new();
    let mut turn = if early.is_empty() {
        Turn::GoOn
    } else {
        member.take(&mut early)
    };
    drop(early);
    loop {
        let mut read = pin!(incoming.read(read_buffer.take(&worker.buffer_pool)));
        let outcome = loop {
            match turn {
                Turn::GoOn => {}
                Turn::Eof => return Ending::Gone,
                Turn::Over if member.session.publication.is_none() => break None,
                Turn::Over => {}
            }
            let over = turn == Turn::Over;
            match member.wait(&membership.room, over, read.as_mut()).await {
                Wake::Signalled(_) if over => {}
                Wake::Signalled(signals) => {
                    if member.handle_signals(signals) {
                        return Ending::Linger;
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
        handle.activity.touch(worker.tick());
        let received = buf.len();
        turn = member.take(&mut buf);
        read_buffer.put(buf, received, &worker.buffer_pool);
    }
    // What it published last is to reach itself, too, before its Close.
    drop(membership);
    if !member.wait_until_left().await {
        return Ending::Gone;
    }
    handle.outbox().close(member.session.close_frame());
    Ending::Linger
}

impl Member<'_> {
    /// Waits for whatever can be done next. What is queued goes out before anything is taken in: a
    /// member that does not read is not read from.
    async fn wait<R>(&mut self, room: &Arc<Room>, over: bool, mut read: Pin<&mut R>) -> Wake
    where
        R: Future<Output = BufResult<usize, Vec<u8>>>,
    {
        poll_fn(|cx| {
            match self.handle.poll_signals::<()>() {
                Poll::Ready(handle::Wake::Signalled(signals)) => {
                    return Poll::Ready(Wake::Signalled(signals));
                }
                Poll::Ready(_) => return Poll::Ready(Wake::Expired),
                Poll::Pending => {}
            }
            if let Some(publication) = &mut self.session.publication {
                let rooms = &self.worker.server.rooms;
                let waker = Waker::from(Arc::clone(self.worker.waker()));
                let published =
                    rooms.poll_publish(&mut Context::from_waker(&waker), room, publication);
                if published.is_pending() {
                    wake_with_worker(cx);
                }
                return published.map(|()| Wake::Published);
            }
            if self.handle.is_writing() || over {
                return Poll::Pending;
            }
            read.as_mut().poll(cx).map(Wake::Read)
        })
        .await
    }

    /// Waits until the fan-out has removed this member; `false` when the connection expires first.
    async fn wait_until_left(&self) -> bool {
        loop {
            match poll_fn(|_| self.handle.poll_signals::<()>()).await {
                handle::Wake::Signalled(signals) if signals.includes(Signals::LEFT) => return true,
                handle::Wake::Expired => return false,
                handle::Wake::Signalled(_) | handle::Wake::Ready(()) => {}
            }
        }
    }

    /// Takes in what was received: all its messages become one publication.
    fn take(&mut self, received: &mut [u8]) -> Turn {
        let counters = self.worker.counters();
        let mut taken = self.session.take_in(received, counters);
        taken.counts.hand_over(counters);
        self.handle.outbox().push_control(taken.pongs);
        self.handle.flush();
        if taken.over { Turn::Over } else { Turn::GoOn }
    }

    /// Does what others ask for; `true` when that ends the connection.
    fn handle_signals(&mut self, signals: Signals) -> bool {
        let (session, can_ping) = (&mut self.session, !self.handle.is_writing());
        let (counters, mut outbox) = (self.worker.counters(), self.handle.outbox());
        let ends = session.handle_signals(signals, can_ping, counters, &mut outbox);
        drop(outbox);
        if !ends {
            self.handle.flush();
        }
        ends
    }
}
