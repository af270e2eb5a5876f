//! The ring of a worker: how large it is.

use uring_net::{Ring, SetupError};

/// Operations started with one system call.
pub(crate) const SQ_ENTRIES: u32 = 4096;
/// Completions that fit without the kernel having to allocate.
pub(crate) const CQ_ENTRIES: u32 = 16_384;
/// Receive buffers of a worker: 2 MiB, which stay in the cache. Prototypes with 16 MiB were slower at 10,000 connections. More are rarely in use: a
/// buffer is back as soon as the reply in it is sent, which never waits for the peer.
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
