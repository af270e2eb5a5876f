//! The client's side: write the request, check the answer.

use thiserror::Error;

use super::Status;

/// A `Sec-WebSocket-Key`: 16 bytes in base64, fresh for each connection (RFC 6455, section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A random key.
    #[must_use]
    pub fn generate() -> Self {
        todo!()
    }

    /// The key of a given nonce, for tests and for generators that must be quick.
    #[must_use]
    pub fn from_nonce(nonce: [u8; 16]) -> Self {
        todo!()
    }

    /// As it stands in the request: 24 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What to ask a server for; one value serves any number of connections.
#[derive(Clone, Debug)]
pub struct Request {
    host: String,
    target: String,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

impl Request {
    /// A request for `target` (path and query, starting with `/`) at `host` (with `:port` unless it is the default one; an
    /// IPv6 address in brackets).
    ///
    /// # Errors
    /// When either is empty or holds a blank or control character, or the target does not start with `/`.
    pub fn new(host: &str, target: &str) -> Result<Self, RequestError> {
        todo!()
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// When the name is no token, the value holds a control character, or the field belongs to the handshake itself
    /// (`Host`, `Upgrade`, `Connection`, `Content-Length`, `Transfer-Encoding`, any `Sec-WebSocket-*`).
    pub fn header(self, name: &str, value: &str) -> Result<Self, RequestError> {
        todo!()
    }

    /// Offers a subprotocol, after those offered before (section 1.9).
    ///
    /// # Errors
    /// When it is no token or was offered already.
    pub fn subprotocol(self, name: &str) -> Result<Self, RequestError> {
        todo!()
    }

    /// Appends the request to `out`. No extension is offered.
    pub fn write(&self, key: &Key, out: &mut Vec<u8>) {
        todo!()
    }
}

/// A [`Request`] that cannot be written: our own mistake, not the server's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Host is empty or holds a character that would break the request.
    #[error("invalid host {0:?}")]
    Host(String),
    /// Target is not a path, or holds a character that would break the request.
    #[error("invalid target {0:?}: it must start with '/' and hold no blanks")]
    Target(String),
    /// Not a header name, or one that the handshake itself writes.
    #[error("invalid header name {0:?}: not a token, or one that the handshake writes itself")]
    HeaderName(String),
    /// The value holds a control character.
    #[error("invalid value of header {0}")]
    HeaderValue(String),
    /// Not a token, or offered twice.
    #[error("invalid subprotocol {0:?}: not a token, or offered twice")]
    Subprotocol(String),
}

/// The server agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Length of the response head in bytes. What follows belongs to the WebSocket session.
    pub head_bytes: usize,
    /// The subprotocol that the server chose, one of those offered.
    pub subprotocol: Option<&'a str>,
}

/// Checks the response at the start of `bytes` against the request (RFC 6455, section 4.1). Call with all bytes received so
/// far until it is complete.
///
/// # Errors
/// The server refused, or its answer does not establish a WebSocket connection: fail it.
pub fn check_response<'a>(
    bytes: &'a [u8],
    key: &Key,
    request: &Request,
) -> Result<Status<Accepted<'a>>, HandshakeError> {
    todo!()
}

/// Why a connection was not established.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not an HTTP/1.1 response.
    #[error("not an HTTP/1.1 response: {0}")]
    NotHttp(&'static str),
    /// The head exceeds 16 KiB or 64 fields.
    #[error("response head exceeds 16 KiB or 64 fields")]
    TooLarge,
    /// Any status but 101.
    #[error("server answered {status} {reason}")]
    Refused {
        /// HTTP status code.
        status: u16,
        /// Its reason phrase.
        reason: String,
    },
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    #[error("101 without `{0}`")]
    NotUpgraded(&'static str),
    /// `Sec-WebSocket-Accept` is missing, given twice or not derived from our key.
    #[error("Sec-WebSocket-Accept does not match the key")]
    WrongAccept,
    /// An extension that was not offered (none is).
    #[error("server chose an extension that was not offered: {0}")]
    Extension(String),
    /// A subprotocol that was not offered.
    #[error("server chose a subprotocol that was not offered: {0}")]
    Subprotocol(String),
}
