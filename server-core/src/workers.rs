//! What the workers of a server share, and their threads.

use std::net::TcpListener;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::{io, process, thread};

use anyhow::Context;
use rustix::net::{Shutdown, shutdown};

use crate::admission::{Admission, Gate};
use crate::counters::Counters;
use crate::lifecycle::Alive;
use crate::options::{MAILBOX_BYTES, Settings};
use crate::rooms::Rooms;
use crate::shortage::Shortage;
use crate::sweep::Sweep;

/// What all workers of a server share, whatever drives them. `M` is what a fan-out needs to reach a
/// member of a room.
#[derive(Debug)]
pub struct Shared<M> {
    /// What is in force.
    pub settings: Settings,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Answers request heads.
    pub admission: Admission,
    /// All rooms.
    pub rooms: Rooms<M>,
    /// Counts connections until the last is gone.
    pub alive: Alive,
    /// When connections are pinged and closed.
    pub sweep: Sweep,
    /// Whether descriptors are short.
    pub shortage: Shortage,
    gate: Arc<Gate>,
    draining: AtomicBool,
    /// Other handles of the workers' sockets.
    listeners: Vec<TcpListener>,
}

impl<M> Shared<M> {
    /// Of a server that is about to start; `advice` is what to do when descriptors are short. The
    /// drain is to shut `listeners` down.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(
        settings: Settings,
        advice: &'static str,
        listeners: &[Vec<TcpListener>],
    ) -> io::Result<Self> {
        let handles = listeners.iter().flatten().map(TcpListener::try_clone);
        let counters = Arc::new(Counters::new(settings.workers));
        let gate = Gate::new(settings.max_connections);
        Ok(Self {
            admission: Admission::new(&settings, Arc::clone(&gate), Arc::clone(&counters)),
            rooms: Rooms::new(settings.workers, MAILBOX_BYTES),
            alive: Alive::default(),
            sweep: Sweep::new(&settings),
            shortage: Shortage::new(advice),
            settings,
            counters,
            gate,
            draining: AtomicBool::new(false),
            listeners: handles.collect::<Result<_, _>>()?,
        })
    }

    /// Whether nobody new is to be accepted. A worker may not have been told yet.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The drain begins: counts the connections that it is going to close, and logs no shortage any
    /// more. Stops listening: all sockets before any worker closes a connection, so that no client
    /// that was told to go is let in by another worker.
    pub fn begin_drain(&self) {
        let open = self.gate.open() as u64;
        self.counters.worker(0).drained.add(open);
        self.shortage.stop();
        self.draining.store(true, Ordering::Release);
        for listener in &self.listeners {
            if let Err(error) = shutdown(listener, Shutdown::Both) {
                tracing::warn!(%error, "cannot stop listening");
            }
        }
    }
}

/// What a worker reports: that it serves, and how it is reached; or why it cannot.
pub type Report<T> = mpsc::Sender<anyhow::Result<T>>;

/// Starts a thread for each worker, on its CPU: `run` serves with the listeners of worker `index`
/// for ever, once it has reported, and otherwise returns why it cannot. Returns what they reported,
/// when all of them serve.
///
/// # Errors
/// A thread could not be started, or a worker could not begin.
pub fn start<S, M, T>(
    server: &Arc<S>,
    listeners: Vec<Vec<TcpListener>>,
    run: fn(usize, &Arc<S>, Vec<TcpListener>, &Report<T>) -> anyhow::Error,
) -> anyhow::Result<Vec<T>>
where
    S: Deref<Target = Shared<M>> + Send + Sync + 'static,
    T: Send + 'static,
{
    let (report, reports) = mpsc::channel();
    for (index, listeners) in listeners.into_iter().enumerate() {
        let (server, report) = (Arc::clone(server), report.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                server.settings.pin_worker(index);
                let run = || run(index, &server, listeners, &report);
                match panic::catch_unwind(AssertUnwindSafe(run)) {
                    Ok(error) => drop(report.send(Err(error))),
                    // It has been printed. No server is whole without all of its workers.
                    Err(_panic) => process::exit(1),
                }
            })
            .context("cannot start a worker")?;
    }
    (0..server.settings.workers)
        .map(|_| reports.recv().context("a worker ended before it began")?)
        .collect()
}
