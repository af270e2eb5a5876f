//! What a ring counts.

/// What the ring did. Apart from `enters` it is how often the ring had to help itself: all
/// harmless, all a hint that a size is too small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `io_uring_enter`: to submit, to wait or both.
    pub enters: u64,
    /// Receives that found no free buffer (`ENOBUFS`) and were paused.
    pub receives_starved: u64,
    /// Multishot operations that the kernel ended and the ring started again.
    pub rearmed: u64,
    /// Sends that the kernel took only partly and the ring continued.
    pub sends_continued: u64,
    /// Submissions forced by a full submission queue.
    pub sq_full: u64,
    /// Times the completion queue was found overflown and was flushed.
    pub cq_overflows: u64,
}
