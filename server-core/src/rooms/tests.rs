//! Ordering and bounds of the rooms, first step by step against a model, then with threads.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use proptest::prelude::*;
use ws_proto::Kind;

use super::*;
use crate::endpoints::RoomName;

fn name(room: usize) -> RoomName {
    RoomName::new(&format!("room-{room}")).unwrap()
}

/// Frames of one binary message each, whose payloads are these numbers.
fn frames(numbers: &[u32]) -> Frames {
    let mut builder = FrameBuilder::default();
    for number in numbers {
        builder.push(Kind::Binary, &number.to_be_bytes());
    }
    builder.take().unwrap()
}

fn numbers(frames: &Frames) -> Vec<u32> {
    let numbers: Vec<_> = frames
        .bytes
        .chunks(6)
        .map(|frame| u32::from_be_bytes(frame[2..].try_into().unwrap()))
        .collect();
    assert_eq!(numbers.len(), frames.messages as usize);
    numbers
}

/// Counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Bell {
    fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self::default());
        (Arc::clone(&bell), bell.into())
    }

    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn publish(rooms: &Rooms<()>, room: &Arc<Room>, frames: Frames) -> Poll<()> {
    let mut cx = Context::from_waker(Waker::noop());
    rooms.poll_publish(&mut cx, room, &mut Publication::new(frames))
}

fn drain<M>(rooms: &Rooms<M>, worker: usize) -> Batch<M> {
    let mut batch = Batch::new();
    let mut cx = Context::from_waker(Waker::noop());
    let _ = rooms.mailbox(worker).poll_drain(&mut cx, &mut batch);
    batch
}

#[test]
fn a_batch_is_one_delivery_for_each_room() {
    let rooms = Rooms::new(1, 1000);
    let (a, b) = (rooms.join(name(0), 0, 1, ()), rooms.join(name(1), 0, 2, ()));
    for number in 0..3 {
        assert!(publish(&rooms, &a, frames(&[number])).is_ready());
        assert!(publish(&rooms, &b, frames(&[number + 10, number + 20])).is_ready());
    }
    let (mut table, mut batch) = (RoomTable::default(), drain(&rooms, 0));
    let first = table.next(&mut batch).unwrap();
    assert_eq!(
        (first.room, numbers(&first.frames)),
        (a.id(), vec![0, 1, 2])
    );
    let second = table.next(&mut batch).unwrap();
    assert_eq!(second.room, b.id());
    assert_eq!(numbers(&second.frames), [10, 20, 11, 21, 12, 22]);
    assert_eq!(table.next(&mut batch), None);
}

#[test]
fn only_the_entry_that_finds_the_mailbox_empty_wakes() {
    let rooms = Rooms::new(1, 1000);
    let (bell, waker) = Bell::new();
    let mut cx = Context::from_waker(&waker);
    let mut batch = Batch::new();
    assert!(
        rooms
            .mailbox(0)
            .poll_drain(&mut cx, &mut batch)
            .is_pending()
    );
    let room = rooms.join(name(0), 0, 1, ());
    assert_eq!(bell.rung(), 1);
    for number in 0..5 {
        assert!(publish(&rooms, &room, frames(&[number])).is_ready());
    }
    assert_eq!(bell.rung(), 1);
    assert!(rooms.mailbox(0).poll_drain(&mut cx, &mut batch).is_ready());
    assert_eq!(batch.len(), 6);
}

#[test]
fn a_full_mailbox_holds_the_publisher_until_it_is_drained() {
    let rooms = Rooms::new(2, 12);
    let room = rooms.join(name(0), 0, 1, ());
    rooms.join(name(0), 1, 1, ());
    drain(&rooms, 0);
    let (bell, waker) = Bell::new();
    let mut cx = Context::from_waker(&waker);
    for number in 0..2 {
        assert!(publish(&rooms, &room, frames(&[number])).is_ready());
    }
    drain(&rooms, 0);
    // Worker 0 takes it, worker 1 is full: the publication keeps its place.
    let mut third = Publication::new(frames(&[2]));
    assert!(rooms.poll_publish(&mut cx, &room, &mut third).is_pending());
    assert_eq!(bell.rung(), 0);
    assert_eq!(drain(&rooms, 1).len(), 3);
    assert_eq!(bell.rung(), 1);
    assert!(rooms.poll_publish(&mut cx, &room, &mut third).is_ready());
    assert_eq!(drain(&rooms, 0).len(), 1);
    assert_eq!(drain(&rooms, 1).len(), 1);
}

#[test]
fn what_is_larger_than_a_mailbox_passes_alone() {
    let rooms = Rooms::new(1, 10);
    let room = rooms.join(name(0), 0, 1, ());
    assert!(publish(&rooms, &room, frames(&[1, 2, 3])).is_ready());
    assert!(publish(&rooms, &room, frames(&[4])).is_pending());
    drain(&rooms, 0);
    assert!(publish(&rooms, &room, frames(&[4])).is_ready());
}

#[test]
fn short_publications_are_bounded_in_number() {
    let rooms = Rooms::new(1, usize::MAX);
    let room = rooms.join(name(0), 0, 1, ());
    let published = (0..10_000).take_while(|&n| publish(&rooms, &room, frames(&[n])).is_ready());
    assert_eq!(published.count(), 4096);
    assert_eq!(drain(&rooms, 0).len(), 1 + 4096);
    assert!(publish(&rooms, &room, frames(&[0])).is_ready());
}

#[test]
fn only_workers_with_members_get_mail() {
    let rooms = Rooms::new(3, 1000);
    let room = rooms.join(name(0), 1, 1, ());
    rooms.join(name(0), 2, 1, ());
    (0..3).for_each(|worker| drop(drain(&rooms, worker)));
    assert!(publish(&rooms, &room, frames(&[1])).is_ready());
    let mail: Vec<_> = (0..3).map(|worker| drain(&rooms, worker).len()).collect();
    assert_eq!(mail, [0, 1, 1]);
}

#[test]
fn a_room_goes_with_its_last_member() {
    let rooms = Rooms::new(2, 1000);
    let first = rooms.join(name(0), 0, 1, ());
    let second = rooms.join(name(0), 1, 1, ());
    assert_eq!(first.id(), second.id());
    rooms.leave(second, 1, 1);
    assert_eq!(rooms.room_count(), 1);
    rooms.leave(Arc::clone(&first), 0, 1);
    assert_eq!(rooms.room_count(), 0);
    let anew = rooms.join(name(0), 0, 1, ());
    assert_ne!(anew.id(), first.id());
    let (mut table, mut batch) = (RoomTable::default(), drain(&rooms, 0));
    assert_eq!(table.next(&mut batch), None);
    assert!(table.members(first.id()).is_empty());
    assert_eq!(table.members(anew.id()).len(), 1);
    rooms.leave(anew, 0, 1);
    table.next(&mut drain(&rooms, 0));
    assert!(table.is_empty());
    assert_eq!(table.left().len(), 2);
    assert_eq!(table.left().len(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Join {
        room: usize,
        worker: usize,
        id: MemberId,
    },
    Leave {
        room: usize,
        worker: usize,
        id: MemberId,
    },
    Publish {
        room: usize,
        messages: u8,
    },
    Drain {
        worker: usize,
    },
}

const WORKERS: usize = 3;
const ROOMS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = || (0..ROOMS, 0..WORKERS, 0..4u32);
    let step = prop_oneof![
        2 => member().prop_map(|(room, worker, id)| Step::Join { room, worker, id }),
        1 => member().prop_map(|(room, worker, id)| Step::Leave { room, worker, id }),
        4 => (0..ROOMS, 1..4u8).prop_map(|(room, messages)| Step::Publish { room, messages }),
        2 => (0..WORKERS).prop_map(|worker| Step::Drain { worker }),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Whatever happens in whatever order: a member gets exactly what was published between its
    /// join and its leave, in order, and at most one delivery for each room and batch in which
    /// membership does not change.
    #[test]
    fn members_get_what_was_published_while_they_were_in(steps in steps()) {
        type Key = (usize, usize, MemberId);
        // A member of the table is the index of its transcript.
        let rooms: Rooms<usize> = Rooms::new(WORKERS, usize::MAX);
        let mut tables: Vec<RoomTable<usize>> = Vec::new();
        tables.resize_with(WORKERS, RoomTable::default);
        let mut inside: HashMap<Key, (Arc<Room>, usize)> = HashMap::new();
        let (mut expected, mut got): (Vec<Vec<u32>>, Vec<Vec<u32>>) = (vec![], vec![]);
        let mut next = 0;
        let closing = (0..WORKERS).map(|worker| Step::Drain { worker });
        for step in steps.into_iter().chain(closing) {
            match step {
                Step::Join { room, worker, id } => {
                    // An identity is one connection of a worker: it is in one room at a time.
                    if inside.keys().any(|key| (key.1, key.2) == (worker, id)) {
                        continue;
                    }
                    let transcript = expected.len();
                    expected.push(vec![]);
                    got.push(vec![]);
                    let joined = rooms.join(name(room), worker, id, transcript);
                    inside.insert((room, worker, id), (joined, transcript));
                }
                Step::Leave { room, worker, id } => {
                    if let Some((room, _)) = inside.remove(&(room, worker, id)) {
                        rooms.leave(room, worker, id);
                    }
                }
                Step::Publish { room, messages } => {
                    let said: Vec<_> = (next..next + u32::from(messages)).collect();
                    next += u32::from(messages);
                    let members: Vec<_> = inside
                        .iter()
                        .filter(|(key, _)| key.0 == room)
                        .map(|(_, member)| member.clone())
                        .collect();
                    for (_, transcript) in &members {
                        expected[*transcript].extend(&said);
                    }
                    if let Some((room, _)) = members.first() {
                        let mut cx = Context::from_waker(Waker::noop());
                        let mut publication = Publication::new(frames(&said));
                        let published = rooms.poll_publish(&mut cx, room, &mut publication);
                        prop_assert!(published.is_ready());
                    }
                }
                Step::Drain { worker } => {
                    let mut batch = drain(&rooms, worker);
                    let is_change = |entry: &&Entry<_>| !matches!(entry, Entry::Publish { .. });
                    let changes = batch.iter().filter(is_change).count();
                    let mut deliveries = 0;
                    let mut to = HashSet::new();
                    while let Some(delivery) = tables[worker].next(&mut batch) {
                        deliveries += 1;
                        to.insert(delivery.room);
                        for (_, transcript) in tables[worker].members(delivery.room) {
                            got[*transcript].extend(numbers(&delivery.frames));
                        }
                    }
                    prop_assert!(deliveries <= to.len() + changes);
                }
            }
        }
        prop_assert_eq!(got, expected);
    }
}

/// Unparks the thread that blocks on a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn every_sender_keeps_its_order_across_threads_and_full_mailboxes() {
    const SENDERS: u32 = 4;
    const MESSAGES: u32 = 2000;
    // Room for a handful of messages: publishers wait all the time.
    let rooms: Arc<Rooms<()>> = Arc::new(Rooms::new(WORKERS, 64));
    let joined: Vec<_> = (0..WORKERS)
        .map(|worker| rooms.join(name(0), worker, 7, ()))
        .collect();
    let room = Arc::clone(&joined[0]);
    let receivers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let rooms = Arc::clone(&rooms);
            thread::spawn(move || receive_all(&rooms, worker, SENDERS, MESSAGES))
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (rooms, room) = (Arc::clone(&rooms), Arc::clone(&room));
            thread::spawn(move || {
                for message in 0..MESSAGES {
                    let mut publication = Publication::new(frames(&[sender << 16 | message]));
                    block_on(std::future::poll_fn(|cx| {
                        rooms.poll_publish(cx, &room, &mut publication)
                    }));
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|s| s.join().unwrap());
    receivers.into_iter().for_each(|r| r.join().unwrap());
}

/// Drains a worker's mailbox until everything has come; checks each sender's order.
fn receive_all(rooms: &Rooms<()>, worker: usize, senders: u32, messages: u32) {
    let mut table = RoomTable::default();
    let mut batch = Batch::new();
    let mut heard = vec![0; senders as usize];
    while heard.iter().any(|&n| n < messages) {
        block_on(std::future::poll_fn(|cx| {
            rooms.mailbox(worker).poll_drain(cx, &mut batch)
        }));
        while let Some(delivery) = table.next(&mut batch) {
            assert_eq!(table.members(delivery.room).len(), 1);
            for number in numbers(&delivery.frames) {
                let next = &mut heard[(number >> 16) as usize];
                assert_eq!(number & 0xffff, *next);
                *next += 1;
            }
        }
    }
}
