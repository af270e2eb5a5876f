//! The engine: one thread per core, each with a ring, its connections, its schedule, its counters
//! and its histograms.
//!
//! Threads share nothing in the hot path. What they do share ([`shared::Shared`]) is looked at a
//! few times per second.

pub mod board;
pub mod bounds;
pub mod broadcast;
pub mod churn;
pub mod echo;
mod events;
pub mod links;
pub mod opening;
mod pongs;
pub mod shared;
pub mod spread;
pub mod stats;
pub mod traffic;
pub mod usage;
pub mod worker;
