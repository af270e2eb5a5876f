//! What a client must not do, with the exact close code each must get (RFC 6455 sections 5, 7.4 and
//! 8.1).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::harness::{Server, Target};
use super::panic_text;
use super::wire::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT};

/// Frames that break the framing rules: 1002.
// RFC 6455 section 5.1: unmasked-closes
// RFC 6455 section 5.2: reserved-bits-fail, unknown-opcode-fails
// RFC 6455 section 5.4: control-is-one-frame, no-interleaving, one-type
// RFC 6455 section 5.5: control-is-short, control-is-unfragmented
// RFC 6455 section 7.1.7: server-fails
// RFC 6455 section 10.7: data-is-validated
pub fn framing_violations_get_1002(target: &Target) {
    let server = target.start(&[]);
    for path in ["/ws", "/broadcast/judged"] {
        for rsv in [0x10, 0x20, 0x40, 0x70] {
            violates(
                &server,
                path,
                1002,
                "RSV bit",
                &wire::masked(FIN | rsv | TEXT, b"x"),
            );
            violates(
                &server,
                path,
                1002,
                "RSV bit on a ping",
                &wire::masked(FIN | rsv | PING, b"x"),
            );
        }
        for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            violates(
                &server,
                path,
                1002,
                "reserved opcode",
                &wire::masked(FIN | opcode, b""),
            );
        }
        for opcode in [TEXT, BINARY, PING] {
            violates(
                &server,
                path,
                1002,
                "no mask",
                &wire::unmasked(FIN | opcode, b"bare"),
            );
        }
        violates(
            &server,
            path,
            1002,
            "no mask, no payload",
            &wire::unmasked(FIN | TEXT, b""),
        );
        for opcode in [PING, PONG, CLOSE] {
            violates(
                &server,
                path,
                1002,
                "fragmented control frame",
                &wire::masked(opcode, b""),
            );
            violates(
                &server,
                path,
                1002,
                "control frame of 126 bytes",
                &wire::masked(FIN | opcode, &[3; 126]),
            );
        }
        for first in [CONTINUATION, FIN | CONTINUATION] {
            violates(
                &server,
                path,
                1002,
                "continuation of nothing",
                &wire::masked(first, b"x"),
            );
        }
        for first in [TEXT, FIN | TEXT, BINARY, FIN | BINARY] {
            let bytes = [wire::masked(TEXT, b"begun"), wire::masked(first, b"new")].concat();
            violates(
                &server,
                path,
                1002,
                "new message within a fragmented one",
                &bytes,
            );
        }
    }
    let bytes = [
        wire::masked(TEXT, b"a"),
        wire::masked(FIN | CONTINUATION, b"b"),
        wire::masked(FIN | CONTINUATION, b"c"),
    ];
    for path in ["/ws", "/broadcast/judged"] {
        let mut raw = server.upgraded(path);
        raw.send(&bytes.concat());
        raw.expect(TEXT, b"ab");
        raw.expect_close(1002);
    }
}

/// Lengths that are not written in as few bytes as they need, or use the top bit: 1002 (RFC 6455
/// section 5.2).
// RFC 6455 section 5.2: length-sign, length-is-minimal
pub fn length_violations_get_1002(target: &Target) {
    let server = target.start(&[]);
    violates(
        &server,
        "/ws",
        1002,
        "5 bytes in 16 bits",
        &wire::with_16_bit_length(FIN | TEXT, b"hello"),
    );
    violates(
        &server,
        "/ws",
        1002,
        "125 bytes in 16 bits",
        &wire::with_16_bit_length(FIN | BINARY, &[1; 125]),
    );
    violates(
        &server,
        "/ws",
        1002,
        "5 bytes in 64 bits",
        &wire::with_64_bit_length(FIN | TEXT, b"hello"),
    );
    violates(
        &server,
        "/ws",
        1002,
        "65535 bytes in 64 bits",
        &wire::with_64_bit_length(FIN | BINARY, &[1; 65_535]),
    );
    violates(
        &server,
        "/ws",
        1002,
        "top bit",
        &wire::long_header(FIN | BINARY, 1 << 63),
    );
    violates(
        &server,
        "/ws",
        1002,
        "all bits",
        &wire::long_header(FIN | BINARY, u64::MAX),
    );
}

/// Close frames with one byte or with a code that must not be on the wire: 1002.
// RFC 6455 section 5.5.1: close-code-first
pub fn close_violations_get_1002(target: &Target) {
    let server = target.start(&[]);
    violates(
        &server,
        "/ws",
        1002,
        "close of one byte",
        &wire::masked(FIN | CLOSE, &[3]),
    );
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        violates(
            &server,
            "/ws",
            1002,
            &format!("close code {code}"),
            &wire::close(code, b"why"),
        );
    }
}

/// Text or a close reason that is not UTF-8: 1007 (RFC 6455 section 8.1).
// RFC 6455 section 5.6: text-is-utf8
// RFC 6455 section 8.1: invalid-utf8-fails
pub fn bad_utf8_gets_1007(target: &Target) {
    let server = target.start(&[]);
    for bad in [
        &b"\xff"[..],
        b"\x80",
        b"abc\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"cut \xe2\x82",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ] {
        let what = bad.escape_ascii().to_string();
        for path in ["/ws", "/broadcast/judged"] {
            violates(&server, path, 1007, &what, &wire::masked(FIN | TEXT, bad));
        }
        let long = [&[b'a'; 70_000], bad].concat();
        violates(
            &server,
            "/ws",
            1007,
            &format!("{what} after 70,000 letters"),
            &wire::masked(FIN | TEXT, &long),
        );
        let cut = bad.len() / 2;
        let bytes = [
            wire::masked(TEXT, &bad[..cut]),
            wire::masked(FIN | CONTINUATION, &bad[cut..]),
        ]
        .concat();
        violates(
            &server,
            "/ws",
            1007,
            &format!("{what} in fragments"),
            &bytes,
        );
        violates(
            &server,
            "/ws",
            1007,
            &format!("{what} in a reason"),
            &wire::close(1000, bad),
        );
    }
    // The same bytes are fine in a binary message.
    let mut raw = server.upgraded("/ws");
    raw.send(&wire::binary(b"\xff\xfe"));
    raw.expect(BINARY, b"\xff\xfe");
}

/// More than `--max-message` bytes: 1009, known from the header alone; exactly as many are served.
// RFC 6455 section 10.4: limits-hold
pub fn too_big_messages_get_1009(target: &Target) {
    let server = target.start(&["--max-message", "70000"]);
    for path in ["/ws", "/broadcast/judged"] {
        let mut raw = server.upgraded(path);
        raw.send(&wire::binary(&[7; 70_000]));
        raw.expect(BINARY, &[7; 70_000]);
        violates(
            &server,
            path,
            1009,
            "one byte too many",
            &wire::binary(&[7; 70_001]),
        );
        violates(
            &server,
            path,
            1009,
            "header of a huge message",
            &wire::long_header(FIN | BINARY, 1 << 40),
        );
        violates(
            &server,
            path,
            1009,
            "header of the hugest message",
            &wire::long_header(FIN | BINARY, (1 << 63) - 1),
        );
        let half = [7; 35_000];
        let bytes = [
            wire::masked(BINARY, &half),
            wire::masked(CONTINUATION, &half),
            wire::masked(FIN | CONTINUATION, b"1"),
        ];
        violates(&server, path, 1009, "fragments in sum", &bytes.concat());
    }
}

/// The default for a message is 16 MiB.
pub fn default_message_limit_is_16_mib(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let most = vec![7; 16 << 20];
    let mut writer = raw.writer();
    let frame = wire::binary(&most);
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &frame));
    raw.expect(BINARY, &most);
    assert!(
        matches!(sending.join(), Ok(Ok(()))),
        "16 MiB could not be sent"
    );
    violates(
        &server,
        "/ws",
        1009,
        "16 MiB and one byte",
        &wire::long_header(FIN | BINARY, (16 << 20) + 1),
    );
}

/// A message may have 65,536 fragments, and no more: 1009.
// RFC 6455 section 10.4: limits-hold
pub fn too_many_fragments_get_1009(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let start = wire::masked(BINARY, b"f");
    let middle = wire::masked(CONTINUATION, b"f").repeat(65_534);
    let end = wire::masked(FIN | CONTINUATION, b"f");
    raw.send(&[start.as_slice(), &middle, &end].concat());
    raw.expect(BINARY, &[b'f'; 65_536]);
    let one_more = wire::masked(CONTINUATION, b"f");
    violates(
        &server,
        "/ws",
        1009,
        "65,537 fragments",
        &[start.as_slice(), &middle, &one_more, &end].concat(),
    );
}

/// What came before a violation is answered, what follows it is not.
// RFC 6455 section 7.1.7: deaf-after-failure
pub fn messages_around_a_violation(target: &Target) {
    let server = target.start(&[]);
    let bytes = [
        wire::text("before"),
        wire::masked(FIN | 0x3, b"bad"),
        wire::text("after"),
    ]
    .concat();
    for path in ["/ws", "/broadcast/judged"] {
        let mut raw = server.upgraded(path);
        raw.send(&bytes);
        raw.expect(TEXT, b"before");
        raw.expect_close(1002);
    }
}

/// A violation found byte by byte is the same violation.
pub fn violations_byte_at_a_time(target: &Target) {
    let server = target.start(&[]);
    for (code, bytes) in [
        (1002, wire::masked(FIN | 0x40 | TEXT, b"packed")),
        (1007, wire::masked(FIN | TEXT, b"\xff\xff")),
        (1009, wire::long_header(FIN | BINARY, 1 << 40)),
    ] {
        let mut raw = server.upgraded("/ws");
        for byte in bytes {
            if !raw.try_send(&[byte]) {
                break; // closed already
            }
        }
        raw.expect_close(code);
    }
}

/// Violating clients disturb nobody else on the server.
pub fn violations_leave_others_alone(target: &Target) {
    let server = target.start(&["--workers", "1"]);
    let mut member = server.upgraded("/broadcast/calm");
    let mut echo = server.upgraded("/ws");
    for _ in 0..20 {
        violates(
            &server,
            "/broadcast/calm",
            1002,
            "no mask",
            &wire::unmasked(FIN | TEXT, b"bare"),
        );
        violates(
            &server,
            "/ws",
            1007,
            "bad text",
            &wire::masked(FIN | TEXT, b"\xff"),
        );
    }
    member.expect_alive();
    echo.expect_alive();
    server.await_metric("connections_open", 2);
}

/// Sends bytes on a new connection that must get this close code and then the end of the
/// connection.
#[track_caller]
fn violates(server: &Server, path: &str, code: u16, what: &str, bytes: &[u8]) {
    let mut raw = server.upgraded(path);
    // The server may close before it has taken all.
    raw.try_send(bytes);
    let verdict = catch_unwind(AssertUnwindSafe(|| raw.expect_close(code)));
    if let Err(cause) = verdict {
        panic!("{path}, {what}: {}", panic_text(&*cause));
    }
}
