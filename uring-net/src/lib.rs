//! A small safe API over io_uring for one thread with very many stream sockets, of TCP or Unix.
//!
//! The only home of `unsafe` in Ringside. A [`Ring`] owns its sockets, its receive buffers and
//! every buffer that is being sent, so that nothing the kernel may still touch can be freed,
//! whatever the caller does.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use uring_net::{Event, Ring, Token};
//!
//! let mut ring = Ring::builder().build()?;
//! let listener = ring.adopt(std::net::TcpListener::bind("127.0.0.1:0")?)?;
//! ring.accept(listener, Token(0));
//! loop {
//!     ring.wait(1, None)?;
//!     while let Some(completion) = ring.next_completion() {
//!         match completion.event {
//!             Event::Accepted(socket) => {
//!                 ring.receive(socket, Token(socket.index() as u64));
//!             }
//!             // A real server sends the next reply only after this one's `Sent`.
//!             Event::Received(bytes) => { /* ring.send(socket, bytes, token) */ drop(bytes); }
//!             _ => {}
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! # Kernel
//! Linux 6.1 or newer (`SINGLE_ISSUER`, `DEFER_TASKRUN`, provided-buffer rings, multishot accept
//! and receive). With 6.6 the ring does without the index array (`NO_SQARRAY`); with 6.12 wait
//! deadlines are absolute and [`Ring::wait_batch`] batches; with 6.15 waiting is no longer counted
//! as I/O wait; direct sockets ([`RingBuilder::direct`]) need 6.13.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod arm;
mod buffers;
mod builder;
mod clock;
mod completion;
mod direct;
mod error;
mod ids;
mod kernel;
mod large;
mod op;
mod pace;
mod reap;
mod receive;
mod ring;
mod slab;
mod stats;
mod waker;

pub mod net;

pub use buffers::ReceivedBuf;
pub use builder::{MAX_DIRECT_SLOTS, RingBuilder, Setup, probe};
pub use completion::{Completion, Event, OpKind, SendBuf, Token};
pub use error::{Cause, KernelVersion, SetupError, Step};
pub use ids::{OperationId, SocketId};
pub use pace::Pace;
pub use ring::Ring;
pub use stats::Stats;
pub use waker::Waker;
