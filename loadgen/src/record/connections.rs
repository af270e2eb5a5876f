//! Connections of a run: how many, how they came up, how they were lost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Latency;

/// Connections: asked for, up, lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// Asked for.
    pub requested: u64,
    /// Up when the load began.
    pub up: u64,
    /// Closed by the server (or by an error) before the run ended.
    pub closed_early: u64,
    /// Never came up.
    pub failed: u64,
    /// How the first of `closed_early` was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_loss: Option<String>,
    /// Most from one source address to one target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_per_source: Option<u64>,
}

/// The opening of the connections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConnectPhase {
    /// Handshakes completed.
    pub completed: u64,
    /// Connects or handshakes that failed.
    pub failed: u64,
    /// From the first connect to the last handshake; in kind `connect` the measured window.
    pub elapsed_ns: u64,
    /// `completed / elapsed`.
    pub handshakes_per_s: f64,
    /// From the begin of the TCP connect to the accepted upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_latency: Option<Latency>,
    /// The same from the begin that the schedule intended (kind `connect` with a rate): free of
    /// coordinated omission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_latency_intended: Option<Latency>,
    /// What the schedule asked for (kind `connect` with a rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ConnectSchedule>,
    /// Connections that exchanged messages before they left (kind `connect` with messages).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lives: Option<Lives>,
    /// What was chosen of the subprotocols offered; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subprotocols: Option<Subprotocols>,
}

/// Connections that a schedule asked for inside the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ConnectSchedule {
    /// Due.
    pub due: u64,
    /// Of them not up at the end of the drain, begun or not.
    pub missing: u64,
    /// Of them begun late because as many as may be were there at the time.
    pub delayed: u64,
}

/// Lives: connections that came up, got the replies to all their messages, and did the closing
/// handshake.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Lives {
    /// Messages of each.
    pub messages: u64,
    /// Lives that ended inside the measured window.
    pub completed: u64,
    /// The same per second.
    pub lives_per_s: f64,
}

/// What servers chose of the subprotocols offered, by handshakes. To choose none is allowed (RFC
/// 6455 section 4.2.2); to choose another one fails the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Subprotocols {
    /// Handshakes per subprotocol.
    #[serde(default)]
    pub chosen: BTreeMap<String, u64>,
    /// Handshakes without one.
    #[serde(default)]
    pub none: u64,
}

impl Subprotocols {
    /// One more handshake.
    pub fn count(&mut self, chosen: Option<&str>) {
        match chosen {
            None => self.none += 1,
            Some(name) => match self.chosen.get_mut(name) {
                Some(count) => *count += 1,
                None => {
                    self.chosen.insert(name.to_owned(), 1);
                }
            },
        }
    }

    /// Those of another thread.
    pub fn add(&mut self, other: &Self) {
        self.none += other.none;
        for (name, count) in &other.chosen {
            *self.chosen.entry(name.clone()).or_default() += count;
        }
    }
}
