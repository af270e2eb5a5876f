//! Reported latency against a server that delays every reply by a known time.
//!
//! Run with `--nocapture` to see reported beside known. What a message costs without any delay, mostly two wake-ups, is measured on the same machine
//! right before, because it is the machine's and not the generator's: tens of microseconds on a virtual one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::{
    hint,
    io::{Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use loadgen::record::Latency;
use support::{load_url, raw_server};

/// What the generator may add.
const TOLERANCE: Duration = Duration::from_micros(50);
/// A machine that stands still now and then gets another chance.
const ATTEMPTS: usize = 20;
/// A sleep may be late by the machine's mood; the last part of a delay is spun.
const SPUN: Duration = Duration::from_millis(2);

/// Sends back what comes on a connection, `delay` after it came.
fn delaying_server(delay: Duration) -> SocketAddr {
    raw_server("127.0.0.1:0", move |_, mut stream| {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            let due = Instant::now() + delay;
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

fn latency(server: SocketAddr) -> Latency {
    let args = "echo -c 1 -t 1 -d 400ms --warmup 50ms";
    let record = load_url(args, &format!("tcp://{server}")).record;
    assert_eq!(record.messages.received, record.messages.sent);
    record.latency_actual.unwrap()
}

#[test]
fn a_known_delay_is_reported_as_it_is() {
    let prompt = delaying_server(Duration::ZERO);
    for delay in [100, 1_000, 10_000].map(Duration::from_micros) {
        let delaying = delaying_server(delay);
        let within = (0..ATTEMPTS).any(|_| {
            let wake_up = Duration::from_nanos(latency(prompt).p50_ns);
            let reported = latency(delaying);
            // Histograms keep three digits.
            assert!(
                reported.min_ns as f64 >= delay.as_nanos() as f64 * 0.999,
                "a reply cannot arrive before it was sent: {} ns of {delay:?}",
                reported.min_ns
            );
            let median = Duration::from_nanos(reported.p50_ns);
            let excess = median.saturating_sub(delay);
            println!(
                "delay {delay:?}: median reported {median:?}, {excess:?} more; without delay {wake_up:?} (n = {})",
                reported.count
            );
            excess <= wake_up + TOLERANCE
        });
        assert!(
            within,
            "{delay:?} is reported wrongly in each of {ATTEMPTS} attempts; see above"
        );
    }
}
