//! A small WebSocket server, a thread per connection, that is honest or has one defect. It keeps
//! the rules of the smoke subset and no others; it is no example of how to write a server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conformance::wire::{BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT};
use tungstenite::handshake::derive_accept_key;

struct House {
    defect: String,
    most: u64,
    ids: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
    messages: AtomicU64,
    sent: AtomicU64,
    bytes: AtomicU64,
    violations: AtomicU64,
    refused: AtomicU64,
    draining: AtomicBool,
    /// Every WebSocket connection: its room (none for echo) and its socket.
    members: Mutex<HashMap<u64, (Option<String>, TcpStream)>>,
}

/// Serves until SIGTERM or SIGINT; `args` are the defect and the options of the case.
pub(crate) fn serve(args: &[String]) {
    let option = |name: &str| {
        args.iter()
            .position(|arg| arg == name)
            .and_then(|at| args.get(at + 1))
    };
    let listener =
        TcpListener::bind(option("--listen").map_or("127.0.0.1:0", String::as_str)).expect("bind");
    let house = Arc::new(House {
        defect: args[0].clone(),
        most: option("--max-connections")
            .and_then(|n| n.parse().ok())
            .unwrap_or(u64::MAX),
        ids: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        open: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        violations: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        draining: AtomicBool::new(false),
        members: Mutex::new(HashMap::new()),
    });
    let mut signals = signal_hook::iterator::Signals::new([15, 2]).expect("signals");
    let name = std::env::current_exe()
        .expect("exe")
        .file_name()
        .expect("name")
        .to_string_lossy()
        .into_owned();
    let pid = std::process::id() + u32::from(house.is("lies-about-pid"));
    println!(
        "{{\"event\":\"ready\",\"server\":\"{name}\",\"version\":\"0\",\"runtime\":\"threads 1\",\"flavor\":\"{}\",\
         \"address\":\"{}\",\"workers\":{},\"cpus\":[],\"pid\":{pid},\
         \"options\":{{\"read_buffer_bytes\":1,\"mailbox_bytes\":1,\"open_files\":1}}}}",
        house.defect,
        listener.local_addr().expect("address"),
        option("--workers").map_or("1", String::as_str),
    );
    if house.is("talks-on-stdout") {
        println!("hello");
    }
    let accepting = house.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let house = accepting.clone();
            std::thread::spawn(move || house.connection(stream));
        }
    });
    for _ in signals.forever() {
        if !house.is("ignores-sigterm") {
            break;
        }
    }
    house.drain();
    house.last_words();
}

impl House {
    fn is(&self, defect: &str) -> bool {
        self.defect == defect
    }

    fn members(&self) -> MutexGuard<'_, HashMap<u64, (Option<String>, TcpStream)>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self) {
        self.draining.store(true, SeqCst);
        let code: u16 = if self.is("drains-with-1000") {
            1000
        } else {
            1001
        };
        for (_, stream) in self.members().values_mut() {
            if self.is("drains-without-close") {
                let _ = stream.shutdown(Shutdown::Both);
            } else {
                let _ = stream.write_all(&self.frame(CLOSE, &code.to_be_bytes()));
            }
        }
        let waits_in_vain = self.is("waits-out-the-drain");
        while waits_in_vain || !self.members().is_empty() {
            // tidy: may sleep, a server that waits in vain on purpose.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn last_words(&self) {
        if self.is("panics") {
            eprintln!("thread 'worker' panicked at somewhere");
        }
        if !self.is("no-final-line") {
            println!(
                "{{\"event\":\"final\",\"connections_accepted\":{},\"messages_received\":{},\"messages_sent\":{},\
                 \"bytes_received\":{},\"bytes_sent\":{},\"dropped\":0,\"slow_consumers_closed\":0,\"violations\":{},\
                 \"accept_errors\":0,\"refused\":{}}}",
                self.accepted.load(SeqCst),
                self.messages.load(SeqCst),
                self.sent.load(SeqCst),
                self.bytes.load(SeqCst),
                self.bytes.load(SeqCst),
                self.violations.load(SeqCst),
                self.refused.load(SeqCst),
            );
        }
        std::process::exit(i32::from(self.is("exits-1")));
    }

    fn connection(&self, mut stream: TcpStream) {
        self.accepted.fetch_add(1, SeqCst);
        let _ = stream.set_nodelay(true);
        let mut input = Vec::new();
        let head = loop {
            if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
                break input.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !read_more(&mut stream, &mut input) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let header = |name: &str| {
            let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
            pairs
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_string())
        };
        let room = path
            .strip_prefix("/broadcast/")
            .map(|room| if self.is("one-room") { "" } else { room }.to_string());
        if path != "/ws" && room.is_none() {
            return self.page(&mut stream, path);
        }
        let Some(key) = header("Sec-WebSocket-Key").filter(|_| header("Upgrade").is_some()) else {
            let status = if self.is("serves-plain-get") {
                "200 OK"
            } else {
                "426 Upgrade Required"
            };
            return self.answer(
                &mut stream,
                status,
                "text/plain",
                "Upgrade: websocket\r\n",
                "no",
            );
        };
        let open = self.open.fetch_add(1, SeqCst);
        let forever = self.is("full-for-ever") && self.ids.load(SeqCst) >= self.most;
        if (open >= self.most || forever) && !self.is("unlimited") {
            self.open.fetch_sub(1, SeqCst);
            self.refused.fetch_add(1, SeqCst);
            return self.answer(
                &mut stream,
                "503 Service Unavailable",
                "text/plain",
                "",
                "full",
            );
        }
        let accept = if self.is("wrong-accept") {
            key
        } else {
            derive_accept_key(key.as_bytes())
        };
        let extension = match header("Sec-WebSocket-Extensions") {
            Some(_) if self.is("accepts-extension") => {
                "Sec-WebSocket-Extensions: permessage-deflate\r\n"
            }
            _ => "",
        };
        let id = self.ids.fetch_add(1, SeqCst);
        // A member before its 101, so that it misses nothing after it; nobody writes to it in
        // between: the lock is held.
        let mut members = self.members();
        let _ = write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
        );
        members.insert(id, (room.clone(), stream.try_clone().expect("clone")));
        drop(members);
        self.frames(id, room.as_deref(), &mut stream, input);
        if !self.is("forgets-to-count-down") {
            self.open.fetch_sub(1, SeqCst);
        }
        self.members().remove(&id);
    }

    fn page(&self, stream: &mut TcpStream, path: &str) {
        match path {
            "/healthz" => {
                let (status, body) = if self.is("unwell") {
                    ("500 Oh", "ill")
                } else {
                    ("200 OK", "ok")
                };
                self.answer(stream, status, "text/plain", "", body);
            }
            "/metrics" => {
                let mut body = String::new();
                for (name, value) in [
                    ("connections_accepted", &self.accepted),
                    ("messages_received", &self.messages),
                    ("messages_sent", &self.sent),
                    ("bytes_received", &self.bytes),
                    ("bytes_sent", &self.bytes),
                    ("refused", &self.refused),
                ] {
                    let value = if self.is("counts-nothing") {
                        0
                    } else {
                        value.load(SeqCst)
                    };
                    body +=
                        &format!("# TYPE ringside_{name} counter\nringside_{name}_total {value}\n");
                }
                let open = self.open.load(SeqCst);
                body += &format!(
                    "# TYPE ringside_connections_open gauge\nringside_connections_open {open}\n"
                );
                body += if self.is("no-eof") { "" } else { "# EOF\n" };
                self.answer(
                    stream,
                    "200 OK",
                    "application/openmetrics-text; version=1.0.0",
                    "",
                    &body,
                );
            }
            _ => self.answer(stream, "404 Not Found", "text/plain", "", "no such path"),
        }
    }

    fn answer(&self, stream: &mut TcpStream, status: &str, kind: &str, extra: &str, body: &str) {
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n{body}",
            body.len()
        );
        if self.is("keeps-open-after-error") {
            read_more(stream, &mut Vec::new());
        }
    }

    /// Reads frames until the end; everything is written under the lock of the members, so that no
    /// frame is torn.
    fn frames(&self, id: u64, room: Option<&str>, stream: &mut TcpStream, mut input: Vec<u8>) {
        let mut begun: Option<(u8, Vec<u8>)> = None;
        let mut held: Option<(u8, Vec<u8>)> = None;
        loop {
            let Some((mut frame, used)) = Frame::parse(&input) else {
                if !read_more(stream, &mut input) {
                    return;
                }
                continue;
            };
            if frame.masked {
                let key = &input[frame.header - 4..frame.header];
                frame
                    .payload
                    .iter_mut()
                    .zip(key.iter().cycle())
                    .for_each(|(byte, key)| *byte ^= key);
            }
            input.drain(..used);
            if let Some(code) = self.violation(&frame, begun.as_ref()) {
                self.violations.fetch_add(1, SeqCst);
                let code: u16 = if self.is("wrong-violation-code") {
                    1000
                } else {
                    code
                };
                if !self.is("silent-violation") {
                    self.write(stream, CLOSE, &code.to_be_bytes());
                }
                return;
            }
            match frame.opcode() {
                PING if self.is("no-pong") => {}
                PING => {
                    let payload = if self.is("wrong-pong") {
                        b"pong".to_vec()
                    } else {
                        frame.payload
                    };
                    self.write(stream, PONG, &payload);
                }
                PONG => {}
                CLOSE => {
                    if !self.draining.load(SeqCst) {
                        let payload = if self.is("wrong-close-code") {
                            vec![3, 232]
                        } else {
                            frame.payload
                        };
                        self.write(stream, CLOSE, &payload);
                    }
                    if self.is("keeps-open-after-close") {
                        read_more(stream, &mut input);
                    }
                    return;
                }
                opcode => {
                    let (kind, mut payload) = begun.take().unwrap_or((opcode, Vec::new()));
                    payload.extend(frame.payload);
                    if frame.first & FIN == 0 {
                        begun = Some((kind, payload));
                        continue;
                    }
                    if kind == TEXT
                        && !self.is("any-bytes-are-text")
                        && std::str::from_utf8(&payload).is_err()
                    {
                        self.write(stream, CLOSE, &1007u16.to_be_bytes());
                        return;
                    }
                    self.message(id, room, stream, kind, payload, &mut held);
                }
            }
        }
    }

    fn violation(&self, frame: &Frame, begun: Option<&(u8, Vec<u8>)>) -> Option<u16> {
        let control = frame.opcode() >= CLOSE;
        let wrong_place = match frame.opcode() {
            CONTINUATION => begun.is_none(),
            TEXT | BINARY => begun.is_some(),
            CLOSE | PING | PONG => frame.first & FIN == 0 || frame.payload.len() > 125,
            _ => true,
        };
        let bad = frame.first & 0x70 != 0 || !frame.masked || wrong_place;
        let bad_reason = control
            && frame.opcode() == CLOSE
            && std::str::from_utf8(frame.payload.get(2..).unwrap_or_default()).is_err();
        match (bad && !self.is("lenient"), bad_reason) {
            (true, _) => Some(1002),
            (_, true) => Some(1007),
            _ => None,
        }
    }

    fn message(
        &self,
        id: u64,
        room: Option<&str>,
        stream: &mut TcpStream,
        kind: u8,
        mut payload: Vec<u8>,
        held: &mut Option<(u8, Vec<u8>)>,
    ) {
        let count = self.messages.fetch_add(1, SeqCst);
        self.bytes.fetch_add(payload.len() as u64, SeqCst);
        let kind = if self.is("all-is-text") { TEXT } else { kind };
        if self.is("flips-a-byte") && payload.len() == 65_536 {
            payload[40_000] ^= 1;
        }
        let odd = count % 500 == 499;
        let copies = match () {
            () if odd && self.is("loses-a-message") => 0,
            () if odd && self.is("doubles-a-message") => 2,
            () => 1,
        };
        if odd && self.is("swaps-messages") {
            *held = Some((kind, payload));
            return;
        }
        for (kind, payload) in std::iter::repeat_n((kind, payload), copies).chain(held.take()) {
            self.sent.fetch_add(1, SeqCst);
            let Some(room) = room else {
                self.write(stream, kind, &payload);
                continue;
            };
            let frame = self.frame(kind, &payload);
            for (member, (of, stream)) in self.members().iter_mut() {
                if of.as_deref() == Some(room) && !(self.is("sender-gets-nothing") && *member == id)
                {
                    let _ = stream.write_all(&frame);
                }
            }
        }
    }

    fn write(&self, stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
        let frame = self.frame(opcode, payload);
        let members = self.members();
        let _ = stream.write_all(&frame);
        drop(members);
    }

    fn frame(&self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![FIN | opcode];
        match payload.len() {
            n @ 0..=125 => out.push(n as u8),
            n @ 126..=0xffff => {
                out.push(126);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        if self.is("masks") {
            out[1] |= 0x80;
            out.extend([0; 4]);
        }
        out.extend(payload);
        out
    }
}

/// Reads once; false at the end.
fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(n) if n > 0 => {
            input.extend_from_slice(&buffer[..n]);
            true
        }
        _ => false,
    }
}
