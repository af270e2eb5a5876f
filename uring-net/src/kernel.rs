//! The two queues shared with the kernel, and the one system call that moves them.

#![expect(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::thread;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, Submitter, squeue};

/// How long a ring waits when the kernel has no memory for a request, before it tries again.
const MEMORY_PATIENCE: Duration = Duration::from_millis(1);

/// The buffer group of the one provided-buffer ring.
pub(crate) const BUFFER_GROUP: u16 = 0;
/// The group of the large ones.
pub(crate) const LARGE_BUFFER_GROUP: u16 = 1;

/// A completion as the kernel writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// An io_uring that keeps what does not fit into its submission queue.
pub(crate) struct Kernel {
    /// Points into `*ring`; carries the registered index of the ring's fd, which is why one
    /// submitter is kept.
    submitter: Submitter<'static>,
    /// From `Box::into_raw`, freed in `drop`. Only shared references to it are made before that.
    ring: NonNull<IoUring>,
    /// Entries that found the queue full while the kernel would not take any; in order, after
    /// everything in the queue.
    spill: VecDeque<squeue::Entry>,
    registered: bool,
    /// Why this ring can not go on: the kernel had no memory for a completion that did not fit into
    /// the queue, and dropped it (`EBADR`); or what [`fail`](Self::fail) was told.
    broken: Option<i32>,
    wait_flags: EnterFlags,
    /// Submissions forced by a full queue.
    pub(crate) forced: u64,
    /// System calls.
    pub(crate) enters: u64,
    /// Overflows of the completion queue that were flushed.
    pub(crate) overflows: u64,
}

impl Kernel {
    /// Takes the ring and registers its fd where the kernel can do that.
    pub(crate) fn new(ring: IoUring) -> Self {
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_min_timeout() {
            // Came with the same release, 6.12.
            wait_flags |= EnterFlags::ABS_TIMER;
        }
        if ring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: `ring` is a live, aligned IoUring that is freed only in `drop`, after the last
        // use of the submitter, and no exclusive reference to it is made before: so the shared
        // reference may be as long as this struct lives, which is all that 'static stands for here
        // (the submitter never leaves this struct).
        let ring_ref: &'static IoUring = unsafe { ring.as_ref() };
        let mut submitter = ring_ref.submitter();
        let registered = submitter.register_ring_fd().is_ok();
        Self {
            submitter,
            ring,
            spill: VecDeque::new(),
            registered,
            broken: None,
            wait_flags,
            forced: 0,
            enters: 0,
            overflows: 0,
        }
    }

    #[inline]
    fn ring(&self) -> &IoUring {
        // SAFETY: as in `new`: live until `drop`, and only ever shared.
        unsafe { self.ring.as_ref() }
    }

    pub(crate) fn params(&self) -> &io_uring::Parameters {
        self.ring().params()
    }

    /// Whether wait deadlines are absolute and `min_wait` works.
    #[inline]
    pub(crate) fn absolute(&self) -> bool {
        self.wait_flags.contains(EnterFlags::ABS_TIMER)
    }

    pub(crate) fn probe(&self) -> io::Result<Probe> {
        let mut probe = Probe::new();
        self.submitter.register_probe(&mut probe)?;
        Ok(probe)
    }

    /// Registers a ring of provided buffers.
    ///
    /// # Safety
    /// `entries` is the address of `count` page-aligned entries that stay mapped until
    /// [`unregister_buffers`](Self::unregister_buffers) or the end of this ring, and so do the
    /// buffers they name.
    pub(crate) unsafe fn register_buffers(
        &self,
        entries: u64,
        count: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: the caller's promise is the one asked for.
        unsafe {
            self.submitter
                .register_buf_ring_with_flags(entries, count, group, 0)
        }
    }

    pub(crate) fn unregister_buffers(&self, group: u16) -> io::Result<()> {
        self.submitter.unregister_buf_ring(group)
    }

    /// Registers a table of `slots` empty slots for files.
    pub(crate) fn register_table(&self, slots: u32) -> io::Result<()> {
        self.submitter.register_files_sparse(slots)
    }

    /// Puts the file behind a descriptor into an empty slot of the table, too.
    pub(crate) fn put_into_table(&self, slot: u32, fd: RawFd) -> io::Result<()> {
        self.submitter.register_files_update(slot, &[fd]).map(drop)
    }

    pub(crate) fn unregister_table(&self) -> io::Result<()> {
        self.submitter.unregister_files()
    }

    /// Queues an entry. When the queue is full it submits; when the kernel takes nothing, the entry
    /// waits in the spill.
    ///
    /// # Safety
    /// Whatever memory the entry points to stays valid, and is not otherwise used in a way that
    /// conflicts with the operation, until the operation's last completion has been taken.
    #[inline]
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        if self.spill.is_empty() {
            // SAFETY: the entry's memory is the caller's promise.
            if unsafe { self.try_push(entry) } {
                return;
            }
            self.forced += 1;
            // An error leaves the queue full, which the next line notices; the next wait reports
            // it.
            let _ = self.submit();
            // SAFETY: as above.
            if unsafe { self.try_push(entry) } {
                return;
            }
        }
        self.spill.push_back(entry.clone());
    }

    /// # Safety
    /// As [`push`](Self::push).
    #[inline]
    unsafe fn try_push(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: no other SubmissionQueue exists: every use in this file is a temporary, this type
        // is neither Send nor Sync, and nothing called here calls back. The entry's memory is the
        // caller's promise.
        unsafe { self.ring().submission_shared().push(entry).is_ok() }
    }

    /// Moves spilled entries into the queue as far as there is room. True when none is left.
    fn unspill(&mut self) -> bool {
        while let Some(entry) = self.spill.front() {
            // SAFETY: whoever pushed the entry promised validity until its completion, which has
            // not come: it was not yet submitted.
            if !unsafe { self.try_push(entry) } {
                return false;
            }
            self.spill.pop_front();
        }
        true
    }

    #[inline]
    fn queued(&self) -> u32 {
        // SAFETY: as in `try_push`, the only SubmissionQueue at this moment.
        let len = unsafe { self.ring().submission_shared().len() };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Whether the kernel has taken every entry.
    #[inline]
    pub(crate) fn has_submitted_all(&self) -> bool {
        self.spill.is_empty() && self.queued() == 0
    }

    /// Hands the queue to the kernel. The spill is moved first and may not all fit.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        loop {
            let all = self.unspill();
            let queued = self.queued();
            if queued == 0 {
                return Ok(());
            }
            self.enters += 1;
            // SAFETY: no argument is passed, so there is nothing to be valid but the numbers;
            // `queued` entries were written.
            let taken = match unsafe { self.submitter.enter::<()>(queued, 0, 0, None) } {
                Ok(taken) => taken,
                Err(error) => return self.ride_out(error),
            };
            if all || taken == 0 {
                return Ok(());
            }
        }
    }

    /// Submits, lets deferred work run, flushes an overflown completion queue, and waits for `min`
    /// completions. A passed deadline and a signal are no errors, and neither is a refusal while
    /// there are completions to take: taking them is the cure.
    ///
    /// `deadline` is absolute or relative as [`absolute`](Self::absolute) says. Once the ring is
    /// broken, every wait says so.
    pub(crate) fn wait(
        &mut self,
        min: usize,
        min_wait_micros: u32,
        deadline: Option<&Timespec>,
    ) -> io::Result<()> {
        while !self.unspill() {
            if let Err(error) = self.enter(0, 0, None) {
                return self.ride_out(error);
            }
            if self.queued() > 0 && self.ready() {
                return Ok(());
            }
        }
        let outcome = match self.enter(min, min_wait_micros, deadline) {
            Ok(()) => Ok(()),
            Err(error) => self.ride_out(error),
        };
        match self.broken {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => outcome,
        }
    }

    /// The ring cannot go on: every wait from the next one on fails with `errno`.
    #[cold]
    pub(crate) fn fail(&mut self, errno: i32) {
        self.broken.get_or_insert(errno);
    }

    #[cold]
    fn ride_out(&self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            Some(libc::EBUSY | libc::EAGAIN) if self.ready() => Ok(()),
            // No memory for a request. Others may give some back, or the kernel ends a process; a
            // test can not bring this about.
            Some(libc::EAGAIN) => {
                thread::sleep(MEMORY_PATIENCE);
                Ok(())
            }
            _ => Err(error),
        }
    }

    #[inline]
    fn enter(
        &mut self,
        min: usize,
        min_wait_micros: u32,
        deadline: Option<&Timespec>,
    ) -> io::Result<()> {
        let mut args = SubmitArgs::new().min_wait_usec(min_wait_micros);
        if let Some(deadline) = deadline {
            args = args.timespec(deadline);
        }
        let min = u32::try_from(min).unwrap_or(u32::MAX);
        self.enters += 1;
        // SAFETY: EXT_ARG says that the argument is a getevents_arg, which SubmitArgs transparently
        // is; it and the timespec it points to live until the call returns, and the kernel keeps
        // neither. `queued` entries were written.
        let result = unsafe {
            self.submitter
                .enter(self.queued(), min, self.wait_flags.bits(), Some(&args))
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => {
                // The kernel says it once; we remember.
                if error.raw_os_error() == Some(libc::EBADR) {
                    self.fail(libc::EBADR);
                }
                Err(error)
            }
        }
    }

    /// Whether a completion can be taken without entering the kernel.
    #[inline]
    pub(crate) fn ready(&self) -> bool {
        // SAFETY: the only CompletionQueue at this moment, as with the SubmissionQueue in
        // `try_push`.
        unsafe { !self.ring().completion_shared().is_empty() }
    }

    /// Whether completions wait in the kernel's memory for room in the queue.
    #[inline]
    pub(crate) fn has_overflown(&self) -> bool {
        // SAFETY: the only SubmissionQueue at this moment.
        unsafe { self.ring().submission_shared().cq_overflow() }
    }

    /// Takes a completion. When there is none but some overflowed into the kernel's memory, fetches
    /// those.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        self.pop_ready().or_else(|| {
            if !self.has_overflown() {
                return None;
            }
            self.overflows += 1;
            // On an error they stay where they are, and the flag stays set: nothing is lost, the
            // next wait tries again and reports.
            let _ = self.enter(0, 0, None);
            self.pop_ready()
        })
    }

    #[inline]
    fn pop_ready(&self) -> Option<Cqe> {
        // SAFETY: the only CompletionQueue at this moment.
        let entry = unsafe { self.ring().completion_shared() }.next()?;
        Some(Cqe {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.registered {
            // The thread's table of registered rings holds a reference: without this the ring would
            // live as long as the thread.
            let _ = self.submitter.unregister_ring_fd();
        }
        // SAFETY: `ring` came from a leaked box and is freed once, here; the submitter, which also
        // points to it, is not used any more (it has no drop glue). Memory that operations in
        // flight may still use is the business of `Ring::drop`, which runs before.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("spilled", &self.spill.len())
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}
