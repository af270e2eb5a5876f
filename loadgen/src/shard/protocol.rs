//! What the first process and its shards tell each other: one JSON value per line.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    engine::{shared::ClosedSecond, spread::FinishedPart, worker::ThreadResult},
    plan::Plan,
};

/// The first line to a shard: its work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Which shard of the plan's.
    pub(super) shard: usize,
    /// Who sends this.
    pub(super) parent_pid: u32,
    /// The whole run.
    pub(super) config: Config,
    pub(super) plan: Plan,
    /// The targets' addresses, resolved once for all.
    pub(super) addresses: Vec<SocketAddr>,
    /// Time 0 on the system's monotonic clock; all times below count from it.
    pub(super) epoch_ns: u64,
    pub(super) nonce: u32,
}

/// The further lines to a shard.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Order {
    /// All connections of all shards are up: the load begins.
    Begin { at_ns: u64 },
    /// The load ends before its time.
    End { at_ns: u64 },
    /// All shards have stopped sending; so many messages have they broadcast together.
    AllStopped { published: u64 },
}

/// A line from a shard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// How things stand, several times per second: also a sign of life.
    Gauges(Gauges),
    /// The shard's part cannot go on; its cause.
    Failed(String),
    /// Somebody told the shard to end.
    Signalled,
    /// Parts of seconds that are over.
    Seconds(Vec<ClosedSecond>),
    /// Who has got which broadcast message.
    Parts(Vec<FinishedPart>),
    /// All threads have stopped sending; so many messages have they broadcast.
    Stopped { published: u64 },
    /// The last line.
    Done(Box<Done>),
}

/// How things stand in a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gauges {
    pub(super) up: u64,
    pub(super) opened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// What a shard leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) results: Vec<ThreadResult>,
    pub(super) first_loss: Option<String>,
    pub(super) peak_rss_bytes: u64,
}

/// Writes one line.
pub(super) fn tell<T: Serialize>(to: &mut impl Write, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
