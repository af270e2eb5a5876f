//! The WebSocket of a member of a room: what it receives becomes publications and pongs.

use ws_proto::{
    CloseCode, Control, Event, Input, Limits, OpCode, Role, Session, State, encode_frame,
};

use crate::control::{GOING_AWAY, IDLE, PING, SLOW_CONSUMER};
use crate::counters::{LocalCounters, WorkerCounters};
use crate::outbox::Outbox;
use crate::rooms::{FrameBuilder, Publication};
use crate::task::Signals;
use crate::work::HandlerWork;

/// The protocol of one member.
#[derive(Debug)]
pub struct MemberSession {
    session: Session,
    /// Done for each message that is taken in.
    work: HandlerWork,
    /// Received and not yet in every mailbox. While there is one, nothing is taken in.
    pub publication: Option<Publication>,
    /// Our Close frame, when the peer's or its violation was taken in.
    close_frame: Vec<u8>,
}

/// What a receive led to, beside a publication.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Pongs to send.
    pub pongs: Vec<u8>,
    /// Close frames have been exchanged, or ours tells the peer what it did wrong: the connection
    /// ends when everything is published, with the [close frame](MemberSession::close_frame).
    pub over: bool,
    /// What is to be counted, but for a violation.
    pub counts: LocalCounters,
}

impl MemberSession {
    /// Of a connection that was just upgraded.
    pub fn new(limits: Limits, work: HandlerWork) -> Self {
        Self {
            session: Session::new(Role::Server, limits),
            work,
            publication: None,
            close_frame: Vec::new(),
        }
    }

    /// Whether neither side is closing.
    pub fn is_open(&self) -> bool {
        self.session.state() == State::Open
    }

    /// Its WebSocket.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether nothing of what the peer sends matters any more.
    pub fn is_closed(&self) -> bool {
        self.session.state() == State::Closed
    }

    /// Takes in `received`: all its messages become one publication, and the handler's work is done
    /// for each. After our own Close only the peer's matters.
    pub fn take_in(&mut self, received: &mut [u8], counters: &WorkerCounters) -> TakenIn {
        let closing = !self.is_open();
        let mut taken = TakenIn::default();
        taken.counts.bytes_received = received.len() as u64;
        let mut built = FrameBuilder::with_capacity(received.len());
        let mut input = Input::new(received);
        loop {
            match self.session.receive(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { kind, payload })) => built.push(kind, payload),
                Ok(Some(Event::Ping(payload))) => {
                    taken.counts.pings_received += 1;
                    encode_frame(OpCode::Control(Control::Pong), payload, &mut taken.pongs);
                }
                Ok(Some(Event::Pong(_))) => taken.counts.pongs_received += 1,
                Ok(Some(Event::Close { .. })) => {
                    self.session.answer_close(&mut self.close_frame);
                    taken.over = true;
                    break;
                }
                Err(violation) => {
                    counters.count_violation(&violation);
                    let (code, reason) = (violation.code(), violation.reason());
                    self.session.close(code, reason, &mut self.close_frame);
                    taken.over = true;
                    break;
                }
            }
        }
        if closing {
            taken.pongs = Vec::new();
        } else if let Some(frames) = built.take() {
            taken.counts.messages_received = frames.messages.into();
            self.work.run(taken.counts.messages_received);
            self.publication = Some(Publication::new(frames));
        }
        taken
    }

    /// Does what others tell the member's task; `true` when that ends the connection. A ping is
    /// queued only where it `can_ping`: where it would leave at once.
    pub fn handle_signals(
        &mut self,
        signals: Signals,
        can_ping: bool,
        counters: &WorkerCounters,
        outbox: &mut Outbox,
    ) -> bool {
        if signals.includes(Signals::SLOW_CONSUMER) {
            self.end_with(CloseCode::Policy, SLOW_CONSUMER, outbox);
            return true;
        }
        if signals.includes(Signals::IDLE_TIMEOUT) {
            counters.idle_timeouts.add(1);
            self.end_with(CloseCode::Away, IDLE, outbox);
            return true;
        }
        if signals.includes(Signals::DRAIN) {
            outbox.close(self.close(CloseCode::Away, GOING_AWAY));
        } else if signals.includes(Signals::PING) && can_ping && self.is_open() {
            outbox.push_control(PING);
            counters.pings_sent.add(1);
        }
        false
    }

    /// Sends nothing any more but what has begun, and a Close frame.
    pub fn end_with(&mut self, code: CloseCode, reason: &str, outbox: &mut Outbox) {
        outbox.end();
        outbox.close(self.close(code, reason));
    }

    /// Begins to close; the Close frame to send. Where one is due already it is that.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Vec<u8> {
        let mut frame = self.close_frame();
        self.session.close(code, reason, &mut frame);
        frame
    }

    /// The Close frame that is due when everything is published. Once.
    pub fn close_frame(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.close_frame)
    }
}

#[cfg(test)]
mod tests {
    use ws_proto::{OpCode, encode_frame};

    use super::*;
    use crate::counters::Counters;

    /// Frames of a client with a mask of zeros.
    fn client(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (first, payload) in frames {
            bytes.extend([*first, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn take_in(member: &mut MemberSession, counters: &Counters, frames: &[(u8, &[u8])]) -> TakenIn {
        member.take_in(&mut client(frames), counters.worker(0))
    }

    #[test]
    fn a_receive_is_one_publication_and_all_pongs() {
        let counters = Counters::new(1);
        let mut member = MemberSession::new(Limits::default(), HandlerWork::default());
        let frames: &[(u8, &[u8])] = &[(0x81, b"a"), (0x89, b"1"), (0x82, b"b"), (0x89, b"2")];
        let taken = take_in(&mut member, &counters, frames);
        assert_eq!(taken.pongs, b"\x8a\x011\x8a\x012");
        assert!(member.publication.take().is_some() && !taken.over);
        assert_eq!(taken.counts.messages_received, 2);
        assert_eq!(taken.counts.pings_received, 2);
        let taken = take_in(&mut member, &counters, &[(0x8a, b"")]);
        assert!(member.publication.is_none() && taken.pongs.is_empty());
    }

    #[test]
    fn what_came_before_a_violation_counts_and_its_close_is_due() {
        let counters = Counters::new(1);
        let mut member = MemberSession::new(Limits::default(), HandlerWork::default());
        let taken = take_in(&mut member, &counters, &[(0x81, b"a"), (0x83, b"")]);
        assert!(taken.over && member.publication.is_some());
        assert_eq!(counters.totals().violations, 1);
        let due = member.close(CloseCode::Away, "too late");
        assert_eq!(due[..4], [0x88, due.len() as u8 - 2, 0x03, 0xea], "{due:?}");
        assert!(member.close_frame().is_empty());
    }

    #[test]
    fn after_our_close_only_the_peers_matters() {
        let counters = Counters::new(1);
        let mut member = MemberSession::new(Limits::default(), HandlerWork::default());
        let mut ours = Vec::new();
        encode_frame(
            OpCode::Control(ws_proto::Control::Close),
            b"\x03\xe9bye",
            &mut ours,
        );
        assert_eq!(member.close(CloseCode::Away, "bye"), ours);
        let taken = take_in(&mut member, &counters, &[(0x81, b"a"), (0x89, b"1")]);
        assert!(taken.pongs.is_empty() && member.publication.is_none() && !taken.over);
        let taken = take_in(&mut member, &counters, &[(0x88, b"\x03\xe9")]);
        assert!(taken.over && member.close_frame().is_empty());
    }
}
