//! The server's side: parse the request, decide, answer.

use super::{HttpError, Status};

/// Parses a request head at the start of `bytes`. Call with all bytes received so far until it is complete.
///
/// # Errors
/// * 400: not HTTP, no `Host` in an HTTP/1.1 request, more than one `Host` (RFC 9112, section 3.2)
/// * 431: more than [`MAX_HEADERS`](super::MAX_HEADERS) fields, or more than [`MAX_HEAD_BYTES`](super::MAX_HEAD_BYTES)
///   without an end of the head
/// * 505: not HTTP/1.x
pub fn parse_request(bytes: &[u8]) -> Result<Status<RequestHead<'_>>, HttpError> {
    todo!()
}

/// A whole request head; borrows from the bytes it was parsed from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    minor_version: u8,
    headers: Vec<httparse::Header<'a>>,
    head_bytes: usize,
}

impl<'a> RequestHead<'a> {
    /// The method as sent, for example `GET`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target without its query, not decoded. For an absolute target (`http://host/path`) its path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        todo!()
    }

    /// What follows the first `?` of the target, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        todo!()
    }

    /// The first field named `name` (any case), without surrounding blanks; `None` too when it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        todo!()
    }

    /// Length of the head in bytes, its empty line included. What follows belongs to the WebSocket session.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Whether the request asks for a WebSocket (`Upgrade` names `websocket`), however wrong it may be otherwise. For routes
    /// that serve both.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        todo!()
    }

    /// Decides on the upgrade (RFC 6455, section 4.2.1).
    ///
    /// # Errors
    /// * 405: the method is not GET
    /// * 505: HTTP/1.0
    /// * 400: a body is announced (`Content-Length` other than 0, or any `Transfer-Encoding`); `Sec-WebSocket-Key` or
    ///   `Sec-WebSocket-Version` given twice or missing; the key is not 16 bytes of base64
    /// * 426: `Upgrade` does not name `websocket`, `Connection` does not name `upgrade`, or the version is not 13
    pub fn upgrade(&self) -> Result<Upgrade<'a>, HttpError> {
        todo!()
    }
}

/// An upgrade that may be granted.
#[derive(Debug)]
pub struct Upgrade<'a> {
    key: &'a str,
    subprotocols: Vec<&'a str>,
}

impl<'a> Upgrade<'a> {
    /// The subprotocols that the client offers, in its order of preference (section 1.9).
    #[must_use]
    pub fn subprotocols(&self) -> &[&'a str] {
        &self.subprotocols
    }

    /// Appends the `101 Switching Protocols` response to `out` (section 4.2.2). Extensions are declined by not naming any.
    /// A `subprotocol` that the client did not offer is left out, for the client would have to fail the connection
    /// (section 4.1).
    pub fn write_response(&self, subprotocol: Option<&str>, out: &mut Vec<u8>) {
        todo!()
    }
}
