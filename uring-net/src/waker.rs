//! Waking a ring from another thread.

/// Wakes the ring it was made by, from any thread. Cheap to clone.
///
/// Wakes are coalesced: any number of calls before the ring looks give one [`Event::Woken`](crate::Event::Woken), and only the
/// first of them costs a system call. What the waking thread wrote before is visible to the ring's thread at that event.
#[derive(Debug, Clone)]
pub struct Waker {}

impl Waker {
    /// Makes the ring's [`wait`](crate::Ring::wait) return with an [`Event::Woken`](crate::Event::Woken).
    pub fn wake(&self) {
        todo!()
    }
}
