//! Fixed work for counting instructions: `instructions CASE MESSAGES` echoes that many messages in
//! place and says nothing.
//!
//! `scripts/instructions.sh` runs it under callgrind. Instructions, unlike nanoseconds, are the
//! same on every run of one binary on one machine, so a change of one percent is a fact even on a
//! shared runner. They are no time: a cache miss counts like an addition. Without arguments it
//! lists its cases.

use std::{hint::black_box, process::ExitCode};

use ws_proto::{Kind, Limits, Reply, Role, Session, encode_masked_frame};

/// Name, frames in a buffer, payload bytes of each.
const CASES: [(&str, usize, usize); 4] = [
    ("echo-64B", 1, 64),
    ("echo-16x64B", 16, 64),
    ("echo-1KiB", 1, 1024),
    ("echo-16KiB", 1, 16 * 1024),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(messages)) = (args.next(), args.next()) else {
        for (name, ..) in CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let case = CASES.iter().find(|case| case.0 == name);
    let (Some((_, frames, payload_bytes)), Ok(messages)) = (case, messages.parse()) else {
        eprintln!("instructions: {name} {messages}: no such case, or no number of messages");
        return ExitCode::from(2);
    };
    echo(*frames, *payload_bytes, messages);
    ExitCode::SUCCESS
}

/// As a server does: the kernel's copy into the buffer, then the reply from the same buffer.
fn echo(frames: usize, payload_bytes: usize, messages: usize) {
    let payload: Vec<u8> = (0..payload_bytes).map(|at| at as u8).collect();
    let mut request = Vec::new();
    for _ in 0..frames {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        encode_masked_frame(Kind::Binary.into(), &payload, mask, &mut request);
    }
    let mut session = Session::new(Role::Server, Limits::default());
    let (mut buf, mut spill) = (request.clone(), Vec::new());
    for _ in 0..messages.div_ceil(frames) {
        black_box(&mut buf[..]).copy_from_slice(&request);
        let echo = session.echo(&mut buf, &mut spill);
        assert!(matches!(echo.reply, Reply::InPlace(_)), "a reply in place");
        black_box(&buf);
    }
}
