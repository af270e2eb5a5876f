use proptest::prelude::*;
use ws_proto::Kind;

use super::*;
use crate::rooms::FrameBuilder;

const CLOSE: &[u8] = b"\x88\x02\x03\xf0";

fn bound(max_messages: usize, slow_consumer: SlowConsumer) -> SendQueue {
    SendQueue {
        max_messages,
        max_bytes: usize::MAX,
        slow_consumer,
    }
}

/// Messages of five bytes on the wire: two of header, three of payload.
fn frames(numbers: std::ops::Range<u8>) -> Frames {
    let mut builder = FrameBuilder::default();
    for number in numbers {
        builder.push(Kind::Binary, &[number; 3]);
    }
    builder.take().unwrap()
}

impl Outbox {
    /// Messages not yet wholly sent.
    fn messages(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.messages)
    }
}

/// Everything the writer would send.
fn send_all(outbox: &mut Outbox) -> Vec<u8> {
    let mut sent = vec![];
    while let Some(next) = outbox.next() {
        sent.extend_from_slice(next);
        let n = next.len();
        outbox.advance(n);
    }
    sent
}

#[test]
fn is_eight_bytes_and_holds_nothing_when_empty() {
    assert_eq!(size_of::<Outbox>(), 8);
    let mut outbox = Outbox::new();
    assert_eq!(outbox.next(), None);
    outbox.push(frames(0..2), 0, bound(9, SlowConsumer::Close));
    assert_eq!(outbox.messages(), 2);
    send_all(&mut outbox);
    assert!(outbox.is_empty() && outbox.0.is_none());
}

#[test]
fn a_direct_write_leaves_the_rest() {
    let all = frames(0..3);
    for sent in 0..=15 {
        let mut outbox = Outbox::new();
        let pushed = outbox.push(all.clone(), sent, bound(3, SlowConsumer::Close));
        assert_eq!(pushed, Pushed::Queued);
        assert_eq!(outbox.messages(), 3 - sent / 5, "{sent}");
        assert_eq!(send_all(&mut outbox), all.bytes[sent..]);
    }
}

#[test]
fn advance_counts_messages_when_their_last_byte_is_sent() {
    let mut outbox = Outbox::new();
    outbox.push(frames(0..3), 2, bound(9, SlowConsumer::Close));
    outbox.push_control(CLOSE);
    let counts: Vec<_> = [2, 1, 6, 4, 4].map(|n| outbox.advance(n)).to_vec();
    assert_eq!(counts, [0, 1, 1, 1, 0]);
    assert!(outbox.is_empty());
}

#[test]
fn take_takes_out_what_is_next() {
    let mut outbox = Outbox::new();
    let all = frames(0..2);
    outbox.push(all.clone(), 1, bound(9, SlowConsumer::Close));
    outbox.push_control(CLOSE);
    outbox.advance(3);
    assert_eq!(outbox.next().unwrap().len(), 6);
    assert_eq!(outbox.take(), Some((all.bytes.slice(4..), 2)));
    outbox.advance(1);
    assert_eq!(outbox.control_bytes(), CLOSE.len() - 1);
    assert_eq!(outbox.take(), Some((Bytes::from_static(&CLOSE[1..]), 0)));
    assert_eq!(outbox.take(), None);
    assert!(outbox.0.is_none());
}

#[test]
fn take_takes_no_more_than_a_slow_peer_can_be_seen_to_read() {
    let mut builder = FrameBuilder::default();
    builder.push(Kind::Binary, &vec![7; LARGEST_PIECE]);
    builder.push(Kind::Binary, b"next");
    let mut outbox = Outbox::new();
    let all = builder.take().unwrap();
    outbox.push(all.clone(), 0, bound(9, SlowConsumer::Close));
    let (first, messages) = outbox.take().unwrap();
    assert_eq!((first.len(), messages), (LARGEST_PIECE, 0));
    let (rest, messages) = outbox.take().unwrap();
    assert_eq!(messages, 2);
    assert_eq!([first, rest].concat(), all.bytes);
}

#[test]
fn control_frames_side_by_side_are_one_piece_and_counted() {
    let mut outbox = Outbox::new();
    for _ in 0..3 {
        outbox.push_control(CLOSE);
    }
    outbox.advance(2);
    assert_eq!(outbox.next().unwrap().len(), 3 * CLOSE.len() - 2);
    outbox.push(frames(0..1), 0, bound(9, SlowConsumer::Close));
    outbox.push_control(CLOSE);
    assert_eq!(outbox.control_bytes(), 4 * CLOSE.len() - 2);
    // What could not leave in one piece is not joined.
    outbox.push_control(vec![0; LARGEST_PIECE]);
    outbox.end();
    assert_eq!(outbox.control_bytes(), 4 * CLOSE.len() - 2 + LARGEST_PIECE);
    let lengths: Vec<_> = std::iter::from_fn(|| outbox.take())
        .map(|(bytes, _)| bytes.len())
        .collect();
    assert_eq!(lengths, [3 * CLOSE.len() - 2, CLOSE.len(), LARGEST_PIECE]);
    assert_eq!(outbox.control_bytes(), 0);
}

#[test]
fn drop_keeps_the_first_and_says_how_many_are_lost() {
    let mut outbox = Outbox::new();
    let drop = bound(3, SlowConsumer::Drop);
    assert_eq!(outbox.push(frames(0..2), 0, drop), Pushed::Queued);
    assert_eq!(outbox.push(frames(2..6), 0, drop), Pushed::Dropped(3));
    assert_eq!(outbox.push(frames(6..7), 0, drop), Pushed::Dropped(1));
    assert_eq!(outbox.messages(), 3);
    outbox.advance(5);
    assert_eq!(outbox.push(frames(7..8), 0, drop), Pushed::Queued);
    let rest = [&frames(1..3).bytes[..], &frames(7..8).bytes[..]].concat();
    assert_eq!(send_all(&mut outbox), rest);
}

#[test]
fn a_queue_with_too_many_bytes_is_full_whatever_their_number() {
    let bound = SendQueue {
        max_bytes: 12,
        ..bound(100, SlowConsumer::Drop)
    };
    let mut outbox = Outbox::new();
    outbox.push_control(CLOSE);
    for (frames, pushed) in [
        (frames(0..2), Pushed::Queued),
        (frames(2..4), Pushed::Queued),
        (frames(4..5), Pushed::Dropped(1)),
    ] {
        assert_eq!(outbox.push(frames, 0, bound), pushed);
    }
    outbox.advance(CLOSE.len() + 8);
    assert_eq!(outbox.push(frames(5..6), 0, bound), Pushed::Dropped(1));
    outbox.advance(1);
    assert_eq!(outbox.push(frames(6..7), 0, bound), Pushed::Queued);
    let rest = [&frames(1..4).bytes[4..], &frames(6..7).bytes[..]].concat();
    assert_eq!(send_all(&mut outbox), rest);
    assert!(outbox.0.is_none());
}

#[test]
fn a_message_that_has_begun_is_finished_whatever_the_policy() {
    for (policy, kept) in [(SlowConsumer::Drop, 2), (SlowConsumer::Close, 1)] {
        let mut outbox = Outbox::new();
        let all = frames(0..9);
        outbox.push(all.clone(), 7, bound(2, policy));
        assert_eq!(send_all(&mut outbox), all.bytes[7..5 * (1 + kept)]);
    }
}

#[test]
fn overflow_ends_it_and_only_the_close_follows() {
    let mut outbox = Outbox::new();
    let close = bound(3, SlowConsumer::Close);
    outbox.push(frames(0..3), 0, close);
    outbox.advance(1);
    assert_eq!(outbox.push(frames(3..4), 0, close), Pushed::Overflow);
    assert_eq!(outbox.push(frames(4..5), 0, close), Pushed::Ended);
    outbox.push_control(CLOSE);
    let rest = [&frames(0..1).bytes[1..], CLOSE].concat();
    assert_eq!(send_all(&mut outbox), rest);
    assert_eq!(outbox.push(frames(5..6), 0, close), Pushed::Ended);
    assert!(outbox.has_ended() && outbox.is_empty());
}

#[test]
fn close_waits_for_what_is_queued_and_nothing_follows_it() {
    let mut outbox = Outbox::new();
    let close = bound(3, SlowConsumer::Close);
    outbox.push(frames(0..2), 0, close);
    outbox.close(CLOSE);
    assert_eq!(outbox.push(frames(2..3), 0, close), Pushed::Ended);
    let all = [&frames(0..2).bytes[..], CLOSE].concat();
    assert_eq!(send_all(&mut outbox), all);
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Send(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..6u8).prop_map(Step::Push),
        (0..30usize).prop_map(Step::Send),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// The bound holds at every moment, and the receiver sees whole messages in order, only
    /// dropped ones missing.
    #[test]
    fn bounded_ordered_and_whole(steps in steps(), max in 1..8usize) {
        let mut outbox = Outbox::new();
        let (mut sent, mut kept, mut done) = (vec![], 0u64, 0);
        let mut number = 0u8;
        for step in steps {
            match step {
                Step::Push(n) => {
                    let range = number..number.saturating_add(n);
                    if range.is_empty() { continue; }
                    number = range.end;
                    let count = range.len() as u64;
                    let pushed = outbox.push(frames(range), 0, bound(max, SlowConsumer::Drop));
                    kept += match pushed {
                        Pushed::Queued => count,
                        Pushed::Dropped(lost) => count - u64::from(lost),
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                }
                Step::Send(n) => {
                    let next = outbox.next().unwrap_or_default();
                    let n = n.min(next.len());
                    sent.extend_from_slice(&next[..n]);
                    done += outbox.advance(n);
                }
            }
            prop_assert!(outbox.messages() <= max);
            prop_assert_eq!(outbox.messages() as u64, kept - done);
        }
        sent.extend(send_all(&mut outbox));
        prop_assert_eq!(sent.len() as u64, kept * 5);
        let seen: Vec<_> = sent.chunks(5).map(|frame| {
            assert_eq!(frame, [0x82, 3, frame[2], frame[2], frame[2]]);
            frame[2]
        }).collect();
        prop_assert!(seen.is_sorted_by(|a, b| a < b));
    }
}
