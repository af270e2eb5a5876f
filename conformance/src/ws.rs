//! The well-behaved client: tungstenite with deadlines.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::error::ProtocolError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use super::client::{Address, Raw};

/// A client that keeps all the rules, with deadlines.
pub struct Ws {
    socket: WebSocket<TcpStream>,
}

impl Ws {
    /// Connects and upgrades.
    #[track_caller]
    pub fn connect(address: &Address, path: &str, patience: Duration) -> Ws {
        let raw = Raw::connect(address, patience);
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0);
        let url = format!("ws://conformance.test{path}");
        match tungstenite::client::client_with_config(url, raw.stream, Some(config)) {
            Ok((socket, _)) => Ws { socket },
            Err(e) => panic!("the upgrade of {path} failed: {e}"),
        }
    }

    /// Sends a message.
    #[track_caller]
    pub fn send(&mut self, message: impl Into<Message>) {
        self.socket
            .send(message.into())
            .unwrap_or_else(|e| panic!("cannot send a message: {e}"));
    }

    /// The next data or close message (pings are answered on the way).
    #[track_caller]
    pub fn receive(&mut self) -> Message {
        self.try_receive()
            .unwrap_or_else(|e| panic!("no message came: {e}"))
    }

    fn try_receive(&mut self) -> Result<Message, Error> {
        loop {
            match self.socket.read()? {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Waits for exactly this message.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl Into<Message>) {
        let (wanted, got) = (wanted.into(), self.receive());
        assert!(
            got == wanted,
            "expected {}, got {}",
            brief(&wanted),
            brief(&got)
        );
    }

    /// Sends a message and waits for the same one.
    #[track_caller]
    pub fn echo(&mut self, message: impl Into<Message>) {
        let message = message.into();
        self.send(message.clone());
        self.expect(message);
    }

    /// Closes with 1000 and waits until the server has answered and closed.
    #[track_caller]
    pub fn close(mut self) {
        self.socket
            .close(None)
            .unwrap_or_else(|e| panic!("cannot close: {e}"));
        self.expect_end();
    }

    /// Waits for a close frame with this code, answers it, and waits for the end.
    #[track_caller]
    pub fn expect_close(mut self, code: u16) {
        match self.receive() {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), code, "{frame:?}"),
            other => panic!("expected close {code}, got {}", brief(&other)),
        }
        self.expect_end();
    }

    #[track_caller]
    fn expect_end(&mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(_)) => {}
                Ok(other) => panic!("expected the end, got {}", brief(&other)),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    panic!("closed without handshake")
                }
                Err(e) => panic!("expected the end, got {e}"),
            }
        }
    }
}

/// A message in few words: 1 MiB of payload helps nobody.
fn brief(message: &Message) -> String {
    let kind = match message {
        Message::Text(_) => "text",
        Message::Binary(_) => "binary",
        Message::Ping(_) => "ping",
        Message::Pong(_) => "pong",
        Message::Close(frame) => return format!("close {frame:?}"),
        Message::Frame(_) => "frame",
    };
    let data = message.clone().into_data();
    format!(
        "{kind} of {} bytes \"{}\"",
        data.len(),
        data[..data.len().min(40)].escape_ascii()
    )
}
