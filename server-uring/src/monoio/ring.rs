//! The io_uring of one worker, with monoio on top of it.

use std::io;

use ::monoio::{IoUringDriver, Runtime, RuntimeBuilder};

/// Submission entries: how many operations one system call starts. monoio flushes a full queue by
/// itself, and a queue that is much longer than a round of events only takes cache.
pub(crate) const SQ_ENTRIES: u32 = 4096;
/// Completion entries: a receive and a send of 16,384 connections. More than that is kept by the
/// kernel, at a cost.
pub(crate) const CQ_ENTRIES: u32 = 32_768;

/// A monoio runtime on io_uring, and on nothing else: the driver is named, so that monoio never
/// chooses epoll itself.
///
/// `DEFER_TASKRUN` is safe with monoio 0.2.4 because this engine keeps off the two paths on which
/// monoio enters the kernel without `GETEVENTS` and so would not see deferred completions: it is
/// built without the feature `sync`, whose foreign wakers make a park return at once (workers are
/// woken by an eventfd that is read through the ring, see [`wake`](super::wake)), and no task wakes
/// itself or yields, which would keep the run queue from becoming empty.
///
/// # Errors
/// What the kernel said to the set-up of the ring.
pub(crate) fn build() -> io::Result<Runtime<IoUringDriver>> {
    let mut ring = io_uring_06::IoUring::builder();
    ring.setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_cqsize(CQ_ENTRIES);
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(SQ_ENTRIES)
        .uring_builder(ring)
        .build()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use ::monoio::io::{AsyncReadRent, AsyncWriteRentExt};

    use super::*;

    #[test]
    fn io_goes_on_after_long_chains_of_runnable_tasks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            for _ in 0..100 {
                stream.write_all(b"ping").unwrap();
                let mut reply = [0; 4];
                stream.read_exact(&mut reply).unwrap();
                assert_eq!(&reply, b"ping");
            }
        });
        build().unwrap().block_on(async move {
            let listener = ::monoio::net::TcpListener::from_std(listener).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let (read, buf) = stream.read(Vec::with_capacity(64)).await;
                if read.unwrap() == 0 {
                    break;
                }
                let write = ::monoio::spawn(async move {
                    let (written, _) = stream.write_all(buf).await;
                    written.unwrap();
                    stream
                });
                // Keeps the run queue filled while the write completes: monoio submits, but does
                // not wait.
                for _ in 0..1000 {
                    ::monoio::spawn(async {}).await;
                }
                stream = write.await;
            }
        });
        client.join().unwrap();
    }
}
