//! What a message costs the generator apart from the kernel: the schedule, the frame, the check,
//! the record.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::{
    engine::{shared::Times, stats::Stats},
    pacer::Pacer,
    payload::Payload,
};
use ws_proto::MAX_HEADER_BYTES;

const TIMES: Times = Times {
    start: 0,
    from: 0,
    to: u64::MAX,
};

fn pacer(criterion: &mut Criterion) {
    let pacer = Pacer::new(50_000.0, 1_000, 1_000, 0).expect("a rate and streams");
    let mut group = criterion.benchmark_group("pacer");
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("due", |bencher| {
        bencher.iter(|| {
            at += 997;
            pacer.due(black_box(at))
        });
    });
    let mut message = 0;
    group.bench_function("due_at", |bencher| {
        bencher.iter(|| {
            message += 1;
            pacer.due_at_ns(black_box(message))
        });
    });
    group.finish();
}

fn recorder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recorder");
    group
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(1));
    for (name, open_loop) in [("closed loop", false), ("open loop", true)] {
        let mut stats = Stats::new(open_loop);
        let mut now = 1_000_000;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                now += 1_009;
                // Latencies that spread over some octaves, as real ones do.
                let sent = now - (now & 0xf_ffff).min(now);
                stats.sent(&TIMES, sent, sent, 1);
                stats.reply(&TIMES, black_box(now), sent, sent, 1);
                stats.landed(&TIMES, now, sent, 1);
            });
        });
    }
    group.finish();
}

fn payload(criterion: &mut Criterion) {
    for size in [64, 4 << 10, 64 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group(format!("payload {size}B"));
        group
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .throughput(Throughput::Bytes(size as u64));
        let mut payload = Payload::new(size, 7, false);
        let mut frame = Vec::with_capacity(size + MAX_HEADER_BYTES);
        group.bench_function("write", |bencher| {
            bencher.iter(|| {
                frame.clear();
                payload.write_frame(black_box(3), 5, 0, &mut frame);
            });
        });
        payload.leave_unmasked();
        frame.clear();
        payload.write_frame(3, 5, 0, &mut frame);
        let message = &frame[frame.len() - payload.size()..];
        group.bench_function("check", |bencher| {
            bencher.iter(|| payload.check(black_box(message)));
        });
        group.finish();
    }
}

criterion_group!(benches, pacer, recorder, payload);
criterion_main!(benches);
