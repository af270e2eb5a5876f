//! Small WebSocket servers that do exactly what a test needs, one thread per connection, and runs
//! of the library against them.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use clap::Parser;
use loadgen::{
    assemble::RunOutput, cli::Cli, preflight, progress::Progress, record::Record, run::run, target,
};
use tungstenite::{Message, WebSocket};
use ws_proto::{Data, OpCode, encode_frame};

/// A server's end of a connection.
pub(crate) type Socket = WebSocket<TcpStream>;

/// Starts a server that gives every connection, numbered, to `serve` on a thread of its own.
pub(crate) fn server(serve: impl Fn(usize, Socket) + Send + Sync + 'static) -> SocketAddr {
    server_at("127.0.0.1:0", serve).unwrap()
}

/// As [`server`], at `address`.
pub(crate) fn server_at(
    address: &str,
    serve: impl Fn(usize, Socket) + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    raw_server(address, move |number, stream| {
        if let Ok(socket) = tungstenite::accept(stream) {
            serve(number, socket);
        }
    })
}

/// A server without any protocol.
pub(crate) fn raw_server(
    address: &str,
    serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            stream.set_nodelay(true).unwrap();
            let serve = serve.clone();
            thread::spawn(move || serve(number, stream));
        }
    });
    Ok(address)
}

/// Echoes; `act` may do something else with message `number` (of this connection) and return true.
pub(crate) fn echo(mut socket: Socket, mut act: impl FnMut(u64, &mut Socket, &Message) -> bool) {
    let mut number = 0;
    while let Ok(message) = socket.read() {
        if message.is_close() {
            // The answer leaves with the flush; then the server ends the stream first.
            let _ = socket.flush();
            return;
        }
        if !message.is_binary() && !message.is_text() {
            continue;
        }
        if !act(number, &mut socket, &message) && socket.send(message).is_err() {
            return;
        }
        number += 1;
    }
}

/// An echo server without faults.
pub(crate) fn echo_server() -> SocketAddr {
    server(|_, socket| echo(socket, |_, _, _| false))
}

/// A room: every message to every member, except where `skip(member, message)` says so.
pub(crate) fn room(skip: impl Fn(usize, u64) -> bool + Send + Sync + 'static) -> SocketAddr {
    let members: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let messages = AtomicU64::new(0);
    server(move |_, socket| {
        let stream = socket.get_ref().try_clone().unwrap();
        members.lock().unwrap().push(stream.try_clone().unwrap());
        echo(socket, |_, _, message| {
            let mut frame = Vec::new();
            encode_frame(
                OpCode::Data(Data::Binary),
                &message.clone().into_data(),
                &mut frame,
            );
            let mut members = members.lock().unwrap();
            let number = messages.fetch_add(1, SeqCst);
            for (member, stream) in members.iter_mut().enumerate() {
                if !skip(member, number) {
                    let _ = stream.write_all(&frame);
                }
            }
            true
        });
        let _ = stream.shutdown(Shutdown::Both);
    })
}

/// Reads an HTTP request head and drops it.
pub(crate) fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    head
}

/// A server that answers every request with `answer` and closes.
pub(crate) fn answering(answer: &'static str) -> SocketAddr {
    raw_server("127.0.0.1:0", move |_, mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    })
    .unwrap()
}

/// A server that sends back every byte, after `change` had a look at it.
pub(crate) fn tcp_echo_server(change: impl Fn(&mut [u8]) + Send + Sync + 'static) -> SocketAddr {
    raw_server("127.0.0.1:0", move |_, mut stream| {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            change(&mut bytes[..len]);
            if stream.write_all(&bytes[..len]).is_err() {
                return;
            }
        }
    })
    .unwrap()
}

/// Runs `loadgen ARGS ws://ADDRESS/` in this process.
pub(crate) fn load(args: &str, address: SocketAddr) -> RunOutput {
    load_url(args, &format!("ws://{address}/"))
}

/// Runs `loadgen ARGS URL` in this process.
pub(crate) fn load_url(args: &str, url: &str) -> RunOutput {
    let line = std::iter::once("loadgen")
        .chain(args.split_whitespace())
        .chain([url]);
    let (config, _) = Cli::try_parse_from(line).unwrap().check().unwrap();
    let targets = target::resolve_all(&config).unwrap();
    let addresses: Vec<_> = targets
        .iter()
        .map(|target| target.address.clone())
        .collect();
    let plan = preflight::plan(&config, &addresses).unwrap();
    run(
        &config,
        targets,
        plan,
        &AtomicBool::new(false),
        Progress::default(),
    )
}

/// As [`load`]; only the record.
pub(crate) fn record(args: &str, address: SocketAddr) -> Record {
    load(args, address).record
}

/// Exactly one reason, and it names `part`.
#[track_caller]
pub(crate) fn invalid_because(record: &Record, part: &str) {
    let reasons: Vec<String> = record.validity.faults().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains(part)),
        "{part:?} is not among {reasons:?}"
    );
}
