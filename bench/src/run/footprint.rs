//! What many connections take from the machine and give back: looks at memory from before the
//! server's start until after its end.

use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use super::process::POLL;
use crate::machine::proc;
use crate::record::{Footprint, Layout, Look};

/// How long the kernel (which frees sockets after a grace period) and the server get to give memory
/// back.
const BACK_WITHIN: Duration = Duration::from_secs(20);

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
