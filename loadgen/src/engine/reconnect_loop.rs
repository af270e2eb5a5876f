//! Kind `connect`: a connection that is up has done its work, or does it with a few messages, one
//! after the other, before it leaves.

use ws_proto::Kind;

use crate::{
    engine::{
        arrivals::Begun,
        shared::Times,
        stats::Stats,
        traffic::{Io, Opened, Traffic},
    },
    payload::Payload,
    sequence::{Arrival, Sequence},
};

/// Lives of one thread's places, each a handshake and some messages.
#[derive(Debug)]
pub struct ReconnectLoop {
    payload: Payload,
    /// What the first place is called in messages, and the distance to the next one.
    first_name: u32,
    name_step: u32,
    /// Messages of a life.
    messages: u64,
    /// Connections arrive on a schedule: lives are lived to their end, because those that wait need
    /// the places.
    open_loop: bool,
    places: Vec<Place>,
    in_flight: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Runs on from life to life.
    sequence: Sequence,
    /// Messages still to be sent in this life.
    left: u64,
    sent_at: u64,
    life: Life,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    /// Not begun, or over.
    #[default]
    Over,
    /// A message is in flight.
    Talking,
    /// All replies are there; the closing handshake is not done.
    Leaving,
}

/// What [`ReconnectLoop::new`] needs to know.
#[derive(Debug)]
pub struct ReconnectPlan {
    /// Messages to build.
    pub payload: Payload,
    /// Messages of a life; 0: handshakes only.
    pub messages: u64,
    /// Connections of this thread at a time.
    pub places: usize,
    /// This thread.
    pub thread: usize,
    /// All threads.
    pub threads: usize,
    /// Connections are begun on a schedule.
    pub open_loop: bool,
}

impl ReconnectLoop {
    /// Before the first connection.
    pub fn new(plan: ReconnectPlan) -> Self {
        let places = if plan.messages > 0 { plan.places } else { 0 };
        Self {
            payload: plan.payload,
            first_name: plan.thread as u32,
            name_step: plan.threads as u32,
            messages: plan.messages,
            open_loop: plan.open_loop,
            places: vec![Place::default(); places],
            in_flight: 0,
        }
    }

    fn name(&self, conn: usize) -> u32 {
        self.first_name + self.name_step * conn as u32
    }

    fn goes_on(&self, io: &Io<'_>) -> bool {
        self.open_loop || io.now < io.times.to
    }

    fn send_next(&mut self, conn: usize, io: &mut Io<'_>) {
        let name = self.name(conn);
        let place = &mut self.places[conn];
        let seq = place.sequence.sent;
        place.sequence.sent += 1;
        place.left -= 1;
        place.sent_at = io.now;
        self.in_flight += 1;
        self.payload
            .write_frame(name, seq, 0, io.sockets.outgoing(conn));
        io.stats.totals.sent += 1;
        io.stats.lives.sent(&io.times, io.now);
    }

    /// The reply of the message in flight is there, whatever its content.
    fn next(&mut self, conn: usize, io: &mut Io<'_>) {
        self.in_flight -= 1;
        let goes_on = self.goes_on(io);
        let place = &mut self.places[conn];
        if place.left == 0 {
            place.life = Life::Leaving;
        } else if goes_on {
            self.send_next(conn, io);
        }
    }

    /// Wrong content: taken for the answer to the message in flight, so that the life goes on.
    fn corrupted(&mut self, conn: usize, io: &mut Io<'_>) {
        io.stats.lives.messages.corrupted += 1;
        let place = &mut self.places[conn];
        if place.sequence.in_flight() > 0 {
            place.sequence.expected = place.sequence.sent;
            io.stats.lives.settled(&io.times, place.sent_at);
            self.next(conn, io);
        }
    }
}

impl Traffic for ReconnectLoop {
    fn opened(&mut self, conn: usize, begun: Begun, io: &mut Io<'_>) -> Opened {
        io.stats.handshake(&io.times, io.now, begun);
        if self.messages == 0 {
            return Opened::Recycle;
        }
        if self.goes_on(io) {
            let place = &mut self.places[conn];
            (place.left, place.life) = (self.messages, Life::Talking);
            self.send_next(conn, io);
        }
        Opened::Keep
    }

    fn start(&mut self, _io: &mut Io<'_>) {}

    fn tick(&mut self, _io: &mut Io<'_>) {}

    fn next_due(&self, _times: &Times) -> Option<u64> {
        None
    }

    fn message(&mut self, conn: usize, kind: Kind, payload: &[u8], io: &mut Io<'_>) {
        if self.messages == 0 {
            return;
        }
        io.stats.totals.received += 1;
        let name = self.name(conn);
        let label = match self.payload.check(payload) {
            Ok(label) if kind == Kind::Binary && label.stream.is_none_or(|s| s == name) => label,
            _ => return self.corrupted(conn, io),
        };
        let place = &mut self.places[conn];
        let seq = place
            .sequence
            .restore(label.seq, self.payload.sequence_bits());
        match place.sequence.arrive(seq) {
            Arrival::Ahead { .. } => {
                let size = self.payload.size() as u64;
                let sent_at = place.sent_at;
                io.stats.lives.reply(&io.times, io.now, sent_at, size);
                self.next(conn, io);
            }
            Arrival::Behind => io.stats.lives.messages.duplicated += 1,
            // With no bits of a number, one reply too many is a duplicate.
            Arrival::Unknown if self.payload.size() == 0 => {
                io.stats.lives.messages.duplicated += 1;
            }
            Arrival::Unknown => self.corrupted(conn, io),
        }
    }

    fn is_done(&self, conn: usize) -> bool {
        let place = self.places.get(conn);
        place.is_some_and(|place| place.life == Life::Leaving)
    }

    fn has_left(&mut self, conn: usize, io: &mut Io<'_>) {
        if let Some(place) = self.places.get_mut(conn)
            && place.life == Life::Leaving
        {
            place.life = Life::Over;
            io.stats.lives.over(&io.times, io.now);
        }
    }

    fn ended(&mut self, conn: usize) -> bool {
        self.places
            .get_mut(conn)
            .is_some_and(|place| std::mem::take(&mut place.life) == Life::Leaving)
    }

    fn lost(&mut self, conn: usize) {
        if let Some(place) = self.places.get_mut(conn) {
            self.in_flight -= place.sequence.in_flight();
            // Its reply cannot come any more, and the next life sends the next number.
            place.sequence.expected = place.sequence.sent;
            place.life = Life::Over;
        }
    }

    fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    fn finish(&mut self, _times: &Times, _stats: &mut Stats) {}
}
