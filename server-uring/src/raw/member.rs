//! A connection in a room: what it sends goes to the rooms of every worker, what it receives comes
//! through its outbox.

use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use server_core::control::{GOING_AWAY, PING, SLOW_CONSUMER};
use server_core::endpoints::RoomName;
use server_core::member::MemberSession;
use server_core::outbox::{LARGEST_PIECE, Outbox};
use server_core::rooms::{Frames, MemberId, Room};
use uring_net::{ReceivedBuf, SocketId};
use ws_proto::CloseCode;

use crate::raw::sender::{HOLD_BYTES, Sender};
use crate::raw::worker::Worker;

/// The part of a connection that only members have.
#[derive(Debug)]
pub(crate) struct Member {
    session: MemberSession,
    /// `None` after leaving.
    room: Option<Arc<Room>>,
    outbox: Outbox,
    /// Messages in the send in flight.
    in_flight: u32,
    /// What the last quiet send has sent.
    quiet: u32,
    /// Close frames have been exchanged, or ours tells the peer what it did wrong.
    over: bool,
    /// What arrived before the reading stopped, and how much of it has been taken in.
    held: Vec<u8>,
    taken: usize,
}

fn id(socket: SocketId) -> MemberId {
    // Places are indices of open sockets: far fewer than 2^32.
    socket.index() as MemberId
}

impl Member {
    /// Enters a room, before the 101 leaves.
    pub(crate) fn join(
        worker: &Worker,
        socket: SocketId,
        room: RoomName,
        session: MemberSession,
        response: Vec<u8>,
    ) -> Self {
        let mut outbox = Outbox::new();
        outbox.push_control(response);
        let rooms = &worker.server.rooms;
        Self {
            session,
            room: Some(rooms.join(room, worker.index, id(socket), socket)),
            outbox,
            in_flight: 0,
            quiet: 0,
            over: false,
            held: Vec::new(),
            taken: 0,
        }
    }

    /// Leaves the room, if that has not happened yet.
    pub(crate) fn leave(&mut self, worker: &Worker, socket: SocketId) {
        if let Some(room) = self.room.take() {
            worker.server.rooms.leave(room, worker.index, id(socket));
        }
    }

    /// Whether messages of this member wait for a mailbox, or its Close for the last of them.
    pub(crate) fn is_waiting(&self) -> bool {
        self.session.publication.is_some() || self.over
    }

    /// Whether a peer that takes what is sent to it may be read from again, before all of it is
    /// sent: in a busy room there is always more.
    pub(crate) fn may_read(&self) -> bool {
        self.outbox.control_bytes() <= HOLD_BYTES / 2
    }

    /// Whether nothing of what the peer sends matters any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether nothing will be sent behind what is in the outbox.
    pub(crate) fn is_closing(&self) -> bool {
        self.outbox.has_ended()
    }

    /// The fan-out has forgotten this member: what it published last has reached itself, too, and
    /// its Close may follow.
    pub(crate) fn left(&mut self) {
        self.outbox.close(self.session.close_frame());
    }

    /// The peer sends no more. What it published last is to reach itself, too.
    pub(crate) fn finish(&mut self, worker: &Worker, socket: SocketId) {
        self.over = true;
        if self.session.publication.is_none() {
            self.leave(worker, socket);
        }
    }

    /// Takes in what was received, or keeps it for later while there is something to be published.
    pub(crate) fn received(
        &mut self,
        worker: &mut Worker,
        sender: &mut Sender,
        mut bytes: ReceivedBuf,
    ) {
        if self.over {
            return;
        }
        let is_waiting = self.session.publication.is_some();
        if is_waiting || sender.is_stuck(worker) {
            // A peer that does not read is not read from either.
            sender.stop_receiving(&mut worker.ring);
        }
        if is_waiting {
            self.held.extend_from_slice(&bytes);
        } else {
            let frames = self.take_in(worker, sender, &mut bytes);
            let session = self.session.session();
            sender.adapt(&mut worker.ring, bytes.len(), frames, session);
        }
    }

    /// Takes in `received`, when there is nothing to be published. How many messages, pings and
    /// pongs that were.
    pub(crate) fn take_in(
        &mut self,
        worker: &mut Worker,
        sender: &mut Sender,
        received: &mut [u8],
    ) -> u64 {
        let frames = self.take(worker, received);
        self.answer(worker, sender);
        self.publish(worker, sender);
        frames
    }

    /// Sees to it that the replies to what was taken in are sent. While too many of them wait, the
    /// peer is not read from: it could go on for ever without reading any.
    fn answer(&mut self, worker: &mut Worker, sender: &mut Sender) {
        if self.outbox.is_empty() {
            return;
        }
        sender.flush(worker);
        if self.outbox.control_bytes() > HOLD_BYTES {
            sender.stop_receiving(&mut worker.ring);
        }
    }

    fn take(&mut self, worker: &mut Worker, received: &mut [u8]) -> u64 {
        let counters = worker.server.counters.worker(worker.index);
        let taken = self.session.take_in(received, counters);
        worker.local_counters.add(&taken.counts);
        self.over |= taken.over;
        self.outbox.push_control(taken.pongs);
        let counts = &taken.counts;
        counts.messages_received + counts.pings_received + counts.pongs_received
    }

    /// Publishes what waits for it, and takes in what was held back meanwhile.
    pub(crate) fn publish(&mut self, worker: &mut Worker, sender: &mut Sender) {
        loop {
            if let (Some(publication), Some(room)) = (&mut self.session.publication, &self.room) {
                let mut cx = Context::from_waker(&worker.waker);
                let rooms = &worker.server.rooms;
                if rooms.poll_publish(&mut cx, room, publication).is_pending() {
                    worker.publishers.push(sender.socket);
                    sender.stop_receiving(&mut worker.ring);
                    return;
                }
            }
            self.session.publication = None;
            if self.over && (self.held.is_empty() || self.session.is_closed()) {
                self.leave(worker, sender.socket);
                return;
            }
            if self.held.is_empty() {
                return;
            }
            self.take_held(worker);
            self.answer(worker, sender);
        }
    }

    /// Takes in some of what was held back: all of it, which may have filled every buffer of the
    /// pool, would be a publication that no mailbox holds.
    fn take_held(&mut self, worker: &mut Worker) {
        let mut held = std::mem::take(&mut self.held);
        let rest = &mut held[self.taken..];
        let now = rest.len().min(HOLD_BYTES);
        self.take(worker, &mut rest[..now]);
        self.taken += now;
        if self.taken < held.len() {
            self.held = held;
        } else {
            self.taken = 0;
        }
    }

    /// Sends `frames`, the [quiet sends] begun last, at once when nothing is being sent,
    /// and queues them otherwise. Whether the receiver is too slow and is to be let go: its last
    /// words are queued.
    ///
    /// [quiet sends]: crate::raw::quiet::QuietSends
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        worker: &mut Worker,
        sender: &mut Sender,
        frames: &Frames,
    ) -> bool {
        if self.outbox.has_ended() {
            return false;
        }
        let at_once = self.outbox.is_empty() && sender.has_sent_all(worker);
        if at_once && frames.bytes.len() <= LARGEST_PIECE {
            self.quiet = worker.quiet_sends.count(frames);
            sender.send_quietly(worker, &frames.bytes);
            return false;
        }
        let mut bound = worker.server.settings.send_queue;
        if at_once {
            // In pieces, so that a slow peer's progress is seen; none of it waits for a slow one.
            bound.max_messages = usize::MAX;
        }
        let counters = worker.server.counters.worker(worker.index);
        if self.outbox.push_counted(frames.clone(), 0, bound, counters) {
            self.end_with(CloseCode::Policy, SLOW_CONSUMER);
            return true;
        }
        if at_once {
            sender.send_on(worker, || self.next());
        } else {
            sender.flush(worker);
        }
        false
    }

    /// Of the last quiet send the socket took only `bytes` bytes: sends the others, before whatever
    /// waits.
    pub(crate) fn send_rest(&mut self, worker: &mut Worker, sender: &mut Sender, bytes: usize) {
        if let Some(frames) = worker.quiet_sends.taken_back(self.quiet, bytes) {
            self.in_flight = frames.messages;
            let rest = frames.bytes.slice(bytes..);
            let length = rest.len();
            sender.send(worker, rest.into(), length);
        }
    }

    /// Takes out what is to be sent next, when nothing is being sent.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let (bytes, messages) = self.outbox.take()?;
        self.in_flight = messages as u32;
        Some(bytes)
    }

    /// The send in flight has completed: how many messages that was.
    #[inline]
    pub(crate) fn sent(&mut self) -> u64 {
        std::mem::take(&mut self.in_flight).into()
    }

    /// Queues a ping, unless the WebSocket is closing; returns whether it did.
    pub(crate) fn ping(&mut self) -> bool {
        let open = self.session.is_open();
        if open {
            self.outbox.push_control(PING);
        }
        open
    }

    /// Queues the Close frame of a drain behind everything else.
    pub(crate) fn go_away(&mut self) {
        if self.over {
            return;
        }
        self.outbox
            .close(self.session.close(CloseCode::Away, GOING_AWAY));
    }

    /// Sends nothing any more but what has begun, and a Close frame.
    pub(crate) fn end_with(&mut self, code: CloseCode, reason: &str) {
        self.session.end_with(code, reason, &mut self.outbox);
        self.over = true;
    }
}
