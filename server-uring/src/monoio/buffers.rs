//! Receive buffers: small ones that wait on sockets, large ones for what is known to be there.
//!
//! A receive of io_uring holds its buffer while it waits, so a large one for each connection would
//! cost 256 KiB for each idle one, and waiting for readiness first costs another operation for each
//! burst. So each connection waits with a buffer of the size of its recent bursts, 256 bytes to
//! begin with; when that is filled there is more, and the next receive borrows one of the worker's
//! large buffers. An echo of [bulky](ReadBuffer::is_bulky) bursts waits for readiness, without a
//! buffer, and then receives past the ring: so all such echoes of a worker share one large buffer,
//! which stays in the cache. Through the ring each would need its own until the end of the batch.

use std::cell::RefCell;
use std::io;

use ::monoio::BufResult;
use server_core::options::READ_BUFFER_BYTES;

/// Size of the buffer of a connection that receives little or nothing.
const SMALLEST: usize = 256;
/// Size of the largest buffer a connection waits with.
const LARGEST: usize = 32 * 1024;
/// Bursts that want a buffer larger than this are bulky.
const BULKY: usize = 4096;
/// Large buffers kept for reuse.
const SPARES: usize = 16;

/// The large buffers of a worker.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(RefCell<Vec<Vec<u8>>>);

impl BufferPool {
    /// A large buffer, empty, for a receive that does not wait. [`ReadBuffer::put`] brings it back.
    pub(crate) fn take(&self) -> Vec<u8> {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(READ_BUFFER_BYTES))
    }

    /// Frees them.
    pub(crate) fn clear(&self) {
        self.0.take();
    }

    fn put(&self, mut buf: Vec<u8>) {
        buf.clear();
        let mut buffer_pool = self.0.borrow_mut();
        if buffer_pool.len() < SPARES {
            buffer_pool.push(buf);
        }
    }
}

/// The receive buffer of one connection, between two receives.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    /// Empty, or of the size that is wanted.
    buf: Vec<u8>,
    /// Size of the buffer to wait with.
    wanted: usize,
    /// The last receive filled its buffer.
    more: bool,
    /// Received since a receive last emptied the socket.
    burst: usize,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self {
            buf: Vec::new(),
            wanted: SMALLEST,
            more: false,
            burst: 0,
        }
    }

    /// Whether the recent bursts are too large to wait for them with a buffer, where there is a
    /// choice.
    pub(crate) fn is_bulky(&self) -> bool {
        self.wanted > BULKY
    }

    /// A buffer for the next receive, which may wait with it.
    pub(crate) fn take(&mut self, buffer_pool: &BufferPool) -> Vec<u8> {
        if self.more {
            return buffer_pool.take();
        }
        if self.buf.capacity() == 0 {
            self.buf = Vec::with_capacity(self.wanted);
        }
        std::mem::take(&mut self.buf)
    }

    /// A receive went past the buffers, straight into a long message, or the next one will. What
    /// comes is bulky until it turns out not to be.
    pub(crate) fn pass(&mut self) {
        self.end_receive(LARGEST, false);
        self.buf = Vec::new();
    }

    /// The buffer is back, and `received` bytes came with it.
    pub(crate) fn put(&mut self, buf: Vec<u8>, received: usize, buffer_pool: &BufferPool) {
        let more = received == buf.capacity();
        if buf.capacity() >= READ_BUFFER_BYTES {
            buffer_pool.put(buf);
        } else {
            self.buf = buf;
        }
        self.end_receive(received, more);
    }

    fn end_receive(&mut self, received: usize, more: bool) {
        self.more = more;
        self.burst = self.burst.saturating_add(received);
        if !more {
            let wanted = buffer_for(std::mem::take(&mut self.burst));
            if wanted > self.wanted || wanted < self.wanted / 2 {
                self.wanted = wanted;
                self.buf = Vec::new();
            }
        }
    }
}

/// The bytes of a receive, of which there is at least one.
pub(crate) fn filled<B>((outcome, buf): BufResult<usize, B>) -> io::Result<B> {
    match outcome? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(buf),
    }
}

/// Size of a buffer that takes bursts of this size whole, with some to spare.
fn buffer_for(burst: usize) -> usize {
    (burst + burst / 4)
        .next_power_of_two()
        .clamp(SMALLEST, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives bursts and returns how many receives each took.
    fn receive(read_buffer: &mut ReadBuffer, buffer_pool: &BufferPool, mut burst: usize) -> usize {
        for receives in 1.. {
            let mut buf = read_buffer.take(buffer_pool);
            let received = burst.min(buf.capacity());
            buf.resize(received, 0);
            burst -= received;
            let emptied = received < buf.capacity();
            read_buffer.put(buf, received, buffer_pool);
            if emptied {
                return receives;
            }
        }
        unreachable!()
    }

    #[test]
    fn a_buffer_follows_the_bursts() {
        let (mut read_buffer, buffer_pool) = (ReadBuffer::new(), BufferPool::default());
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 70), 1);
        assert_eq!(read_buffer.wanted, SMALLEST);
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 1120), 2);
        assert_eq!(read_buffer.wanted, 2048);
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 1120), 1);
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 6), 1);
        assert_eq!(read_buffer.wanted, SMALLEST, "an answer to a ping frees it");
        assert!(read_buffer.buf.capacity() <= SMALLEST);
    }

    #[test]
    fn large_buffers_are_reused_and_not_kept_by_the_connection() {
        let (mut read_buffer, buffer_pool) = (ReadBuffer::new(), BufferPool::default());
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 400_000), 3);
        assert_eq!(buffer_pool.0.borrow().len(), 1);
        assert_eq!(read_buffer.wanted, LARGEST);
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 400_000), 3);
        assert_eq!(buffer_pool.0.borrow().len(), 1);
    }

    #[test]
    fn a_connection_of_bulky_bursts_keeps_no_buffer() {
        let (mut read_buffer, buffer_pool) = (ReadBuffer::new(), BufferPool::default());
        assert_eq!(receive(&mut read_buffer, &buffer_pool, 3000), 2);
        assert!(!read_buffer.is_bulky());
        receive(&mut read_buffer, &buffer_pool, 16 * 1024);
        assert!(read_buffer.is_bulky());
        assert_eq!(read_buffer.buf.capacity(), 0);
        read_buffer.put(buffer_pool.take(), 16 * 1024, &buffer_pool);
        assert!(read_buffer.is_bulky());
        assert_eq!(read_buffer.buf.capacity(), 0);
        read_buffer.put(buffer_pool.take(), 70, &buffer_pool);
        assert!(!read_buffer.is_bulky());
    }

    #[test]
    fn a_connection_keeps_no_buffer_after_a_long_message() {
        let (mut read_buffer, buffer_pool) = (ReadBuffer::new(), BufferPool::default());
        let mut buf = read_buffer.take(&buffer_pool);
        for _ in 0..3 {
            let capacity = buf.capacity();
            read_buffer.put(buf, capacity, &buffer_pool);
            // The first piece of the next.
            read_buffer.put(Vec::with_capacity(4096), 4096, &buffer_pool);
            read_buffer.pass();
            assert!(read_buffer.is_bulky() && !read_buffer.more);
            assert_eq!(read_buffer.buf.capacity(), 0);
            buf = buffer_pool.take();
        }
    }

    #[test]
    fn a_burst_of_the_exact_size_is_only_a_wrong_guess() {
        let (mut read_buffer, buffer_pool) = (ReadBuffer::new(), BufferPool::default());
        let buf = read_buffer.take(&buffer_pool);
        read_buffer.put(buf, SMALLEST, &buffer_pool);
        assert!(read_buffer.take(&buffer_pool).capacity() >= READ_BUFFER_BYTES);
    }
}
