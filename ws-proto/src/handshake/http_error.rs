//! HTTP replies that refuse a request.

use thiserror::Error;

/// A refusal, to be written and followed by the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{status}: {message}")]
pub struct HttpError {
    pub(super) status: u16,
    message: &'static str,
}

impl HttpError {
    /// Any refusal: `status` is an HTTP status code, `message` the text of the body (a newline is
    /// added).
    #[must_use]
    pub const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }

    /// Appends the whole response to `out`: status line, `Connection: close`, `Content-Type:
    /// text/plain`, `Content-Length`, and where due `Allow: GET` (405) or `Upgrade: websocket` with
    /// `Sec-WebSocket-Version: 13` (426; RFC 9110 section 15.5.22 and RFC 6455 section 4.4).
    // RFC 6455 section 4.2.2: other-version
    // RFC 6455 section 4.4: all-versions
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let (status, message) = (self.status, self.message);
        let extra = match status {
            405 => "Allow: GET\r\n",
            426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nConnection: close\r\n{extra}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{message}\n",
            reason_phrase(status),
            message.len() + 1,
        );
        out.extend_from_slice(head.as_bytes());
    }
}

/// Reason phrases of RFC 9110, section 15, for what a WebSocket server says; the client may ignore
/// them.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, message: &'static str) -> String {
        let mut out = Vec::new();
        HttpError::new(status, message).write_response(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_close_and_its_length() {
        assert_eq!(
            response(404, "no such path"),
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 13\r\n\r\nno such path\n"
        );
    }

    #[test]
    fn adds_the_fields_that_a_status_demands() {
        assert!(response(405, "").contains("\r\nAllow: GET\r\n"));
        let upgrade = response(426, "");
        assert!(upgrade.contains("\r\nUpgrade: websocket\r\n"));
        assert!(upgrade.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }
}
