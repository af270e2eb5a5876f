//! The engine that is nothing but a loop around a ring: one thread, one ring and one `SO_REUSEPORT`
//! listener per worker.
//!
//! The life of a message: the kernel puts it into a buffer of the ring's pool (multishot receive),
//! [`connection`] turns it into its reply in that same buffer, [`link`] sends the reply from there,
//! and when the send completes the buffer goes back to the pool. Nothing is copied or allocated on
//! the way. Only what arrives while a connection's send is in flight is copied, and leaves in one
//! send afterwards.
//!
//! Files and functions are called as in the other servers, but there are no tasks: what those await
//! arrives here as a completion, and what a task would remember is a field of
//! [`connection::Connection`].

pub(crate) mod bell;
pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod direct;
pub(crate) mod fanout;
pub(crate) mod link;
pub(crate) mod listener;
pub(crate) mod member;
pub(crate) mod ring;
pub(crate) mod worker;
