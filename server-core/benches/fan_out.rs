//! What a broadcast costs before any socket: encoding it once, and handing it to every member's
//! outbox.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use server_core::{
    options::{SendQueue, SlowConsumer},
    outbox::Outbox,
    rooms::{FrameBuilder, Frames},
};
use ws_proto::Kind;

const PAYLOAD: [u8; 64] = [b'x'; 64];
const BOUND: SendQueue = SendQueue {
    max_messages: 1024,
    max_bytes: 1 << 20,
    slow_consumer: SlowConsumer::Drop,
};

fn encode(messages: usize) -> Frames {
    let mut builder = FrameBuilder::with_capacity(messages * (PAYLOAD.len() + 14));
    for _ in 0..messages {
        builder.push(Kind::Binary, black_box(&PAYLOAD));
    }
    builder.take().expect("messages were pushed")
}

/// All messages of one receive into one shared piece.
fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for messages in [1_usize, 16] {
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
            bencher.iter(|| encode(messages));
        });
    }
    group.finish();
}

/// One encoded message to every member of a room whose sockets are busy, and out again.
fn delivery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver");
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for members in [100_usize, 1_000] {
        let frames = encode(1);
        let bytes = frames.bytes.len();
        let mut outboxes: Vec<Outbox> = (0..members).map(|_| Outbox::new()).collect();
        group.throughput(Throughput::Elements(members as u64));
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter(|| {
                for outbox in &mut outboxes {
                    outbox.push(black_box(&frames).clone(), 0, BOUND);
                }
                for outbox in &mut outboxes {
                    outbox.advance(bytes);
                }
            });
        });
        assert!(outboxes.iter().all(Outbox::is_empty));
    }
    group.finish();
}

criterion_group!(benches, encoding, delivery);
criterion_main!(benches);
