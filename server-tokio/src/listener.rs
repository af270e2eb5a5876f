//! Accepting connections.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use server_core::options::ACCEPT_PAUSE;
use server_core::system::is_out_of_descriptors;
use server_core::unix::{self, UnixSocket};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};

use crate::connection;
use crate::worker::{Server, Worker};

/// Accepts until the drain begins; connections go to `workers` in turn.
pub(crate) async fn accept(listener: TcpListener, workers: Arc<[Arc<Worker>]>) {
    let server = Arc::clone(&workers[0].server);
    let drain_begins = server.drain_begins();
    tokio::pin!(drain_begins);
    let mut in_turn = workers.iter().cycle();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drain_begins => return,
        };
        match accepted {
            Ok((stream, _)) => {
                server.shortage.accepted();
                if let Some(worker) = in_turn.next() {
                    worker.counters().connections_accepted.add(1);
                    let alive = server.alive.enter();
                    tokio::spawn(connection::serve(Arc::clone(worker), stream, alive));
                }
            }
            Err(error) => {
                workers[0].counters().accept_errors.add(1);
                if is_out_of_descriptors(&error) {
                    server.shortage.failed(&error);
                    tokio::select! {
                        () = wait_for_descriptors(&server) => {}
                        () = &mut drain_begins => return,
                    }
                } else {
                    tracing::debug!(%error, "a connection was lost before it was accepted");
                }
            }
        }
    }
}

/// A worker, and the runtime on which its connections live.
#[derive(Clone)]
pub(crate) struct Home {
    worker: Arc<Worker>,
    runtime: Handle,
}

impl Home {
    pub(crate) fn new(worker: &Arc<Worker>, runtime: &Runtime) -> Self {
        Self {
            worker: Arc::clone(worker),
            runtime: runtime.handle().clone(),
        }
    }

    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let _inside = self.runtime.enter();
        stream.set_nonblocking(true)?;
        // tokio's type for TCP: nothing that is called on it is TCP's own, and so connections have
        // one type.
        let stream = TcpStream::from_std(OwnedFd::from(stream).into())?;
        let alive = self.worker.server.alive.enter();
        let serve = connection::serve(Arc::clone(&self.worker), stream, alive);
        self.runtime.spawn(serve);
        Ok(())
    }
}

/// Accepts from Unix sockets; connections go to the workers in turn.
pub(crate) fn accept_unix(
    server: &Arc<Server>,
    sockets: &[UnixSocket],
    homes: Arc<[Home]>,
) -> io::Result<()> {
    unix::accept(server, sockets, move |worker, stream| {
        homes[worker].serve(stream)
    })
}

/// Waits until a connection closes, at most for a moment: descriptors may also come free elsewhere.
async fn wait_for_descriptors(server: &Server) {
    server.starving.store(true, Ordering::Relaxed);
    // Either way it is time to try again.
    let _ = tokio::time::timeout(ACCEPT_PAUSE, server.freed.notified()).await;
    server.starving.store(false, Ordering::Relaxed);
}
