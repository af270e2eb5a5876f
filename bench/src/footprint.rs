//! What many connections take from the machine and give back: looks at memory from before the
//! server's start until after its end.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interrupt::Interrupt;
use crate::proc::{self, KernelMemory, TreeMemory};
use crate::process::POLL;
use crate::scale::Layout;

/// With fewer connections the growth is mostly what all of them share, and the machine's own ups
/// and downs.
pub const CONNECTIONS_FOR_MEMORY: u64 = 1000;
/// Memory is back when at most this share of what it had grown by is missing ...
pub const TOLERATED_SHARE: f64 = 0.05;
/// ... or at most this much, which a machine takes and gives anyway.
pub const TOLERATED_BYTES: u64 = 64 * 1024 * 1024;
/// Sockets of others that may have come meanwhile.
const TOLERATED_SOCKETS: u64 = 16;
/// How long the kernel (which frees sockets after a grace period) and the server get to give memory
/// back.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Memory at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Look {
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
    /// The server was ready, nobody connected.
    pub ready: Look,
    /// Both ends of all connections were sockets.
    pub up: Option<Look>,
    /// Most memory in use at any look.
    pub peak_used_bytes: u64,
    /// From the end of the measured window until the generator had closed everything and ended.
    pub drain_ns: Option<u64>,
    /// All connections closed, the server still there.
    pub emptied: Option<Look>,
    /// How long that took to come about after the generator's end, or was waited for in vain.
    pub emptied_after_ns: u64,
    /// The server has ended.
    pub ended: Option<KernelMemory>,
}

impl Footprint {
    /// Looks before the server is started; without `/proc` there is no footprint.
    pub fn begin(layout: Layout, connections: u64) -> Option<Self> {
        let before = proc::read_kernel_memory()?;
        Some(Self {
            layout,
            connections,
            before,
            ready: Look::default(),
            up: None,
            peak_used_bytes: before.used_bytes,
            drain_ns: None,
            emptied: None,
            emptied_after_ns: 0,
            ended: None,
        })
    }

    /// The server is ready.
    pub fn look_when_ready(&mut self, server: u32) {
        if let Some(look) = look(server, None) {
            self.ready = look;
        }
    }

    /// Cheap, until both ends of all connections are there; then it looks closely, once.
    pub fn look_again(&mut self, server: u32, generator: u32) {
        let Some(kernel) = proc::read_kernel_memory() else {
            return;
        };
        self.peak_used_bytes = self.peak_used_bytes.max(kernel.used_bytes);
        let all_up = self.ready.kernel.tcp_sockets + 2 * self.connections;
        if self.up.is_none() && kernel.tcp_sockets >= all_up {
            self.up = look(server, Some(generator));
        }
    }

    /// The generator has ended: waits until everything is given back, or does not come back.
    pub fn look_when_emptied(&mut self, server: u32, interrupt: &Interrupt) {
        let begun = Instant::now();
        loop {
            self.emptied = look(server, None);
            self.emptied_after_ns = begun.elapsed().as_nanos() as u64;
            let back = self.emptied.is_none() || self.missing().is_empty();
            if back || begun.elapsed() > BACK_WITHIN || interrupt.is_set() {
                return;
            }
            std::thread::sleep(POLL * 20);
        }
    }

    /// The server has ended: the same.
    pub fn look_when_ended(&mut self, interrupt: &Interrupt) {
        let begun = Instant::now();
        loop {
            self.ended = proc::read_kernel_memory();
            let back = self.doubt().is_none();
            if back || begun.elapsed() > BACK_WITHIN || interrupt.is_set() {
                return;
            }
            std::thread::sleep(POLL * 20);
        }
    }

    /// Bytes of the machine's memory still in use at the very end, beyond what was before.
    pub fn kept_bytes(&self) -> Option<f64> {
        Some(self.ended?.used_bytes as f64 - self.before.used_bytes as f64)
    }

    /// What kernel and server did not give back, in words; nothing when all is well, or the step
    /// too small to tell.
    pub fn missing(&self) -> Vec<String> {
        let (Some(up), Some(emptied)) = (&self.up, &self.emptied) else {
            return Vec::new();
        };
        if self.connections < CONNECTIONS_FOR_MEMORY {
            return Vec::new();
        }
        let mut missing = Vec::new();
        let sockets = emptied.kernel.tcp_sockets;
        if sockets > self.ready.kernel.tcp_sockets + TOLERATED_SOCKETS {
            missing.push(format!(
                "{sockets} TCP sockets were left after all connections were closed, {} before the first",
                self.ready.kernel.tcp_sockets
            ));
        }
        let kernel = |look: &Look| look.kernel.kernel_bytes();
        let server = |look: &Look| look.server.pss_bytes;
        for (what, of) in [
            ("kernel", &kernel as &dyn Fn(&Look) -> u64),
            ("server", &server),
        ] {
            missing.extend(not_back(
                &format!("{what} memory after all connections were closed"),
                of(&self.ready),
                of(up),
                of(emptied),
            ));
        }
        missing
    }

    /// The same of all memory after the server's end: a doubt only, for it is that of all other
    /// programs, too.
    pub fn doubt(&self) -> Option<String> {
        if self.connections < CONNECTIONS_FOR_MEMORY {
            return None;
        }
        not_back(
            "memory of the machine after the server's end",
            self.before.used_bytes,
            self.peak_used_bytes,
            self.ended?.used_bytes,
        )
    }
}

fn not_back(what: &str, before: u64, most: u64, after: u64) -> Option<String> {
    let tolerated =
        ((most.saturating_sub(before)) as f64 * TOLERATED_SHARE).max(TOLERATED_BYTES as f64);
    let kept = after.saturating_sub(before);
    let mib = |bytes: u64| bytes >> 20;
    (kept as f64 > tolerated).then(|| {
        format!(
            "{what}: {} MiB before, {} MiB at most, {} MiB after: {} MiB did not come back, {} MiB are tolerated",
            mib(before),
            mib(most),
            mib(after),
            mib(kept),
            mib(tolerated as u64)
        )
    })
}

fn look(server: u32, generator: Option<u32>) -> Option<Look> {
    Some(Look {
        kernel: proc::read_kernel_memory()?,
        server: proc::read_tree_memory(server)?,
        generator: generator
            .and_then(proc::read_tree_memory)
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_came_back_is_not_missing() {
        assert_eq!(canned::footprint(1_000_000).missing(), [""; 0]);
        assert_eq!(canned::footprint(1_000_000).kept_bytes(), Some(10e6));
    }

    #[test]
    fn each_kind_of_leak_is_named_with_its_figures() {
        let missing = |change: fn(&mut Footprint)| {
            let mut footprint = canned::footprint(1_000_000);
            change(&mut footprint);
            let missing = footprint.missing();
            assert_eq!(missing.len(), 1, "{missing:?}");
            missing[0].clone()
        };
        let sockets = missing(|f| f.emptied.as_mut().unwrap().kernel.tcp_sockets = 500);
        assert!(
            sockets.starts_with("500 TCP sockets were left"),
            "{sockets}"
        );
        let slab = missing(|f| f.emptied.as_mut().unwrap().kernel.slab_bytes += 3000 * MIB);
        assert!(slab.starts_with("kernel memory after"), "{slab}");
        let server = missing(|f| f.emptied.as_mut().unwrap().server.pss_bytes += 200 * MIB);
        assert!(server.contains("tolerated"), "{server}");
    }

    #[test]
    fn memory_of_the_whole_machine_is_a_doubt_only() {
        let mut footprint = canned::footprint(1_000_000);
        assert_eq!(footprint.doubt(), None);
        footprint.ended.as_mut().unwrap().used_bytes += 2000 * MIB;
        let doubt = footprint.doubt().unwrap();
        assert!(
            doubt.starts_with("memory of the machine after the server's end"),
            "{doubt}"
        );
        assert_eq!(footprint.missing(), [""; 0]);
    }

    #[test]
    fn a_small_step_says_nothing_about_memory() {
        let mut footprint = canned::footprint(500);
        footprint.emptied.as_mut().unwrap().kernel.slab_bytes += 9000 * MIB;
        assert_eq!(footprint.missing(), [""; 0]);
    }
}
