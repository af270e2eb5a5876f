//! One connection, one task: handshake, echo, and the way it ends.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;

use ::monoio::BufResult;
use ::monoio::io::{AsyncReadRent, AsyncWriteRent, Splitable};
use ::monoio::net::TcpStream;
use ::monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use server_core::admission::{Admitted, Upgrade};
use server_core::control::{GOING_AWAY, IDLE, PING};
use server_core::endpoints::Endpoint;
use server_core::lifecycle::AliveGuard;
use server_core::options::{LINGER_BYTES, LINGER_TIMEOUT};
use server_core::sweep::Phase;
use ws_proto::{CloseCode, End, Reply, Role, Session, State};

use crate::monoio::buffers::Intake;
use crate::monoio::link::{Link, Order, Wake};
use crate::monoio::member;
use crate::monoio::worker::{MemberKey, Worker};

/// How serving a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The peer is gone: nothing can be sent any more.
    Gone,
    /// Our last bytes are sent or in the outbox; the peer is to get them.
    Part,
}

/// What one turn of reading led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The connection goes on.
    GoOn,
    /// The peer ended its stream without a word.
    Eof,
    /// Close frames have been exchanged, or ours tells the peer what it did wrong: send what there is and part.
    Over,
}

/// Serves a connection from its first byte to its last.
///
/// What an open connection does not need while it waits is boxed or made outside of the future: its task is to be small.
pub(crate) fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    alive: AliveGuard,
) -> impl Future<Output = ()> {
    let (mut incoming, outgoing) = stream.into_split();
    async move {
        let link = Link::new(outgoing, &worker).await;
        let registered = Registered::new(&worker, &link);
        let ending = {
            let opened = Box::pin(handshake(&worker, &link, &mut incoming)).await;
            let serving =
                opened.map(|opened| open(&worker, &link, &mut incoming, registered.key, opened));
            match serving {
                Ok(serving) => serving.await,
                Err(ending) => ending,
            }
        };
        if ending == Ending::Gone && link.is_ordered(Order::IDLE_TIMEOUT) {
            // It never heard the order, for it was writing to a peer that does not read.
            worker.counters().idle_timeouts.add(1);
        }
        if ending == Ending::Part {
            Box::pin(part(&worker, &link, &mut incoming)).await;
        }
        // Whoever still writes lets go of the socket.
        link.expire();
        drop(registered);
        drop(link);
        drop(alive);
    }
}

/// Serves a WebSocket.
fn open<'a>(
    worker: &'a Worker,
    link: &'a Rc<Link>,
    incoming: &'a mut TcpOwnedReadHalf,
    key: MemberKey,
    opened: Opened,
) -> Pin<Box<dyn Future<Output = Ending> + 'a>> {
    link.activity.touch(worker.tick());
    link.set_phase(Phase::Open);
    let Opened { upgrade, early } = opened;
    let (response, permit) = (upgrade.response, upgrade.permit);
    match upgrade.endpoint {
        Endpoint::Echo => {
            let (mut echo, turn) = Echo::new(worker, link, incoming, response, early);
            Box::pin(async move {
                let _permit = permit;
                echo.serve(turn).await
            })
        }
        Endpoint::Broadcast(room) => Box::pin(async move {
            let _permit = permit;
            member::serve(worker, link, incoming, key, room, response, early).await
        }),
    }
}

/// A connection's entry in its worker's list.
struct Registered<'a> {
    worker: &'a Worker,
    key: MemberKey,
}

impl<'a> Registered<'a> {
    fn new(worker: &'a Worker, link: &Rc<Link>) -> Self {
        let key = worker.register(link);
        Self { worker, key }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.worker.unregister(self.key);
    }
}

/// A request that was granted, and what the client sent behind it.
struct Opened {
    upgrade: Upgrade,
    early: Vec<u8>,
}

/// Size of the receive buffer for a request head. Most heads come whole in it.
const HEAD_BYTES: usize = 1024;

async fn handshake(
    worker: &Worker,
    link: &Link,
    incoming: &mut TcpOwnedReadHalf,
) -> Result<Opened, Ending> {
    let mut received = Vec::new();
    let mut buf = Vec::with_capacity(HEAD_BYTES);
    loop {
        let mut read = pin!(incoming.read(buf));
        buf = loop {
            match link.wait(&mut read).await {
                Wake::Ready(outcome) => match filled(outcome) {
                    Ok(buf) => break buf,
                    Err(_) => return Err(Ending::Gone),
                },
                Wake::Ordered(order) if order.includes(Order::REQUEST_TIMEOUT) => {
                    let response = worker.server.admission.time_out(worker.index);
                    link.outbox().push_control(response);
                    return Err(Ending::Part);
                }
                Wake::Ordered(order) if order.includes(Order::DRAIN) => return Err(Ending::Gone),
                Wake::Ordered(_) => {}
                Wake::Expired => return Err(Ending::Gone),
            }
        };
        let (admitted, behind_head) = read_head(worker, &buf, &mut received);
        match admitted {
            Admitted::NeedMore => {}
            Admitted::Upgrade(upgrade) => {
                return Ok(Opened {
                    upgrade,
                    early: behind_head,
                });
            }
            Admitted::Respond(response) => {
                link.outbox().push_control(response);
                return Err(Ending::Part);
            }
        }
    }
}

/// The bytes of a receive, of which there is at least one.
pub(crate) fn filled((outcome, buf): BufResult<usize, Vec<u8>>) -> io::Result<Vec<u8>> {
    match outcome? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(buf),
    }
}

/// Judges what has been received. Bytes are kept only when the head does not come in one piece. The second value is what
/// follows the head of an upgrade.
fn read_head(worker: &Worker, just_now: &[u8], received: &mut Vec<u8>) -> (Admitted, Vec<u8>) {
    let mut all = just_now;
    if !received.is_empty() {
        received.extend_from_slice(all);
        all = received;
    }
    let admitted = worker.server.admission.admit(worker.index, all);
    let behind_head = match &admitted {
        Admitted::Upgrade(upgrade) => all[upgrade.head_bytes..].to_vec(),
        _ => Vec::new(),
    };
    if received.is_empty() && matches!(admitted, Admitted::NeedMore) {
        received.extend_from_slice(just_now);
    }
    (admitted, behind_head)
}

/// Sends everything back. While a reply cannot be written the connection is not read.
struct Echo<'a> {
    worker: &'a Worker,
    link: &'a Rc<Link>,
    incoming: &'a mut TcpOwnedReadHalf,
    session: Session,
    intake: Intake,
    /// To be sent before the next receive.
    unsent: Vec<u8>,
}

impl<'a> Echo<'a> {
    fn new(
        worker: &'a Worker,
        link: &'a Rc<Link>,
        incoming: &'a mut TcpOwnedReadHalf,
        response: Vec<u8>,
        mut early: Vec<u8>,
    ) -> (Self, Turn) {
        let mut echo = Self {
            worker,
            link,
            incoming,
            session: Session::new(Role::Server, worker.server.settings.limits),
            intake: Intake::default(),
            unsent: response,
        };
        let mut turn = Turn::GoOn;
        if !early.is_empty() {
            let (reply, next) = echo.reply_to(&mut early);
            if let Reply::InPlace(range) = reply {
                echo.unsent.extend_from_slice(&early[range]);
            }
            turn = next;
        }
        (echo, turn)
    }

    async fn serve(&mut self, turn: Turn) -> Ending {
        // Nobody else writes to an echo: its task is the writer from the first byte to the last.
        let Some(mut outgoing) = self.link.take_socket() else {
            return Ending::Gone;
        };
        let ending = match self.turns(&mut outgoing, turn).await {
            Ok(Turn::Over) => Ending::Part,
            Ok(Turn::GoOn | Turn::Eof) | Err(_) => Ending::Gone,
        };
        self.link.return_socket(outgoing);
        ending
    }

    async fn turns(
        &mut self,
        outgoing: &mut TcpOwnedWriteHalf,
        mut turn: Turn,
    ) -> io::Result<Turn> {
        loop {
            if !self.unsent.is_empty() {
                Box::pin(self.send_unsent(outgoing)).await?;
            }
            if turn != Turn::GoOn {
                return Ok(turn);
            }
            let outcome = {
                let buf = self.intake.take(&self.worker.spares);
                let mut read = pin!(self.incoming.read(buf));
                loop {
                    let order = match self.link.wait(&mut read).await {
                        Wake::Ready(outcome) => break outcome,
                        Wake::Ordered(order) => order,
                        Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
                    };
                    let mut frame = Vec::new();
                    turn = obey(self.worker, self.link, &mut self.session, order, &mut frame);
                    let length = frame.len();
                    Box::pin(self.link.send(outgoing, frame, 0..length))
                        .await
                        .0?;
                    if turn != Turn::GoOn {
                        return Ok(turn);
                    }
                }
            };
            let Ok(mut buf) = filled(outcome) else {
                return Ok(Turn::Eof);
            };
            self.link.activity.touch(self.worker.tick());
            let received = buf.len();
            let (reply, next) = self.reply_to(&mut buf);
            turn = next;
            if turn == Turn::Over {
                self.link.limit(LINGER_TIMEOUT);
            }
            if let Reply::InPlace(range) = reply {
                let (sent, back) = self.link.send(outgoing, buf, range).await;
                sent?;
                buf = back.unwrap_or_default();
            }
            self.intake.put(buf, received, &self.worker.spares);
        }
    }

    async fn send_unsent(&mut self, outgoing: &mut TcpOwnedWriteHalf) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let length = unsent.len();
        self.link.send(outgoing, unsent, 0..length).await.0
    }

    /// Lets the session reply to `received`. What cannot be in place is in `unsent`.
    fn reply_to(&mut self, received: &mut [u8]) -> (Reply, Turn) {
        let echo = self.session.echo(received, &mut self.unsent);
        let counters = self.worker.counters();
        counters.bytes_received.add(received.len() as u64);
        counters.messages_received.add(echo.messages);
        counters.messages_sent.add(echo.messages);
        if echo.pings > 0 {
            counters.pings_received.add(echo.pings);
        }
        if echo.pongs > 0 {
            counters.pongs_received.add(echo.pongs);
        }
        match echo.end {
            None => return (echo.reply, Turn::GoOn),
            Some(End::PeerClosed(_)) => {}
            Some(End::Violation(violation)) => {
                counters.violations.add(1);
                tracing::debug!(%violation, section = violation.section(), "closing");
            }
        }
        (echo.reply, Turn::Over)
    }
}

/// Does what others ask for.
fn obey(
    worker: &Worker,
    link: &Rc<Link>,
    session: &mut Session,
    order: Order,
    unsent: &mut Vec<u8>,
) -> Turn {
    if order.includes(Order::PING) && session.state() == State::Open {
        unsent.extend_from_slice(PING);
        worker.counters().pings_sent.add(1);
    }
    if order.includes(Order::DRAIN) {
        session.close(CloseCode::Away, GOING_AWAY, unsent);
    }
    if order.includes(Order::IDLE_TIMEOUT) {
        worker.counters().idle_timeouts.add(1);
        session.close(CloseCode::Away, IDLE, unsent);
        link.set_phase(Phase::Closing);
        link.limit(LINGER_TIMEOUT);
        return Turn::Over;
    }
    Turn::GoOn
}

/// Sends what is in the outbox, ends our direction, and reads until the peer has ended its own: closing a socket with
/// unread bytes would reset the connection and could destroy our last words on the way. All of it in bounded time.
async fn part(worker: &Worker, link: &Rc<Link>, incoming: &mut TcpOwnedReadHalf) {
    link.set_phase(Phase::Closing);
    link.limit(LINGER_TIMEOUT);
    // An error means that the peer is gone or does not read: either way there is nothing more to do.
    let _ = try_part(worker, link, incoming).await;
}

async fn try_part(
    worker: &Worker,
    link: &Rc<Link>,
    incoming: &mut TcpOwnedReadHalf,
) -> io::Result<()> {
    let mut outgoing = loop {
        match link.take_socket() {
            Some(outgoing) => break outgoing,
            None => link.written().await?,
        }
    };
    let sent = link.send_outbox(&mut outgoing).await;
    let ended = match sent {
        Ok(()) => outgoing.shutdown().await,
        Err(error) => Err(error),
    };
    link.return_socket(outgoing);
    ended?;
    link.limit(LINGER_TIMEOUT);
    discard(worker, link, incoming).await
}

/// Reads to the end of the stream, or as much as is bearable.
async fn discard(worker: &Worker, link: &Link, incoming: &mut TcpOwnedReadHalf) -> io::Result<()> {
    let mut intake = Intake::default();
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        let mut read = pin!(incoming.read(intake.take(&worker.spares)));
        let outcome = loop {
            match link.wait(&mut read).await {
                Wake::Ready(outcome) => break outcome,
                Wake::Ordered(_) => {}
                Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let buf = match filled(outcome) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            outcome => outcome?,
        };
        let received = buf.len();
        discarded += received;
        intake.put(buf, received, &worker.spares);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of the future that a function of three arguments returns.
    fn future_bytes<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_tasks_of_open_connections_are_small() {
        let task = future_bytes(serve);
        let echo = future_bytes(|echo: &'static mut Echo<'static>, turn, ()| echo.serve(turn))
            + size_of::<Echo<'_>>();
        assert!(task + echo <= 768, "{task} and {echo} bytes");
    }
}
