//! `scenarios/*.toml`: a load with its expectations.

use std::path::Path;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_name, load_toml};

/// No search tries a rate below this, in messages per second.
pub const LOWEST_RATE_PER_S: f64 = 100.0;

/// The one option of servers that a scenario of kind echo or broadcast may give.
const HANDLER_WORK: &str = "--handler-work-us";

/// A load, and in prose what it shows and what it does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's stem.
    #[serde(default)]
    pub name: String,
    /// One line for tables.
    pub title: String,
    /// What a difference here means.
    pub shows: String,
    /// What it must not be read as.
    pub does_not_show: String,
    /// Subcommand of the generator.
    pub kind: ScenarioKind,
    /// Connections (members, for a broadcast).
    pub connections: u64,
    /// Payload, in bytes.
    #[serde(default = "default_size")]
    pub size_bytes: u64,
    /// Frames of each message, at most one for each byte (echo only).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub fragments: u64,
    /// Members that publish (broadcast only).
    #[serde(default = "one")]
    pub publishers: u64,
    /// Messages that each connection sends, one after the other, before it leaves (connect only).
    #[serde(default, skip_serializing_if = "is_none")]
    pub messages: u64,
    /// How the generator offers the load (not for idle). Of connect a rate is connections per
    /// second; without it the next one begins when another has left.
    #[serde(default)]
    pub load: Option<Load>,
    /// Over which stream sockets (not for scale); contestants that cannot are left out.
    #[serde(default, skip_serializing_if = "Transport::is_tcp")]
    pub transport: Transport,
    /// Share of the connections that send (scale only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_fraction: Option<f64>,
    /// Part of the silent connections that must be pinged inside the window (scale only); all of
    /// them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinged_fraction: Option<f64>,
    /// Further arguments for the server, as they are: any of them in scale; in echo and broadcast
    /// the work of a handler, `["--handler-work-us", "10"]`, for contestants that can do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_args: Vec<String>,
    /// Connections that get a share of the messages of their own (echo in an open loop only). These
    /// have a size of their own, or, with `server_args`, the others ask their server for no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot: Option<Hot>,
    /// Server and generator run on this many CPUs together, the server with a worker on each; else
    /// each side has its own (echo and broadcast only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_cpus: Option<usize>,
    /// The promise whose highest rate is searched: the 99th percentile of the latency from the
    /// intended send (capacity only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_limit_ms: Option<f64>,
    /// Highest rate that is tried (capacity only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_max_per_s: Option<f64>,
    /// Runs that confirm the rate found (capacity only).
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub confirmations: usize,
    /// It is the scenario of this name once more, in an open loop: all contestants get the same
    /// messages per second, a share of what the slowest can do. A suite makes it ([`at_rate`]).
    ///
    /// [`at_rate`]: Scenario::at_rate
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_rate_of: Option<String>,
    /// Metric of the headline; without it the kind's own.
    #[serde(default)]
    pub headline: Option<String>,
    /// Further arguments for the generator, as they are.
    #[serde(default)]
    pub generator_args: Vec<String>,
}

/// Stream sockets between server and generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP over loopback.
    #[default]
    Tcp,
    /// A Unix stream socket.
    Unix,
}

impl Transport {
    /// The one that a scenario need not name.
    pub fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }
}

/// How the hot connections differ from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hot {
    /// Their share of the connections.
    pub connections: f64,
    /// Their share of the messages.
    pub messages: f64,
    /// Payload of their messages, in bytes; without it they differ in the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// Subcommand of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScenarioKind {
    /// Request and reply on `/ws`.
    Echo,
    /// Every message to every member of one room.
    Broadcast,
    /// Opening handshakes.
    Connect,
    /// Open connections that do nothing.
    Idle,
    /// As many connections as the machine holds, a few of them active.
    Scale,
    /// The highest rate of echoes at which a latency is kept: a search of many runs.
    Capacity,
}

impl ScenarioKind {
    /// In the order of tables.
    pub const ALL: [Self; 6] = [
        Self::Echo,
        Self::Broadcast,
        Self::Connect,
        Self::Idle,
        Self::Scale,
        Self::Capacity,
    ];

    /// The generator's subcommand.
    pub fn subcommand(self) -> &'static str {
        match self {
            Self::Echo | Self::Capacity => "echo",
            Self::Broadcast => "broadcast",
            Self::Connect => "connect",
            Self::Idle | Self::Scale => "idle",
        }
    }
}

/// How the generator offers the load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: this many requests in flight per connection.
    Window(u64),
    /// Open loop: messages per second, total.
    Rate(f64),
    /// Open loop at this fraction of the smallest contestant's capacity, measured in the suite.
    FractionOfCapacity(f64),
}

fn default_size() -> u64 {
    64
}

fn one() -> u64 {
    1
}

fn is_one(fragments: &u64) -> bool {
    *fragments == one()
}

fn is_none(messages: &u64) -> bool {
    *messages == 0
}

fn three() -> usize {
    3
}

fn is_three(confirmations: &usize) -> bool {
    *confirmations == three()
}

impl Scenario {
    /// Connections that send in a scenario of kind `scale`, as the generator counts them.
    pub fn active_connections(&self) -> u64 {
        (self.active_fraction.unwrap_or(0.0) * self.connections as f64).round() as u64
    }

    /// Key of the capacity this scenario's rate is a fraction of: scenarios of one key share a
    /// calibration. Of a companion it is the name of the scenario that it belongs to, whose first
    /// round is the calibration.
    pub fn capacity_key(&self) -> Option<String> {
        match self.load {
            Some(Load::FractionOfCapacity(_)) => {
                Some(self.at_rate_of.clone().unwrap_or_else(|| self.shape_key()))
            }
            _ => None,
        }
    }

    /// The companion of a closed loop of echoes or of a broadcast: the same at `fraction` of the
    /// slowest contestant's capacity. `None` of other scenarios.
    pub fn at_rate(&self, fraction: f64) -> Option<Self> {
        let companion = matches!(self.kind, ScenarioKind::Echo | ScenarioKind::Broadcast)
            && matches!(self.load, Some(Load::Window(_)));
        let percent = fraction * 100.0;
        companion.then(|| Self {
            name: format!("{}-at-{percent:.0}", self.name),
            title: format!("{}, at {percent:.0}% of the slowest", self.title),
            shows: format!(
                "What a message costs, and how long it takes, at a rate that all contestants can keep: every one gets \
                 the same messages per second, {percent:.0}% of what the slowest did in `{}`, on a schedule that does \
                 not wait for replies. Time counts from the intended send.",
                self.name
            ),
            does_not_show: "Cost and latency at other rates, or over a network. The faster contestant is further \
                            from its own limit. On two virtual CPUs a good part of the median is the wake-up of the \
                            other CPU."
                .to_owned(),
            load: Some(Load::FractionOfCapacity(fraction)),
            headline: Some("latency_intended_p99_ns".to_owned()),
            at_rate_of: Some(self.name.clone()),
            ..self.clone()
        })
    }

    /// Name of the capacity of echoes of this size over this many connections, or of connections
    /// with this many messages.
    pub fn shape_key(&self) -> String {
        let transport = if self.transport.is_tcp() { "" } else { "-unix" };
        let connections = self.connections;
        if self.kind == ScenarioKind::Connect {
            let (messages, size) = (self.messages, self.size_bytes);
            return format!("capacity-connect-m{messages}-{size}b-c{connections}{transport}");
        }
        format!("capacity-{}b-c{connections}{transport}", self.size_bytes)
    }

    /// CPU time that its servers are to burn for each message, in microseconds, where it says so:
    /// not every contestant can.
    pub fn handler_work_us(&self) -> Option<u32> {
        match self.server_args.as_slice() {
            [flag, us] if flag == HANDLER_WORK => us.parse().ok(),
            _ => None,
        }
    }

    /// What a message is, in a few words.
    pub fn message(&self) -> String {
        let mut text = format!("{} B", self.size_bytes);
        if let Some(hot) = self.hot.and_then(|hot| hot.size_bytes) {
            text.push_str(&format!(" and {hot} B"));
        }
        if self.fragments > 1 {
            text.push_str(&format!(" in {} frames", self.fragments));
        }
        text
    }

    /// Payload of its longest messages.
    pub fn largest_message_bytes(&self) -> u64 {
        let hot = self.hot.and_then(|hot| hot.size_bytes);
        self.size_bytes.max(hot.unwrap_or(0))
    }

    fn check_fragments(&self) -> Result<()> {
        if self.fragments == 1 {
            return Ok(());
        }
        ensure!(
            self.kind == ScenarioKind::Echo
                && self.hot.is_none()
                && (1..=self.size_bytes).contains(&self.fragments),
            "`fragments` is for echo without `hot`, at least 1 and at most one for each byte"
        );
        let of_capacity = self.capacity_key().is_some() && self.at_rate_of.is_none();
        ensure!(
            !of_capacity,
            "`fragments` do not go with fraction_of_capacity: capacity is measured without them"
        );
        Ok(())
    }

    fn check_server_args(&self) -> Result<()> {
        if self.server_args.is_empty() || self.kind == ScenarioKind::Scale {
            return Ok(());
        }
        let has_messages = matches!(self.kind, ScenarioKind::Echo | ScenarioKind::Broadcast);
        ensure!(
            has_messages && self.handler_work_us().is_some(),
            "`server_args` are free in scale only; echo and broadcast may have [\"{HANDLER_WORK}\", \
             \"N\"]: otherwise all contestants run as contestants.toml says"
        );
        ensure!(
            self.capacity_key().is_none(),
            "`server_args` do not go with fraction_of_capacity: capacity is measured without them"
        );
        Ok(())
    }

    fn check_hot(&self) -> Result<()> {
        let Some(hot) = self.hot else {
            return Ok(());
        };
        ensure!(
            self.kind == ScenarioKind::Echo
                && !matches!(self.load, Some(Load::Window(_)) | None)
                && self.handler_work_us().is_some() != hot.size_bytes.is_some(),
            "`hot` is for echo in an open loop, with either `size_bytes` or the work of a handler in \
             `server_args`: the others are those that cost none"
        );
        for (key, share) in [("connections", hot.connections), ("messages", hot.messages)] {
            ensure!(
                share > 0.0 && share < 1.0,
                "`hot.{key}` must be above 0 and below 1"
            );
        }
        let connections = (hot.connections * self.connections as f64).round();
        ensure!(
            connections >= 1.0 && connections < self.connections as f64,
            "`hot.connections` leaves none hot, or no others"
        );
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let needs_load = matches!(
            self.kind,
            ScenarioKind::Echo | ScenarioKind::Broadcast | ScenarioKind::Scale
        );
        ensure!(self.connections > 0, "`connections` must be at least 1");
        ensure!(self.publishers > 0, "`publishers` must be at least 1");
        ensure!(
            self.publishers <= self.connections,
            "more publishers than members"
        );
        ensure!(
            !needs_load || self.load.is_some(),
            "this kind needs a [load]: window, rate or fraction_of_capacity"
        );
        let is_connect = self.kind == ScenarioKind::Connect;
        ensure!(
            needs_load || is_connect || self.load.is_none(),
            "this kind takes no [load]"
        );
        ensure!(
            !is_connect || !matches!(self.load, Some(Load::Window(_))),
            "connect takes no window: without a rate `connections` are there at a time"
        );
        ensure!(
            is_connect || self.messages == 0,
            "`messages` is for connect"
        );
        let is_scale = self.kind == ScenarioKind::Scale;
        ensure!(
            is_scale == self.active_fraction.is_some(),
            "`active_fraction` is for scale, which needs it"
        );
        self.check_fragments()?;
        ensure!(
            !is_scale || self.transport.is_tcp(),
            "scale takes no `transport`: processes share a port, and not a Unix socket"
        );
        self.check_server_args()?;
        self.check_hot()?;
        let may_share = matches!(self.kind, ScenarioKind::Echo | ScenarioKind::Broadcast);
        ensure!(
            self.shared_cpus.is_none_or(|cpus| may_share && cpus > 0),
            "`shared_cpus` is for echo and broadcast, and at least 1"
        );
        ensure!(
            self.shared_cpus.is_none() || self.capacity_key().is_none(),
            "`shared_cpus` does not go with fraction_of_capacity: capacity is measured apart"
        );
        ensure!(
            self.pinged_fraction
                .is_none_or(|fraction| is_scale && (0.0..=1.0).contains(&fraction)),
            "`pinged_fraction` is for scale, from 0 to 1"
        );
        if let Some(fraction) = self.active_fraction {
            ensure!(
                fraction > 0.0 && fraction <= 1.0,
                "`active_fraction` must be above 0 and at most 1"
            );
            ensure!(
                matches!(self.load, Some(Load::Rate(_))),
                "scale needs a fixed rate: load = {{ rate = 1000.0 }}"
            );
        }
        self.check_search()?;
        match self.load {
            Some(Load::FractionOfCapacity(fraction)) => {
                ensure!(
                    fraction > 0.0 && fraction <= 1.0,
                    "fraction_of_capacity must be above 0 and at most 1"
                );
                ensure!(
                    is_connect || self.kind == ScenarioKind::Echo,
                    "fraction_of_capacity is for echo and connect: no other capacity is measured"
                );
            }
            Some(Load::Rate(rate)) => {
                ensure!(rate.is_finite() && rate > 0.0, "rate must be positive")
            }
            Some(Load::Window(window)) => ensure!(window > 0, "window must be at least 1"),
            None => {}
        }
        Ok(())
    }
}

impl Scenario {
    fn check_search(&self) -> Result<()> {
        if self.kind != ScenarioKind::Capacity {
            let searches = self.p99_limit_ms.is_some()
                || self.rate_max_per_s.is_some()
                || !is_three(&self.confirmations);
            ensure!(
                !searches,
                "`p99_limit_ms`, `rate_max_per_s` and `confirmations` are for capacity"
            );
            return Ok(());
        }
        ensure!(
            self.p99_limit_ms.is_some_and(|limit| limit > 0.0),
            "capacity needs `p99_limit_ms`, above 0"
        );
        ensure!(self.confirmations > 0, "`confirmations` must be at least 1");
        ensure!(
            self.rate_max_per_s
                .is_none_or(|most| most >= LOWEST_RATE_PER_S),
            "`rate_max_per_s` must be at least {LOWEST_RATE_PER_S}"
        );
        Ok(())
    }
}

/// A scenario by name (`scenarios/NAME.toml` under `config_dir`) or by path (ends in `.toml`).
pub fn load_scenario(config_dir: &Path, name_or_path: &str) -> Result<Scenario> {
    let (path, name) = super::suite::locate(config_dir, "scenarios", name_or_path)?;
    ensure!(is_name(&name), "`{name}` cannot be a scenario's name");
    let mut scenario: Scenario = load_toml(&path)?;
    scenario.name = name;
    scenario
        .check()
        .map_err(|error| error.context(format!("{} is not what it should be", path.display())))?;
    Ok(scenario)
}

#[cfg(test)]
mod tests;
