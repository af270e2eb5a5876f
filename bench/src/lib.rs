//! The referee of Ringside: starts contestants, interleaves their runs, checks that the runs are
//! valid, and says who won by how much.
//!
//! | modules | what they do |
//! |---|---|
//! | [`options`], [`config`], [`choice`] | what is to be run |
//! | [`machine`], [`preflight`], [`environment`] | where it is run, and whether that will do |
//! | [`plan`], [`rng`], [`dry_run`] | who runs when |
//! | [`referee`], [`entry`], [`run`] | the suite, a contestant's admission, a run |
//! | [`process`], [`server`], [`generator`], [`interrupt`], [`cpus`], [`precedence`] | child processes, never orphaned, each on its CPUs, before other programs |
//! | [`proc`], [`softirqd`], [`sampler`] | what a server uses inside the measured window |
//! | [`search`], [`capacity`] | the highest rate at which a latency is kept |
//! | [`scale`], [`footprint`] | how many connections the machine holds, and what they take and give back |
//! | [`record`], [`metrics`], [`checks`], [`validity`] | a run's record, its figures, and whether they count |
//! | [`stats`], [`verdict`], [`summary`] | what the runs allow to say |
//! | [`report`], [`table`], [`progress`], [`folder`] | how it is said, and where it is kept |
//! | [`results`], [`catalogue`], [`audit`] | what was kept, read back, and whether it follows from itself |
//! | [`compare`] | two results against each other |
//! | [`html`], [`history`] | results as a page, and over time |
//! | [`gate`], [`export`], [`schema`] | rules on a result, for CI; a result in the formats of other tools; what its files look like |

pub mod audit;
pub mod capacity;
pub mod catalogue;
pub mod checks;
pub mod choice;
pub mod compare;
pub mod config;
pub mod cpus;
pub mod dry_run;
pub mod entry;
pub mod environment;
pub mod export;
pub mod folder;
pub mod footprint;
pub mod gate;
pub mod generator;
pub mod history;
pub mod html;
pub mod interrupt;
pub mod machine;
pub mod metrics;
pub mod options;
pub mod plan;
pub mod precedence;
pub mod preflight;
pub mod proc;
pub mod process;
pub mod progress;
pub mod record;
pub mod referee;
pub mod report;
pub mod results;
pub mod resume;
pub mod rng;
pub mod run;
pub mod sampler;
pub mod scale;
pub mod schema;
pub mod search;
pub mod server;
pub mod softirqd;
pub mod stats;
pub mod summary;
pub mod table;
pub mod validity;
pub mod verdict;

#[cfg(test)]
mod canned;
#[cfg(test)]
#[path = "../tests/committed/mod.rs"]
mod committed;
