//! One connection: handshake, echo, and the way it ends. Each completion of its socket is one call
//! here.

use std::io;

use server_core::admission::{Admitted, Permit, Upgrade};
use server_core::control::{GOING_AWAY, IDLE, PING};
use server_core::endpoints::Endpoint;
use server_core::lifecycle::AliveGuard;
use server_core::options::LINGER_BYTES;
use server_core::rooms::Frames;
use server_core::sweep::{Activity, Phase};
use server_core::system::is_out_of_descriptors;
use uring_net::{OpKind, ReceivedBuf, SendBuf, SocketId, Token};
use ws_proto::{CloseCode, End, Reply, Role, Session, State};

use crate::raw::clock::Deadline;
use crate::raw::link::{HOLD_BYTES, Link, Sent};
use crate::raw::member::{Delivered, Member, Taken};
use crate::raw::worker::Worker;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The request has not been answered.
    Handshake,
    /// A WebSocket is open.
    Open,
    /// Our last bytes are on their way.
    Parting,
    /// They are sent and our direction is ended: the peer's bytes are thrown away until it ends its
    /// own.
    Discarding,
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

/// A connection from its first byte to its last. What is rare is boxed, what is idle holds no
/// memory beyond this.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    serving: Serving,
    stage: Stage,
    activity: Activity,
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
            link: Link::new(&mut worker.ring, socket),
            serving: Serving::Handshake(Vec::new()),
            stage: Stage::Handshake,
            activity: Activity::at(worker.tick),
            deadline: None,
            discarded: 0,
            permit: None,
            _alive: worker.server.alive.enter(),
        }
    }

    pub(crate) fn socket(&self) -> SocketId {
        self.link.socket
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
            Stage::Parting | Stage::Discarding | Stage::Closed => Phase::Closing,
        }
    }

    /// Bytes have arrived.
    #[inline]
    pub(crate) fn received(&mut self, worker: &mut Worker, bytes: ReceivedBuf) {
        if self.stage == Stage::Open {
            self.hear(worker);
        }
        match (self.stage, &mut self.serving) {
            (Stage::Open, Serving::Echo(_)) => self.echo(worker, bytes),
            (Stage::Open, Serving::Member(member)) => {
                let taken = member.received(worker, &mut self.link, bytes);
                self.go_on(worker, taken);
            }
            (Stage::Handshake, _) => self.read_head(worker, &bytes),
            (Stage::Parting | Stage::Discarding, _) => self.discard(worker, bytes.len()),
            (Stage::Open | Stage::Closed, _) => {}
        }
    }

    /// The peer is alive. A busy one, heard of within two rounds of the sweep (its request counts),
    /// is received from eagerly.
    #[inline]
    fn hear(&mut self, worker: &mut Worker) {
        if worker.is_busy(&self.activity) {
            self.link.receive_eagerly(&mut worker.ring);
        }
        self.activity.touch(worker.tick);
    }

    /// Receives sparingly again from a peer that was silent for two rounds of the sweep.
    pub(crate) fn spare(&mut self, worker: &mut Worker) {
        if self.stage == Stage::Open && !worker.is_busy(&self.activity) {
            self.link.receive_sparingly(&mut worker.ring);
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
        let echo = session.echo(&mut bytes, &mut self.link.pending);
        worker.local.count_echo(received, &echo);
        match echo.reply {
            Reply::None => {}
            Reply::InPlace(range) => {
                bytes.narrow(range);
                self.link.reply(worker, bytes);
            }
            Reply::Spilled => self.link.flush(worker),
        }
        if let Some(end) = echo.end {
            if let End::Violation(violation) = end {
                worker.counters().count_violation(&violation);
            }
            self.part(worker);
        } else if self.link.pending.len() > HOLD_BYTES {
            self.link.stop_receiving(&mut worker.ring);
        }
    }

    /// Judges what has been received.
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
        let early = &mut upgrade.early;
        match upgrade.endpoint {
            Endpoint::Echo => {
                let mut session = Session::new(Role::Server, worker.server.settings.limits);
                self.link.append(worker, &upgrade.response);
                let ended = echo_early(worker, &mut session, early, &mut self.link.pending);
                self.serving = Serving::Echo(session);
                self.link.flush(worker);
                if ended {
                    self.part(worker);
                }
            }
            Endpoint::Broadcast(room) => {
                let mut member = Member::join(worker, self.link.socket, room, upgrade.response);
                let taken = member.take_in(worker, &mut self.link, early);
                self.serving = Serving::Member(Box::new(member));
                self.link.flush(worker);
                self.go_on(worker, taken);
            }
        }
    }

    /// Sends an HTTP response and parts.
    fn respond(&mut self, worker: &mut Worker, response: &[u8]) {
        self.link.append(worker, response);
        self.link.flush(worker);
        self.part(worker);
    }

    /// A member has taken in what it received.
    fn go_on(&mut self, worker: &mut Worker, taken: Taken) {
        match taken {
            Taken::All => self.finish_if_ended(worker),
            Taken::Waiting => {}
        }
    }

    /// The fan-out has forgotten this member.
    pub(crate) fn left(&mut self, worker: &mut Worker) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving)
            && member.is_over()
        {
            member.left();
            self.link.flush(worker);
            self.part(worker);
        }
    }

    /// There may be room again in the mailbox that a member's messages wait for.
    pub(crate) fn publish(&mut self, worker: &mut Worker) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving) {
            let taken = member.publish(worker, &mut self.link);
            self.go_on(worker, taken);
            if self.stage == Stage::Open && self.link.is_idle() {
                self.read_on(worker);
            }
        }
    }

    /// Sends a room's messages to a member, or queues them for one that is still being sent to.
    /// Never waits.
    #[inline]
    pub(crate) fn deliver(&mut self, worker: &mut Worker, frames: &Frames) {
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving)
            && member.deliver(worker, &mut self.link, frames) == Delivered::TooSlow
        {
            self.part(worker);
        }
    }

    /// The end of a turn in which something was to be sent.
    #[inline]
    pub(crate) fn start(&mut self, worker: &mut Worker, first: Option<ReceivedBuf>) {
        if self.stage != Stage::Closed && !self.link.start(worker, first) {
            self.send_on(worker);
        }
    }

    /// A send has completed: `bytes` bytes of `buf`.
    #[inline]
    pub(crate) fn sent(&mut self, worker: &mut Worker, buf: SendBuf, bytes: usize) {
        worker.local.bytes_sent += bytes as u64;
        if let Serving::Member(member) = &mut self.serving {
            worker.local.messages_sent += member.sent();
        }
        if self.stage == Stage::Closed {
            return;
        }
        if self.link.is_stuck(worker) {
            // There was no room for it, now there is: the peer lives.
            self.activity.touch(worker.tick);
            if self.deadline.is_some() {
                self.deadline = Some(worker.clock.deadline());
            }
        }
        if self.link.sent(worker, buf, bytes) == Sent::Wholly {
            self.send_on(worker);
        }
    }

    /// Sends what comes next; when there is nothing, does what waited for that.
    #[inline]
    fn send_on(&mut self, worker: &mut Worker) {
        if !self.link.pending.is_empty() {
            return self.link.send_pending(worker);
        }
        if let Serving::Member(member) = &mut self.serving
            && member.send_next(worker, &mut self.link)
        {
            if self.stage == Stage::Open && member.may_read() {
                self.read_on(worker);
            }
            return;
        }
        match self.stage {
            Stage::Handshake | Stage::Open => {
                if self.is_closing() {
                    self.link.deliver_on_close(&mut worker.ring);
                }
                self.finish_if_ended(worker);
                self.read_on(worker);
            }
            Stage::Parting => self.end_our_direction(worker),
            Stage::Discarding | Stage::Closed => {}
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
        match (self.stage, &self.serving) {
            (Stage::Closed, _) => {}
            (Stage::Open, Serving::Member(member)) if member.is_waiting() => {}
            _ => self.link.receive(&mut worker.ring),
        }
    }

    /// The receive has stopped, as it was asked to.
    pub(crate) fn stopped(&mut self, worker: &mut Worker) {
        self.link.stopped();
        if self.link.is_idle() || self.stage == Stage::Discarding {
            self.read_on(worker);
        }
    }

    /// The peer has ended its stream. What it asked for before, it gets.
    pub(crate) fn eof(&mut self, worker: &mut Worker) {
        self.link.ended();
        if let (Stage::Open, Serving::Member(member)) = (self.stage, &mut self.serving) {
            member.finish(worker, self.link.socket);
        }
        match self.stage {
            Stage::Handshake | Stage::Open => self.finish_if_ended(worker),
            Stage::Discarding => self.close(worker),
            Stage::Parting | Stage::Closed => {}
        }
    }

    fn finish_if_ended(&mut self, worker: &mut Worker) {
        let waiting = matches!(&self.serving, Serving::Member(member) if member.is_waiting());
        if self.link.has_ended() && self.link.is_idle() && !waiting {
            self.link.deliver_on_close(&mut worker.ring);
            self.close(worker);
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
                self.link.ended();
            }
            self.close(worker);
        }
    }

    /// The peer has been silent: sends a ping.
    pub(crate) fn ping(&mut self, worker: &mut Worker) {
        match &mut self.serving {
            Serving::Echo(session) if session.state() == State::Open => {
                self.link.append(worker, PING);
                worker.local.pings_sent += 1;
            }
            Serving::Member(member) => worker.local.pings_sent += u64::from(member.ping()),
            Serving::Echo(_) | Serving::Handshake(_) => return,
        }
        self.link.flush(worker);
    }

    /// The request took too long.
    pub(crate) fn time_out_request(&mut self, worker: &mut Worker) {
        let response = worker.server.admission.time_out(worker.index);
        self.respond(worker, &response);
    }

    /// The peer has been silent for too long.
    pub(crate) fn time_out(&mut self, worker: &mut Worker) {
        match &mut self.serving {
            // It only waits for its last messages to be delivered.
            Serving::Member(member) if member.is_over() => return self.limit(worker),
            Serving::Member(member) => member.last_words(CloseCode::Away, IDLE),
            Serving::Echo(session) => {
                session.close(CloseCode::Away, IDLE, &mut self.link.pending);
            }
            Serving::Handshake(_) => {}
        }
        worker.counters().idle_timeouts.add(1);
        self.link.flush(worker);
        self.part(worker);
    }

    /// The server is going away.
    pub(crate) fn drain(&mut self, worker: &mut Worker) {
        match (self.stage, &mut self.serving) {
            (Stage::Handshake, _) => {
                self.link.deliver_on_close(&mut worker.ring);
                return self.close(worker);
            }
            (Stage::Open, Serving::Echo(session)) => {
                session.close(CloseCode::Away, GOING_AWAY, &mut self.link.pending);
            }
            (Stage::Open, Serving::Member(member)) => member.go_away(),
            _ => return,
        }
        self.link.flush(worker);
    }

    /// Lets our last bytes go, then ends our direction and reads until the peer has ended its own:
    /// closing a socket with unread bytes would reset the connection and could destroy our last
    /// words on the way. All of it in bounded time.
    fn part(&mut self, worker: &mut Worker) {
        self.stage = Stage::Parting;
        if let Serving::Member(member) = &mut self.serving {
            member.leave(worker, self.link.socket);
        }
        self.limit(worker);
        if self.link.is_idle() {
            self.send_on(worker);
        }
    }

    fn end_our_direction(&mut self, worker: &mut Worker) {
        if self.link.has_ended() {
            self.link.deliver_on_close(&mut worker.ring);
            return self.close(worker);
        }
        self.stage = Stage::Discarding;
        self.deadline = Some(worker.clock.deadline());
        self.link.shut_down(&mut worker.ring);
        self.read_on(worker);
    }

    fn discard(&mut self, worker: &mut Worker, bytes: usize) {
        self.discarded = self
            .discarded
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.discarded as usize > LINGER_BYTES {
            self.close(worker);
        }
    }

    /// Ends the patience with the peer some time from now, if it has no end yet.
    fn limit(&mut self, worker: &mut Worker) {
        if self.deadline.is_none() {
            self.deadline = Some(worker.clock.deadline());
            worker.watch(self.link.socket);
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
            member.leave(worker, self.link.socket);
        }
        self.permit = None;
        self.link.pending = Vec::new();
        let socket = self.link.socket;
        worker.ring.close(socket, Token(socket.index() as u64));
    }
}

/// Replies to what the client sent behind its request, appending to `out`; whether that ended the
/// connection.
fn echo_early(
    worker: &mut Worker,
    session: &mut Session,
    early: &mut [u8],
    out: &mut Vec<u8>,
) -> bool {
    let echo = session.echo(early, out);
    if let Reply::InPlace(range) = echo.reply.clone() {
        out.extend_from_slice(&early[range]);
    }
    worker.local.count_echo(early.len(), &echo);
    if let Some(End::Violation(violation)) = &echo.end {
        worker.counters().count_violation(violation);
    }
    echo.end.is_some()
}
