//! Reference servers of other stacks, as good as their documentation and the practice of their
//! users allow: the bouts are only worth something if the others are at their best.
//!
//! What no bout measures is shared here: [`shell`] (the process: options, workers, sockets, end),
//! [`work`] (what a handler would burn), [`handshake`] (the opening handshake and the endpoints)
//! and [`room`] (who gets a broadcast).
//! Each program in `bin/` holds what its stack does: how frames are read, coalesced and sent.

pub mod handshake;
pub mod room;
pub mod shell;
pub mod work;
