//! tokio-tungstenite, tuned: a small read buffer (it is allocated eagerly, and zeroed again for
//! every read), and replies that are fed as long as there is input and flushed when there is none.

use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use futures_util::{Sink, SinkExt, StreamExt};
use mimalloc::MiMalloc;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use peers::handshake::{self, Endpoint};
use peers::room::{Member, Rooms, UNSENT_BYTES, lock};
use peers::shell::{self, About};
use peers::work::HandlerWork;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Its documentation's figure for many connections.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Replies that are collected before they are sent although there is more input.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

type Socket = WebSocketStream<TcpStream>;

fn main() -> ExitCode {
    let about = About {
        server: env!("CARGO_BIN_NAME"),
        version: env!("TOKIO_TUNGSTENITE_VERSION"),
        runtime: concat!(
            "tokio-tungstenite ",
            env!("TOKIO_TUNGSTENITE_VERSION"),
            " on tokio ",
            env!("TOKIO_VERSION")
        ),
    };
    let rooms = Rooms::default();
    shell::run(about, move |stream, work| {
        connection(stream, work, rooms.clone())
    })
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES + UNSENT_BYTES)
}

async fn connection(mut stream: TcpStream, work: HandlerWork, rooms: Rooms<Listener>) {
    let Ok(Some(endpoint)) = handshake::accept(&mut stream).await else {
        return;
    };
    let socket = Socket::from_raw_socket(stream, Role::Server, Some(config())).await;
    // Whatever ends a connection, nothing is owed to anybody afterwards.
    let _ = match endpoint {
        Endpoint::Echo => echo(socket, work).await,
        Endpoint::Broadcast(room) => listen(socket, work, &rooms, room).await,
    };
}

async fn echo(mut socket: Socket, work: HandlerWork) -> Result<(), Error> {
    while let Some(message) = poll_fn(|cx| poll_next(&mut socket, cx)).await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            work.run(1);
            socket.feed(message).await?;
        }
    }
    Ok(())
}

/// The next message. What has been fed is flushed only when there is none yet.
fn poll_next(socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
    if let Poll::Ready(next) = socket.poll_next_unpin(cx) {
        return Poll::Ready(next);
    }
    match ready!(Pin::new(socket).poll_flush(cx)) {
        Ok(()) => Poll::Pending,
        Err(error) => Poll::Ready(Some(Err(error))),
    }
}

async fn listen(
    socket: Socket,
    work: HandlerWork,
    rooms: &Rooms<Listener>,
    room: String,
) -> Result<(), Error> {
    let member = Arc::new(Listener(Mutex::new(socket)));
    let place = rooms.join(room, member.clone());
    while let Some(message) = poll_fn(|cx| poll_next(&mut lock(&member.0), cx)).await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            work.run(1);
            place.publish(&message);
        }
    }
    Ok(())
}

/// A connection that is in a room.
struct Listener(Mutex<Socket>);

impl Member for Listener {
    type Message = Message;

    fn offer(self: &Arc<Self>, message: &Message) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut socket = lock(&self.0);
        // An error when it is too much: what the socket does not take is kept up to a limit.
        let sent = match Pin::new(&mut *socket).start_send(message.clone()) {
            Ok(()) => Pin::new(&mut *socket).poll_flush(&mut cx),
            Err(error) => Poll::Ready(Err(error)),
        };
        match sent {
            Poll::Ready(Ok(())) => {}
            Poll::Pending => drop(tokio::spawn(send_rest(self.clone()))),
            // It is cut off, and leaves the room by itself.
            Poll::Ready(Err(_)) => drop(SockRef::from(socket.get_ref()).shutdown(Shutdown::Both)),
        }
    }
}

async fn send_rest(member: Arc<Listener>) {
    poll_fn(|cx| lock(&member.0).poll_flush_unpin(cx).map(drop)).await;
}
