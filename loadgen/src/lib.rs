//! The load generator: opens connections, keeps a schedule, verifies every reply, records histograms.

pub mod cli;
pub mod config;
pub mod engine;
pub mod histogram;
pub mod limits;
pub mod pacer;
pub mod payload;
pub mod plan;
pub mod record;
pub mod sequence;
pub mod target;
pub mod units;
