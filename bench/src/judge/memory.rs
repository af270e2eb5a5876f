//! Whether the memory of many connections came back. Pure.

use super::checks::or_ok;
use crate::record::{Check, CheckName, CheckStatus, Footprint, MemorySample};

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
    /// What kernel and server did not give back; one check that is ok when all is well, or the step
    /// too small to tell.
    pub fn given_back(&self) -> Vec<Check> {
        or_ok(self.missing(), CheckName::MemoryGivenBack)
    }

    fn missing(&self) -> Vec<Check> {
        let (Some(up), Some(emptied)) = (&self.up, &self.emptied) else {
            return Vec::new();
        };
        if self.connections < CONNECTIONS_FOR_MEMORY {
            return Vec::new();
        }
        let sockets = emptied.kernel.tcp_sockets;
        let most = self.ready.kernel.tcp_sockets + TOLERATED_SOCKETS;
        let left = Check::ok(CheckName::MemoryGivenBack, sockets as f64, most as f64)
            .when(sockets > most, CheckStatus::Invalid)
            .detail("sockets");
        let kernel = |sample: &MemorySample| sample.kernel.kernel_bytes();
        let server = |sample: &MemorySample| sample.server.pss_bytes;
        let of = |what: &str, of: &dyn Fn(&MemorySample) -> u64| {
            kept(
                CheckName::MemoryGivenBack,
                CheckStatus::Invalid,
                [of(&self.ready), of(up), of(emptied)],
            )
            .detail(what)
        };
        let all = [left, of("kernel", &kernel), of("server", &server)];
        let missing = all.into_iter();
        missing
            .filter(|check| check.status != CheckStatus::Ok)
            .collect()
    }

    /// The same of all memory after the server's end: a doubt only, for it is that of all other
    /// programs, too.
    pub fn of_the_machine(&self) -> Check {
        let name = CheckName::MemoryOfTheMachine;
        match self.ended {
            Some(ended) if self.connections >= CONNECTIONS_FOR_MEMORY => kept(
                name,
                CheckStatus::Doubtful,
                [
                    self.before.used_bytes,
                    self.peak_used_bytes,
                    ended.used_bytes,
                ],
            ),
            _ => Check::ok(name, 0.0, TOLERATED_BYTES as f64),
        }
    }
}

/// What was kept of what was taken, in bytes: before, at most, after.
fn kept(name: CheckName, status: CheckStatus, [before, most, after]: [u64; 3]) -> Check {
    let share = most.saturating_sub(before) as f64 * TOLERATED_SHARE;
    let tolerated = share.max(TOLERATED_BYTES as f64);
    let kept = after.saturating_sub(before) as f64;
    Check::ok(name, kept, tolerated)
        .when(kept > tolerated, status)
        .beside(before as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    const MIB: u64 = 1 << 20;
    const NOTHING: [Check; 0] = [];

    #[test]
    fn what_came_back_is_not_missing() {
        assert_eq!(test_data::footprint(1_000_000).missing(), NOTHING);
        assert_eq!(test_data::footprint(1_000_000).kept_bytes(), Some(10e6));
    }

    #[test]
    fn each_kind_of_leak_is_named_with_its_figures() {
        let missing = |change: fn(&mut Footprint)| {
            let mut footprint = test_data::footprint(1_000_000);
            change(&mut footprint);
            let missing = footprint.given_back();
            let [check] = &missing[..] else {
                panic!("{missing:?}")
            };
            assert_eq!(check.status, CheckStatus::Invalid);
            (
                check.detail.clone().unwrap(),
                check.observed.unwrap(),
                check.limit.unwrap(),
            )
        };
        assert_eq!(
            missing(|f| f.emptied.as_mut().unwrap().kernel.tcp_sockets = 22),
            ("sockets".into(), 22.0, 21.0)
        );
        let (what, kept, limit) =
            missing(|f| f.emptied.as_mut().unwrap().kernel.slab_bytes += 3000 * MIB);
        assert_eq!((what.as_str(), kept), ("kernel", (3000 * MIB) as f64));
        assert!(limit > TOLERATED_BYTES as f64 && limit < kept);
        let (what, kept, limit) =
            missing(|f| f.emptied.as_mut().unwrap().server.pss_bytes += 65 * MIB);
        assert_eq!((what.as_str(), kept), ("server", (65 * MIB) as f64));
        assert_eq!(limit, TOLERATED_BYTES as f64);
        let mut footprint = test_data::footprint(1_000_000);
        footprint.emptied.as_mut().unwrap().server.pss_bytes += 64 * MIB;
        assert_eq!(footprint.missing(), NOTHING);
    }

    #[test]
    fn memory_of_the_whole_machine_is_a_doubt_only() {
        let mut footprint = test_data::footprint(1_000_000);
        assert_eq!(footprint.of_the_machine().status, CheckStatus::Ok);
        footprint.ended.as_mut().unwrap().used_bytes += 2000 * MIB;
        let doubt = footprint.of_the_machine();
        assert_eq!(doubt.status, CheckStatus::Doubtful);
        assert_eq!(doubt.observed, Some(10e6 + (2000 * MIB) as f64));
        assert_eq!(footprint.missing(), NOTHING);
    }

    #[test]
    fn a_small_step_says_nothing_about_memory() {
        let mut footprint = test_data::footprint(500);
        footprint.emptied.as_mut().unwrap().kernel.slab_bytes += 9000 * MIB;
        assert_eq!(footprint.missing(), NOTHING);
        assert_eq!(footprint.given_back()[0].status, CheckStatus::Ok);
    }
}
