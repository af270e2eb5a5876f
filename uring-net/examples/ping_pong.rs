//! The floor of a round trip: one message at a time on one TCP connection to an echo, on this ring,
//! with nothing around it. What `loadgen echo -c 1 --spin-us N` reports beyond that is its own.
//!
//! ```sh
//! cargo run --release --example floor_tcp -- --cpus 0 --spin-us 1000 &
//! cargo run --release --example ping_pong -- --cpu 1 --spin-us 1000 127.0.0.1:PORT
//! ```

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use uring_net::{Event, Pace, Ring, Token};

#[derive(Parser)]
struct Options {
    /// An echo
    address: SocketAddr,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Busy-poll for completions this many microseconds before sleeping; 0 disables
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
    /// Bytes of a message: 66 are a WebSocket frame with 64
    #[arg(long, default_value = "66")]
    bytes: NonZeroUsize,
    /// How long, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(cpu) = options.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    let mut round_trips_ns = ping(&options)?;
    round_trips_ns.sort_unstable();
    let at = |share: f64| round_trips_ns[((round_trips_ns.len() - 1) as f64 * share) as usize];
    println!(
        r#"{{"round_trips":{},"p50_ns":{},"p99_ns":{}}}"#,
        round_trips_ns.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

/// Sends, waits for all of it to come back, sends again. How long each took; at least one did.
fn ping(options: &Options) -> anyhow::Result<Vec<u64>> {
    let address = options.address;
    let stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut ring = Ring::builder().entries(8).buffers(8, 4096).build()?;
    let socket = ring.adopt(stream)?;
    let token = Token(0);
    ring.receive(socket, token);
    let pace = Pace::new(Duration::from_micros(options.spin_us));
    let message = vec![b'x'; options.bytes.get()];
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut round_trips_ns = Vec::new();
    while round_trips_ns.is_empty() || Instant::now() < end {
        let sent = Instant::now();
        ring.send(socket, message.clone(), token);
        let mut missing = message.len();
        while missing > 0 {
            pace.wait(&mut ring, 0, false)?;
            while let Some(completion) = ring.next_completion() {
                match completion.event {
                    Event::Received(bytes) if bytes.len() <= missing => missing -= bytes.len(),
                    Event::Sent { bytes, .. } if bytes == message.len() => {}
                    other => bail!("{address} is no echo: {other:?}"),
                }
            }
        }
        round_trips_ns.push(sent.elapsed().as_nanos() as u64);
    }
    Ok(round_trips_ns)
}
