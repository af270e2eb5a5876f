//! Making a ring: sizes in, a [`Ring`] and a report of what the kernel granted out.

#![expect(unsafe_code)]

use std::io;

use io_uring::{IoUring, opcode};

use crate::buffers::BufferPool;
use crate::direct::Holds;
use crate::error::{Cause, KernelVersion, SetupError, Step};
use crate::kernel::{BUFFER_GROUP, Kernel};
use crate::large::LargeSize;
use crate::ring::Ring;

/// The most buffers a group can have.
pub(crate) const MAX_BUFFERS: u16 = 1 << 15;

/// The most slots for direct sockets that a ring can have (the kernel's `IORING_MAX_FIXED_FILES`),
/// whatever the limit on open files.
pub const MAX_DIRECT_SLOTS: u32 = 1 << 20;

/// The operations that are used, all in 6.1.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Read::CODE, "READ"),
];

/// Sizes of a ring and its receive buffers. By default 1,024 submission entries, 16,384 completion
/// entries, 256 receive buffers of 4 KiB (1 MiB, cache-sized).
#[derive(Debug, Clone)]
pub struct RingBuilder {
    entries: u32,
    cq_entries: u32,
    buffer_count: u16,
    buffer_size: u32,
    large: LargeSize,
    direct_slots: u32,
    holds: Holds,
}

impl Default for RingBuilder {
    fn default() -> Self {
        Self {
            entries: 1024,
            cq_entries: 16_384,
            buffer_count: 256,
            buffer_size: 4096,
            large: LargeSize::default(),
            direct_slots: 0,
            holds: Holds::default(),
        }
    }
}

impl RingBuilder {
    /// Submission entries (rounded up to a power of two, at most 32,768): how many operations one
    /// system call starts.
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

    /// Receive buffers: `count` (rounded up to a power of two, at most 32,768) of `size` bytes
    /// each.
    #[must_use]
    pub fn buffers(mut self, count: u16, size: u32) -> Self {
        self.buffer_count = count;
        self.buffer_size = size;
        self
    }

    /// Buffers for [`Ring::receive_large`]: `count` (rounded up to a power of two, at most 32,768)
    /// of `size` bytes each, which exist from the first of those calls on until
    /// [`Ring::release_buffers`] finds none in use. 0, the default: there are none.
    #[must_use]
    pub fn large_buffers(mut self, count: u16, size: u32) -> Self {
        self.large = LargeSize { count, size };
        self
    }

    /// Accepts connections into a table of this ring instead of the process's table of descriptors:
    /// `slots` of them, at most [`MAX_DIRECT_SLOTS`]. The limit on open files counts for each
    /// ring's table by itself, so that a process with several rings can hold more sockets than
    /// descriptors. 0, the default: accepted sockets have descriptors.
    ///
    /// Needs [`KernelVersion::DIRECT`]. Such sockets have no [`fd`](Ring::fd); everything else
    /// works with them.
    #[must_use]
    pub fn direct(mut self, slots: u32) -> Self {
        self.direct_slots = slots;
        self.holds = Holds::Accepted;
        self
    }

    /// As [`direct`](Self::direct), but for the sockets that are given to [`Ring::adopt`]; accepted
    /// ones have descriptors. A ring has one table: the later of the two calls counts.
    #[must_use]
    pub fn direct_adopted(mut self, slots: u32) -> Self {
        self.direct_slots = slots;
        self.holds = Holds::Adopted;
        self
    }

    /// Makes the ring. It belongs to the calling thread for good.
    ///
    /// # Errors
    /// When the kernel refuses io_uring or lacks a feature; the error names cause and remedy.
    pub fn build(&self) -> Result<Ring, SetupError> {
        let kernel = Kernel::new(self.set_up().map_err(at(Step::Setup))?);
        let probe = kernel.probe().map_err(at(Step::Probe))?;
        for (code, operation) in OPERATIONS {
            if !probe.is_supported(code) {
                return Err(SetupError {
                    step: Step::Probe,
                    cause: Cause::Restricted { operation },
                    source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                });
            }
        }
        // Before the buffers: after them nothing can fail, so they are never unmapped while they
        // are registered. (That would harm nothing: no request has been submitted that could use
        // them.)
        self.register_table(&kernel)?;
        let count = power_of_two(self.buffer_count);
        let pool = BufferPool::new(0, count, self.buffer_size.max(1)).map_err(at(Step::Buffers))?;
        // SAFETY: the pool's mapping is page-aligned and holds `count` entries that name buffers of
        // the pool. `Ring::drop` unregisters before it lets go of the pool, or leaks it; when this
        // fails, nothing was registered.
        unsafe { kernel.register_buffers(pool.entries_address(), count, BUFFER_GROUP) }
            .map_err(at(Step::BufferRing))?;
        let params = kernel.params();
        let setup = Setup {
            sq_entries: params.sq_entries(),
            cq_entries: params.cq_entries(),
            buffer_count: count,
            buffer_size: self.buffer_size.max(1),
            direct_slots: self.direct_slots,
            direct_adopted: self.holds == Holds::Adopted,
        };
        Ok(Ring::new(kernel, pool, self.large, setup, self.holds))
    }

    fn register_table(&self, kernel: &Kernel) -> Result<(), SetupError> {
        if self.direct_slots == 0 {
            return Ok(());
        }
        let running = KernelVersion::running();
        if running.is_some_and(|running| running < KernelVersion::DIRECT) {
            return Err(SetupError {
                step: Step::Table,
                cause: Cause::TooOld {
                    feature: "a table of direct descriptors that frees each one when it is closed",
                    since: KernelVersion::DIRECT,
                    running,
                },
                source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            });
        }
        kernel
            .register_table(self.direct_slots)
            .map_err(at(Step::Table))
    }

    /// With every flag; without `NO_SQARRAY` where the kernel does not know it, for that changes
    /// speed and nothing else.
    fn set_up(&self) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder
            .setup_clamp()
            .setup_cqsize(self.cq_entries.max(self.entries).max(1))
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .setup_defer_taskrun();
        let entries = self.entries.max(1);
        let plain = builder.clone();
        match builder.setup_no_sqarray().build(entries) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain.build(entries),
            result => result,
        }
    }
}

/// How many buffers a group has of which `count` are asked for.
pub(crate) fn power_of_two(count: u16) -> u16 {
    count.clamp(1, MAX_BUFFERS).next_power_of_two()
}

fn at(step: Step) -> impl FnOnce(io::Error) -> SetupError {
    move |error| SetupError::new(step, error)
}

/// What the kernel granted.
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
    /// Slots for direct sockets; 0 where all sockets have descriptors.
    pub direct_slots: u32,
    /// Those slots are for adopted sockets, not for accepted ones.
    pub direct_adopted: bool,
}

/// Checks, by making and dropping a small ring, whether this process may use everything this crate
/// needs.
///
/// # Errors
/// As [`RingBuilder::build`].
pub fn probe() -> Result<(), SetupError> {
    let small = Ring::builder().entries(8).cq_entries(16).buffers(8, 4096);
    small.build().map(drop)
}
