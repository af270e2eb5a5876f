//! A run in one process, from the first connect to the record: threads are started, watched and
//! merged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::RecvTimeoutError,
    },
    thread,
    time::{Duration, SystemTime},
};

use crate::{
    assemble::{PartialResults, RunOutput, Window, assemble},
    config::Config,
    engine::{fan_out_timing::FanOutTiming, shared::Shared},
    plan::Plan,
    progress::Progress,
    record::LoadKind,
    target::Target,
    worker_pool::{WorkerPool, WorkerPoolPlan},
};

/// How often the run is looked after.
const LOOK: Duration = Duration::from_millis(20);
/// Between the last handshake and the load: every thread gets to know of it, and every room of its
/// members.
pub(crate) const SETTLE_NS: u64 = 100_000_000;

/// Runs the load in this process. `interrupted` ends it early; `progress` is shown while it lasts.
///
/// A run that fails still gives what it recorded: the verdict tells.
pub fn run(
    config: &Config,
    targets: Vec<Target>,
    plan: Plan,
    interrupted: &AtomicBool,
    mut progress: Progress,
) -> RunOutput {
    let epoch = SystemTime::now();
    let shared = Arc::new(Shared::new(
        plan.threads,
        config.warmup,
        config.duration,
        progress.is_shown(),
    ));
    if config.kind == LoadKind::Connect {
        shared.begin_at(shared.clock.now());
    }
    let pool = WorkerPool::start(WorkerPoolPlan {
        config,
        plan: &plan,
        own: 0..plan.threads,
        targets,
        shared: &shared,
        nonce: rand::random(),
        published: Arc::default(),
        reports: None,
    });
    let mut timing = FanOutTiming::new(plan.threads);
    let interrupted = watch(
        config,
        &pool,
        &shared,
        &mut timing,
        interrupted,
        &mut progress,
    );
    let (results, parts) = pool.collect();
    parts.into_iter().for_each(|part| timing.add(part));
    progress.clear();
    assemble(PartialResults {
        config,
        plan: &plan,
        shared: &shared,
        epoch,
        interrupted,
        results,
        timing: &timing,
        shards: Vec::new(),
        incomplete: false,
        window: Window::of(&shared.times()),
        slices: None,
    })
}

/// Begins the load when all connections are up, ends it when there is no reason to go on. True when
/// it was interrupted.
fn watch(
    config: &Config,
    pool: &WorkerPool,
    shared: &Shared,
    timing: &mut FanOutTiming,
    interrupted: &AtomicBool,
    progress: &mut Progress,
) -> bool {
    let connections = config.connections;
    let mut was_interrupted = false;
    while !pool.is_finished() {
        match pool.parts.recv_timeout(LOOK) {
            Ok(finished) => finished.into_iter().for_each(|part| timing.add(part)),
            Err(RecvTimeoutError::Timeout) => {}
            // All threads have dropped their ends: they are finishing.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
        }
        if !shared.has_begun() && shared.opened.load(Relaxed) == connections {
            shared.begin_at(shared.clock.now() + SETTLE_NS);
        }
        if interrupted.load(Relaxed) && !was_interrupted {
            // Too late to interrupt what is over.
            was_interrupted = shared.clock.now() < shared.times().to;
            shared.end_now();
        }
        let all_lost = shared.has_begun() && shared.up.load(Relaxed) == 0;
        if all_lost && config.kind != LoadKind::Connect && !shared.ended_early() {
            shared.end_now();
        }
        progress.show(shared, connections);
    }
    was_interrupted
}
