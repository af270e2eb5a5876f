//! The engine that is nothing but a loop around a ring: one thread, one ring and one `SO_REUSEPORT`
//! listener per worker.
//!
//! The life of a message: the kernel puts it into a buffer of the ring's pool (multishot receive),
//! [`connection`] turns it into its reply in that same buffer, [`sender`] sends the reply from
//! there, and when the send completes the buffer goes back to the pool. Nothing is copied or
//! allocated on the way. Only what arrives while a connection's send is in flight is copied, and
//! leaves in one send afterwards.
//!
//! The files and the order of stages are those of the other engines; where those await, a
//! completion arrives here, and what a task would remember is a field of
//! [`connection::Connection`].

pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod direct;
pub(crate) mod event_loop;
pub(crate) mod fanout;
pub(crate) mod listener;
pub(crate) mod member;
pub(crate) mod quiet;
pub(crate) mod ring;
pub(crate) mod sender;
pub(crate) mod waker;
pub(crate) mod worker;
