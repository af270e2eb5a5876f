//! Whether the memory of many connections came back. Pure.

use crate::record::{Footprint, Look};

/// With fewer connections the growth is mostly what all of them share, and the machine's own ups
/// and downs.
pub const CONNECTIONS_FOR_MEMORY: u64 = 1000;
/// Memory is back when at most this share of what it had grown by is missing ...
pub const TOLERATED_SHARE: f64 = 0.05;
/// ... or at most this much, which a machine takes and gives anyway.
pub const TOLERATED_BYTES: u64 = 64 * 1024 * 1024;
/// Sockets of others that may have come meanwhile.
const TOLERATED_SOCKETS: u64 = 16;

impl Footprint {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_came_back_is_not_missing() {
        assert_eq!(test_data::footprint(1_000_000).missing(), [""; 0]);
        assert_eq!(test_data::footprint(1_000_000).kept_bytes(), Some(10e6));
    }

    #[test]
    fn each_kind_of_leak_is_named_with_its_figures() {
        let missing = |change: fn(&mut Footprint)| {
            let mut footprint = test_data::footprint(1_000_000);
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
        let mut footprint = test_data::footprint(1_000_000);
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
        let mut footprint = test_data::footprint(500);
        footprint.emptied.as_mut().unwrap().kernel.slab_bytes += 9000 * MIB;
        assert_eq!(footprint.missing(), [""; 0]);
    }
}
