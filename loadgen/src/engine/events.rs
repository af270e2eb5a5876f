//! What happens to a worker's connections: completions of the ring, answers, frames, ends.

use std::sync::atomic::Ordering::Relaxed;

use uring_net::{Completion, Event, OpKind};
use ws_proto::{CloseCode, Event as Frame, Input};

use crate::{
    engine::{
        arrivals::Begun,
        opening::Answer,
        traffic::{Io, Opened, Traffic},
        worker::{NO_CONNECTION, State, Worker},
    },
    histogram,
};

impl<T: Traffic> Worker<T> {
    pub(super) fn handle(&mut self, completion: Completion) {
        if completion.token == NO_CONNECTION {
            return;
        }
        let conn = completion.token.0 as usize;
        match completion.event {
            Event::Received(mut bytes) => self.received(conn, &mut bytes),
            Event::Sent { buf, .. } => {
                let pongs = self.sockets.sent(conn, Some(buf));
                if pongs > 0 {
                    self.stats.pinged(&self.shared.times(), self.now, pongs);
                }
            }
            Event::Connected => {
                if let Some(begun) = self.opener.connected(conn, &mut self.sockets, self.now) {
                    self.opened(conn, begun);
                }
            }
            Event::Eof => self.ended(conn, None),
            Event::Closed => self.closed(conn),
            Event::Failed { op, error, buf } => {
                if op == OpKind::Send {
                    self.sockets.sent(conn, buf);
                }
                if matches!(op, OpKind::Connect | OpKind::Receive | OpKind::Send) {
                    self.ended(conn, Some(&error));
                }
            }
            Event::ReceivedInto { .. }
            | Event::Cancelled { .. }
            | Event::SentPart { .. }
            | Event::ShutDown
            | Event::Accepted(_)
            | Event::TimedOut
            | Event::Woken => {}
        }
    }

    fn received(&mut self, conn: usize, bytes: &mut [u8]) {
        match self.states[conn] {
            State::Open | State::Closing => self.frames(conn, bytes),
            State::Opening => match self.opener.answered(conn, bytes, self.now) {
                Answer::Partial => {}
                Answer::Accepted { begun, rest } => {
                    self.opened(conn, begun);
                    // The head may have begun in an earlier piece, but what follows it is all in
                    // this one.
                    let rest = bytes.len() - rest.min(bytes.len());
                    self.frames(conn, &mut bytes[rest..]);
                }
                Answer::Refused(cause) => self.refused(conn, cause),
            },
            State::Down | State::Gone => {}
        }
    }

    // RFC 6455 section 4.1: waits-for-the-answer
    fn opened(&mut self, conn: usize, begun: Begun) {
        self.states[conn] = State::Open;
        self.sessions[conn] = self.bounds.session();
        self.outcome.open += 1;
        self.stats.totals.handshakes += 1;
        self.shared.opened.fetch_add(1, Relaxed);
        self.shared.up.fetch_add(1, Relaxed);
        let took = self.now.saturating_sub(begun.at);
        histogram::record(&mut self.stats.handshakes, took);
        if self.with_traffic(|traffic, io| traffic.opened(conn, begun, io)) == Opened::Recycle {
            self.start_closing(conn, CloseCode::Normal, "");
        }
    }

    // RFC 6455 section 7.1.7: client-fails
    // RFC 6455 section 7.2.1: handshake-fails
    fn refused(&mut self, conn: usize, cause: String) {
        self.outcome.failed += 1;
        self.shared.fail(cause);
        self.close_socket(conn);
    }

    /// Takes frames apart; what the server closes or breaks, we close.
    fn frames(&mut self, conn: usize, bytes: &mut [u8]) {
        let mut io = Io {
            sockets: &mut self.sockets,
            stats: &mut self.stats,
            times: self.shared.times(),
            clock: self.shared.clock,
            now: self.now,
        };
        let takes_parts = self.traffic.takes_parts(conn);
        let mut taken = match takes_parts {
            true => self.traffic.rest(conn, bytes, &mut io),
            false => 0,
        };
        if self.sessions[conn].is_at_frame_start() {
            let rest = &bytes[taken..];
            taken += self.traffic.take_expected(conn, rest, &mut io);
        }
        if taken == bytes.len() {
            return;
        }
        let mut input = Input::new(&mut bytes[taken..]);
        let mut is_done = false;
        let cause = loop {
            if takes_parts && let Some(begun) = self.sessions[conn].take_begun(&mut input) {
                self.traffic.begun(conn, begun.payload_len, begun.first);
            }
            match self.sessions[conn].receive(&mut input) {
                Ok(None) => {
                    if is_done && self.states[conn] == State::Open {
                        self.start_closing(conn, CloseCode::Normal, "");
                    }
                    return;
                }
                Ok(Some(Frame::Message { kind, payload })) => {
                    self.traffic.message(conn, kind, payload, &mut io);
                    is_done = self.traffic.is_done(conn);
                }
                // RFC 6455 section 5.5.2: ping-is-answered
                // RFC 6455 section 5.5.3: pong-repeats
                Ok(Some(Frame::Ping(data))) if self.states[conn] == State::Open => {
                    io.stats.totals.pings_unanswered += io.sockets.pong(conn, data);
                }
                // A ping that crossed our Close: the server reads nothing behind that.
                Ok(Some(Frame::Ping(_) | Frame::Pong(_))) => {}
                Ok(Some(Frame::Close { code, reason })) => {
                    if self.states[conn] == State::Closing {
                        self.traffic.has_left(conn, &mut io);
                    }
                    break close_cause(code, reason);
                }
                // RFC 6455 section 7.1.7: client-fails
                Err(violation) => {
                    let code = violation.code();
                    self.sessions[conn].close(
                        code,
                        violation.reason(),
                        self.sockets.outgoing(conn),
                    );
                    let section = violation.section();
                    if code == CloseCode::Size {
                        let most = self.bounds.message_bytes;
                        break format!(
                            "the server sent a message of more than the {most} bytes, or more \
                             fragments, than this run takes"
                        );
                    }
                    break format!("the server broke RFC 6455 section {section}: {violation}");
                }
            }
        };
        self.down(conn, cause);
        if self.is_tcp {
            return self.close_socket(conn);
        }
        self.sessions[conn].answer_close(self.sockets.outgoing(conn));
        // What answers the Close still leaves; the server ends the stream.
        if self.states[conn] == State::Open {
            self.set_closing(conn);
        }
    }

    /// The stream is over.
    // RFC 6455 section 7.2.1: transport-lost
    fn ended(&mut self, conn: usize, error: Option<&std::io::Error>) {
        match self.states[conn] {
            State::Down | State::Gone => return,
            State::Opening => {
                self.outcome.failed += 1;
                let cause = self.opener.failed(conn, error);
                self.shared.fail(cause);
            }
            State::Open => {
                let cause = match error {
                    Some(error) => error.to_string(),
                    None => "the server ended the stream without a Close frame".into(),
                };
                self.down(conn, cause);
            }
            State::Closing => {}
        }
        self.close_socket(conn);
    }

    /// Ends connections for which more waits to be sent than may wait.
    #[cold]
    pub(super) fn end_overfull(&mut self, mut next: Option<usize>) {
        while let Some(conn) = next {
            if self.states[conn] == State::Open {
                let most = self.bounds.unsent_bytes;
                self.down(
                    conn,
                    format!(
                        "more than {most} bytes waited to be sent: the server does not read what \
                         is sent to it"
                    ),
                );
                self.close_socket(conn);
            }
            next = self.sockets.take_overfull();
        }
    }

    /// An open connection is lost.
    fn down(&mut self, conn: usize, cause: String) {
        if self.states[conn] != State::Open {
            return;
        }
        self.outcome.open -= 1;
        self.shared.up.fetch_sub(1, Relaxed);
        // Between slices, too, all are to be up.
        if self.pause.is_some() || self.now < self.shared.times().to {
            self.outcome.closed_early += 1;
            self.shared.lost(cause);
        }
        self.traffic.lost(conn);
    }

    pub(super) fn start_closing(&mut self, conn: usize, code: CloseCode, reason: &str) {
        if self.is_tcp {
            self.sockets.shutdown_write(conn);
        } else {
            self.sessions[conn].close(code, reason, self.sockets.outgoing(conn));
        }
        self.outcome.open -= 1;
        self.shared.up.fetch_sub(1, Relaxed);
        self.set_closing(conn);
    }

    fn set_closing(&mut self, conn: usize) {
        self.states[conn] = State::Closing;
        if let Some(since) = self.closing_since.get_mut(conn) {
            *since = self.now;
        }
    }

    pub(super) fn close_socket(&mut self, conn: usize) {
        self.states[conn] = State::Gone;
        self.sockets.close(conn);
    }

    fn closed(&mut self, conn: usize) {
        self.states[conn] = State::Down;
        self.sockets.reset(conn);
        if self.recycles {
            if self.traffic.ended(conn) && self.now < self.shared.times().to {
                self.outcome.closed_early += 1;
                let cause = "the server ended the stream without an answer to the Close frame, or \
                             sent none in time";
                self.shared.lost(cause.into());
            }
            self.opener.again(conn);
        }
    }
}

fn close_cause(code: Option<CloseCode>, reason: &str) -> String {
    let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
    match reason {
        "" => format!("the server closed with {code}"),
        reason => format!("the server closed with {code} ({reason})"),
    }
}
