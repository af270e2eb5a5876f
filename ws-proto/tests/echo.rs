//! `echo` against `receive` and `encode_frame`: the same reply bytes and counts, however the stream
//! is cut.

mod common;

use proptest::prelude::*;
use ws_proto::{CloseCode, End, Event, Input, Reply, Session, Unfinished, encode_frame};

use common::{cuts, mutated_stream, pieces, pong, server, stream};

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    replies: Vec<u8>,
    messages: u64,
    pings: u64,
    end: Option<End>,
}

fn by_echo(bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut session = server();
    let mut outcome = Outcome::default();
    let mut spill = Vec::new();
    for piece in pieces(bytes, cuts) {
        let mut piece = piece.to_vec();
        let echo = session.echo(&mut piece, &mut spill);
        match echo.reply {
            Reply::None => assert!(spill.is_empty()),
            Reply::InPlace(range) => {
                assert!(spill.is_empty());
                outcome.replies.extend_from_slice(&piece[range]);
            }
            Reply::Spilled => outcome.replies.append(&mut spill),
        }
        outcome.messages += echo.messages;
        outcome.pings += echo.pings;
        outcome.end = outcome.end.or(echo.end);
    }
    outcome
}

/// As [`by_echo`], but whatever may be received straight into its message is.
fn by_lending(bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut session = server();
    let mut outcome = Outcome::default();
    for piece in pieces(bytes, cuts) {
        let mut rest = piece;
        while !rest.is_empty() {
            let mut input = Vec::new();
            if let Some(Unfinished { mut bytes, most }) = session.lend_message() {
                let (now, later) = rest.split_at(most.min(rest.len()));
                bytes.extend_from_slice(now);
                session.take_back(bytes);
                rest = later;
            } else {
                input.extend_from_slice(std::mem::take(&mut rest));
            }
            let mut spill = Vec::new();
            let echo = session.echo(&mut input, &mut spill);
            match echo.reply {
                Reply::None => {}
                Reply::InPlace(range) => outcome.replies.extend_from_slice(&input[range]),
                Reply::Spilled => outcome.replies.append(&mut spill),
            }
            outcome.messages += echo.messages;
            outcome.pings += echo.pings;
            outcome.end = outcome.end.or(echo.end);
        }
    }
    outcome
}

fn by_receive(bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut session = server();
    let mut outcome = Outcome::default();
    for piece in pieces(bytes, cuts) {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        while outcome.end.is_none() && reply_to_next(&mut session, &mut input, &mut outcome) {}
    }
    outcome
}

fn reply_to_next(session: &mut Session, input: &mut Input<'_>, outcome: &mut Outcome) -> bool {
    match session.receive(input) {
        Ok(Some(Event::Message { kind, payload })) => {
            outcome.messages += 1;
            encode_frame(kind.into(), payload, &mut outcome.replies);
        }
        Ok(Some(Event::Ping(payload))) => {
            outcome.pings += 1;
            encode_frame(pong(), payload, &mut outcome.replies);
        }
        Ok(Some(Event::Pong(_))) => {}
        Ok(Some(Event::Close { code, .. })) => {
            outcome.end = Some(End::PeerClosed(code));
            session.answer_close(&mut outcome.replies);
        }
        Ok(None) => return false,
        Err(violation) => {
            outcome.end = Some(End::Violation(violation));
            session.close(violation.code(), violation.reason(), &mut outcome.replies);
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn valid_streams(bytes in stream(), first in cuts(), second in cuts()) {
        prop_assert_eq!(by_echo(&bytes, &first), by_receive(&bytes, &second));
        prop_assert_eq!(by_lending(&bytes, &first), by_receive(&bytes, &second));
    }

    #[test]
    fn mutated_streams(bytes in mutated_stream(), first in cuts(), second in cuts()) {
        prop_assert_eq!(by_echo(&bytes, &first), by_receive(&bytes, &second));
        prop_assert_eq!(by_lending(&bytes, &first), by_receive(&bytes, &second));
    }
}

#[test]
fn every_single_cut_of_a_long_stream() {
    let mut bytes = Vec::new();
    for (first, len) in [
        (0x81, 5),
        (0x89, 125),
        (0x82, 300),
        (0x02, 10),
        (0x8A, 3),
        (0x00, 0),
        (0x80, 20),
        (0x81, 64),
        (0x88, 0),
    ] {
        bytes.extend(common::frame(first, &vec![b'x'; len], [7, 77, 177, 250]));
    }
    let whole = by_echo(&bytes, &[usize::MAX]);
    assert_eq!(
        (whole.messages, whole.pings, whole.end),
        (4, 1, Some(End::PeerClosed(None)))
    );
    for cut in 1..bytes.len() {
        assert_eq!(by_echo(&bytes, &[cut, usize::MAX]), whole, "{cut}");
        assert_eq!(by_lending(&bytes, &[cut, usize::MAX]), whole, "{cut}");
    }
}

#[test]
fn both_close_codes_are_told() {
    let bytes = common::frame(0x88, &1001_u16.to_be_bytes(), [1; 4]);
    assert_eq!(
        by_echo(&bytes, &[1]).end,
        Some(End::PeerClosed(Some(CloseCode::Away)))
    );
}
