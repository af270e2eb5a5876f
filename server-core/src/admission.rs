//! Who may connect: the bytes of a request head in, an upgrade or a response out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ws_proto::handshake::server::{RequestHead, parse_request};
use ws_proto::handshake::{HttpError, Status};

use crate::counters::{Counters, METRICS_CONTENT_TYPE, render_metrics};
use crate::endpoints::{DEMO_PAGE, Endpoint, Route, route};
use crate::options::Settings;
use crate::work::{DeclaredWork, HandlerWork};

/// Counts open WebSocket connections against `--max-connections`.
#[derive(Debug)]
pub struct Gate {
    open: AtomicUsize,
    max: usize,
}

impl Gate {
    /// A gate for at most `max` at once; `None` is unlimited.
    pub fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max: max.unwrap_or(usize::MAX),
        })
    }

    /// WebSocket connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn enter(self: &Arc<Self>) -> Option<Permit> {
        let count = |open: usize| (open < self.max).then_some(open + 1);
        let entered = self.open.fetch_update(Relaxed, Relaxed, count);
        entered.ok().map(|_| Permit(Arc::clone(self)))
    }
}

/// One open WebSocket connection: keep it as long as the connection lives.
#[derive(Debug)]
pub struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// What a request head gets.
#[derive(Debug)]
pub enum Admitted {
    /// It is not complete: call again with what comes next.
    NeedMore,
    /// Send the response; then it is a WebSocket.
    Upgrade(Upgrade),
    /// Send these bytes, then close.
    // RFC 6455 section 7.2.2: server-aborts
    Respond(Vec<u8>),
}

/// A granted upgrade.
#[derive(Debug)]
pub struct Upgrade {
    /// What the connection is to do.
    pub endpoint: Endpoint,
    /// The whole 101 response.
    pub response: Vec<u8>,
    /// What came behind the request head: bytes of the WebSocket.
    pub early: Vec<u8>,
    /// What a handler would burn for each message of this connection.
    pub work: HandlerWork,
    /// To be kept as long as the connection lives.
    pub permit: Permit,
}

/// Answers request heads for all connections of a server.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    work: DeclaredWork,
    /// Which of several processes this is.
    process: Option<usize>,
}

impl Admission {
    /// Admission through `gate`; `/metrics` shows `counters`. Calibrates the handler's work.
    pub fn new(settings: &Settings, gate: Arc<Gate>, counters: Arc<Counters>) -> Self {
        let process = settings.child.as_ref().map(|child| child.index);
        Self {
            gate,
            counters,
            work: DeclaredWork::calibrated(settings.handler_work_us),
            process,
        }
    }

    /// Judges what a connection of worker `worker` has received `just_now`, behind what it has
    /// `kept` of earlier receives, and counts the outcome there. Bytes are kept only when the head
    /// does not come in one piece.
    pub fn read_head(&self, worker: usize, kept: &mut Vec<u8>, just_now: &[u8]) -> Admitted {
        if kept.is_empty() {
            let admitted = self.admit(worker, just_now);
            if matches!(admitted, Admitted::NeedMore) {
                kept.extend_from_slice(just_now);
            }
            return admitted;
        }
        kept.extend_from_slice(just_now);
        self.admit(worker, kept)
    }

    fn admit(&self, worker: usize, received: &[u8]) -> Admitted {
        let counters = self.counters.worker(worker);
        let admitted = match parse_request(received) {
            Ok(Status::Partial) => return Admitted::NeedMore,
            Ok(Status::Complete(head)) => {
                let early = &received[head.head_bytes()..];
                without_body_for_head(&head, self.answer(worker, &head, early))
            }
            Err(error) => respond_error(error),
        };
        match &admitted {
            Admitted::Upgrade(_) => counters.handshakes.add(1),
            _ => counters.http_responses.add(1),
        }
        admitted
    }

    /// The 408 for a request that took too long; counts it.
    pub fn time_out(&self, worker: usize) -> Vec<u8> {
        self.counters.worker(worker).handshake_timeouts.add(1);
        let mut response = Vec::new();
        HttpError::new(408, "the request took too long").write_response(&mut response);
        response
    }

    fn answer(&self, worker: usize, head: &RequestHead<'_>, early: &[u8]) -> Admitted {
        match route(head.path()) {
            Route::WebSocket(Endpoint::Broadcast(_)) if self.process.is_some() => {
                respond_error(HttpError::new(501, NO_ROOMS))
            }
            Route::WebSocket(endpoint) => self.upgrade(worker, head, endpoint, early),
            // RFC 6455 section 4.2.2: unknown-resource
            Route::NotFound => respond_error(HttpError::new(404, "no such page")),
            Route::Demo => respond_page(head, "text/html; charset=utf-8", || DEMO_PAGE.into()),
            Route::Health => respond_page(head, "text/plain; charset=utf-8", || "ok\n".into()),
            Route::Metrics => respond_page(head, METRICS_CONTENT_TYPE, || {
                render_metrics(&self.counters.totals(), self.gate.open(), self.process)
            }),
        }
    }

    fn upgrade(
        &self,
        worker: usize,
        head: &RequestHead<'_>,
        endpoint: Endpoint,
        early: &[u8],
    ) -> Admitted {
        let upgrade = match head.upgrade() {
            Ok(upgrade) => upgrade,
            Err(error) => return respond_error(error),
        };
        // RFC 6455 section 4.2.2: unwanted-is-refused
        let Some(permit) = self.gate.enter() else {
            self.counters.worker(worker).refused.add(1);
            return respond_error(HttpError::new(
                503,
                "as many connections as allowed are open",
            ));
        };
        let mut response = Vec::with_capacity(192);
        // An echo speaks whatever the client speaks, and a browser fails a connection that picks
        // none of its offers.
        upgrade.write_response(upgrade.subprotocols().first().copied(), &mut response);
        Admitted::Upgrade(Upgrade {
            endpoint,
            response,
            early: early.to_vec(),
            work: self.work.of_connection(head.query()),
            permit,
        })
    }
}

/// Members of one room would otherwise meet only those who happened to reach the same process.
const NO_ROOMS: &str =
    "rooms do not span processes: start the server without --processes for /broadcast";

fn respond_error(error: HttpError) -> Admitted {
    let mut response = Vec::with_capacity(256);
    error.write_response(&mut response);
    Admitted::Respond(response)
}

/// A page; 405 for methods other than GET and HEAD.
fn respond_page(
    head: &RequestHead<'_>,
    content_type: &str,
    body: impl FnOnce() -> String,
) -> Admitted {
    let (status, field, content_type, body) = match head.method() {
        "GET" | "HEAD" => ("200 OK", "Cache-Control: no-store", content_type, body()),
        _ => (
            "405 Method Not Allowed",
            "Allow: GET, HEAD",
            "text/plain; charset=utf-8",
            "only GET and HEAD work here\n".into(),
        ),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\n{field}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    Admitted::Respond(response.into_bytes())
}

/// HEAD gets what GET would get, errors included, without the body (RFC 9110, section 9.3.2).
fn without_body_for_head(head: &RequestHead<'_>, admitted: Admitted) -> Admitted {
    match admitted {
        Admitted::Respond(mut response) if head.method() == "HEAD" => {
            let end_of_head = response.windows(4).position(|w| w == b"\r\n\r\n");
            response.truncate(end_of_head.map_or(response.len(), |at| at + 4));
            Admitted::Respond(response)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn admission(max: Option<usize>) -> Admission {
        Admission {
            gate: Gate::new(max),
            counters: Arc::new(Counters::new(1)),
            work: DeclaredWork::default(),
            process: None,
        }
    }

    fn upgrade_request(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")
    }

    fn upgrade(admission: &Admission, request: &str) -> Upgrade {
        match admission.admit(0, request.as_bytes()) {
            Admitted::Upgrade(upgrade) => upgrade,
            other => panic!("{other:?}"),
        }
    }

    fn response(admission: &Admission, request: &str) -> String {
        match admission.admit(0, request.as_bytes()) {
            Admitted::Respond(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_in_pieces_needs_more_until_it_is_whole() {
        let admission = admission(None);
        let request = upgrade_request("/ws");
        for end in 0..request.len() {
            let (head, rest) = request.as_bytes().split_at(end);
            let mut kept = Vec::new();
            for piece in [&head[..end / 2], &head[end / 2..]] {
                let admitted = admission.read_head(0, &mut kept, piece);
                assert!(matches!(admitted, Admitted::NeedMore), "{end}");
            }
            assert_eq!(kept, head);
            let upgraded = admission.read_head(0, &mut kept, &[rest, b"early"].concat());
            assert!(
                matches!(&upgraded, Admitted::Upgrade(upgrade) if upgrade.early == b"early"),
                "{upgraded:?}"
            );
        }
        let upgrade = upgrade(&admission, &request);
        assert_eq!(upgrade.early, b"");
        assert_eq!(upgrade.endpoint, Endpoint::Echo);
        let response = String::from_utf8(upgrade.response).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "));
        assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn the_first_subprotocol_offered_is_taken() {
        let request =
            format!("GET /ws?x=1 HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: chat, other\r\n\r\n");
        let response = upgrade(&admission(None), &request).response;
        let response = String::from_utf8(response).unwrap();
        assert!(response.contains("Sec-WebSocket-Protocol: chat\r\n"));
    }

    // RFC 6455 section 4.2.2: unwanted-is-refused
    #[test]
    fn the_gate_refuses_and_opens_again() {
        let admission = admission(Some(2));
        let request = upgrade_request("/broadcast/r");
        let (first, _second) = (upgrade(&admission, &request), upgrade(&admission, &request));
        assert!(response(&admission, &request).starts_with("HTTP/1.1 503 "));
        assert_eq!(admission.counters.totals().refused, 1);
        assert_eq!(admission.gate.open(), 2);
        drop(first.permit);
        let _third = upgrade(&admission, &request);
        assert_eq!(admission.gate.open(), 2);
        assert_eq!(admission.counters.totals().handshakes, 3);
    }

    // RFC 6455 section 4.2.2: other-version, unknown-resource
    // RFC 6455 section 4.4: all-versions
    #[test]
    fn pages_and_errors() {
        let admission = admission(None);
        for (request, status, contains) in [
            ("GET /healthz", "200", "\r\n\r\nok\n"),
            ("HEAD /healthz", "200", "Content-Length: 3\r\n"),
            ("GET /", "200", "<title>Ringside</title>"),
            ("GET /metrics", "200", "# EOF\n"),
            ("POST /", "405", "Allow: GET, HEAD\r\n"),
            ("POST /ws", "405", "Allow: GET\r\n"),
            ("GET /ws", "426", "Sec-WebSocket-Version: 13\r\n"),
            ("GET /nowhere", "404", "Connection: close\r\n"),
            ("GET /broadcast/", "404", ""),
        ] {
            let response = response(
                &admission,
                &format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"),
            );
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {response}"
            );
            assert!(response.contains(contains), "{request}: {response}");
            assert!(response.contains("Connection: close\r\n"), "{request}");
        }
        for path in ["/", "/metrics", "/ws", "/nowhere"] {
            let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = response(&admission, &request);
            assert!(head.ends_with("\r\n\r\n"), "{path}: {head}");
            assert!(head.contains("\r\nContent-Length: "), "{path}: {head}");
        }
        assert_eq!(admission.counters.totals().http_responses, 13);
    }

    #[test]
    fn one_of_several_processes_has_no_rooms_and_says_who_it_is() {
        let admission = Admission {
            process: Some(3),
            ..admission(None)
        };
        let refusal = response(&admission, &upgrade_request("/broadcast/r"));
        assert!(refusal.starts_with("HTTP/1.1 501 "), "{refusal}");
        assert!(refusal.contains("--processes"), "{refusal}");
        upgrade(&admission, &upgrade_request("/ws"));
        let metrics = response(&admission, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(metrics.contains("{process=\"3\"}"), "{metrics}");
    }

    #[test]
    fn a_late_request_gets_408() {
        let admission = admission(None);
        let response = String::from_utf8(admission.time_out(0)).unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "));
        assert_eq!(admission.counters.totals().handshake_timeouts, 1);
    }
}
