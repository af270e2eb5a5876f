//! How the threads of a run in slices pause, and go on.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use uring_net::{Ring, Waker};

use crate::engine::{
    traffic::Traffic,
    usage::Spent,
    worker::{NO_CONNECTION, ThreadResult, Worker},
};

/// Longest sleep of a paused thread, which is woken when there is something to do.
const PAUSED_TICK_NS: u64 = 1_000_000_000;

/// What a thread tells the one that commands.
#[derive(Debug)]
pub enum FromThread {
    /// Its connections are up.
    Up(Starter),
    /// It pauses after a slice.
    Paused(Box<ThreadSlice>),
}

/// What one thread measured in one slice.
#[derive(Debug)]
pub struct ThreadSlice {
    /// All but connections and their opening.
    pub result: ThreadResult,
    /// When nothing of its own was in flight any more.
    pub paused_at: u64,
    /// No reply was outstanding when it paused.
    pub drained: bool,
}

/// Starts the slices of one thread; without it the thread ends.
#[derive(Debug)]
pub struct Starter {
    go: Sender<()>,
    waker: Waker,
}

impl Starter {
    /// A slice has been set.
    pub fn start(&self) {
        // A thread that is gone has left its cause.
        let _ = self.go.send(());
        self.waker.wake();
    }

    /// There will be no further slice.
    pub fn end(self) {
        drop(self.go);
        self.waker.wake();
    }
}

/// A thread's end.
#[derive(Debug)]
pub struct Pause {
    go: Receiver<()>,
    up: Option<Starter>,
    reports: Sender<FromThread>,
}

impl Pause {
    /// For the thread of `ring`, which reports to `reports`.
    ///
    /// # Errors
    /// A sentence.
    pub fn new(ring: &mut Ring, reports: Sender<FromThread>) -> Result<Self, String> {
        let waker = waker(ring)?;
        let (sender, go) = mpsc::channel();
        let up = Some(Starter { go: sender, waker });
        Ok(Self { go, up, reports })
    }

    /// The thread's connections are up.
    pub fn is_up(&mut self) {
        if let Some(starter) = self.up.take() {
            self.report(FromThread::Up(starter));
        }
    }

    /// Is there another slice? `None`: not known yet; the ring is woken when it is.
    pub fn goes_on(&self) -> Option<bool> {
        match self.go.try_recv() {
            Ok(()) => Some(true),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(false),
        }
    }

    /// Hands a slice over.
    pub fn hand_over(&self, slice: ThreadSlice) {
        self.report(FromThread::Paused(Box::new(slice)));
    }

    fn report(&self, report: FromThread) {
        // The receiver is gone: the run is over.
        let _ = self.reports.send(report);
    }
}

impl<T: Traffic> Worker<T> {
    /// Load after load as they are set, each handed over; their sum.
    pub(super) fn measure_slices(&mut self) -> Result<ThreadResult, String> {
        let mut sum = self.take_result(Spent::default());
        let (mut spent_in_all, mut longest_stall) = (Spent::default(), 0);
        if let Some(pause) = &mut self.pause {
            pause.is_up();
        }
        while let Some(pause) = &self.pause {
            match pause.goes_on() {
                None if !self.shared.ended_early() => self.turn(self.now + PAUSED_TICK_NS)?,
                None | Some(false) => self.pause = None,
                Some(true) => {
                    let start = self.shared.times().start;
                    while self.now < start && !self.shared.ended_early() {
                        self.turn(start)?;
                    }
                    let (slice, spent) = self.measure()?;
                    sum.stats.add(&slice.result.stats);
                    sum.latest.add(&slice.result.latest);
                    spent_in_all.add(&spent);
                    longest_stall = longest_stall.max(self.longest_stall);
                    if let Some(pause) = &self.pause {
                        pause.hand_over(slice);
                    }
                }
            }
        }
        sum.usage = spent_in_all.usage(self.cpu, self.states.len(), longest_stall);
        Ok(sum)
    }
}

/// How other threads wake the one of `ring`.
///
/// # Errors
/// A sentence.
pub fn waker(ring: &mut Ring) -> Result<Waker, String> {
    ring.waker(NO_CONNECTION)
        .map_err(|error| format!("cannot make an eventfd: {error}"))
}
