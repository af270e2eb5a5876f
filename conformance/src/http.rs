//! Plain HTTP endpoints and the opening handshake (RFC 6455 section 4).

use super::client::{Raw, Response, upgrade_request};
use super::harness::{Server, Target};
use super::wire::{self, SAMPLE_KEY};

/// `/healthz` answers 200 `ok`.
pub fn healthz_answers_ok(target: &Target) {
    let server = target.start(&[]);
    let response = server.get("/healthz");
    assert_eq!(
        (response.status, response.body.trim_end()),
        (200, "ok"),
        "{response:?}"
    );
    assert_eq!(
        server.get("/healthz?deep=1").status,
        200,
        "a query does not change the path"
    );
}

/// `/metrics` is OpenMetrics: its content type, HELP/TYPE lines, unique series and `# EOF` last.
pub fn metrics_are_openmetrics(target: &Target) {
    let server = target.start(&[]);
    let response = server.get("/metrics");
    assert_eq!(response.status, 200, "{response:?}");
    let content_type = response.header("Content-Type").unwrap_or_default();
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type:?}"
    );
    assert!(
        response.body.ends_with("\n# EOF\n"),
        "the last line is not # EOF:\n{}",
        response.body
    );
    assert_eq!(
        response.body.matches("# EOF").count(),
        1,
        "{}",
        response.body
    );
    let mut families: Vec<&str> = Vec::new();
    let mut series: Vec<&str> = Vec::new();
    for line in response.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.extend(rest.split(' ').next());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let family = families.last().copied().unwrap_or_default();
            assert!(
                !family.is_empty() && name.starts_with(family),
                "{name} is not of the family {family:?} before it"
            );
            series.push(line.rsplit_once(' ').map_or(line, |(series, _)| series));
        }
    }
    let count = series.len();
    series.sort_unstable();
    series.dedup();
    assert!(
        count > 0 && series.len() == count,
        "series are missing or repeated:\n{}",
        response.body
    );
}

/// Counters move with what happens: connections, messages and bytes in both directions.
pub fn metrics_count_what_happens(target: &Target) {
    let server = target.start(&[]);
    let before = server.metrics();
    let mut client = server.ws("/ws");
    for _ in 0..3 {
        client.echo("1234567890");
    }
    let during = server.metrics();
    assert_eq!(
        during.get("connections_open"),
        before.get("connections_open") + 1,
        "{during:?}"
    );
    assert!(
        during.get("connections_accepted") > before.get("connections_accepted"),
        "{during:?}"
    );
    for name in ["messages_received", "messages_sent"] {
        assert_eq!(during.get(name), before.get(name) + 3, "{name}: {during:?}");
    }
    for name in ["bytes_received", "bytes_sent"] {
        assert!(
            during.get(name) >= before.get(name) + 30,
            "{name}: {during:?}"
        );
    }
    client.close();
    server.await_metric("connections_open", before.get("connections_open"));
}

/// A violation is counted.
pub fn metrics_count_violations(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    raw.send(&wire::unmasked(wire::FIN | wire::TEXT, b"bare"));
    raw.expect_close(1002);
    drop(raw);
    server.await_metric("violations", 1);
    assert_eq!(server.stop()["violations"], 1);
}

/// `/` is an HTML page that opens a WebSocket and loads nothing from elsewhere.
pub fn demo_page_is_html(target: &Target) {
    let server = target.start(&[]);
    let response = server.get("/");
    assert_eq!(response.status, 200, "{response:?}");
    assert!(
        response
            .header("Content-Type")
            .is_some_and(|t| t.starts_with("text/html")),
        "{response:?}"
    );
    assert!(
        response
            .body
            .to_ascii_lowercase()
            .contains("<!doctype html>"),
        "{}",
        response.body
    );
    assert!(response.body.contains("new WebSocket"), "{}", response.body);
    assert!(
        !response.body.contains("src=\"http"),
        "the page loads something from elsewhere"
    );
}

/// Any other path is 404, for a plain request and for an upgrade.
// RFC 6455 section 4.2.2: unknown-resource
pub fn unknown_paths_are_404(target: &Target) {
    let server = target.start(&[]);
    for path in [
        "/nothing",
        "/ws/",
        "/ws2",
        "/healthz/x",
        "/broadcast",
        "//ws",
    ] {
        assert_eq!(server.get(path).status, 404, "GET {path}");
        rejected(&server, &upgrade_request(path, ""), 404, path);
    }
}

/// Room names are 1 to 64 characters of `[A-Za-z0-9_.-]`; any other is 404.
pub fn bad_room_names_are_404(target: &Target) {
    let server = target.start(&[]);
    let (longest, too_long) = ("r".repeat(64), "r".repeat(65));
    for room in ["a", "A-Z_a.z-09", "...", &longest] {
        server.upgraded(&format!("/broadcast/{room}"));
    }
    for room in [
        "", &too_long, "a/b", "a%2Fb", "a%20b", "a+b", "a:b", "a~b", "a/",
    ] {
        rejected(
            &server,
            &upgrade_request(&format!("/broadcast/{room}"), ""),
            404,
            room,
        );
    }
}

/// A plain GET on a WebSocket endpoint is 426 and names the protocol to upgrade to.
// RFC 6455 section 4.2.1: reads-upgrade
pub fn plain_get_on_ws_is_426(target: &Target) {
    let server = target.start(&[]);
    for path in ["/ws", "/broadcast/lobby"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: conformance.test\r\n\r\n");
        let response = rejected(&server, &request, 426, path);
        assert!(response.header_has("Upgrade", "websocket"), "{response:?}");
    }
}

/// Another version is 426 with `Sec-WebSocket-Version: 13` (RFC 6455 section 4.2.2).
// RFC 6455 section 4.2.1: reads-version
// RFC 6455 section 4.2.2: other-version
// RFC 6455 section 4.4: all-versions
pub fn wrong_version_is_426(target: &Target) {
    let server = target.start(&[]);
    for version in ["8", "7", "14", "0", "x", "13, 8", "130"] {
        let request = with_version(version);
        let response = rejected(&server, &request, 426, version);
        assert_eq!(
            response.header("Sec-WebSocket-Version"),
            Some("13"),
            "{response:?}"
        );
    }
}

/// HEAD gets the head that GET gets, errors included, and never a body (RFC 9110, section 9.3.2).
pub fn head_has_no_body(target: &Target) {
    let server = target.start(&[]);
    for (path, status) in [("/healthz", 200), ("/", 200), ("/ws", 405), ("/no", 404)] {
        let mut raw = server.raw();
        raw.send(format!("HEAD {path} HTTP/1.1\r\nHost: conformance.test\r\n\r\n").as_bytes());
        raw.expect_bare_head(status);
    }
}

/// A method other than GET is 405 with `Allow`.
// RFC 6455 section 4.2.1: reads-get
pub fn other_methods_are_405(target: &Target) {
    let server = target.start(&[]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = upgrade_request("/ws", "").replacen("GET", method, 1);
        let response = rejected(&server, &request, 405, method);
        assert!(response.header_has("Allow", "GET"), "{response:?}");
    }
}

/// An upgrade with a body or with a transfer encoding is 400.
pub fn a_body_on_an_upgrade_is_400(target: &Target) {
    let server = target.start(&[]);
    for extra in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: nonsense\r\n",
    ] {
        rejected(&server, &upgrade_request("/ws", extra), 400, extra);
    }
}

/// Host, key and version may come once only.
// RFC 6455 section 11.3.1: one-key
// RFC 6455 section 11.3.5: one-version
pub fn duplicate_headers_are_400(target: &Target) {
    let server = target.start(&[]);
    let key = format!("Sec-WebSocket-Key: {SAMPLE_KEY}\r\n");
    for extra in [
        "Host: conformance.test\r\n",
        "host: other.test\r\n",
        &key,
        "Sec-WebSocket-Version: 13\r\n",
    ] {
        rejected(&server, &upgrade_request("/ws", extra), 400, extra);
    }
}

/// Missing or malformed Host and key are 400, and so are malformed lists of extensions and
/// subprotocols; a Connection that asks for no upgrade is 400 or 426.
// RFC 6455 section 4.2.1: bad-handshake, reads-host, reads-connection, reads-key
// RFC 6455 section 9.1: malformed-extensions
pub fn missing_or_bad_headers_are_400(target: &Target) {
    let server = target.start(&[]);
    let good = upgrade_request("/ws", "");
    let key = format!("Sec-WebSocket-Key: {SAMPLE_KEY}\r\n");
    let with_key = |value: &str| good.replace(SAMPLE_KEY, value);
    for (what, request) in [
        ("no Host", good.replace("Host: conformance.test\r\n", "")),
        ("no key", good.replace(&key, "")),
        ("empty key", with_key("")),
        ("key of 15 bytes", with_key("AAAAAAAAAAAAAAAAAAAA")),
        ("key of 17 bytes", with_key("AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("key without padding", with_key("dGhlIHNhbXBsZSBub25jZQ")),
        (
            "key that is no base64",
            with_key("dGhlIHNhbXBsZSBub25j!!=="),
        ),
    ] {
        rejected(&server, &request, 400, what);
    }
    for extra in [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\"1 5\"\r\n",
        "Sec-WebSocket-Extensions: ;\r\n",
        "Sec-WebSocket-Protocol: chat room\r\n",
    ] {
        rejected(&server, &upgrade_request("/ws", extra), 400, extra);
    }
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut raw = server.raw();
        raw.send(
            good.replace("Connection: Upgrade\r\n", connection)
                .as_bytes(),
        );
        let response = raw.response();
        assert!(
            matches!(response.status, 400 | 426),
            "{connection:?}: {response:?}"
        );
        raw.expect_closed();
    }
}

/// What is no HTTP at all gets 400 and a close.
// RFC 6455 section 4.2.1: bad-handshake
// RFC 6455 section 7.2.2: server-aborts
pub fn garbage_is_400(target: &Target) {
    let server = target.start(&[]);
    for garbage in [
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n",
        "GET\r\n\r\n",
        "GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        rejected(&server, garbage, 400, garbage);
    }
    rejected(
        &server,
        &upgrade_request("/ws", "Bad Name: x\r\n"),
        400,
        "blank in a header name",
    );
}

/// 64 headers are served, 65 are 431.
pub fn too_many_headers_are_431(target: &Target) {
    let server = target.start(&[]);
    let extra = |count: usize| {
        (0..count)
            .map(|i| format!("X-{i}: {i}\r\n"))
            .collect::<String>()
    };
    let own = upgrade_request("/ws", "").matches(": ").count();
    let mut raw = server.raw();
    raw.send(upgrade_request("/ws", &extra(64 - own)).as_bytes());
    raw.expect_101();
    raw.expect_alive();
    rejected(
        &server,
        &upgrade_request("/ws", &extra(65 - own)),
        431,
        "65 headers",
    );
}

/// A head of up to 16 KiB is served, a longer one is 431, even when it never ends.
pub fn too_long_heads_are_431(target: &Target) {
    let server = target.start(&[]);
    let padded = |length: usize| {
        let without = upgrade_request("/ws", "X-Pad: \r\n").len();
        upgrade_request(
            "/ws",
            &format!("X-Pad: {}\r\n", "p".repeat(length - without)),
        )
    };
    let mut raw = server.raw();
    raw.send(padded(16 * 1024).as_bytes());
    raw.expect_101();
    raw.expect_alive();
    rejected(
        &server,
        &padded(16 * 1024 + 1),
        431,
        "one byte more than 16 KiB",
    );
    let endless = format!("GET /ws HTTP/1.1\r\nX-Pad: {}", "p".repeat(20 * 1024));
    rejected(&server, &endless, 431, "a head without an end");
}

/// HTTP/1.0 cannot be upgraded (RFC 6455 section 4.1).
// RFC 6455 section 4.2.1: reads-get
pub fn http_1_0_is_refused(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.raw();
    raw.send(
        upgrade_request("/ws", "")
            .replace("HTTP/1.1", "HTTP/1.0")
            .as_bytes(),
    );
    let response = raw.response();
    assert!(matches!(response.status, 400 | 426 | 505), "{response:?}");
    raw.expect_closed();
}

/// An offered extension is declined: the answer names none, and RSV1 stays forbidden.
// RFC 6455 section 4.2.2: no-unlisted-extension
// RFC 6455 section 5.2: reserved-bits-fail
// RFC 6455 section 9: no-extension-unasked
pub fn extension_offers_are_declined(target: &Target) {
    let server = target.start(&[]);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut raw = server.raw();
    raw.send(upgrade_request("/ws", offer).as_bytes());
    assert_eq!(raw.expect_101().header("Sec-WebSocket-Extensions"), None);
    raw.expect_alive();
    raw.send(&wire::masked(wire::FIN | 0x40 | wire::TEXT, b"packed"));
    raw.expect_close(1002);
}

/// A subprotocol that was not asked for is never chosen; an offered one may be left out.
// RFC 6455 section 4.2.2: subprotocol-is-offered, no-subprotocol
pub fn subprotocols_are_never_made_up(target: &Target) {
    let server = target.start(&[]);
    for (extra, allowed) in [
        ("", vec![None]),
        (
            "Sec-WebSocket-Protocol: chat, superchat\r\n",
            vec![None, Some("chat"), Some("superchat")],
        ),
    ] {
        let mut raw = server.raw();
        raw.send(upgrade_request("/ws", extra).as_bytes());
        let response = raw.expect_101();
        assert!(
            allowed.contains(&response.header("Sec-WebSocket-Protocol")),
            "{response:?}"
        );
        raw.expect_alive();
    }
}

/// Header names and tokens in any case, lists of tokens, blanks around values, a query, an Origin.
pub fn odd_but_valid_upgrades_are_served(target: &Target) {
    let server = target.start(&[]);
    let good = upgrade_request("/ws", "");
    for (what, request) in [
        ("lower-case names", lower_case_names(&good)),
        (
            "token case",
            good.replace("Upgrade: websocket", "Upgrade: WebSocket")
                .replace("Connection: Upgrade", "Connection: UPGRADE"),
        ),
        (
            "list of Connection tokens",
            good.replace("Connection: Upgrade", "Connection: keep-alive , Upgrade"),
        ),
        ("blanks", good.replace("Version: 13", "Version: \t 13 \t ")),
        (
            "no blank after the colon",
            good.replace("Version: 13", "Version:13"),
        ),
        ("query", good.replace("/ws ", "/ws?room=a&b=%20 ")),
        (
            "Origin",
            good.replace("Host:", "Origin: https://elsewhere.test\r\nHost:"),
        ),
        (
            "Content-Length: 0",
            good.replace("Host:", "Content-Length: 0\r\nHost:"),
        ),
    ] {
        let mut raw = server.raw();
        raw.send(request.as_bytes());
        let response = raw.expect_101();
        assert_eq!(response.status, 101, "{what}");
        raw.expect_alive();
    }
}

/// A handshake and frames that arrive byte by byte.
pub fn handshake_and_frames_byte_at_a_time(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.raw();
    raw.send_bytewise(upgrade_request("/ws", "").as_bytes());
    raw.expect_101();
    raw.send_bytewise(&wire::text("one byte at a time"));
    raw.expect(wire::TEXT, b"one byte at a time");
    let long = [0xA5; 200];
    raw.send_bytewise(&wire::binary(&long));
    raw.expect(wire::BINARY, &long);
}

/// Frames in the same packet as the handshake are not lost, on either endpoint.
pub fn frames_pipelined_with_the_handshake(target: &Target) {
    let server = target.start(&[]);
    for path in ["/ws", "/broadcast/eager"] {
        let mut bytes = upgrade_request(path, "").into_bytes();
        bytes.extend(wire::text("first"));
        bytes.extend(wire::masked(wire::FIN | wire::PING, b"p"));
        bytes.extend(wire::binary(b"second"));
        let mut raw = server.raw();
        raw.send(&bytes);
        raw.expect_101();
        expect_in_any_ping_order(
            &mut raw,
            &[(wire::TEXT, b"first"), (wire::BINARY, b"second")],
            b"p",
        );
    }
}

/// A request that ends before its head does leaves nothing behind.
pub fn a_client_that_gives_up_mid_handshake(target: &Target) {
    let server = target.start(&[]);
    for reset in [false, true] {
        for head in ["", "GET /ws HTTP/1.1\r\nHost: a\r\n"] {
            let mut raw = server.raw();
            raw.send(head.as_bytes());
            if reset {
                raw.reset();
            }
        }
    }
    server.upgraded("/ws").expect_alive();
    server.await_metric("connections_open", 0);
}

/// Sends a request and checks the status of the answer and that the connection is closed after it.
#[track_caller]
fn rejected(server: &Server, request: &str, status: u16, what: &str) -> Response {
    let mut raw = server.raw();
    // The server may close before it has read all of an oversized request.
    raw.try_send(request.as_bytes());
    let response = raw.response();
    assert_eq!(response.status, status, "{what:?}: {response:?}");
    assert!(
        response.header_has("Connection", "close"),
        "{what:?}: {response:?}"
    );
    raw.expect_closed();
    response
}

/// The messages come in order; the pong may come anywhere between them (control frames overtake on
/// a broadcast).
#[track_caller]
fn expect_in_any_ping_order(raw: &mut Raw, messages: &[(u8, &[u8])], ping: &[u8]) {
    let mut due = messages.iter();
    for _ in 0..=messages.len() {
        let frame = raw.frame();
        if frame.opcode() == wire::PONG {
            assert_eq!(frame.payload, ping);
            continue;
        }
        let Some((opcode, payload)) = due.next() else {
            panic!("one message too many: {frame:?}")
        };
        assert_eq!(
            (frame.opcode(), frame.payload.as_slice()),
            (*opcode, *payload)
        );
    }
    assert!(due.next().is_none(), "a message is missing");
}

fn with_version(version: &str) -> String {
    upgrade_request("/ws", "").replace(
        "Sec-WebSocket-Version: 13",
        &format!("Sec-WebSocket-Version: {version}"),
    )
}

fn lower_case_names(request: &str) -> String {
    let lower = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
        None => line.to_string(),
    };
    request
        .split("\r\n")
        .map(lower)
        .collect::<Vec<_>>()
        .join("\r\n")
}
