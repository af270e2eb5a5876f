//! The engine on monoio: one thread, one ring and one listener for each worker.
//!
//! monoio 0.2.4 knows one-shot operations only: each receive, send and accept is an operation of
//! its own. The files mirror those of `server-tokio`; what has no counterpart there is [`ring`]
//! (the io_uring under monoio), [`wake`] and [`timer`] (which tokio has built in), [`buffers`]
//! (which io_uring must own while it waits) and [`socket`] (to wait without one).

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
