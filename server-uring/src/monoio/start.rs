//! Starting the workers.

use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::process;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use server_core::workers::Report;

use crate::monoio::listener::Listener;
use crate::monoio::ring::SQ_ENTRIES;
use crate::monoio::worker::{Server, Worker};
use crate::monoio::{fanout, listener, ring};

/// Runs a worker, with a ring and listeners of its own, on this thread. Returns only why it could
/// not begin.
pub(crate) fn run(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
    report: &Report<()>,
) -> anyhow::Error {
    let mut runtime = match ring::build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return anyhow::Error::new(error).context(format!(
                "cannot set up the ring of worker {index} ({SQ_ENTRIES} entries; too little memory, or `ulimit -n` too low?)"
            ));
        }
    };
    runtime.block_on(async {
        match begin(index, server, listeners).await {
            Ok(()) => {
                // Nobody listens any more when another worker has failed; then the process ends
                // anyway.
                let _ = report.send(Ok(()));
                pending().await
            }
            Err(error) => error,
        }
    })
}

/// Starts the tasks of a worker.
async fn begin(
    index: usize,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
) -> anyhow::Result<()> {
    let worker = Worker::new(index, server).context("cannot start a worker")?;
    essential(index, "wake-ups", Arc::clone(worker.waker()).listen());
    essential(index, "sweep", Rc::clone(&worker).sweep());
    essential(index, "clock", Rc::clone(&worker).watch_time());
    ::monoio::spawn(Rc::clone(&worker).wait_for_drain());
    ::monoio::spawn(fanout::run(Rc::clone(&worker)));
    if !server.settings.unix.is_empty() {
        ::monoio::spawn(listener::take_over(Rc::clone(&worker)));
    }
    for listener in listeners {
        let listener = Rc::new(Listener::new(listener)?);
        for _ in 0..listener::ACCEPTS {
            ::monoio::spawn(listener::accept(Rc::clone(&listener), Rc::clone(&worker)));
        }
    }
    Ok(())
}

/// Runs a task without which the worker is of no use.
fn essential(
    index: usize,
    what: &'static str,
    task: impl Future<Output = io::Result<()>> + 'static,
) {
    ::monoio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("error: worker {index}: {what} failed: {error}");
            process::exit(1);
        }
    });
}
