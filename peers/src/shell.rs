//! A peer as a process: one single-threaded tokio runtime per worker, each with its own listener on
//! one shared port.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, disable_transparent_huge_pages, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use crate::work::{HandlerWork, MAX_HANDLER_WORK_US};

/// As our servers: the kernel cuts it to `net.core.somaxconn`.
const LISTEN_BACKLOG: i32 = 65_535;

/// WebSocket server of another stack: /ws echoes, /broadcast/{room} tells everybody in the room
#[derive(Debug, Parser)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// CPUs for the workers in turn, such as 0,2-3 [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    cpus: Option<Cpus>,
    /// Threads [default: one per CPU of the list, else 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// CPU time to burn for each message of /ws and each message published in a room, as a handler
    /// would that has work to do, in microseconds: 0 to 1000000. Calibrated at the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_HANDLER_WORK_US)))]
    handler_work_us: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cpus(Vec<usize>);

/// Which server this is.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Name of the program.
    pub server: &'static str,
    /// Version of the stack.
    pub version: &'static str,
    /// The stack and what it runs on.
    pub runtime: &'static str,
}

/// Serves every connection with `serve`, which does the work given for each message, until SIGTERM
/// or SIGINT; the program's exit code.
pub fn run<Serve, Serving>(about: About, serve: Serve) -> ExitCode
where
    Serve: Fn(TcpStream, HandlerWork) -> Serving + Clone + Send + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    match start(about, &Options::parse(), serve) {
        Ok(mut signals) => {
            signals.forever().next();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start<Serve, Serving>(about: About, options: &Options, serve: Serve) -> Result<Signals>
where
    Serve: Fn(TcpStream, HandlerWork) -> Serving + Clone + Send + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    prepare_process();
    let signals = Signals::new([SIGTERM, SIGINT]).context("cannot handle signals")?;
    let cpus = options.cpus.as_ref().map_or(&[][..], |cpus| &cpus.0);
    let workers = options.workers.map_or(cpus.len().max(1), usize::from);
    let first = listen(options.listen)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(listen(address)?);
    }
    let work = HandlerWork::calibrated(options.handler_work_us);
    let serve = move |stream| serve(stream, work);
    for (index, listener) in listeners.into_iter().enumerate() {
        let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        start_worker(index, cpu, listener, serve.clone())?;
    }
    println!(
        "{}",
        serde_json::json!({
            "event": "ready",
            "server": about.server,
            "version": about.version,
            "runtime": about.runtime,
            "address": address,
            "workers": workers,
            "cpus": cpus,
            "pid": std::process::id(),
            "options": {"handler_work_us": options.handler_work_us},
        })
    );
    Ok(signals)
}

/// What our servers do too: as many files as allowed, and no huge pages that would make memory
/// figures a matter of luck.
fn prepare_process() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Without either the server still works.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let _ = disable_transparent_huge_pages(true);
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Linux hands this on to every accepted socket.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}"))
}

fn start_worker<Serve, Serving>(
    index: usize,
    cpu: Option<usize>,
    listener: TcpListener,
    serve: Serve,
) -> Result<()>
where
    Serve: Fn(TcpStream) -> Serving + Send + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    if let Some(cpu) = cpu {
        // The thread inherits it; the main thread, which only waits for signals, may sit on the
        // last one.
        let mut set = CpuSet::new();
        ensure!(cpu < CpuSet::MAX_CPU, "there is no CPU {cpu}");
        set.set(cpu);
        sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(accept(listener, serve)))?;
    Ok(())
}

async fn accept<Serve, Serving>(listener: TcpListener, serve: Serve)
where
    Serve: Fn(TcpStream) -> Serving,
    Serving: Future<Output = ()> + Send + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("error: cannot accept: {error}");
            std::process::exit(1);
        }
    };
    loop {
        match listener.accept().await {
            // The budget of tokio's cooperative scheduling would only send a busy connection round
            // the loop once more.
            Ok((stream, _)) => drop(tokio::spawn(tokio::task::unconstrained(serve(stream)))),
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

fn parse_cpus(text: &str) -> Result<Cpus, String> {
    let wrong = || format!("`{text}` is no list of CPUs such as 0,2-3");
    let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
    let mut cpus = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => cpus.push(number(part)?),
            Some((first, last)) => cpus.extend(number(first)?..=number(last)?.min(4096)),
        }
    }
    if cpus.is_empty() {
        return Err(wrong());
    }
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_cpus("0"), Ok(Cpus(vec![0])));
        assert_eq!(parse_cpus("0,2-3"), Ok(Cpus(vec![0, 2, 3])));
        for bad in ["", "x", "1-", "3-2"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
