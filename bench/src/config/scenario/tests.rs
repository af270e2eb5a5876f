use super::*;
use std::fs;

fn load(body: &str) -> Result<Scenario> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    fs::write(
        &file,
        format!("title = 't'\nshows = 's'\ndoes_not_show = 'n'\n{body}"),
    )
    .unwrap();
    load_scenario(Path::new("/nowhere"), file.to_str().unwrap())
}

#[test]
fn a_path_outside_the_repository_works() {
    let scenario = load("kind = 'echo'\nconnections = 10\nload = { window = 4 }\n").unwrap();
    assert_eq!(scenario.name, "mine");
    assert_eq!(scenario.load, Some(Load::Window(4)));
    assert_eq!(scenario.size_bytes, 64);
}

#[test]
fn connections_with_messages_have_a_capacity_of_their_own() {
    let load_of = |more: &str| load(&format!("kind = 'connect'\nconnections = 100\n{more}"));
    let closed = load_of("messages = 10\n").unwrap();
    assert_eq!((closed.messages, closed.capacity_key()), (10, None));
    let open = load_of("messages = 10\nload = { fraction_of_capacity = 0.5 }\n").unwrap();
    let key = "capacity-connect-m10-64b-c100";
    assert_eq!(open.capacity_key().as_deref(), Some(key));
    let handshakes = load_of("load = { fraction_of_capacity = 0.5 }\n").unwrap();
    assert_ne!(handshakes.capacity_key(), open.capacity_key());
}

#[test]
fn impossible_combinations_are_named() {
    let cases = [
        ("kind = 'echo'\nconnections = 10\n", "needs a [load]"),
        (
            "kind = 'idle'\nconnections = 10\nload = { window = 1 }\n",
            "takes no [load]",
        ),
        (
            "kind = 'echo'\nconnections = 0\nload = { window = 1 }\n",
            "at least 1",
        ),
        (
            "kind = 'echo'\nconnections = 1\nload = { fraction_of_capacity = 1.5 }\n",
            "at most 1",
        ),
        (
            "kind = 'broadcast'\nconnections = 1\npublishers = 2\nload = { rate = 5.0 }\n",
            "more publishers",
        ),
        (
            "kind = 'connect'\nconnections = 9\nload = { window = 1 }\n",
            "connect takes no window",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { window = 1 }\nmessages = 3\n",
            "`messages` is for connect",
        ),
        (
            "kind = 'broadcast'\nconnections = 9\nload = { fraction_of_capacity = 0.5 }\n",
            "for echo and connect",
        ),
        (
            "kind = 'scale'\nconnections = 9\nload = { rate = 5.0 }\n",
            "active_fraction",
        ),
        (
            "kind = 'scale'\nconnections = 9\nload = { window = 1 }\nactive_fraction = 0.5\n",
            "fixed rate",
        ),
        (
            "kind = 'scale'\nconnections = 9\nload = { rate = 5.0 }\nactive_fraction = 1.5\n",
            "at most 1",
        ),
        (
            "kind = 'idle'\nconnections = 9\nserver_args = ['-x']\n",
            "server_args",
        ),
        (
            "kind = 'connect'\nconnections = 9\nserver_args = ['--handler-work-us', '1']\n",
            "server_args",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { window = 1 }\nserver_args = ['--idle-timeout', '1']\n",
            "server_args",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { fraction_of_capacity = 0.5 }\nserver_args = ['--handler-work-us', '1']\n",
            "measured without them",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { window = 1 }\nserver_args = ['--handler-work-us', '1']\nhot = { connections = 0.5, messages = 0.5 }\n",
            "open loop",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { rate = 5.0 }\nhot = { connections = 0.5, messages = 0.5 }\n",
            "work of a handler",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { rate = 5.0 }\nserver_args = ['--handler-work-us', '1']\nhot = { connections = 0.5, messages = 0.5, size_bytes = 9 }\n",
            "with either",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { rate = 5.0 }\nserver_args = ['--handler-work-us', '1']\nhot = { connections = 0.5, messages = 1.0 }\n",
            "`hot.messages`",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { rate = 5.0 }\nserver_args = ['--handler-work-us', '1']\nhot = { connections = 0.01, messages = 0.5 }\n",
            "none hot",
        ),
        (
            "kind = 'broadcast'\nconnections = 9\nload = { window = 1 }\nfragments = 2\n",
            "`fragments` is for echo",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { window = 1 }\nsize_bytes = 8\nfragments = 9\n",
            "one for each byte",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { fraction_of_capacity = 0.5 }\nfragments = 2\n",
            "measured without them",
        ),
        (
            "kind = 'idle'\nconnections = 9\nshared_cpus = 2\n",
            "`shared_cpus`",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { window = 1 }\nshared_cpus = 0\n",
            "at least 1",
        ),
        (
            "kind = 'echo'\nconnections = 9\nload = { fraction_of_capacity = 0.5 }\nshared_cpus = 2\n",
            "measured apart",
        ),
        (
            "kind = 'scale'\nconnections = 9\nload = { rate = 5.0 }\nactive_fraction = 0.5\ntransport = 'unix'\n",
            "`transport`",
        ),
        ("kind = 'capacity'\nconnections = 9\n", "p99_limit_ms"),
        (
            "kind = 'capacity'\nconnections = 9\np99_limit_ms = 5.0\nload = { window = 1 }\n",
            "takes no [load]",
        ),
        (
            "kind = 'capacity'\nconnections = 9\np99_limit_ms = 5.0\nrate_max_per_s = 9.0\n",
            "at least 100",
        ),
        (
            "kind = 'idle'\nconnections = 9\np99_limit_ms = 5.0\n",
            "are for capacity",
        ),
        ("kind = 'ballet'\nconnections = 1\n", "ballet"),
    ];
    for (body, expected) in cases {
        let message = format!("{:#}", load(body).unwrap_err());
        assert!(
            message.contains(expected) && message.contains("mine.toml"),
            "{message}"
        );
    }
}

#[test]
fn echo_may_ask_for_the_work_of_a_handler() {
    let body = "kind = 'echo'\nconnections = 10\nload = { window = 1 }\n";
    assert_eq!(load(body).unwrap().handler_work_us(), None);
    let body = format!("{body}server_args = ['--handler-work-us', '10']\n");
    assert_eq!(load(&body).unwrap().handler_work_us(), Some(10));
}

#[test]
fn scenarios_of_one_shape_share_a_calibration() {
    let half =
        load("kind = 'echo'\nconnections = 10\nload = { fraction_of_capacity = 0.5 }\n").unwrap();
    let most =
        load("kind = 'echo'\nconnections = 10\nload = { fraction_of_capacity = 0.8 }\n").unwrap();
    assert_eq!(half.capacity_key(), most.capacity_key());
    assert_eq!(half.capacity_key().unwrap(), "capacity-64b-c10");
    let unix = load(
        "kind = 'echo'\nconnections = 10\nload = { fraction_of_capacity = 0.5 }\ntransport = 'unix'\n",
    );
    assert_eq!(
        unix.unwrap().capacity_key().unwrap(),
        "capacity-64b-c10-unix"
    );
}
