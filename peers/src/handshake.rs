//! The opening handshake and the two endpoints, done by hand so that a stack's frames run over the
//! bare socket: behind hyper's upgrade every read and write would go through a boxed stream, and no
//! bout measures handshakes of peers.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Longest request head.
const HEAD_BYTES: usize = 4096;
/// Most header lines.
const HEADERS: usize = 64;

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Every message back to its sender.
    Echo,
    /// Every message to every member of this room.
    Broadcast(String),
}

/// Reads the request and answers it. `None`: it was refused.
///
/// # Errors
/// What the socket said; `InvalidData` for bytes that are no request for a WebSocket.
pub async fn accept(stream: &mut TcpStream) -> io::Result<Option<Endpoint>> {
    let mut head = [0; HEAD_BYTES];
    let mut received = 0;
    loop {
        let n = stream.read(&mut head[received..]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received += n;
        if let Some(request) = parse(&head[..received])? {
            let (response, endpoint) = answer(&request);
            stream.write_all(response.as_bytes()).await?;
            return Ok(endpoint);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    key: Option<String>,
}

/// The request, once its head is whole. A client must not send anything behind it before it has our
/// answer.
fn parse(head: &[u8]) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    match request.parse(head) {
        Err(error) => Err(invalid(&error.to_string())),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) if length < head.len() => {
            Err(invalid("bytes behind the request"))
        }
        Ok(httparse::Status::Complete(_)) => {
            let key = request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))
                .map(|header| String::from_utf8_lossy(header.value).into_owned());
            let path = request.path.unwrap_or_default().to_owned();
            Ok(Some(Request { path, key }))
        }
    }
}

fn answer(request: &Request) -> (String, Option<Endpoint>) {
    let endpoint = match request.path.strip_prefix("/broadcast/") {
        Some(room) if !room.is_empty() => Some(Endpoint::Broadcast(room.to_owned())),
        None if request.path == "/ws" => Some(Endpoint::Echo),
        _ => None,
    };
    match (endpoint, &request.key) {
        (Some(endpoint), Some(key)) => {
            let accept = derive_accept_key(key.as_bytes());
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
            );
            (response, Some(endpoint))
        }
        (Some(_), None) => (refusal("400 Bad Request"), None),
        (None, _) => (refusal("404 Not Found"), None),
    }
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_when_it_is_whole_and_answered_as_the_rfc_says() {
        let head =
            b"GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(parse(&head[..30]).unwrap(), None);
        let request = parse(head).unwrap().unwrap();
        let (response, endpoint) = answer(&request);
        // The example of RFC 6455, section 1.3.
        assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(endpoint, Some(Endpoint::Echo));
        assert!(parse(b"\x16\x03\x01 nonsense\r\n\r\n").is_err());
        assert!(parse(&[&head[..], b"x"].concat()).is_err());
    }

    #[test]
    fn rooms_have_names_and_other_paths_do_not_exist() {
        let ask = |path: &str| {
            answer(&Request {
                path: path.into(),
                key: Some("k".into()),
            })
            .1
        };
        assert_eq!(ask("/broadcast/a"), Some(Endpoint::Broadcast("a".into())));
        assert_eq!(ask("/broadcast/"), None);
        assert_eq!(ask("/"), None);
    }
}
