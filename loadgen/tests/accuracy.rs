//! Reported latency against a server that delays every reply by a known time.
//!
//! Run with `--nocapture` to see reported beside known. What the machine itself adds, mostly
//! wake-ups, is not the generator's: it grows with the time slept and with whatever else runs. A
//! plain client, `write` and `read` in a loop, meets it right before, against the same server and
//! on the same CPU, which is not the server's: two threads that share one wake each other for next
//! to nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    hint,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use loadgen::{engine::usage::pin, limits::check_cpus, record::Latency};
use support::{load_url, raw_server};

/// How long the plain client measures.
const REFERENCE: Duration = Duration::from_millis(400);
/// What the generator may add; without optimisation, and with cold caches after a long sleep, it is
/// slower itself.
const TOLERANCE: Duration = Duration::from_micros(if cfg!(debug_assertions) { 250 } else { 50 });
/// A machine that stands still now and then gets another chance.
const ATTEMPTS: usize = 20;
/// A sleep may be late by the machine's mood; the last part of a delay is spun.
const SPUN: Duration = Duration::from_millis(2);

/// A CPU for the server and one for the clients; the same where there is only one.
fn cpus() -> (usize, usize) {
    let mut allowed = (0..1024).filter(|cpu| check_cpus(&[*cpu]).is_ok());
    let server = allowed.next().unwrap();
    (server, allowed.next().unwrap_or(server))
}

/// Sends back what comes on a connection, `delay` after it came.
fn delaying_server(delay: Duration) -> SocketAddr {
    raw_server("127.0.0.1:0", move |_, mut stream| {
        pin(cpus().0).unwrap();
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            let due = Instant::now() + delay;
            // tidy: may sleep, a server with a known delay.
            thread::sleep(delay.saturating_sub(SPUN));
            while Instant::now() < due {
                hint::spin_loop();
            }
            if stream.write_all(&bytes[..len]).is_err() {
                return;
            }
        }
    })
    .unwrap()
}

/// The median round trip of a plain client: the delay and what the machine adds.
fn plain_round_trip(server: SocketAddr) -> Duration {
    thread::spawn(move || plain_client(server)).join().unwrap()
}

fn plain_client(server: SocketAddr) -> Duration {
    pin(cpus().1).unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = [7; 66];
    let mut trips = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < REFERENCE {
        let sent = Instant::now();
        stream.write_all(&bytes).unwrap();
        stream.read_exact(&mut bytes).unwrap();
        trips.push(sent.elapsed());
    }
    trips.sort_unstable();
    trips[trips.len() / 2]
}

/// `None` when the machine stood still for the whole run.
fn latency(server: SocketAddr) -> Option<Latency> {
    let args = format!("echo -c 1 -t 1 --cpus {} -d 400ms --warmup 50ms", cpus().1);
    let record = load_url(&args, &format!("tcp://{server}")).record;
    assert_eq!(record.messages.received, record.messages.sent);
    record.latency_actual
}

#[test]
fn a_known_delay_is_reported_as_it_is() {
    for delay in [0, 100, 1_000, 10_000].map(Duration::from_micros) {
        let delaying = delaying_server(delay);
        let within = (0..ATTEMPTS).any(|_| {
            let plain = plain_round_trip(delaying);
            let Some(reported) = latency(delaying) else {
                return false;
            };
            // Histograms keep three digits.
            assert!(
                reported.min_ns as f64 >= delay.as_nanos() as f64 * 0.999,
                "a reply cannot arrive before it was sent: {} ns of {delay:?}",
                reported.min_ns
            );
            let median = Duration::from_nanos(reported.p50_ns);
            println!(
                "delay {delay:?}: {median:?} reported (n = {}), {plain:?} seen by a plain client",
                reported.count
            );
            median <= plain + TOLERANCE
        });
        assert!(
            within,
            "{delay:?} is reported wrongly in each of {ATTEMPTS} attempts; see above"
        );
    }
}
