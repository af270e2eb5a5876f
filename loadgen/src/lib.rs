//! The load generator: opens connections, keeps a schedule, verifies every reply, records
//! histograms, and judges its own run.
//!
//! From the outside in: [`cli`] checks what was asked and makes a [`config`]; [`target`] resolves
//! it; [`preflight`] refuses what the machine cannot hold, and
//! [`plan`] deals the connections out, [`pacer`] and [`deal`] the messages; [`run`](mod@run) starts
//! one thread per core
//! ([`engine`]), [`slices`] too, for load on command, or [`shard`] several processes, and what they
//! measured is merged ([`assemble`])
//! into a [`record`]; [`verdict`] judges it by its [`check`]s; [`report`] and [`files`] show it.
//! `bench` reads the record, and judges it by the same function.

pub mod address;
pub mod assemble;
pub mod check;
pub mod cli;
pub mod config;
pub mod deal;
pub mod engine;
pub mod files;
pub mod histogram;
pub mod limits;
pub mod pacer;
pub mod payload;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod sequence;
pub mod shard;
pub mod show;
pub mod slices;
pub mod target;
pub mod verdict;
mod wire;
mod worker_pool;
