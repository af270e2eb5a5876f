//! A record goes in, its figures and whether they count come out. Pure.

pub mod bisection;
pub mod checks;
pub mod memory;
pub mod metrics;
pub mod profile;
pub mod ruling;
pub mod search;
