//! The members of all rooms on one worker, and how a batch becomes one write for each of them.

use std::collections::{HashMap, VecDeque};

use crate::rooms::{Batch, Entry, Frames, MemberId, RoomId};

/// All messages of a batch for the members of one room: one write for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// To whom: [`RoomTable::members`].
    pub room: RoomId,
    /// What.
    pub frames: Frames,
}

/// The members of all rooms on one worker. Belongs to the worker's fan-out alone.
#[derive(Debug)]
pub struct RoomTable<M> {
    rooms: HashMap<RoomId, Members<M>>,
    /// Messages of the batch at hand, gathered by room, in the order in which the rooms first
    /// spoke.
    gathered: VecDeque<(RoomId, Vec<Frames>)>,
    /// Removed, and not yet told.
    left: Vec<M>,
}

#[derive(Debug)]
struct Members<M> {
    list: Vec<(MemberId, M)>,
    /// Where in `list` a member is.
    positions: HashMap<MemberId, usize>,
}

impl<M> Default for RoomTable<M> {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            gathered: VecDeque::new(),
            left: Vec::new(),
        }
    }
}

impl<M> RoomTable<M> {
    /// Works off `batch` up to the next delivery. Between two calls the table does not change: the
    /// caller may await while it delivers. A change of membership takes effect at its place in the
    /// batch: a member that joins after a message does not get it, one that leaves after it does.
    pub fn next(&mut self, batch: &mut Batch<M>) -> Option<Delivery> {
        while let Some(entry) = batch.front() {
            if let Entry::Join { room, .. } | Entry::Leave { room, .. } = entry
                && let Some(delivery) = self.take_gathered_of(room.id())
            {
                return Some(delivery);
            }
            match batch.pop_front() {
                Some(Entry::Join { room, id, member }) => self.insert(room.id(), id, member),
                Some(Entry::Leave { room, id }) => self.remove(room.id(), id),
                Some(Entry::Publish { room, frames }) => self.gather(room.id(), frames),
                None => {}
            }
        }
        let (room, pieces) = self.gathered.pop_front()?;
        let frames = Frames::concat(pieces)?;
        Some(Delivery { room, frames })
    }

    /// Members that [`next`](Self::next) has removed since the last call: everything published
    /// before they left is in the deliveries before its last one.
    pub fn left(&mut self) -> Vec<M> {
        std::mem::take(&mut self.left)
    }

    /// The members of a room on this worker.
    pub fn members(&self, room: RoomId) -> &[(MemberId, M)] {
        self.rooms.get(&room).map_or(&[], |members| &members.list)
    }

    /// Whether nobody is in any room.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    fn gather(&mut self, room: RoomId, frames: Frames) {
        if !self.rooms.contains_key(&room) {
            return;
        }
        match self.gathered.iter_mut().find(|(of, _)| *of == room) {
            Some((_, pieces)) => pieces.push(frames),
            None => self.gathered.push_back((room, vec![frames])),
        }
    }

    fn take_gathered_of(&mut self, room: RoomId) -> Option<Delivery> {
        let at = self.gathered.iter().position(|(of, _)| *of == room)?;
        let (room, pieces) = self.gathered.remove(at)?;
        let frames = Frames::concat(pieces)?;
        Some(Delivery { room, frames })
    }

    fn insert(&mut self, room: RoomId, id: MemberId, member: M) {
        let members = self.rooms.entry(room).or_insert_with(|| Members {
            list: Vec::new(),
            positions: HashMap::new(),
        });
        members.positions.insert(id, members.list.len());
        members.list.push((id, member));
    }

    fn remove(&mut self, room: RoomId, id: MemberId) {
        let Some(members) = self.rooms.get_mut(&room) else {
            return;
        };
        let Some(at) = members.positions.remove(&id) else {
            return;
        };
        self.left.push(members.list.swap_remove(at).1);
        if let Some((moved, _)) = members.list.get(at) {
            members.positions.insert(*moved, at);
        }
        if members.list.is_empty() {
            self.rooms.remove(&room);
            if self.rooms.is_empty() {
                self.rooms = HashMap::new();
            }
        }
    }
}
