//! The command line. What cannot work together is refused here, with what to do instead.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use units::{CpuList, parse_count, parse_duration, parse_rate, parse_size};

use crate::{
    config::{self, Config, Files, Hot, Traffic},
    record::LoadKind,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    the run is valid
  1    the run is invalid or failed; the reasons are printed, and the record is written
  2    usage: a flag, a combination, a target or a file that cannot work
  130  interrupted (Ctrl-C or SIGTERM): what was measured is printed and written, marked interrupted";

const SLICES: &str = "\
Load in slices, on command, in place of -d and --warmup. When all connections are up, a line of \
JSON on stdout says so, and the generator is paused: nothing is in flight, no schedule runs, no CPU \
is used. Commands come on stdin, one a line:
`slice SETTLE MEASURE` (`slice 20ms 50ms`): load for SETTLE, not recorded, then the measured slice; \
then pause, wait for outstanding replies as --drain-timeout says, and print one line of JSON with \
what the slice gave. If replies are still outstanding then, the run ends.
`stop`, or the end of stdin: close the connections and report on the run as always; its measured \
window is all slices together.";

/// What every `--help` ends with.
fn after_help() -> String {
    format!("{EXIT_CODES}\n\n{}", units::HELP)
}

/// Loads WebSocket servers and measures honestly: open or closed loop, every reply verified, a
/// verdict on every run.
#[derive(Debug, Parser)]
#[command(version, about, after_help = after_help(), arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Kinds of load.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send messages that the server sends back; without --rate as fast as --window allows (closed
    /// loop: capacity), with it on a schedule (open loop: latency)
    #[command(after_help = after_help())]
    Echo {
        /// Flags of every kind of load.
        #[command(flatten)]
        common: Common,
        /// What to send.
        #[command(flatten)]
        messages: Messages,
        /// Send each message in N frames of as equal payloads as can be, at most one for each byte;
        /// the server may answer in one frame or in several
        #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
        fragments: u64,
        /// Fraction of the connections that are hot, between 0 and 1; the latency of the others is
        /// recorded apart; needs --rate. Their messages differ by --hot-size. Without it it is for
        /// servers that do work for each message (--handler-work-us): the hot ones ask for the
        /// target as given, the others with `work=0` in its query
        #[arg(long, value_name = "FRACTION", requires = "rate")]
        hot: Option<f64>,
        /// Fraction of the messages that go to hot connections, between 0 and 1 [default: as --hot]
        #[arg(long, value_name = "FRACTION", requires = "hot")]
        hot_share: Option<f64>,
        /// Payload bytes per message of hot connections [default: as --size]
        #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "hot")]
        hot_size: Option<u64>,
    },
    /// Publish to a room whose members all receive every message; latency to the first, median and
    /// last receiver
    #[command(after_help = after_help())]
    Broadcast {
        /// Flags of every kind of load.
        #[command(flatten)]
        common: Common,
        /// What to send.
        #[command(flatten)]
        messages: Messages,
        /// Members that publish; every connection is a member of the room, publishers included
        #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
        publishers: u64,
    },
    /// Connect, shake hands, close, again: handshakes per second with -c at a time; with --messages
    /// each connection exchanges some before it closes
    #[command(after_help = after_help())]
    Connect {
        /// Flags of every kind of load.
        #[command(flatten)]
        common: Common,
        /// Connections begun per second in all, on a schedule (open loop), with -c at most at a
        /// time [default: closed loop]. One that finds no place waits, and its waiting counts in
        /// the intended latency
        #[arg(
            short,
            long,
            value_name = "PER_SECOND",
            value_parser = parse_rate,
            conflicts_with = "connect_rate"
        )]
        rate: Option<f64>,
        /// Echo messages that each connection sends, one after the other, before it closes
        #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
        messages: u64,
        /// Payload bytes per message; 16 and more are verified in full
        #[arg(
            short,
            long,
            value_name = "SIZE",
            default_value = "64",
            value_parser = parse_size,
            requires = "messages"
        )]
        size: u64,
    },
    /// Hold connections open, answer pings, and say at the end whether all are still up
    #[command(after_help = after_help())]
    Idle {
        /// Flags of every kind of load.
        #[command(flatten)]
        common: Common,
        /// Fraction of the connections that send echo messages at --rate, 0 to 1
        #[arg(long, value_name = "FRACTION", requires = "rate")]
        active: Option<f64>,
        /// Messages per second in all, over the active connections
        #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate, requires = "active")]
        rate: Option<f64>,
        /// Payload bytes per message
        #[arg(short, long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
        size: u64,
    },
    /// One process of several, started by the first; what it does comes by its standard input
    #[command(hide = true)]
    Shard,
}

/// Flags of every kind of load.
#[derive(Debug, Args)]
pub struct Common {
    /// Targets.
    #[arg(
        required = true,
        value_name = "URL",
        help = "Targets, ws://HOST[:PORT][/PATH]; connections take turns. A link-local address names its interface: ws://[fe80::1%25eth0]:9001. For echo also tcp://HOST:PORT, a server that sends back every byte. Over a Unix socket: ws+unix:PATH:/ws, tcp+unix:PATH"
    )]
    pub urls: Vec<String>,
    /// Connections in all
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = parse_count)]
    pub connections: u64,
    /// Length of the measured window
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before the measured window, not recorded
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Processes that share the connections; 0: as few as the limits of the system allow
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
    pub shards: u64,
    /// Threads of all processes [default: one per CPU available, at most one per connection, at
    /// least one per process]
    #[arg(short, long, value_name = "N", value_parser = parse_count)]
    pub threads: Option<u64>,
    /// Connects begun per second, in all [default: as fast as they succeed]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub connect_rate: Option<f64>,
    /// Addresses of this host to connect from, in turn, IPv4 or IPv6 [default: the kernel's choice;
    /// for targets in 127.0.0.0/8 addresses in it where needed]
    #[arg(long, value_name = "IP,IP", value_delimiter = ',')]
    pub source_ips: Vec<IpAddr>,
    /// Request header; repeatable. Host, Origin and User-Agent are yours to set, and recorded with
    /// their values; of others the record has the names, for values may be secrets
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Subprotocol to offer; repeatable
    #[arg(long, value_name = "NAME")]
    pub subprotocol: Vec<String>,
    /// CPUs to pin the threads to, in turn: 0,2-3 [default: not pinned]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Busy-poll this many microseconds before sleeping: keeps the generator's own wake-up out of
    /// the latency, uses a whole CPU per thread. 0 disables
    #[arg(long, value_name = "MICROSECONDS", default_value = "0", value_parser = parse_count)]
    pub spin_us: u64,
    /// Longest wait for outstanding replies at the end
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// What stdout gets: a summary for people, or the record
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Write the record to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the percentile distribution (values in ms) to FILE
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write the histogram log (one interval per second, or slice) to FILE
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// No progress, no summary: only errors, the exit code and the files (--format json still
    /// prints the record)
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of the kinds that send messages all the time.
#[derive(Debug, Args)]
pub struct Messages {
    /// Messages per second in all (open loop) [default: closed loop]
    #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Requests in flight per connection, in a closed-loop broadcast messages in flight per
    /// publisher [default: 1]. In an open loop an echo message that finds no place waits, and its
    /// waiting counts in the intended latency
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub window: Option<u64>,
    /// Payload bytes per message; 16 and more are verified in full
    #[arg(short, long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
    pub size: u64,
    /// Load in slices, on command, in place of -d and --warmup
    #[arg(long, conflicts_with_all = ["duration", "warmup"], long_help = SLICES)]
    pub slices: bool,
}

/// What stdout gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A summary for people.
    Text,
    /// The record.
    Json,
}

/// What to print and where to write.
#[derive(Debug, Clone)]
pub struct Output {
    /// What stdout gets.
    pub format: Format,
    /// Neither progress nor summary.
    pub quiet: bool,
    /// Files to write.
    pub files: Files,
}

impl Cli {
    /// Checks the combination of flags.
    ///
    /// # Errors
    /// A sentence that says what to do instead.
    pub fn check(self) -> Result<(Config, Output), String> {
        let (kind, common, traffic, slices) = match self.command {
            Command::Echo {
                common,
                messages,
                fragments,
                hot: fraction,
                hot_share,
                hot_size,
            } => {
                let hot = fraction
                    .map(|fraction| hot(fraction, hot_share, hot_size, common.connections))
                    .transpose()?;
                let traffic = Traffic {
                    fragments,
                    hot,
                    ..echo(&messages)
                };
                (LoadKind::Echo, common, traffic, messages.slices)
            }
            Command::Broadcast {
                common,
                messages,
                publishers,
            } => {
                let traffic = broadcast(&messages, publishers, common.connections)?;
                (LoadKind::Broadcast, common, traffic, messages.slices)
            }
            Command::Connect {
                common,
                rate,
                messages,
                size,
            } => (
                LoadKind::Connect,
                common,
                lives(rate, messages, size),
                false,
            ),
            Command::Idle {
                common,
                active,
                rate,
                size,
            } => {
                let traffic = idle(active, rate, size, common.connections)?;
                (LoadKind::Idle, common, traffic, false)
            }
            Command::Shard => {
                return Err(
                    "a shard is started by another loadgen, not by hand: use --shards".into(),
                );
            }
        };
        let output = Output {
            format: common.format,
            quiet: common.quiet,
            files: Files {
                json: common.json.clone(),
                hgrm: common.hgrm.clone(),
                hlog: common.hlog.clone(),
            },
        };
        let has_latency = match kind {
            LoadKind::Idle => traffic.rate_per_s.is_some(),
            LoadKind::Echo | LoadKind::Broadcast | LoadKind::Connect => true,
        };
        if !has_latency && (output.files.hgrm.is_some() || output.files.hlog.is_some()) {
            return Err("an idle run without --active measures no latency: leave out --hgrm and --hlog, or add --active and --rate".into());
        }
        Ok((config(kind, common, traffic, slices)?, output))
    }
}

fn echo(messages: &Messages) -> Traffic {
    Traffic {
        rate_per_s: messages.rate,
        window: messages.window.unwrap_or(1),
        size: messages.size,
        ..Traffic::default()
    }
}

fn lives(rate: Option<f64>, messages: u64, size: u64) -> Traffic {
    Traffic {
        rate_per_s: rate,
        size: if messages > 0 { size } else { 0 },
        messages,
        ..Traffic::default()
    }
}

fn hot(
    fraction: f64,
    share: Option<f64>,
    size: Option<u64>,
    connections: u64,
) -> Result<Hot, String> {
    let (fraction, share) = (fraction, share.unwrap_or(fraction));
    let connections_hot = (fraction * connections as f64).round();
    if !(1.0..connections as f64).contains(&connections_hot) {
        return Err(format!(
            "--hot {fraction} of {connections} connections leaves none hot, or no others: it is a \
             fraction between 0 and 1, such as 0.1"
        ));
    }
    let share_millionths = (share * config::MILLION as f64).round();
    if !(1.0..config::MILLION as f64).contains(&share_millionths) {
        return Err(format!(
            "--hot-share {share} sends nothing to the hot connections, or nothing to the others: it \
             is a fraction between 0 and 1, such as 0.9"
        ));
    }
    Ok(Hot {
        connections: connections_hot as u64,
        share_millionths: share_millionths as u64,
        size,
    })
}

fn broadcast(messages: &Messages, publishers: u64, members: u64) -> Result<Traffic, String> {
    let least = config::BROADCAST_LEAST_SIZE;
    if messages.size < least {
        return Err(format!(
            "a broadcast message carries its publisher, number and send time: use --size {least} or more"
        ));
    }
    let pairs = publishers.saturating_mul(members);
    if pairs > config::MOST_PAIRS {
        return Err(format!(
            "{publishers} publishers x {members} members = {pairs} orders to check, more than the {} this generator keeps track of: \
             lower one of them",
            config::MOST_PAIRS
        ));
    }
    if messages.rate.is_some() && messages.window.is_some() {
        return Err(
            "an open-loop broadcast is published on schedule whatever is in flight: leave out --window, or leave out --rate".into(),
        );
    }
    if publishers == 0 || publishers > members {
        return Err(format!(
            "publishers are members too: --publishers must be 1 to {members} here; raise -c for more"
        ));
    }
    Ok(Traffic {
        publishers: Some(publishers),
        ..echo(messages)
    })
}

fn idle(
    active: Option<f64>,
    rate: Option<f64>,
    size: u64,
    connections: u64,
) -> Result<Traffic, String> {
    let fraction = active.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&fraction) {
        return Err("--active is a fraction of the connections: 0 to 1, such as 0.01".into());
    }
    let count = (fraction * connections as f64).round();
    if active.is_some() && count < 1.0 {
        return Err(format!(
            "--active {fraction} of {connections} connections is none: raise it, or leave out --active and --rate"
        ));
    }
    Ok(Traffic {
        rate_per_s: rate,
        size,
        active_fraction: active,
        active_connections: active.map(|_| count as u64),
        ..Traffic::default()
    })
}

fn config(
    kind: LoadKind,
    common: Common,
    traffic: Traffic,
    slices: bool,
) -> Result<Config, String> {
    if common.connections == 0 {
        return Err("-c 0 opens no connection: use 1 or more".into());
    }
    if common.duration.is_zero() {
        return Err("-d 0 measures nothing: use 1s or more".into());
    }
    if common.threads == Some(0) {
        return Err("-t 0 has nobody to do the work: use 1 or more, or leave it out".into());
    }
    if traffic.window == 0 {
        return Err("--window 0 never sends: use 1 or more".into());
    }
    let (largest, smallest) = (traffic.largest_size(), traffic.smallest_size());
    if largest > config::MOST_SIZE {
        return Err(format!(
            "--size or --hot-size {largest} is more than the {} bytes this generator can receive in \
             one message",
            config::MOST_SIZE
        ));
    }
    if traffic.fragments == 0 || traffic.fragments > smallest.max(1) {
        return Err(format!(
            "--fragments {} of {smallest} bytes: use 1 or more, and at most one for each byte",
            traffic.fragments
        ));
    }
    for (flag, rate) in [
        ("--rate", traffic.rate_per_s),
        ("--connect-rate", common.connect_rate),
    ] {
        if rate.is_some_and(|rate| rate < 0.001) {
            return Err(format!(
                "{flag} 0 never sends: use 0.001 or more, or leave it out"
            ));
        }
    }
    let slots = traffic.window.saturating_mul(common.connections);
    if slots > config::MOST_IN_FLIGHT {
        return Err(format!(
            "{} connections x window {} = {slots} requests in flight, more than the {} this generator keeps track of: lower one of them",
            common.connections,
            traffic.window,
            config::MOST_IN_FLIGHT
        ));
    }
    let bytes = traffic.bytes_in_flight(common.connections);
    if bytes > config::MOST_BYTES_IN_FLIGHT {
        return Err(format!(
            "{} connections x window {}, messages of {largest} bytes: {bytes} bytes in flight, more than the {} this generator will hold: lower one of them",
            common.connections,
            traffic.window,
            config::MOST_BYTES_IN_FLIGHT
        ));
    }
    let headers = common
        .header
        .iter()
        .map(|header| match header.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(format!(
                "header {header:?} has no colon: write 'Name: value'"
            )),
        })
        .collect::<Result<_, _>>()?;
    Ok(Config {
        kind,
        urls: common.urls,
        connections: common.connections,
        duration: common.duration,
        warmup: common.warmup,
        drain_timeout: common.drain_timeout,
        slices,
        shards: (common.shards > 0).then_some(common.shards),
        threads: common.threads,
        cpus: common.cpus.map(CpuList::into_vec).unwrap_or_default(),
        spin: Duration::from_micros(common.spin_us),
        connect_rate_per_s: common.connect_rate,
        source_ips: common.source_ips,
        headers,
        subprotocols: common.subprotocol,
        traffic,
    })
}

#[cfg(test)]
mod tests;
