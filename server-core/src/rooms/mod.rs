//! Rooms: who is in which, and how a message crosses workers in batches.
//!
//! Every member lives on one worker (a "shard" of the room). A message is encoded once, by the
//! worker that received it, into [`Frames`], and appended to the [`Mailbox`] of every worker that
//! has members of the room, its own included. Each worker drains its mailbox as one batch, joins
//! the frames of each room in the batch to one piece, and gives every member that piece in one
//! write ([`RoomTable`]). Hence:
//!
//! - A sender's order is every receiver's order: mailboxes are first in, first out, and a sender
//!   publishes from one place.
//! - Workers are woken once for each batch, not for each message: only the entry that finds a
//!   mailbox empty wakes.
//! - Mailboxes are bounded in bytes. [`Rooms::poll_publish`] waits on a full one; its caller then
//!   stops reading its socket.
//! - Joining and leaving travel through the same mailbox, so the table belongs to its worker alone
//!   and needs no lock.
//!
//! # Order of calls
//! A member: [`Rooms::join`] (before its 101 leaves), [`Rooms::poll_publish`] until ready for each
//! batch it sends, at the end [`Rooms::leave`]. A worker's fan-out: forever
//! [`Mailbox::poll_drain`], then [`RoomTable::next`] until `None`.

mod directory;
mod frames;
mod mailbox;
mod table;

pub use directory::{Membership, Publication, Room, Rooms};
pub use frames::{FrameBuilder, Frames};
pub use mailbox::{Batch, Entry, Mailbox};
pub use table::{Delivery, RoomTable};

/// Identifies a room for as long as it has members; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomId(u64);

/// Identifies a member among those of its worker, such as the index of its connection. May be
/// reused after leaving.
pub type MemberId = u32;

#[cfg(test)]
mod tests;
