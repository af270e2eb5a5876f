//! The engine on monoio: one thread, one ring and one listener for each worker.
//!
//! monoio 0.2.4 knows one-shot operations only: each is paid for by a wake-up of a task, as much as
//! the operation itself costs at 64 bytes. So the ring is for what waits: accepts, receives, and
//! sends to sockets that are full. What a socket takes at once is sent past the ring. The files
//! mirror those of `server-tokio`; what has no counterpart there is [`ring`] (the io_uring under
//! monoio), [`wake`] and [`timer`] (which tokio has built in), [`buffers`] (which io_uring must own
//! while it waits) and [`socket`] (to wait without one).

pub(crate) mod start;
pub(crate) mod worker;

mod buffers;
mod connection;
mod fanout;
mod handle;
mod listener;
mod member;
mod ring;
mod socket;
mod timer;
mod wake;
