//! fastwebsockets on tokio: its own frame reader and writer over a socket that sends all replies to
//! one receive at once.
//!
//! As in its examples messages are collected from their fragments, pings and Close frames are
//! answered by the library, and connections are not subject to tokio's budget. What the examples
//! lack is the coalescing: they write once per message, which costs them an order of magnitude with
//! pipelined requests.

use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket,
    WebSocketError, WebSocketWrite, after_handshake_split,
};
use mimalloc::MiMalloc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use peers::handshake::{self, Endpoint};
use peers::room::{Member, Rooms, UNSENT_BYTES, lock};
use peers::shell::{self, About};
use peers::work::HandlerWork;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Replies that are collected before they are sent although the receive has not been worked off.
const COALESCED_BYTES: usize = 64 << 10;

fn main() -> ExitCode {
    let about = About {
        server: env!("CARGO_BIN_NAME"),
        version: env!("FASTWEBSOCKETS_VERSION"),
        runtime: concat!(
            "fastwebsockets ",
            env!("FASTWEBSOCKETS_VERSION"),
            " on tokio ",
            env!("TOKIO_VERSION")
        ),
    };
    let rooms = Rooms::default();
    shell::run(about, move |stream, work| {
        connection(stream, work, rooms.clone())
    })
}

async fn connection(mut stream: TcpStream, work: HandlerWork, rooms: Rooms<Listener>) {
    // Whatever ends a connection, nothing is owed to anybody afterwards.
    let _ = match handshake::accept(&mut stream).await {
        Ok(Some(Endpoint::Echo)) => echo(stream, work).await,
        Ok(Some(Endpoint::Broadcast(room))) => listen(stream, work, &rooms, room).await,
        Ok(None) | Err(_) => Ok(()),
    };
}

async fn echo(stream: TcpStream, work: HandlerWork) -> Result<(), WebSocketError> {
    let socket = Coalescing {
        stream,
        unsent: Vec::new(),
    };
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(socket, Role::Server));
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return socket.into_inner().send_all().await,
            OpCode::Text | OpCode::Binary => {
                work.run(1);
                socket.write_frame(frame).await?;
            }
            _ => {}
        }
    }
}

/// Holds back what is written until the next read: fastwebsockets reads when it has no whole frame
/// left, so this is when all replies to the last receive have been written.
struct Coalescing {
    stream: TcpStream,
    unsent: Vec<u8>,
}

impl Coalescing {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_send_all(&mut self.stream, &mut self.unsent, cx)
    }

    async fn send_all(mut self) -> Result<(), WebSocketError> {
        std::future::poll_fn(|cx| self.poll_send(cx)).await?;
        Ok(())
    }
}

impl AsyncRead for Coalescing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // While replies cannot be sent no more requests are taken.
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Coalescing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent.len() + buf.len() > COALESCED_BYTES {
            ready!(this.poll_send(cx))?;
            if buf.len() > COALESCED_BYTES {
                return Pin::new(&mut this.stream).poll_write(cx, buf);
            }
        }
        this.unsent.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

async fn listen(
    stream: TcpStream,
    work: HandlerWork,
    rooms: &Rooms<Listener>,
    room: String,
) -> Result<(), WebSocketError> {
    let (read, half) = stream.into_split();
    let queue = Queue {
        half,
        unsent: Vec::new(),
    };
    let (read, write) = after_handshake_split(read, queue, Role::Server);
    let member = Arc::new(Listener(Mutex::new(write)));
    let place = rooms.join(room, member.clone());
    let mut read = FragmentCollectorRead::new(read);
    loop {
        let mut answer = |frame: Frame<'_>| std::future::ready(member.send(frame));
        let frame = read.read_frame(&mut answer).await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                work.run(1);
                place.publish(&frame);
            }
            _ => {}
        }
    }
}

/// The sending half of a connection that is in a room.
struct Listener(Mutex<WebSocketWrite<Queue>>);

impl Listener {
    /// Sends a frame, or keeps what the socket does not take.
    fn send(self: &Arc<Self>, frame: Frame<'_>) -> Result<(), WebSocketError> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut write = lock(&self.0);
        match pin!(write.write_frame(frame)).poll(&mut cx) {
            Poll::Ready(sent) => sent?,
            // `Queue` never keeps a writer waiting.
            Poll::Pending => return Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
        }
        let all_sent = pin!(write.flush()).poll(&mut cx).is_ready();
        drop(write);
        if !all_sent {
            tokio::spawn(send_rest(self.clone()));
        }
        Ok(())
    }
}

impl Member for Listener {
    type Message = Frame<'static>;

    fn offer(self: &Arc<Self>, message: &Self::Message) {
        let payload = Payload::Borrowed(&message.payload);
        // Who cannot be sent to has been cut off by `Queue`, and leaves the room by itself.
        let _ = self.send(Frame::new(true, message.opcode, None, payload));
    }
}

async fn send_rest(member: Arc<Listener>) {
    std::future::poll_fn(|cx| pin!(lock(&member.0).flush()).poll(cx).map(drop)).await;
}

/// Takes everything that is written to it at once, up to a limit.
struct Queue {
    half: OwnedWriteHalf,
    unsent: Vec<u8>,
}

impl AsyncWrite for Queue {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut sent = 0;
        if this.unsent.is_empty() {
            sent = match this.half.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                sent => sent?,
            };
        }
        this.unsent.extend_from_slice(&buf[sent..]);
        if this.unsent.len() > UNSENT_BYTES {
            let _ = SockRef::from(this.half.as_ref()).shutdown(Shutdown::Both);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        poll_send_all(&mut this.half, &mut this.unsent, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().half).poll_shutdown(cx)
    }
}

fn poll_send_all(
    stream: &mut (impl AsyncWrite + Unpin),
    unsent: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !unsent.is_empty() {
        let sent = ready!(Pin::new(&mut *stream).poll_write(cx, unsent))?;
        unsent.drain(..sent);
    }
    Poll::Ready(Ok(()))
}
