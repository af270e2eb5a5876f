//! Opening connections: how many at a time, from where, and what can go wrong on the way.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use socket2::{SockAddr, Socket, Type};
use uring_net::{Token, net::set_bind_address_no_port};
use ws_proto::handshake::{
    Status,
    client::{Accepted, HandshakeError, Key, check_response},
};

use crate::{
    address::Address,
    engine::{
        arrivals::{Arrivals, Begun},
        shared::Times,
        sockets::Sockets,
        stats::Stats,
    },
    pacer::Pacer,
    plan::Plan,
    record::Subprotocols,
    target::{Protocol, Target},
};

/// How long connect and handshake together may take while none is completed ...
const TIMEOUT_NS: u64 = 10_000_000_000;
/// ... and while others are: a SYN that the kernel drops again and again is not the server's fault.
const MOST_TIMEOUT_NS: u64 = 60_000_000_000;
/// How often openings are looked over for that.
const SWEEP_NS: u64 = 500_000_000;
/// How long the rest of a refusal is waited for at least: its first line often says why.
const REFUSAL_NS: u64 = 200_000_000;

/// Opens the connections of one thread.
#[derive(Debug)]
pub struct Opener {
    targets: Arc<Vec<Target>>,
    plan: Arc<Plan>,
    thread: usize,
    /// Connections that have traffic, the first ones; the others are expected to be silent.
    busy: usize,
    /// Connections that ask for the target as given where others ask for no work, the first ones.
    hot: usize,
    waiting: VecDeque<u32>,
    in_flight: HashMap<u32, Opening>,
    pacer: Option<Pacer>,
    /// Kind `connect` in an open loop.
    arrivals: Option<Arrivals>,
    begun: u64,
    attempts: usize,
    next_sweep: u64,
    /// What was chosen of the subprotocols offered.
    pub subprotocols: Subprotocols,
    /// When the first connect began and the last handshake ended.
    pub first_begun: Option<u64>,
    /// See `first_begun`.
    pub last_done: u64,
}

/// One connection on its way.
#[derive(Debug)]
struct Opening {
    target: usize,
    key: Key,
    begun: Begun,
    /// The answer so far, when it came in pieces.
    answer: Vec<u8>,
    /// When it turned out to be a refusal, of which more may come.
    refused: Option<u64>,
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// More has to come.
    Partial,
    /// Upgraded. `rest` bytes at the end of what was given belong to the session.
    Accepted {
        /// When the connect began.
        begun: Begun,
        /// Bytes behind the head.
        rest: usize,
    },
    /// No WebSocket connection; a sentence.
    Refused(String),
}

impl Opener {
    /// All connections of `thread` wait to be opened, at most `rate_per_s` (over all threads) begun
    /// per second. The first `busy` of them have traffic; the first `hot` are hot, where any are.
    pub fn new(
        targets: Arc<Vec<Target>>,
        plan: Arc<Plan>,
        thread: usize,
        busy: usize,
        hot: usize,
        rate_per_s: Option<f64>,
    ) -> Self {
        let count = plan.count(thread);
        let pacer = rate_per_s.and_then(|rate| Pacer::new(rate, 1, plan.threads, thread));
        Self {
            targets,
            thread,
            busy,
            hot,
            waiting: (0..count as u32).collect(),
            in_flight: HashMap::new(),
            pacer,
            arrivals: None,
            begun: 0,
            attempts: 0,
            next_sweep: 0,
            subprotocols: Subprotocols::default(),
            first_begun: None,
            last_done: 0,
            plan,
        }
    }

    /// The same on a schedule that does not wait for connections to leave.
    #[must_use]
    pub fn on_schedule(mut self, rate_per_s: Option<f64>) -> Self {
        let (threads, thread) = (self.plan.threads, self.thread);
        let pacer = rate_per_s.and_then(|rate| Pacer::new(rate, 1, threads, thread));
        self.arrivals = pacer.map(Arrivals::new);
        self
    }

    /// Connections are begun on a schedule.
    pub fn has_schedule(&self) -> bool {
        self.arrivals.is_some()
    }

    /// Connections that the schedule asked for are still to come up.
    pub fn is_behind(&self, times: &Times, now: u64) -> bool {
        let arrivals = self.arrivals.as_ref();
        arrivals.is_some_and(|all| all.waits(times, now) || !self.in_flight.is_empty())
    }

    /// Arrivals that wait are not begun any more.
    pub fn give_up(&mut self) {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.give_up();
        }
    }

    /// The load is over: counts what the schedule asked for.
    pub fn finish(&self, times: &Times, stats: &mut Stats) {
        if let Some(arrivals) = &self.arrivals {
            stats.due = arrivals.of_window(times);
        }
    }

    /// No WebSocket: connections are up once TCP is, and end with it.
    pub fn is_tcp(&self) -> bool {
        self.targets.iter().any(Target::is_tcp)
    }

    /// Which thread opens which connections.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A place is to be opened again.
    pub fn again(&mut self, conn: usize) {
        self.waiting.push_back(conn as u32);
    }

    /// When the next connect may begin, if only the rate holds it back.
    pub fn next_due(&self, times: &Times) -> Option<u64> {
        if self.waiting.is_empty() || self.in_flight.len() >= self.plan.most_in_flight() {
            return None;
        }
        if let Some(arrivals) = &self.arrivals {
            return arrivals.next_due(times);
        }
        Some(self.first_begun.unwrap_or(0) + self.pacer?.due_at_ns(self.begun))
    }

    /// Begins as many connects as may be begun now; calls `begun` for each. What a schedule asks
    /// for and has no place is counted in `stats`.
    ///
    /// # Errors
    /// When a socket cannot be made or bound: a sentence.
    pub fn begin(
        &mut self,
        (times, now): (&Times, u64),
        sockets: &mut Sockets,
        stats: &mut Stats,
        mut begun: impl FnMut(usize),
    ) -> Result<(), String> {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.queue(times, now, stats);
        }
        while self.in_flight.len() < self.plan.most_in_flight() {
            let first = *self.first_begun.get_or_insert(now);
            if let Some(pacer) = self.pacer
                && pacer.due(now - first) <= self.begun
            {
                return Ok(());
            }
            let Some(conn) = self.waiting.front().copied() else {
                break;
            };
            let meant = match &mut self.arrivals {
                Some(arrivals) => match arrivals.take(times, now, stats) {
                    Some(meant) => meant,
                    None => return Ok(()),
                },
                None => now,
            };
            self.waiting.pop_front();
            self.begun += 1;
            self.begin_one(conn, Begun { meant, at: now }, sockets)?;
            begun(conn as usize);
        }
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.wait(times, now, stats);
        }
        Ok(())
    }

    fn begin_one(&mut self, conn: u32, begun: Begun, sockets: &mut Sockets) -> Result<(), String> {
        let global = self.plan.global(self.thread, conn as usize);
        // A place that is opened again moves on to the next source address.
        let attempt = self.attempts / self.plan.count(self.thread).max(1);
        self.attempts += 1;
        let (target, source) = self.plan.route(global, attempt);
        let address = &self.targets[target].address;
        let (socket, peer) =
            make_socket(address, source).map_err(|error| socket_error(&error, address, source))?;
        let ring = sockets.ring();
        let socket = ring
            .adopt(socket)
            .map_err(|error| format!("cannot set up a socket: {error}"))?;
        ring.connect(socket, peer, Token(u64::from(conn)));
        sockets.attach(conn as usize, socket);
        self.in_flight.insert(
            conn,
            Opening {
                target,
                key: Key::generate(),
                begun,
                answer: Vec::new(),
                refused: None,
            },
        );
        Ok(())
    }

    /// TCP is connected: listens, and asks for the upgrade. Where there is none to ask for, the
    /// connection is up: says when it was begun.
    pub fn connected(&mut self, conn: usize, sockets: &mut Sockets, now: u64) -> Option<Begun> {
        let opening = self.in_flight.get(&(conn as u32))?;
        if let Some(socket) = sockets.socket(conn) {
            let token = Token(conn as u64);
            if conn < self.busy {
                sockets.ring().receive(socket, token);
            } else {
                sockets.ring().receive_by_poll(socket, token);
            }
        }
        let target = &self.targets[opening.target];
        match &target.protocol {
            // RFC 6455 section 4.1: sends-handshake
            Protocol::WebSocket(request) => {
                let without_work = target.without_work.as_ref().filter(|_| conn >= self.hot);
                let request = without_work.unwrap_or(request);
                request.write(&opening.key, sockets.outgoing(conn));
                None
            }
            Protocol::Tcp => {
                let begun = opening.begun;
                self.done(conn, now);
                Some(begun)
            }
        }
    }

    fn done(&mut self, conn: usize, now: u64) {
        self.in_flight.remove(&(conn as u32));
        self.last_done = now;
    }

    /// Bytes of the answer.
    pub fn answered(&mut self, conn: usize, bytes: &[u8], now: u64) -> Answer {
        let Some(opening) = self.in_flight.get_mut(&(conn as u32)) else {
            return Answer::Partial;
        };
        let target = &self.targets[opening.target];
        let Protocol::WebSocket(request) = &target.protocol else {
            return Answer::Partial;
        };
        let whole = if opening.answer.is_empty() {
            bytes
        } else {
            opening.answer.extend_from_slice(bytes);
            &opening.answer
        };
        let head = match check_response(whole, &opening.key, request) {
            Ok(Status::Complete(Accepted {
                head_bytes,
                subprotocol,
            })) => {
                if request.offers_subprotocols() {
                    self.subprotocols.count(subprotocol);
                }
                head_bytes
            }
            Err(HandshakeError::Refused(refusal)) if refusal.is_partial => {
                opening.refused.get_or_insert(now);
                opening.keep(bytes);
                return Answer::Partial;
            }
            Ok(Status::Partial) => {
                opening.keep(bytes);
                return Answer::Partial;
            }
            Err(error) => return Answer::Refused(refusal(&error, target)),
        };
        let answer = Answer::Accepted {
            begun: opening.begun,
            rest: whole.len() - head,
        };
        self.done(conn, now);
        answer
    }

    /// The connect or the stream failed before the answer was complete; a sentence.
    // RFC 6455 section 4.1: not-opened-fails
    pub fn failed(&mut self, conn: usize, error: Option<&io::Error>) -> String {
        let Some(opening) = self.in_flight.remove(&(conn as u32)) else {
            return "a connection failed".into();
        };
        let target = &self.targets[opening.target];
        if let Some(cause) = opening.refusal(target) {
            return cause;
        }
        let Target { url, address, .. } = target;
        match error {
            None if opening.answer.is_empty() => format!(
                "{url}: {address} closed the connection without answering the handshake: is it a WebSocket server?"
            ),
            None => format!("{url}: {address} closed the connection in the middle of its answer"),
            Some(error) => connect_error(error, url, address),
        }
    }

    /// The first opening that takes too long; a sentence.
    pub fn overdue(&mut self, now: u64) -> Option<String> {
        if now < self.next_sweep {
            return None;
        }
        self.next_sweep = now + SWEEP_NS;
        let is_refused = |opening: &&Opening| {
            let since = opening.refused;
            since.is_some_and(|since| now.saturating_sub(since) > REFUSAL_NS)
        };
        if let Some(refused) = self.in_flight.values().find(is_refused) {
            return refused.refusal(&self.targets[refused.target]);
        }
        let late = self.in_flight.values().find(|opening| {
            let stalled = now.saturating_sub(opening.begun.at.max(self.last_done));
            stalled > TIMEOUT_NS || now.saturating_sub(opening.begun.at) > MOST_TIMEOUT_NS
        })?;
        let Target { url, address, .. } = &self.targets[late.target];
        Some(format!(
            "{url}: {address} did not complete a handshake within {} s: is it a WebSocket server, and does it keep up? (--connect-rate slows down)",
            now.saturating_sub(late.begun.at) / 1_000_000_000
        ))
    }

    /// None waits or is on its way.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

impl Opening {
    /// Keeps the first piece of an answer; later ones are there already.
    fn keep(&mut self, bytes: &[u8]) {
        if self.answer.is_empty() {
            self.answer.extend_from_slice(bytes);
        }
    }

    /// The refusal as far as it has come; a sentence.
    fn refusal(&self, target: &Target) -> Option<String> {
        self.refused?;
        let Protocol::WebSocket(request) = &target.protocol else {
            return None;
        };
        let error = check_response(&self.answer, &self.key, request).err()?;
        Some(refusal(&error, target))
    }
}

/// Where to bind before connecting to `target`: any port of `source`, and where that is link-local
/// on the interface of the target.
fn bind_address(source: IpAddr, target: SocketAddr) -> SocketAddr {
    match (source, target) {
        (IpAddr::V6(ip), SocketAddr::V6(target)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, 0, 0, target.scope_id()).into()
        }
        _ => SocketAddr::new(source, 0),
    }
}

/// A socket for `target`, and where it is to connect.
fn make_socket(target: &Address, source: Option<IpAddr>) -> io::Result<(Socket, SockAddr)> {
    let socket = Socket::new(target.domain(), Type::STREAM, None)?;
    if let Some(address) = target.ip() {
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            set_bind_address_no_port(&socket)?;
            socket.bind(&bind_address(source, address).into())?;
        }
    }
    Ok((socket, target.to_socket_address()?))
}

fn socket_error(error: &io::Error, target: &Address, source: Option<IpAddr>) -> String {
    match (error.kind(), source) {
        (io::ErrorKind::AddrNotAvailable, Some(source)) => format!(
            "cannot connect from {source}: it is no address of this host; give one that `ip address` shows with --source-ips"
        ),
        _ => format!("cannot make a socket for {target}: {error}"),
    }
}

fn connect_error(error: &io::Error, url: &str, address: &Address) -> String {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused if address.ip().is_none() => {
            ": no server listens there: is it running, and is the path right?"
        }
        io::ErrorKind::ConnectionRefused => ": is the server running, and is the port right?",
        io::ErrorKind::NotFound => ": is the server running, and is the path right?",
        io::ErrorKind::PermissionDenied => ": this user may not write to the socket's file",
        io::ErrorKind::WouldBlock => {
            ": the server's queue of connections is full (net.core.somaxconn); --connect-rate slows down"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": no free port is left for this pair of addresses; give more addresses with --source-ips"
        }
        io::ErrorKind::ConnectionReset => " during the handshake",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            ": is the address right?"
        }
        _ => "",
    };
    // The kernel's text without the number behind it.
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    format!("{url}: cannot connect to {address}: {text}{hint}")
}

fn refusal(error: &HandshakeError, target: &Target) -> String {
    let Target { url, address, .. } = target;
    let hint = match error {
        HandshakeError::NotHttp(_) => ": this is no WebSocket server",
        HandshakeError::Refused(refusal) => match refusal.status {
            300..=399 => ": give the URL that it names",
            401 => ": it wants credentials (-H 'Authorization: ...')",
            403 => ": it wants a header or another origin (-H 'Origin: ...')",
            404 => ": the path is wrong",
            429 => ": it wants fewer connections at a time (--connect-rate slows down)",
            503 => ": it has no room for so many connections (its --max-connections?)",
            _ => ": it speaks HTTP, but does not upgrade here",
        },
        _ => "",
    };
    format!("{url}: {address} did not accept the WebSocket handshake: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let unix = Address::Unix("/a".into());
        for (error, address, hint) in [
            (
                io::ErrorKind::ConnectionRefused,
                &address,
                "is the server running",
            ),
            (io::ErrorKind::AddrNotAvailable, &address, "--source-ips"),
            (io::ErrorKind::ConnectionRefused, &unix, "is it running"),
            (io::ErrorKind::NotFound, &unix, "is the path right"),
            (io::ErrorKind::WouldBlock, &unix, "--connect-rate"),
        ] {
            let text = connect_error(&error.into(), "ws://a", address);
            assert!(text.contains(hint), "{text}");
        }
        let refused = io::Error::from_raw_os_error(111);
        assert!(!connect_error(&refused, "ws://a", &address).contains("os error"));
        let absent = Some([203, 0, 113, 1].into());
        let error = make_socket(&address, absent).unwrap_err();
        assert!(socket_error(&error, &address, absent).contains("--source-ips"));
    }
}
