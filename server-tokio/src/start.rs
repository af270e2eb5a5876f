//! The two ways to run the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use server_core::program::Sockets;
use tokio::runtime::{Builder, Runtime};

use crate::listener::Home;
use crate::worker::{self, Server, Worker};
use crate::{fanout, listener};

/// Sockets that one look at the driver may wake. With tokio's 1,024 the queue of a busy worker, 256
/// tasks, overflows into the queue of all workers, from where a task is taken now and then: some
/// connections are served again and again while others wait for tens of milliseconds.
const EVENTS: usize = 64;
/// Tasks between looks at the driver: more than [`EVENTS`], so that what one look has woken is
/// served before the next.
const EVENT_INTERVAL: u32 = 128;

/// One work-stealing runtime. A worker is a share of the connections, not a thread: its tasks run
/// wherever there is time.
pub(crate) fn multi(server: &Arc<Server>, sockets: Sockets<'_>) -> anyhow::Result<Runtime> {
    let settings = server.settings.clone();
    let started = AtomicUsize::new(0);
    let runtime = Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .max_io_events_per_tick(EVENTS)
        .event_interval(EVENT_INTERVAL)
        .thread_name("worker")
        .enable_all()
        .on_thread_start(move || {
            let index = started.fetch_add(1, Ordering::Relaxed);
            settings.pin_worker(index);
            worker::enter_thread(index);
        })
        .on_thread_park(server.collector())
        .build()
        .context("cannot start the runtime")?;
    let workers: Arc<[_]> = (0..server.settings.workers)
        .map(|index| Worker::new(index, server))
        .collect();
    for worker in workers.iter() {
        runtime.spawn(Arc::clone(worker).sweep());
        runtime.spawn(fanout::run(Arc::clone(worker)));
    }
    let inside = runtime.enter();
    for listener in sockets.of_workers.into_iter().flatten() {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(listener::accept(listener, Arc::clone(&workers)));
    }
    drop(inside);
    let homes = workers.iter().map(|worker| Home::new(worker, &runtime));
    listener::accept_unix(server, sockets.unix, homes.collect())?;
    Ok(runtime)
}

/// One single-threaded runtime per worker, each with listeners of its own.
pub(crate) fn per_core(server: &Arc<Server>, sockets: Sockets<'_>) -> anyhow::Result<()> {
    let mut homes = Vec::new();
    for (index, listeners) in sockets.of_workers.into_iter().enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(server.collector())
            .build()
            .context("cannot start a runtime")?;
        let listeners: Vec<_> = {
            let _inside = runtime.enter();
            let each = listeners.into_iter().map(tokio::net::TcpListener::from_std);
            each.collect::<Result<_, _>>()?
        };
        let worker = Worker::new(index, server);
        homes.push(Home::new(&worker, &runtime));
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                worker.server.settings.pin_worker(index);
                worker::enter_thread(index);
                runtime.spawn(Arc::clone(&worker).sweep());
                runtime.spawn(fanout::run(Arc::clone(&worker)));
                let workers: Arc<[_]> = Arc::new([worker]);
                for listener in listeners {
                    runtime.spawn(listener::accept(listener, Arc::clone(&workers)));
                }
                runtime.block_on(std::future::pending::<()>());
            })
            .context("cannot start a worker")?;
    }
    Ok(listener::accept_unix(server, sockets.unix, homes.into())?)
}
