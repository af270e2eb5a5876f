//! The engine: one thread per core, each with a ring, its connections, its schedule, its counters
//! and its histograms.
//!
//! Threads share nothing in the hot path. What they do share ([`shared::Shared`]) is looked at a
//! few times per second.

pub mod arrivals;
pub mod bounds;
pub mod broadcast;
pub mod delivery_tracker;
pub mod echo;
mod events;
pub mod fan_out_timing;
pub mod lives;
pub mod opening;
pub mod parts;
pub mod pause;
mod pongs;
pub mod reconnect_loop;
pub mod second;
pub mod shared;
pub mod sockets;
pub mod stats;
pub mod traffic;
pub mod usage;
pub mod worker;
