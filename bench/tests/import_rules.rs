//! The layout of the house, checked: which room may import which, and that `unsafe` stays in
//! `uring-net`.
//!
//! The lists below are those of ARCHITECTURE.md; whoever needs another import argues for it there
//! first.

#![expect(
    clippy::unwrap_used,
    reason = "a file of the workspace that cannot be read fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every room, and the rooms it may depend on at run time.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("ws-proto", &[]),
    ("uring-net", &[]),
    ("server-core", &["ws-proto"]),
    ("server-uring", &["server-core", "ws-proto", "uring-net"]),
    ("server-tokio", &["server-core", "ws-proto"]),
    ("loadgen", &["ws-proto", "uring-net"]),
    ("bench", &["loadgen", "server-core"]),
    ("peers", &[]),
];

/// Imports that are wrong in tests and build scripts too.
const NEVER: &[(&str, &[&str])] = &[
    (
        "ws-proto",
        &["uring-net", "server-core", "loadgen", "bench"],
    ),
    (
        "uring-net",
        &["ws-proto", "server-core", "loadgen", "bench"],
    ),
    ("server-core", &["server-uring", "server-tokio", "bench"]),
    ("server-uring", &["server-tokio"]),
    ("server-tokio", &["server-uring", "uring-net"]),
    ("loadgen", &["server-core", "server-uring", "server-tokio"]),
    ("bench", &["server-uring", "server-tokio"]),
    (
        "peers",
        &["ws-proto", "uring-net", "server-core", "loadgen"],
    ),
];

/// What `ws-proto` must not know: sockets, clocks, async runtimes, loggers.
const NOT_SANS_IO: &[&str] = &[
    "async-std",
    "futures",
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
    "smol",
    "socket2",
    "time",
    "chrono",
    "tokio",
    "tokio-util",
    "tracing",
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
    let metadata = metadata();
    for (room, allowed) in MAY_IMPORT {
        for import in imports(
            &metadata,
            room,
            &[DependencyKind::Normal, DependencyKind::Build],
        ) {
            assert!(
                allowed.contains(&import.as_str()),
                "`{room}` imports `{import}`; it may import {allowed:?}"
            );
        }
    }
}

#[test]
fn nothing_imports_what_it_never_may() {
    let metadata = metadata();
    let any = [
        DependencyKind::Normal,
        DependencyKind::Build,
        DependencyKind::Development,
    ];
    for (room, forbidden) in NEVER {
        for import in imports(&metadata, room, &any) {
            assert!(
                !forbidden.contains(&import.as_str()),
                "`{room}` imports `{import}`, be it for a test only"
            );
        }
    }
}

#[test]
fn the_protocol_knows_no_socket_and_no_clock() {
    let metadata = metadata();
    let protocol = package(&metadata, "ws-proto");
    for dependency in &protocol.dependencies {
        if dependency.kind == DependencyKind::Normal {
            assert!(
                !NOT_SANS_IO.contains(&dependency.name.as_str()),
                "`ws-proto` imports `{}`",
                dependency.name
            );
        }
    }
    for file in sources(&folder(protocol).join("src")) {
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

/// The rooms that `room` depends on, in the given ways.
fn imports(metadata: &Metadata, room: &str, kinds: &[DependencyKind]) -> Vec<String> {
    package(metadata, room)
        .dependencies
        .iter()
        .filter(|dependency| dependency.path.is_some() && kinds.contains(&dependency.kind))
        .map(|dependency| dependency.name.clone())
        .collect()
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
