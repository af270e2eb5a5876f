use super::*;

fn check(line: &str) -> Result<(Config, Output), String> {
    let cli = Cli::try_parse_from(std::iter::once("loadgen").chain(line.split_whitespace()))
        .map_err(|error| error.to_string())?;
    cli.check()
}

#[test]
fn reads_the_conventional_flags() {
    let (config, output) = check(
        "echo -c 10k -d 30s --warmup 2s -t 2 -r 50k --window 4 -s 1k --connect-rate 5k --source-ips 127.0.0.2,127.0.0.3 \
         -H X-A:b --subprotocol chat --cpus 0-1 --json r.json ws://a/ws ws://b/ws",
    )
    .unwrap();
    assert_eq!(config.connections, 10_000);
    assert_eq!(config.traffic.rate_per_s, Some(50_000.0));
    assert_eq!((config.traffic.window, config.traffic.size), (4, 1_000));
    assert_eq!(config.urls.len(), 2);
    assert_eq!(config.source_ips.len(), 2);
    assert_eq!(config.headers, [("X-A".to_owned(), "b".to_owned())]);
    assert_eq!(config.cpus, [0, 1]);
    assert_eq!(output.format, Format::Text);
}

#[test]
fn refuses_what_cannot_work_and_says_what_to_do() {
    for (line, hint) in [
        ("echo -c 0 ws://a", "use 1 or more"),
        ("echo -d 0 ws://a", "use 1s or more"),
        ("echo -t 0 ws://a", "-t 0"),
        ("echo --window 0 ws://a", "--window 0"),
        ("echo -r 0 ws://a", "--rate 0"),
        ("echo --connect-rate 0 ws://a", "--connect-rate 0"),
        ("echo -s 100m ws://a", "--size"),
        ("echo -c 1m --window 1k ws://a", "requests in flight"),
        ("echo -c 1k --window 1k -s 1m ws://a", "bytes in flight"),
        ("echo -H nocolon ws://a", "colon"),
        ("echo", "<URL>"),
        ("echo --publishers 2 ws://a", "--publishers"),
        ("echo --hot 0.1 ws://a", "--rate"),
        ("echo -r 10 --hot-share 0.1 ws://a", "--hot"),
        ("echo -r 10 --hot 0 ws://a", "none hot"),
        ("echo -r 10 --hot 1 ws://a", "no others"),
        ("echo -r 10 --hot 0.01 ws://a", "none hot"),
        ("echo -r 10 --hot NaN ws://a", "none hot"),
        ("echo -r 10 --hot 0.1 --hot-share 1 ws://a", "such as 0.9"),
        ("echo -r 10 --hot 0.1 --hot-share 0 ws://a", "such as 0.9"),
        ("broadcast -r 10 --hot 0.1 ws://a", "--hot"),
        ("echo -r 10 --hot-size 1k ws://a", "--hot"),
        ("echo -r 10 --hot 0.1 --hot-size 100m ws://a", "--hot-size"),
        (
            "echo -c 1k --window 1k -r 10 --hot 0.1 --hot-size 1m ws://a",
            "bytes in flight",
        ),
        (
            "echo -s 64 --fragments 9 -r 10 --hot 0.1 --hot-size 8 ws://a",
            "9 of 8 bytes",
        ),
        ("echo --fragments 0 ws://a", "use 1 or more"),
        ("echo -s 3 --fragments 4 ws://a", "one for each byte"),
        ("broadcast --fragments 2 ws://a", "--fragments"),
        ("broadcast -c 10 --publishers 11 ws://a", "1 to 10"),
        ("broadcast -c 10 --publishers 0 ws://a", "1 to 10"),
        ("broadcast -s 8 ws://a", "--size 24"),
        (
            "broadcast -c 100k --publishers 1k ws://a",
            "orders to check",
        ),
        ("broadcast -r 10 --window 2 ws://a", "leave out --window"),
        ("connect -r 0 ws://a", "--rate 0"),
        ("connect -r 10 --connect-rate 5 ws://a", "--connect-rate"),
        ("connect -s 16 ws://a", "--messages"),
        ("connect --messages 1 -s 100m ws://a", "--size"),
        ("connect --window 2 ws://a", "--window"),
        ("idle --active 0.5 ws://a", "--rate"),
        ("idle -r 100 ws://a", "--active"),
        ("idle --active 2 -r 1 ws://a", "0 to 1"),
        ("idle --active 0.001 -r 1 -c 10 ws://a", "is none"),
        ("idle --hgrm x ws://a", "--hgrm"),
        ("idle --window 2 ws://a", "--window"),
        ("idle --slices ws://a", "--slices"),
        ("connect --slices ws://a", "--slices"),
        ("echo --slices -d 1s ws://a", "--duration"),
        ("broadcast --slices --warmup 1s ws://a", "--warmup"),
        ("frobnicate ws://a", "frobnicate"),
    ] {
        let error = check(line).unwrap_err();
        assert!(error.contains(hint), "{line}: {error}");
    }
}

#[test]
fn connections_have_messages_only_where_asked_for() {
    let (config, _) = check("connect -c 5 -r 1k ws://a").unwrap();
    let traffic = config.traffic;
    assert_eq!(traffic.rate_per_s, Some(1_000.0));
    assert_eq!((traffic.messages, traffic.size), (0, 0));
    let (config, _) = check("connect --messages 10 -s 16 ws://a").unwrap();
    let traffic = config.traffic;
    assert_eq!(
        (traffic.messages, traffic.size, traffic.window),
        (10, 16, 1)
    );
}

#[test]
fn idle_counts_its_active_connections() {
    let (config, _) = check("idle -c 10k --active 0.01 -r 1k ws://a").unwrap();
    assert_eq!(config.traffic.active_connections, Some(100));
}

#[test]
fn hot_connections_are_counted_and_get_their_share_of_the_messages() {
    for (line, expected) in [
        ("echo -r 1 -c 100 --hot 0.1 ws://a", (10, 100_000)),
        (
            "echo -r 1 -c 3 --hot 0.5 --hot-share 0.9 ws://a",
            (2, 900_000),
        ),
    ] {
        let hot = check(line).unwrap().0.traffic.hot.unwrap();
        assert_eq!((hot.connections, hot.share_millionths), expected, "{line}");
    }
    let plain = check("echo -r 1 ws://a").unwrap().0.traffic;
    assert_eq!((plain.hot, plain.mean_size()), (None, 64.0));
    let line = "echo -r 1 -c 10 --window 2 --hot 0.1 --hot-share 0.25 --hot-size 1000 ws://a";
    let sized = check(line).unwrap().0.traffic;
    assert_eq!(sized.mean_size(), 48.0 + 250.0);
    assert_eq!(sized.bytes_in_flight(10), 2 * (1000 + 9 * 64));
    assert_eq!((sized.smallest_size(), sized.largest_size()), (64, 1000));
}

#[test]
fn clap_agrees() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
