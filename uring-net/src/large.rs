//! The large receive buffers: a second group, there only while some socket uses it.

#![expect(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::rc::Rc;

use crate::buffers::BufferPool;
use crate::builder::{MAX_BUFFERS, power_of_two};
use crate::completion::Token;
use crate::ids::{OperationId, SocketId};
use crate::kernel::{Kernel, LARGE_BUFFER_GROUP};
use crate::op::{ReceiveMode, ReceiveState};
use crate::ring::Ring;
use crate::slab::Key;

/// What the kernel calls the first large buffer: the others have the numbers below, so that the
/// number alone says which pool a buffer is of.
pub(crate) const FIRST_LARGE_ID: u16 = MAX_BUFFERS;

/// How many there are to be, and of how many bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LargeSize {
    pub(crate) count: u16,
    pub(crate) size: u32,
}

/// The group of large buffers.
#[derive(Debug)]
pub(crate) struct LargeBuffers {
    size: LargeSize,
    pub(crate) pool: Option<Rc<BufferPool>>,
    /// Receives that wait for one of them.
    pub(crate) starved: VecDeque<Key>,
}

impl LargeBuffers {
    pub(crate) fn new(size: LargeSize) -> Self {
        Self {
            size,
            pool: None,
            starved: VecDeque::new(),
        }
    }

    /// Sees to it that they exist.
    fn ensure(&mut self, kernel: &Kernel) -> io::Result<()> {
        let LargeSize { count, size } = self.size;
        if count == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.pool.is_none() {
            let count = power_of_two(count);
            let pool = BufferPool::new(FIRST_LARGE_ID, count, size.max(1))?;
            // SAFETY: as in `RingBuilder::build`; `end` unregisters before it lets go of the pool,
            // or leaks it.
            unsafe {
                kernel.register_buffers(pool.entries_address(), count, LARGE_BUFFER_GROUP)?;
            }
            self.pool = Some(Rc::new(pool));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.pool.as_ref().map_or(0, |pool| pool.free())
    }

    /// Lets go of them. Those that are leased live until they come back.
    pub(crate) fn end(&mut self, kernel: &Kernel, in_use: bool) {
        if let Some(pool) = self.pool.take()
            && (in_use || kernel.unregister_buffers(LARGE_BUFFER_GROUP).is_err())
        {
            mem::forget(pool);
        }
    }
}

impl Ring {
    /// As [`receive`](Ring::receive), into the [large buffers](crate::RingBuilder::large_buffers):
    /// for a socket whose messages are longer than an ordinary buffer. Where there are no large
    /// ones, or no memory for them, into ordinary ones.
    ///
    /// A receive in flight, of any kind but [`receive_into`](Ring::receive_into), goes on so, under
    /// the new token: nothing is lost, and no event says so.
    pub fn receive_large(&mut self, socket: SocketId, token: Token) -> OperationId {
        let mode = match self.large.ensure(&self.kernel) {
            Ok(()) => ReceiveMode::Large,
            Err(_) => ReceiveMode::Multishot,
        };
        self.receive_as(socket, mode, token)
    }

    /// Gives the memory of the receive buffers back, if none is leased, and lets go of the large
    /// ones if no socket is received from into them. For when much traffic has ended; does nothing
    /// while there are completions to take.
    pub fn release_buffers(&mut self) {
        if self.has_completions() {
            return;
        }
        for pool in [Some(&self.pool), self.large.pool.as_ref()]
            .into_iter()
            .flatten()
        {
            // SAFETY: every completion has been taken, which made the lease of its buffer. With
            // DEFER_TASKRUN (`RingBuilder::set_up`) the kernel receives only within this thread's
            // calls of `io_uring_enter`.
            unsafe { pool.release() };
        }
        // Those that starved may have another mode by now: they are fed from here all the same.
        let in_use = !self.large.starved.is_empty()
            || self.sockets.iter().any(|slot| {
                let ending = [ReceiveState::Switching, ReceiveState::Cancelling];
                slot.mode == ReceiveMode::Large || ending.contains(&slot.receive)
            });
        if !in_use {
            self.large.end(&self.kernel, false);
        }
    }
}
