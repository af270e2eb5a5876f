//! One connection, one task: handshake, echo, and the way it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BufMut;
use server_core::admission::{Admitted, Permit, Upgrade};
use server_core::endpoints::Endpoint;
use server_core::lifecycle::AliveGuard;
use server_core::member::MemberSession;
use server_core::options::{LINGER_BYTES, LINGER_TIMEOUT, READ_BUFFER_BYTES};
use server_core::sweep::Phase;
use server_core::task::{self, Ending, FIRST_PIECE_BYTES, Signals, Turn};
use server_core::work::HandlerWork;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use ws_proto::{Reply, Role, Session, State, Unfinished};

use crate::handle::{ConnectionHandle, Wake};
use crate::member;
use crate::scratch::with_scratch;
use crate::worker::Worker;

/// A connection that has received so many bytes in one poll lets others go on.
const POLL_BYTES: usize = 1024 * 1024;

/// Serves a connection from its first byte to its last.
pub(crate) fn serve(worker: Arc<Worker>, stream: TcpStream, alive: AliveGuard) -> Connection {
    let handle = ConnectionHandle::new(stream, worker.tick());
    Connection {
        stage: Stage::New,
        registered: Registered {
            worker,
            handle,
            slot: NOWHERE,
            permit: None,
            _alive: alive,
        },
    }
}

/// The task of a connection. It is no larger than what an open echo needs: whatever is rare, short
/// or larger is boxed. Written by hand, because an `async` block would keep what it moves twice,
/// and then a message would touch three cache lines of the task, not two.
pub(crate) struct Connection {
    stage: Stage,
    /// Dropped last: what a stage holds ends before the entry does.
    registered: Registered,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the task is at.
enum Stage {
    New,
    Handshake(Boxed<Result<Upgrade, Ending>>),
    Echo(Echo),
    Member(Boxed<Ending>),
    Linger(Boxed<()>),
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { registered, stage } = &mut *self;
        loop {
            let ending = match stage {
                Stage::Echo(echo) => ready!(echo.poll(registered, cx)),
                Stage::Member(member) => ready!(member.as_mut().poll(cx)),
                Stage::New => {
                    registered.enter(cx.waker().clone());
                    let (worker, handle) = registered.clones();
                    *stage = Stage::Handshake(Box::pin(handshake(worker, handle)));
                    continue;
                }
                Stage::Handshake(handshake) => match ready!(handshake.as_mut().poll(cx)) {
                    Ok(upgrade) => {
                        *stage = open(registered, upgrade);
                        continue;
                    }
                    Err(ending) => ending,
                },
                Stage::Linger(linger) => return linger.as_mut().poll(cx),
            };
            if ending == Ending::Gone {
                return Poll::Ready(());
            }
            let (worker, handle) = registered.clones();
            *stage = Stage::Linger(Box::pin(linger(worker, handle)));
        }
    }
}

/// Begins to serve the WebSocket that a request has become.
fn open(registered: &mut Registered, upgrade: Upgrade) -> Stage {
    registered.permit = Some(upgrade.permit);
    let (worker, handle) = (&registered.worker, &registered.handle);
    handle.activity.touch(worker.tick());
    handle.set_phase(Phase::Open);
    match upgrade.endpoint {
        Endpoint::Echo => {
            let Upgrade {
                response,
                early,
                work,
                ..
            } = upgrade;
            Stage::Echo(Echo::new(worker, response, early, work))
        }
        Endpoint::Broadcast(room) => {
            let (worker, handle) = registered.clones();
            let (slot, response) = (registered.slot, upgrade.response);
            let session = MemberSession::new(worker.server.settings.limits, upgrade.work);
            let early = upgrade.early;
            Stage::Member(Box::pin(async move {
                member::serve(&worker, &handle, slot, room, session, response, early).await
            }))
        }
    }
}

/// A connection's entry in its worker's list, with all that lives as long as the connection.
struct Registered {
    worker: Arc<Worker>,
    handle: Arc<ConnectionHandle>,
    /// [`NOWHERE`] until it is entered.
    slot: u32,
    /// Once it is a WebSocket.
    permit: Option<Permit>,
    _alive: AliveGuard,
}

const NOWHERE: u32 = u32::MAX;

impl Registered {
    /// Lets others find the connection; `task` is its own.
    fn enter(&mut self, task: Waker) {
        if let Some(handle) = Arc::get_mut(&mut self.handle) {
            handle.set_task(task);
        }
        self.slot = self.worker.register(&self.handle);
    }

    fn clones(&self) -> (Arc<Worker>, Arc<ConnectionHandle>) {
        (Arc::clone(&self.worker), Arc::clone(&self.handle))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.slot != NOWHERE {
            self.worker.unregister(self.slot);
        }
    }
}

async fn handshake(worker: Arc<Worker>, handle: Arc<ConnectionHandle>) -> Result<Upgrade, Ending> {
    let mut kept = Vec::new();
    loop {
        match handle.wait(false).await {
            Wake::Ready => {}
            Wake::Signalled(signals) if signals.includes(Signals::REQUEST_TIMEOUT) => {
                let response = worker.server.admission.time_out(worker.index);
                handle.outbox().push_control(response);
                return Err(Ending::Linger);
            }
            Wake::Signalled(signals) if signals.includes(Signals::DRAIN) => {
                handle.deliver_on_close();
                return Err(Ending::Gone);
            }
            Wake::Signalled(_) => continue,
        }
        let admitted = match read_head(&worker, &handle, &mut kept) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(Ending::Gone),
            Ok(admitted) => admitted,
        };
        match admitted {
            Admitted::NeedMore => {}
            Admitted::Upgrade(upgrade) => return Ok(upgrade),
            Admitted::Respond(response) => {
                handle.outbox().push_control(response);
                return Err(Ending::Linger);
            }
        }
    }
}

fn read_head(
    worker: &Worker,
    handle: &ConnectionHandle,
    kept: &mut Vec<u8>,
) -> io::Result<Admitted> {
    with_scratch(|buf| match handle.try_read(buf)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            let admission = &worker.server.admission;
            Ok(admission.read_head(worker.index, kept, &buf[..n]))
        }
    })
}

/// Sends everything back. While a reply cannot be written the connection is not read.
///
/// Polled by hand, because an `async fn` would keep its arguments, and what it moves out of them,
/// twice.
struct Echo {
    session: Session,
    unsent: Unsent,
    turn: Turn,
    /// The last message was longer than the thread's buffer, and the next may be.
    expects_long: bool,
    /// For each message.
    work: HandlerWork,
}

impl Echo {
    fn new(worker: &Worker, response: Vec<u8>, mut early: Vec<u8>, work: HandlerWork) -> Self {
        let mut echo = Self {
            session: Session::new(Role::Server, worker.server.settings.limits),
            unsent: Unsent::new(response, 0),
            turn: Turn::GoOn,
            expects_long: false,
            work,
        };
        if !early.is_empty() {
            let (reply, spill) = echo.reply_to(worker, &mut early, 0);
            match reply {
                Reply::None => {}
                Reply::InPlace(range) => echo.unsent.append(&early[range]),
                Reply::Spilled => echo.unsent.append(&spill),
            }
        }
        echo
    }

    fn poll(&mut self, registered: &Registered, cx: &mut Context<'_>) -> Poll<Ending> {
        let (worker, handle) = (&*registered.worker, &*registered.handle);
        let mut received = 0;
        loop {
            if flush(worker, handle, &mut self.unsent).is_err() {
                return Poll::Ready(Ending::Gone);
            }
            if self.unsent.is_empty() && (self.turn == Turn::Eof || self.is_closing()) {
                handle.deliver_on_close();
            }
            match self.turn {
                Turn::GoOn => {}
                Turn::Eof => return Poll::Ready(Ending::Gone),
                Turn::Over => return Poll::Ready(leave_to_linger(handle, &mut self.unsent)),
            }
            if received >= POLL_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(handle.poll_wake(!self.unsent.is_empty(), cx)) {
                Wake::Ready if self.unsent.is_empty() => match self.take_turn(worker, handle) {
                    Ok(0) => self.turn = Turn::Eof,
                    Ok(n) => received += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => self.turn = Turn::Eof,
                },
                // To be written by the next turn of this loop.
                Wake::Ready => {}
                Wake::Signalled(signals) => {
                    let (session, counters) = (&mut self.session, worker.counters());
                    let mut frames = Vec::new();
                    self.turn = task::handle_signals(session, signals, counters, &mut frames);
                    self.unsent.append(&frames);
                }
            }
        }
    }

    /// Whether our Close frame was the last to be sent.
    fn is_closing(&self) -> bool {
        self.session.state() != State::Open
    }

    /// One read, and one write of all replies to it. What the socket does not take is unsent then.
    /// How much was read.
    fn take_turn(&mut self, worker: &Worker, handle: &ConnectionHandle) -> io::Result<usize> {
        if let Some(Unfinished { mut bytes, most }) = task::lend(&mut self.session) {
            self.expects_long = self.session.announced() > READ_BUFFER_BYTES;
            let outcome = handle.try_read_buf(&mut (&mut bytes).limit(most));
            self.session.take_back(bytes);
            return outcome.and_then(|n| self.take(worker, handle, &mut [], n));
        }
        with_scratch(|buf| {
            let most = if self.expects_long {
                FIRST_PIECE_BYTES
            } else {
                READ_BUFFER_BYTES
            };
            let n = handle.try_read(&mut buf[..most])?;
            self.expects_long = false;
            self.take(worker, handle, &mut buf[..n], 0)
        })
    }

    /// Replies to `received`, and to `straight` bytes that are in the message already.
    fn take(
        &mut self,
        worker: &Worker,
        handle: &ConnectionHandle,
        received: &mut [u8],
        straight: usize,
    ) -> io::Result<usize> {
        let n = received.len() + straight;
        if n > 0 {
            handle.activity.touch(worker.tick());
            let send = |reply: &[u8]| {
                let sent = handle.try_write(reply)?;
                worker.counters().bytes_sent.add_alone(sent as u64);
                Ok::<_, io::Error>(sent)
            };
            match self.reply_to(worker, received, straight) {
                (Reply::None, _) => {}
                (Reply::InPlace(range), _) => {
                    let reply = &received[range];
                    self.unsent.append(&reply[send(reply)?..]);
                }
                (Reply::Spilled, spill) => {
                    let sent = send(&spill)?;
                    self.unsent = Unsent::new(spill, sent);
                }
            }
        }
        Ok(n)
    }

    /// Lets the session reply; what cannot be in place is the vector.
    fn reply_to(
        &mut self,
        worker: &Worker,
        received: &mut [u8],
        straight: usize,
    ) -> (Reply, Vec<u8>) {
        let mut spill = Vec::new();
        let echo = self.session.echo(received, &mut spill);
        let counters = worker.counters();
        counters.count_echo(received.len() + straight, &echo);
        self.work.run(echo.messages);
        if echo.end.is_some() {
            self.turn = Turn::Over;
        }
        (echo.reply, spill)
    }
}

/// Replies that the socket did not take yet. No memory while there are none.
#[derive(Default)]
struct Unsent(Option<Box<Rest>>);

struct Rest {
    /// Never empty.
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// The socket was full.
    stuck: bool,
}

impl Unsent {
    /// Of `bytes`, the first `sent` are sent.
    fn new(bytes: Vec<u8>, sent: usize) -> Self {
        let is_rest = sent < bytes.len();
        let rest = Rest {
            bytes,
            sent,
            stuck: false,
        };
        Self(is_rest.then(|| Box::new(rest)))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn append(&mut self, more: &[u8]) {
        match &mut self.0 {
            Some(rest) => rest.bytes.extend_from_slice(more),
            None => *self = Self::new(more.to_vec(), 0),
        }
    }
}

/// Writes what the socket takes; frees the memory when that was all.
fn flush(worker: &Worker, handle: &ConnectionHandle, unsent: &mut Unsent) -> io::Result<()> {
    while let Some(rest) = &mut unsent.0 {
        let n = handle.try_write(&rest.bytes[rest.sent..])?;
        if n == 0 {
            rest.stuck = true;
            break;
        }
        if std::mem::take(&mut rest.stuck) {
            // There was no room for it, now there is: the peer lives, even if it says nothing.
            handle.activity.touch(worker.tick());
        }
        worker.counters().bytes_sent.add_alone(n as u64);
        rest.sent += n;
        if rest.sent == rest.bytes.len() {
            *unsent = Unsent::default();
        }
    }
    Ok(())
}

/// Leaves the rest to [`linger`].
fn leave_to_linger(handle: &ConnectionHandle, unsent: &mut Unsent) -> Ending {
    if let Some(mut rest) = unsent.0.take() {
        rest.bytes.drain(..rest.sent);
        handle.outbox().close(rest.bytes);
    }
    Ending::Linger
}

/// Sends what is in the outbox, ends our direction, and reads until the peer has ended its own:
/// closing a socket with unread bytes would reset the connection and could destroy our last words
/// on the way. All of it in bounded time.
async fn linger(worker: Arc<Worker>, handle: Arc<ConnectionHandle>) {
    handle.set_phase(Phase::Closing);
    // An error means that the peer is gone or does not read: either way there is nothing more to
    // do.
    let _ = try_linger(&worker, &handle).await;
}

// RFC 6455 section 5.5.1: tcp-is-closed, server-closes-at-once
// RFC 6455 section 7.1.7: server-fails
async fn try_linger(worker: &Worker, handle: &ConnectionHandle) -> io::Result<()> {
    let counters = worker.counters();
    loop {
        let (messages, bytes) = handle.flush()?;
        counters.messages_sent.add_alone(messages);
        counters.bytes_sent.add_alone(bytes);
        if handle.outbox().is_empty() {
            break;
        }
        // Anew for each piece: a slow peer gets everything, one that does not read gets no more.
        within(LINGER_TIMEOUT, handle.wait(true)).await?;
    }
    handle.shutdown_write()?;
    within(LINGER_TIMEOUT, discard(handle)).await?
}

async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(limit, what)
        .await
        .map_err(|_: Elapsed| io::ErrorKind::TimedOut.into())
}

/// Reads to the end of the stream, or as much as is bearable.
async fn discard(handle: &ConnectionHandle) -> io::Result<()> {
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        handle.wait(false).await;
        match with_scratch(|buf| handle.try_read(buf)) {
            Ok(0) => break,
            Ok(n) => discarded += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_connection_is_small() {
        // With the 48 bytes that tokio puts before it, it fits into two cache lines. Beside these a
        // connection holds tokio's entry for the socket.
        assert!(size_of::<Connection>() <= 80, "{}", size_of::<Connection>());
    }
}
