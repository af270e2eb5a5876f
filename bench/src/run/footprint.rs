//! Samples memory from before the server's start until after its end.

use std::time::{Duration, Instant};

use loadgen::check::worst;

use super::interrupt::Interrupt;
use super::process::POLL;
use crate::machine::proc::{self, KernelMemory};
use crate::record::{CheckStatus, Footprint, Layout, MemorySample};

/// How long the kernel (which frees sockets after a grace period) and the server get to give memory
/// back.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Memory while the connections come up.
#[derive(Debug)]
pub(super) struct Ascent {
    connections: u64,
    before: KernelMemory,
    ready: MemorySample,
    up: Option<MemorySample>,
    peak_used_bytes: u64,
}

impl Ascent {
    /// `before` was seen before the server was started, `ready` when it was ready.
    pub(super) fn begin(
        before: KernelMemory,
        ready: Option<MemorySample>,
        connections: u64,
    ) -> Self {
        Self {
            connections,
            before,
            ready: ready.unwrap_or_default(),
            up: None,
            peak_used_bytes: before.used_bytes,
        }
    }

    /// Cheap, until both ends of all connections are there; then it looks closely, once.
    pub(super) fn sample(&mut self, server: u32, generator: u32) {
        let Some(kernel) = proc::read_kernel_memory() else {
            return;
        };
        self.peak_used_bytes = self.peak_used_bytes.max(kernel.used_bytes);
        let all_up = self.ready.kernel.tcp_sockets + 2 * self.connections;
        if self.up.is_none() && kernel.tcp_sockets >= all_up {
            self.up = memory_now(server, Some(generator));
        }
    }

    /// The load is over; what comes after it is not known yet.
    pub(super) fn end(self, layout: Layout, drain_ns: Option<u64>) -> Footprint {
        Footprint {
            layout,
            connections: self.connections,
            before: self.before,
            ready: self.ready,
            up: self.up,
            peak_used_bytes: self.peak_used_bytes,
            drain_ns,
            emptied: None,
            emptied_after_ns: 0,
            ended: None,
        }
    }
}

impl Footprint {
    /// The generator has ended: waits until everything is given back, or does not come back.
    pub(super) fn wait_until_emptied(&mut self, server: u32, interrupt: &Interrupt) {
        let begun = Instant::now();
        loop {
            self.emptied = memory_now(server, None);
            self.emptied_after_ns = begun.elapsed().as_nanos() as u64;
            let back = self.emptied.is_none() || worst(&self.given_back()) == CheckStatus::Ok;
            if back || begun.elapsed() > BACK_WITHIN || interrupt.is_set() {
                return;
            }
            std::thread::sleep(POLL * 20);
        }
    }

    /// The server has ended: the same.
    pub(super) fn wait_until_ended(&mut self, interrupt: &Interrupt) {
        let begun = Instant::now();
        loop {
            self.ended = proc::read_kernel_memory();
            let back = self.of_the_machine().status == CheckStatus::Ok;
            if back || begun.elapsed() > BACK_WITHIN || interrupt.is_set() {
                return;
            }
            std::thread::sleep(POLL * 20);
        }
    }
}

pub(super) fn memory_now(server: u32, generator: Option<u32>) -> Option<MemorySample> {
    Some(MemorySample {
        kernel: proc::read_kernel_memory()?,
        server: proc::read_tree_memory(server)?,
        generator: generator
            .and_then(proc::read_tree_memory)
            .unwrap_or_default(),
    })
}
