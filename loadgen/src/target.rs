//! Where to connect: URLs checked, names resolved, the handshake request made.
//!
//! `tcp://` is for measuring the floor: a server that sends back every byte. It gets the frames
//! that a WebSocket server would send and has to return them as they are, so that receiving and
//! verifying costs what it costs with `ws://`.
//!
//! `ws+unix:PATH:/ws` and `tcp+unix:PATH` are the same over a Unix stream socket, in the form of
//! Node's `ws` and nginx: what is different then is TCP.

use std::{
    net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use url::{Host, Url};
use ws_proto::handshake::client::{Request, RequestError};

use crate::{address::Address, config::Config, record::LoadKind};

/// Asks our servers for no work in the handler. Others pass a query over.
const NO_WORK: &str = "work=0";

/// How long a name with several addresses is probed per address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// One target.
#[derive(Debug, Clone)]
pub struct Target {
    /// As typed.
    pub url: String,
    /// Where to connect.
    pub address: Address,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What connections that are not hot ask for instead: no work in the handler.
    pub without_work: Option<Request>,
}

/// What a target speaks; all targets of a run speak the same.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// WebSocket: what to ask for in the handshake.
    WebSocket(Request),
    /// No protocol: every byte comes back.
    Tcp,
}

/// Checks and resolves all targets of a run.
///
/// # Errors
/// A sentence per first target that cannot work.
pub fn resolve_all(config: &Config) -> Result<Vec<Target>, String> {
    let targets: Vec<Target> = config
        .urls
        .iter()
        .map(|url| resolve(url, config, None))
        .collect::<Result<_, _>>()?;
    let of_tcp = targets.iter().filter(|target| target.is_tcp()).count();
    if of_tcp != 0 && of_tcp != targets.len() {
        return Err(
            "ws:// and tcp:// targets in one run would be measured as one: make it two runs".into(),
        );
    }
    Ok(targets)
}

/// The targets of a run at addresses that [`resolve_all`] has found, one per URL.
///
/// # Errors
/// As [`resolve_all`], which should have told.
pub fn at(config: &Config, addresses: &[Address]) -> Result<Vec<Target>, String> {
    let pairs = config.urls.iter().zip(addresses);
    pairs
        .map(|(url, address)| resolve(url, config, Some(address.clone())))
        .collect()
}

impl Target {
    /// Raw bytes, no WebSocket.
    pub fn is_tcp(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp)
    }
}

fn resolve(text: &str, config: &Config, known: Option<Address>) -> Result<Target, String> {
    if let Some(rest) = text.strip_prefix("ws+unix:") {
        return resolve_unix(text, rest, config);
    }
    if let Some(path) = text.strip_prefix("tcp+unix:") {
        check_tcp(text, config)?;
        return Ok(Target {
            url: text.to_owned(),
            address: unix_address(text, path)?,
            protocol: Protocol::Tcp,
            without_work: None,
        });
    }
    let (plain, zone) = without_zone(text);
    let url = parse(text, &plain)?;
    let host = url.host().ok_or_else(|| format!("{text}: no host"))?;
    let (port, protocol, without_work) = if url.scheme() == "tcp" {
        (tcp_port(text, &url, config)?, Protocol::Tcp, None)
    } else {
        let port = url.port_or_known_default().unwrap_or(80);
        let (protocol, without_work) = requests(text, &url, &host, config)?;
        (port, protocol, without_work)
    };
    Ok(Target {
        url: text.to_owned(),
        address: match known {
            Some(known) => known,
            None => address(&host, zone, port)
                .map_err(|error| format!("{text}: {error}"))?
                .into(),
        },
        protocol,
        without_work,
    })
}

/// WebSocket over a Unix socket: its path, and after `:` what to ask for, which begins with `/`.
fn resolve_unix(text: &str, rest: &str, config: &Config) -> Result<Target, String> {
    let (path, target) = match rest.find(":/") {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, "/"),
    };
    // RFC 9110 section 7.2 asks for a Host, and a path is none.
    let url = parse(text, &format!("ws://localhost{target}"))?;
    let (protocol, without_work) = requests(text, &url, &Host::Domain("localhost"), config)?;
    Ok(Target {
        url: text.to_owned(),
        address: unix_address(text, path)?,
        protocol,
        without_work,
    })
}

fn unix_address(text: &str, path: &str) -> Result<Address, String> {
    if path.is_empty() || text.starts_with("tcp") && path.contains(":/") {
        return Err(format!("{text}: write ws+unix:PATH:/ws, or tcp+unix:PATH"));
    }
    let address = Address::Unix(path.into());
    match address.to_socket_address() {
        Ok(_) => Ok(address),
        Err(_) => Err(format!(
            "{text}: a Unix socket's path has at most 107 bytes, and this one has {}: use a relative one",
            path.len()
        )),
    }
}

/// What hot connections ask for, or all; and what the others do.
fn requests(
    text: &str,
    url: &Url,
    host: &Host<&str>,
    config: &Config,
) -> Result<(Protocol, Option<Request>), String> {
    let of_query = |query: Option<&str>| request(text, url, query, host, config);
    let hot = config.traffic.hot.filter(|hot| hot.size.is_none());
    let without_work = match (hot, url.query()) {
        (None, _) => None,
        (Some(_), None | Some("")) => Some(of_query(Some(NO_WORK))?),
        (Some(_), Some(query)) => Some(of_query(Some(&format!("{query}&{NO_WORK}")))?),
    };
    Ok((Protocol::WebSocket(of_query(url.query())?), without_work))
}

/// The port of a `tcp://` target, of which nothing else is needed.
fn tcp_port(text: &str, url: &Url, config: &Config) -> Result<u16, String> {
    check_tcp(text, config)?;
    let has_more = !matches!(url.path(), "" | "/") || url.query().is_some();
    url.port()
        .filter(|_| !has_more)
        .ok_or_else(|| format!("{text}: write tcp://HOST:PORT"))
}

/// Refuses what raw bytes cannot carry.
fn check_tcp(text: &str, config: &Config) -> Result<(), String> {
    if config.kind != LoadKind::Echo {
        return Err(format!(
            "{text}: a raw TCP server only echoes: use `loadgen echo`, or a ws:// target"
        ));
    }
    if !config.headers.is_empty() || !config.subprotocols.is_empty() {
        return Err(format!(
            "{text}: raw TCP has no handshake to carry -H or --subprotocol: leave them out"
        ));
    }
    if config.traffic.hot.is_some_and(|hot| hot.size.is_none()) {
        return Err(format!(
            "{text}: raw TCP has no query that could ask for no work: leave out --hot, or add \
             --hot-size"
        ));
    }
    if config.traffic.fragments > 1 {
        return Err(format!(
            "{text}: raw TCP has no frames: leave out --fragments, or use a ws:// target"
        ));
    }
    Ok(())
}

fn request(
    text: &str,
    url: &Url,
    query: Option<&str>,
    host: &Host<&str>,
    config: &Config,
) -> Result<Request, String> {
    // RFC 6455 section 4.1: request-target, request-host
    let is_host = |header: &&(String, String)| header.0.eq_ignore_ascii_case("host");
    let mut given_hosts = config.headers.iter().filter(is_host);
    let host_field = match (given_hosts.next(), given_hosts.next(), url.port()) {
        (Some(_), Some(_), _) => {
            return Err("a request has one Host: leave out the other -H".into());
        }
        (Some((_, given)), None, _) => given.clone(),
        (None, _, Some(port)) => format!("{host}:{port}"),
        (None, _, None) => host.to_string(),
    };
    let target = match query {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request =
        Request::new(&host_field, &target).map_err(|error| format!("{text}: {error}"))?;
    for (name, value) in config.headers.iter().filter(|header| !is_host(header)) {
        request = request.header(name, value).map_err(header_error)?;
    }
    for name in &config.subprotocols {
        request = request
            .subprotocol(name)
            .map_err(|error| error.to_string())?;
    }
    Ok(request)
}

/// What to write instead of a header that is not the user's.
fn header_error(error: RequestError) -> String {
    let RequestError::Reserved(name) = &error else {
        return format!("-H: {error}");
    };
    let instead = match name.to_ascii_lowercase().as_str() {
        "sec-websocket-protocol" => "offer a subprotocol with --subprotocol NAME",
        "sec-websocket-key" => {
            "every connection gets a fresh key (RFC 6455 section 4.1): leave it out"
        }
        "sec-websocket-version" => "13 is sent, the only version spoken here: leave it out",
        "sec-websocket-extensions" => {
            "no extension is spoken here, so none is offered: leave it out"
        }
        "sec-websocket-accept" => "this is the server's to send: leave it out",
        "upgrade" | "connection" => "the handshake sends it: leave it out",
        "content-length" | "transfer-encoding" => "the request has no body: leave it out",
        _ => "Sec-WebSocket-* belongs to the handshake (RFC 6455 section 11.3): leave it out",
    };
    format!("-H '{name}: ...': {instead}")
}

/// Takes the zone out of `[fe80::1%25eth0]` (RFC 6874) or `[fe80::1%eth0]`: the URLs of browsers,
/// which [`Url`] reads, have none, and it is not sent to the server.
fn without_zone(text: &str) -> (String, Option<&str>) {
    let parts = text.split_once("://[").and_then(|(scheme, rest)| {
        let (inside, behind) = rest.split_once(']')?;
        let (address, zone) = inside.split_once('%')?;
        Some((scheme, address, zone, behind))
    });
    let Some((scheme, address, zone, behind)) = parts else {
        return (text.to_owned(), None);
    };
    let escaped = zone.strip_prefix("25").filter(|zone| !zone.is_empty());
    let plain = format!("{scheme}://[{address}]{behind}");
    (plain, Some(escaped.unwrap_or(zone)))
}

/// Checks `plain`, which is `text` without its zone.
fn parse(text: &str, plain: &str) -> Result<Url, String> {
    // RFC 6455 section 3: hash-is-escaped
    // RFC 6455 section 4.1: uri-is-valid
    // RFC 6455 section 11.1.1: host-to-ascii, path-to-ascii
    let url = Url::parse(plain)
        .map_err(|error| format!("{text}: {error}; write ws://HOST[:PORT][/PATH]"))?;
    match url.scheme() {
        "ws" | "tcp" => {}
        "wss" => {
            return Err(format!(
                "{text}: wss:// needs TLS, which this generator does not speak; end TLS in a proxy and use ws://, \
                 or the cost of TLS would be measured as the server's"
            ));
        }
        scheme => {
            return Err(format!(
                "{text}: scheme {scheme}:// is neither ws:// nor tcp:// (nor ws+unix: or tcp+unix:)"
            ));
        }
    }
    // RFC 6455 section 3: no-fragment
    if url.fragment().is_some() {
        return Err(format!("{text}: a WebSocket URL has no #fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{text}: user and password in the URL are not sent; use -H 'Authorization: ...'"
        ));
    }
    Ok(url)
}

/// An IPv6 address, with the interface that a link-local one needs.
fn ipv6_address(ip: Ipv6Addr, zone: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    match (zone, ip.is_unicast_link_local()) {
        (None, false) => Ok((ip, port).into()),
        (None, true) => Err(format!(
            "{ip} is on every interface: name one, as in [{ip}%25eth0] (`ip -6 addr` shows which)"
        )),
        (Some(zone), false) => Err(format!(
            "%{zone} is for link-local addresses (fe80::...): leave it out"
        )),
        // The resolver reads names and numbers of interfaces.
        (Some(zone), true) => (format!("{ip}%{zone}").as_str(), port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .ok_or_else(|| format!("there is no interface {zone} (`ip link` lists them)")),
    }
}

/// The address of a host. A name with several addresses (`localhost` often has two) is probed with
/// a plain TCP connect, in the resolver's order, because a server rarely listens on all; if none
/// answers, the first is taken and the run will say what is wrong.
fn address(host: &Host<&str>, zone: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    let name = match host {
        Host::Ipv4(ip) => return Ok((*ip, port).into()),
        Host::Ipv6(ip) => return ipv6_address(*ip, zone, port),
        Host::Domain(name) => name,
    };
    let mut addresses: Vec<SocketAddr> = (*name, port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve {name}: {error}"))?
        .collect();
    addresses.dedup();
    let first = *addresses
        .first()
        .ok_or_else(|| format!("{name} has no address"))?;
    if addresses.len() == 1 {
        return Ok(first);
    }
    Ok(addresses
        .into_iter()
        .find(|address| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok())
        .unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hot, Traffic};
    use std::net::Ipv4Addr;
    use ws_proto::handshake::client::Key;

    fn config(url: &str) -> Config {
        Config {
            kind: LoadKind::Echo,
            urls: vec![url.to_owned()],
            connections: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            slices: false,
            shards: None,
            threads: None,
            cpus: Vec::new(),
            spin: Duration::ZERO,
            connect_rate_per_s: None,
            source_ips: Vec::new(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn addresses() {
        for (url, expected) in [
            (
                "ws://127.0.0.1:9/ws",
                SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
            ),
            ("ws://127.0.0.1", (Ipv4Addr::LOCALHOST, 80).into()),
            ("ws://[::1]:9/ws?a=b", (Ipv6Addr::LOCALHOST, 9).into()),
            ("tcp://127.0.0.1:9", (Ipv4Addr::LOCALHOST, 9).into()),
            ("tcp://[::1]:9/", (Ipv6Addr::LOCALHOST, 9).into()),
        ] {
            let targets = resolve_all(&config(url)).unwrap();
            assert_eq!(targets[0].address, expected.into(), "{url}");
        }
        for zone in ["%25lo", "%lo", "%251", "%1"] {
            let targets = resolve_all(&config(&format!("ws://[fe80::1{zone}]:9/"))).unwrap();
            let expected: SocketAddr = "[fe80::1%1]:9".parse().unwrap();
            assert_eq!(targets[0].address, expected.into());
            let mut sent = Vec::new();
            if let Protocol::WebSocket(request) = &targets[0].protocol {
                request.write(&ws_proto::handshake::client::Key::generate(), &mut sent);
            }
            let sent = String::from_utf8(sent).unwrap();
            assert!(sent.contains("\r\nHost: [fe80::1]:9\r\n"), "{sent}");
        }
        let localhost = resolve_all(&config("ws://localhost:9/")).unwrap();
        assert!(localhost[0].address.is_local());
    }

    // RFC 6455 section 3: no-fragment
    // RFC 6455 section 4.1: uri-is-valid
    #[test]
    fn refusals_say_what_to_do() {
        for (url, hint) in [
            ("wss://a/ws", "use ws://"),
            ("http://a/", "neither ws:// nor tcp://"),
            ("tcp://127.0.0.1", "tcp://HOST:PORT"),
            ("tcp://127.0.0.1:9/ws", "tcp://HOST:PORT"),
            ("127.0.0.1:80/ws", "ws://HOST"),
            ("nonsense", "ws://HOST"),
            ("ws://a/#b", "#fragment"),
            ("ws://me:secret@a/", "Authorization"),
            ("ws://name.invalid/ws", "cannot resolve"),
            ("ws://[fe80::1]:9/", "[fe80::1%25eth0]"),
            ("ws://[fe80::1%25eth99]:9/", "no interface eth99"),
            ("ws://[::1%25lo]:9/", "leave it out"),
            ("ws+unix:", "ws+unix:PATH:/ws"),
            ("ws+unix::/ws", "ws+unix:PATH:/ws"),
            ("ws+unix:/a:/b#c", "#fragment"),
            ("tcp+unix:", "tcp+unix:PATH"),
            ("tcp+unix:/a:/ws", "tcp+unix:PATH"),
        ] {
            let error = resolve_all(&config(url)).unwrap_err();
            assert!(error.contains(hint), "{url}: {error}");
        }
    }

    // RFC 6455 section 3: hash-is-escaped
    // RFC 6455 section 4.1: request-target, request-host
    // RFC 6455 section 11.1.1: host-to-ascii, path-to-ascii
    #[test]
    fn the_request_names_host_and_resource_in_ascii() {
        let known = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)).into());
        for (url, first_line, host) in [
            ("ws://a", "GET / HTTP/1.1", "Host: a"),
            ("ws://a:80/b?c=d", "GET /b?c=d HTTP/1.1", "Host: a"),
            ("ws://[::1]:9/", "GET / HTTP/1.1", "Host: [::1]:9"),
            (
                "ws://b\u{fc}cher.example:9/gr\u{fc}n%23?q=\u{e9} x",
                "GET /gr%C3%BCn%23?q=%C3%A9%20x HTTP/1.1",
                "Host: xn--bcher-kva.example:9",
            ),
        ] {
            let target = resolve(url, &config(url), known.clone()).unwrap();
            let written = request_of(target);
            let lines: Vec<&str> = written.lines().collect();
            assert_eq!(lines[..2], [first_line, host], "{url}");
        }
    }

    /// The opening request to a WebSocket target, as written.
    fn request_of(target: Target) -> String {
        let Protocol::WebSocket(request) = target.protocol else {
            panic!("{target:?}");
        };
        let mut written = Vec::new();
        request.write(&Key::generate(), &mut written);
        String::from_utf8(written).unwrap()
    }

    // RFC 6455 section 4.1: request-target, request-host
    #[test]
    fn a_unix_socket_has_a_path_and_a_request_target() {
        for (url, path, first_line) in [
            ("ws+unix:/run/a.sock:/ws", "/run/a.sock", "GET /ws HTTP/1.1"),
            (
                "ws+unix:a.sock:/ws?b=c:/d",
                "a.sock",
                "GET /ws?b=c:/d HTTP/1.1",
            ),
            ("ws+unix:/a:b", "/a:b", "GET / HTTP/1.1"),
        ] {
            let target = resolve_all(&config(url)).unwrap().remove(0);
            assert_eq!(target.address, Address::Unix(path.into()), "{url}");
            let written = request_of(target);
            let lines: Vec<&str> = written.lines().collect();
            assert_eq!(lines[..2], [first_line, "Host: localhost"], "{url}");
        }
        let raw = resolve_all(&config("tcp+unix:/a")).unwrap().remove(0);
        assert!(raw.is_tcp() && raw.address == Address::Unix("/a".into()));
        let long = format!("ws+unix:/{}:/ws", "x".repeat(107));
        let error = resolve_all(&config(&long)).unwrap_err();
        assert!(error.contains("107") && error.contains("108"), "{error}");
    }

    #[test]
    fn connections_that_are_not_hot_ask_for_no_work() {
        let known = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)).into());
        let asks = |url: &str| {
            let mut config = config(url);
            config.traffic.hot = Some(Hot {
                connections: 1,
                share_millionths: 1,
                size: None,
            });
            let target = resolve(url, &config, known.clone()).unwrap();
            let Protocol::WebSocket(request) = target.protocol else {
                panic!("{url}");
            };
            [request, target.without_work.unwrap()].map(|request| {
                let mut written = Vec::new();
                request.write(&Key::generate(), &mut written);
                let written = String::from_utf8(written).unwrap();
                written.split(' ').nth(1).unwrap().to_owned()
            })
        };
        assert_eq!(asks("ws://a/ws"), ["/ws", "/ws?work=0"]);
        assert_eq!(asks("ws://a/?"), ["/?", "/?work=0"]);
        assert_eq!(
            asks("ws://a/ws?b&work=9"),
            ["/ws?b&work=9", "/ws?b&work=9&work=0"]
        );
        let plain = resolve("ws://a", &config("ws://a"), known).unwrap();
        assert!(plain.without_work.is_none());
    }

    #[test]
    fn tcp_is_for_plain_echo_runs() {
        let mut plain = config("tcp://127.0.0.1:9");
        assert!(resolve_all(&plain).unwrap()[0].is_tcp());
        plain.urls.push("ws://127.0.0.1:9".into());
        assert!(resolve_all(&plain).unwrap_err().contains("two runs"));
        plain.urls.pop();
        plain.headers = vec![("A".into(), "b".into())];
        assert!(resolve_all(&plain).unwrap_err().contains("-H"));
        plain.headers.clear();
        plain.traffic.fragments = 2;
        assert!(resolve_all(&plain).unwrap_err().contains("--fragments"));
        plain.traffic.fragments = 1;
        plain.kind = LoadKind::Broadcast;
        assert!(resolve_all(&plain).unwrap_err().contains("loadgen echo"));
    }

    #[test]
    fn headers_are_checked() {
        let mut config = config("ws://127.0.0.1/");
        for (name, hint) in [
            ("Sec-WebSocket-Protocol", "--subprotocol"),
            ("sec-websocket-key", "fresh key"),
            ("Sec-WebSocket-Version", "13 is sent"),
            ("Sec-WebSocket-Extensions", "no extension"),
            ("Sec-WebSocket-Foo", "section 11.3"),
            ("Upgrade", "the handshake sends it"),
            ("Content-Length", "no body"),
            ("a b", "invalid header name"),
        ] {
            config.headers = vec![(name.into(), "x".into())];
            let error = resolve_all(&config).unwrap_err();
            assert!(error.contains(hint) && error.contains(name), "{error}");
        }
        config.headers = vec![("Host".into(), "a".into()), ("host".into(), "b".into())];
        assert!(resolve_all(&config).unwrap_err().contains("one Host"));
        config.headers = vec![("Host".into(), "a b".into())];
        assert!(resolve_all(&config).unwrap_err().contains("invalid host"));
    }

    #[test]
    fn host_origin_and_user_agent_are_the_users() {
        let mut config = config("ws://127.0.0.1:9/");
        config.headers = [
            ("host", "chat.example"),
            ("Origin", "http://a"),
            ("User-Agent", "b"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let target = resolve_all(&config).unwrap().remove(0);
        let Protocol::WebSocket(request) = target.protocol else {
            panic!("a WebSocket")
        };
        let mut sent = Vec::new();
        request.write(&ws_proto::handshake::client::Key::generate(), &mut sent);
        let sent = String::from_utf8(sent).unwrap();
        for line in ["Host: chat.example", "Origin: http://a", "User-Agent: b"] {
            assert!(sent.contains(&format!("\r\n{line}\r\n")), "{sent}");
        }
        assert_eq!(sent.to_lowercase().matches("\r\nhost:").count(), 1);
    }
}
