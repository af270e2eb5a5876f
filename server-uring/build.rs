//! Tells the program which monoio it was built with, for the `ready` line.

fn main() {
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let version = std::fs::read_to_string("../Cargo.lock")
        .ok()
        .and_then(|lock| locked_version(&lock, "monoio").map(str::to_owned))
        .unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=MONOIO_VERSION={version}");
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
    let version = entry.lines().find_map(|l| l.strip_prefix("version = "))?;
    Some(version.trim_matches('"'))
}
