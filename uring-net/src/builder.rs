//! Making a ring: sizes in, a [`Ring`] and a report of what the kernel granted out.

use crate::error::SetupError;
use crate::ring::Ring;

/// Sizes of a ring and its receive buffers.
#[derive(Debug, Clone)]
pub struct RingBuilder {
    pub(crate) entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) buffer_count: u16,
    pub(crate) buffer_size: u32,
}

impl Default for RingBuilder {
    fn default() -> Self {
        Self {
            entries: 1024,
            cq_entries: 16_384,
            buffer_count: 256,
            buffer_size: 4096,
        }
    }
}

impl RingBuilder {
    /// 1,024 submission entries, 16,384 completion entries, 256 receive buffers of 4 KiB (1 MiB, cache-sized).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Submission entries (rounded up to a power of two, at most 32,768): how many operations one system call starts.
    #[must_use]
    pub fn entries(mut self, entries: u32) -> Self {
        self.entries = entries;
        self
    }

    /// Completion entries (rounded up to a power of two, at most 65,536).
    #[must_use]
    pub fn cq_entries(mut self, entries: u32) -> Self {
        self.cq_entries = entries;
        self
    }

    /// Receive buffers: `count` (rounded up to a power of two, at most 32,768) of `size` bytes each.
    #[must_use]
    pub fn buffers(mut self, count: u16, size: u32) -> Self {
        self.buffer_count = count;
        self.buffer_size = size;
        self
    }

    /// Makes the ring. It belongs to the calling thread for good.
    ///
    /// # Errors
    /// When the kernel refuses io_uring or lacks a feature; the error names cause and remedy.
    pub fn build(&self) -> Result<Ring, SetupError> {
        todo!()
    }
}

/// What the kernel granted; for the records of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Submission entries.
    pub sq_entries: u32,
    /// Completion entries.
    pub cq_entries: u32,
    /// Receive buffers.
    pub buffer_count: u16,
    /// Bytes of one receive buffer.
    pub buffer_size: u32,
    /// `IORING_SETUP_NO_SQARRAY` is in force (6.6).
    pub no_sqarray: bool,
    /// The ring's own fd is registered (5.18).
    pub registered_ring_fd: bool,
    /// `min_wait_usec` and absolute wait deadlines are in force (6.12).
    pub min_wait: bool,
    /// Waiting is not accounted as waiting for a disk (6.15).
    pub no_iowait: bool,
}

/// Checks, by making and dropping a small ring, whether this process may use everything this crate needs.
///
/// # Errors
/// As [`RingBuilder::build`].
pub fn probe() -> Result<Setup, SetupError> {
    RingBuilder::new()
        .entries(8)
        .cq_entries(16)
        .buffers(8, 4096)
        .build()
        .map(|ring| ring.setup().clone())
}
