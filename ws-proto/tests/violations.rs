//! Each thing a peer can do wrong, with the exact close code and the section it must give, however
//! it arrives.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use ws_proto::{
    CloseCode, Control, End, Limits, OpCode, Reply, Role, Session, State, encode_frame,
};

use common::{BINARY, CLOSE, FIN, PING, PONG, TEXT, frame, receive_all};

const LIMITS: Limits = Limits {
    max_message_bytes: 1000,
    max_fragments: 4,
};
const KEY: [u8; 4] = [0xDE, 0xAD, 0xBE, 0xEF];

struct Case {
    name: &'static str,
    role: Role,
    bytes: Vec<u8>,
    code: CloseCode,
    section: &'static str,
}

/// A case of a client's bytes at a server.
fn client(
    name: &'static str,
    bytes: impl AsRef<[u8]>,
    code: CloseCode,
    section: &'static str,
) -> Case {
    Case {
        name,
        role: Role::Server,
        bytes: bytes.as_ref().to_vec(),
        code,
        section,
    }
}

/// A case of a server's bytes at a client.
fn server(
    name: &'static str,
    bytes: impl AsRef<[u8]>,
    code: CloseCode,
    section: &'static str,
) -> Case {
    Case {
        name,
        role: Role::Client,
        bytes: bytes.as_ref().to_vec(),
        code,
        section,
    }
}

fn frames(list: &[(u8, &[u8])]) -> Vec<u8> {
    list.iter()
        .flat_map(|(first, payload)| frame(*first, payload, KEY))
        .collect()
}

/// A header whose length takes the given form, without payload.
fn header(first: u8, second: u8, length: &[u8]) -> Vec<u8> {
    [&[first, second][..], length, &KEY].concat()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat(), KEY)
}

fn cases() -> Vec<Case> {
    use CloseCode::{Invalid, Protocol, Size};
    let mut cases = vec![
        client(
            // RFC 6455 section 5.2: reserved-bits-fail
            "RSV1",
            frames(&[(FIN | 0x40 | TEXT, b"x")]),
            Protocol,
            "5.2",
        ),
        client(
            "RSV2",
            frames(&[(FIN | 0x20 | TEXT, b"x")]),
            Protocol,
            "5.2",
        ),
        client(
            "RSV3",
            frames(&[(FIN | 0x10 | TEXT, b"x")]),
            Protocol,
            "5.2",
        ),
        client(
            "RSV1 on a ping",
            frames(&[(FIN | 0x40 | PING, b"")]),
            Protocol,
            "5.2",
        ),
        // RFC 6455 section 5.1: unmasked-closes
        client("unmasked", [FIN | TEXT, 1, b'x'], Protocol, "5.1"),
        // RFC 6455 section 5.1: masked-closes
        server("masked", frames(&[(FIN | TEXT, b"x")]), Protocol, "5.1"),
        client(
            // RFC 6455 section 5.5: control-is-short
            "long ping",
            header(FIN | PING, 0xFE, &[0, 126]),
            Protocol,
            "5.5",
        ),
        client(
            "long close",
            header(FIN | CLOSE, 0xFF, &[0, 0, 0, 0, 0, 1, 0, 0]),
            Protocol,
            "5.5",
        ),
        // RFC 6455 section 5.4: control-is-one-frame
        // RFC 6455 section 5.5: control-is-unfragmented
        client("fragmented ping", frames(&[(PING, b"x")]), Protocol, "5.5"),
        client("fragmented pong", frames(&[(PONG, b"x")]), Protocol, "5.5"),
        client("fragmented close", frames(&[(CLOSE, b"")]), Protocol, "5.5"),
        client(
            // RFC 6455 section 5.2: length-is-minimal
            "16-bit length of 125",
            header(FIN | BINARY, 0xFE, &[0, 125]),
            Protocol,
            "5.2",
        ),
        client(
            "64-bit length of 125",
            header(FIN | BINARY, 0xFF, &[0, 0, 0, 0, 0, 0, 0, 125]),
            Protocol,
            "5.2",
        ),
        client(
            "64-bit length of 65535",
            header(FIN | BINARY, 0xFF, &[0, 0, 0, 0, 0, 0, 255, 255]),
            Protocol,
            "5.2",
        ),
        client(
            // RFC 6455 section 5.2: length-sign
            "length of 2^63",
            header(FIN | BINARY, 0xFF, &[128, 0, 0, 0, 0, 0, 0, 0]),
            Protocol,
            "5.2",
        ),
        server(
            "length of 2^64 - 1",
            [FIN | BINARY, 127, 255, 255, 255, 255, 255, 255, 255, 255],
            Protocol,
            "5.2",
        ),
        client(
            "continuation of nothing",
            frames(&[(FIN, b"x")]),
            Protocol,
            "5.4",
        ),
        client(
            "open continuation of nothing",
            frames(&[(0, b"x")]),
            Protocol,
            "5.4",
        ),
        client(
            "continuation of a finished message",
            frames(&[(TEXT, b"a"), (FIN, b"b"), (FIN, b"c")]),
            Protocol,
            "5.4",
        ),
        client(
            // RFC 6455 section 5.4: no-interleaving, one-type
            "text inside a message",
            frames(&[(TEXT, b"a"), (FIN | TEXT, b"b")]),
            Protocol,
            "5.4",
        ),
        client(
            "binary inside a message",
            frames(&[(TEXT, b"a"), (FIN | PING, b""), (BINARY, b"b")]),
            Protocol,
            "5.4",
        ),
        client(
            // RFC 6455 section 10.4: limits-hold
            "too big",
            header(FIN | BINARY, 0xFE, &1001_u16.to_be_bytes()),
            Size,
            "10.4",
        ),
        client(
            "too big, without its key",
            [FIN | BINARY, 0xFE, 0x03, 0xE9],
            Size,
            "10.4",
        ),
        client(
            "far too big",
            header(FIN | TEXT, 0xFF, &(1_u64 << 62).to_be_bytes()),
            Size,
            "10.4",
        ),
        client(
            "too big in sum",
            [
                frames(&[(BINARY, &[1; 600])]),
                header(0, 0xFE, &401_u16.to_be_bytes()),
            ]
            .concat(),
            Size,
            "10.4",
        ),
        client(
            "too many fragments",
            frames(&[(TEXT, b""), (0, b""), (0, b"x"), (0, b""), (FIN, b"")]),
            Size,
            "10.4",
        ),
        client(
            // RFC 6455 section 5.6: text-is-utf8
            // RFC 6455 section 8.1: invalid-utf8-fails
            "text with 0xFF",
            frames(&[(FIN | TEXT, b"ok\xff")]),
            Invalid,
            "8.1",
        ),
        client(
            "text that ends in a character",
            frames(&[(FIN | TEXT, b"\xe2\x82")]),
            Invalid,
            "8.1",
        ),
        client(
            "surrogate",
            frames(&[(FIN | TEXT, b"\xed\xa0\x80")]),
            Invalid,
            "8.1",
        ),
        client(
            "overlong",
            frames(&[(FIN | TEXT, b"\xc0\xaf")]),
            Invalid,
            "8.1",
        ),
        client(
            "bad second fragment",
            frames(&[(TEXT, b"\xe2"), (0, b"\x82\xff")]),
            Invalid,
            "8.1",
        ),
        client(
            "fragments that end in a character",
            frames(&[(TEXT, b"\xe2"), (FIN, b"\x82")]),
            Invalid,
            "8.1",
        ),
        client(
            "bad text before a ping",
            frames(&[(TEXT, b"\xff"), (FIN | PING, b"")]),
            Invalid,
            "8.1",
        ),
        client(
            "bad start of an unfinished frame",
            &frames(&[(FIN | TEXT, &[0xFF; 500])])[..100],
            Invalid,
            "8.1",
        ),
        server(
            "bad text from a server",
            [FIN | TEXT, 1, 0xFF],
            Invalid,
            "8.1",
        ),
        client(
            // RFC 6455 section 5.5.1: close-code-first
            "close of one byte",
            frames(&[(FIN | CLOSE, b"\x03")]),
            Protocol,
            "5.5.1",
        ),
        client(
            "close reason not UTF-8",
            close(1000, b"\xff"),
            Invalid,
            "8.1",
        ),
        client("close reason cut", close(1000, b"\xe2\x82"), Invalid, "8.1"),
        server(
            "close of one byte from a server",
            [FIN | CLOSE, 1, 3],
            Protocol,
            "5.5.1",
        ),
    ];
    // RFC 6455 section 5.2: unknown-opcode-fails
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(client(
            "unknown opcode",
            frames(&[(FIN | opcode, b"")]),
            Protocol,
            "5.2",
        ));
        cases.push(client(
            "unknown opcode in a message",
            frames(&[(TEXT, b""), (opcode, b"")]),
            Protocol,
            "5.2",
        ));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        cases.push(client("close code", close(code, b""), Protocol, "7.4"));
    }
    cases
}

/// The Close frame that a server sends for a violation.
fn expected_close(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let payload = [&u16::from(code).to_be_bytes(), reason.as_bytes()].concat();
    encode_frame(OpCode::Control(Control::Close), &payload, &mut out);
    out
}

// RFC 6455 section 5.4: frame-boundaries
// RFC 6455 section 10.7: data-is-validated
#[test]
fn receive_gives_the_violation_at_any_cut() {
    for Case {
        name,
        role,
        bytes,
        code,
        section,
    } in cases()
    {
        for cut in 1..=bytes.len() {
            let mut session = Session::new(role, LIMITS);
            let (_, end) = receive_all(&mut session, &bytes, &[cut]);
            let (violation, _) = end.unwrap_or_else(|| panic!("{name} {bytes:x?}"));
            assert_eq!(
                (violation.code(), violation.section()),
                (code, section),
                "{name} {bytes:x?}"
            );
            let mut out = Vec::new();
            session.close(violation.code(), violation.reason(), &mut out);
            assert_eq!(session.state(), State::Closed);
            assert!(session.is_idle());
            if role == Role::Server {
                assert_eq!(out, expected_close(code, violation.reason()), "{name}");
            }
        }
    }
}

#[test]
fn echo_sends_the_close_at_any_cut() {
    for Case {
        name,
        bytes,
        code,
        section,
        ..
    } in cases().into_iter().filter(|case| case.role == Role::Server)
    {
        for cut in 1..=bytes.len() {
            let mut session = Session::new(Role::Server, LIMITS);
            let mut spill = Vec::new();
            let mut end = None;
            for piece in common::pieces(&bytes, &[cut]) {
                spill.clear();
                let echo = session.echo(&mut piece.to_vec(), &mut spill);
                if let Some(End::Violation(violation)) = echo.end {
                    assert_eq!(echo.reply, Reply::Spilled);
                    end = Some(violation);
                    break;
                }
            }
            let violation = end.unwrap_or_else(|| panic!("{name} {bytes:x?}"));
            assert_eq!(
                (violation.code(), violation.section()),
                (code, section),
                "{name} {bytes:x?}"
            );
            assert!(
                spill.ends_with(&expected_close(code, violation.reason())),
                "{name}"
            );
            assert_eq!(session.state(), State::Closed);
        }
    }
}

#[test]
fn what_is_just_allowed_is_no_violation() {
    let fine = [
        frames(&[(FIN | BINARY, &[1; 1000])]),
        frames(&[(BINARY, &[1; 600]), (FIN, &[1; 400])]),
        frames(&[
            (TEXT, b""),
            (0, b""),
            (FIN | PING, b""),
            (0, b"x"),
            (FIN, b""),
        ]),
        frames(&[
            (TEXT, b"\xf0\x9f"),
            (FIN | PONG, &[1; 125]),
            (0, b"\x98"),
            (FIN, b"\x80"),
        ]),
        close(1014, "caf\u{e9}".as_bytes()),
        frames(&[(FIN | CLOSE, b"")]),
    ];
    for bytes in fine {
        for cut in 1..=bytes.len() {
            let mut session = Session::new(Role::Server, LIMITS);
            let (seen, violation) = receive_all(&mut session, &bytes, &[cut]);
            assert_eq!(violation, None, "{bytes:x?}");
            assert!(!seen.is_empty());
            assert!(session.is_idle());
        }
    }
}

#[test]
fn default_limits_are_as_documented() {
    let limits = Limits::default();
    assert_eq!(
        (limits.max_message_bytes, limits.max_fragments),
        (16 * 1024 * 1024, 65_536)
    );
    let mut session = Session::new(Role::Server, limits);
    let mut bytes = frames(&[(BINARY, b"")]);
    bytes.extend(frames(&[(0, b"")]).repeat(65_535));
    assert_eq!(receive_all(&mut session, &bytes, &[usize::MAX]).1, None);
    let (violation, _) = receive_all(&mut session, &frames(&[(FIN, b"")]), &[usize::MAX])
        .1
        .unwrap();
    assert_eq!(violation.code(), CloseCode::Size);
}
