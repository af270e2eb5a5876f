//! Accepting connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use server_core::options::ACCEPT_PAUSE;
use server_core::system::is_out_of_descriptors;
use tokio::net::TcpListener;

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

/// Waits until a connection closes, at most for a moment: descriptors may also come free elsewhere.
async fn wait_for_descriptors(server: &Server) {
    server.starving.store(true, Ordering::Relaxed);
    // Either way it is time to try again.
    let _ = tokio::time::timeout(ACCEPT_PAUSE, server.freed.notified()).await;
    server.starving.store(false, Ordering::Relaxed);
}
