//! Rooms: a publisher writes to every member itself, without a channel and a task switch for each
//! delivery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

/// What waits for a member that does not read, at most: then it is cut off.
pub const UNSENT_BYTES: usize = 1 << 20;

/// One end of a connection that is in a room.
pub trait Member: Send + Sync + 'static {
    /// A message as its stack can send it to many at the least cost.
    type Message;

    /// Sends the message, or keeps what the socket does not take; never waits.
    fn offer(self: &Arc<Self>, message: &Self::Message);
}

/// All rooms of a server, across its workers.
#[derive(Debug)]
pub struct Rooms<M>(Arc<Mutex<HashMap<String, Arc<Room<M>>>>>);

/// The members of one room. The lock makes all of them see all messages in one order.
#[derive(Debug)]
struct Room<M>(Mutex<Slab<Arc<M>>>);

/// A place in a room, until it is dropped.
#[derive(Debug)]
pub struct Place<M> {
    rooms: Rooms<M>,
    name: String,
    room: Arc<Room<M>>,
    key: usize,
}

impl<M> Default for Rooms<M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<M> Clone for Rooms<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Member> Rooms<M> {
    /// Takes a place in a room, which comes into being with its first member.
    pub fn join(&self, name: String, member: Arc<M>) -> Place<M> {
        let mut rooms = lock(&self.0);
        let room = rooms
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Room(Mutex::default())))
            .clone();
        let key = lock(&room.0).insert(member);
        drop(rooms);
        Place {
            rooms: self.clone(),
            name,
            room,
            key,
        }
    }
}

impl<M: Member> Place<M> {
    /// Gives the message to every member, this one included.
    pub fn publish(&self, message: &M::Message) {
        for (_, member) in &*lock(&self.room.0) {
            member.offer(message);
        }
    }
}

impl<M> Drop for Place<M> {
    fn drop(&mut self) {
        let mut rooms = lock(&self.rooms.0);
        let mut members = lock(&self.room.0);
        members.remove(self.key);
        if members.is_empty() {
            rooms.remove(&self.name);
        }
    }
}

/// A panic of one connection must not take the others with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<&'static str>>);

    impl Member for Heard {
        type Message = &'static str;

        fn offer(self: &Arc<Self>, message: &Self::Message) {
            lock(&self.0).push(message);
        }
    }

    #[test]
    fn everybody_in_the_room_hears_it_until_they_leave() {
        let rooms = Rooms::<Heard>::default();
        let (one, two, other) = <(Arc<Heard>, Arc<Heard>, Arc<Heard>)>::default();
        let first = rooms.join("a".into(), one.clone());
        let second = rooms.join("a".into(), two.clone());
        let _elsewhere = rooms.join("b".into(), other.clone());
        first.publish(&"both");
        drop(first);
        second.publish(&"one");
        assert_eq!(*lock(&one.0), ["both"]);
        assert_eq!(*lock(&two.0), ["both", "one"]);
        assert!(lock(&other.0).is_empty());
        drop(second);
        assert_eq!(lock(&rooms.0).len(), 1);
    }
}
