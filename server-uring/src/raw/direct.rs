//! Where connections live: in the process's table of descriptors, or in each ring's own.

use clap::ValueEnum;
use server_core::options::Settings;
use uring_net::{KernelVersion, MAX_DIRECT_SLOTS};

/// `--direct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direct {
    /// On when the limit on open files does not hold --max-connections (or, where that is
    /// unlimited, is below 1,048,576) and the kernel can do it (Linux 6.13)
    Auto,
    /// In the rings' own tables, each of which holds as many as the limit on open files allows the
    /// process
    On,
    /// In the process's table of descriptors, under the limit on open files
    Off,
}

/// The limit on open files that will do where `--max-connections` does not say how many are wanted:
/// the highest that the kernel allows by default (`fs.nr_open`).
const UNLIMITED: u64 = 1 << 20;
/// Descriptors of a worker that are not connections: ring and eventfd ...
const FILES_OF_A_WORKER: u64 = 2;
/// ... and two handles of each of its listeners.
const FILES_OF_A_LISTENER: u64 = 2;
/// Descriptors of the process: standard streams, signals, what a shutdown borrows, and some
/// to spare.
const FILES_OF_THE_PROCESS: u64 = 32;
/// Slots beyond `--max-connections`: for those who are told that there is no room, ask for
/// `/metrics` or are leaving.
const SPARE_SLOTS: u64 = 1024;

impl Direct {
    /// How many slots each ring is to have; 0: connections have descriptors. `open_files` is the
    /// limit in force.
    pub(crate) fn slots(self, settings: &Settings, open_files: u64) -> u32 {
        let can = KernelVersion::running().is_none_or(|version| version >= KernelVersion::DIRECT);
        let wanted = settings.max_connections.map(|n| n as u64);
        let own_files = own_files(settings.workers as u64, settings.listen.len() as u64);
        let slots = self.slots_where(can, wanted, own_files, open_files);
        if !can && self.slots_where(true, wanted, own_files, open_files) > slots {
            tracing::warn!(
                open_files,
                "the limit on open files is the limit on connections: direct descriptors need Linux {}",
                KernelVersion::DIRECT
            );
        }
        let held = u64::from(slots) * settings.workers as u64;
        if slots > 0 && wanted.is_some_and(|wanted| wanted > held) {
            tracing::warn!(
                held,
                "--max-connections is more than this many workers hold: use more --workers, or raise `ulimit -n`"
            );
        }
        slots
    }

    /// [`slots`](Self::slots) on a kernel that can do it or not.
    fn slots_where(self, can: bool, wanted: Option<u64>, own_files: u64, open_files: u64) -> u32 {
        let on = match self {
            Direct::On => true,
            Direct::Off => false,
            Direct::Auto => {
                let fit = open_files.saturating_sub(own_files);
                can && wanted.map_or(open_files < UNLIMITED, |wanted| wanted > fit)
            }
        };
        if !on {
            return 0;
        }
        let slots = wanted.map_or(u64::MAX, |wanted| wanted.saturating_add(SPARE_SLOTS));
        let most = u64::from(MAX_DIRECT_SLOTS).min(open_files);
        // At most `MAX_DIRECT_SLOTS`, a u32.
        slots.min(most) as u32
    }
}

/// Descriptors that are not connections.
fn own_files(workers: u64, addresses: u64) -> u64 {
    FILES_OF_THE_PROCESS + workers * (FILES_OF_A_WORKER + addresses * FILES_OF_A_LISTENER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_on_where_the_limit_would_not_do() {
        for (wanted, workers, open_files, slots) in [
            // Unlimited.
            (None, 2, 20_000, 20_000),
            (None, 2, 1024, 1024),
            (None, 2, (1 << 20) - 1, (1 << 20) - 1),
            (None, 2, 1 << 20, 0),
            (None, 2, u64::MAX, 0),
            // As many as fit, and one more.
            (Some(10_000), 2, 20_000, 0),
            (Some(19_960), 2, 20_000, 0),
            (Some(19_961), 2, 20_000, 20_000),
            (Some(500), 2, 256, 256),
            (Some(100_000), 8, 20_000, 20_000),
            (Some(100), 500, 1024, 1024),
        ] {
            let own_files = own_files(workers, 1);
            assert_eq!(
                Direct::Auto.slots_where(true, wanted, own_files, open_files),
                slots,
                "{wanted:?} {workers} {open_files}"
            );
            assert_eq!(
                Direct::Auto.slots_where(false, wanted, own_files, open_files),
                0
            );
            assert_eq!(
                Direct::Off.slots_where(true, wanted, own_files, open_files),
                0
            );
        }
    }

    #[test]
    fn on_is_on_and_takes_no_more_than_it_needs() {
        let on = |wanted, open_files| Direct::On.slots_where(true, wanted, 40, open_files);
        assert_eq!(on(None, 20_000), 20_000);
        assert_eq!(on(Some(100), 20_000), 1124);
        assert_eq!(on(None, u64::MAX), MAX_DIRECT_SLOTS);
        assert_eq!(Direct::On.slots_where(false, None, 40, 64), 64);
    }
}
