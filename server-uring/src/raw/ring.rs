//! The ring of a worker: how large it is.

use uring_net::{Ring, SetupError};

/// Operations started with one system call.
pub(crate) const SQ_ENTRIES: u32 = 4096;
/// Completions that fit without the kernel having to allocate.
pub(crate) const CQ_ENTRIES: u32 = 16_384;
/// Receive buffers of a worker. All of them (2 MiB) stay in the cache; more of them were slower, measured with 10,000 connections.
pub(crate) const BUFFERS: u16 = 512;
/// Size of one of them: a page. Longer messages come in pieces.
pub(crate) const BUFFER_BYTES: u32 = 4096;
/// All of them.
pub(crate) const POOL_BYTES: usize = BUFFERS as usize * BUFFER_BYTES as usize;

/// Makes the ring of the calling thread.
///
/// # Errors
/// As [`uring_net::RingBuilder::build`].
pub(crate) fn build() -> Result<Ring, SetupError> {
    Ring::builder()
        .entries(SQ_ENTRIES)
        .cq_entries(CQ_ENTRIES)
        .buffers(BUFFERS, BUFFER_BYTES)
        .build()
}
