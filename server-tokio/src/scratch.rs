//! Buffers that belong to a thread.

use std::cell::RefCell;

use server_core::options::READ_BUFFER_BYTES;

/// Buffers of a thread, used by all its connections in turn and never across an await.
pub(crate) struct Scratch {
    /// To receive into.
    pub(crate) buf: Box<[u8]>,
    /// For replies that cannot be made in place. Empty between uses.
    pub(crate) spill: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        buf: vec![0; READ_BUFFER_BYTES].into(),
        spill: Vec::new(),
    });
}

pub(crate) fn with_scratch<T>(f: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(f)
}
