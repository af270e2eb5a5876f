//! The generator's command line for a scenario, and its record.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use loadgen::address::Address;
use loadgen::record::Record;

use crate::config::{Load, Protocol, Scenario, ScenarioKind, Timing};
use crate::machine::CpuSet;

/// Requests in flight per connection before an open loop holds a message back: so many that only a
/// stall gets there.
const OPEN_LOOP_WINDOW: u64 = 64;

/// Where the generator writes.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// Its record.
    pub json: PathBuf,
    /// Percentiles as HdrHistogram's plotter reads them.
    pub hgrm: PathBuf,
    /// Interval log.
    pub hlog: PathBuf,
}

/// Where the server under test is, and what it speaks.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Where it listens.
    pub address: &'a Address,
    /// Decides the URL.
    pub protocol: Protocol,
}

impl Target<'_> {
    fn url(self, kind: ScenarioKind) -> String {
        let Self { address, protocol } = self;
        let path = match (protocol, kind) {
            (Protocol::Tcp, _) => "",
            (Protocol::Ws, ScenarioKind::Broadcast) => "/broadcast/ring",
            (Protocol::Ws, _) => "/ws",
        };
        let scheme = protocol.scheme();
        match address {
            Address::Ip(address) => format!("{scheme}://{address}{path}"),
            Address::Unix(at) if path.is_empty() => format!("{scheme}+unix:{}", at.display()),
            Address::Unix(at) => format!("{scheme}+unix:{}:{path}", at.display()),
        }
    }
}

/// When the generator offers its load.
#[derive(Debug, Clone, Copy)]
pub enum Phases {
    /// Once: warm-up, measured window.
    Once(Timing),
    /// In slices, when it is told to.
    Slices,
}

/// Program and arguments. `rate_per_s` is the rate in force where the scenario names a fraction of
/// capacity.
pub fn command(
    program: &Path,
    scenario: &Scenario,
    phases: Phases,
    target: Target<'_>,
    cpus: &CpuSet,
    rate_per_s: Option<f64>,
    outputs: &Outputs,
) -> Vec<String> {
    let mut command = vec![
        program.display().to_string(),
        scenario.kind.subcommand().to_owned(),
        target.url(scenario.kind),
        "--connections".to_owned(),
        scenario.connections.to_string(),
    ];
    let mut add = |flag: &str, value: String| command.extend([flag.to_owned(), value]);
    if let Phases::Once(timing) = phases {
        add("--duration", milliseconds(timing.duration));
        add("--warmup", milliseconds(timing.warmup));
    }
    add("--threads", cpus.len().to_string());
    add("--cpus", cpus.to_string());
    if let Some(fraction) = scenario.active_fraction {
        add("--active", fraction.to_string());
        add("--size", scenario.size_bytes.to_string());
        if let Some(rate) = rate_per_s {
            add("--rate", format!("{rate:.0}"));
        }
    }
    if matches!(scenario.kind, ScenarioKind::Echo | ScenarioKind::Broadcast) {
        add("--size", scenario.size_bytes.to_string());
        if scenario.fragments > 1 {
            add("--fragments", scenario.fragments.to_string());
        }
        match (rate_per_s, scenario.load) {
            (Some(rate), _) => {
                add("--rate", format!("{rate:.0}"));
                // A broadcast is published on schedule whatever the room does.
                if scenario.kind == ScenarioKind::Echo {
                    add("--window", OPEN_LOOP_WINDOW.to_string());
                }
                if let Some(hot) = scenario.hot {
                    add("--hot", hot.connections.to_string());
                    add("--hot-share", hot.messages.to_string());
                    if let Some(size) = hot.size_bytes {
                        add("--hot-size", size.to_string());
                    }
                }
            }
            (None, Some(Load::Window(window))) => add("--window", window.to_string()),
            (None, _) => {}
        }
    }
    if scenario.kind == ScenarioKind::Connect {
        if scenario.messages > 0 {
            add("--messages", scenario.messages.to_string());
            add("--size", scenario.size_bytes.to_string());
        }
        if let Some(rate) = rate_per_s {
            add("--rate", format!("{rate:.0}"));
        }
    }
    if scenario.kind == ScenarioKind::Broadcast {
        add("--publishers", scenario.publishers.to_string());
    }
    add("--json", outputs.json.display().to_string());
    if scenario.kind != ScenarioKind::Idle {
        add("--hgrm", outputs.hgrm.display().to_string());
        add("--hlog", outputs.hlog.display().to_string());
    }
    if matches!(phases, Phases::Slices) {
        command.push("--slices".to_owned());
    }
    command.push("--quiet".to_owned());
    command.extend(scenario.generator_args.iter().cloned());
    command
}

/// Reads a record.
pub fn read_record(path: &Path) -> Result<Record> {
    let text = std::fs::read_to_string(path).context("the generator left no record")?;
    serde_json::from_str(&text).context("the generator's record is not in order")
}

/// As durations are written on the generator's command line and to its stdin.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Hot;
    use crate::test_data;

    fn words(change: impl FnOnce(&mut Scenario), rate: Option<f64>) -> String {
        let mut scenario = test_data::scenario("x");
        change(&mut scenario);
        let outputs = Outputs {
            json: "j".into(),
            hgrm: "g".into(),
            hlog: "l".into(),
        };
        let timing = Timing {
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs(1),
        };
        let target = Target {
            address: &port_4000(),
            protocol: Protocol::Ws,
        };
        let cpus = "1".parse().unwrap();
        command(
            Path::new("loadgen"),
            &scenario,
            Phases::Once(timing),
            target,
            &cpus,
            rate,
            &outputs,
        )
        .join(" ")
    }

    #[test]
    fn a_raw_echo_has_no_path() {
        let target = Target {
            address: &port_4000(),
            protocol: Protocol::Tcp,
        };
        assert_eq!(target.url(ScenarioKind::Echo), "tcp://127.0.0.1:4000");
    }

    #[test]
    fn a_unix_socket_is_named_by_its_path() {
        let url = |protocol| {
            let address = &Address::Unix("/a".into());
            Target { address, protocol }.url(ScenarioKind::Broadcast)
        };
        assert_eq!(url(Protocol::Ws), "ws+unix:/a:/broadcast/ring");
        assert_eq!(url(Protocol::Tcp), "tcp+unix:/a");
    }

    fn port_4000() -> Address {
        Address::Ip("127.0.0.1:4000".parse().unwrap())
    }

    #[test]
    fn command_lines_by_kind() {
        assert_eq!(
            words(|_| {}, None),
            "loadgen echo ws://127.0.0.1:4000/ws --connections 1000 --duration 1000ms --warmup 200ms --threads 1 --cpus 1 \
             --size 64 --window 1 --json j --hgrm g --hlog l --quiet"
        );
        let open = words(
            |s| s.load = Some(Load::FractionOfCapacity(0.5)),
            Some(50_000.4),
        );
        assert!(open.contains("--rate 50000 --window 64"), "{open}");
        let uneven = words(
            |s| {
                s.load = Some(Load::Rate(15_000.0));
                s.hot = Some(Hot {
                    connections: 0.1,
                    messages: 0.9,
                    size_bytes: None,
                });
            },
            Some(15_000.0),
        );
        assert!(
            uneven.contains("--rate 15000 --window 64 --hot 0.1 --hot-share 0.9 --json"),
            "{uneven}"
        );
        let mixed = words(
            |s| {
                s.hot = Some(Hot {
                    connections: 0.05,
                    messages: 0.05,
                    size_bytes: Some(131_072),
                });
            },
            Some(1000.0),
        );
        assert!(
            mixed.contains("--hot 0.05 --hot-share 0.05 --hot-size 131072 --json"),
            "{mixed}"
        );
        let split = words(|s| s.fragments = 4, None);
        assert!(
            split.contains("--size 64 --fragments 4 --window 1"),
            "{split}"
        );
        let broadcast = words(|s| s.kind = ScenarioKind::Broadcast, None);
        let scheduled = words(|s| s.kind = ScenarioKind::Broadcast, Some(100.0));
        assert!(
            scheduled.contains("--rate 100 --publishers 1"),
            "{scheduled}"
        );
        assert!(
            broadcast.contains("/broadcast/ring") && broadcast.contains("--publishers 1"),
            "{broadcast}"
        );
        let idle = words(
            |s| {
                s.kind = ScenarioKind::Idle;
                s.load = None;
                s.generator_args = vec!["--connect-rate".into(), "5k".into()];
            },
            None,
        );
        assert_eq!(
            idle,
            "loadgen idle ws://127.0.0.1:4000/ws --connections 1000 --duration 1000ms --warmup 200ms --threads 1 --cpus 1 --json j --quiet \
             --connect-rate 5k"
        );
        let scale = words(
            |s| *s = test_data::scale_scenario(1_000_000),
            Some(10_000.0),
        );
        assert_eq!(
            scale,
            "loadgen idle ws://127.0.0.1:4000/ws --connections 1000000 --duration 1000ms --warmup 200ms --threads 1 --cpus 1 \
             --active 0.01 --size 64 --rate 10000 --json j --hgrm g --hlog l --quiet"
        );
    }
}
