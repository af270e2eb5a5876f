//! One connection: handshake, echo, and the way it ends. Each completion of its socket is one call
//! here.

use std::io;

use bytes::Bytes;
use server_core::admission::{Admitted, Permit, Upgrade};
use server_core::control::{GOING_AWAY, IDLE, PING};
use server_core::endpoints::Endpoint;
use server_core::lifecycle::AliveGuard;
use server_core::member::MemberSession;
use server_core::options::LINGER_BYTES;
use server_core::rooms::Frames;
use server_core::sweep::{Activity, Phase};
use server_core::system::is_out_of_descriptors;
use server_core::work::HandlerWork;
use uring_net::{OpKind, ReceivedBuf, SendBuf, SocketId, Token};
use ws_proto::{CloseCode, Echo, Reply, Role, Session, State};

use crate::raw::clock::Deadline;
use crate::raw::member::Member;
use crate::raw::sender::{HOLD_BYTES, Sender};
use crate::raw::worker::Worker;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The request has not been answered.
    Handshake,
    /// A WebSocket is open.
    Open,
    /// Our last bytes are on their way.
    Closing,
    /// They are sent and our direction is ended: the peer's bytes are thrown away until it ends its
    /// own.
    Lingering,
    /// The ring is closing the socket.
    Closed,
}

/// What a connection does with what it receives.
#[derive(Debug)]
enum Serving {
    /// Puts the request head together.
    Handshake(Vec<u8>),
    /// Sends everything back.
    Echo(Session),
    /// Is in a room.
    Member(Box<Member>),
}

impl Serving {
    /// What is to be sent next, of what does not wait behind the socket.
    #[inline]
    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Member(member) => member.next(),
            Self::Handshake(_) | Self::Echo(_) => None,
        }
    }
}

/// A connection from its first byte to its last. What is rare is boxed, what is idle holds no
/// memory beyond this.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    serving: Serving,
    stage: Stage,
    activity: Activity,
    /// Of an echo, for each message.
    work: HandlerWork,
    /// When the patience with the peer ends, where there is an end to it.
    deadline: Option<Deadline>,
    /// Bytes thrown away.
    discarded: u32,
    permit: Option<Permit>,
    _alive: AliveGuard,
}

/// With 48 bytes of the ring for its socket, an idle connection stays below 192 bytes.
const _: () = assert!(size_of::<Option<Connection>>() <= 144);

impl Connection {
    /// Begins to serve an accepted socket.
    pub(crate) fn new(worker: &mut Worker, socket: SocketId) -> Self {
        Self {
            sender: Sender::new(&mut worker.ring, socket),
            serving: Serving::Handshake(Vec::new()),
            stage: Stage::Handshake,
            activity: Activity::at(worker.tick),
            work: HandlerWork::default(),
            deadline: None,
            discarded: 0,
            permit: None,
            _alive: worker.server.alive.enter(),
        }
    }

    pub(crate) fn socket(&self) -> SocketId {
        self.sender.socket
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Handshake => Phase::Handshake,
            Stage::Open => Phase::Open,
            Stage::Closing | Stage::Lingering | Stage::Closed => Phase::Closing,
        }
    }

    /// Bytes have arrived.
    #[inline]
    pub(crate) fn received(&mut self, worker: &mut Worker, bytes: ReceivedBuf) {
        self.sender.received();
        if self.stage == Stage::Open {
            self.note_activity(worker);
        }
        match (self.stage, &mut self.serving) {
            (Stage::Open, Serving::Echo(_)) => self.echo(worker, bytes),
            (Stage::Open, Serving::Member(member)) => {
                member.received(worker, &mut self.sender, bytes);
                self.finish_if_ended(worker);
            }
            (Stage::Handshake, _) => self.read_head(worker, &bytes),
            (Stage::Closing | Stage::Lingering, _) => self.discard(worker, bytes.len()),
            (Stage::Open | Stage::Closed, _) => {}
        }
    }

    /// Bytes have arrived where they belong, in `message`.
    pub(crate) fn received_into(&mut self, worker: &mut Worker, message: Vec<u8>, received: usize) {
        self.sender.received();
        let (Stage::Open, Serving::Echo(session)) = (self.stage, &mut self.serving) else {
            return self.discard(worker, received);
        };
        self.activity.touch(worker.tick);
        session.take_back(message);
        let echo = session.echo(&mut [], &mut self.sender.pending);
        self.reply(worker, received, &echo, None);
    }

    /// The peer is alive. A busy one, heard of within two rounds of the sweep (its request counts),
    /// is received from by a multishot.
    #[inline]
    fn note_activity(&mut self, worker: &mut Worker) {
        if worker.is_busy(&self.activity) {
            self.sender.receive_by_multishot(&mut worker.ring);
        }
        self.activity.touch(worker.tick);
    }

    /// Receives by a poll again from a peer that was silent for two rounds of the sweep.
    pub(crate) fn downgrade_receive(&mut self, worker: &mut Worker) {
        let is_between_messages = match &self.serving {
            Serving::Echo(session) => session.missing() == 0,
            Serving::Member(_) => true,
            Serving::Handshake(_) => false,
        };
        if self.stage == Stage::Open && is_between_messages && !worker.is_busy(&self.activity) {
            self.sender.receive_by_poll(&mut worker.ring);
        }
    }

    /// Sends everything back, in the buffer in which it arrived where that is possible. While
    /// replies cannot be sent the connection is not read.
    #[inline]
    fn echo(&mut self, worker: &mut Worker, mut bytes: ReceivedBuf) {
        let Serving::Echo(session) = &mut self.serving else {
            return;
        };
        let received = bytes.len();
        let echo = session.echo(&mut bytes, &mut self.sender.pending);
        let frames = echo.messages + echo.pings + echo.pongs;
        let ring = &mut worker.ring;
        self.sender.adapt(ring, received, frames, session);
        self.reply(worker, received, &echo, Some(bytes));
    }

    /// Sends what an echo of `received` bytes has made, in `bytes` or behind what is pending.
    #[inline]
    fn reply(
        &mut self,
        worker: &mut Worker,
        received: usize,
        echo: &Echo,
        bytes: Option<ReceivedBuf>,
    ) {
        worker.count_echo(received, echo);
        self.work.run(echo.messages);
        match (&echo.reply, bytes) {
            (Reply::InPlace(range), Some(mut bytes)) => {
                bytes.narrow(range.clone());
                self.sender.reply(worker, bytes);
            }
            (Reply::Spilled, _) => self.sender.flush(worker),
            _ => {}
        }
        if echo.end.is_some() {
            self.linger(worker);
        } else if self.sender.pending.len() > HOLD_BYTES {
            self.sender.stop_receiving(&mut worker.ring);
        } else if self.sender.is_silent() && self.sender.is_idle() {
            self.read_on(worker);
        }
    }

    fn read_head(&mut self, worker: &mut Worker, just_now: &[u8]) {
        let Serving::Handshake(kept) = &mut self.serving else {
            return;
        };
        // The answer may be `/metrics`.
        worker.hand_over_counters();
        let admission = &worker.server.admission;
        match admission.read_head(worker.index, kept, just_now) {
            Admitted::NeedMore => {}
            Admitted::Respond(response) => {
                self.serving = Serving::Handshake(Vec::new());
                self.respond(worker, &response);
            }
            Admitted::Upgrade(upgrade) => self.open(worker, upgrade),
        }
    }

    /// Becomes a WebSocket.
    fn open(&mut self, worker: &mut Worker, mut upgrade: Upgrade) {
        self.activity.touch(worker.tick);
        self.stage = Stage::Open;
        self.permit = Some(upgrade.permit);
        self.work = upgrade.work;
        let early = &mut upgrade.early;
        match upgrade.endpoint {
            Endpoint::Echo => {
                let mut session = Session::new(Role::Server, worker.server.settings.limits);
                self.sender.append(worker, &upgrade.response);
                let echo = session.echo(early, &mut self.sender.pending);
                self.work.run(echo.messages);
                if let Reply::InPlace(range) = echo.reply.clone() {
                    self.sender.pending.extend_from_slice(&early[range]);
                }
                self.serving = Serving::Echo(session);
                self.sender.flush(worker);
                worker.count_echo(early.len(), &echo);
                if echo.end.is_some() {
                    self.linger(worker);
                }
            }
            Endpoint::Broadcast(room) => {
                let session = MemberSession::new(worker.server.settings.limits, self.work);
                let (socket, response) = (self.sender.socket, upgrade.response);
                let mut member = Member::join(worker, socket, room, session, response);
                member.take_in(worker, &mut self.sender, early);
                self.serving = Serving::Member(Box::new(member));
                self.sender.flush(worker);
                self.finish_if_ended(worker);
            }
        }
    }

    fn respond(&mut self, worker: &mut Worker, response: &[u8]) {
        self.sender.append(worker, response);
        self.sender.flush(worker);
        self.linger(worker);
    }

    /// The fan-out has forgotten this member.
    pub(crate) fn left(&mut self, worker: &mut Worker) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving)
            && member.is_over()
        {
            member.left();
            self.sender.flush(worker);
            self.linger(worker);
        }
    }

    /// There may be room again in the mailbox that a member's messages wait for.
    pub(crate) fn publish(&mut self, worker: &mut Worker) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving) {
            member.publish(worker, &mut self.sender);
            self.finish_if_ended(worker);
            if self.stage == Stage::Open && self.sender.is_idle() {
                self.read_on(worker);
            }
        }
    }

    /// Sends a room's messages to a member, or queues them for one that is still being sent to.
    /// Never waits.
    #[inline]
    pub(crate) fn deliver(&mut self, worker: &mut Worker, frames: &Frames) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving)
            && member.deliver(worker, &mut self.sender, frames)
        {
            self.linger(worker);
        }
    }

    /// The end of a turn in which something was to be sent.
    #[inline]
    pub(crate) fn start(&mut self, worker: &mut Worker, first: Option<ReceivedBuf>) {
        if self.stage == Stage::Closed {
            return;
        }
        self.sender.start(worker, first, || self.serving.next());
        if self.sender.is_idle() {
            self.all_is_sent(worker);
        }
    }

    /// A send has completed: `bytes` bytes of `buf`.
    #[inline]
    pub(crate) fn sent(&mut self, worker: &mut Worker, buf: SendBuf, bytes: usize) {
        worker.local_counters.bytes_sent += bytes as u64;
        if let Serving::Member(member) = &mut self.serving {
            worker.local_counters.messages_sent += member.sent();
        }
        if self.stage == Stage::Closed {
            return;
        }
        if self.sender.is_stuck(worker) {
            // There was no room for it, now there is: the peer lives.
            self.activity.touch(worker.tick);
            if self.deadline.is_some() {
                self.deadline = Some(worker.clock.deadline());
            }
        }
        self.sender.sent(worker, buf, bytes, || self.serving.next());
        if self.sender.is_idle() {
            self.all_is_sent(worker);
        } else if let (Stage::Open, Serving::Member(member)) = (self.stage, &self.serving)
            && member.may_read()
        {
            self.read_on(worker);
        }
    }

    /// Of a quiet send the socket took only `bytes` bytes.
    pub(crate) fn sent_part(&mut self, worker: &mut Worker, bytes: usize) {
        if let (Serving::Member(member), false) = (&mut self.serving, self.stage == Stage::Closed) {
            member.send_rest(worker, &mut self.sender, bytes);
        }
    }

    /// Does what waited for everything to be sent.
    #[inline]
    fn all_is_sent(&mut self, worker: &mut Worker) {
        match self.stage {
            Stage::Handshake | Stage::Open => {
                if self.is_closing() {
                    worker.ring.deliver_on_close(self.sender.socket);
                }
                self.finish_if_ended(worker);
                self.read_on(worker);
            }
            Stage::Closing => self.end_our_direction(worker),
            Stage::Lingering | Stage::Closed => {}
        }
    }

    /// Whether our Close frame was the last to be sent.
    #[inline]
    fn is_closing(&self) -> bool {
        match &self.serving {
            Serving::Handshake(_) => false,
            Serving::Echo(session) => session.state() != State::Open,
            Serving::Member(member) => member.is_closing(),
        }
    }

    /// Receives again, if it was stopped and nothing is in the way any more.
    #[inline]
    fn read_on(&mut self, worker: &mut Worker) {
        match (self.stage, &mut self.serving) {
            (Stage::Closed, _) => {}
            (Stage::Open, Serving::Member(member)) if member.is_waiting() => {}
            (Stage::Open, Serving::Echo(session)) => {
                self.sender.receive_message(worker, session);
            }
            _ => self.sender.receive(&mut worker.ring),
        }
    }

    /// Receives more of a long message: its turn has come.
    pub(crate) fn receive_rest(&mut self, worker: &mut Worker) {
        if let (Stage::Open, Serving::Echo(session)) = (self.stage, &mut self.serving) {
            self.sender.receive_rest(&mut worker.ring, session);
        } else {
            self.sender.received();
            self.read_on(worker);
        }
    }

    /// The receive has stopped, as it was asked to.
    pub(crate) fn stopped(&mut self, worker: &mut Worker) {
        self.sender.stopped();
        if self.sender.is_idle() || self.stage == Stage::Lingering {
            self.read_on(worker);
        }
    }

    /// The peer has ended its stream. What it asked for before, it gets.
    pub(crate) fn eof(&mut self, worker: &mut Worker) {
        self.sender.ended();
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving) {
            member.finish(worker, self.sender.socket);
        }
        match self.stage {
            Stage::Handshake | Stage::Open => self.finish_if_ended(worker),
            Stage::Lingering => self.close(worker),
            Stage::Closing | Stage::Closed => {}
        }
    }

    fn finish_if_ended(&mut self, worker: &mut Worker) {
        let waiting = matches!(&self.serving, Serving::Member(member) if member.is_waiting());
        if !self.sender.has_ended() || waiting {
            return;
        }
        if self.sender.has_sent_all(worker) {
            worker.ring.deliver_on_close(self.sender.socket);
            self.close(worker);
        } else {
            self.sender.flush(worker);
        }
    }

    /// An operation has failed: the connection is broken. A shutdown that finds no descriptor only
    /// leaves the end of the stream to the close.
    pub(crate) fn failed(&mut self, worker: &mut Worker, op: OpKind, error: &io::Error) {
        if op == OpKind::Shutdown && is_out_of_descriptors(error) {
            return;
        }
        if self.stage != Stage::Closed {
            tracing::debug!(%error, ?op, "a connection broke");
            if op == OpKind::Receive {
                self.sender.ended();
            }
            self.close(worker);
        }
    }

    /// The peer has been silent: sends a ping.
    pub(crate) fn ping(&mut self, worker: &mut Worker) {
        match &mut self.serving {
            Serving::Echo(session) if session.state() == State::Open => {
                self.sender.append(worker, PING);
                worker.local_counters.pings_sent += 1;
            }
            Serving::Member(member) => worker.local_counters.pings_sent += u64::from(member.ping()),
            Serving::Echo(_) | Serving::Handshake(_) => return,
        }
        self.sender.flush(worker);
    }

    pub(crate) fn time_out_request(&mut self, worker: &mut Worker) {
        let response = worker.server.admission.time_out(worker.index);
        self.respond(worker, &response);
    }

    /// The peer has been silent for too long.
    pub(crate) fn time_out(&mut self, worker: &mut Worker) {
        match &mut self.serving {
            // It only waits for its last messages to be delivered.
            Serving::Member(member) if member.is_over() => return self.limit(worker),
            Serving::Member(member) => member.end_with(CloseCode::Away, IDLE),
            Serving::Echo(session) => {
                session.close(CloseCode::Away, IDLE, &mut self.sender.pending);
            }
            Serving::Handshake(_) => {}
        }
        worker.counters().idle_timeouts.add(1);
        self.sender.flush(worker);
        self.linger(worker);
    }

    /// The server is going away.
    pub(crate) fn drain(&mut self, worker: &mut Worker) {
        match (self.stage, &mut self.serving) {
            (Stage::Handshake, _) => {
                worker.ring.deliver_on_close(self.sender.socket);
                return self.close(worker);
            }
            (Stage::Open, Serving::Echo(session)) => {
                session.close(CloseCode::Away, GOING_AWAY, &mut self.sender.pending);
            }
            (Stage::Open, Serving::Member(member)) => member.go_away(),
            _ => return,
        }
        self.sender.flush(worker);
    }

    /// Lets our last bytes go, then ends our direction and reads until the peer has ended its own:
    /// closing a socket with unread bytes would reset the connection and could destroy our last
    /// words on the way. All of it in bounded time.
    fn linger(&mut self, worker: &mut Worker) {
        self.stage = Stage::Closing;
        if let Serving::Member(member) = &mut self.serving {
            member.leave(worker, self.sender.socket);
        }
        self.limit(worker);
        if self.sender.has_sent_all(worker) {
            self.sender.send_on(worker, || self.serving.next());
        } else {
            self.sender.flush(worker);
        }
        if self.sender.has_sent_all(worker) {
            self.all_is_sent(worker);
        }
    }

    fn end_our_direction(&mut self, worker: &mut Worker) {
        if self.sender.has_ended() {
            worker.ring.deliver_on_close(self.sender.socket);
            return self.close(worker);
        }
        self.stage = Stage::Lingering;
        self.deadline = Some(worker.clock.deadline());
        self.sender.shut_down(&mut worker.ring);
        self.read_on(worker);
    }

    fn discard(&mut self, worker: &mut Worker, bytes: usize) {
        self.discarded = self
            .discarded
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.discarded as usize > LINGER_BYTES {
            self.close(worker);
        } else if self.stage == Stage::Lingering {
            self.read_on(worker);
        }
    }

    /// Ends the patience with the peer some time from now, if it has no end yet.
    fn limit(&mut self, worker: &mut Worker) {
        if self.deadline.is_none() {
            self.deadline = Some(worker.clock.deadline());
            worker.watch(self.sender.socket);
        }
    }

    /// Lets go of everything at once. The connection remains until the ring has no operation of it
    /// left.
    pub(crate) fn close(&mut self, worker: &mut Worker) {
        if self.stage == Stage::Closed {
            return;
        }
        self.stage = Stage::Closed;
        if let Serving::Member(member) = &mut self.serving {
            member.leave(worker, self.sender.socket);
        }
        self.permit = None;
        self.sender.pending = Vec::new();
        let socket = self.sender.socket;
        worker.ring.close(socket, Token(socket.index() as u64));
    }
}
