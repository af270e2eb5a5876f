//! What the first process and its shards tell each other: one JSON value per line.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::{
    address::Address,
    config::Config,
    engine::{fan_out_timing::FinishedPart, shared::ClosedSecond, worker::ThreadResult},
    plan::Plan,
};

/// The first line to a shard: its work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Which shard of the plan's.
    pub(super) shard: usize,
    /// The process that sends this.
    pub(super) parent_pid: u32,
    /// The whole run.
    pub(super) config: Config,
    pub(super) plan: Plan,
    /// The targets' addresses, resolved once for all.
    pub(super) addresses: Vec<Address>,
    /// Time 0 on the system's monotonic clock; all times below count from it.
    pub(super) epoch_ns: u64,
    pub(super) nonce: u32,
}

/// The further lines to a shard.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Command {
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
    /// A signal told the shard to end.
    Signalled,
    /// Parts of seconds that are over.
    Seconds(Vec<ClosedSecond>),
    /// Which members have got which broadcast message.
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use clap::Parser;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        assemble::{PartialResults, RunOutput, Window, assemble},
        cli::Cli,
        engine::{fan_out_timing::FanOutTiming, shared::Shared, stats::Stats, worker::Outcome},
        histogram::{self, Latencies},
        limits::SystemLimits,
        preflight,
        record::ThreadUsage,
        verdict::check_run,
    };

    /// Begin of the window, and when in it a message is meant, sent and answered: up to four
    /// seconds.
    const START: u64 = 1_000_000_000;
    type Message = (u64, u64, u64);

    /// What a thread leaves behind that has exchanged `messages`.
    fn recorded(messages: &[Message], shared: &Shared) -> ThreadResult {
        let times = shared.times();
        let mut stats = Stats::new(true);
        let mut messages = messages.to_vec();
        messages.sort_by_key(|(meant, late, took)| meant + late + took);
        for (meant, late, took) in messages {
            let (meant, sent) = (START + meant, START + meant + late);
            stats.roll(&times, sent + took, shared);
            stats.sent(&times, meant, meant, 1);
            stats.scheduled(&times, meant, sent);
            stats.reply(&times, sent + took, meant, sent, 1);
            histogram::record(&mut stats.handshakes, took);
            stats.due += 1;
        }
        ThreadResult {
            latest: stats.finish(shared),
            stats,
            outcome: Outcome::default(),
            usage: ThreadUsage::default(),
            opening: Some((1, 2)),
        }
    }

    fn record(results: Vec<ThreadResult>, shared: &Shared) -> RunOutput {
        let line = "loadgen echo -c 10 -r 10 -d 5s --warmup 0 ws://a";
        let config = Cli::try_parse_from(line.split(' '))
            .unwrap()
            .check()
            .unwrap()
            .0;
        let machine = SystemLimits {
            cpus: 1,
            ports: 28_232,
            open_files: 20_000,
            system_files: None,
            available_bytes: None,
        };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 80)).into();
        let mut finished = assemble(PartialResults {
            config: &config,
            plan: &preflight::plan_within(&config, &[address], &machine).unwrap(),
            shared,
            epoch: SystemTime::UNIX_EPOCH,
            interrupted: false,
            results,
            timing: &FanOutTiming::new(1),
            shards: Vec::new(),
            incomplete: false,
            window: Window::of(&shared.times()),
            slices: None,
        });
        // One entry per thread: the only thing in which they may differ.
        finished.record.generator.threads.clear();
        finished.record.validity = check_run(&finished.record);
        finished
    }

    fn intervals(run: &RunOutput) -> Vec<(u64, u64, Latencies)> {
        let intervals = run.intervals.iter();
        let unpacked = intervals.map(|interval| {
            let mut latencies = histogram::new();
            histogram::add_packed(&mut latencies, &interval.latencies);
            (interval.start_ns, interval.length_ns, latencies)
        });
        unpacked.collect()
    }

    proptest! {
        // A case makes dozens of histograms.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn parts_from_several_processes_make_the_record_of_one(
            messages in prop::collection::vec(
                (0..4_000_000_000_u64, 0..9_000_000_u64, 1..900_000_000_u64),
                1..120,
            ),
            parts in 1_usize..6,
        ) {
            let shared = Shared::new(1, Duration::ZERO, Duration::from_secs(5), false);
            shared.begin_at(START);
            let alone = record(vec![recorded(&messages, &shared)], &shared);
            let arrived = (0..parts)
                .map(|part| {
                    let own = messages.iter().copied().skip(part).step_by(parts);
                    let own: Vec<Message> = own.collect();
                    let done = Report::Done(Box::new(Done {
                        results: vec![recorded(&own, &shared)],
                        first_loss: None,
                        peak_rss_bytes: 0,
                    }));
                    let mut line = Vec::new();
                    tell(&mut line, &done).unwrap();
                    match serde_json::from_slice(&line).unwrap() {
                        Report::Done(done) => done.results,
                        other => panic!("{other:?}"),
                    }
                })
                .flat_map(Vec::into_iter)
                .collect();
            let together = record(arrived, &shared);
            prop_assert_eq!(&together.record, &alone.record);
            prop_assert_eq!(&together.main, &alone.main);
            prop_assert_eq!(&together.actual, &alone.actual);
            prop_assert_eq!(intervals(&together), intervals(&alone));
            prop_assert_eq!(together.main.len(), messages.len() as u64);
        }
    }
}
