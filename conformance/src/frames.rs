//! Echo: messages, fragments, control frames and the closing handshake (RFC 6455 sections 5 to 7).

use std::io::Write;
use std::time::Duration;

use tungstenite::Message;

use super::client::Raw;
use super::harness::Target;
use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};

/// Lengths on both sides of every change in the length encoding, and a big one.
const SIZES: [usize; 8] = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20];

/// Text and binary messages of every size class come back as they were, on one connection.
pub fn echo_of_every_size(target: &Target) {
    let server = target.start(&[]);
    let mut client = server.ws("/ws");
    for size in SIZES {
        client.echo(Message::binary(pattern(size)));
        client.echo(Message::text(letters(size)));
    }
    client.close();
}

/// The same without a library on our side: unmasked, unfragmented, minimal length, same opcode.
// RFC 6455 section 5.1: server-does-not-mask
// RFC 6455 section 5.2: reserved-bits-are-zero, length-is-minimal
// RFC 6455 section 6.1: data-is-framed, opcode-is-set, last-has-fin
pub fn echo_frames_are_well_formed(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    for size in SIZES {
        raw.send(&wire::binary(&pattern(size)));
        raw.expect(BINARY, &pattern(size));
        raw.send(&wire::text(&letters(size)));
        raw.expect(TEXT, letters(size).as_bytes());
    }
}

/// A thousand small frames in one write come back in order.
// RFC 6455 section 6.1: data-is-sent
pub fn thousand_pipelined_frames_in_order(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let bytes: Vec<u8> = (0..1000)
        .flat_map(|i| wire::text(&format!("message {i}")))
        .collect();
    raw.send(&bytes);
    for i in 0..1000 {
        raw.expect(TEXT, format!("message {i}").as_bytes());
    }
}

/// Messages of all sizes in one stream, cut at places that never fit a frame, come back in order.
// RFC 6455 section 5.4: frame-boundaries
// RFC 6455 section 6.2: parsed-as-frames, server-unmasks
pub fn pipelined_frames_cut_anywhere(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let sizes: Vec<usize> = (0..400)
        .map(|i| (i * 37) % 300 + if i % 50 == 0 { 70_000 } else { 0 })
        .collect();
    let bytes: Vec<u8> = sizes
        .iter()
        .flat_map(|&size| wire::binary(&pattern(size)))
        .collect();
    let mut writer = raw.writer();
    let sending = std::thread::spawn(move || {
        let mut rest = bytes.as_slice();
        let mut cut = 1;
        while !rest.is_empty() {
            cut = cut * 7 % 9973 + 1;
            let (now, later) = rest.split_at(cut.min(rest.len()));
            writer.write_all(now)?;
            rest = later;
        }
        Ok::<_, std::io::Error>(())
    });
    for size in sizes {
        raw.expect(BINARY, &pattern(size));
    }
    assert!(matches!(sending.join(), Ok(Ok(()))), "sending failed");
}

/// Pings between pipelined messages are answered where they stand.
// RFC 6455 section 5.5.2: ping-is-answered
// RFC 6455 section 6.2: control-is-handled
pub fn pings_between_messages_keep_their_place(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let mut bytes = Vec::new();
    for i in 0..50u8 {
        bytes.extend(wire::binary(&[i]));
        bytes.extend(wire::masked(FIN | PING, &[i, i]));
    }
    raw.send(&bytes);
    for i in 0..50u8 {
        raw.expect(BINARY, &[i]);
        raw.expect(PONG, &[i, i]);
    }
}

/// A pong carries its ping's payload (RFC 6455 section 5.5.3); an unasked pong is ignored.
// RFC 6455 section 5.5.3: pong-repeats
pub fn pong_repeats_the_ping(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.send(&wire::masked(FIN | PONG, b"nobody asked"));
        raw.send(&wire::masked(FIN | PING, payload));
        raw.expect(PONG, payload);
    }
    raw.expect_alive();
}

/// A fragmented message comes back whole, and a ping between its fragments is answered before it is
/// complete.
// RFC 6455 section 5.4: fragments-in-order, control-between-fragments, both-forms
// RFC 6455 section 6.2: type-is-noted, next-message
pub fn fragments_with_a_ping_between(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    raw.send(&wire::masked(TEXT, b"one "));
    raw.send(&wire::masked(FIN | PING, b"now"));
    raw.expect(PONG, b"now");
    raw.send(&wire::masked(CONTINUATION, b"two "));
    raw.send(&wire::masked(CONTINUATION, b""));
    raw.send(&wire::masked(FIN | CONTINUATION, b"three"));
    expect_message(&mut raw, TEXT, b"one two three");
    raw.send(
        &[
            wire::masked(BINARY, b""),
            wire::masked(FIN | CONTINUATION, b""),
        ]
        .concat(),
    );
    expect_message(&mut raw, BINARY, b"");
    raw.expect_alive();
}

/// Text is checked as a whole: a character may be cut by fragments and by packets.
// RFC 6455 section 5.6: text-is-utf8
pub fn characters_cut_by_fragments(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let word = "κόσμε 😀 \u{10FFFF}";
    let (last, first) = word.as_bytes().split_last().unwrap_or((&0, &[]));
    raw.send(&wire::masked(TEXT, b""));
    for byte in first {
        raw.send(&wire::masked(CONTINUATION, &[*byte]));
    }
    raw.send(&wire::masked(FIN | CONTINUATION, &[*last]));
    expect_message(&mut raw, TEXT, word.as_bytes());
    raw.send_bytewise(&wire::text(word));
    raw.expect(TEXT, word.as_bytes());
}

/// Frames whose payload comes later than their header, with a pause that the server notices.
pub fn a_payload_later_than_its_header(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let frame = wire::binary(&pattern(100_000));
    let mut other = server.upgraded("/ws");
    for cut in [2, 4, 10, 14, 15, 4096, 65_536] {
        raw.send(&frame[..cut]);
        // An echo on another connection shows that the server has had its turn.
        other.expect_alive();
        raw.send(&frame[cut..]);
        raw.expect(BINARY, &pattern(100_000));
    }
}

/// The closing handshake repeats the code and ends the connection (RFC 6455 sections 5.5.1 and
/// 7.1.1).
// RFC 6455 section 5.5.1: close-is-answered, tcp-is-closed, server-closes-at-once
pub fn close_code_is_echoed(target: &Target) {
    let server = target.start(&[]);
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let mut raw = server.upgraded("/ws");
        raw.send(&wire::close(code, b""));
        raw.expect_close(code);
        let mut raw = server.upgraded("/broadcast/closing");
        raw.send(&wire::close(code, &[b'r'; 123]));
        raw.expect_close(code);
    }
}

/// A close without a code is answered by one without a code or with 1000.
pub fn close_without_a_code(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    raw.send(&wire::masked(FIN | wire::CLOSE, b""));
    let frame = raw.frame();
    assert_eq!(frame.opcode(), wire::CLOSE, "{frame:?}");
    assert!(matches!(frame.close_code(), None | Some(1000)), "{frame:?}");
    raw.expect_closed();
}

/// Messages before a close are answered first; what follows it is not looked at.
// RFC 6455 section 5.5.1: nothing-after-close
pub fn messages_around_a_close(target: &Target) {
    let server = target.start(&[]);
    let bytes = [
        wire::text("before"),
        wire::close(1000, b"bye"),
        wire::text("after"),
        vec![0xff; 9],
    ]
    .concat();
    for path in ["/ws", "/broadcast/parting"] {
        let mut raw = server.upgraded(path);
        raw.send(&bytes);
        raw.expect(TEXT, b"before");
        raw.expect_close(1000);
    }
}

/// A client that half-closes gets the answers to all it sent, then the end.
pub fn half_closed_client_gets_its_answers(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded("/ws");
    let bytes: Vec<u8> = (0..100)
        .flat_map(|i| wire::text(&format!("last words {i}")))
        .collect();
    raw.send(&bytes);
    raw.finish_sending();
    for i in 0..100 {
        raw.expect(TEXT, format!("last words {i}").as_bytes());
    }
    // A close frame may come before the end, nothing else.
    if let Some(frame) = raw.next_frame() {
        assert_eq!(frame.opcode(), wire::CLOSE, "{frame:?}");
        raw.expect_closed();
    }
    server.await_metric("connections_open", 0);
}

/// As a member of a room, it gets what it published last.
pub fn half_closed_member_gets_its_messages(target: &Target) {
    let server = target.start(&[]);
    let mut raw = server.upgraded_with_small_buffer("/broadcast/half");
    // Long enough that its last bytes and the end of the stream come together.
    let message = pattern(4093).repeat(700);
    raw.send(&wire::binary(&message));
    raw.finish_sending();
    raw.expect(BINARY, &message);
    raw.expect_closed();
    server.await_metric("connections_open", 0);
}

/// An echo to a client that does not read is not hoarded: the server stops reading until there is
/// room.
pub fn echo_pushes_back_on_a_client_that_does_not_read(target: &Target) {
    const MESSAGE: usize = 16 * 1024;
    const MOST: usize = 256 << 20;
    let server = target.start(&[]);
    let before = server.resident_bytes();
    let mut raw = server.upgraded_with_small_buffer("/ws");
    let frame = wire::binary(&pattern(MESSAGE));
    let mut other = server.upgraded("/ws");
    let mut sent = 0;
    let left = loop {
        let now = raw.send_until_stuck(&frame, Duration::from_millis(500));
        sent += now;
        if now < frame.len() {
            break &frame[now..];
        }
        assert!(
            sent < MOST,
            "the server took {sent} bytes from a client that reads nothing"
        );
    };
    other.expect_alive();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "the server hoards: it grew by {grown} bytes after taking {sent}"
    );
    let mut writer = raw.writer();
    let left = left.to_vec();
    let rest = std::thread::spawn(move || writer.write_all(&left));
    // Of the last one nothing may have gone: a Unix socket takes all of a write or none.
    for _ in 0..sent / frame.len() + 1 {
        raw.expect(BINARY, &pattern(MESSAGE));
    }
    assert!(
        matches!(rest.join(), Ok(Ok(()))),
        "the rest of the last frame could not be sent"
    );
    raw.expect_alive();
}

/// Sixteen connections at once, each with its own stream, never mix.
pub fn connections_do_not_mix(target: &Target) {
    let server = target.start(&[]);
    let mut clients: Vec<Raw> = (0..16).map(|_| server.upgraded("/ws")).collect();
    for round in 0..20 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(
                &[
                    wire::text(&format!("{i}/{round}/a")),
                    wire::text(&format!("{i}/{round}/b")),
                ]
                .concat(),
            );
        }
        for (i, client) in clients.iter_mut().enumerate() {
            client.expect(TEXT, format!("{i}/{round}/a").as_bytes());
            client.expect(TEXT, format!("{i}/{round}/b").as_bytes());
        }
    }
}

/// Reads one message that may come in fragments.
#[track_caller]
fn expect_message(raw: &mut Raw, opcode: u8, payload: &[u8]) {
    let mut frame = raw.frame();
    assert_eq!(frame.opcode(), opcode, "{frame:?}");
    let mut whole = std::mem::take(&mut frame.payload);
    while frame.first & FIN == 0 {
        frame = raw.frame();
        assert_eq!(frame.opcode(), CONTINUATION, "{frame:?}");
        whole.append(&mut frame.payload);
    }
    assert!(
        whole == payload,
        "expected {} bytes, got {}",
        payload.len(),
        whole.len()
    );
}

/// Bytes without a short period, so that a shifted mask or a lost byte shows.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
        .collect()
}

fn letters(size: usize) -> String {
    pattern(size)
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect()
}
