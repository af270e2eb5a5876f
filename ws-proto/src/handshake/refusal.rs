//! What a server says when it does not upgrade, in a form that is safe to show.

use std::fmt;

use super::{list_has, values};

/// Most characters of one text of the server's that are kept.
const MOST_CHARS: usize = 160;
/// Bytes of a body that are looked through for its first line.
const BODY_BYTES: usize = 4096;
/// Fields that say what the client should do instead: RFC 9110, and RFC 6455 section 4.4.
const FIELDS: [&str; 7] = [
    "Location",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Retry-After",
    "Allow",
    "Upgrade",
    "Sec-WebSocket-Version",
];

/// An answer with any status but 101. Its texts are cut at 160 characters; what a terminal would
/// not print is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status code.
    pub status: u16,
    /// Its reason phrase; may be empty.
    pub reason: String,
    /// Fields that say what to do instead, such as `Location` or `Retry-After`.
    pub fields: Vec<(&'static str, String)>,
    /// The first line of the body that is not blank, as far as it has come; empty without one.
    pub body: String,
    /// More bytes may complete `body`: the caller may wait a moment for them and check again.
    pub is_partial: bool,
}

impl Refusal {
    pub(super) fn new(response: &httparse::Response<'_, '_>, body: &[u8]) -> Self {
        let status = response.code.unwrap_or_default();
        let given = |name: &'static str| {
            let all: Vec<&str> = values(response.headers, name).collect();
            (!all.is_empty()).then(|| (name, clip(&all.join(", "))))
        };
        let (body, is_partial) = first_line(status, response.headers, body);
        Self {
            status,
            reason: clip(response.reason.unwrap_or_default()),
            fields: FIELDS.into_iter().filter_map(given).collect(),
            body,
            is_partial,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        for (name, value) in &self.fields {
            write!(f, ", {name}: {value}")?;
        }
        match self.body.as_str() {
            "" => Ok(()),
            body => write!(f, ", body: {body}"),
        }
    }
}

/// The first line of a body, and whether more of it may come.
fn first_line(status: u16, headers: &[httparse::Header<'_>], body: &[u8]) -> (String, bool) {
    let length = values(headers, "content-length").next();
    let length = length.and_then(|length| length.parse::<usize>().ok());
    let has_none = matches!(status, 100..=199 | 204 | 304) || length == Some(0);
    // A coded body is not text.
    let is_coded = values(headers, "content-encoding").any(|coding| coding != "identity");
    if has_none || is_coded {
        return (String::new(), false);
    }
    let mut text = body;
    if list_has(headers, "transfer-encoding", "chunked") {
        // The length of the first chunk stands on a line of its own.
        let end = body.windows(2).position(|pair| pair == b"\r\n");
        text = end.map_or(&[], |end| &body[end + 2..]);
    }
    let is_whole = length.is_some_and(|length| body.len() >= length);
    let text = String::from_utf8_lossy(&text[..text.len().min(BODY_BYTES)]);
    let text = text.trim_start();
    let line = text.lines().next().unwrap_or_default();
    let ends = line.len() < text.len() || line.chars().count() > MOST_CHARS;
    let may_grow = !ends && !is_whole && body.len() < BODY_BYTES;
    (clip(line.trim_end()), may_grow)
}

/// A text of the server's that is safe to show: bounded, and printable.
pub(super) fn clip(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == MOST_CHARS => {
                shown.push('…');
                break;
            }
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::MAX_HEADERS;

    fn refusal(answer: &str) -> Refusal {
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(answer.as_bytes()) {
            Ok(httparse::Status::Complete(head)) => {
                Refusal::new(&response, &answer.as_bytes()[head..])
            }
            other => panic!("{other:?}: {answer}"),
        }
    }

    #[test]
    fn the_useful_half_is_shown() {
        for (answer, shown, is_partial) in [
            (
                "HTTP/1.1 301 Moved Permanently\r\nLocation: https://a/ws\r\nContent-Length: 0\r\n\r\n",
                "301 Moved Permanently, Location: https://a/ws",
                false,
            ),
            (
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\n\
                 www-authenticate: Bearer\r\nContent-Length: 4\r\n\r\nno\r\n",
                "401 Unauthorized, WWW-Authenticate: Basic realm=\"a\", Bearer, body: no",
                false,
            ),
            (
                "HTTP/1.1 503 \r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
                "503, Retry-After: 120",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\n\n  <!doctype html>\n<html>",
                "200 OK, body: <!doctype html>",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n<html>\n<body>",
                "200 OK, body: <html>",
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "204 No Content", false),
            ("HTTP/1.1 200 OK\r\n\r\n", "200 OK", true),
            ("HTTP/1.1 200 OK\r\n\r\n<ht", "200 OK, body: <ht", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a",
                "200 OK",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx",
                "200 OK",
                false,
            ),
        ] {
            let refusal = refusal(answer);
            assert_eq!(refusal.to_string(), shown, "{answer}");
            assert_eq!(refusal.is_partial, is_partial, "{answer}");
        }
    }

    #[test]
    fn a_server_cannot_write_to_the_terminal_or_without_end() {
        let body = "\x1b[2Jgone\u{202e}\u{7}";
        let shown = refusal(&format!("HTTP/1.1 400 Bad\r\n\r\n{body}\n")).to_string();
        assert_eq!(shown, "400 Bad, body: \\u{1b}[2Jgone\\u{202e}\\u{7}");
        let long = "y".repeat(10_000);
        let refusal = refusal(&format!(
            "HTTP/1.1 302 Found\r\nLocation: {long}\r\n\r\n{long}"
        ));
        assert!(refusal.to_string().chars().count() < 400, "{refusal}");
        assert!(!refusal.is_partial);
        let blank = "\n".repeat(BODY_BYTES);
        assert!(!super::first_line(200, &[], blank.as_bytes()).1);
    }
}
