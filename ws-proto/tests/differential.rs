//! Against tungstenite: the same bytes, cut at random places, give the same messages and the same
//! verdict.

mod common;

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use proptest::prelude::*;
use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocket, WebSocketConfig},
};
use ws_proto::CloseCode;

use common::{
    FIN, LIMITS, PING, Seen, cuts, frame, mutated_stream, pieces, receive_all, server, stream,
};

/// Bytes that arrive in pieces and then no more for now.
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front_mut() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = piece.len().min(buf.len());
        buf[..taken].copy_from_slice(&piece[..taken]);
        piece.drain(..taken);
        if piece.is_empty() {
            self.0.pop_front();
        }
        Ok(taken)
    }
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite's events, and the close code its error calls for (it sends none itself).
fn oracle(bytes: &[u8], cuts: &[usize]) -> (Vec<Seen>, Option<CloseCode>) {
    let stream = Pieces(pieces(bytes, cuts).map(<[u8]>::to_vec).collect());
    let max = Some(LIMITS.max_message_bytes as usize);
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(max)
        .max_frame_size(max);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Close(close)) => {
                let (code, reason) = close.map_or((None, String::new()), |close| {
                    (Some(close.code), close.reason.to_string())
                });
                seen.push(Seen::Close(code, reason));
                return (seen, None);
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (seen, None);
            }
            Err(Error::Protocol(_)) => return (seen, Some(CloseCode::Protocol)),
            Err(Error::Utf8(_)) => return (seen, Some(CloseCode::Invalid)),
            Err(Error::Capacity(_)) => return (seen, Some(CloseCode::Size)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What tungstenite makes of a Close whose code it does not allow: it answers 1002, and hides the
/// code.
fn is_refused_close(seen: Option<&Seen>) -> bool {
    matches!(seen, Some(Seen::Close(Some(CloseCode::Protocol), reason)) if reason == "Protocol violation")
}

/// Both on the same bytes. Known differences, each an intended one of ours, are named where they
/// are allowed for.
fn compare(bytes: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    // tungstenite looks at most frames only when they are whole: enough behind makes each of them
    // whole.
    let filler = frame(FIN | PING, b"", [0; 4]).repeat(800);
    let padded = [bytes, &filler].concat();
    let (ours, violation) = receive_all(&mut server(), &padded, cuts);
    let (mut theirs, verdict) = oracle(&padded, cuts);
    let Some((violation, fed)) = violation else {
        if is_refused_close(theirs.last())
            && matches!(ours.last(), Some(Seen::Close(Some(code), _)) if u16::from(*code) == 1014)
        {
            // 1014 was registered after tungstenite's table was made.
            theirs.pop();
            prop_assert_eq!(&ours[..ours.len() - 1], &theirs[..]);
            return Ok(());
        }
        prop_assert_eq!((&ours, None), (&theirs, verdict));
        return Ok(());
    };
    if violation.reason().contains("shortest form") {
        // tungstenite reads on; what it read before must be ours.
        prop_assert!(theirs.starts_with(&ours));
        return Ok(());
    }
    if violation.reason().contains("close code") {
        // tungstenite checks the text of such a Close first.
        prop_assert!(
            verdict == Some(CloseCode::Invalid) || is_refused_close(theirs.pop().as_ref())
        );
        theirs.truncate(ours.len());
        prop_assert_eq!(ours, theirs);
        return Ok(());
    }
    prop_assert_eq!(ours, theirs);
    match verdict {
        // tungstenite still waits for the rest of the frame.
        None => prop_assert!(fed > bytes.len(), "only we see {}", violation),
        // Ours goes by the order of the bytes, tungstenite looks at an excessive length first.
        Some(CloseCode::Size) if violation.code() == CloseCode::Protocol => {}
        Some(code) => prop_assert_eq!(violation.code(), code, "{}", violation),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn valid_streams(bytes in stream(), cuts in cuts()) {
        compare(&bytes, &cuts)?;
    }

    #[test]
    fn mutated_streams(bytes in mutated_stream(), cuts in cuts()) {
        compare(&bytes, &cuts)?;
    }

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 1..64), cuts in cuts()) {
        compare(&bytes, &cuts)?;
    }

    /// Cutting must not change anything: not the events, not the verdict.
    // RFC 6455 section 5.4: frame-boundaries
    #[test]
    fn any_cut_gives_the_same(bytes in mutated_stream(), cuts in cuts()) {
        let whole = receive_all(&mut server(), &bytes, &[usize::MAX]);
        let cut = receive_all(&mut server(), &bytes, &cuts);
        prop_assert_eq!(whole.0, cut.0);
        prop_assert_eq!(whole.1.map(|end| end.0), cut.1.map(|end| end.0));
    }
}
