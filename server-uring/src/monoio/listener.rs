//! Accepting connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use ::monoio::net::{TcpListener, TcpStream};
use server_core::system::is_out_of_descriptors;

use crate::monoio::connection;
use crate::monoio::wake::{Signal, wake_with_worker};
use crate::monoio::worker::Worker;

/// Accept operations in flight on each listener of a worker: with one-shot operations, connections
/// accepted in one turn of the ring.
pub(crate) const ACCEPTS: usize = 16;

/// A listening socket of a worker.
pub(crate) struct Listener {
    socket: TcpListener,
    /// Out of descriptors: one of its accept loops tries on, the others wait.
    starving: Cell<bool>,
}

impl Listener {
    /// # Errors
    /// When the socket cannot be put into blocking mode.
    pub(crate) fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        // io_uring answers EAGAIN instead of waiting for a non-blocking one.
        socket.set_nonblocking(false)?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            starving: Cell::new(false),
        })
    }
}

/// Accepts until the drain begins. One of the [`ACCEPTS`] loops of a listener.
///
/// The drain shuts the listening socket down, which fails what is in flight. Dropping an accept
/// instead could lose a connection that it has just taken: monoio 0.2.4 would leave that open, with
/// nobody to serve it.
pub(crate) async fn accept(listener: Rc<Listener>, worker: Rc<Worker>) {
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) => serve(&worker, stream),
            Err(_) if worker.server.is_draining() => return,
            Err(error) => {
                if !failed(&worker, &error) {
                    tracing::debug!(%error, "a connection was lost before it was accepted");
                } else if listener.starving.get() {
                    wait_for_others(&listener, &worker).await;
                } else {
                    accept_sparingly(&listener, &worker).await;
                }
            }
        }
    }
}

/// Serves the connections that another thread has accepted, for ever.
pub(crate) async fn take_over(worker: Rc<Worker>) {
    poll_fn(|cx| {
        for stream in worker.server.handover.take(worker.index) {
            // monoio's type for TCP: nothing that is called on it is TCP's own, and so connections
            // have one type.
            match TcpStream::from_std(OwnedFd::from(stream).into()) {
                Ok(stream) => spawn(&worker, stream),
                Err(error) => drop(failed(&worker, &error)),
            }
        }
        wake_with_worker(cx);
        Poll::Pending
    })
    .await
}

/// Returns whether that was for want of descriptors.
fn failed(worker: &Worker, error: &io::Error) -> bool {
    worker.counters().accept_errors.add(1);
    let starving = is_out_of_descriptors(error);
    if starving {
        worker.server.shortage.failed(error);
    }
    starving
}

fn serve(worker: &Rc<Worker>, stream: TcpStream) {
    worker.server.shortage.accepted();
    worker.counters().connections_accepted.add(1);
    spawn(worker, stream);
}

fn spawn(worker: &Rc<Worker>, stream: TcpStream) {
    let alive = worker.server.alive.enter();
    ::monoio::spawn(connection::serve(Rc::clone(worker), stream, alive));
}

/// Out of descriptors, one loop goes on, and tries when a connection is pending and either a
/// connection has closed or a moment has passed: descriptors may also come free elsewhere. Returns
/// when there seem to be enough again.
async fn accept_sparingly(listener: &Listener, worker: &Rc<Worker>) {
    listener.starving.set(true);
    worker.starving.update(|starving| starving + 1);
    let mut in_a_row = 0;
    while in_a_row < ACCEPTS && !worker.server.is_draining() {
        // The kernel takes the descriptor before it looks for a connection, so an accept may not
        // wait for one now.
        if listener.socket.readable(true).await.is_err() {
            break;
        }
        match listener.socket.accept().await {
            Ok((stream, _)) => {
                serve(worker, stream);
                in_a_row += 1;
            }
            Err(error) => {
                failed(worker, &error);
                in_a_row = 0;
                raised(&worker.freed).await;
            }
        }
    }
    listener.starving.set(false);
    worker.starving.update(|starving| starving - 1);
}

/// The other loops of the listener wait meanwhile.
async fn wait_for_others(listener: &Listener, worker: &Worker) {
    while listener.starving.get() {
        raised(&worker.freed).await;
    }
}

/// Waits for the next time that a signal is raised.
async fn raised(signal: &Signal) {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        signal.wake_later(cx);
        Poll::Pending
    })
    .await;
}
