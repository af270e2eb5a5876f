//! The client's side: write the request, check the answer.

use base64::{Engine, prelude::BASE64_STANDARD};
use thiserror::Error;
use tungstenite::handshake::derive_accept_key;

use super::refusal::{Refusal, clip};
use super::{MAX_HEAD_BYTES, MAX_HEADERS, Status, VERSION, is_token, list_has, values};
use crate::random_key;

/// A `Sec-WebSocket-Key`: 16 bytes in base64, fresh for each connection (RFC 6455, section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A random key.
    // RFC 6455 section 4.1: request-key, key-is-random
    #[must_use]
    pub fn generate() -> Self {
        let mut nonce = [0_u8; 16];
        for quad in nonce.chunks_exact_mut(4) {
            quad.copy_from_slice(&random_key());
        }
        Self::from_nonce(nonce)
    }

    fn from_nonce(nonce: [u8; 16]) -> Self {
        Self(BASE64_STANDARD.encode(nonce))
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
    /// A request for `target` (path and query, starting with `/`) at `host` (with `:port` unless it
    /// is the default one; an IPv6 address in brackets).
    ///
    /// # Errors
    /// When either is empty or holds a blank or control character, or the target does not start
    /// with `/`.
    pub fn new(host: &str, target: &str) -> Result<Self, RequestError> {
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_plain(host) {
            return Err(RequestError::Host(host.to_owned()));
        }
        // A fragment never goes on the wire (section 3).
        // RFC 6455 section 3: no-fragment, hash-is-escaped
        if !target.starts_with('/') || !is_plain(target) || target.contains('#') {
            return Err(RequestError::Target(target.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
        })
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// When the name is no token, the value holds a control character, or the field belongs to the
    /// handshake itself (`Host`, `Upgrade`, `Connection`, `Content-Length`, `Transfer-Encoding`,
    /// any `Sec-WebSocket-*`): then [`RequestError::Reserved`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, RequestError> {
        if !is_token(name) {
            return Err(RequestError::HeaderName(name.to_owned()));
        }
        if is_reserved(name) {
            return Err(RequestError::Reserved(name.to_owned()));
        }
        if value
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(RequestError::HeaderValue(name.to_owned()));
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// Offers a subprotocol, after those offered before (section 1.9).
    ///
    /// # Errors
    /// When it is no token or was offered already.
    // RFC 6455 section 4.1: offers-are-tokens
    pub fn subprotocol(mut self, name: &str) -> Result<Self, RequestError> {
        if !is_token(name) || self.subprotocols.iter().any(|offered| offered == name) {
            return Err(RequestError::Subprotocol(name.to_owned()));
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Whether any subprotocol is offered.
    pub fn offers_subprotocols(&self) -> bool {
        !self.subprotocols.is_empty()
    }

    /// Appends the request to `out`. No extension is offered.
    // RFC 6455 section 4.1: request-is-http, request-is-get, request-upgrade, request-connection
    // RFC 6455 section 4.1: request-version, request-target, request-host
    // RFC 6455 section 11.3.1: one-key
    // RFC 6455 section 11.3.5: one-version
    pub fn write(&self, key: &Key, out: &mut Vec<u8>) {
        let mut put = |parts: &[&str]| {
            parts
                .iter()
                .for_each(|part| out.extend_from_slice(part.as_bytes()))
        };
        put(&["GET ", &self.target, " HTTP/1.1\r\nHost: ", &self.host]);
        put(&[
            "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ",
            key.as_str(),
        ]);
        put(&["\r\nSec-WebSocket-Version: ", VERSION, "\r\n"]);
        if !self.subprotocols.is_empty() {
            put(&[
                "Sec-WebSocket-Protocol: ",
                &self.subprotocols.join(", "),
                "\r\n",
            ]);
        }
        for (name, value) in &self.headers {
            put(&[name, ": ", value, "\r\n"]);
        }
        put(&["\r\n"]);
    }
}

/// Fields that the handshake writes itself, or that would announce a body.
fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(
        name.as_str(),
        "host" | "upgrade" | "connection" | "content-length" | "transfer-encoding"
    ) || name.starts_with("sec-websocket-")
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
    /// Not a header name.
    #[error("invalid header name {0:?}: letters, digits and !#$%&'*+-.^_`|~ only")]
    HeaderName(String),
    /// A header that the handshake writes itself, or that would announce a body.
    #[error("the handshake writes the header {0} itself, or has no use for it")]
    Reserved(String),
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

/// Checks the response at the start of `bytes` against the request (RFC 6455, section 4.1). Call
/// with all bytes received so far until it is complete.
///
/// # Errors
/// The server refused, or its answer does not establish a WebSocket connection: fail it.
// RFC 6455 section 4.1: answer-is-validated, answer-conforms
// RFC 6455 section 7.2.1: handshake-fails
pub fn check_response<'a>(
    bytes: &'a [u8],
    key: &Key,
    request: &Request,
) -> Result<Status<Accepted<'a>>, HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes).map_err(refuse_syntax)? {
        httparse::Status::Complete(head_bytes) if head_bytes <= MAX_HEAD_BYTES => head_bytes,
        httparse::Status::Partial if bytes.len() < MAX_HEAD_BYTES => return Ok(Status::Partial),
        _ => return Err(HandshakeError::TooLarge),
    };
    let status = response.code.unwrap_or_default();
    if status != 101 {
        let refusal = Refusal::new(&response, &bytes[head_bytes..]);
        return Err(HandshakeError::Refused(refusal));
    }
    if response.version != Some(1) {
        return Err(HandshakeError::NotHttp("101 in HTTP/1.0"));
    }
    let subprotocol = check_fields(response.headers, key, request)?;
    Ok(Status::Complete(Accepted {
        head_bytes,
        subprotocol,
    }))
}

fn refuse_syntax(error: httparse::Error) -> HandshakeError {
    match error {
        httparse::Error::TooManyHeaders => HandshakeError::TooLarge,
        httparse::Error::Version => HandshakeError::NotHttp("unknown HTTP version"),
        httparse::Error::Status => HandshakeError::NotHttp("bad status line"),
        _ => HandshakeError::NotHttp("bad header"),
    }
}

/// The header fields of a 101, in the order of section 4.1; gives the subprotocol chosen.
fn check_fields<'a>(
    headers: &[httparse::Header<'a>],
    key: &Key,
    request: &Request,
) -> Result<Option<&'a str>, HandshakeError> {
    // RFC 6455 section 4.1: answer-upgrade
    if !list_has(headers, "upgrade", "websocket") {
        return Err(HandshakeError::NotUpgraded("Upgrade: websocket"));
    }
    // RFC 6455 section 4.1: answer-connection
    if !list_has(headers, "connection", "upgrade") {
        return Err(HandshakeError::NotUpgraded("Connection: Upgrade"));
    }
    // RFC 6455 section 4.1: answer-accept
    // RFC 6455 section 11.3.3: one-accept
    let mut accepts = values(headers, "sec-websocket-accept");
    if accepts.next() != Some(derive_accept_key(key.0.as_bytes()).as_str())
        || accepts.next().is_some()
    {
        return Err(HandshakeError::WrongAccept);
    }
    // RFC 6455 section 4.1: answer-extension
    // RFC 6455 section 9.1: malformed-extensions
    if let Some(extension) = values(headers, "sec-websocket-extensions").next() {
        return Err(HandshakeError::Extension(clip(extension)));
    }
    // RFC 6455 section 4.1: answer-subprotocol
    // RFC 6455 section 11.3.4: one-protocol-field
    let mut chosen = values(headers, "sec-websocket-protocol");
    match (chosen.next(), chosen.next()) {
        (None, _) => Ok(None),
        (Some(name), None) if request.subprotocols.iter().any(|offered| offered == name) => {
            Ok(Some(name))
        }
        (Some(name), _) => Err(HandshakeError::Subprotocol(clip(name))),
    }
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
    #[error("server answered {0}")]
    Refused(Refusal),
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    #[error("101 without `{0}`")]
    NotUpgraded(&'static str),
    /// `Sec-WebSocket-Accept` is missing, given twice or not derived from our key.
    #[error("Sec-WebSocket-Accept does not match the key")]
    WrongAccept,
    /// An extension that was not offered (none is).
    #[error("server chose an extension that was not offered (RFC 6455 section 4.1): {0}")]
    Extension(String),
    /// A subprotocol that was not offered, or two.
    #[error("server chose a subprotocol that was not offered (RFC 6455 section 4.1): {0}")]
    Subprotocol(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    fn key() -> Key {
        Key::from_nonce(*b"the sample nonce")
    }

    fn request() -> Request {
        Request::new("h:1", "/ws")
            .unwrap()
            .subprotocol("chat")
            .unwrap()
    }

    fn check(answer: &str) -> Result<Status<(usize, Option<String>)>, HandshakeError> {
        Ok(
            match check_response(answer.as_bytes(), &key(), &request())? {
                Status::Partial => Status::Partial,
                Status::Complete(accepted) => {
                    Status::Complete((accepted.head_bytes, accepted.subprotocol.map(str::to_owned)))
                }
            },
        )
    }

    fn with(field: &str) -> String {
        ANSWER.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))
    }

    // RFC 6455 section 4.1: request-is-http, request-is-get, request-target, request-host
    // RFC 6455 section 4.1: request-upgrade, request-connection, request-key, request-version
    // RFC 6455 section 11.3.1: one-key
    // RFC 6455 section 11.3.5: one-version
    #[test]
    fn writes_the_request_of_the_rfc() {
        let request = request().header("Origin", "http://example.com").unwrap();
        let mut out = Vec::new();
        request.write(&key(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /ws HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: chat\r\nOrigin: http://example.com\r\n\r\n"
        );
    }

    // RFC 6455 section 4.1: key-is-random
    #[test]
    fn keys_differ() {
        assert_ne!(Key::generate(), Key::generate());
    }

    // RFC 6455 section 3: no-fragment, hash-is-escaped
    // RFC 6455 section 4.1: offers-are-tokens
    #[test]
    fn a_request_cannot_be_broken_out_of() {
        for (host, target) in [
            ("", "/"),
            ("a b", "/"),
            ("a\r\n", "/"),
            ("a", "x"),
            ("a", "/ x"),
            ("a", "/#f"),
            ("a", ""),
        ] {
            assert!(Request::new(host, target).is_err(), "{host:?} {target:?}");
        }
        for (name, value) in [
            ("Host", "x"),
            ("sec-WebSocket-foo", "x"),
            ("a b", "x"),
            ("a", "x\r\nb: y"),
            ("", "x"),
        ] {
            assert!(request().header(name, value).is_err(), "{name:?} {value:?}");
        }
        assert!(request().subprotocol("chat").is_err());
        assert!(request().subprotocol("a,b").is_err());
    }

    #[test]
    fn accepts_what_the_rfc_answers() {
        assert_eq!(check(ANSWER), Ok(Status::Complete((ANSWER.len(), None))));
        let chosen = with("sec-websocket-protocol: chat");
        assert_eq!(
            check(&chosen),
            Ok(Status::Complete((chosen.len(), Some("chat".to_owned()))))
        );
        for cut in 0..ANSWER.len() {
            assert_eq!(check(&ANSWER[..cut]), Ok(Status::Partial), "{cut}");
        }
    }

    // RFC 6455 section 4.1: answer-is-validated, answer-conforms, answer-upgrade, answer-connection
    // RFC 6455 section 4.1: answer-accept, answer-extension, answer-subprotocol
    // RFC 6455 section 9.1: malformed-extensions
    // RFC 6455 section 11.3.3: one-accept
    // RFC 6455 section 11.3.4: one-protocol-field
    #[test]
    fn each_wrong_answer_has_its_error() {
        use HandshakeError::*;
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let table = [
            (
                "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
                Refused(Refusal {
                    status: 404,
                    reason: "Not Found".to_owned(),
                    fields: Vec::new(),
                    body: String::new(),
                    is_partial: true,
                }),
            ),
            (
                "SSH-2.0-OpenSSH_9\r\n\r\n".to_owned(),
                NotHttp("unknown HTTP version"),
            ),
            (
                ANSWER.replace("HTTP/1.1", "HTTP/1.0"),
                NotHttp("101 in HTTP/1.0"),
            ),
            (
                ANSWER.replace("WebSocket\r", "h2c\r"),
                NotUpgraded("Upgrade: websocket"),
            ),
            (
                ANSWER.replace(": upgrade", ": close"),
                NotUpgraded("Connection: Upgrade"),
            ),
            (ANSWER.replace("s3pP", "S3pP"), WrongAccept),
            (ANSWER.replace(accept, "X: y"), WrongAccept),
            (with(accept), WrongAccept),
            (
                with("Sec-WebSocket-Extensions: permessage-deflate"),
                Extension("permessage-deflate".to_owned()),
            ),
            (with("Sec-WebSocket-Extensions:"), Extension(String::new())),
            (
                with("Sec-WebSocket-Protocol: soap"),
                Subprotocol("soap".to_owned()),
            ),
            (
                with("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"),
                Subprotocol("chat".to_owned()),
            ),
            (with(&vec!["X: y"; MAX_HEADERS].join("\r\n")), TooLarge),
            (
                with(&format!("X: {}", "y".repeat(MAX_HEAD_BYTES))),
                TooLarge,
            ),
        ];
        for (answer, expected) in table {
            assert_eq!(check(&answer), Err(expected), "{answer}");
        }
    }
}
