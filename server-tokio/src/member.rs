//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes
//! through its outbox.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use server_core::endpoints::RoomName;
use server_core::member::MemberSession;
use server_core::rooms::{MemberId, Room};
use server_core::task::{Ending, Signals, Turn};

use crate::handle::ConnectionHandle;
use crate::scratch::with_scratch;
use crate::worker::Worker;

/// Why a waiting member goes on.
enum Wake {
    Signalled(Signals),
    Writable,
    Published,
    Readable,
}

struct Member<'a> {
    worker: &'a Worker,
    handle: &'a Arc<ConnectionHandle>,
    session: MemberSession,
}

/// Serves a member until it ends or is ended. It is in the room from before its 101 leaves.
pub(crate) async fn serve(
    worker: &Worker,
    handle: &Arc<ConnectionHandle>,
    id: MemberId,
    room: RoomName,
    session: MemberSession,
    response: Vec<u8>,
    mut early: Vec<u8>,
) -> Ending {
    handle.outbox().push_control(response);
    let rooms = &worker.server.rooms;
    let membership = rooms.enter(room, worker.index, id, Arc::clone(handle));
    let mut member = Member {
        worker,
        handle,
        session,
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
            Wake::Signalled(_) if over => {}
            Wake::Signalled(signals) => {
                if member.handle_signals(signals) {
                    return Ending::Linger;
                }
            }
            Wake::Published => member.session.publication = None,
            Wake::Writable => {
                handle.activity.touch(worker.tick());
                if member.flush().is_err() {
                    return Ending::Gone;
                }
            }
            Wake::Readable => turn = member.read(),
        }
    }
    // What it published last is to reach itself, too, before its Close.
    drop(membership);
    while !poll_fn(|_| handle.poll_signals())
        .await
        .includes(Signals::LEFT)
    {}
    handle.outbox().close(member.session.close_frame());
    Ending::Linger
}

impl Member<'_> {
    /// Waits for whatever can be done next. What is queued goes out before anything is read: a
    /// member that does not read is not read from.
    async fn wait(&mut self, room: &Arc<Room>, over: bool) -> Wake {
        poll_fn(|cx| {
            if let Poll::Ready(signals) = self.handle.poll_signals() {
                return Poll::Ready(Wake::Signalled(signals));
            }
            let queued = !self.handle.outbox().is_empty();
            if queued && self.handle.poll_writable(cx).is_ready() {
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
            self.handle.poll_readable(cx).map(|()| Wake::Readable)
        })
        .await
    }

    /// Where nothing is left to be sent, and nothing will be, the peer is to get what is sent.
    fn deliver_on_close(&self) {
        let outbox = self.handle.outbox();
        if outbox.has_ended() && outbox.is_empty() {
            self.handle.deliver_on_close();
        }
    }

    fn flush(&self) -> io::Result<()> {
        let (messages, bytes) = self.handle.flush()?;
        self.worker.counters().messages_sent.add_alone(messages);
        self.worker.counters().bytes_sent.add_alone(bytes);
        Ok(())
    }

    fn read(&mut self) -> Turn {
        with_scratch(|buf| match self.handle.try_read(buf) {
            Ok(0) => Turn::Eof,
            Ok(n) => {
                self.handle.activity.touch(self.worker.tick());
                self.take(&mut buf[..n])
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
        self.handle.outbox().push_control(taken.pongs);
        if taken.over { Turn::Over } else { Turn::GoOn }
    }

    /// Does what others ask for; `true` when that ends the connection.
    fn handle_signals(&mut self, signals: Signals) -> bool {
        let mut outbox = self.handle.outbox();
        let (counters, can_ping) = (self.worker.counters(), outbox.is_empty());
        let session = &mut self.session;
        let ends = session.handle_signals(signals, can_ping, counters, &mut outbox);
        drop(outbox);
        if can_ping {
            // At once: sent later, a ping would look like a peer that makes room. An error shows at
            // the next read.
            let _ = self.flush();
        }
        ends
    }
}
