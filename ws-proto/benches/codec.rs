//! Echo of masked binary frames, from received bytes to bytes to send, in memory: ours in place,
//! tungstenite, fastwebsockets.
//!
//! Each iteration receives the same bytes (one copy into the codec's own buffer, as a kernel would
//! do) and hands the reply to a sink that looks at no byte (the kernel's copy on sending costs each
//! codec the same). No I/O, no wake-ups: this shows the codec alone. tungstenite has a read buffer
//! of four times the input and at least 4 KiB, and one flush per iteration; fastwebsockets runs on
//! a stream that is always ready, so that its futures never wait.

use std::{
    hint::black_box,
    io::{self, Read, Write},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::WebSocket as FastWebSocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::{Role as TungsteniteRole, WebSocket, WebSocketConfig};
use ws_proto::{Kind, Limits, Reply, Role, Session, encode_masked_frame};

/// Name, frames in a buffer, payload bytes of each.
const CASES: [(&str, usize, usize); 5] = [
    ("16B", 1, 16),
    ("64B", 1, 64),
    ("1KiB", 1, 1024),
    ("16KiB", 1, 16 * 1024),
    ("16x64B", 16, 64),
];

fn echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, frames, payload_len) in CASES {
        let request = request(frames, payload_len);
        group.throughput(Throughput::Elements(frames as u64));

        let mut session = Session::new(Role::Server, Limits::default());
        let (mut buf, mut spill) = (request.clone(), Vec::new());
        group.bench_function(BenchmarkId::new("ws-proto", name), |bencher| {
            bencher.iter(|| {
                black_box(&mut buf[..]).copy_from_slice(&request);
                let echo = session.echo(&mut buf, &mut spill);
                let Reply::InPlace(range) = echo.reply else {
                    panic!("a reply in place")
                };
                black_box(&buf[range]);
            });
        });

        let config = WebSocketConfig::default()
            .read_buffer_size((4 * request.len()).max(4096))
            .write_buffer_size(2 * request.len());
        let mut socket =
            WebSocket::from_raw_socket(Loop::new(&request), TungsteniteRole::Server, Some(config));
        group.bench_function(BenchmarkId::new("tungstenite", name), |bencher| {
            bencher.iter(|| {
                for _ in 0..frames {
                    let message = socket.read().expect("a message");
                    socket.write(message).expect("an endless sink");
                }
                socket.flush().expect("an endless sink");
            });
        });

        let mut socket =
            FastWebSocket::after_handshake(Loop::new(&request), fastwebsockets::Role::Server);
        group.bench_function(BenchmarkId::new("fastwebsockets", name), |bencher| {
            bencher.iter(|| {
                run(async {
                    for _ in 0..frames {
                        let frame = socket.read_frame().await.expect("a frame");
                        socket.write_frame(frame).await.expect("an endless sink");
                    }
                });
            });
        });
    }
    group.finish();
}

fn request(frames: usize, payload_len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_len).map(|at| at as u8).collect();
    let mut request = Vec::new();
    for _ in 0..frames {
        encode_masked_frame(
            Kind::Binary.into(),
            &payload,
            [0x37, 0xfa, 0x21, 0x3d],
            &mut request,
        );
    }
    request
}

/// A stream that receives the same bytes over and over, and swallows what is sent.
struct Loop<'a> {
    request: &'a [u8],
    at: usize,
}

impl<'a> Loop<'a> {
    fn new(request: &'a [u8]) -> Self {
        Self { request, at: 0 }
    }

    fn next(&mut self, max: usize) -> &'a [u8] {
        let end = self.request.len().min(self.at + max);
        let bytes = &self.request[self.at..end];
        self.at = if end == self.request.len() { 0 } else { end };
        bytes
    }
}

impl Read for Loop<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next(buf.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl Write for Loop<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(black_box(buf).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Loop<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.next(buf.remaining());
        buf.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Loop<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(buf).len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bufs).iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that never waits.
fn run(future: impl Future<Output = ()>) {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(()) => {}
        Poll::Pending => unreachable!("the stream is always ready"),
    }
}

criterion_group!(benches, echo);
criterion_main!(benches);
