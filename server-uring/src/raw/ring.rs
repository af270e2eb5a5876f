//! The ring of a worker: how large it is.

use uring_net::{Ring, SetupError};

/// Operations started with one system call.
const SQ_ENTRIES: u32 = 4096;
/// Completions that fit without the kernel having to allocate.
const CQ_ENTRIES: u32 = 16_384;
/// Receive buffers: 2 MiB in all, which stay in the cache. Prototypes with 16 MiB were slower at
/// 10,000 connections. More are rarely in use: a buffer is back as soon as the reply in it is sent,
/// which never waits for the peer.
const BUFFERS: u16 = 512;
/// Size of one of them: a message of 4 KiB and its header. Longer messages come in pieces. No
/// multiple of a page: the first bytes of each would share one place in the cache.
pub(crate) const BUFFER_BYTES: u32 = 4096 + 64;
/// Buffers for connections whose messages do not fit into those. They exist only while there is
/// such a connection.
const LARGE_BUFFERS: u16 = 256;
/// Size of one of them: a message of 128 KiB and its header. Of a longer one what is missing is
/// received straight into the message.
pub(crate) const LARGE_BUFFER_BYTES: u32 = (128 << 10) + 4096;
/// The most workers on one CPU among which the sizes above are shared.
const MOST_SHARERS: usize = 16;

/// Sizes of one worker's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    sq_entries: u32,
    pub(crate) cq_entries: u32,
    buffers: u16,
    large_buffers: u16,
    pub(crate) direct_slots: u32,
    /// They are for connections of Unix sockets, which are accepted elsewhere.
    pub(crate) direct_adopted: bool,
}

impl Sizes {
    /// Sizes for one of `workers` on `cpus`. Workers that share a CPU share its cache, and do not
    /// work at the same time: with 52 workers on 2 CPUs for a million connections the queues and
    /// buffers would be 130 MiB, which is 130 bytes per connection.
    pub(crate) fn new(
        workers: usize,
        cpus: usize,
        cq_entries: Option<u32>,
        direct_slots: u32,
    ) -> Self {
        let sharers = workers.div_ceil(cpus.max(1)).next_power_of_two();
        let share = sharers.min(MOST_SHARERS).trailing_zeros();
        let cq_entries = cq_entries.unwrap_or(CQ_ENTRIES >> share);
        Self {
            sq_entries: (SQ_ENTRIES >> share).min(cq_entries),
            cq_entries,
            buffers: BUFFERS >> share,
            large_buffers: LARGE_BUFFERS >> share,
            direct_slots,
            direct_adopted: false,
        }
    }

    /// All receive buffers, in bytes.
    pub(crate) fn pool_bytes(&self) -> usize {
        usize::from(self.buffers) * BUFFER_BYTES as usize
    }

    /// Makes the ring of the calling thread.
    ///
    /// # Errors
    /// As [`uring_net::RingBuilder::build`].
    pub(crate) fn build(&self) -> Result<Ring, SetupError> {
        let builder = Ring::builder()
            .entries(self.sq_entries)
            .cq_entries(self.cq_entries)
            .buffers(self.buffers, BUFFER_BYTES)
            .large_buffers(self.large_buffers, LARGE_BUFFER_BYTES);
        let builder = if self.direct_adopted {
            builder.direct_adopted(self.direct_slots)
        } else {
            builder.direct(self.direct_slots)
        };
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_share_a_cpu_share_its_memory() {
        let sizes = |workers, cpus| {
            let sizes = Sizes::new(workers, cpus, None, 0);
            (sizes.sq_entries, sizes.cq_entries, sizes.buffers)
        };
        assert_eq!(sizes(2, 2), (4096, 16_384, 512));
        assert_eq!(sizes(1, 64), (4096, 16_384, 512));
        assert_eq!(sizes(3, 2), (2048, 8192, 256));
        assert_eq!(sizes(8, 2), (1024, 4096, 128));
        assert_eq!(sizes(52, 2), (256, 1024, 32));
        assert_eq!(sizes(1024, 1), (256, 1024, 32));
    }

    #[test]
    fn a_small_completion_queue_has_no_larger_submission_queue() {
        assert_eq!(Sizes::new(1, 1, Some(64), 0).sq_entries, 64);
        assert_eq!(Sizes::new(1, 1, Some(65_536), 0).sq_entries, SQ_ENTRIES);
    }
}
