//! The server's side: parse the request, decide, answer.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tungstenite::handshake::derive_accept_key;

use super::{
    HttpError, MAX_HEAD_BYTES, MAX_HEADERS, Status, VERSION, is_extension, is_list_of, is_token,
    list, list_has, values,
};

/// RFC 4648 leaves it to the decoder whether unused bits must be zero; a nonce of 16 bytes is one
/// either way.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);
/// Length of a decoded `Sec-WebSocket-Key` (section 4.2.1, item 5).
const NONCE_BYTES: usize = 16;

/// Parses a request head at the start of `bytes`. Call with all bytes received so far until it is
/// complete.
///
/// # Errors
/// * 400: not HTTP, no `Host` in an HTTP/1.1 request, more than one `Host` (RFC 9112, section 3.2)
/// * 431: more than [`MAX_HEADERS`] fields, or more than [`MAX_HEAD_BYTES`] without an end of the
///   head
/// * 505: not HTTP/1.x
// RFC 6455 section 4.2.1: bad-handshake
pub fn parse_request(bytes: &[u8]) -> Result<Status<RequestHead<'_>>, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let head_bytes = match request.parse(bytes).map_err(refuse_syntax)? {
        httparse::Status::Complete(head_bytes) if head_bytes <= MAX_HEAD_BYTES => head_bytes,
        httparse::Status::Partial if bytes.len() < MAX_HEAD_BYTES => return Ok(Status::Partial),
        _ => return refuse(431, "request head exceeds 16 KiB"),
    };
    let head = RequestHead {
        // httparse has set all three once the head is complete.
        method: request.method.unwrap_or_default(),
        target: request.path.unwrap_or_default(),
        minor_version: request.version.unwrap_or_default(),
        headers: request.headers.to_vec(),
        head_bytes,
    };
    // RFC 6455 section 4.2.1: reads-host
    match values(&head.headers, "host").count() {
        1 => Ok(Status::Complete(head)),
        0 if head.minor_version == 0 => Ok(Status::Complete(head)),
        0 => refuse(400, "Host is missing"),
        _ => refuse(400, "Host is given more than once"),
    }
}

fn refuse<T>(status: u16, message: &'static str) -> Result<T, HttpError> {
    Err(HttpError::new(status, message))
}

fn refuse_syntax(error: httparse::Error) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::new(431, "more than 64 header fields"),
        httparse::Error::Version => HttpError::new(505, "only HTTP/1.1 is spoken"),
        _ => HttpError::new(400, "not an HTTP request"),
    }
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

    /// The request target without its query, not decoded. For an absolute target
    /// (`http://host/path`) its path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        path_of(self.target)
    }

    /// What follows the first `?` of the request target, not decoded; empty without one.
    #[must_use]
    pub fn query(&self) -> &'a str {
        query_of(self.target)
    }

    /// Length of the head in bytes, its empty line included. What follows belongs to the WebSocket
    /// session.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Decides on the upgrade (RFC 6455, section 4.2.1).
    ///
    /// # Errors
    /// * 405: the method is not GET
    /// * 505: HTTP/1.0
    /// * 400: a body is announced (`Content-Length` other than 0, or any `Transfer-Encoding`);
    ///   `Sec-WebSocket-Key` or `Sec-WebSocket-Version` given twice or missing; the key is not 16
    ///   bytes of base64; `Sec-WebSocket-Extensions` or `Sec-WebSocket-Protocol` is malformed
    /// * 426: `Upgrade` does not name `websocket`, `Connection` does not name `upgrade`, or the
    ///   version is not 13
    // RFC 6455 section 4.2.1: bad-handshake, reads-get, reads-upgrade, reads-connection, reads-key
    // RFC 6455 section 4.2.1: reads-version
    // RFC 6455 section 4.2.2: other-version
    pub fn upgrade(&self) -> Result<Upgrade<'a>, HttpError> {
        if self.method != "GET" {
            return refuse(405, "only GET is allowed here");
        }
        if self.minor_version == 0 {
            return refuse(505, "a WebSocket needs HTTP/1.1");
        }
        self.refuse_body()?;
        let version = self.at_most_once(
            "sec-websocket-version",
            "Sec-WebSocket-Version is given more than once",
        )?;
        let key = self.at_most_once(
            "sec-websocket-key",
            "Sec-WebSocket-Key is given more than once",
        )?;
        if !list_has(&self.headers, "upgrade", "websocket") {
            return refuse(
                426,
                "this is a WebSocket endpoint: Upgrade: websocket is missing",
            );
        }
        if !list_has(&self.headers, "connection", "upgrade") {
            return refuse(426, "Connection does not name Upgrade");
        }
        match version {
            Some(VERSION) => {}
            Some(_) => {
                return refuse(426, "only Sec-WebSocket-Version 13 is spoken");
            }
            None => return refuse(400, "Sec-WebSocket-Version is missing"),
        }
        let key = key.ok_or(HttpError::new(400, "Sec-WebSocket-Key is missing"))?;
        if !is_nonce(key) {
            return refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64");
        }
        // RFC 6455 section 9.1: malformed-extensions
        if !is_list_of(&self.headers, "sec-websocket-extensions", is_extension) {
            return refuse(400, "Sec-WebSocket-Extensions is no list of extensions");
        }
        if !is_list_of(&self.headers, "sec-websocket-protocol", is_token) {
            return refuse(400, "Sec-WebSocket-Protocol is no list of tokens");
        }
        Ok(Upgrade {
            key,
            subprotocols: list(&self.headers, "sec-websocket-protocol").collect(),
        })
    }

    /// A body would be read as frames by one side and as a body by a proxy between: request
    /// smuggling.
    fn refuse_body(&self) -> Result<(), HttpError> {
        if values(&self.headers, "transfer-encoding").next().is_some() {
            return refuse(400, "an upgrade request must not have Transfer-Encoding");
        }
        let is_zero =
            |length: &str| !length.is_empty() && length.bytes().all(|digit| digit == b'0');
        if !values(&self.headers, "content-length").all(is_zero) {
            return refuse(400, "an upgrade request must not have a body");
        }
        Ok(())
    }

    // RFC 6455 section 11.3.1: one-key
    // RFC 6455 section 11.3.5: one-version
    fn at_most_once(
        &self,
        name: &str,
        otherwise: &'static str,
    ) -> Result<Option<&'a str>, HttpError> {
        let mut found = values(&self.headers, name);
        match (found.next(), found.next()) {
            (value, None) => Ok(value),
            _ => refuse(400, otherwise),
        }
    }
}

/// The path of an origin-form or absolute-form target (RFC 9112, section 3.2).
fn path_of(target: &str) -> &str {
    let origin = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    match origin.split_once('?') {
        Some(("", _)) => "/",
        Some((path, _)) => path,
        None => origin,
    }
}

fn query_of(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

fn is_nonce(key: &str) -> bool {
    // The decoder wants room for whole quads: 18 bytes for 24 characters.
    let mut nonce = [0_u8; 18];
    key.len() == 24 && BASE64.decode_slice(key, &mut nonce) == Ok(NONCE_BYTES)
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

    /// Appends the `101 Switching Protocols` response to `out` (section 4.2.2). Extensions are
    /// declined by not naming any. A `subprotocol` that the client did not offer is left out, for
    /// the client would have to fail the connection (section 4.1).
    // RFC 6455 section 4.2.2: accepts-with-101, sends-upgrade, sends-connection, sends-accept
    // RFC 6455 section 4.2.2: subprotocol-is-offered, no-subprotocol, no-unlisted-extension
    // RFC 6455 section 9: no-extension-unasked
    // RFC 6455 section 11.3.2: one-extensions-field
    // RFC 6455 section 11.3.3: one-accept
    // RFC 6455 section 11.3.4: one-protocol-field
    pub fn write_response(&self, subprotocol: Option<&str>, out: &mut Vec<u8>) {
        let accept = derive_accept_key(self.key.as_bytes());
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(accept.as_bytes());
        if let Some(chosen) =
            subprotocol.filter(|name| is_token(name) && self.subprotocols.contains(name))
        {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(chosen.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /ws?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn status(request: &str) -> u16 {
        match parse_request(request.as_bytes()) {
            Err(error) => error.status,
            Ok(Status::Partial) => 0,
            Ok(Status::Complete(head)) => head.upgrade().map_or_else(|error| error.status, |_| 101),
        }
    }

    fn with(field: &str) -> String {
        GOOD.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))
    }

    // RFC 6455 section 4.2.2: accepts-with-101, sends-upgrade, sends-connection, sends-accept
    // RFC 6455 section 11.3.3: one-accept
    #[test]
    fn answers_the_example_of_the_rfc() {
        let bytes = [GOOD.as_bytes(), b"\x81\x80frame"].concat();
        let Ok(Status::Complete(head)) = parse_request(&bytes) else {
            panic!("complete")
        };
        assert_eq!(
            (head.method(), head.path(), head.head_bytes()),
            ("GET", "/ws", GOOD.len())
        );
        let mut out = Vec::new();
        head.upgrade().unwrap().write_response(None, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn every_prefix_is_partial() {
        for cut in 0..GOOD.len() {
            assert_eq!(status(&GOOD[..cut]), 0, "{cut}");
        }
    }

    // RFC 6455 section 4.2.1: bad-handshake, reads-get, reads-host, reads-upgrade, reads-connection
    // RFC 6455 section 4.2.1: reads-key, reads-version
    // RFC 6455 section 8.1: invalid-utf8-fails
    // RFC 6455 section 9.1: malformed-extensions
    #[test]
    fn each_fault_has_its_status() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let without = |line: &str| GOOD.replace(&format!("{line}\r\n"), "");
        let table = [
            (GOOD.to_owned(), 101),
            (with("Content-Length: 0"), 101),
            (with("X-Blank:"), 101),
            (
                GOOD.replace(
                    "Connection: keep-alive, Upgrade",
                    "connection: close\r\nCONNECTION: ,UPGRADE ,",
                ),
                101,
            ),
            (
                GOOD.replace("Upgrade: websocket", "upgrade: h2c, WebSocket"),
                101,
            ),
            (with("Content-Length: 5"), 400),
            (with("Content-Length: "), 400),
            (with("Content-Length: 0\r\nContent-Length: 1"), 400),
            (with("Transfer-Encoding: chunked"), 400),
            (with("Sec-WebSocket-Extensions: a, b; c=\"d\", ,"), 101),
            (with("Sec-WebSocket-Extensions: a; b=\"c d\""), 400),
            (with("Sec-WebSocket-Extensions:"), 400),
            (with("Sec-WebSocket-Protocol: a, b c"), 400),
            (with("Sec-WebSocket-Protocol: \u{e9}"), 400),
            (with("Sec-WebSocket-Protocol: ,"), 400),
            (with("Host: b"), 400),
            (with(key), 400),
            (with("sec-websocket-version: 13"), 400),
            (without("Host: a"), 400),
            (without(key), 400),
            (without("Sec-WebSocket-Version: 13"), 400),
            (
                GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
                400,
            ),
            (
                GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="),
                400,
            ),
            (
                GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ"),
                400,
            ),
            (
                GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "\u{e9}GhlIHNhbXBsZSBub25jZQ=="),
                400,
            ),
            ("\x16\x03\x01\x02".to_owned(), 400),
            ("GET /\r\n\r\n".to_owned(), 400),
            (GOOD.replace("GET", "POST"), 405),
            (GOOD.replace("Version: 13", "Version: 8"), 426),
            (GOOD.replace("Version: 13", "Version: 13, 8"), 426),
            (without("Upgrade: websocket"), 426),
            (
                GOOD.replace("Upgrade: websocket", "Upgrade: websocketx"),
                426,
            ),
            (GOOD.replace("keep-alive, Upgrade", "keep-alive"), 426),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"), 505),
            (GOOD.replace("HTTP/1.1", "HTTP/2.0"), 505),
        ];
        for (request, expected) in table {
            assert_eq!(status(&request), expected, "{request}");
        }
    }

    #[test]
    fn a_large_head_is_refused_whole_or_not() {
        let many = |count: usize| {
            (0..count)
                .map(|i| format!("X-{i}: y"))
                .collect::<Vec<_>>()
                .join("\r\n")
        };
        assert_eq!(status(&with(&many(MAX_HEADERS - 5))), 101);
        assert_eq!(status(&with(&many(MAX_HEADERS - 4))), 431);
        let fill = |total: usize| with(&format!("X: {}", "y".repeat(total - GOOD.len() - 5)));
        assert_eq!(
            (fill(MAX_HEAD_BYTES).len(), status(&fill(MAX_HEAD_BYTES))),
            (MAX_HEAD_BYTES, 101)
        );
        assert_eq!(status(&fill(MAX_HEAD_BYTES + 1)), 431);
        assert_eq!(status(&fill(2 * MAX_HEAD_BYTES)[..MAX_HEAD_BYTES - 1]), 0);
        assert_eq!(status(&fill(2 * MAX_HEAD_BYTES)[..MAX_HEAD_BYTES]), 431);
    }

    // RFC 6455 section 4.2.2: subprotocol-is-offered, no-subprotocol
    // RFC 6455 section 11.3.4: one-protocol-field
    #[test]
    fn subprotocols_are_offered_and_chosen() {
        let request = with("Sec-WebSocket-Protocol: chat, soap\r\nsec-websocket-protocol: mqtt");
        let Ok(Status::Complete(head)) = parse_request(request.as_bytes()) else {
            panic!("complete")
        };
        let upgrade = head.upgrade().unwrap();
        assert_eq!(upgrade.subprotocols(), ["chat", "soap", "mqtt"]);
        let response = |choice| {
            let mut out = Vec::new();
            upgrade.write_response(choice, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert!(response(Some("soap")).contains("\r\nSec-WebSocket-Protocol: soap\r\n"));
        assert!(!response(Some("other")).contains("Protocol:"));
        assert!(!response(None).contains("Protocol:"));
    }

    // RFC 6455 section 4.2.2: no-unlisted-extension
    // RFC 6455 section 9: no-extension-unasked
    // RFC 6455 section 11.3.2: one-extensions-field
    #[test]
    fn extensions_are_declined() {
        let request = with("Sec-WebSocket-Extensions: permessage-deflate");
        let Ok(Status::Complete(head)) = parse_request(request.as_bytes()) else {
            panic!("complete")
        };
        let mut out = Vec::new();
        head.upgrade().unwrap().write_response(None, &mut out);
        assert!(
            !String::from_utf8(out)
                .unwrap()
                .to_lowercase()
                .contains("extensions")
        );
    }

    #[test]
    fn targets_are_split() {
        assert_eq!(path_of("/a?b?c"), "/a");
        assert_eq!(path_of("http://h:1/a?b"), "/a");
        assert_eq!(path_of("http://h"), "/");
        assert_eq!(path_of("ws://h?q"), "/");
        assert_eq!(path_of("/r?u=http://x/y"), "/r");
        assert_eq!(path_of("*"), "*");
        assert_eq!(query_of("/a?b?c"), "b?c");
        assert_eq!(query_of("ws://h?q"), "q");
        for without in ["/a", "/a?", "http://h/a", "*"] {
            assert_eq!(query_of(without), "", "{without}");
        }
    }
}
