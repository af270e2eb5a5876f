//! The client for violations: [`Raw`] writes any bytes it likes and reads strictly.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{AddrParseError, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::wire::{self, Frame, SAMPLE_ACCEPT, SAMPLE_KEY};

/// Where a server listens, as its `ready` line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:8080`.
    Tcp(SocketAddr),
    /// `unix:/run/ringside.sock`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Address, AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, up to `Content-Length` or the end of the connection.
    pub body: String,
}

impl Response {
    /// The value of the only header of this name, if there is one.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = found.next();
        assert!(found.next().is_none(), "header {name} came twice: {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    /// Whether a header of this name lists `token`, whatever its case.
    pub fn header_has(&self, name: &str, token: &str) -> bool {
        self.header(name).is_some_and(|value| {
            value
                .split(',')
                .any(|t| t.trim().eq_ignore_ascii_case(token))
        })
    }

    fn parse(head: &str) -> Result<Response, String> {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| format!("not an HTTP/1.1 status line: {status_line:?}"))?;
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => Ok((name.to_string(), value.trim().to_string())),
                None => Err(format!("not a header line: {line:?}")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Response {
            status,
            headers,
            body: String::new(),
        })
    }
}

/// A connection that sends exactly the bytes it is told to. Over a Unix socket it is one in the
/// type for TCP: what both can do.
pub struct Raw {
    pub(super) stream: TcpStream,
    pending: Vec<u8>,
    patience: Duration,
}

impl Raw {
    /// Connects; whatever is awaited later is awaited for at most `patience`.
    #[track_caller]
    pub fn connect(address: impl Into<Address>, patience: Duration) -> Raw {
        let address = address.into();
        Raw::try_connect(&address, patience)
            .unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(address: impl Into<Address>, patience: Duration) -> io::Result<Raw> {
        let stream = match address.into() {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&address, patience)?;
                stream.set_nodelay(true)?;
                stream
            }
            Address::Unix(path) => OwnedFd::from(UnixStream::connect(path)?).into(),
        };
        Raw::over(stream, patience)
    }

    /// Connects with a receive buffer of about `bytes`, so that it is soon full when nobody reads.
    #[track_caller]
    pub fn connect_with_receive_buffer(address: &Address, patience: Duration, bytes: usize) -> Raw {
        let &Address::Tcp(address) = address else {
            // What waits for its peer fills the sender's buffer, which is small enough.
            return Raw::connect(address, patience);
        };
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_recv_buffer_size(bytes)?;
            socket.connect_timeout(&address.into(), patience)?;
            socket.set_tcp_nodelay(true)?;
            Raw::over(socket.into(), patience)
        };
        connect().unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    fn over(stream: TcpStream, patience: Duration) -> io::Result<Raw> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Raw {
            stream,
            pending: Vec::new(),
            patience,
        })
    }

    /// A second handle on the same socket, to write from another thread.
    #[track_caller]
    pub fn writer(&self) -> TcpStream {
        self.stream
            .try_clone()
            .unwrap_or_else(|e| panic!("cannot clone the socket: {e}"))
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .unwrap_or_else(|e| panic!("cannot send {} bytes: {e}", bytes.len()));
    }

    /// Sends bytes to a server that may close at any moment; says whether they could be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends as much of `bytes` as goes within `wait`; how much that was.
    #[track_caller]
    pub fn send_until_stuck(&mut self, bytes: &[u8], wait: Duration) -> usize {
        self.set_timeouts(self.patience, wait);
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if would_block(&e) => break,
                // A machine that was stopped: signal(7), "socket interfaces with a timeout".
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => panic!("cannot send: {e}"),
            }
        }
        self.set_timeouts(self.patience, self.patience);
        sent
    }

    /// Sends every byte in a segment of its own.
    #[track_caller]
    pub fn send_bytewise(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(std::slice::from_ref(byte));
        }
    }

    /// Sends an upgrade request for `path` and checks the answer.
    #[track_caller]
    pub fn upgrade(&mut self, path: &str) {
        self.send(upgrade_request(path, "").as_bytes());
        self.expect_101();
    }

    /// Reads the answer to an upgrade request with [`SAMPLE_KEY`] and checks it (RFC 6455 section
    /// 4.2.2).
    // RFC 6455 section 4.2.2: accepts-with-101, sends-upgrade, sends-connection, sends-accept
    #[track_caller]
    pub fn expect_101(&mut self) -> Response {
        let response = self.response();
        assert_eq!(response.status, 101, "{response:?}");
        assert!(response.header_has("Upgrade", "websocket"), "{response:?}");
        assert!(response.header_has("Connection", "upgrade"), "{response:?}");
        assert_eq!(
            response.header("Sec-WebSocket-Accept"),
            Some(SAMPLE_ACCEPT),
            "{response:?}"
        );
        response
    }

    /// Reads an HTTP answer with its body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        match self.response_or_close() {
            Some(response) => response,
            None => panic!("the server closed instead of answering"),
        }
    }

    /// Reads the answer to a HEAD: an end where the body would be.
    #[track_caller]
    pub fn expect_bare_head(&mut self, status: u16) {
        while self.fill() {}
        let text = String::from_utf8_lossy(&self.pending);
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status} ")) && text.ends_with("\r\n\r\n"),
            "the head of a {status} is due and no more, got: {text}"
        );
    }

    /// Reads an HTTP answer of the given status after which the server closes.
    #[track_caller]
    pub fn expect_error(&mut self, status: u16) -> Response {
        let response = self.response();
        assert_eq!(response.status, status, "{response:?}");
        self.expect_closed();
        response
    }

    /// Reads the head of an HTTP answer, or `None` when the server closes without any.
    #[track_caller]
    pub fn response_or_close(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(
                    self.pending.is_empty(),
                    "half an answer: \"{}\"",
                    self.pending.escape_ascii()
                );
                return None;
            }
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        let response =
            Response::parse(&String::from_utf8_lossy(&head)).unwrap_or_else(|e| panic!("{e}"));
        if response.status != 101 {
            Some(self.body_of(response))
        } else {
            Some(response)
        }
    }

    #[track_caller]
    fn body_of(&mut self, mut response: Response) -> Response {
        let length: Option<usize> = response.header("Content-Length").map(|value| {
            value
                .parse()
                .unwrap_or_else(|_| panic!("bad Content-Length {value:?}"))
        });
        while length.is_none_or(|length| self.pending.len() < length) && self.fill() {}
        let length = length.unwrap_or(self.pending.len());
        assert!(
            self.pending.len() >= length,
            "the body ended early: {response:?}"
        );
        let body: Vec<u8> = self.pending.drain(..length).collect();
        response.body = String::from_utf8(body).unwrap_or_else(|_| panic!("the body is not UTF-8"));
        response
    }

    /// The next frame, or `None` at the end of the connection (FIN or RST).
    #[track_caller]
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::parse(&self.pending) {
                self.pending.drain(..used);
                assert!(!frame.masked, "a server must not mask: {frame:?}");
                assert!(
                    frame.is_minimal(),
                    "length not written minimally: {frame:?}"
                );
                assert_eq!(
                    frame.first & 0x70,
                    0,
                    "RSV bits without an extension: {frame:?}"
                );
                return Some(frame);
            }
            if !self.fill() {
                let rest = std::mem::take(&mut self.pending).len();
                assert!(rest == 0, "closed within a frame, {rest} bytes of it came");
                return None;
            }
        }
    }

    /// The next frame.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        match self.next_frame() {
            Some(frame) => frame,
            None => panic!("the server closed where a frame was due"),
        }
    }

    /// Reads one unfragmented frame and checks opcode and payload.
    #[track_caller]
    pub fn expect(&mut self, opcode: u8, payload: &[u8]) {
        let frame = self.frame();
        let wanted = Frame {
            first: wire::FIN | opcode,
            masked: false,
            header: frame.header,
            payload: payload.to_vec(),
        };
        assert!(frame == wanted, "expected {wanted:?}, got {frame:?}");
    }

    /// Reads a close frame with exactly this code, and then the end of the connection.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let frame = self.frame();
        assert_eq!(
            frame.opcode(),
            wire::CLOSE,
            "expected close {code}, got {frame:?}"
        );
        assert_eq!(frame.close_code(), Some(code), "{frame:?}");
        assert!(
            std::str::from_utf8(&frame.payload[2..]).is_ok(),
            "the reason is not UTF-8: {frame:?}"
        );
        self.expect_closed();
    }

    /// Reads the end of the connection: nothing may come before it.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        while self.fill() {}
        let rest = std::mem::take(&mut self.pending);
        assert!(
            rest.is_empty(),
            "bytes came where the end was due: \"{}\"",
            rest[..rest.len().min(200)].escape_ascii()
        );
    }

    /// Echoes one short message, which shows that the connection lives.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.send(&wire::text("are you there?"));
        self.expect(wire::TEXT, b"are you there?");
    }

    /// Whether something (data or the end) comes within `wait`.
    #[track_caller]
    pub fn hears_something_within(&mut self, wait: Duration) -> bool {
        if !self.pending.is_empty() {
            return true;
        }
        self.set_timeouts(wait, self.patience);
        let heard = match self.stream.peek(&mut [0]) {
            Err(e) if would_block(&e) => false,
            Ok(_) | Err(_) => true,
        };
        self.set_timeouts(self.patience, self.patience);
        heard
    }

    /// Sends FIN; reading goes on.
    #[track_caller]
    pub fn finish_sending(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .unwrap_or_else(|e| panic!("cannot half-close: {e}"));
    }

    /// Ends the connection with RST.
    #[track_caller]
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap_or_else(|e| panic!("cannot set SO_LINGER: {e}"));
    }

    fn set_timeouts(&self, read: Duration, write: Duration) {
        let set = self
            .stream
            .set_read_timeout(Some(read))
            .and_then(|()| self.stream.set_write_timeout(Some(write)));
        set.unwrap_or_else(|e| panic!("cannot set timeouts: {e}"));
    }

    /// Reads once; false at the end of the connection. Panics when nothing comes in time.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.pending.extend_from_slice(&buffer[..n]);
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
                {
                    return false;
                }
                Err(e) if would_block(&e) => panic!("nothing came within {:?}", self.patience),
                Err(e) => panic!("cannot read: {e}"),
            }
        }
    }
}

/// A well-formed upgrade request with [`SAMPLE_KEY`]; `extra` are whole header lines, each with its
/// CRLF.
pub fn upgrade_request(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: conformance.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Polls until `probe` gives a value; panics with `what` when it does not within `patience`.
#[track_caller]
pub fn eventually<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        // tidy: may sleep, a poll with a deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}
