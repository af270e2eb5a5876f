//! The provided-buffer ring: memory that the kernel fills and callers lease.
//!
//! Who may touch buffer `id` when: the kernel, from the moment its entry is published in the ring
//! until a completion names `id`; then the one [`ReceivedBuf`] made from that completion; its drop
//! publishes `id` again. The memory itself is kept by every lease.
//!
//! Only as many buffers are in circulation as the traffic needs. The kernel takes them in turn, so
//! that with all of them each receive would write to memory that has left the cache.

#![expect(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::completion::clamp;

/// Private anonymous memory, page-aligned and zeroed.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice touches no existing
        // memory.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, once. No lease is left (each holds the pool
        // that holds this), and the kernel has let go of it: `Ring` unregisters the buffer ring
        // before it lets go of the pool, or leaks the pool. An error would mean that the range is
        // not ours, which the line above rules out; there is nothing to do about it in a drop.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The buffers of one ring and the ring of entries through which they are provided.
#[derive(Debug)]
pub(crate) struct BufferPool {
    entries: Mapping,
    memory: Mapping,
    /// What the kernel calls the first of them.
    first_id: u16,
    count: u16,
    size: u32,
    tail: Cell<u16>,
    leased: Cell<u16>,
    /// The buffers below this number are in circulation.
    circulating: Cell<u16>,
    /// Those that are not; one above the number that is out still comes here when it is back.
    resting: RefCell<Vec<u16>>,
    /// The kernel had so few at least since the last look at it.
    fewest: Cell<u16>,
    /// Turns until the next look.
    patience: Cell<u16>,
    /// The circulation has grown in this turn.
    grown: Cell<bool>,
}

/// The fewest buffers in circulation, if there are so many.
const LEAST_CIRCULATING: u16 = 32;
/// Turns in which at least half of the buffers are not needed before they rest.
const TURNS_BEFORE_REST: u16 = 1024;

impl BufferPool {
    /// `count` is a power of two, at most 32,768. The kernel calls the buffers `first_id` and so
    /// on.
    pub(crate) fn new(first_id: u16, count: u16, size: u32) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let bytes = usize::from(count)
            .checked_mul(size as usize)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let pool = Self {
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(bytes)?,
            first_id,
            count,
            size,
            tail: Cell::new(0),
            leased: Cell::new(0),
            circulating: Cell::new(0),
            resting: RefCell::new((0..count).collect()),
            fewest: Cell::new(0),
            patience: Cell::new(TURNS_BEFORE_REST),
            grown: Cell::new(false),
        };
        pool.circulate(LEAST_CIRCULATING.min(count));
        Ok(pool)
    }

    /// Has `number` buffers circulate: at once where they rest, else when they are back.
    fn circulate(&self, number: u16) {
        self.circulating.set(number);
        self.resting.borrow_mut().retain(|&id| {
            let rests = id >= number;
            if !rests {
                self.provide(id);
            }
            rests
        });
        self.fewest.set(number);
        self.patience.set(TURNS_BEFORE_REST);
    }

    /// A receive has found none: more will circulate, if there are more.
    pub(crate) fn grow(&self) {
        let now = self.circulating.get();
        if now < self.count && !self.grown.replace(true) {
            self.circulate(now * 2);
        }
    }

    /// Gives the memory of the buffers back, unless one is leased; it comes again when it is
    /// written to.
    ///
    /// # Safety
    /// There is no completion, taken or not, for which no lease has been made yet, and the kernel
    /// writes to no buffer while this runs.
    pub(crate) unsafe fn release(&self) {
        if self.leased.get() > 0 {
            return;
        }
        let Mapping { start, len } = &self.memory;
        // SAFETY: the range is the whole mapping. What becomes zeroes is looked at by nobody:
        // nothing is leased, and by the caller's promise no buffer holds anything. An error leaves
        // the memory as it is.
        let _ = unsafe { madvise(start.as_ptr().cast(), *len, Advice::LinuxDontNeed) };
    }

    /// A turn begins: what was not needed for long rests.
    #[inline]
    pub(crate) fn turn(&self) {
        self.grown.set(false);
        self.patience.set(self.patience.get() - 1);
        if self.patience.get() == 0 {
            let now = self.circulating.get();
            let spare = self.fewest.get() > now / 2 && now > LEAST_CIRCULATING;
            self.circulate(if spare { now / 2 } else { now });
        }
    }

    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    /// How many buffers in circulation are not leased: an upper bound of what the kernel has to
    /// give (completions not yet taken hold some, too).
    #[inline]
    pub(crate) fn free(&self) -> usize {
        usize::from(self.circulating.get().saturating_sub(self.leased.get()))
    }

    /// The first byte of buffer `id`.
    #[inline]
    fn address(&self, id: u16) -> *mut u8 {
        assert!(
            id < self.count,
            "the kernel names only buffers it was given"
        );
        // SAFETY: `id < count`, so the offset lies inside the mapping of `count * size` bytes.
        unsafe {
            self.memory
                .start
                .as_ptr()
                .add(usize::from(id) * self.size as usize)
        }
    }

    /// Gives buffer `id` to the kernel.
    #[inline]
    fn provide(&self, id: u16) {
        let address = self.address(id) as u64;
        let tail = self.tail.get();
        let base = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the masked index is below `count`, the number of entries mapped at `base`; the
        // mapping is page-aligned and zeroed, and an entry is plain integers. The kernel reads an
        // entry only below the published tail, and at most `count` ids exist, each published once
        // until it comes back, so the entry at `tail` is not one that the kernel may still read.
        unsafe {
            let entry = base.add(usize::from(tail & (self.count - 1)));
            (*entry).set_addr(address);
            (*entry).set_len(self.size);
            (*entry).set_bid(self.first_id + id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: the tail lives in the first entry, which is mapped, initialised (zeroed) and
        // aligned for a u16. The kernel only reads it, and this thread makes no reference to it
        // that outlives the store. Release: the entry is written before it is seen.
        unsafe {
            let published = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(published).store(tail, Ordering::Release);
        }
    }

    /// Takes the buffer that the kernel calls `name` with `len` bytes received.
    ///
    /// # Safety
    /// A completion has named it since it was last provided, and no lease has been made for that
    /// completion yet.
    #[inline]
    pub(crate) unsafe fn lease(self: &Rc<Self>, name: u16, len: u32) -> ReceivedBuf {
        let id = name.wrapping_sub(self.first_id);
        assert!(
            id < self.count && len <= self.size,
            "the kernel stays inside a buffer"
        );
        self.leased.set(self.leased.get() + 1);
        let left = self.circulating.get().saturating_sub(self.leased.get());
        self.fewest.set(self.fewest.get().min(left));
        ReceivedBuf {
            pool: Rc::clone(self),
            start: 0,
            len,
            id,
        }
    }
}

/// A lease of one buffer of the ring, holding bytes that were received.
///
/// The bytes may be read and changed in place, cut to a part, and sent again without a copy.
/// Dropping the lease, or the completion of the send it was given to, gives the buffer back to the
/// kernel. While a lease lives the ring has one buffer less to receive into: copy what must be kept
/// long.
#[derive(Debug)]
pub struct ReceivedBuf {
    pool: Rc<BufferPool>,
    start: u32,
    len: u32,
    id: u16,
}

impl ReceivedBuf {
    /// Keeps only `range` of the present bytes (cut to what is there): afterwards the lease derefs
    /// to, and sends, only those.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are at most the old length"
    )]
    pub fn narrow(&mut self, range: Range<usize>) {
        let range = clamp(range, self.len as usize);
        self.start += range.start as u32;
        self.len = range.len() as u32;
    }
}

impl Deref for ReceivedBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start + len` stays within `size` (asserted at the lease, only ever narrowed), so
        // the range lies in buffer `id`; the memory is mapped (the lease holds the pool) and
        // initialised (zeroed at first, then written by the kernel). The kernel does not write to
        // it while the lease lives, because `id` is not provided; no other lease has this `id`; and
        // the borrow of `self` excludes `deref_mut`.
        unsafe {
            slice::from_raw_parts(
                self.pool.address(self.id).add(self.start as usize),
                self.len as usize,
            )
        }
    }
}

impl DerefMut for ReceivedBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of the only lease of this buffer makes the
        // slice exclusive.
        unsafe {
            slice::from_raw_parts_mut(
                self.pool.address(self.id).add(self.start as usize),
                self.len as usize,
            )
        }
    }
}

impl Drop for ReceivedBuf {
    #[inline]
    fn drop(&mut self) {
        self.pool.leased.set(self.pool.leased.get() - 1);
        if self.id < self.pool.circulating.get() {
            self.pool.provide(self.id);
        } else {
            self.pool.resting.borrow_mut().push(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_counted_narrowed_and_given_back() {
        let pool = Rc::new(BufferPool::new(0, 4, 16).unwrap());
        assert_eq!(pool.free(), 4);
        // SAFETY: no kernel knows this pool, and the ids differ.
        let (mut first, mut second) = unsafe { (pool.lease(1, 10), pool.lease(3, 16)) };
        assert_eq!(pool.free(), 2);
        first.copy_from_slice(b"0123456789");
        second.fill(b'x');
        first.narrow(2..9);
        assert_eq!(&*first, b"2345678");
        first.narrow(1..100);
        assert_eq!(&*first, b"345678");
        first.narrow(9..9);
        assert_eq!(&*first, b"");
        drop(first);
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.tail.get(), 5);
        drop(second);
        assert_eq!(pool.free(), 4);
    }

    /// Leases so many buffers, as if the kernel had taken them in the order of their numbers.
    fn lease_all(pool: &Rc<BufferPool>, ids: Range<u16>) -> Vec<ReceivedBuf> {
        // SAFETY: no kernel knows this pool, and no two leases have one number.
        ids.map(|id| unsafe { pool.lease(id, 1) }).collect()
    }

    #[test]
    fn as_many_buffers_circulate_as_are_needed() {
        let pool = Rc::new(BufferPool::new(0, 256, 16).unwrap());
        assert_eq!((pool.free(), pool.tail.get()), (32, 32));
        let leases = lease_all(&pool, 0..32);
        pool.grow();
        pool.grow();
        assert_eq!((pool.free(), pool.tail.get()), (32, 64), "once in a turn");
        drop(leases);
        for _ in 0..4 {
            pool.turn();
            pool.grow();
        }
        assert_eq!(pool.free(), 256, "there are no more");
        assert_eq!(pool.tail.get(), 256 + 32, "each that was leased, again");
        // All of them needed from time to time: they stay.
        for turn in 0..3 * TURNS_BEFORE_REST {
            pool.turn();
            if turn % 100 == 0 {
                drop(lease_all(&pool, 0..256));
            }
        }
        assert_eq!(pool.circulating.get(), 256);
    }

    #[test]
    fn buffers_rest_that_were_not_needed_for_long() {
        let pool = Rc::new(BufferPool::new(0, 64, 16).unwrap());
        pool.grow();
        assert_eq!(pool.circulating.get(), 64);
        let high = lease_all(&pool, 60..64);
        for _ in 0..2 * TURNS_BEFORE_REST {
            pool.turn();
        }
        assert_eq!(pool.circulating.get(), 32, "not below the least");
        let before = pool.tail.get();
        drop(high);
        assert_eq!(pool.tail.get(), before, "they rest when they are back");
        pool.grow();
        assert_eq!(
            pool.tail.get(),
            before + 4,
            "the others were never taken out"
        );
    }

    #[test]
    fn a_lease_outlives_its_ring_end() {
        let pool = Rc::new(BufferPool::new(0, 1, 8).unwrap());
        // SAFETY: no kernel knows this pool, and this is its only lease.
        let lease = unsafe { pool.lease(0, 8) };
        drop(pool);
        assert_eq!(&*lease, &[0; 8]);
    }
}
