//! Both roles wired together in memory: opening handshake, messages both ways, closing handshake
//! from either end.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use proptest::prelude::*;
use ws_proto::{
    CloseCode, Event, Input, Kind, Limits, Role, Session, State, encode_frame, encode_masked_frame,
    handshake::{
        Status,
        client::{Key, Request, check_response},
        server::parse_request,
    },
};

use common::{Seen, cuts, pieces, receive_all};

/// One end, what it has to say, and what it has heard.
struct End {
    session: Session,
    out: Vec<u8>,
    heard: Vec<Seen>,
}

impl End {
    fn new(role: Role) -> Self {
        Self {
            session: Session::new(role, Limits::default()),
            out: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn say(&mut self, kind: Kind, payload: &[u8]) {
        match self.session.role() {
            Role::Server => encode_frame(kind.into(), payload, &mut self.out),
            Role::Client => {
                encode_masked_frame(kind.into(), payload, ws_proto::random_key(), &mut self.out)
            }
        }
    }

    /// Hears all that the other end said, and answers a Close.
    fn hear(&mut self, other: &mut Self, cuts: &[usize]) {
        let said = std::mem::take(&mut other.out);
        let (heard, violation) = receive_all(&mut self.session, &said, cuts);
        assert_eq!(violation, None);
        self.heard.extend(heard);
        self.session.answer_close(&mut self.out);
    }
}

fn open(cuts: &[usize]) -> (End, End) {
    let request = Request::new("localhost:1", "/ws")
        .unwrap()
        .subprotocol("chat")
        .unwrap();
    let key = Key::generate();
    let mut asked = Vec::new();
    request.write(&key, &mut asked);
    let mut received = Vec::new();
    let mut answer = Vec::new();
    for piece in pieces(&asked, cuts) {
        received.extend_from_slice(piece);
        if let Status::Complete(head) = parse_request(&received).unwrap() {
            assert_eq!((head.path(), head.head_bytes()), ("/ws", asked.len()));
            let upgrade = head.upgrade().unwrap();
            upgrade.write_response(upgrade.subprotocols().first().copied(), &mut answer);
        }
    }
    let (mut server, mut client) = (End::new(Role::Server), End::new(Role::Client));
    // The server may speak right behind its answer.
    server.say(Kind::Text, b"welcome");
    answer.append(&mut server.out);
    let Ok(Status::Complete(accepted)) = check_response(&answer, &key, &request) else {
        panic!("complete")
    };
    assert_eq!(accepted.subprotocol, Some("chat"));
    let (heard, violation) = receive_all(&mut client.session, &answer[accepted.head_bytes..], cuts);
    assert_eq!(
        (heard, violation),
        (vec![Seen::Text(b"welcome".to_vec())], None)
    );
    (server, client)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60, failure_persistence: None, ..ProptestConfig::default()
    })]

    // RFC 6455 section 6.1: data-is-framed, opcode-is-set, last-has-fin
    // RFC 6455 section 6.2: type-is-noted, next-message
    #[test]
    fn what_one_says_the_other_hears(
        texts in prop::collection::vec("\\PC{0,100}", 0..10),
        (byte, len) in (any::<u8>(), prop_oneof![0..1000_usize, 65_000..70_000_usize]),
        cuts in cuts(),
        client_closes in any::<bool>(),
    ) {
        let bytes = vec![byte; len];
        let (mut server, mut client) = open(&cuts);
        for end in [&mut server, &mut client] {
            texts.iter().for_each(|text| end.say(Kind::Text, text.as_bytes()));
            end.say(Kind::Binary, &bytes);
        }
        server.hear(&mut client, &cuts);
        client.hear(&mut server, &cuts);
        let (first, second) = if client_closes {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        first.session.close(CloseCode::Normal, "done", &mut first.out);
        second.hear(first, &cuts);
        let normal = |reason: &str| Some(Seen::Close(Some(CloseCode::Normal), reason.to_owned()));
        prop_assert_eq!(second.heard.pop(), normal("done"));
        first.hear(second, &cuts);
        prop_assert_eq!(first.heard.pop(), normal(""));
        let as_seen = |text: &String| Seen::Text(text.clone().into_bytes());
        let mut expected: Vec<Seen> = texts.iter().map(as_seen).collect();
        expected.push(Seen::Binary(bytes));
        for end in [server, client] {
            prop_assert_eq!(&end.heard, &expected);
            prop_assert_eq!(end.session.state(), State::Closed);
            prop_assert!(end.session.is_idle());
        }
    }
}

#[test]
fn closing_at_once_from_both_ends_ends_both() {
    let (mut server, mut client) = open(&[usize::MAX]);
    server.session.close(CloseCode::Away, "", &mut server.out);
    client.session.close(CloseCode::Normal, "", &mut client.out);
    for (end, said, code) in [
        (&mut server.session, &mut client.out, CloseCode::Normal),
        (&mut client.session, &mut server.out, CloseCode::Away),
    ] {
        let mut input = Input::new(said);
        assert_eq!(
            end.receive(&mut input),
            Ok(Some(Event::Close {
                code: Some(code),
                reason: ""
            }))
        );
        assert_eq!(end.state(), State::Closed);
    }
}
