//! One connection, one task: handshake, echo, and the way it ends.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
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
use ws_proto::{CloseCode, Reply, Role, Session, State};

use crate::monoio::buffers::Intake;
use crate::monoio::link::{Link, Order, Wake};
use crate::monoio::member;
use crate::monoio::socket::Socket;
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
    /// Close frames have been exchanged, or ours tells the peer what it did wrong: send what there
    /// is and part.
    Over,
}

/// Serves a connection from its first byte to its last.
///
/// What an open connection does not need while it waits is boxed or made outside of the future: its
/// task is to be small.
pub(crate) fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    alive: AliveGuard,
) -> impl Future<Output = ()> {
    let descriptor = stream.as_raw_fd();
    let (mut incoming, outgoing) = stream.into_split();
    async move {
        let link = Link::new(descriptor, outgoing, &worker).await;
        let registered = Registered::new(&worker, &link);
        let (ending, mut incoming) = {
            let serving = match Box::pin(handshake(&worker, &link, &mut incoming)).await {
                Ok(upgrade) => Ok(open(&worker, &link, incoming, registered.key, upgrade)),
                Err(ending) => Err((ending, incoming)),
            };
            match serving {
                Ok(serving) => serving.await,
                Err(unserved) => unserved,
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

/// Serves a WebSocket. Gives back what it was read from.
fn open<'a>(
    worker: &'a Worker,
    link: &'a Rc<Link>,
    mut incoming: TcpOwnedReadHalf,
    key: MemberKey,
    upgrade: Upgrade,
) -> Pin<Box<dyn Future<Output = (Ending, TcpOwnedReadHalf)> + 'a>> {
    link.activity.touch(worker.tick());
    link.set_phase(Phase::Open);
    let Upgrade {
        endpoint,
        response,
        early,
        permit,
    } = upgrade;
    match endpoint {
        Endpoint::Echo => {
            let (mut echo, turn) = Echo::new(worker, link, response, early);
            Box::pin(async move {
                let _permit = permit;
                echo.serve(incoming, turn).await
            })
        }
        Endpoint::Broadcast(room) => Box::pin(async move {
            let _permit = permit;
            let from = &mut incoming;
            let ending = member::serve(worker, link, from, key, room, response, early).await;
            (ending, incoming)
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

/// Size of the receive buffer for a request head. Most heads come whole in it.
const HEAD_BYTES: usize = 1024;

async fn handshake(
    worker: &Worker,
    link: &Link,
    incoming: &mut TcpOwnedReadHalf,
) -> Result<Upgrade, Ending> {
    let mut kept = Vec::new();
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
                Wake::Ordered(order) if order.includes(Order::DRAIN) => {
                    link.deliver_on_close();
                    return Err(Ending::Gone);
                }
                Wake::Ordered(_) => {}
                Wake::Expired => return Err(Ending::Gone),
            }
        };
        let admission = &worker.server.admission;
        match admission.read_head(worker.index, &mut kept, &buf) {
            Admitted::NeedMore => {}
            Admitted::Upgrade(upgrade) => return Ok(upgrade),
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

fn bytes_or_end(outcome: BufResult<usize, Vec<u8>>) -> ControlFlow<Turn, Vec<u8>> {
    match filled(outcome) {
        Ok(buf) => ControlFlow::Continue(buf),
        Err(_) => ControlFlow::Break(Turn::Eof),
    }
}

/// Sends everything back. While a reply cannot be written the connection is not read.
struct Echo<'a> {
    worker: &'a Worker,
    link: &'a Rc<Link>,
    session: Session,
    intake: Intake,
    /// To be sent before the next receive.
    unsent: Vec<u8>,
}

impl<'a> Echo<'a> {
    fn new(
        worker: &'a Worker,
        link: &'a Rc<Link>,
        response: Vec<u8>,
        mut early: Vec<u8>,
    ) -> (Self, Turn) {
        let mut echo = Self {
            worker,
            link,
            session: Session::new(Role::Server, worker.server.settings.limits),
            intake: Intake::new(),
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

    async fn serve(
        &mut self,
        incoming: TcpOwnedReadHalf,
        mut turn: Turn,
    ) -> (Ending, TcpOwnedReadHalf) {
        // Nobody else writes to an echo: its task is the writer from the first byte to the last.
        let Some(outgoing) = self.link.take_socket() else {
            return (Ending::Gone, incoming);
        };
        let mut socket = Socket::Halves(incoming, outgoing);
        let ending = loop {
            turn = match self.turns(&mut socket, turn).await {
                Ok(Turn::GoOn) => Turn::GoOn,
                Ok(Turn::Over) => break Ending::Part,
                Ok(Turn::Eof) => {
                    self.link.deliver_on_close();
                    break Ending::Gone;
                }
                Err(_) => break Ending::Gone,
            };
            socket = socket.reshape();
        };
        let (incoming, outgoing) = socket.into_halves();
        self.link.return_socket(outgoing);
        (ending, incoming)
    }

    /// Reads and replies until that is over, or until it would go on better with the socket in the
    /// other shape.
    async fn turns(&mut self, socket: &mut Socket, mut turn: Turn) -> io::Result<Turn> {
        loop {
            if !self.unsent.is_empty() {
                Box::pin(self.send_unsent(socket)).await?;
            }
            if turn != Turn::GoOn {
                return Ok(turn);
            }
            let received = match socket {
                Socket::Halves(incoming, outgoing) => self.receive(incoming, outgoing).await?,
                Socket::Whole(stream) => self.receive_when_readable(stream).await?,
            };
            let mut buf = match received {
                ControlFlow::Continue(buf) => buf,
                ControlFlow::Break(turn) => return Ok(turn),
            };
            self.link.activity.touch(self.worker.tick());
            let received = buf.len();
            let (reply, next) = self.reply_to(&mut buf);
            turn = next;
            if turn == Turn::Over {
                self.link.limit(LINGER_TIMEOUT);
            }
            if let Reply::InPlace(range) = reply {
                let (sent, back) = match socket {
                    Socket::Halves(_, outgoing) => self.link.send(outgoing, buf, range).await,
                    Socket::Whole(stream) => self.link.send(stream, buf, range).await,
                };
                sent?;
                buf = back.unwrap_or_default();
            }
            self.intake.put(buf, received, &self.worker.spares);
            if turn == Turn::GoOn && self.intake.is_bulky() != socket.is_whole() {
                return Ok(turn);
            }
        }
    }

    /// Receives into a buffer that waits for bytes.
    async fn receive(
        &mut self,
        incoming: &mut TcpOwnedReadHalf,
        outgoing: &mut TcpOwnedWriteHalf,
    ) -> io::Result<ControlFlow<Turn, Vec<u8>>> {
        let buf = self.intake.take(&self.worker.spares);
        let mut read = pin!(incoming.read(buf));
        loop {
            match self.link.wait(&mut read).await {
                Wake::Ready(outcome) => return Ok(bytes_or_end(outcome)),
                Wake::Ordered(order) => {
                    let turn = Box::pin(self.obey(outgoing, order)).await?;
                    if turn != Turn::GoOn {
                        return Ok(ControlFlow::Break(turn));
                    }
                }
                Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Waits for bytes, and has a buffer only while it receives them.
    async fn receive_when_readable(
        &mut self,
        stream: &mut TcpStream,
    ) -> io::Result<ControlFlow<Turn, Vec<u8>>> {
        loop {
            let wake = {
                let mut readable = pin!(stream.readable(true));
                self.link.wait(&mut readable).await
            };
            match wake {
                // Where this is an error, the receive has it, too.
                Wake::Ready(_) => break,
                Wake::Ordered(order) => {
                    let turn = Box::pin(self.obey(stream, order)).await?;
                    if turn != Turn::GoOn {
                        return Ok(ControlFlow::Break(turn));
                    }
                }
                Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let read = pin!(stream.read(self.worker.spares.take()));
        let outcome = self.link.unless_expired(read).await;
        outcome
            .map(bytes_or_end)
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Does what others ask for.
    async fn obey(&mut self, outgoing: &mut impl AsyncWriteRent, order: Order) -> io::Result<Turn> {
        let mut frame = Vec::new();
        let mut turn = Turn::GoOn;
        if order.includes(Order::PING) && self.session.state() == State::Open {
            frame.extend_from_slice(PING);
            self.worker.counters().pings_sent.add(1);
        }
        if order.includes(Order::DRAIN) {
            self.session.close(CloseCode::Away, GOING_AWAY, &mut frame);
        }
        if order.includes(Order::IDLE_TIMEOUT) {
            self.worker.counters().idle_timeouts.add(1);
            self.session.close(CloseCode::Away, IDLE, &mut frame);
            self.link.set_phase(Phase::Closing);
            self.link.limit(LINGER_TIMEOUT);
            turn = Turn::Over;
        }
        let length = frame.len();
        self.link.send(outgoing, frame, 0..length).await.0?;
        if self.session.state() != State::Open {
            self.link.deliver_on_close();
        }
        Ok(turn)
    }

    async fn send_unsent(&mut self, socket: &mut Socket) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let all = 0..unsent.len();
        match socket {
            Socket::Halves(_, outgoing) => self.link.send(outgoing, unsent, all).await.0,
            Socket::Whole(stream) => self.link.send(stream, unsent, all).await.0,
        }
    }

    /// Lets the session reply to `received`. What cannot be in place is in `unsent`.
    fn reply_to(&mut self, received: &mut [u8]) -> (Reply, Turn) {
        let echo = self.session.echo(received, &mut self.unsent);
        self.worker.counters().count_echo(received.len(), &echo);
        let turn = match echo.end {
            None => Turn::GoOn,
            Some(_) => Turn::Over,
        };
        (echo.reply, turn)
    }
}

/// Sends what is in the outbox, ends our direction, and reads until the peer has ended its own:
/// closing a socket with unread bytes would reset the connection and could destroy our last words
/// on the way. All of it in bounded time.
async fn part(worker: &Worker, link: &Rc<Link>, incoming: &mut TcpOwnedReadHalf) {
    link.set_phase(Phase::Closing);
    link.limit(LINGER_TIMEOUT);
    // An error means that the peer is gone or does not read: either way there is nothing more to
    // do.
    let _ = try_part(worker, link, incoming).await;
}

// RFC 6455 section 5.5.1: tcp-is-closed, server-closes-at-once
// RFC 6455 section 7.1.7: server-fails
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
        Ok(()) => {
            link.deliver_on_close();
            outgoing.shutdown().await
        }
        Err(error) => Err(error),
    };
    link.return_socket(outgoing);
    ended?;
    link.limit(LINGER_TIMEOUT);
    discard(worker, link, incoming).await
}

/// Reads to the end of the stream, or as much as is bearable.
async fn discard(worker: &Worker, link: &Link, incoming: &mut TcpOwnedReadHalf) -> io::Result<()> {
    let mut intake = Intake::new();
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
        let echo = future_bytes(|echo: &'static mut Echo<'static>, incoming, turn| {
            echo.serve(incoming, turn)
        }) + size_of::<Echo<'_>>();
        assert!(task + echo <= 768, "{task} and {echo} bytes");
    }
}
