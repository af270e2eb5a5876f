//! All rooms by name, and which workers have members of each.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::endpoints::RoomName;
use crate::rooms::{Entry, Frames, Mailbox, MemberId, RoomId};

/// A room that has members.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    name: RoomName,
    /// Members on each worker.
    members: Box<[AtomicU32]>,
}

impl Room {
    /// Its identity.
    pub fn id(&self) -> RoomId {
        self.id
    }
}

/// The rooms of the whole server and the mailboxes of its workers. `M` is what a worker's fan-out
/// needs to reach a member.
#[derive(Debug)]
pub struct Rooms<M> {
    mailboxes: Box<[Mailbox<M>]>,
    directory: Mutex<Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    rooms: HashMap<RoomName, Arc<Room>>,
    next_id: u64,
}

/// Messages on their way into the mailboxes of a room's workers.
#[derive(Debug)]
pub struct Publication {
    frames: Frames,
    /// Workers before this one have their copy.
    next_worker: usize,
}

impl Publication {
    /// `frames`, not yet in any mailbox.
    pub fn new(frames: Frames) -> Self {
        Self {
            frames,
            next_worker: 0,
        }
    }
}

/// Being in a room.
#[derive(Debug)]
pub struct Membership<'a, M> {
    rooms: &'a Rooms<M>,
    /// Which room.
    pub room: Arc<Room>,
    worker: usize,
    id: MemberId,
}

impl<M> Drop for Membership<'_, M> {
    fn drop(&mut self) {
        self.rooms
            .leave(Arc::clone(&self.room), self.worker, self.id);
    }
}

impl<M> Rooms<M> {
    /// No rooms yet, for `workers` workers with mailboxes of `mailbox_bytes` each.
    pub fn new(workers: usize, mailbox_bytes: usize) -> Self {
        Self {
            mailboxes: (0..workers).map(|_| Mailbox::new(mailbox_bytes)).collect(),
            directory: Mutex::default(),
        }
    }

    /// The mailbox that worker `index` drains.
    pub fn mailbox(&self, index: usize) -> &Mailbox<M> {
        &self.mailboxes[index]
    }

    /// Enters a member of worker `worker` into the room of that name, which comes into being with
    /// its first member. From the return on, whatever anybody publishes there reaches the member's
    /// fan-out. So: queue the 101 first, join, then write.
    pub fn join(&self, name: RoomName, worker: usize, id: MemberId, member: M) -> Arc<Room> {
        let room = self.count_in(name, worker);
        self.mailboxes[worker].push(Entry::Join {
            room: Arc::clone(&room),
            id,
            member,
        });
        room
    }

    /// As [`join`](Self::join); the member leaves when its membership is dropped.
    pub fn enter(
        &self,
        name: RoomName,
        worker: usize,
        id: MemberId,
        member: M,
    ) -> Membership<'_, M> {
        Membership {
            rooms: self,
            room: self.join(name, worker, id, member),
            worker,
            id,
        }
    }

    /// Takes a member out. Nothing published from now on reaches it.
    pub fn leave(&self, room: Arc<Room>, worker: usize, id: MemberId) {
        {
            let mut directory = self.lock();
            room.members[worker].fetch_sub(1, Ordering::Relaxed);
            if room.members.iter().all(|n| n.load(Ordering::Relaxed) == 0) {
                directory.rooms.remove(&room.name);
                if directory.rooms.is_empty() {
                    directory.rooms = HashMap::new();
                }
            }
        }
        self.mailboxes[worker].push(Entry::Leave { room, id });
    }

    /// Puts the messages into the mailboxes of all workers with members of `room`. Pending on a
    /// full mailbox; call again, with the same publication and before any other of this sender,
    /// when woken.
    pub fn poll_publish(
        &self,
        cx: &mut Context<'_>,
        room: &Arc<Room>,
        publication: &mut Publication,
    ) -> Poll<()> {
        while let Some(mailbox) = self.mailboxes.get(publication.next_worker) {
            let members = room.members[publication.next_worker].load(Ordering::Acquire);
            if members > 0 && !mailbox.try_publish(cx, room, &publication.frames) {
                return Poll::Pending;
            }
            publication.next_worker += 1;
        }
        Poll::Ready(())
    }

    /// How many rooms have members.
    #[cfg(test)]
    pub(super) fn room_count(&self) -> usize {
        self.lock().rooms.len()
    }

    fn count_in(&self, name: RoomName, worker: usize) -> Arc<Room> {
        let mut directory = self.lock();
        let id = RoomId(directory.next_id);
        let room = match directory.rooms.entry(name) {
            MapEntry::Occupied(entry) => Arc::clone(entry.get()),
            MapEntry::Vacant(entry) => {
                let room = Arc::new(Room {
                    id,
                    name: entry.key().clone(),
                    members: self.mailboxes.iter().map(|_| AtomicU32::new(0)).collect(),
                });
                entry.insert(Arc::clone(&room));
                directory.next_id += 1;
                room
            }
        };
        room.members[worker].fetch_add(1, Ordering::Release);
        room
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        // Every update is complete before anything that could panic.
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
