//! `scripts/bench.sh` with a fake `cargo`: what it builds, and what it asks the referee; and what
//! `scripts/pgo.sh` does without a tool for its profiles.

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

/// Answers what the script asks, and compiles a program that does nothing.
const RUSTC: &str = r#"#!/bin/sh
case $1 in
    -vV) printf 'host: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n' ;;
    --print) dirname "$0" ;;
    *) cp "$(dirname "$0")/cc" "$3" ;;
esac
"#;

fn write(dir: &Path, name: &str, text: &str) {
    let program = dir.join(name);
    fs::write(&program, text).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A script that finds the programs in `dir` first.
fn script(name: &str, dir: &Path) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(scripts.join(name));
    command.env("PATH", format!("{}:{path}", dir.display()));
    command
}

/// What was built, and the arguments of the referee.
fn run(args: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("release")).unwrap();
    write(dir.path(), "cargo", CARGO);
    write(dir.path(), "cc", "#!/bin/sh\n");
    write(dir.path(), "release/bench", BENCH);
    let output = script("bench.sh", dir.path()).args(args).output().unwrap();
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

#[test]
fn a_tool_that_cannot_read_the_profiles_is_named_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("profdata");
    write(dir.path(), "cargo", CARGO);
    write(dir.path(), "cc", "#!/bin/sh\n");
    write(dir.path(), "rustc", RUSTC);
    let run = |tool_text| {
        write(dir.path(), "profdata", tool_text);
        let mut command = script("pgo.sh", dir.path());
        let output = command.env("LLVM_PROFDATA", &tool).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let built = dir.path().join("built");

    let said = run("#!/bin/sh\nexit 1\n");
    assert!(said.contains(&*tool.to_string_lossy()), "{said}");
    assert!(said.contains("rustup component add llvm-tools"), "{said}");
    assert!(said.contains("apt-get install llvm-22"), "{said}");
    assert!(!built.exists());

    // The server that this one builds does not exist.
    let said = run("#!/bin/sh\n");
    assert!(said.contains("training: server-uring"), "{said}");
    let built = fs::read_to_string(built).unwrap();
    assert!(
        built.contains("-p server-uring -p server-tokio -p loadgen"),
        "{built}"
    );
}
