//! A receive buffer that belongs to a thread.

use std::cell::RefCell;

use server_core::options::READ_BUFFER_BYTES;

thread_local! {
    /// Empty until it is needed.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::default();
}

/// Hands out the thread's buffer, which all its connections use in turn and never across an await.
pub(crate) fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|buf| {
        if buf.is_empty() {
            *buf = vec![0; READ_BUFFER_BYTES].into();
        }
        f(buf)
    })
}

/// Frees it.
pub(crate) fn free_scratch() {
    SCRATCH.take();
}
