//! Streams of frames, right and wrong, and ways to cut them; shared by the property tests.
#![allow(dead_code, reason = "each test file uses its part")]

use proptest::prelude::*;
use ws_proto::{
    CloseCode, Control, Event, Input, Kind, Limits, OpCode, Role, Session, Violation,
    encode_masked_frame,
};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// Small, so that a stream can exceed it.
pub(crate) const LIMITS: Limits = Limits {
    max_message_bytes: 4096,
    max_fragments: 65_536,
};

/// A client's frame, any first byte.
pub(crate) fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_masked_frame(OpCode::Data(ws_proto::Data::Binary), payload, key, &mut out);
    out[0] = first;
    out
}

/// What a stream is made of.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Split before the given share (of 256) of the rest, repeatedly; a ping between the fragments
    /// if asked for.
    Message {
        text: bool,
        payload: Vec<u8>,
        splits: Vec<u8>,
        ping_between: bool,
    },
    Control {
        opcode: u8,
        payload: Vec<u8>,
    },
    Close {
        payload: Vec<u8>,
    },
}

impl Part {
    fn encode(&self, key: [u8; 4], out: &mut Vec<u8>) {
        match self {
            Self::Message {
                text,
                payload,
                splits,
                ping_between,
            } => {
                let mut opcode = if *text { TEXT } else { BINARY };
                let mut rest = &payload[..];
                for split in splits {
                    let (fragment, tail) = rest.split_at(rest.len() * usize::from(*split) / 256);
                    out.extend(frame(opcode, fragment, key));
                    if *ping_between {
                        out.extend(frame(FIN | PING, b"between", key));
                    }
                    (opcode, rest) = (0, tail);
                }
                out.extend(frame(FIN | opcode, rest, key));
            }
            Self::Control { opcode, payload } => out.extend(frame(FIN | opcode, payload, key)),
            Self::Close { payload } => out.extend(frame(FIN | CLOSE, payload, key)),
        }
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-z]{0,300}".prop_map(String::into_bytes),
        8 => "\\PC{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => "\\PC{1000}".prop_map(String::into_bytes),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let splits =
        || prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..5)];
    let bytes = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => prop::collection::vec(any::<u8>(), 4000..4100),
    ];
    prop_oneof![
        4 => (text(), splits(), any::<bool>())
            .prop_map(|(payload, splits, ping_between)| {
                Part::Message { text: true, payload, splits, ping_between }
            }),
        4 => (bytes, splits(), any::<bool>())
            .prop_map(|(payload, splits, ping_between)| {
                Part::Message { text: false, payload, splits, ping_between }
            }),
        2 => (prop_oneof![Just(PING), Just(PONG)], prop::collection::vec(any::<u8>(), 0..126))
            .prop_map(|(opcode, payload)| Part::Control { opcode, payload }),
        1 => (prop_oneof![990_u16..1020, 2990_u16..3010, 4990_u16..5010], "\\PC{0,30}")
            .prop_map(|(code, reason)| {
                Part::Close { payload: [&code.to_be_bytes(), reason.as_bytes()].concat() }
            }),
    ]
}

/// A client's stream that is mostly right.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(part(), 1..8), any::<[u8; 4]>()).prop_map(|(parts, key)| {
        let mut out = Vec::new();
        parts.iter().for_each(|part| part.encode(key, &mut out));
        out
    })
}

/// The same with a few bytes changed, removed or put in; headers are hit more often than their
/// share.
pub(crate) fn mutated_stream() -> impl Strategy<Value = Vec<u8>> {
    let mutation = (
        any::<prop::sample::Index>(),
        any::<bool>(),
        0..4_u8,
        any::<u8>(),
    );
    (stream(), prop::collection::vec(mutation, 1..4)).prop_map(|(mut bytes, mutations)| {
        for (index, early, what, value) in mutations {
            let range = if early {
                bytes.len().min(16)
            } else {
                bytes.len()
            };
            let at = index.index(range.max(1));
            match what {
                0 if at < bytes.len() => bytes[at] = value,
                1 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        bytes
    })
}

/// Lengths of the pieces a stream arrives in, repeated as needed.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![usize::MAX]),
        Just(vec![1]),
        prop::collection::vec(1..20_usize, 1..20),
        prop::collection::vec(1..2000_usize, 1..20),
    ]
}

/// `bytes` in pieces.
pub(crate) fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at(rest.len().min(*cuts.next()?));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// An [`Event`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message {
                kind: Kind::Text,
                payload,
            } => Self::Text(payload.to_vec()),
            Event::Message {
                kind: Kind::Binary,
                payload,
            } => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// All events of a stream fed in pieces, and how it ended; with a violation, how many bytes had
/// been fed by then.
pub(crate) fn receive_all(
    session: &mut Session,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Seen>, Option<(Violation, usize)>) {
    let mut seen = Vec::new();
    let mut fed = 0;
    for piece in pieces(bytes, cuts) {
        let mut piece = piece.to_vec();
        fed += piece.len();
        let mut input = Input::new(&mut piece);
        loop {
            match session.receive(&mut input) {
                Ok(Some(event)) => seen.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (seen, Some((violation, fed))),
            }
        }
    }
    (seen, None)
}

pub(crate) fn server() -> Session {
    Session::new(Role::Server, LIMITS)
}

/// The opcode of a pong.
pub(crate) fn pong() -> OpCode {
    OpCode::Control(Control::Pong)
}
