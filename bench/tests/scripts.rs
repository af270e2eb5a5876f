//! `scripts/bench.sh` with a fake `cargo`: what it builds, and what it asks the referee.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Says where it builds, and prints its arguments in the place of building.
const CARGO: &str = r#"#!/bin/sh
case $1 in
    metadata) echo "{\"target_directory\":\"$(dirname "$0")\"}" ;;
    *) echo "$@" >>"$(dirname "$0")/built" ;;
esac
"#;
const BENCH: &str = "#!/bin/sh\necho \"$@\"\n";

/// What was built, and the arguments of the referee.
fn run(args: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("release")).unwrap();
    for (name, text) in [
        ("cargo", CARGO),
        ("cc", "#!/bin/sh\n"),
        ("release/bench", BENCH),
    ] {
        let program = dir.path().join(name);
        fs::write(&program, text).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(root.join("scripts/bench.sh"))
        .args(args)
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .output()
        .unwrap();
    let built = fs::read_to_string(dir.path().join("built")).unwrap();
    let asked = String::from_utf8(output.stdout).unwrap();
    (built, asked)
}

#[test]
fn peers_and_floors_are_built_for_their_own_names_only() {
    for args in [
        &[][..],
        &["--out", "/tmp/peer-results"],
        &["--machine", "peers"],
        &["--contestants", "server-tokio,speer-1,my-floor-2"],
        &["--suite=standard", "--contestants-file", "peer-mine.toml"],
    ] {
        let (built, asked) = run(args);
        assert!(
            !built.contains("peers") && !built.contains("floor_tcp"),
            "{args:?}: {built}"
        );
        assert!(asked.trim_end().ends_with(&args.join(" ")), "{asked}");
    }
    for args in [
        &["--contestants", "server-tokio,floor-tcp"][..],
        &["--contestants=floor-tcp"],
        &["--suite", "referee"],
    ] {
        let (built, _) = run(args);
        assert!(
            built.contains("--example floor_tcp") && !built.contains("-p peers"),
            "{built}"
        );
    }
}
