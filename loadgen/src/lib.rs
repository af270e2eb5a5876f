//! The load generator: opens connections, keeps a schedule, verifies every reply, records histograms.

pub mod record;
