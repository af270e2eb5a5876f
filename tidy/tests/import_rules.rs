//! The layout of the house, checked: which room may import which, and that `unsafe` stays in
//! `uring-net`.
//!
//! The lists below are those of ARCHITECTURE.md; an import that is not in them is argued for there
//! first.

#![expect(
    clippy::unwrap_used,
    reason = "a file of the workspace that cannot be read fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every room, and the rooms it may depend on at run time.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("ws-proto", &[]),
    ("uring-net", &[]),
    ("server-core", &["ws-proto", "units"]),
    ("conformance", &[]),
    ("server-uring", &["server-core", "ws-proto", "uring-net"]),
    ("server-tokio", &["server-core", "ws-proto"]),
    ("loadgen", &["ws-proto", "uring-net", "units"]),
    ("bench", &["loadgen", "server-core", "units"]),
    ("peers", &[]),
    ("tidy", &[]),
];

/// Imports that are wrong in tests and build scripts too.
const NEVER: &[(&str, &[&str])] = &[
    (
        "ws-proto",
        &["uring-net", "server-core", "loadgen", "bench"],
    ),
    (
        "uring-net",
        &["ws-proto", "server-core", "loadgen", "bench", "units"],
    ),
    ("server-core", &["server-uring", "server-tokio", "bench"]),
    (
        "conformance",
        &["ws-proto", "server-core", "loadgen", "bench", "units"],
    ),
    ("server-uring", &["server-tokio"]),
    ("server-tokio", &["server-uring", "uring-net"]),
    ("loadgen", &["server-core", "server-uring", "server-tokio"]),
    ("bench", &["server-uring", "server-tokio"]),
    (
        "peers",
        &["ws-proto", "uring-net", "server-core", "loadgen", "units"],
    ),
];

/// What `ws-proto` must not know, directly or through another package: sockets, clocks, async
/// runtimes, loggers.
const NOT_SANS_IO: &[&str] = &[
    "async-io",
    "async-std",
    "chrono",
    "coarsetime",
    "env_logger",
    "futures",
    "futures-io",
    "hyper",
    "io-uring",
    "libc",
    "log",
    "mio",
    "monoio",
    "nix",
    "polling",
    "quanta",
    "rustix",
    "signal-hook",
    "slog",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-util",
    "tracing",
];

/// Packages of [`NOT_SANS_IO`] that `ws-proto` is linked with all the same, and why.
const NOT_CALLED: &[(&str, &str)] = &[
    ("log", "tungstenite's, which logs in its sockets only"),
    (
        "libc",
        "of the random numbers with which tungstenite's client masks",
    ),
];

const UNSAFE_ROOM: &str = "uring-net";

#[test]
fn every_room_is_listed() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        assert!(
            MAY_IMPORT
                .iter()
                .any(|(room, _)| *room == package.name.as_str()),
            "`{}` is in the workspace but has no import rule",
            package.name
        );
    }
    for (room, _) in MAY_IMPORT {
        let package = package(&metadata, room);
        assert_eq!(
            folder(package).file_name(),
            Some(room.as_ref()),
            "a room's folder bears its name"
        );
    }
}

#[test]
fn rooms_import_only_what_they_may() {
    let planted = [
        import("bench", "loadgen", DependencyKind::Normal),
        import("ws-proto", "server-core", DependencyKind::Normal),
        import("server-core", "uring-net", DependencyKind::Build),
        import("loadgen", "server-core", DependencyKind::Development),
        import("bench", "server-tokio", DependencyKind::Development),
        import("loadgen", "peers", DependencyKind::Development),
    ];
    assert_eq!(
        breaches(&planted),
        [
            "`ws-proto` imports `server-core`; it may import []",
            "`server-core` imports `uring-net`; it may import [\"ws-proto\", \"units\"]",
            "`loadgen` imports `server-core`, which it must not even for a test",
            "`bench` imports `server-tokio`, which it must not even for a test",
        ]
    );

    assert_eq!(breaches(&imports(&metadata())), [""; 0]);
}

#[test]
fn the_protocol_knows_no_socket_and_no_clock() {
    // A room that knows both shows that the walk finds them, and deeper than the first step.
    let found = not_sans_io("server-tokio");
    for package in ["server-tokio > tokio", "server-tokio > tokio > mio"] {
        assert!(
            found.iter().any(|path| path == package),
            "{package} is not among {found:#?}"
        );
    }

    let found = not_sans_io("ws-proto");
    let is = |path: &str, package: &str| path.ends_with(&format!(" > {package}"));
    for path in &found {
        assert!(
            NOT_CALLED.iter().any(|(package, _)| is(path, package)),
            "`ws-proto` depends on a socket, a clock, a runtime or a logger: {path}"
        );
    }
    for (package, _) in NOT_CALLED {
        assert!(
            found.iter().any(|path| is(path, package)),
            "`ws-proto` no longer depends on `{package}`: remove the exemption"
        );
    }
}

#[test]
fn the_protocol_names_no_socket_and_no_clock() {
    for file in sources(&tidy::tree::root().join("ws-proto/src")) {
        let text = fs::read_to_string(&file).unwrap();
        for taboo in [
            "std::net",
            "std::time",
            "std::thread",
            "std::io::Read",
            "std::io::Write",
        ] {
            assert!(
                !text.contains(taboo),
                "{} mentions `{taboo}`",
                file.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_in_one_room() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let workspace = manifest(&root.join("Cargo.toml"));
    assert_eq!(
        workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(),
        Some("deny"),
        "the workspace denies unsafe code"
    );
    for package in metadata.workspace_packages() {
        if package.name.as_str() == UNSAFE_ROOM {
            continue;
        }
        let lints = manifest(package.manifest_path.as_std_path());
        assert_eq!(
            lints
                .get("lints")
                .and_then(|lints| lints.get("workspace"))
                .and_then(toml::Value::as_bool),
            Some(true),
            "`{}` takes its lints from the workspace",
            package.name
        );
        let this_file = Path::new(file!()).file_name();
        for file in sources(folder(package))
            .into_iter()
            .filter(|file| file.file_name() != this_file)
        {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("unsafe_code"),
                "{} changes the lint `unsafe_code`",
                file.display()
            );
        }
    }
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata describes this workspace")
}

fn package<'a>(metadata: &'a Metadata, room: &str) -> &'a Package {
    metadata
        .workspace_packages()
        .into_iter()
        .find(|package| package.name.as_str() == room)
        .unwrap_or_else(|| panic!("no room `{room}` in the workspace"))
}

/// A dependency of one room on another.
struct Import {
    room: String,
    import: String,
    kind: DependencyKind,
}

fn import(room: &str, import: &str, kind: DependencyKind) -> Import {
    Import {
        room: room.to_owned(),
        import: import.to_owned(),
        kind,
    }
}

/// Every dependency of a room on a room.
fn imports(metadata: &Metadata) -> Vec<Import> {
    let rooms = metadata.workspace_packages();
    let of = |package: &Package| {
        let dependencies = package.dependencies.iter();
        dependencies
            .filter(|dependency| dependency.path.is_some())
            .map(|dependency| import(&package.name, &dependency.name, dependency.kind))
            .collect::<Vec<_>>()
    };
    rooms.into_iter().flat_map(of).collect()
}

/// The imports that the lists do not allow.
fn breaches(imports: &[Import]) -> Vec<String> {
    let list = |lists: &[(&str, &'static [&'static str])], room: &str| {
        let found = lists.iter().find(|(name, _)| *name == room);
        found.map_or(&[] as &[&str], |(_, list)| *list)
    };
    let breach = |Import { room, import, kind }: &Import| {
        let allowed = list(MAY_IMPORT, room);
        if *kind != DependencyKind::Development && !allowed.contains(&import.as_str()) {
            Some(format!(
                "`{room}` imports `{import}`; it may import {allowed:?}"
            ))
        } else if list(NEVER, room).contains(&import.as_str()) {
            Some(format!(
                "`{room}` imports `{import}`, which it must not even for a test"
            ))
        } else {
            None
        }
    };
    imports.iter().filter_map(breach).collect()
}

/// The ways from `room` to every package of [`NOT_SANS_IO`] that it is linked with, as Cargo
/// resolves its features: `room > package > package`.
fn not_sans_io(room: &str) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--all-features", "--edges", "normal"])
        .args(["--prefix", "depth", "--format", " {p}", "--no-dedupe"])
        .args(["--package", room])
        .current_dir(tidy::tree::root())
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {said}");
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&tree.stdout).lines() {
        // "2 mio v1.0.4", or "1 thiserror-impl v2.0.21 (proc-macro)"
        let (depth, package) = line.split_once(' ').unwrap();
        path.truncate(depth.parse().unwrap());
        path.push(package);
        // A macro runs while the room is compiled; what it depends on is not linked.
        let is_linked = !path.iter().any(|package| package.ends_with("(proc-macro)"));
        let names: Vec<_> = path.iter().map(|package| name(package)).collect();
        if is_linked && NOT_SANS_IO.contains(&name(package)) {
            found.push(names.join(" > "));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The name in "mio v1.0.4".
fn name(package: &str) -> &str {
    package.split(' ').next().unwrap_or(package)
}

fn folder(package: &Package) -> &Path {
    package
        .manifest_path
        .parent()
        .expect("a manifest is in a folder")
        .as_std_path()
}

fn manifest(path: &Path) -> toml::Value {
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name() != Some("target".as_ref()) {
            found.extend(sources(&path));
        } else if path.extension() == Some("rs".as_ref()) {
            found.push(path);
        }
    }
    found
}
