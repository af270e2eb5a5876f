//! HTTP replies that refuse a request.

use thiserror::Error;

/// A refusal, to be written and followed by the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{status}: {message}")]
pub struct HttpError {
    status: u16,
    message: &'static str,
}

impl HttpError {
    /// Any refusal: `status` is an HTTP status code, `message` the text of the body (a newline is added).
    #[must_use]
    pub const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }

    /// The HTTP status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The text of the body.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        self.message
    }

    /// Appends the whole response to `out`: status line, `Connection: close`, `Content-Type: text/plain`,
    /// `Content-Length`, and where due `Allow: GET` (405) or `Upgrade: websocket` with `Sec-WebSocket-Version: 13`
    /// (426; RFC 9110 section 15.5.22 and RFC 6455 section 4.4).
    pub fn write_response(&self, out: &mut Vec<u8>) {
        todo!()
    }
}
