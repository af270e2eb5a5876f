//! What is promised about memory: none for messages that arrive whole, none beyond what has arrived
//! for the others.

mod common;

use allocation_counter::measure;
use ws_proto::{Input, Limits, Reply, Role, Session, encode_frame};

use common::{BINARY, CLOSE, FIN, PING, PONG, TEXT, frame};

const KEY: [u8; 4] = [3, 1, 4, 1];

/// Messages of all sorts, whole and fragmented, with control frames between them, and a Close.
fn whole_messages() -> Vec<u8> {
    let mut bytes = Vec::new();
    for len in [0, 1, 64, 125, 126, 1024, 65_535, 65_536, 100_000] {
        bytes.extend(frame(FIN | BINARY, &vec![7; len], KEY));
        bytes.extend(frame(FIN | TEXT, &vec![b'x'; len], KEY));
        bytes.extend(frame(FIN | PING, b"ping", KEY));
        bytes.extend(frame(TEXT, &vec![b'x'; len], KEY));
        bytes.extend(frame(0, "\u{20ac}".as_bytes(), KEY));
        bytes.extend(frame(FIN, b"", KEY));
        bytes.extend(frame(FIN | PONG, b"pong", KEY));
    }
    bytes.extend(frame(FIN | CLOSE, &1000_u16.to_be_bytes(), KEY));
    bytes
}

#[test]
fn receiving_whole_messages_does_not_allocate() {
    let mut bytes = whole_messages();
    let mut session = Session::new(Role::Server, Limits::default());
    let mut events = 0;
    let used = measure(|| {
        let mut input = Input::new(&mut bytes);
        while let Ok(Some(_)) = session.receive(&mut input) {
            events += 1;
        }
    });
    assert_eq!((events, used.count_total), (9 * 5 + 1, 0));
}

#[test]
fn echoing_whole_messages_does_not_allocate() {
    let mut bytes = whole_messages();
    let mut session = Session::new(Role::Server, Limits::default());
    let mut spill = Vec::new();
    let mut messages = 0;
    let used = measure(|| {
        let echo = session.echo(&mut bytes, &mut spill);
        assert!(matches!(echo.reply, Reply::InPlace(_)));
        messages = echo.messages;
    });
    assert_eq!((messages, used.count_total), (9 * 3, 0));
}

#[test]
fn encoding_into_a_buffer_with_room_does_not_allocate() {
    let mut out = Vec::with_capacity(2000);
    let used = measure(|| encode_frame(ws_proto::Kind::Text.into(), &[b'x'; 1000], &mut out));
    assert_eq!(used.count_total, 0);
}

#[test]
fn an_announced_length_alone_costs_nothing() {
    let bytes = frame(FIN | BINARY, &vec![1; 10_000_000], KEY);
    let mut session = Session::new(Role::Server, Limits::default());
    let mut start = bytes[..1000].to_vec();
    let used = measure(|| {
        assert_eq!(session.receive(&mut Input::new(&mut start)), Ok(None));
    });
    assert!(
        used.bytes_current < 2500,
        "{} bytes for 1000 received",
        used.bytes_current
    );
    assert!(!session.is_idle());
}

/// Resident memory of this process.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn room_for_what_is_announced_is_no_memory() {
    const SESSIONS: usize = 1000;
    let bytes = frame(FIN | BINARY, &vec![1; 10_000_000], KEY);
    let mut held = Vec::new();
    let before = resident_bytes().unwrap();
    for _ in 0..SESSIONS {
        let mut session = Session::new(Role::Server, Limits::default());
        let mut start = bytes[..1000].to_vec();
        assert_eq!(session.receive(&mut Input::new(&mut start)), Ok(None));
        let lent = session.lend_message().unwrap();
        assert!(lent.most > 1_000_000);
        held.push((session, lent));
    }
    let each = resident_bytes().unwrap().saturating_sub(before) / SESSIONS;
    assert!(each < 16_384, "{each} bytes for 1000 received");
}

#[test]
fn the_side_buffer_is_given_back() {
    let bytes = frame(FIN | BINARY, &[1; 100_000], KEY);
    let mut session = Session::new(Role::Server, Limits::default());
    let mut pieces: Vec<Vec<u8>> = bytes.chunks(4096).map(<[u8]>::to_vec).collect();
    let mut messages = 0;
    let used = measure(|| {
        for piece in &mut pieces {
            let mut input = Input::new(piece);
            while let Ok(Some(_)) = session.receive(&mut input) {
                messages += 1;
            }
        }
    });
    assert_eq!((messages, used.bytes_current), (1, 0));
    assert!(session.is_idle());
    assert!(used.bytes_max < 350_000, "{}", used.bytes_max);
}
