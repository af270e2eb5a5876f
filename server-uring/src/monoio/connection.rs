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
use server_core::endpoints::Endpoint;
use server_core::lifecycle::AliveGuard;
use server_core::member::MemberSession;
use server_core::options::{LINGER_BYTES, LINGER_TIMEOUT, READ_BUFFER_BYTES};
use server_core::sweep::Phase;
use server_core::task::{self, Ending, FIRST_PIECE_BYTES, Signals, Turn};
use server_core::work::HandlerWork;
use ws_proto::{Reply, Role, Session, State, Unfinished};

use crate::monoio::buffers::{ReadBuffer, filled};
use crate::monoio::handle::{ConnectionHandle, MemberKey, Wake};
use crate::monoio::member;
use crate::monoio::socket::Socket;
use crate::monoio::worker::Worker;

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
        let handle = ConnectionHandle::new(descriptor, outgoing, &worker.handles).await;
        let registered = Registered {
            worker: &worker,
            key: worker.register(&handle),
        };
        let (ending, mut incoming) = {
            let serving = match Box::pin(handshake(&worker, &handle, &mut incoming)).await {
                Ok(upgrade) => Ok(open(&worker, &handle, incoming, registered.key, upgrade)),
                Err(ending) => Err((ending, incoming)),
            };
            match serving {
                Ok(serving) => serving.await,
                Err(unserved) => unserved,
            }
        };
        if ending == Ending::Gone && handle.has_signal(Signals::IDLE_TIMEOUT) {
            // The task was blocked writing and never saw the signal.
            worker.counters().idle_timeouts.add(1);
        }
        if ending == Ending::Linger {
            Box::pin(linger(&worker, &handle, &mut incoming)).await;
        }
        // Whoever still writes lets go of the socket.
        handle.expire();
        drop(registered);
        drop(handle);
        drop(alive);
    }
}

/// Serves a WebSocket. Gives back what it was read from.
fn open<'a>(
    worker: &'a Worker,
    handle: &'a Rc<ConnectionHandle>,
    mut incoming: TcpOwnedReadHalf,
    key: MemberKey,
    upgrade: Upgrade,
) -> Pin<Box<dyn Future<Output = (Ending, TcpOwnedReadHalf)> + 'a>> {
    handle.activity.touch(worker.tick());
    handle.set_phase(Phase::Open);
    let Upgrade {
        endpoint,
        response,
        early,
        work,
        permit,
    } = upgrade;
    match endpoint {
        Endpoint::Echo => {
            let (mut echo, turn) = Echo::new(worker, handle, work, response, early);
            Box::pin(async move {
                let _permit = permit;
                echo.serve(incoming, turn).await
            })
        }
        Endpoint::Broadcast(room) => Box::pin(async move {
            let _permit = permit;
            let session = MemberSession::new(worker.server.settings.limits, work);
            let (from, first) = (&mut incoming, (response, early));
            let ending = member::serve(worker, handle, from, key, room, session, first).await;
            (ending, incoming)
        }),
    }
}

/// A connection's entry in its worker's list.
struct Registered<'a> {
    worker: &'a Worker,
    key: MemberKey,
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
    handle: &ConnectionHandle,
    incoming: &mut TcpOwnedReadHalf,
) -> Result<Upgrade, Ending> {
    let mut kept = Vec::new();
    let mut buf = Vec::with_capacity(HEAD_BYTES);
    loop {
        let mut read = pin!(incoming.read(buf));
        buf = loop {
            match handle.wait(&mut read).await {
                Wake::Ready(outcome) => match filled(outcome) {
                    Ok(buf) => break buf,
                    Err(_) => return Err(Ending::Gone),
                },
                Wake::Signalled(signals) if signals.includes(Signals::REQUEST_TIMEOUT) => {
                    let response = worker.server.admission.time_out(worker.index);
                    handle.outbox().push_control(response);
                    return Err(Ending::Linger);
                }
                Wake::Signalled(signals) if signals.includes(Signals::DRAIN) => {
                    handle.deliver_on_close();
                    return Err(Ending::Gone);
                }
                Wake::Signalled(_) => {}
                Wake::Expired => return Err(Ending::Gone),
            }
        };
        let admission = &worker.server.admission;
        match admission.read_head(worker.index, &mut kept, &buf) {
            Admitted::NeedMore => {}
            Admitted::Upgrade(upgrade) => return Ok(upgrade),
            Admitted::Respond(response) => {
                handle.outbox().push_control(response);
                return Err(Ending::Linger);
            }
        }
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
    handle: &'a Rc<ConnectionHandle>,
    session: Session,
    /// For each message.
    work: HandlerWork,
    read_buffer: ReadBuffer,
    /// The last message was longer than a large buffer, and the next may be.
    expects_long: bool,
    /// To be sent before the next receive.
    unsent: Vec<u8>,
}

impl<'a> Echo<'a> {
    fn new(
        worker: &'a Worker,
        handle: &'a Rc<ConnectionHandle>,
        work: HandlerWork,
        response: Vec<u8>,
        mut early: Vec<u8>,
    ) -> (Self, Turn) {
        let mut echo = Self {
            worker,
            handle,
            session: Session::new(Role::Server, worker.server.settings.limits),
            work,
            read_buffer: ReadBuffer::new(),
            expects_long: false,
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
        let Some(outgoing) = self.handle.take_socket() else {
            return (Ending::Gone, incoming);
        };
        let mut socket = Socket::Halves(incoming, outgoing);
        let ending = loop {
            turn = match self.turns(&mut socket, turn).await {
                Ok(Turn::GoOn) => Turn::GoOn,
                Ok(Turn::Over) => break Ending::Linger,
                Ok(Turn::Eof) => {
                    self.handle.deliver_on_close();
                    break Ending::Gone;
                }
                Err(_) => break Ending::Gone,
            };
            socket = socket.reshape();
        };
        let (incoming, outgoing) = socket.into_halves();
        self.handle.return_socket(outgoing);
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
            self.handle.activity.touch(self.worker.tick());
            let received = buf.len();
            let (reply, next) = self.reply_to(&mut buf);
            turn = next;
            if turn == Turn::Over {
                self.handle.limit(LINGER_TIMEOUT);
            }
            if let Reply::InPlace(range) = reply {
                let (sent, back) = match socket {
                    Socket::Halves(_, outgoing) => self.handle.send(outgoing, buf, range).await,
                    Socket::Whole(stream) => self.handle.send(stream, buf, range).await,
                };
                sent?;
                buf = back.unwrap_or_default();
            }
            if buf.capacity() > 0 {
                self.read_buffer
                    .put(buf, received, &self.worker.buffer_pool);
            }
            if received == 0 || task::is_long(&self.session) {
                self.read_buffer.pass();
            }
            if turn == Turn::GoOn && self.read_buffer.is_bulky() != socket.is_whole() {
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
        let buf = self.read_buffer.take(&self.worker.buffer_pool);
        let mut read = pin!(incoming.read(buf));
        loop {
            match self.handle.wait(&mut read).await {
                Wake::Ready(outcome) => return Ok(bytes_or_end(outcome)),
                Wake::Signalled(signals) => {
                    let turn = Box::pin(self.handle_signals(outgoing, signals)).await?;
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
                self.handle.wait(&mut readable).await
            };
            match wake {
                // Where this is an error, the receive has it, too.
                Wake::Ready(_) => match self.receive_now() {
                    Ok(buf) => return Ok(ControlFlow::Continue(buf)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Ok(ControlFlow::Break(Turn::Eof)),
                },
                Wake::Signalled(signals) => {
                    let turn = Box::pin(self.handle_signals(stream, signals)).await?;
                    if turn != Turn::GoOn {
                        return Ok(ControlFlow::Break(turn));
                    }
                }
                Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Receives what is there. More of a long message goes straight into it; the buffer is empty
    /// then, and holds no memory.
    fn receive_now(&mut self) -> io::Result<Vec<u8>> {
        if let Some(Unfinished { mut bytes, most }) = task::lend(&mut self.session) {
            self.expects_long = self.session.announced() > READ_BUFFER_BYTES;
            let outcome = self.handle.receive_now(&mut bytes, most);
            self.session.take_back(bytes);
            if let Ok(received) = outcome {
                self.worker.counters().bytes_received.add(received as u64);
            }
            return filled((outcome, Vec::new()));
        }
        let most = if std::mem::take(&mut self.expects_long) {
            FIRST_PIECE_BYTES
        } else {
            READ_BUFFER_BYTES
        };
        let mut buf = self.worker.buffer_pool.take();
        let outcome = self.handle.receive_now(&mut buf, most);
        filled((outcome, buf))
    }

    /// Does what others ask for.
    async fn handle_signals(
        &mut self,
        outgoing: &mut impl AsyncWriteRent,
        signals: Signals,
    ) -> io::Result<Turn> {
        let (session, counters) = (&mut self.session, self.worker.counters());
        let mut frames = Vec::new();
        let turn = task::handle_signals(session, signals, counters, &mut frames);
        if turn == Turn::Over {
            self.handle.set_phase(Phase::Closing);
            self.handle.limit(LINGER_TIMEOUT);
        }
        let length = frames.len();
        self.handle.send(outgoing, frames, 0..length).await.0?;
        if self.session.state() != State::Open {
            self.handle.deliver_on_close();
        }
        Ok(turn)
    }

    async fn send_unsent(&mut self, socket: &mut Socket) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let all = 0..unsent.len();
        match socket {
            Socket::Halves(_, outgoing) => self.handle.send(outgoing, unsent, all).await.0,
            Socket::Whole(stream) => self.handle.send(stream, unsent, all).await.0,
        }
    }

    /// Lets the session reply to `received`. What cannot be in place is in `unsent`.
    fn reply_to(&mut self, received: &mut [u8]) -> (Reply, Turn) {
        let echo = self.session.echo(received, &mut self.unsent);
        self.worker.counters().count_echo(received.len(), &echo);
        self.work.run(echo.messages);
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
async fn linger(worker: &Worker, handle: &Rc<ConnectionHandle>, incoming: &mut TcpOwnedReadHalf) {
    handle.set_phase(Phase::Closing);
    handle.limit(LINGER_TIMEOUT);
    // An error means that the peer is gone or does not read: either way there is nothing more to
    // do.
    let _ = try_linger(worker, handle, incoming).await;
}

// RFC 6455 section 5.5.1: tcp-is-closed, server-closes-at-once
// RFC 6455 section 7.1.7: server-fails
async fn try_linger(
    worker: &Worker,
    handle: &Rc<ConnectionHandle>,
    incoming: &mut TcpOwnedReadHalf,
) -> io::Result<()> {
    let mut outgoing = loop {
        match handle.take_socket() {
            Some(outgoing) => break outgoing,
            None => handle.written().await?,
        }
    };
    let sent = handle.send_outbox(&mut outgoing).await;
    let ended = match sent {
        Ok(()) => {
            handle.deliver_on_close();
            outgoing.shutdown().await
        }
        Err(error) => Err(error),
    };
    handle.return_socket(outgoing);
    ended?;
    handle.limit(LINGER_TIMEOUT);
    discard(worker, handle, incoming).await
}

/// Reads to the end of the stream, or as much as is bearable.
async fn discard(
    worker: &Worker,
    handle: &ConnectionHandle,
    incoming: &mut TcpOwnedReadHalf,
) -> io::Result<()> {
    let mut read_buffer = ReadBuffer::new();
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        let mut read = pin!(incoming.read(read_buffer.take(&worker.buffer_pool)));
        let outcome = loop {
            match handle.wait(&mut read).await {
                Wake::Ready(outcome) => break outcome,
                Wake::Signalled(_) => {}
                Wake::Expired => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let buf = match filled(outcome) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            outcome => outcome?,
        };
        let received = buf.len();
        discarded += received;
        read_buffer.put(buf, received, &worker.buffer_pool);
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
