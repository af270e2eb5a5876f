//! Echo: every message comes back to its sender. Kind `idle` is this with only a part of the
//! connections sending, or none.

use ws_proto::Kind;

use crate::{
    deal::Deal,
    engine::{
        parts::Parts,
        shared::Times,
        sockets::Sockets,
        stats::Stats,
        traffic::{Io, Traffic},
    },
    pacer::{Pacer, schedule_index, stream_due},
    payload::{Corrupted, Label, Payload},
    sequence::{Arrival, Overtaken, Sequence},
};

/// Most messages sent in one go before the clock is read again and the kernel gets to see them.
const BATCH: usize = 64;
/// Shorter messages that lie in two buffers are put together: that costs less than to look whether
/// each message is one.
const LEAST_IN_PARTS: usize = 1 << 10;

/// The echo traffic of one thread. Its first `streams` connections send.
#[derive(Debug)]
pub struct Echo {
    payloads: Payloads,
    /// What the first connection is called in messages, and the distance to the next one.
    first_name: u32,
    name_step: u32,
    window: u64,
    /// `None`: closed loop.
    pacer: Option<Pacer>,
    /// The schedule where some connections are hot; without it all take turns.
    deal: Option<Deal>,
    streams: Vec<Stream>,
    /// When each request in flight was sent: `places` per connection, the window's next power of
    /// two, so that no message costs a division.
    sent_at: Vec<u64>,
    places: usize,
    overtaken: Overtaken<u64>,
    parts: Parts,
    /// Number of each stream's first message of this load.
    first: u64,
    /// Messages of the schedule handed out so far, sent or waiting for a place.
    issued: u64,
    in_flight: u64,
    waiting: u64,
    /// What waits is not sent any more.
    gave_up: bool,
    /// Messages sent in one go.
    batch: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    sequence: Sequence,
    lost: bool,
}

/// What messages are built from and compared with.
#[derive(Debug)]
struct Payloads {
    usual: Payload,
    /// Of hot connections, where theirs are others.
    hot: Option<Payload>,
}

impl Payloads {
    fn of(&self, is_hot: bool) -> &Payload {
        match &self.hot {
            Some(hot) if is_hot => hot,
            _ => &self.usual,
        }
    }

    fn of_mut(&mut self, is_hot: bool) -> &mut Payload {
        match &mut self.hot {
            Some(hot) if is_hot => hot,
            _ => &mut self.usual,
        }
    }
}

/// What [`Echo::new`] needs to know.
#[derive(Debug)]
pub struct EchoPlan {
    /// Messages to build.
    pub payload: Payload,
    /// Messages of hot connections, if of another size.
    pub hot_payload: Option<Payload>,
    /// Connections of this thread that send.
    pub streams: usize,
    /// This thread.
    pub thread: usize,
    /// All threads.
    pub threads: usize,
    /// Requests in flight per connection.
    pub window: u64,
    /// The schedule; `None`: closed loop.
    pub pacer: Option<Pacer>,
    /// Whose turn it is, where some connections are hot.
    pub deal: Option<Deal>,
}

impl Echo {
    /// Before the load begins.
    pub fn new(plan: EchoPlan) -> Self {
        let places = (plan.window as usize).next_power_of_two();
        Self {
            places,
            batch: Sockets::batch(plan.payload.size(), BATCH) as u64,
            payloads: Payloads {
                usual: plan.payload,
                hot: plan.hot_payload,
            },
            first_name: plan.thread as u32,
            name_step: plan.threads as u32,
            window: plan.window,
            pacer: plan.pacer,
            deal: plan.deal,
            streams: vec![Stream::default(); plan.streams],
            sent_at: vec![0; plan.streams * places],
            overtaken: Overtaken::default(),
            parts: Parts::default(),
            first: 0,
            issued: 0,
            in_flight: 0,
            waiting: 0,
            gave_up: false,
        }
    }

    fn name(&self, conn: usize) -> u32 {
        self.first_name + self.name_step * conn as u32
    }

    fn is_hot(&self, conn: usize) -> bool {
        self.deal.as_ref().is_some_and(|deal| deal.is_hot(conn))
    }

    /// What the messages of `conn` are built from and compared with.
    fn payload(&self, conn: usize) -> &Payload {
        self.payloads.of(self.is_hot(conn))
    }

    fn slot(&self, conn: usize, seq: u64) -> usize {
        conn * self.places + (seq as usize & (self.places - 1))
    }

    /// The connection that message `index` of the schedule belongs to, and its number there.
    fn turn(&self, index: u64) -> (usize, u64) {
        let streams = self.streams.len() as u64;
        match &self.deal {
            Some(deal) => deal.turn(index),
            None => ((index % streams) as usize, index / streams),
        }
    }

    /// How many of the messages handed out so far belong to `conn`.
    fn due(&self, conn: usize) -> u64 {
        match &self.deal {
            Some(deal) => deal.due(self.issued, conn),
            None => stream_due(self.issued, conn, self.streams.len()),
        }
    }

    /// When message `seq` of `conn`, sent at `sent`, was meant to be sent.
    #[inline]
    fn meant(&self, conn: usize, seq: u64, sent: u64, times: &Times) -> u64 {
        match &self.pacer {
            Some(pacer) => {
                let number = seq - self.first;
                let index = match &self.deal {
                    Some(deal) => deal.index(conn, number),
                    None => schedule_index(number, conn, self.streams.len()),
                };
                times.start + pacer.due_at_ns(index)
            }
            None => sent,
        }
    }

    /// How many messages of `conn` from `seq` on, all before `end`, were sent at `sent`, and meant
    /// to be: they are recorded at once.
    #[inline]
    fn alike(&self, conn: usize, seq: u64, end: u64, sent: u64) -> u64 {
        let mut next = seq + 1;
        // Each message of a schedule was meant for another time.
        while next < end && self.pacer.is_none() && self.sent_at[self.slot(conn, next)] == sent {
            next += 1;
        }
        next - seq
    }

    fn has_room(&self, conn: usize) -> bool {
        self.streams[conn].sequence.in_flight() < self.window
    }

    /// The schedule begins at its first message, and so do all streams, at one number: those that
    /// have sent fewer than others leave some out. Nothing is in flight.
    fn start_schedule(&mut self) {
        let sent = self.streams.iter().map(|stream| stream.sequence.sent);
        self.first = sent.max().unwrap_or(0);
        for stream in &mut self.streams {
            stream.sequence.sent = self.first;
            stream.sequence.expected = self.first;
        }
        (self.issued, self.gave_up) = (0, false);
    }

    /// Sends the next `count` messages of `conn`.
    fn send_next(&mut self, conn: usize, count: u64, io: &mut Io<'_>) {
        let sequence = &mut self.streams[conn].sequence;
        let numbers = sequence.sent..sequence.sent + count;
        sequence.sent += count;
        self.in_flight += count;
        let name = self.name(conn);
        let is_hot = self.is_hot(conn);
        let payload = self.payloads.of_mut(is_hot);
        payload.write_messages(name, numbers.clone(), io.sockets.outgoing(conn));
        for seq in numbers.clone() {
            let slot = self.slot(conn, seq);
            self.sent_at[slot] = io.now;
        }
        if self.pacer.is_none() {
            return io.stats.sent(&io.times, io.now, io.now, count);
        }
        for seq in numbers {
            let meant = self.meant(conn, seq, io.now, &io.times);
            io.stats.sent(&io.times, io.now, meant, 1);
        }
    }

    /// Hands out what the schedule asks for now: sent where there is room, left waiting where there
    /// is none.
    fn issue(&mut self, pacer: Pacer, io: &mut Io<'_>) {
        // Nothing new is meant to be sent after the window.
        let most = pacer.due_before(io.times.to.saturating_sub(io.times.start));
        loop {
            let due = pacer
                .due(io.now.saturating_sub(io.times.start))
                .min(most)
                .min(self.issued + self.batch);
            if self.issued >= due {
                return;
            }
            let more = due == self.issued + self.batch;
            while self.issued < due {
                let (conn, number) = self.turn(self.issued);
                let meant = io.times.start + pacer.due_at_ns(self.issued);
                let stream = &self.streams[conn];
                let in_turn = stream.sequence.sent - self.first == number;
                if stream.lost {
                    // Never to be sent; `finish` counts it.
                } else if in_turn && self.has_room(conn) {
                    self.send_next(conn, 1, io);
                    io.stats.scheduled(&io.times, meant, io.now);
                } else {
                    self.waiting += 1;
                    if io.times.contain(meant) {
                        io.stats.window.delayed_by_window += 1;
                    }
                }
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

    /// `places` in the window of `conn` are free again.
    fn refill(&mut self, conn: usize, places: u64, io: &mut Io<'_>) {
        if self.pacer.is_none() {
            if io.now < io.times.to {
                self.send_next(conn, places, io);
            }
            return;
        }
        if self.gave_up {
            return;
        }
        let due = self.first + self.due(conn);
        while self.streams[conn].sequence.sent < due && self.has_room(conn) {
            self.waiting -= 1;
            self.send_next(conn, 1, io);
        }
    }

    /// `count` messages of `conn` from `seq` on, sent [alike](Self::alike), are answered.
    #[inline]
    fn settle(&mut self, conn: usize, seq: u64, count: u64, sent: u64, io: &mut Io<'_>) {
        self.in_flight -= count;
        let meant = self.meant(conn, seq, sent, &io.times);
        io.stats.reply(&io.times, io.now, meant, sent, count);
        if self.deal.is_some() && !self.is_hot(conn) {
            io.stats.reply_of_others(&io.times, io.now, meant, count);
        }
        io.stats.landed(&io.times, io.now, sent, count);
        if io.times.contain(meant) {
            let size = self.payload(conn).size() as u64;
            io.stats.window.received_payload_bytes += size * count;
        }
    }

    /// Wrong content: taken for the answer to the oldest request, so that a closed loop goes on.
    fn corrupted(&mut self, conn: usize, io: &mut Io<'_>) {
        let sequence = &mut self.streams[conn].sequence;
        let seq = sequence.expected;
        if sequence.sent == seq {
            io.stats.corrupted(&io.times, None);
            return;
        }
        sequence.expected += 1;
        self.in_flight -= 1;
        let sent = self.sent_at[self.slot(conn, seq)];
        let meant = self.meant(conn, seq, sent, &io.times);
        io.stats.corrupted(&io.times, Some(meant));
        io.stats.landed(&io.times, io.now, sent, 1);
        // Garbage costs a server two bytes, whatever the size of the request that it asks for.
        if io.sockets.has_room(conn) {
            self.refill(conn, 1, io);
        }
    }

    /// Messages `range` of `conn` were overtaken: their send times move out of the window's places.
    fn overtake(&mut self, conn: usize, range: std::ops::Range<u64>) {
        for seq in range {
            let sent = self.sent_at[self.slot(conn, seq)];
            self.overtaken.insert((conn as u64, seq), sent);
        }
    }

    /// A message has come, and this is what it says.
    #[inline]
    fn received(&mut self, conn: usize, label: Result<Label, Corrupted>, io: &mut Io<'_>) {
        io.stats.totals.received += 1;
        let Some(stream) = self.streams.get(conn) else {
            io.stats.window.unsolicited += 1;
            return;
        };
        if stream.sequence.sent == 0 {
            io.stats.window.unsolicited += 1;
            return;
        }
        let name = self.name(conn);
        let template = self.payload(conn);
        let (bits, is_empty) = (template.sequence_bits(), template.size() == 0);
        let label = match label {
            Ok(label) if label.stream.is_none_or(|stream| stream == name) => label,
            _ => return self.corrupted(conn, io),
        };
        let sequence = &mut self.streams[conn].sequence;
        let seq = sequence.restore(label.seq, bits);
        match sequence.arrive(seq) {
            Arrival::Ahead { skipped } => {
                if skipped > 0 {
                    self.overtake(conn, seq - skipped..seq);
                }
                let sent = self.sent_at[self.slot(conn, seq)];
                self.settle(conn, seq, 1, sent, io);
                self.refill(conn, 1, io);
            }
            Arrival::Behind => match self.overtaken.remove(&(conn as u64, seq)) {
                Some(sent) => {
                    self.streams[conn].sequence.missing -= 1;
                    io.stats.window.reordered += 1;
                    self.settle(conn, seq, 1, sent, io);
                    self.refill(conn, 1, io);
                }
                None => io.stats.window.duplicated += 1,
            },
            // With no bits of a number, one reply too many is a duplicate.
            Arrival::Unknown if is_empty => io.stats.window.duplicated += 1,
            Arrival::Unknown => self.corrupted(conn, io),
        }
    }
}

impl Traffic for Echo {
    fn start(&mut self, io: &mut Io<'_>) {
        if self.pacer.is_some() {
            return self.start_schedule();
        }
        if io.now >= io.times.to {
            return;
        }
        let mut sent = 0;
        for conn in 0..self.streams.len() {
            if !self.streams[conn].lost {
                self.send_next(conn, self.window, io);
                sent += self.window;
            }
            if sent >= self.batch {
                sent = 0;
                io.sockets.flush();
                io.sockets.submit_sends();
                io.now = io.clock.now();
            }
        }
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        if let Some(pacer) = self.pacer
            && io.now >= io.times.start
        {
            self.issue(pacer, io);
        }
    }

    fn next_due(&self, times: &Times) -> Option<u64> {
        let due = times
            .start
            .saturating_add(self.pacer?.due_at_ns(self.issued));
        (due < times.to).then_some(due)
    }

    fn take_expected(&mut self, conn: usize, bytes: &[u8], io: &mut Io<'_>) -> usize {
        let Some(stream) = self.streams.get(conn) else {
            return 0;
        };
        let Sequence { sent, expected, .. } = stream.sequence;
        let payload = self.payload(conn);
        let numbers = expected..sent;
        let (count, taken) = payload.count_replies(self.name(conn), numbers, bytes);
        if count == 0 {
            return 0;
        }
        let end = expected + count;
        self.streams[conn].sequence.expected = end;
        io.stats.totals.received += count;
        let mut seq = expected;
        while seq < end {
            let sent = self.sent_at[self.slot(conn, seq)];
            let alike = self.alike(conn, seq, end, sent);
            self.settle(conn, seq, alike, sent, io);
            seq += alike;
        }
        self.refill(conn, count, io);
        taken
    }

    fn message(&mut self, conn: usize, kind: Kind, payload: &[u8], io: &mut Io<'_>) {
        let label = match kind {
            Kind::Binary => self.payload(conn).check(payload),
            Kind::Text => Err(Corrupted),
        };
        self.received(conn, label, io);
    }

    fn takes_parts(&self, conn: usize) -> bool {
        self.payload(conn).size() >= LEAST_IN_PARTS
    }

    fn begun(&mut self, conn: usize, len: usize, first: &[u8]) {
        let payload = self.payloads.of(self.is_hot(conn));
        self.parts.begin(conn, len, first, payload);
    }

    fn rest(&mut self, conn: usize, bytes: &[u8], io: &mut Io<'_>) -> usize {
        let payload = self.payloads.of(self.is_hot(conn));
        let (taken, label) = self.parts.take(conn, bytes, payload);
        if let Some(label) = label {
            self.received(conn, label, io);
        }
        taken
    }

    fn lost(&mut self, conn: usize) {
        self.parts.forget(conn);
        let Some(stream) = self.streams.get_mut(conn) else {
            return;
        };
        if std::mem::replace(&mut stream.lost, true) {
            return;
        }
        let Sequence { sent, .. } = stream.sequence;
        self.in_flight -= stream.sequence.in_flight();
        if self.pacer.is_some() && !self.gave_up {
            self.waiting -= self.first + self.due(conn) - sent;
        }
    }

    fn give_up(&mut self) {
        self.gave_up = true;
        self.waiting = 0;
    }

    fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.waiting > 0
    }

    fn finish(&mut self, times: &Times, stats: &mut Stats) {
        stats.due = match &self.pacer {
            Some(pacer) => {
                let before = |at: u64| pacer.due_before(at.saturating_sub(times.start));
                before(times.to).saturating_sub(before(times.from))
            }
            None => stats.window.sent,
        };
    }
}
