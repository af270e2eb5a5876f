//! The referee of Ringside: starts contestants, interleaves their runs, checks that the runs are
//! valid, and says which was better by how much.
//!
//! A folder is a stage. Imports run one way, from the bottom of this table to its top;
//! `tests/layers.rs` proves it.
//!
//! | stage | what it does |
//! |---|---|
//! | [`units`] | figures for people |
//! | [`stats`] | what samples allow to say |
//! | [`machine`] | what this computer is and allows |
//! | [`config`] | what the TOML files and the command line's options say |
//! | [`record`] | what is written to disk: data |
//! | [`judge`] | a run's record in, its figures and whether they count out: pure |
//! | [`summary`] | many runs in, comparisons and verdicts out: pure |
//! | [`store`] | the result folder, written and read back |
//! | [`output`] | a result in the formats that people and programs read |
//! | [`plan`] | what will be run, when, and how long it takes |
//! | [`run`] | one run: start, observe, stop |
//! | [`suite`] | all runs of a suite |
//! | [`cli`] | the command line |
//!
//! The way of a sample: `run::generator` → [`record`] → [`judge::metrics`], [`judge::ruling`] →
//! [`summary`] → [`summary::verdict`] → [`output`].

pub mod cli;
pub mod config;
pub mod judge;
pub mod machine;
pub mod output;
pub mod plan;
pub mod record;
pub mod run;
pub mod stats;
pub mod store;
pub mod suite;
pub mod summary;
pub mod units;

#[cfg(test)]
#[path = "../tests/committed/mod.rs"]
mod committed;
#[cfg(test)]
mod test_data;
