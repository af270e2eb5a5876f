//! What many connections take from the machine and give back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Layout;
use crate::machine::proc::{KernelMemory, TreeMemory};

/// Memory at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySample {
    /// The kernel's, and all of the machine's.
    pub kernel: KernelMemory,
    /// All processes of the server.
    pub server: TreeMemory,
    /// All processes of the generator.
    pub generator: TreeMemory,
}

/// What a scale step took, and what came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Footprint {
    /// Processes and workers of the server.
    pub layout: Layout,
    /// Connections asked for.
    pub connections: u64,
    /// Before the server was started.
    pub before: KernelMemory,
    /// The server was ready, without a connection.
    pub ready: MemorySample,
    /// Both ends of all connections were sockets.
    pub up: Option<MemorySample>,
    /// Most memory in any sample.
    pub peak_used_bytes: u64,
    /// From the end of the measured window until the generator had closed everything and ended.
    pub drain_ns: Option<u64>,
    /// All connections closed, the server still there.
    pub emptied: Option<MemorySample>,
    /// How long that took to come about after the generator's end, or was waited for in vain.
    pub emptied_after_ns: u64,
    /// The server has ended.
    pub ended: Option<KernelMemory>,
}

impl Footprint {
    /// Bytes of the machine's memory still in use at the very end, beyond what was before.
    pub fn kept_bytes(&self) -> Option<f64> {
        Some(self.ended?.used_bytes as f64 - self.before.used_bytes as f64)
    }
}
