//! Broadcast: every message of a publisher comes to every member of the room, the publisher
//! included.
//!
//! A delivery's send time travels in the message, its intended time is computed from the schedule,
//! so receivers need nothing from the publisher's thread. In an open loop publishers follow the
//! schedule whatever the room does. In a closed loop a message is finished when every member of
//! every thread has it; then its publisher sends the next one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::Sender,
    },
};

use ws_proto::Kind;

use crate::{
    engine::{
        delivery_tracker::DeliveryTracker,
        fan_out_timing::{FinishedPart, Part},
        shared::Times,
        stats::Stats,
        traffic::{Io, Traffic},
    },
    pacer::{Pacer, schedule_index, stream_due},
    payload::{Label, Payload},
    plan::Plan,
    sequence::{Arrival, Overtaken, Sequence},
};

/// Messages published in one go before the clock is read again.
const BATCH: u64 = 16;
/// Finished parts handed over at a time.
const PARTS_AT_A_TIME: usize = 256;

/// Messages that may be missing at members while later ones have come. With more, one that comes
/// after all counts as duplicated, not as reordered.
const MOST_OVERTAKEN: usize = 1 << 20;
/// Receivers that may be noted of messages that not all members of this thread have, all publishers
/// together, and the least number of such messages per publisher. With more the oldest is given up:
/// a server that leaves out one delivery would otherwise have all later messages kept.
const MOST_NOTED: usize = 1 << 24;
const LEAST_OPEN: usize = 1 << 10;

/// The broadcast traffic of one thread.
#[derive(Debug)]
pub struct Broadcast {
    payload: Payload,
    plan: Arc<Plan>,
    thread: usize,
    window: u64,
    /// Publishers of this thread, its first connections, and of all.
    own_publishers: usize,
    publishers: usize,
    /// Schedules of all threads; empty: closed loop.
    pacers: Vec<Option<Pacer>>,
    tracker: Option<Arc<DeliveryTracker>>,
    parts: Sender<Vec<FinishedPart>>,
    outbox: Vec<FinishedPart>,
    /// Next sequence number per own publisher.
    next_seq: Vec<u64>,
    /// In an open loop the number of each publisher's first message of this load.
    first: Vec<u64>,
    issued: u64,
    lost: Vec<bool>,
    /// What each member has got of each publisher: member-major.
    received: Vec<Sequence>,
    overtaken: Overtaken<()>,
    /// What all members of this thread have got, per publisher.
    feeds: Vec<Feed>,
    /// Messages that a feed may keep.
    most_open: usize,
    /// Distinct deliveries to this thread's members.
    deliveries: u64,
    /// Messages published by all threads.
    published: Arc<AtomicU64>,
}

/// Messages of one publisher that not all members of this thread have.
#[derive(Debug, Default)]
struct Feed {
    first: u64,
    open: VecDeque<Open>,
}

impl Feed {
    /// Begins to keep the messages up to the one at `index`, `most` of them; where that is now.
    fn open_up_to(&mut self, index: usize, most: usize) -> usize {
        let given_up = (index + 1).saturating_sub(most);
        self.open.drain(..given_up.min(self.open.len()));
        self.first += given_up as u64;
        self.open.resize_with(index + 1 - given_up, Open::default);
        index - given_up
    }
}

#[derive(Debug, Default)]
struct Open {
    receivers: u64,
    part: Part,
}

/// What [`Broadcast::new`] needs to know.
#[derive(Debug)]
pub struct BroadcastPlan {
    /// Messages to build; stamped.
    pub payload: Payload,
    /// Which thread has which connections.
    pub plan: Arc<Plan>,
    /// This thread.
    pub thread: usize,
    /// Messages in flight per publisher in a closed loop.
    pub window: u64,
    /// Publishers of all threads.
    pub publishers: usize,
    /// Messages per second in all; `None`: closed loop.
    pub rate_per_s: Option<f64>,
    /// Closed loop: shared by the threads.
    pub tracker: Option<Arc<DeliveryTracker>>,
    /// Messages published by all threads, shared by them; those of other processes are added when
    /// they have stopped.
    pub published: Arc<AtomicU64>,
    /// Where finished parts go.
    pub parts: Sender<Vec<FinishedPart>>,
}

impl Broadcast {
    /// Before the load begins.
    pub fn new(plan: BroadcastPlan) -> Self {
        let members = plan.plan.count(plan.thread);
        let own_publishers = plan.plan.count_of(plan.publishers, plan.thread);
        let pacers = match plan.rate_per_s {
            None => Vec::new(),
            Some(rate) => (0..plan.plan.threads)
                .map(|thread| {
                    let share = plan.plan.count_of(plan.publishers, thread);
                    Pacer::new(rate, share, plan.publishers, thread)
                })
                .collect(),
        };
        let mut feeds = Vec::new();
        feeds.resize_with(plan.publishers, Feed::default);
        Self {
            payload: plan.payload,
            thread: plan.thread,
            window: plan.window,
            own_publishers,
            publishers: plan.publishers,
            pacers,
            tracker: plan.tracker,
            parts: plan.parts,
            outbox: Vec::new(),
            next_seq: vec![0; own_publishers],
            first: vec![0; plan.publishers],
            issued: 0,
            lost: vec![false; members],
            received: vec![Sequence::default(); members * plan.publishers],
            overtaken: Overtaken::default(),
            feeds,
            most_open: (MOST_NOTED / (members * plan.publishers).max(1))
                .max(LEAST_OPEN)
                .max(plan.window as usize),
            deliveries: 0,
            published: plan.published,
            plan: plan.plan,
        }
    }

    fn is_open_loop(&self) -> bool {
        !self.pacers.is_empty()
    }

    fn own_pacer(&self) -> Option<Pacer> {
        *self.pacers.get(self.thread)?
    }

    /// When message `seq` of `publisher` (of any thread), sent at `sent`, was meant to be sent.
    fn meant(&self, publisher: u32, seq: u64, sent: u64, times: &Times) -> u64 {
        let owner = publisher as usize % self.plan.threads;
        match self.pacers.get(owner).copied().flatten() {
            Some(pacer) => {
                let local = publisher as usize / self.plan.threads;
                let streams = self.plan.count_of(self.publishers, owner);
                let number = seq.saturating_sub(self.first[publisher as usize]);
                let due = pacer.due_at_ns(schedule_index(number, local, streams));
                times.start.saturating_add(due)
            }
            None => sent,
        }
    }

    fn publish(&mut self, local: usize, io: &mut Io<'_>) {
        let seq = self.next_seq[local];
        self.next_seq[local] += 1;
        if self.lost[local] {
            return;
        }
        let publisher = self.plan.global(self.thread, local) as u32;
        if let Some(tracker) = &self.tracker {
            tracker.published(publisher, seq);
        }
        self.payload
            .write_frame(publisher, seq, io.now, io.sockets.outgoing(local));
        let meant = self.meant(publisher, seq, io.now, &io.times);
        io.stats.sent(&io.times, io.now, meant, 1);
        self.published.fetch_add(1, Relaxed);
        if self.is_open_loop() {
            io.stats.scheduled(&io.times, meant, io.now);
        }
    }

    fn issue(&mut self, pacer: Pacer, io: &mut Io<'_>) {
        let most = pacer.due_before(io.times.to.saturating_sub(io.times.start));
        loop {
            let due = pacer
                .due(io.now.saturating_sub(io.times.start))
                .min(most)
                .min(self.issued + BATCH);
            if self.issued >= due {
                return;
            }
            let more = due == self.issued + BATCH;
            while self.issued < due {
                let local = (self.issued % self.own_publishers as u64) as usize;
                self.publish(local, io);
                self.issued += 1;
            }
            io.sockets.flush();
            if !more {
                // The wait that comes next hands them to the kernel.
                return;
            }
            io.sockets.submit_sends();
            io.now = io.clock.now();
        }
    }

    /// A message of an own publisher has reached everybody.
    fn refill(&mut self, local: usize, io: &mut Io<'_>) {
        if io.now < io.times.to {
            self.publish(local, io);
        }
    }

    fn delivered(&mut self, publisher: u32, seq: u64, sent: u64, io: &mut Io<'_>) {
        let meant = self.meant(publisher, seq, sent, &io.times);
        io.stats.reply(&io.times, io.now, meant, sent, 1);
        if io.times.contain(meant) {
            io.stats.window.received_payload_bytes += self.payload.size() as u64;
        }
        self.deliveries += 1;
        let members = self.lost.len() as u64;
        let feed = &mut self.feeds[publisher as usize];
        let Some(index) = seq.checked_sub(feed.first) else {
            return;
        };
        let index = match index as usize {
            index if index < feed.open.len() => index,
            index => feed.open_up_to(index, self.most_open),
        };
        let open = &mut feed.open[index];
        open.receivers += 1;
        open.part.note(io.now);
        if open.receivers < members {
            return;
        }
        let part = std::mem::take(&mut open.part);
        while feed
            .open
            .front()
            .is_some_and(|open| open.receivers == members)
        {
            feed.open.pop_front();
            feed.first += 1;
        }
        if io.times.contain(meant) {
            self.outbox.push(FinishedPart {
                message: (publisher, seq),
                meant,
                part,
            });
        }
        if self.outbox.len() >= PARTS_AT_A_TIME {
            self.hand_over();
        }
        self.tell_publisher(publisher, seq, sent, io);
    }

    fn tell_publisher(&mut self, publisher: u32, seq: u64, sent: u64, io: &mut Io<'_>) {
        let Some(tracker) = &self.tracker else { return };
        if !tracker.received(publisher, seq, self.thread) {
            return;
        }
        io.stats.landed(&io.times, io.now, sent, 1);
        if publisher as usize % self.plan.threads == self.thread {
            self.refill(publisher as usize / self.plan.threads, io);
        }
    }

    /// Could `publisher` not have sent this yet? What other threads have sent is not known exactly.
    fn is_unheard_of(&self, publisher: u32, label: &Label, io: &Io<'_>) -> bool {
        if self.is_open_loop() {
            // `io.now` may be older than the message.
            let meant = self.meant(publisher, label.seq, 0, &io.times);
            meant > io.now && meant > io.clock.now()
        } else {
            // No publisher can be further than all of them together.
            label.seq >= self.published.load(Relaxed)
        }
    }

    fn hand_over(&mut self) {
        if !self.outbox.is_empty() {
            // The receiver is gone: the run is over.
            let _ = self.parts.send(std::mem::take(&mut self.outbox));
        }
    }
}

impl Traffic for Broadcast {
    fn start(&mut self, io: &mut Io<'_>) {
        self.issued = 0;
        if self.is_open_loop() || io.now >= io.times.to {
            return;
        }
        if let Some(tracker) = &self.tracker {
            // Of the last messages of the load before.
            tracker.take_freed(self.thread);
        }
        for local in 0..self.own_publishers {
            for _ in 0..self.window {
                self.publish(local, io);
            }
        }
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        if let Some(tracker) = self.tracker.clone() {
            for local in tracker.take_freed(self.thread) {
                self.refill(local as usize, io);
            }
        }
        if let Some(pacer) = self.own_pacer()
            && io.now >= io.times.start
        {
            self.issue(pacer, io);
        }
    }

    fn next_due(&self, times: &Times) -> Option<u64> {
        let due = times
            .start
            .saturating_add(self.own_pacer()?.due_at_ns(self.issued));
        (due < times.to).then_some(due)
    }

    fn message(&mut self, conn: usize, kind: Kind, payload: &[u8], io: &mut Io<'_>) {
        io.stats.totals.received += 1;
        let label = match self.payload.check(payload) {
            Ok(label) if kind == Kind::Binary => label,
            _ => return io.stats.corrupted(&io.times, None),
        };
        let publisher = label.stream.unwrap_or(u32::MAX);
        if publisher as usize >= self.publishers || self.is_unheard_of(publisher, &label, io) {
            return io.stats.corrupted(&io.times, None);
        }
        let sequence = &mut self.received[conn * self.publishers + publisher as usize];
        // What was sent is known to the publisher's thread only.
        sequence.sent = label.seq.saturating_add(1).max(sequence.sent);
        let stream = (conn * self.publishers) as u64 + u64::from(publisher);
        match sequence.arrive(label.seq) {
            Arrival::Ahead { skipped } => {
                for seq in label.seq - skipped..label.seq {
                    if self.overtaken.len() >= MOST_OVERTAKEN {
                        break;
                    }
                    self.overtaken.insert((stream, seq), ());
                }
                self.delivered(publisher, label.seq, label.sent_ns, io);
            }
            Arrival::Behind | Arrival::Unknown => {
                if self.overtaken.remove(&(stream, label.seq)).is_some() {
                    io.stats.window.reordered += 1;
                    self.delivered(publisher, label.seq, label.sent_ns, io);
                } else {
                    io.stats.window.duplicated += 1;
                }
            }
        }
    }

    fn lost(&mut self, conn: usize) {
        // What it had still to get stays outstanding until the drain gives up: it is lost, and the
        // run says so.
        self.lost[conn] = true;
    }

    fn is_busy(&self) -> bool {
        self.deliveries < self.published.load(Relaxed) * self.lost.len() as u64
    }

    fn finish(&mut self, times: &Times, stats: &mut Stats) {
        self.hand_over();
        stats.due = match self.own_pacer() {
            Some(pacer) => {
                let before = |at: u64| pacer.due_before(at.saturating_sub(times.start));
                before(times.to).saturating_sub(before(times.from))
            }
            None => stats.window.sent,
        };
        for publisher in 0..self.first.len() {
            let (local, owner) = (publisher / self.plan.threads, publisher % self.plan.threads);
            if let Some(pacer) = self.pacers.get(owner).copied().flatten() {
                let due = pacer.due_before(times.to.saturating_sub(times.start));
                let streams = self.plan.count_of(self.publishers, owner);
                self.first[publisher] += stream_due(due, local, streams);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_gives_up_its_oldest_messages() {
        let mut feed = Feed::default();
        assert_eq!(feed.open_up_to(2, 4), 2);
        assert_eq!((feed.first, feed.open.len()), (0, 3));
        feed.open[2].receivers = 1;
        assert_eq!(feed.open_up_to(5, 4), 3);
        assert_eq!((feed.first, feed.open.len()), (2, 4));
        assert_eq!(feed.open[0].receivers, 1);
        assert_eq!(feed.open_up_to(1_000_000, 4), 3);
        assert_eq!((feed.first, feed.open.len()), (999_999, 4));
        assert!(feed.open.iter().all(|open| open.receivers == 0));
    }
}
