//! The provided-buffer ring: memory that the kernel fills and callers lease.

use std::ops::{Deref, DerefMut, Range};

/// A lease of one buffer of the ring, holding bytes that were received.
///
/// The bytes may be read and changed in place, cut to a part, and sent again without a copy. Dropping the lease,
/// or the completion of the send it was given to, gives the buffer back to the kernel. While a lease lives the
/// ring has one buffer less to receive into: copy what must be kept long.
#[derive(Debug)]
pub struct ReceivedBuf {
    start: u32,
}

impl ReceivedBuf {
    /// Keeps only `range` of the present bytes (cut to what is there): afterwards the lease derefs to, and
    /// sends, only those.
    pub fn narrow(&mut self, range: Range<usize>) {
        let _ = (range, self.start);
        todo!()
    }
}

impl Deref for ReceivedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}

impl DerefMut for ReceivedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}
