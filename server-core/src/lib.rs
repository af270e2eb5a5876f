//! Everything that makes Ringside's servers interchangeable and is not I/O.
//!
//! Nothing in here reads or writes a connection, sleeps or knows a runtime. The I/O model is what
//! the referee compares, so each server brings its own; what would only add noise to the comparison
//! lives here:
//!
//! | module | what it decides |
//! |---|---|
//! | [`options`] | the command line, and what is in force once it is checked |
//! | [`listen`] | the addresses that `--listen` means, and the sockets on them |
//! | [`unix`] | the same for Unix sockets, whose connections a thread deals out to the workers |
//! | [`address`] | an address as the `ready` line has it |
//! | [`system`] | file limit, CPU affinity |
//! | [`endpoints`], [`admission`] | what a request head gets: an upgrade, a page, or an HTTP error |
//! | [`rooms`] | who is in which room, and how a message crosses workers in batches |
//! | [`member`] | what a member of a room makes of what it receives |
//! | [`outbox`] | what a connection still has to send, and what happens when it is too much |
//! | [`shortage`] | what the log says of accepting without descriptors |
//! | [`sweep`] | idle pings and timeouts without one timer per connection |
//! | [`work`] | what a handler would burn for each message |
//! | [`memory_release`] | when memory goes back to the system |
//! | [`task`] | what sweep, drain and fan-out tell the task of a connection |
//! | [`control`] | the pings and Close reasons that every server sends |
//! | [`counters`] | what `/metrics` and the final line say |
//! | [`lifecycle`] | the `ready` and `final` lines, signals, logging |
//! | [`program`], [`workers`] | a server's program from start to end, its threads, and what they share |
//! | [`child`] | what a server of several processes tells each of them |
//! | [`processes`] | several processes on one port, and the parent that speaks for them |

pub mod address;
pub mod admission;
pub mod child;
pub mod control;
pub mod counters;
pub mod endpoints;
pub mod lifecycle;
pub mod listen;
pub mod member;
pub mod memory_release;
pub mod options;
pub mod outbox;
pub mod processes;
pub mod program;
pub mod rooms;
pub mod shortage;
pub mod sweep;
pub mod system;
pub mod task;
pub mod unix;
pub mod work;
pub mod workers;
