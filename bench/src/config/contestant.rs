//! `contestants.toml`: the servers that may enter.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Scenario, ScenarioKind, Transport, is_name, load_toml};

/// A server under test: a program and its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contestant {
    /// Its name in tables and file names; the key of its table in the file.
    #[serde(default)]
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Binary name in the binary folder, or a path (relative to the file) if it has a slash.
    pub program: PathBuf,
    /// Arguments that make it this contestant; the conformance suite uses them too.
    #[serde(default)]
    pub args: Vec<String>,
    /// Further arguments of a run; `{listen}`, `{cpus}`, `{workers}` and `{message_bytes}` are
    /// filled in.
    #[serde(default = "usual_run_args")]
    pub run_args: Vec<String>,
    /// What holds its connections where one process may not have so many files open; without it one
    /// process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_by: Option<ScaleBy>,
    /// Further arguments in scenarios of kind `scale`; `{processes}`, `{workers}` and `{cpus}` are
    /// filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scale_args: Vec<String>,
    /// Must pass the conformance suite before it may enter.
    #[serde(default = "yes")]
    pub conformance: bool,
    /// Written by an older bench and read by none: its results and files can still be loaded.
    #[serde(default, skip_serializing)]
    pub needs: IgnoredAny,
    /// Not one of ours: its `ready` line has an address at least; it prints no final counters and
    /// runs no conformance cases.
    #[serde(default)]
    pub foreign: bool,
    /// It polls while it has nothing to do, so it would take CPU time from the others of a bout
    /// while it is not its turn: bouts with it run in sequence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spins: bool,
    /// It has the option `--handler-work-us`; without the key ours have it and foreign ones do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler_work: Option<bool>,
    /// `?work=N` lowers that work for a connection; without the key with ours it does and with
    /// foreign ones it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowers_work: Option<bool>,
    /// It can listen on a Unix socket (`unix:PATH` for `{listen}`); without the key ours can and
    /// foreign ones cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<bool>,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Enters when no contestants are named.
    #[serde(default)]
    pub default: bool,
    /// It is another contestant under a second name.
    #[serde(rename = "again", default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Duplicate>,
}

/// Protocol of a contestant; it decides in which bouts the contestant can run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// WebSocket, with the endpoints of our servers.
    #[default]
    Ws,
    /// Sends back every byte it receives: the floor under a WebSocket echo.
    Tcp,
}

impl Protocol {
    /// Scheme of the generator's target.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Tcp => "tcp",
        }
    }

    /// Can bouts of this kind be had with it?
    pub fn plays(self, kind: ScenarioKind) -> bool {
        self == Self::Ws || matches!(kind, ScenarioKind::Echo | ScenarioKind::Capacity)
    }
}

/// One contestant under a second name: a referee that finds a difference between the two finds
/// noise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Duplicate {
    /// The first name.
    pub of: String,
    /// The bouts in which both run.
    pub bouts: Vec<String>,
}

fn usual_run_args() -> Vec<String> {
    [
        "--listen",
        "{listen}",
        "--cpus",
        "{cpus}",
        "--workers",
        "{workers}",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Where a contestant listens: the referee learns the port from the `ready` line.
pub const ANY_PORT: &str = "127.0.0.1:0";

fn yes() -> bool {
    true
}

/// What shares the connections of a contestant, each up to the limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleBy {
    /// Server processes: each has its own table of open files.
    Processes,
    /// Workers of one process: each io_uring has its own table of direct descriptors.
    Workers,
}

impl Contestant {
    /// All arguments of a scale step: those of a run, with as many workers as the step needs, and
    /// `scale_args`.
    pub fn scale_arguments(
        &self,
        cpus: &str,
        processes: u64,
        workers: u64,
        message_bytes: u64,
    ) -> Vec<String> {
        let mut all = self.arguments(ANY_PORT, cpus, workers, message_bytes);
        let processes = processes.to_string();
        all.extend(filled(
            &self.scale_args,
            ANY_PORT,
            cpus,
            workers,
            message_bytes,
        ));
        for arg in &mut all {
            *arg = arg.replace("{processes}", &processes);
        }
        all
    }

    /// The same contestant under a second name, for these bouts.
    pub fn duplicate(&self, bouts: Vec<String>) -> Self {
        Self {
            name: format!("{}-again", self.name),
            about: format!(
                "{} once more, to see how much of a difference is noise",
                self.name
            ),
            duplicate: Some(Duplicate {
                of: self.name.clone(),
                bouts,
            }),
            ..self.clone()
        }
    }

    /// The same program with the same arguments: between the two there is nothing to find.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        let nameless = |one: &Self| Self {
            name: String::new(),
            about: String::new(),
            default: false,
            duplicate: None,
            ..one.clone()
        };
        nameless(self) == nameless(other)
    }

    /// Whether it has runs in this bout.
    pub fn plays(&self, scenario: &Scenario) -> bool {
        let skills = Skills {
            can_work: self.can_work(),
            can_lower_work: self.can_lower_work(),
            can_unix: self.can_unix(),
        };
        plays(self.protocol, skills, self.duplicate.as_ref(), scenario)
    }

    /// Whether it can do the work of a handler for each message.
    pub fn can_work(&self) -> bool {
        self.handler_work.unwrap_or(!self.foreign)
    }

    /// Whether a connection may ask it for less of that work.
    pub fn can_lower_work(&self) -> bool {
        self.lowers_work.unwrap_or(!self.foreign)
    }

    /// Whether it can listen on a Unix socket.
    pub fn can_unix(&self) -> bool {
        self.unix.unwrap_or(!self.foreign)
    }

    /// All arguments of a run at this address, on these CPUs, with messages of this size.
    pub fn arguments(
        &self,
        listen: &str,
        cpus: &str,
        workers: u64,
        message_bytes: u64,
    ) -> Vec<String> {
        let all = self.args.iter().chain(&self.run_args);
        filled(all, listen, cpus, workers, message_bytes).collect()
    }
}

/// Arguments with their placeholders filled in.
fn filled<'a>(
    args: impl IntoIterator<Item = &'a String>,
    listen: &str,
    cpus: &str,
    workers: u64,
    message_bytes: u64,
) -> impl Iterator<Item = String> {
    let (workers, message_bytes) = (workers.to_string(), message_bytes.to_string());
    args.into_iter().map(move |arg| {
        arg.replace("{listen}", listen)
            .replace("{cpus}", cpus)
            .replace("{workers}", &workers)
            .replace("{message_bytes}", &message_bytes)
    })
}

/// What some contestants can do and others cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skills {
    /// The work of a handler for each message.
    pub can_work: bool,
    /// Less of it for a connection that asks for less.
    pub can_lower_work: bool,
    /// Listening on a Unix socket.
    pub can_unix: bool,
}

/// Whether a contestant of this protocol and with these skills, or the duplicate of one, has runs
/// in this bout.
pub fn plays(
    protocol: Protocol,
    skills: Skills,
    duplicate: Option<&Duplicate>,
    scenario: &Scenario,
) -> bool {
    let listed = |duplicate: &Duplicate| duplicate.bouts.contains(&scenario.name);
    protocol.plays(scenario.kind)
        && (protocol == Protocol::Ws || scenario.fragments == 1)
        && (skills.can_work || scenario.handler_work_us().is_none())
        && (skills.can_lower_work || scenario.hot.is_none_or(|hot| hot.size_bytes.is_some()))
        && (skills.can_unix || scenario.transport == Transport::Tcp)
        && duplicate.is_none_or(listed)
}

/// All contestants of the file, in its order. Relative program paths come back resolved against the
/// file's folder.
pub fn load_contestants(path: &Path) -> Result<Vec<Contestant>> {
    let table: toml::Table = load_toml(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut contestants = Vec::new();
    for (name, value) in table {
        ensure!(
            is_name(&name),
            "{}: `{name}` cannot be a contestant's name",
            path.display()
        );
        let mut contestant: Contestant = match value.try_into() {
            Ok(contestant) => contestant,
            Err(error) => bail!("{}: contestant `{name}`: {error}", path.display()),
        };
        contestant.name = name;
        contestant.conformance &= !contestant.foreign;
        if contestant.program.components().count() > 1 {
            contestant.program = folder.join(&contestant.program);
        }
        contestants.push(contestant);
    }
    Ok(contestants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn placeholders_are_filled_and_paths_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(&file, "[x]\nabout = 'a'\nprogram = './bin/x'\nargs = ['--fast']\nrun_args = ['--cpus={cpus}', '-w', '{workers}', '-s{message_bytes}', '{listen}']\n").unwrap();
        let mut contestants = load_contestants(&file).unwrap();
        assert_eq!(contestants[0].name, "x");
        assert_eq!(contestants[0].program, dir.path().join("./bin/x"));
        assert_eq!(
            contestants[0].arguments("unix:/a", "0-1", 2, 64),
            ["--fast", "--cpus=0-1", "-w", "2", "-s64", "unix:/a"]
        );
        contestants[0].scale_args = vec!["--processes={processes}".into()];
        assert_eq!(
            contestants[0].scale_arguments("0", 53, 1, 16),
            [
                "--fast",
                "--cpus=0",
                "-w",
                "1",
                "-s16",
                ANY_PORT,
                "--processes=53"
            ]
        );
    }

    #[test]
    fn a_foreign_contestant_runs_no_conformance_and_bytes_can_only_be_echoed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let text = "[floor]\nabout = 'a'\nprogram = 'x'\nforeign = true\nprotocol = 'tcp'\n";
        fs::write(&file, text).unwrap();
        let floor = load_contestants(&file).unwrap().remove(0);
        assert!(floor.foreign && !floor.conformance);
        assert_eq!(floor.protocol.scheme(), "tcp");
        assert!(
            floor.protocol.plays(ScenarioKind::Echo)
                && !floor.protocol.plays(ScenarioKind::Broadcast)
        );
        assert!(Protocol::Ws.plays(ScenarioKind::Broadcast));

        let mut scenario = crate::test_data::scenario("unix");
        scenario.transport = Transport::Unix;
        assert!(!floor.plays(&scenario));
        let listens = Contestant {
            unix: Some(true),
            ..floor.clone()
        };
        assert!(listens.plays(&scenario));

        let mut scenario = crate::test_data::scenario("work");
        assert!(floor.plays(&scenario));
        scenario.fragments = 2;
        assert!(!floor.plays(&scenario), "bytes have no frames");
        scenario.fragments = 1;
        scenario.server_args = vec!["--handler-work-us".into(), "10".into()];
        assert!(!floor.plays(&scenario));
        let knows_it = Contestant {
            handler_work: Some(true),
            ..floor
        };
        assert!(knows_it.plays(&scenario));
        scenario.hot = Some(crate::config::Hot {
            connections: 0.1,
            messages: 0.9,
            size_bytes: None,
        });
        assert!(!knows_it.plays(&scenario));
        let mut lowers_it = Contestant {
            lowers_work: Some(true),
            ..knows_it
        };
        assert!(lowers_it.plays(&scenario));
        scenario.server_args.clear();
        scenario.hot.as_mut().unwrap().size_bytes = Some(9);
        lowers_it.lowers_work = None;
        assert!(lowers_it.plays(&scenario), "there is nothing to lower");
    }

    #[test]
    fn a_copy_has_another_name_and_the_same_command_line() {
        let [a, mut b] = ["a", "b"].map(crate::test_data::contestant);
        assert!(!a.is_copy_of(&b), "programs of two names");
        b.program = a.program.clone();
        assert!(a.is_copy_of(&b) && a.is_copy_of(&a.duplicate(vec![])));
        b.args = vec!["--burn-ns".into(), "160".into()];
        assert!(!a.is_copy_of(&b));
    }

    #[test]
    fn mistakes_name_file_and_contestant() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(
            &file,
            "[x]\nabout = 'a'\nprogram = 'x'\nargs = []\ncolour = 'red'\n",
        )
        .unwrap();
        let message = load_contestants(&file).unwrap_err().to_string();
        assert!(
            message.contains("c.toml") && message.contains("`x`") && message.contains("colour"),
            "{message}"
        );
    }
}
