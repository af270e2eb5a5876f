//! A run in several processes: where one may not open enough files, or one is not wanted.
//!
//! The first process makes the plan and starts itself again, as `loadgen shard`, once per shard.
//! Both sides speak lines of JSON (`protocol`): commands come to a shard's standard input, reports
//! from its standard output. A shard runs its part of the plan's threads as a run of its own would,
//! but by the common clock (the system's monotonic one) and by the common phases: the load begins
//! when the connections of *all* shards are up, and the drain ends when *all* have stopped sending.
//! Schedules, names and sources follow from a thread's number among all threads, so shards
//! interleave exactly as threads do.
//!
//! What threads measured is merged once, at the end, by the same [`assemble`](crate::assemble) as
//! in a run of one process. Until then every second that is over is reported, so that of a shard
//! that dies only its last second is missing in the record of the (invalid) run.
//!
//! Nothing outlives the first process: the kernel kills its shards with it, and a shard whose input
//! ends exits.

mod child;
mod merge;
mod parent;
mod protocol;

pub use child::main;
pub use parent::run;
