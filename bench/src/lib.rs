//! The referee of Ringside: starts contestants, interleaves their runs, checks validity, compares.

pub mod config;
pub mod cpus;
pub mod folder;
pub mod generator;
pub mod interrupt;
pub mod machine;
pub mod metrics;
pub mod plan;
pub mod preflight;
pub mod proc;
pub mod process;
pub mod record;
pub mod rng;
pub mod run;
pub mod sampler;
pub mod server;
pub mod stats;
pub mod summary;
pub mod validity;
pub mod verdict;

#[cfg(test)]
mod canned;
